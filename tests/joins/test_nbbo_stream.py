"""Best quotes as they come: the batch result's rows, each when no quote can change it."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_driver import drive

import gpukern as gk
from gpukern.join_stream_nbbo import nbbo_streaming

NAMES = ("recv_ts", "symbol", "exchange", "bid", "ask", "bid_size", "ask_size", "stale")
SCHEMA = pa.schema(
    [("recv_ts", pa.int64()), ("symbol", pa.string()), ("exchange", pa.string())]
    + [(n, pa.float64()) for n in NAMES[3:7]]
    + [("stale", pa.bool_())]
)


def quotes(*rows: tuple[Any, ...]) -> pa.Table:
    """(time, exchange, bid, ask) of symbol a."""
    full = [(t, "a", x, b, a, 1.0, 1.0, False) for t, x, b, a in rows]
    return pa.Table.from_pylist([dict(zip(NAMES, r, strict=True)) for r in full], SCHEMA)


def stream(**options: Any) -> Any:
    return nbbo_streaming(SCHEMA, **{"exchanges": ["x", "y", "z"], **options})


def best(out: pa.Table) -> list[tuple[Any, ...]]:
    return [(r["recv_ts"], r["bid"], r["is_expiry"]) for r in out.to_pylist()]


def push(join: Any, name: str, rows: pa.Table) -> Any:
    return join.push(rows)


def test_an_instant_is_emitted_when_no_quote_of_its_time_can_follow() -> None:
    join = stream()
    assert best(join.push(quotes((1, "x", 99, 102)))) == []
    assert best(join.push(quotes((1, "y", 98, 100), (2, "x", 97, 103)))) == [(1, 99, False)]
    assert best(join.flush()) == [(2, 98, False)]


def test_a_quote_runs_out_although_nothing_comes() -> None:
    join = stream(max_age=5)
    join.push(quotes((10, "x", 99, 101), (12, "y", 98, 102)))
    assert best(join.advance(16)) == [(12, 99, False)]
    assert best(join.advance(17)) == [(16, 98, True)]
    assert best(join.advance(30)) == [(18, None, True)]
    assert join.quotes.rows.num_rows == 0
    assert best(join.flush()) == []


ROW = st.tuples(
    st.one_of(st.none(), st.integers(0, 12)),
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["x", "y", "z", "other", None]),
    *[st.one_of(st.none(), st.integers(0, 4).map(float))] * 4,
    st.booleans(),
)


@settings(max_examples=200)
@given(
    st.lists(ROW, max_size=25),
    st.one_of(st.none(), st.integers(0, 5)),
    st.tuples(st.booleans(), st.one_of(st.none(), st.integers(0, 20)), st.booleans()),
    st.integers(0, 12),
    st.booleans(),
    st.data(),
)
def test_any_cut_and_restart_equals_the_batch_result_of_the_accepted_rows(
    rows: list[tuple[Any, ...]],
    max_age: int | None,
    choices: tuple[bool, int | None, bool],
    lateness: int,
    restart: bool,
    data: st.DataObject,
) -> None:
    table = pa.Table.from_pylist([dict(zip(NAMES, r, strict=True)) for r in rows], SCHEMA)
    expiry_rows, until, fees = choices
    options: dict[str, Any] = {
        "max_age": max_age, "expiry_rows": expiry_rows, "until": until,
        "exchanges": ["z", "x", "y"],
        "fee_bps": {"x": 1.0, "y": 30.0, "z": 2.0} if fees else None,
    }  # fmt: skip
    run = drive(
        lambda: stream(lateness=lateness, **options), {"quotes": table}, data,
        restart=restart, push=push, on="recv_ts",
        advance=lambda join, name, watermark: join.advance(watermark),
    )  # fmt: skip
    want = gk.nbbo(run.batch("quotes", lateness), **options)
    assert run.out.to_pylist() == want.to_pylist()
    assert run.out.schema == want.schema
    run.check_counters(quotes=lateness)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("xyz")), max_size=60))
def test_kept_is_one_row_per_exchange_and_what_has_the_latest_time(
    steps: list[tuple[int, str]],
) -> None:
    join, now = stream(), 0
    for gap, name in steps:
        now += gap
        join.push(quotes((now, name, 1.0, 2.0)))
        assert join.quotes.rows.num_rows <= 3 + int((join.quotes.times == now).sum())


def test_advancing_beyond_the_last_quote_is_the_batch_result_until_then() -> None:
    table = quotes((10, "x", 99, 101), (12, "y", 98, 102))
    join = stream(max_age=5)
    parts = [join.push(table), join.advance(17), join.flush()]
    want = gk.nbbo(table, exchanges=["x", "y", "z"], max_age=5, until=16)
    assert pa.concat_tables(parts).to_pylist() == want.to_pylist()


def test_polars_in_polars_out() -> None:
    frame = pl.from_arrow(quotes((1, "x", 1.0, 2.0)))
    join = nbbo_streaming(frame.clear(), exchanges=["x"])
    assert join.push(frame).is_empty()
    assert join.flush()["mid"].to_list() == [1.5]


def test_wrong_use_is_explained() -> None:
    with pytest.raises(gk.PlanError, match="declare exchanges="):
        stream(exchanges=None)
    with pytest.raises(gk.PlanError, match="nbbo_streaming: fee_bps has no fee of exchange 'z'"):
        stream(fee_bps={"x": 1.0, "y": 1.0})
    with pytest.raises(gk.PlanError, match="no column 'ts' on the quotes side"):
        stream(on="ts")
    with pytest.raises(gk.StateError, match="other parameters"):
        stream().restore(stream(max_age=5).snapshot())
