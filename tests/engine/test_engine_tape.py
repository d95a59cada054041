"""Small pushes go through a tape: the same bits as tables, whatever the rows and the plan are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import job as job_module
from gpukern import tape

SIZES = (1, 3, 64, 65, 1, 400, 2, 1_000)


def cuts(table: pa.Table, sizes: tuple[int, ...] = SIZES) -> Iterator[pa.Table]:
    lo = n = 0
    while lo < table.num_rows:
        yield table.slice(lo, sizes[n % len(sizes)])
        lo += sizes[n % len(sizes)]
        n += 1


def pushed(job: gk.Job, batches: Iterator[pa.Table]) -> pa.Table:
    return pa.concat_tables([job.push(batch) for batch in batches])


def same(plan: gk.Plan, table: pa.Table, sizes: tuple[int, ...] = SIZES) -> gk.Job:
    """A job that has seen the table in cuts; what it told is what one run tells."""
    job = plan.start()
    samples.assert_same(pushed(job, cuts(table, sizes)), plan.run(table), plan.output_names)
    return job


@pytest.fixture
def market() -> pa.Table:
    return samples.market()


@pytest.fixture
def default() -> gk.Plan:
    return gk.Plan(gk.default_features())


def test_the_default_features(default: gk.Plan, market: pa.Table) -> None:
    job = same(default, market.select(default.input_columns))
    assert job.tape is not None
    assert job.tape.capacity == 1_024


def test_a_tape_and_pieces_take_turns(
    default: gk.Plan, market: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tape, "MOST", 60)
    same(default, market.select(default.input_columns), (7, 500, 1, 60, 61))


def test_state_is_the_same_as_that_of_pieces(default: gk.Plan, market: pa.Table) -> None:
    table = market.select(default.input_columns)
    taped, plain = default.start(), default.start()
    plain.taped = False
    for batch in cuts(table):
        taped.push(batch)
        plain.push(batch)
    assert plain.tape is None
    assert taped.snapshot() == plain.snapshot()


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_threads_walk_together(
    threads: int, default: gk.Plan, market: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "SHARE", 1)
    table = market.select(default.input_columns)
    whole, alone = default.run(table, threads=1), default.start(threads=1)
    pushed(alone, cuts(table))
    for sizes in (SIZES, (40,), (7, 900)):
        job = default.start(threads=threads)
        samples.assert_same(pushed(job, cuts(table, sizes)), whole, default.output_names)
        assert job.tape is not None
        assert job.snapshot() == alone.snapshot()


def test_a_stream_goes_on_from_a_snapshot(default: gk.Plan, market: pa.Table) -> None:
    table = market.select(default.input_columns)
    job, whole, told = default.start(), default.run(table), []
    for batch in cuts(table, (50, 211)):
        told.append(job.push(batch))
        job = default.resume(job.snapshot())
    samples.assert_same(pa.concat_tables(told), whole, default.output_names)


def test_symbols_come_later_with_parameters_of_their_own() -> None:
    periods = {"A": 3, "B": 5, "C": 8, "D": 13}
    plan = gk.Plan([gk.rolling_mean("x", window=periods), gk.ewma("x", alpha=0.1)], time=None)
    symbol = ["A"] * 40 + ["A", "B"] * 40 + ["D", "C", "A"] * 60
    x = np.random.default_rng(1).normal(size=len(symbol))
    same(plan, pa.table({"symbol": symbol, "x": x}), (9, 1, 30))


def test_a_column_of_nulls_leaves_its_kernels_without_rows() -> None:
    plan = gk.Plan([gk.ewma("x", alpha=0.5), gk.rolling_std("y", 3), gk.midprice("x", "y")])
    n = 30
    table = pa.table(
        {
            "symbol": ["A", "B"] * (n // 2),
            "ts": np.arange(n),
            "x": pa.nulls(n, pa.float64()),
            "y": np.arange(float(n)),
        }
    )
    job = same(plan, table, (4, 1))
    assert job.push(table.slice(0, 0))["ewma"].null_count == 0


def test_integers_floats_and_flags() -> None:
    """Results that are no floats, as columns and as inputs of other kernels."""
    sign = gk.trade_sign("price", "midprice", "midprice")
    plan = gk.Plan(
        [
            sign.alias("sign"),
            gk.rolling_mean(sign, window=5).alias("flow"),
            gk.cusum("price", mu=67_000.0, sigma=5.0, h=4.0),
        ]
    )
    rng = np.random.default_rng(5)
    n = 500
    mid = 67_000 + rng.normal(size=n).cumsum()
    table = pa.table(
        {
            "symbol": rng.choice(["A", "B", "C"], n),
            "ts": np.arange(n),
            "price": pa.array(mid + rng.choice([-1.0, 0.0, 1.0], n), mask=rng.random(n) < 0.2),
            "midprice": mid,
        }
    )
    same(plan, table)


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()])
def test_numbers_of_any_type(kind: pa.DataType) -> None:
    plan = gk.Plan([gk.ewma("x", alpha=0.5), gk.cum_sum("x")], by=None, time=None)
    values = [3, 1, None, 4, 1, 5, 9, 2, 6] * 10
    same(plan, pa.table({"x": pa.array(values, kind)}), (1, 2, 40))
    same(plan, pa.table({"x": pa.array([v or 0 for v in values], kind)}), (1, 2, 40))


def test_one_result_under_two_names() -> None:
    mean = gk.rolling_mean("x", window=4)
    plan = gk.Plan([mean.alias("a"), mean.alias("b"), gk.lag(mean, 1).alias("c")], time=None)
    table = pa.table({"symbol": ["A", "B"] * 20, "x": np.arange(40.0)})
    same(plan, table, (3, 1, 7))


@pytest.mark.parametrize("kind", ["polars", "pandas", "batch"])
def test_every_kind_of_table(kind: str, default: gk.Plan, market: pa.Table) -> None:
    import polars as pl

    table = market.select(default.input_columns).slice(0, 300)
    make = {
        "polars": lambda t: pl.from_arrow(t),
        "pandas": lambda t: t.to_pandas(),
        "batch": lambda t: t.combine_chunks().to_batches()[0],
    }[kind]
    job, whole = default.start(), default.run(make(table))
    last = [job.push(make(table.slice(lo, 100))) for lo in (0, 100, 200)][-1]
    assert type(last) is type(whole)
    expected = default.run(table)["ewma"].to_pylist()[200:]
    assert list(pa.array(last["ewma"])) == list(pa.array(expected))


def test_an_error_leaves_the_state(default: gk.Plan, market: pa.Table) -> None:
    table = market.select(default.input_columns)
    job = default.start()
    job.push(table.slice(0, 100))
    before = job.snapshot()
    with pytest.raises(gk.UnsortedError):
        job.push(table.slice(0, 5))
    assert job.snapshot() == before


def test_windows_in_time() -> None:
    plan = gk.Plan(
        [
            gk.rolling_mean("x", window="5s"),
            gk.rolling_median("x", window="9s"),
            gk.diff("x", k="3s"),
            gk.rolling_max("x", window="700s"),
        ]
    )
    rng = np.random.default_rng(9)
    n = 3_000
    table = pa.table(
        {
            "symbol": rng.choice(["A", "B", "C", "D"], n, p=[0.7, 0.2, 0.09, 0.01]),
            "ts": np.sort(rng.integers(0, 10**12, n)),
            "x": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.1),
        }
    )
    job = same(plan, table)
    assert job.tape is not None
    plain = plan.start()
    plain.taped = False
    pushed(plain, cuts(table))
    assert job.snapshot() == plain.snapshot()


def test_missing_values_may_go_on() -> None:
    plan = gk.Plan([gk.ewma("x", alpha=0.1), gk.lag("x", 2)], nan_policy="propagate")
    n = 200
    x = np.where(np.arange(n) % 7, np.sin(np.arange(n)), np.nan)
    job = same(plan, pa.table({"symbol": ["A", "B"] * (n // 2), "ts": np.arange(n), "x": x}))
    assert job.tape is not None


def test_loading_changes_nothing(default: gk.Plan, market: pa.Table) -> None:
    job = default.start()
    job.push(market.select(default.input_columns))
    before = job.snapshot()
    assert job.tape is not None
    tape.compile_walk(job)
    assert job.snapshot() == before
