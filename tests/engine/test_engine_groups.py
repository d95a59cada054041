"""Ranks of the same window run as one loop, and give what each gives alone."""

from __future__ import annotations

import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import job as job_module
from gpukern import split

OWN = {symbol: 3 + n for n, symbol in enumerate(samples.SYMBOLS)}
WINDOWS: list[int | dict[str, int]] = [1, 9, 300, OWN]


def ranks(window: int | dict[str, int]) -> list[gk.Expr]:
    """Four kernels over one window; two of them look at it before the row enters."""
    return [
        gk.rolling_median("price", window=window).alias("median"),
        gk.outlier_flag_mad("price", window=window),
        gk.rolling_quantile("price", q=0.1, window=window, min_periods=1).alias("tenth"),
        gk.outlier_flag_mad("price", window=window, k=1.0).alias("flag", "score"),
    ]


@pytest.fixture(scope="module")
def market() -> pa.Table:
    return samples.market()


@pytest.mark.parametrize("policy", ["skip", "propagate"])
@pytest.mark.parametrize("window", WINDOWS, ids=["1", "9", "300", "mapping"])
def test_a_group_gives_what_each_kernel_gives_alone(
    window: int | dict[str, int], policy: str, market: pa.Table
) -> None:
    together = gk.Plan(ranks(window), nan_policy=policy)
    assert job_module.Job(together).groups == {0: (0, 1, 2, 3)}
    out = together.run(market)
    for expression in ranks(window):
        alone = gk.Plan([expression], nan_policy=policy)
        samples.assert_same(out, alone.run(market), alone.output_names)


def test_every_kernel_of_a_group_has_its_own_state(market: pa.Table) -> None:
    together = gk.Plan(ranks(9)).start()
    together.push(market)
    together.settle()
    for state, expression in zip(together.states, ranks(9), strict=True):
        job = gk.Plan([expression]).start()
        job.push(market)
        (alone,) = job.states
        count = len(job.symbols)
        assert state.dump(count)[0].tobytes() == alone.dump(count)[0].tobytes()


def test_batches_of_a_group_give_the_same_bits(market: pa.Table) -> None:
    plan = gk.Plan(ranks(9))
    job = plan.start()
    pieces = [job.push(market.slice(lo, 37)) for lo in range(0, market.num_rows, 37)]
    samples.assert_same(pa.concat_tables(pieces), plan.run(market), plan.output_names)


def test_threads_may_take_a_group_apart(market: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = gk.Plan(ranks(9))
    alone = plan.start()
    expected = alone.push(market)
    monkeypatch.setattr(job_module, "SHARE", 1)
    monkeypatch.setattr(split, "LEAST", 100)
    job = plan.start(threads=2)
    # Together while batches are short, each by itself on the long one, and together again.
    parts = [(0, 150), (150, 1_000), (1_150, 150), (1_300, None)]
    out = pa.concat_tables([job.push(market.slice(lo, rows)) for lo, rows in parts])
    samples.assert_same(out, expected, plan.output_names)
    assert job.snapshot() == alone.snapshot()


def test_plain_python_runs_a_group(market: pa.Table) -> None:
    plan = gk.Plan(ranks(9))
    job = plan.start()
    job.jit = False
    few = market.slice(0, 400)
    samples.assert_same(job.push(few), plan.run(few), plan.output_names)


@pytest.mark.parametrize(
    "other",
    [
        gk.rolling_median("price", window=8),
        gk.rolling_median("price", window="9s"),
        gk.rolling_median("size", window=9),
        gk.rolling_median(gk.diff("price"), window=9),
    ],
    ids=["another window", "a window in time", "another column", "a result"],
)
def test_windows_that_differ_are_kept_apart(other: gk.Expr) -> None:
    plan = gk.Plan([gk.rolling_quantile("price", window=9), other])
    assert job_module.Job(plan).groups == {}
