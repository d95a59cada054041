"""nbbo: best prices over exchanges, what counts, what runs out, fees."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk

NAMES = ("recv_ts", "symbol", "exchange", "bid", "ask", "bid_size", "ask_size", "stale")
SCHEMA = pa.schema(
    [("recv_ts", pa.int64()), ("symbol", pa.string()), ("exchange", pa.string())]
    + [(n, pa.float64()) for n in NAMES[3:7]]
    + [("stale", pa.bool_())]
)


def quotes(*rows: tuple[Any, ...]) -> pa.Table:
    """(time, exchange, bid, ask[, bid_size, ask_size, stale]) of symbol a."""
    full = [
        (r[0], "a", r[1], *r[2:4], *(r[4:6] or (1.0, 1.0)), *(r[6:7] or (False,))) for r in rows
    ]
    return pa.Table.from_pylist([dict(zip(NAMES, r, strict=True)) for r in full], SCHEMA)


def best(table: pa.Table, *columns: str, **options: Any) -> list[tuple[Any, ...]]:
    out = gk.nbbo(table, **options).select(list(columns))
    return [tuple(r.values()) for r in out.to_pylist()]


def test_best_prices_sizes_exchanges_and_masks() -> None:
    table = quotes((1, "x", 99, 102, 1, 2), (2, "y", 100, 102, 3, 4), (3, "z", 100, 101, 5, 6))
    assert best(table, "recv_ts", "bid", "ask", "bid_size", "ask_size") == [
        (1, 99, 102, 1, 2), (2, 100, 102, 3, 6), (3, 100, 101, 8, 6),
    ]  # fmt: skip
    assert best(table, "bid_exchange", "ask_exchange", "bid_mask", "ask_mask", "n_exchanges") == [
        ("x", "x", 1, 1, 1), ("y", "x", 2, 3, 2), ("y", "z", 6, 4, 3),
    ]  # fmt: skip
    declared = best(table, "bid_exchange", "bid_mask", exchanges=["z", "y"])
    assert declared == [("y", 2), ("z", 3)]


def test_all_rows_of_an_instant_give_one_row() -> None:
    table = quotes((1, "x", 99, 102), (1, "y", 98, 100), (1, "x", 97, 103))
    assert best(table, "recv_ts", "bid", "ask") == [(1, 98, 100)]


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ([(1, "x", 99, 101)], ("normal", 100, 2)),
        ([(1, "x", 99, 101), (1, "y", 101, 102)], ("locked", 101, 0)),
        ([(1, "x", 99, 101), (1, "y", 103, 104)], ("crossed", 102, -2)),
        ([(1, "x", None, 101)], ("one_sided", None, None)),
        ([(1, "x", 0, 101)], ("one_sided", None, None)),
        ([(1, "x", 99, 101, 0, 1)], ("one_sided", None, None)),
        ([(1, "x", 101, 101)], ("empty", None, None)),
        ([(1, "x", 99, 101, 1, 1, True)], ("empty", None, None)),
        ([(1, "x", 99, 101), (1, "x", None, None)], ("empty", None, None)),
    ],
)
def test_state_and_what_counts(rows: list[tuple[Any, ...]], want: tuple[Any, ...]) -> None:
    assert best(quotes(*rows), "state", "mid", "spread") == [want]


def test_a_quote_runs_out_one_ns_after_its_age() -> None:
    table = quotes((10, "x", 99, 101), (12, "y", 98, 102), (30, "y", 97, 103))
    columns = ("recv_ts", "bid", "oldest_age_ns", "is_expiry")
    assert best(table, *columns, max_age=5) == [
        (10, 99, 0, False), (12, 99, 2, False), (16, 98, 4, True), (18, None, None, True),
        (30, 97, 0, False),
    ]  # fmt: skip
    assert [r[0] for r in best(table, *columns, max_age=5, until=40)] == [10, 12, 16, 18, 30, 36]
    assert [r[0] for r in best(table, *columns, max_age=5, until=16)] == [10, 12, 16, 30]
    plain = best(table, *columns, max_age=5, expiry_rows=False)
    assert plain == [(10, 99, 0, False), (12, 99, 2, False), (30, 97, 0, False)]


def test_a_row_at_the_time_of_expiry_is_the_only_one() -> None:
    table = quotes((10, "x", 99, 101), (16, "y", 98, 102))
    columns = ("recv_ts", "bid", "is_expiry")
    assert best(table, *columns, max_age=5) == [(10, 99, False), (16, 98, False)]


def test_fees_give_the_edge() -> None:
    table = quotes((1, "x", 100.0, 101.0), (1, "y", 100.5, 100.6))
    out = gk.nbbo(table, fee_bps={"x": 0.0, "y": 100.0}).to_pylist()[0]
    assert (out["net_bid"], out["net_bid_exchange"]) == (100.0, "x")
    assert (out["net_ask"], out["net_ask_exchange"]) == (101.0, "x")
    assert out["net_edge_bps"] == pytest.approx(1e4 * -1 / 101)
    with pytest.raises(gk.PlanError, match="no fee of exchange 'y'"):
        gk.nbbo(table, fee_bps={"x": 1.0})


CELL = st.one_of(st.none(), st.integers(0, 4).map(float))
ROW = st.tuples(
    st.integers(0, 3), st.sampled_from("ab"), st.sampled_from("xyz"), CELL, CELL, CELL, CELL,
    st.booleans(),
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(ROW, max_size=25), st.one_of(st.none(), st.integers(0, 5)))
def test_equals_the_definition_at_every_instant(rows: list[Any], max_age: int | None) -> None:
    now, given_rows = 0, []
    for gap, *rest in rows:
        now += gap
        given_rows.append(dict(zip(NAMES, (now, *rest), strict=True)))
    out = gk.nbbo(pa.Table.from_pylist(given_rows, SCHEMA), max_age=max_age).to_pylist()
    assert [(r["recv_ts"], r["symbol"]) for r in out] == sorted(
        {(r["recv_ts"], r["symbol"]) for r in out}
    )
    shown = {(r["recv_ts"], r["symbol"]): r for r in out}
    for symbol in {r["symbol"] for r in given_rows}:
        mine = [r for r in given_rows if r["symbol"] == symbol]
        times = {r["recv_ts"] for r in mine}
        state: dict[str, Any] | None = None
        for t in range(mine[0]["recv_ts"], now + 1):
            held = {r["exchange"]: r for r in mine if r["recv_ts"] <= t}
            bids, asks = [], []
            for name, r in held.items():
                if r["stale"] or (max_age is not None and t - r["recv_ts"] > max_age):
                    continue
                bid = (r["bid"] or 0) > 0 and (r["bid_size"] or 0) > 0
                ask = (r["ask"] or 0) > 0 and (r["ask_size"] or 0) > 0
                if bid and ask and r["bid"] >= r["ask"]:
                    continue
                bids += [(r["bid"], name, r["bid_size"])] * bid
                asks += [(r["ask"], name, r["ask_size"])] * ask
            top = max((b for b, _, _ in bids), default=None)
            low = min((a for a, _, _ in asks), default=None)
            want = {
                "bid": top,
                "ask": low,
                "bid_size": sum(s for b, _, s in bids if b == top) or None,
                "ask_size": sum(s for a, _, s in asks if a == low) or None,
                "bid_exchange": min((n for b, n, _ in bids if b == top), default=None),
                "ask_exchange": min((n for a, n, _ in asks if a == low), default=None),
                "n_exchanges": len({n for _, n, _ in bids + asks}),
            }
            row = shown.get((t, symbol))
            assert (row is not None) >= (t in times)
            if row is not None:
                state = row
                assert row["is_expiry"] == (t not in times)
            assert state is not None
            assert {n: state[n] for n in want} == want  # also where there is no row of its own


def test_types_do_not_depend_on_the_data_and_containers_come_back() -> None:
    table = quotes((1, "x", 99, 102))
    stamp = pa.timestamp("ns", tz="UTC")
    table = table.set_column(0, "recv_ts", table["recv_ts"].cast(stamp))
    table = table.set_column(1, "symbol", table["symbol"].dictionary_encode())
    full = gk.nbbo(table, max_age="5ns")
    assert gk.nbbo(table.slice(0, 0), max_age="5ns").schema == full.schema
    assert full.schema.field("recv_ts").type == stamp
    assert "bid_size" not in gk.nbbo(table.drop_columns(["bid_size", "ask_size"])).column_names
    assert isinstance(gk.nbbo(pl.from_arrow(table)), pl.DataFrame)


def test_wrong_use_is_explained() -> None:
    with pytest.raises(
        gk.UnsortedError, match=r"nbbo: quotes side .* row 1, key \('a',\).*sort it$"
    ):
        gk.nbbo(quotes((2, "x", 1, 2), (1, "x", 1, 2)))
    with pytest.raises(gk.PlanError, match="different names"):
        gk.nbbo(quotes((2, "x", 1, 2)), exchanges=["x", "x"])
    with pytest.raises(gk.PlanError, match="no column 'exchange'"):
        gk.nbbo(quotes((2, "x", 1, 2)).drop_columns("exchange"))
