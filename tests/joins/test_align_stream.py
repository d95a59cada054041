"""Alignment of streams as they come: the batch alignment's rows, each when it is final."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_driver import drive
from join_oracle import side

import gpukern as gk
from gpukern.join_stream_align import align_streaming

SCHEMA = pa.schema({"recv_ts": pa.int64(), "symbol": pa.string(), "px": pa.int64()})


def one(*rows: tuple[Any, ...], symbol: str = "a") -> pa.Table:
    return pa.table({"recv_ts": [t for t, _ in rows], "symbol": [symbol] * len(rows),
                     "px": [v for _, v in rows]}, SCHEMA)  # fmt: skip


def stream(**options: Any) -> Any:
    return align_streaming({"cb": SCHEMA, "kr": SCHEMA}, **options)


def points(out: pa.Table) -> list[tuple[Any, ...]]:
    return [(r["recv_ts"], r["cb_px"], r["kr_px"]) for r in out.to_pylist()]


def push(join: Any, name: str, rows: pa.Table) -> Any:
    return join.push(name, rows)


def test_a_point_is_emitted_when_every_stream_has_passed_it() -> None:
    join = stream()
    assert join.push("cb", one((10, 1), (20, 2), (40, 3))).num_rows == 0
    assert points(join.push("kr", one((20, 7)))) == [(10, 1, None)]
    assert points(join.push("kr", one((35, 8)))) == [(20, 2, 7)]
    assert points(join.advance("kr", 41)) == [(35, 2, 8)]
    assert points(join.flush()) == [(40, 3, 8)]


def test_a_grid_goes_on_as_far_as_all_streams_were_advanced() -> None:
    join = stream(clock=15, max_age=20)
    join.push("cb", one((10, 1)))
    join.push("kr", one((20, 7)))
    join.advance("cb", 46)
    assert points(join.advance("kr", 46)) == [(30, 1, 7), (45, None, None)]
    assert points(join.push("kr", one((46, 8)))) == []
    assert points(join.flush()) == []


def test_an_idle_stream_is_advanced_by_hand_and_late_rows_are_counted() -> None:
    join = stream(lateness={"cb": 0, "kr": 5}, late_policy="side")
    join.push("cb", one((10, 1), (12, 2)))
    assert points(join.advance("kr", 12)) == [(10, 1, None)]
    join.push("kr", one((11, 5), (12, 6)))
    assert join.late["px"].to_pylist() == [5]
    assert join.counters["kr"] == {"given": 2, "accepted": 1, "late": 1, "null": 0}
    assert points(join.flush()) == [(12, 2, 6)]


CLOCKS = st.one_of(st.just("instants"), st.just("events"), st.integers(1, 5))
BOUND = st.one_of(st.none(), st.integers(-8, 8))


@settings(max_examples=200)
@given(
    st.tuples(*(side(v, 12, 8, sort=False) for v in "pvw")),
    CLOCKS,
    st.tuples(BOUND, BOUND, st.integers(-3, 3)),
    st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.sampled_from(["null", "flag"])),
    st.tuples(*[st.integers(0, 9)] * 3),
    st.tuples(st.one_of(st.none(), st.integers(1, 3)), st.booleans()),
    st.data(),
)
def test_any_interleaving_and_restart_equals_the_batch_alignment_of_the_accepted_rows(
    tables: tuple[pa.Table, ...],
    clock: Any,
    bounds: tuple[int | None, int | None, int],
    ageing: tuple[int | None, str],
    lateness: tuple[int, ...],
    extras: tuple[int | None, bool],
    data: st.DataObject,
) -> None:
    inputs = dict(zip("xyz", tables, strict=True))
    options: dict[str, Any] = {
        "on": "ts", "clock": clock, "start": bounds[0], "end": bounds[1], "origin": bounds[2],
        "max_age": ageing[0], "stale": ageing[1],
    }  # fmt: skip
    lags = dict(zip("xyz", lateness, strict=True))
    limit, restart = extras
    run = drive(
        lambda: align_streaming(
            {name: t.schema for name, t in inputs.items()},
            lateness=lags, max_pending=limit, **options,
        ),
        inputs, data, restart=restart, push=push,
        check=lambda join: limit is None or all(
            join._load(feed) <= limit for feed in join.feeds.values()
        ),
    )  # fmt: skip
    want = gk.align({name: run.batch(name, lags[name]) for name in inputs}, **options)
    assert run.out.to_pylist() == want.to_pylist()
    assert run.out.schema == want.schema
    run.check_counters(**lags)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.booleans()), max_size=60))
def test_kept_is_one_row_per_key_and_what_waits_for_the_slowest(
    steps: list[tuple[int, str, bool]],
) -> None:
    join, now = stream(), 0
    for gap, symbol, first in steps:
        now += gap
        join.push("cb" if first else "kr", one((now, 0), symbol=symbol))
        slowest = min(join.watermarks.values())
        for feed in join.feeds.values():
            assert feed.rows.num_rows <= 2 + int((feed.times >= slowest).sum())


def test_at_the_limit_pushes_stop_until_the_slowest_stream_moves() -> None:
    join = stream(max_pending=2)
    rows = one(*((t, t) for t in range(5)))
    join.push("cb", rows)
    assert join.consumed == 2
    join.push("cb", rows.slice(2))
    assert join.consumed == 0
    assert points(join.advance("kr", 9)) == [(0, 0, None)]
    assert points(join.push("cb", rows.slice(2))) == [(t, t, None) for t in (1, 2, 3)]
    assert join.consumed == 3


def test_polars_in_polars_out() -> None:
    frame = pl.from_arrow(one((10, 1)))
    join = align_streaming({"cb": frame.clear(), "kr": frame.clear()})
    assert join.push("cb", frame).is_empty()
    assert join.flush().select("recv_ts", "cb_px", "kr_px").rows() == [(10, 1, None)]


def test_wrong_use_is_explained() -> None:
    with pytest.raises(gk.PlanError, match="streams is empty"):
        align_streaming({})
    with pytest.raises(gk.PlanError, match="align_streaming: clock must be instants, events or"):
        stream(clock=0)
    with pytest.raises(gk.PlanError, match="lateness has nothing for stream 'kr'"):
        stream(lateness={"cb": 1})
    with pytest.raises(gk.PlanError, match="no column 'ts' on the cb side"):
        stream(on="ts")
    with pytest.raises(gk.PlanError, match="side must be cb or kr, got 'okx'"):
        stream().push("okx", one((1, 1)))
    with pytest.raises(gk.StateError, match="other parameters"):
        stream().restore(stream(clock=5).snapshot())
