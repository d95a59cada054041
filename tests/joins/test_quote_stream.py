"""Trades matched to quotes as both come in: the batch match's rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_driver import drive

import gpukern as gk
from gpukern.join_stream_quotes import trade_quote_match_streaming

TRADES = pa.schema({"ts": pa.int64(), "symbol": pa.string(), "price": pa.float64()})
QUOTES = pa.schema(
    {"ts": pa.int64(), "symbol": pa.string(), "bid": pa.float64(), "ask": pa.float64()}
)


def table(schema: pa.Schema, *rows: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema)


def stream(**options: Any) -> Any:
    return trade_quote_match_streaming(TRADES, QUOTES, **{"by": "symbol", **options})


def test_a_trade_needs_no_quote_of_its_own_instant() -> None:
    join = stream()
    join.push_left(table(TRADES, (5, "a", 100.0)))
    out = join.push_right(table(QUOTES, (4, "a", 99.0, 101.0), (5, "a", 98.0, 102.0)))
    assert out["quote_ts"].to_pylist() == [4]


def test_with_a_lag_it_waits_for_less() -> None:
    join = stream(lag=3, strict=False)
    join.push_left(table(TRADES, (8, "a", 100.0)))
    assert join.push_right(table(QUOTES, (5, "a", 99.0, 101.0))).num_rows == 0
    assert join.push_right(table(QUOTES, (6, "a", 98.0, 102.0)))["quote_ts"].to_pylist() == [5]


def test_the_tick_rule_goes_on_from_trade_to_trade() -> None:
    join, signs = stream(), []
    for t, symbol, price in ((1, "a", 5.0), (2, "a", 6.0), (3, "a", 6.0), (4, "b", 9.0),
                             (5, "a", 6.0), (6, "a", 4.0), (7, "a", 4.0)):  # fmt: skip
        join.advance("right", t)
        signs += join.push_left(table(TRADES, (t, symbol, price)))["trade_sign"].to_pylist()
    assert signs == [None, 1, 1, None, 1, -1, -1]
    assert join.extra[0]["price"].to_pylist() == [9.0, 6.0, 4.0]


PRICE = st.one_of(st.none(), st.integers(0, 4).map(float))
TIME = st.one_of(st.none(), st.integers(0, 12), st.integers(0, 3))
SYMBOL = st.sampled_from(["a", "b", None])


@settings(max_examples=200)
@given(
    st.lists(st.tuples(TIME, SYMBOL, PRICE), max_size=18),
    st.lists(st.tuples(TIME, SYMBOL, PRICE, PRICE), max_size=18),
    st.tuples(st.booleans(), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 4))),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.booleans(),
    st.data(),
)
def test_any_interleaving_and_restart_equals_the_batch_match_of_the_accepted_rows(
    trade_rows: list[Any],
    quote_rows: list[Any],
    options: tuple[bool, int, int | None],
    lateness: tuple[int, int],
    restart: bool,
    data: st.DataObject,
) -> None:
    trades, quotes = table(TRADES, *trade_rows), table(QUOTES, *quote_rows)
    chosen = dict(zip(("strict", "lag", "max_age"), options, strict=True))
    run = drive(
        lambda: stream(lateness_left=lateness[0], lateness_right=lateness[1], **chosen),
        {"left": trades, "right": quotes}, data, restart=restart,
    )  # fmt: skip
    near, far = run.batch("left", lateness[0]), run.batch("right", lateness[1])
    want = gk.trade_quote_match(near, far, by="symbol", **chosen)
    assert run.out.to_pylist() == want.to_pylist()
    assert run.out.schema == want.schema


def test_wrong_use_is_explained() -> None:
    with pytest.raises(gk.PlanError, match="no column 'exchange' on the left side"):
        stream(by=("exchange", "symbol"))
    with pytest.raises(gk.PlanError, match="lag must not be negative"):
        stream(lag=-1)
    with pytest.raises(gk.StateError, match="other parameters"):
        stream().restore(stream(lag=1).snapshot())
