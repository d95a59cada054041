"""Imbalance and runs bars against the published formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bar_oracle import Row, assert_close, streams, table, trades
from flow_oracle import flow_bars
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk
from gpukern import bars

EXAMPLE = trades(range(9), [10, 11, 12, 13, 12, 13, 14, 15, 16])
SHORT: dict[str, Any] = {"expected_ticks_init": 3, "span_bars": 3, "span_ticks": 3}


def cells(out: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(out[n].to_pylist() for n in names), strict=True))


def test_imbalance_of_the_worked_example() -> None:
    out = bars.imbalance_bars(EXAMPLE, **SHORT)
    assert cells(out, "known_seq", "n_trades", "theta", "threshold", "expected_ticks") == [
        (2, 3, 2.0, None, 3.0),
        (7, 5, 3.0, 3.0, 3.0),
    ]
    # The next bar expects 4 · 0.875 = 3.5.
    more = pa.concat_tables([EXAMPLE, trades([9, 10, 11], [17, 18, 19])])
    assert bars.imbalance_bars(more, **SHORT).slice(2)["threshold"].to_pylist() == [3.5]


def test_cumulative_runs_of_the_worked_example() -> None:
    out = bars.runs_bars(EXAMPLE, **SHORT)
    assert cells(out, "known_seq", "theta", "threshold") == [(2, 2.0, None), (6, 3.0, 3.0)]
    more = pa.concat_tables([EXAMPLE, trades([9, 10], [17, 18])])
    assert bars.runs_bars(more, **SHORT).slice(2).select(
        ["known_seq", "theta", "threshold", "expected_ticks"]
    ).to_pylist() == [{"known_seq": 10, "theta": 4.0, "threshold": 3.0625, "expected_ticks": 3.5}]


def test_consecutive_runs_of_the_worked_example() -> None:
    out = bars.runs_bars(EXAMPLE, runs="consecutive", fixed_threshold=3)
    assert cells(out, "known_seq", "theta", "threshold", "expected_ticks") == [
        (3, 3.0, 3.0, None),
        (7, 3.0, 3.0, None),
    ]


OPTIONS = st.fixed_dictionaries(
    {"expected_ticks_init": st.integers(1, 6)},
    optional={
        "sign": st.sampled_from(["tick_rule", "side"]),
        "warmup_ticks": st.integers(1, 5),
        "span_bars": st.sampled_from([1, 2, 5.5]),
        "span_ticks": st.sampled_from([1, 3, 20]),
        "min_expected": st.sampled_from([1, 2]),
        "max_expected": st.sampled_from([2.5, 4]),
        "min_ticks": st.integers(1, 3),
        "max_ticks": st.integers(3, 8),
        "fixed_threshold": st.sampled_from([0.5, 2, 7.5]),
    },
)


@pytest.mark.parametrize("kind", ["imbalance", "cumulative", "consecutive"])
@settings(max_examples=120)
@given(streams(), st.sampled_from(["tick", "volume", "dollar"]), OPTIONS)
def test_equals_the_formulas(
    kind: str, rows: list[Row], metric: str, options: dict[str, Any]
) -> None:
    if kind == "imbalance":
        got = bars.imbalance_bars(table(rows), metric, **options)
    else:
        got = bars.runs_bars(table(rows), metric, runs=kind, **options)
    want = flow_bars(rows, kind, metric, **options)
    if [bar["known_seq"] for bar in want] == got["known_seq"].to_pylist():
        for theirs, mine in zip(want, got.to_pylist(), strict=True):
            # θ and E_b are differences of terms: their error is relative to the terms.
            for name in ("theta", "threshold"):
                value = theirs.pop(name)
                assert mine[name] == (None if value is None else pytest.approx(value, 1e-9, 1e-9))
        assert_close(got, want)
    else:
        # The sequences may part only where θ and threshold are equal but for rounding.
        n = next(i for i, b in enumerate(want) if i >= got.num_rows
                 or b["known_seq"] != got["known_seq"][i].as_py())  # fmt: skip
        close = min(abs(abs(b["theta"]) - b["threshold"]) for b in want[n : n + 1]
                    if b["threshold"] is not None)  # fmt: skip
        assert close < 1e-9


@pytest.mark.parametrize("metric", ["tick", "volume", "dollar"])
def test_trades_are_conserved(metric: str) -> None:
    rng = np.random.default_rng(4)
    n = 20_000
    rows = trades(range(n), np.round(100 + np.cumsum(rng.normal(0, 0.05, n)), 2),
                  np.round(rng.exponential(1, n), 3))  # fmt: skip
    for out in (
        bars.imbalance_bars(rows, metric, max_ticks=500),
        bars.runs_bars(rows, metric, max_ticks=500),
        bars.runs_bars(rows, metric, runs="consecutive", max_ticks=500),
    ):
        assert out.num_rows >= 40
        last = out["known_seq"][-1].as_py()
        assert sum(out["n_trades"].to_pylist()) == last + 1
        assert n - last <= 500
        volume = sum(rows["size"].to_pylist()[: last + 1])
        assert sum(out["volume"].to_pylist()) == pytest.approx(volume, rel=1e-12)
        assert max(out["n_trades"].to_pylist()) <= 500


def test_before_a_trade_has_a_sign_bars_close_at_warmup() -> None:
    out = bars.imbalance_bars(trades(range(8), [5] * 6 + [6, 7]), warmup_ticks=3)
    assert cells(out, "n_trades", "threshold") == [(3, None), (3, None)]


def test_least_and_most_trades() -> None:
    flat = trades(range(12), [5, 6] + [6] * 10)
    assert bars.imbalance_bars(flat, fixed_threshold=1, min_ticks=4)["n_trades"].to_pylist() == [
        4, 4, 4,
    ]  # fmt: skip
    assert bars.imbalance_bars(flat, fixed_threshold=50, max_ticks=5)["n_trades"].to_pylist() == [
        5, 5,
    ]  # fmt: skip


def test_the_taker_side_comes_before_the_tick_rule() -> None:
    sides = pa.array([-1, -1, None, -1], pa.int8())
    rows = trades(range(4), [1, 2, 3, 4], side=sides)
    theta = bars.imbalance_bars(rows, fixed_threshold=1, max_ticks=4, min_ticks=4, sign="side")
    assert theta["theta"].to_pylist() == [-2.0]  # − − + −
    with pytest.raises(gk.PlanError, match="sign='side' needs a column 'side'"):
        bars.imbalance_bars(EXAMPLE, sign="side")


def test_a_gain_of_two_in_price_moves_dollar_bars_by_two() -> None:
    rng = np.random.default_rng(5)
    price = np.round(100 + np.cumsum(rng.normal(0, 0.05, 3_000)), 2)
    size = np.round(rng.exponential(1, 3_000), 3)
    for function in (bars.imbalance_bars, bars.runs_bars):
        one, two = (
            function(trades(range(3_000), p, size), "dollar", max_ticks=300)
            for p in (price, 2.0 * price)
        )
        assert one["known_seq"].equals(two["known_seq"])
        assert [2 * t for t in one["theta"].to_pylist()] == two["theta"].to_pylist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"metric": "size"}, "metric must be one of tick, volume, dollar"),
        ({"sign": "bulk"}, "sign must be one of tick_rule, side"),
        ({"expected_ticks_init": 0}, "expected_ticks_init must be a finite number, 1 or more"),
        ({"span_bars": 0.5}, "span_bars must be a finite number, 1 or more"),
        ({"min_ticks": 5, "max_ticks": 4}, "min_ticks 5 is above max_ticks 4"),
        ({"min_expected": 5, "max_expected": 4}, "min_expected 5 is above max_expected 4"),
        ({"fixed_threshold": 0}, "fixed_threshold must be a finite number, above 0"),
        ({"fixed_threshold": {"b": 1}}, "fixed_threshold has no value for symbol 'a'"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        bars.imbalance_bars(EXAMPLE, **options)
    with pytest.raises(gk.PlanError, match="runs must be cumulative or consecutive"):
        bars.runs_bars(EXAMPLE, runs="longest")
