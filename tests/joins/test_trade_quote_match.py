"""trade_quote_match: which quote, what it says about the trade, the sign of the trade."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import gpukern as gk

QUOTES = pa.table(
    {
        "ts": [10, 20, 30, 40, 50],
        "symbol": ["a"] * 5,
        "bid": [99.0, 100.0, 102.0, None, 0.0],
        "ask": [101.0, 100.0, 101.0, 101.0, 9.0],
        "bid_size": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
)


def match(trades: list[tuple[Any, ...]], quotes: pa.Table = QUOTES, **options: Any) -> pa.Table:
    names = ["ts", "price", "side"][: len(trades[0])]
    columns = {n: list(c) for n, c in zip(names, zip(*trades, strict=True), strict=True)}
    columns["symbol"] = ["a"] * len(trades)
    return gk.trade_quote_match(pa.table(columns), quotes, **{"by": "symbol", **options})


def test_the_quote_is_strictly_earlier_by_default() -> None:
    assert match([(10, 1.0), (11, 1.0)])["bid"].to_pylist() == [None, 99.0]
    assert match([(10, 1.0)], strict=False)["bid"].to_pylist() == [99.0]


def test_the_lag_moves_the_match_but_not_the_age() -> None:
    out = match([(25, 1.0)], lag=5)
    assert (out["quote_ts"].to_pylist(), out["quote_age_ns"].to_pylist()) == ([10], [15])


def test_status_prices_mid_and_spread() -> None:
    out = match([(5, 1.0), (11, 1.0), (19, 1.0), (21, 1.0), (31, 1.0), (41, 1.0), (51, 1.0)],
                max_age=5)  # fmt: skip
    assert out["match_status"].to_pylist() == [
        "no_quote", "ok", "stale", "locked", "crossed", "one_sided", "one_sided",
    ]  # fmt: skip
    assert out["bid"].to_pylist() == [None, 99.0, None, 100.0, 102.0, None, 0.0]
    assert out["ask"].to_pylist() == [None, 101.0, None, 100.0, 101.0, 101.0, 9.0]
    assert out["bid_size"].to_pylist() == [None, 1.0, None, 2.0, 3.0, 4.0, 5.0]
    assert out["mid"].to_pylist() == [None, 100.0, None, 100.0, None, None, None]
    assert out["spread"].to_pylist() == [None, 2.0, None, 0.0, None, None, None]
    assert out["quote_ts"].to_pylist() == [None, 10, 10, 20, 30, 40, 50]
    assert out["quote_age_ns"].to_pylist() == [None, 1, 9, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("ts", "price", "want"),
    [
        (11, 98.0, "below_bid"),
        (11, 99.0, "at_bid"),
        (11, 100.5, "inside"),
        (11, 101.0, "at_ask"),
        (11, 102.0, "above_ask"),
        (21, 100.0, "inside"),
        (21, 99.0, "below_bid"),
        (21, 101.0, "above_ask"),
        (31, 101.5, None),
        (5, 100.0, None),
        (11, None, None),
    ],
)
def test_position(ts: int, price: float | None, want: str | None) -> None:
    trades = pa.table({"ts": [ts], "price": pa.array([price], pa.float64()), "symbol": ["a"]})
    out = gk.trade_quote_match(trades, QUOTES, by="symbol")
    assert out["position"].to_pylist() == [want]


def test_sign_is_the_side_then_price_against_mid_then_the_tick_rule() -> None:
    out = match([(1, 5.0, None), (2, 5.0, None), (3, 4.0, None), (4, 4.0, None), (5, 4.0, 1),
                 (11, 100.5, None), (12, 99.5, None), (13, 100.0, None), (14, 100.0, -1),
                 (31, 100.0, None), (32, 99.0, None)])  # fmt: skip
    assert out["trade_sign"].to_pylist() == [None, None, -1, -1, 1, 1, -1, 1, -1, 1, -1]


def test_types_do_not_depend_on_the_data_and_containers_come_back() -> None:
    full = match([(11, 1.0)])
    empty = gk.trade_quote_match(
        full.slice(0, 0).select(["ts", "price", "symbol"]), QUOTES.slice(0, 0), by="symbol"
    )
    assert empty.select(full.column_names).schema == full.schema
    trades = pl.DataFrame({"ts": [11], "price": [101.0], "symbol": ["a"]})
    out = gk.trade_quote_match(trades, pl.from_arrow(QUOTES), by="symbol")
    assert isinstance(out, pl.DataFrame)
    assert out["position"].to_list() == ["at_ask"]


def test_wrong_use_is_explained() -> None:
    with pytest.raises(gk.PlanError, match="trades have a column 'bid' already"):
        gk.trade_quote_match(QUOTES.append_column("price", QUOTES["ask"]), QUOTES, by="symbol")
    with pytest.raises(gk.PlanError, match="no column 'ask' on the right side"):
        match([(1, 1.0)], QUOTES.drop_columns("ask"))
    with pytest.raises(gk.PlanError, match="no column 'exchange' on the left side"):
        match([(1, 1.0)], by=("exchange", "symbol"))
    with pytest.raises(gk.UnsortedError, match=r"left side .*; sort it$"):
        match([(2, 1.0), (1, 1.0)])
