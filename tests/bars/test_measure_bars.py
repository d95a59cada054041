"""Tick, volume and dollar bars: who closes, what is left over, against exact arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from bar_oracle import Row, assert_close, measure_bars, streams, table, trades
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk
from gpukern import bars

EXAMPLE = trades([1, 2, 3, 4, 5], [1] * 5, [3, 4, 5, 1, 9])
FUNCTIONS = {"tick": bars.tick_bars, "volume": bars.volume_bars, "dollar": bars.dollar_bars}


def cells(out: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(out[n].to_pylist() for n in names), strict=True))


def test_the_closing_trade_belongs_to_its_bar_whole() -> None:
    out = bars.volume_bars(EXAMPLE, 7)
    assert cells(out, "last_ts", "volume", "n_trades", "known_seq") == [
        (2, 7.0, 2, 1),
        (5, 15.0, 3, 4),
    ]


def test_a_split_trade_fills_its_bar_exactly() -> None:
    out = bars.volume_bars(EXAMPLE, 7, overshoot="split")
    assert cells(out, "last_ts", "volume", "n_trades", "known_seq") == [
        (2, 7.0, 2, 1), (5, 7.0, 3, 4), (5, 7.0, 1, 4),
    ]  # fmt: skip
    more = bars.volume_bars(
        pa.concat_tables([EXAMPLE, trades([6], [2], [6])]), 7, overshoot="split"
    )
    assert more.slice(3).select(["open", "close", "first_ts", "n_trades"]).to_pylist() == [
        {"open": 1.0, "close": 2.0, "first_ts": 5, "n_trades": 2}
    ]


def test_ten_trades_of_a_tenth_fill_one() -> None:
    tenths = trades(range(30), [1] * 30, [0.1] * 30)
    for overshoot in ("keep", "split"):
        out = bars.volume_bars(tenths, 1.0, overshoot=overshoot)
        assert out["n_trades"].to_pylist() == [10, 10, 10]
    assert bars.dollar_bars(tenths, 0.5)["n_trades"].to_pylist() == [5] * 6


def test_one_trade_fills_many_dollar_bars() -> None:
    out = bars.dollar_bars(trades([1, 2], [50.0, 10.0], [0.7, 1.0]), 10.0, overshoot="split")
    assert cells(out, "notional", "volume", "open", "known_seq") == [
        (10.0, 0.2, 50.0, 0), (10.0, 0.2, 50.0, 0), (10.0, 0.2, 50.0, 0), (10.0, 0.6, 50.0, 1),
    ]  # fmt: skip


def test_tick_bars_are_groups_of_n() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "ts": np.arange(1_000), "symbol": rng.choice(["x", "y"], 1_000),
            "price": rng.uniform(1, 2, 1_000), "size": rng.uniform(0, 1, 1_000),
        }
    )  # fmt: skip
    got = bars.tick_bars(frame, 7).sort_values(["symbol", "known_seq"], ignore_index=True)
    group = frame.groupby("symbol").cumcount() // 7
    wanted = frame.groupby(["symbol", group]).agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"),
        close=("price", "last"), volume=("size", "sum"), n_trades=("size", "count"),
    )  # fmt: skip
    wanted = wanted[wanted["n_trades"] == 7].reset_index()
    for name in ("symbol", "open", "high", "low", "close", "n_trades"):
        assert got[name].tolist() == wanted[name].tolist()
    np.testing.assert_allclose(got["volume"].to_numpy(), wanted["volume"].to_numpy(), rtol=1e-12)


def test_the_closing_trade_gives_the_emission_time() -> None:
    rows = trades(range(4), [1] * 4, recv_ts=pa.array([5, 6, 7, None]))
    assert bars.tick_bars(rows, 2)["emit_recv_ts"].to_pylist() == [6, None]
    assert bars.tick_bars(rows.drop_columns("recv_ts"), 2)["emit_recv_ts"].null_count == 2


def test_thresholds_by_symbol() -> None:
    rows = pa.concat_tables([trades([1, 2, 3, 4], [1] * 4), trades([1, 2], [1] * 2, symbol="b")])
    out = bars.tick_bars(rows, {"a": 3, "b": 2})
    assert cells(out, "symbol", "n_trades") == [("a", 3), ("b", 2)]
    with pytest.raises(gk.PlanError, match="n has no value for symbol 'b'; the mapping has 'a'"):
        bars.tick_bars(rows, {"a": 3})


@settings(max_examples=150)
@given(
    streams(),
    st.sampled_from(["tick", "volume", "dollar"]),
    st.sampled_from([1, 2, 3, 5]),
    st.booleans(),
)
def test_equals_exact_arithmetic(rows: list[Row], metric: str, limit: float, split: bool) -> None:
    options: dict[str, Any] = {}
    if metric != "tick":
        limit, options = limit * 0.75, {"overshoot": "split" if split else "keep"}
    got = FUNCTIONS[metric](table(rows), limit, **options)
    assert_close(got, measure_bars(rows, metric, limit, **options))


@pytest.mark.parametrize("metric", ["volume", "dollar"])
def test_split_bars_hold_the_threshold_and_lose_nothing(metric: str) -> None:
    rng = np.random.default_rng(2)
    n = 5_000
    rows = trades(
        range(n), np.round(rng.uniform(90, 110, n), 2), np.round(rng.exponential(1, n), 3)
    )
    threshold = 3.3 if metric == "volume" else 333.0
    out = FUNCTIONS[metric](rows, threshold, overshoot="split").to_pandas()
    column = "volume" if metric == "volume" else "notional"
    assert (out[column] == threshold).all()
    frame = rows.to_pandas()
    total = (frame["size"] * (frame["price"] if metric == "dollar" else 1.0)).sum()
    assert total - threshold * len(out) == pytest.approx(total % threshold, abs=1e-6)
    ends = out["known_seq"].to_numpy()
    parts = np.add.reduceat(np.ones(len(out)), np.flatnonzero(np.diff(ends, prepend=-1)))
    # Every trade once, and once more for every bar it closes beside its last one.
    closed = len(np.unique(ends))
    assert out["n_trades"].sum() <= n + parts.sum()
    assert out["n_trades"].sum() >= ends[-1] + 1
    assert closed <= len(out)


def test_bars_come_in_the_order_of_their_closing_trades() -> None:
    rows = pa.concat_tables([trades([5, 7], [1, 2], symbol="b"), trades([1, 2, 3, 4], [1] * 4)])
    assert cells(bars.tick_bars(rows, 2), "symbol", "last_ts") == [("b", 7), ("a", 2), ("a", 4)]


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(3)
    n = 150_000
    rows = pa.table(
        {
            "ts": np.arange(n), "symbol": rng.choice([f"s{k}" for k in range(30)], n),
            "price": rng.uniform(1, 2, n), "size": rng.exponential(1, n),
        }
    )  # fmt: skip
    for name, options in (
        ("tick_bars", {"n": 9}),
        ("volume_bars", {"threshold": 4.0}),
        ("dollar_bars", {"threshold": 4.0, "overshoot": "split"}),
    ):
        whole = getattr(bars, name)(rows, *options.values()) if len(options) == 1 else None
        if whole is None:
            whole = bars.dollar_bars(rows, 4.0, overshoot="split")
        stream = bars.streaming(name, rows.schema, **options)
        parts = [stream.push(rows.slice(at, 20_000)) for at in range(0, n, 20_000)]
        assert pa.concat_tables(parts).equals(whole)


def test_empty_input_has_the_same_schema() -> None:
    for function in FUNCTIONS.values():
        none = function(EXAMPLE.slice(0, 0), 3)
        assert none.num_rows == 0
        assert none.schema == function(EXAMPLE, 3).schema


def test_disorder_is_an_error_or_sorted() -> None:
    rows = EXAMPLE.take([0, 2, 1, 3, 4])
    with pytest.raises(gk.UnsortedError, match=r"row 2, key .* 2 follows 3; sort them or"):
        bars.volume_bars(rows, 7)
    assert bars.volume_bars(rows, 7, sort=True).equals(bars.volume_bars(EXAMPLE, 7))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda t: bars.tick_bars(t, 0), "n must be a finite number, above 0, got 0"),
        (lambda t: bars.tick_bars(t, 2.5), "n must be a whole number, got 2.5"),
        (lambda t: bars.volume_bars(t, float("inf")), "threshold must be a finite number"),
        (lambda t: bars.volume_bars(t, "1"), "threshold must be a finite number, above 0, got '1'"),
        (lambda t: bars.dollar_bars(t, {"a": -1.0}), "threshold must be a finite number"),
        (lambda t: bars.volume_bars(t, 1, overshoot="carry"), "overshoot must be keep or split"),
        (lambda t: bars.volume_bars(t, 1e-7, overshoot="split"), "row 0 of 3 would fill more than"),
        (lambda t: bars.tick_bars(t.drop_columns("size"), 1), "no column 'size'"),
    ],
)
def test_wrong_use_is_explained(call: Any, match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        call(EXAMPLE)
