"""align: the state of several streams at instants, events and grid points."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_oracle import matching_row, sides

import gpukern as gk


def one(*rows: tuple[int, int], value: str = "px") -> pa.Table:
    return pa.table({"recv_ts": [t for t, _ in rows], "symbol": ["a"] * len(rows),
                     value: [v for _, v in rows]})  # fmt: skip


CB, KR = one((10, 1), (20, 2), (40, 3)), one((20, 7), (35, 8))


def aligned(**options: Any) -> list[tuple[Any, ...]]:
    out = gk.align({"cb": CB, "kr": KR}, **options)
    return [(r["recv_ts"], r["cb_px"], r["kr_px"]) for r in out.to_pylist()]


def test_instants_show_the_state_after_all_rows_of_a_time() -> None:
    out = gk.align({"cb": CB, "kr": KR})
    assert out.column_names == [
        "symbol", "recv_ts", "cb_px", "cb_recv_ts", "cb_age_ns", "kr_px", "kr_recv_ts", "kr_age_ns",
    ]  # fmt: skip
    assert aligned() == [(10, 1, None), (20, 2, 7), (35, 2, 8), (40, 3, 8)]
    assert out["kr_age_ns"].to_pylist() == [None, 0, 0, 5]


def test_a_grid_starts_at_the_first_point_of_the_key_and_old_values_go() -> None:
    assert aligned(clock=15, max_age=10) == [(15, 1, None), (30, 2, 7)]
    assert aligned(clock=15, max_age=9) == [(15, 1, None), (30, None, None)]
    assert aligned(clock=15, max_age=9, stale="flag") == [(15, 1, None), (30, 2, 7)]
    kept = gk.align({"cb": CB, "kr": KR}, clock=15, max_age=9)
    assert kept["cb_recv_ts"].to_pylist() == [10, 20]
    assert kept["cb_age_ns"].to_pylist() == [5, 10]
    assert [t for t, *_ in aligned(clock=15, origin=-8)] == [22, 37]


def test_start_and_end_limit_the_grid_and_no_key_has_points_before_its_first_row() -> None:
    assert aligned(clock=20, start=-25, end=60) == [(20, 2, 7), (40, 3, 8), (60, 3, 8)]
    assert aligned(clock=20, start=21, end=59) == [(40, 3, 8)]


def test_events_show_the_state_after_each_row() -> None:
    out = gk.align({"cb": CB, "kr": KR}, clock="events")
    assert out["source"].to_pylist() == ["cb", "cb", "kr", "kr", "cb"]
    assert list(zip(out["cb_px"].to_pylist(), out["kr_px"].to_pylist(), strict=True)) == [
        (1, None), (2, None), (2, 7), (2, 8), (3, 8),
    ]  # fmt: skip
    late = gk.align({"cb": CB, "kr": KR}, clock="events", start=30, end=35)
    assert late.select(out.column_names).equals(out.slice(3, 1))


@settings(max_examples=100)
@given(sides(), st.one_of(st.just("instants"), st.integers(1, 5)))
def test_equals_an_as_of_join_per_stream(pair: tuple[pa.Table, pa.Table], clock: Any) -> None:
    out = gk.align({"x": pair[0], "y": pair[1]}, on="ts", clock=clock)
    rows = [t.to_pylist() for t in pair]
    present = [r for side in rows for r in side if r["ts"] is not None and r["symbol"]]
    if clock == "instants":
        want = {(r["ts"], r["symbol"]) for r in present}
    else:
        last = max((r["ts"] for r in present), default=0)
        want = set()
        for symbol in {r["symbol"] for r in present}:
            first = min(r["ts"] for r in present if r["symbol"] == symbol)
            want |= {(t, symbol) for t in range(first, last + 1) if t % clock == 0}
    assert list(zip(out["ts"].to_pylist(), out["symbol"].to_pylist(), strict=True)) == sorted(want)
    for point in out.to_pylist():
        for name, value, side in (("x", "p", rows[0]), ("y", "v", rows[1])):
            n = matching_row(point, side)
            assert point[f"{name}_{value}"] == (None if n is None else side[n][value])
            assert point[f"{name}_ts"] == (None if n is None else side[n]["ts"])


@settings(max_examples=60)
@given(sides())
def test_events_count_up_row_by_row(pair: tuple[pa.Table, pa.Table]) -> None:
    out = gk.align({"x": pair[0], "y": pair[1]}, on="ts", clock="events").to_pylist()
    events = [
        (r["ts"], n, row, r)
        for n, side in enumerate(pair)
        for row, r in enumerate(side.to_pylist())
        if r["ts"] is not None and r["symbol"]
    ]
    state: dict[tuple[int, str], Any] = {}
    want = []
    for t, n, _, row in sorted(events, key=lambda e: e[:3]):
        state[n, row["symbol"]] = row.get("p", row.get("v"))
        want.append((t, "xy"[n], state.get((0, row["symbol"])), state.get((1, row["symbol"]))))
    assert [(r["ts"], r["source"], r["x_p"], r["y_v"]) for r in out] == want


def test_types_do_not_depend_on_the_data() -> None:
    stamped = CB.set_column(0, "recv_ts", CB["recv_ts"].cast(pa.timestamp("us", tz="UTC")))
    stamped = stamped.set_column(1, "symbol", stamped["symbol"].dictionary_encode())
    for clock in ("instants", "events", "5ns"):
        full = gk.align({"cb": stamped, "kr": stamped}, clock=clock)
        none = gk.align({"cb": stamped.slice(0, 0), "kr": stamped.slice(0, 0)}, clock=clock)
        assert none.schema == full.schema
        assert full.schema.field("recv_ts").type == pa.timestamp("ns", tz="UTC")


def test_polars_in_polars_out() -> None:
    out = gk.align({"cb": pl.from_arrow(CB), "kr": pl.from_arrow(KR)})
    assert isinstance(out, pl.DataFrame)
    assert out["kr_px"].to_list() == [None, 7, 8, 8]


@pytest.mark.parametrize(
    ("streams", "options", "match"),
    [
        ({}, {}, "streams is empty"),
        ({"cb": CB}, {"clock": 0}, "a step above 0"),
        ({"cb": CB}, {"stale": "drop"}, "stale must be null or flag"),
        ({"cb": CB}, {"on": "ts"}, "no column 'ts' on the cb side"),
        ({"cb": CB, "cb_px": one((1, 1), value="age")}, {}, None),
        (
            {"a": one((1, 1), value="b_c"), "a_b": one((1, 1), value="c")},
            {},
            "two columns would be",
        ),
    ],
)
def test_wrong_use_is_explained(
    streams: dict[str, Any], options: dict[str, Any], match: str | None
) -> None:
    if match is None:
        assert gk.align(streams, **options).num_rows == 4
        return
    with pytest.raises(gk.PlanError, match=match):
        gk.align(streams, **options)


def test_an_unsorted_stream_is_named() -> None:
    with pytest.raises(gk.UnsortedError, match=r"align: kr side .* row 1, .*; sort it$"):
        gk.align({"cb": CB, "kr": one((5, 1), (4, 2))})
