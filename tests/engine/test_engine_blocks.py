"""Whole blocks go abreast, each in a lane: the bits of rows one by one, wherever the rows end."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import checks
import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import codegen, kernel
from gpukern.forms import cpu_lowest, cpu_wide
from gpukern.forms.cpu import BLOCK

KERNELS = {n: k for n, k in kernel.kernels().items() if k.form in ("fold", "rank", "composite")}
# More blocks than there are lanes, of windows of 9 rows and of cumulative folds; too few for it.
ROWS, FEW = BLOCK * (cpu_wide.LANES + 4) + 50, 20


@cache
def table() -> pa.Table:
    return samples.table({"BTC/USD": samples.columns(ROWS, seed=3)})


@pytest.mark.parametrize("name", KERNELS)
def test_rows_at_once_give_the_bits_and_the_state_of_rows_by_the_few(name: str) -> None:
    subject = checks.Subject(KERNELS[name])
    rows = subject.narrow(table())
    at_once, few = subject.plan.start(threads=1), subject.plan.start(threads=1)
    whole = at_once.push(rows)
    samples.assert_same(checks.push_all(few, rows, range(FEW, ROWS, FEW)), whole, subject.names)
    assert at_once.snapshot() == few.snapshot()


def numbers(rows: int, seed: int = 0) -> np.ndarray:
    return 67000.0 + np.random.default_rng(seed).normal(size=rows)


def both_ways(expression: gk.Expr, x: np.ndarray) -> list[float | None]:
    """The first output of rows pushed at once, which is that of one row at a time."""
    plan = gk.Plan([expression], by=None, time=None)
    rows = pa.table({"x": x})
    at_once, by_row = plan.start(), plan.start()
    whole = at_once.push(rows)
    single = pa.concat_tables([by_row.push(rows.slice(n, 1)) for n in range(len(x))])
    samples.assert_same(single, whole, plan.output_names)
    assert at_once.snapshot() == by_row.snapshot()
    return whole[plan.output_names[0]].to_pylist()


@pytest.mark.parametrize("blocks", range(cpu_wide.LEAST - 1, 2 * cpu_wide.LANES + 3))
@pytest.mark.parametrize("window", [cpu_wide.SHORTEST, 20])
def test_any_number_of_blocks(window: int, blocks: int) -> None:
    for odd in (0, 1, window - 1):
        x = numbers(window * (blocks + 1) + odd, blocks)
        got = both_ways(gk.rolling_mean("x", window=window), x)
        expected = [x[n - window : n].mean() for n in range(window, len(x) + 1)]
        np.testing.assert_allclose(np.array(got[window - 1 :], float), expected, rtol=1e-15)


@pytest.mark.parametrize("window", [1, 3, 7, 8, 20, 33])
@pytest.mark.parametrize("name", ["rolling_mean", "rolling_sum", "rolling_max", "rolling_var"])
def test_missing_rows_do_not_exist(name: str, window: int) -> None:
    x = numbers(601, window)
    x[[50, 51, 300]] = np.nan
    both_ways(gk.kernels()[name]("x", window=max(window, 2)), x)


@pytest.mark.parametrize("window", [cpu_wide.LONGEST, cpu_wide.LONGEST + 1])
def test_the_longest_window(window: int) -> None:
    x = numbers(5 * window)
    plan = gk.Plan([gk.rolling_sum("x", window=window)], by=None, time=None)
    rows = pa.table({"x": x})
    job = plan.start()
    parts = [job.push(rows.slice(a, b - a)) for a, b in pairwise([*range(0, len(x), 999), len(x)])]
    samples.assert_same(pa.concat_tables(parts), plan.start().push(rows), plan.output_names)


def test_blocks_before_the_row() -> None:
    x = numbers(400)
    got = both_ways(gk.donchian_channel("x", "x", window=9, include_current=False), x)
    assert got == [None] * 9 + [x[n - 9 : n].max() for n in range(9, 400)]


# ------------------------------------------------------------------- the lowest of a window


def tail(x: np.ndarray, window: int, alpha: float) -> list[float]:
    """Mean of the values up to the quantile, from the definition."""
    means = []
    for n in range(window, len(x) + 1):
        rows = x[n - window : n]
        means.append(-rows[rows <= np.quantile(rows, alpha)].mean())
    return means


@pytest.mark.parametrize("values", ["distinct", "ticks", "mostly zero"])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.0505, 0.2])
@pytest.mark.parametrize("window", [20, 100])
def test_the_tail_of_a_window(window: int, alpha: float, values: str) -> None:
    x = np.random.default_rng(window).normal(size=14 * window + 3)
    if values == "ticks":
        x = np.round(x, 1)
    elif values == "mostly zero":
        x[np.arange(len(x)) % 9 > 0] = 0.0
    got = both_ways(gk.historical_cvar("x", window=window, alpha=alpha), x)
    expected = tail(x, window, alpha)
    np.testing.assert_allclose(got[window - 1 :], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("alpha", [0.0, 0.03, 0.5])
def test_a_low_quantile_with_infinities_and_both_zeros(alpha: float) -> None:
    x = np.random.default_rng(7).normal(size=1_500)
    x[200:260] = np.inf
    x[400:460] = -np.inf
    x[600:900:2], x[601:900:2] = -0.0, 0.0
    window = 25
    got = both_ways(gk.rolling_quantile("x", window=window, q=alpha), x)
    finite = [n for n in range(window - 1, len(x)) if np.isfinite(x[n - window + 1 : n + 1]).all()]
    expected = [np.quantile(x[n - window + 1 : n + 1], alpha) for n in finite]
    np.testing.assert_allclose([got[n] for n in finite], expected, rtol=1e-12, atol=1e-15)


def test_nan_in_a_window_of_which_the_lowest_matter() -> None:
    x = np.random.default_rng(8).normal(size=2_000)
    x[[700, 1_400]] = np.nan
    plan = gk.Plan([gk.historical_var("x", window=20)], by=None, time=None, nan_policy="propagate")
    rows = pa.table({"x": x})
    job = plan.start()
    few = pa.concat_tables([job.push(rows.slice(n, 30)) for n in range(0, len(x), 30)])
    samples.assert_same(few, plan.start().push(rows), plan.output_names)


@pytest.mark.parametrize("size", [15, 16, 17, 63, 64, 65, 161, 900])
@pytest.mark.parametrize("symbols", [2, 8, 19])
@pytest.mark.parametrize("method", ["tail_mean", "acerbi"])
def test_runs_of_any_length_of_which_the_lowest_matter(
    method: str, symbols: int, size: int
) -> None:
    rng = np.random.default_rng(size)
    n = 3_000
    rows = pa.table({"symbol": rng.integers(0, symbols, n), "x": np.round(rng.normal(size=n), 1)})
    cvar = gk.historical_cvar("x", window=20, alpha=0.17, method=method)
    plan = gk.Plan([cvar, gk.rolling_quantile("x", window=70, q=0.05)], time=None)
    cut, one = plan.start(), plan.start()
    parts = [cut.push(rows.slice(lo, size)) for lo in range(0, n, size)]
    single = [one.push(rows.slice(lo, 1)) for lo in range(n)]
    samples.assert_same(pa.concat_tables(parts), pa.concat_tables(single), plan.output_names)
    assert cut.snapshot() == one.snapshot()
    # In between, a row at a time needs the order that runs leave undone.
    cut.push(rows.slice(0, 40))
    one.push(rows.slice(0, 40))
    turns = [cut.push(rows.slice(lo, 1)) for lo in range(40, 60)]
    samples.assert_same(pa.concat_tables(turns), one.push(rows.slice(40, 20)), plan.output_names)


@pytest.mark.parametrize("nan_policy", ["skip", "propagate"])
def test_many_symbols_of_which_the_lowest_matter(nan_policy: str) -> None:
    # Some have short histories, some no rows in a batch, one many; NaN now and then.
    rng = np.random.default_rng(11)
    n, share = 40_000, np.r_[0.3, np.full(28, 0.024), np.full(14, 0.002)]
    x = np.round(rng.normal(size=n), 2)
    x[rng.integers(n // 2, n, 9)] = np.nan
    rows = pa.table({"symbol": rng.choice(len(share), n, p=share / share.sum()), "x": x})
    cvar, quantile = gk.historical_cvar("x", window=50), gk.rolling_quantile("x", window=30, q=0.07)
    plan = gk.Plan([cvar, quantile], time=None, nan_policy=nan_policy)
    one, cut = plan.start(), plan.start(threads=2)
    parts = [cut.push(rows.slice(lo, 1_000)) for lo in range(0, n, 1_000)]
    few = [one.push(rows.slice(lo, 40)) for lo in range(0, n, 40)]
    samples.assert_same(pa.concat_tables(parts), pa.concat_tables(few), plan.output_names)
    assert cut.snapshot() == one.snapshot()


def test_nothing_is_counted_for_a_tail_that_nobody_reads() -> None:
    # With prices in ticks many values equal the last that counts.
    x = np.round(np.random.default_rng(17).normal(size=3_000), 1)
    rows = pa.table({"x": x})
    var, cvar = gk.historical_var("x", window=50), gk.historical_cvar("x", window=50)
    one = gk.Plan([var], by=None, time=None)
    both, other = (gk.Plan(e, by=None, time=None) for e in ([var, cvar], [cvar]))
    assert [p.steps[0].template.unread for p in (one, both, other)] == [{"cvar"}, set(), set()]
    assert "counted" not in one.steps[0].template.text
    assert "counted" in both.steps[0].template.text
    whole = both.start().push(rows)
    samples.assert_same(one.start().push(rows), whole, one.output_names)
    samples.assert_same(other.start().push(rows), whole, other.output_names)
    # The state is the same, so each goes on where another was.
    job = one.start()
    job.push(rows.slice(0, 1_000))
    for plan in (one, both, other):
        rest = plan.resume(job.snapshot()).push(rows.slice(1_000))
        samples.assert_same(rest, whole.slice(1_000), plan.output_names)


COUNTING = {n: k for n, k in kernel.kernels(hidden=True).items() if k.counting}


@pytest.mark.parametrize("name", COUNTING)
def test_the_count_matters_to_outputs_that_say_so(name: str) -> None:
    # The last value that is read is not the lowest, and has equals beyond.
    subject, values = COUNTING[name], np.r_[-9.0, np.full(20, -2.0), np.arange(19.0)]
    scope = {"s": values, "n": len(values)} | subject.bind({})
    scope |= {p.name: p.options.index(scope[p.name]) for p in subject.params if p.options}

    def call(function: str, **more: int) -> Any:
        known, body = scope | more, subject.functions[function]
        return body(**{a: known[a] for a in codegen.arguments(body)})

    reach = call("reach")
    few, many = (call("value", reach=reach, within=count) for count in (reach, reach + 7))
    differ = {o.name for o, a, b in zip(subject.outputs, few, many, strict=True) if a != b}
    assert differ == set(subject.counting)


@pytest.mark.parametrize("gap", [None, 0, 30, 48, 49, 50, 51, 70])
@pytest.mark.parametrize("min_periods", [None, 1, 49])
def test_a_window_that_fills_up(min_periods: int | None, gap: int | None) -> None:
    x = np.random.default_rng(13).normal(size=130)
    if gap is not None:
        x[gap] = np.nan
    rows = pa.table({"x": x})
    var = gk.historical_var("x", window=50, min_periods=min_periods)
    plan = gk.Plan([var], by=None, time=None, nan_policy="propagate")
    one = plan.start()
    whole = pa.concat_tables([one.push(rows.slice(n, 1)) for n in range(len(x))])
    for end in (1, 20, 48, 49, 50, 51, 66):
        job, few = plan.start(), plan.start()
        parts = [job.push(rows.slice(0, end))]
        few.push(rows.slice(0, 1))
        for n in range(1, end):
            few.push(rows.slice(n, 1))
        assert job.snapshot() == few.snapshot()
        parts.append(plan.resume(job.snapshot()).push(rows.slice(end)))
        samples.assert_same(pa.concat_tables(parts), whole, plan.output_names)


def test_as_many_values_are_kept_as_a_row_of_lanes_has() -> None:
    assert cpu_lowest.KEPT == cpu_wide.LANES
