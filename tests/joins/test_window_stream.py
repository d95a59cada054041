"""The streaming window join: the batch join's rows, each as soon as its window is complete."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_driver import drive
from join_oracle import sides

import gpukern as gk
from gpukern.join_stream_window import window_join_streaming

LEFT = pa.schema({"ts": pa.int64(), "symbol": pa.string(), "p": pa.int64()})
RIGHT = pa.schema({"ts": pa.int64(), "symbol": pa.string(), "v": pa.int64()})
COUNT = {"n": ("count", "*")}


def stream(**options: Any) -> Any:
    return window_join_streaming(
        LEFT, RIGHT, **{"on": "ts", "by": "symbol", "aggs": COUNT, **options}
    )


def table(schema: pa.Schema, *rows: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema)


def test_a_row_waits_until_no_row_of_its_window_can_follow() -> None:
    join = stream(before=2, after=3)
    join.push_left(table(LEFT, (5, "a", 0)))
    assert join.push_right(table(RIGHT, (2, "a", 0), (3, "a", 0), (8, "a", 0))).num_rows == 0
    assert join.push_right(table(RIGHT, (8, "a", 0))).num_rows == 0
    assert join.push_right(table(RIGHT, (9, "b", 0)))["n"].to_pylist() == [3]


def test_an_open_end_needs_no_row_after_it() -> None:
    join = stream(before=2, after=3, closed="left")
    join.push_left(table(LEFT, (5, "a", 0)))
    assert join.push_right(table(RIGHT, (3, "a", 0), (8, "b", 0)))["n"].to_pylist() == [1]


def test_rows_leave_in_order_of_time_and_arrival() -> None:
    join = stream(before=1, lateness_left=5)
    join.push_left(table(LEFT, (7, "a", 1), (5, "a", 2), (5, None, 3), (7, "b", 4)))
    join.advance("left", 8)
    assert join.advance("right", 5).num_rows == 0
    assert join.advance("right", 6)["p"].to_pylist() == [2, 3]  # a row without key waits its turn
    assert join.flush()["p"].to_pylist() == [1, 4]


def test_a_long_window_holds_up_the_rows_behind_it() -> None:
    bounds = pa.schema({"ts": pa.int64(), "lo": pa.int64(), "hi": pa.int64()})
    right = pa.schema({"ts": pa.int64()})
    join = window_join_streaming(bounds, right, on="ts", begin="lo", end="hi", reach=4, aggs=COUNT)
    join.push_right(table(right, (1,), (3,)))
    join.push_left(table(bounds, (5, 1, 9), (6, 3, 4), (7, 9, 8), (8, None, 9)))
    assert join.advance("right", 9).num_rows == 0
    assert join.advance("right", 10)["n"].to_pylist() == [2, 1, 0, 0]


@settings(max_examples=150)
@given(
    sides(most=18, span=8, sort=False),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.sampled_from(["wj", "both", "left", "right", "neither"]),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.booleans(),
    st.data(),
)
def test_any_interleaving_and_restart_equals_the_batch_join_of_the_accepted_rows(
    pair: tuple[pa.Table, pa.Table],
    around: tuple[int, int],
    kind: str,
    lateness: tuple[int, int],
    restart: bool,
    data: st.DataObject,
) -> None:
    left, right = pair
    right = right.append_column("x", pc.multiply(right["v"].cast(pa.float64()), 0.1))
    mode, closed = ("wj", "both") if kind == "wj" else ("wj1", kind)
    aggs = {f: (f, "x") for f in ("min", "max", "avg", "sum", "count", "first", "last")}
    options: dict[str, Any] = {
        "on": "ts", "by": "symbol", "before": around[0], "after": around[1], "mode": mode,
        "closed": closed, "aggs": {**aggs, "vwap": ("vwap", "x", "v"), **COUNT},
    }  # fmt: skip
    run = drive(
        lambda: window_join_streaming(
            left.schema, right.schema, lateness_left=lateness[0], lateness_right=lateness[1],
            **options,
        ),
        {"left": left, "right": right}, data, restart=restart,
    )  # fmt: skip
    near, far = run.batch("left", lateness[0]), run.batch("right", lateness[1])
    assert run.out.equals(gk.window_join(near, far, **options))
    run.check_counters(left=lateness[0], right=lateness[1])


@settings(max_examples=60)
@given(
    sides(most=18, span=8, sort=False),
    st.lists(st.tuples(st.integers(0, 6), st.integers(-4, 6)), min_size=18, max_size=18),
    st.sampled_from(["wj", "wj1"]),
    st.data(),
)
def test_windows_with_bounds_of_their_own_equal_the_batch_join(
    pair: tuple[pa.Table, pa.Table], bounds: list[tuple[int, int]], mode: str, data: st.DataObject
) -> None:
    left, right = pair
    times = left["ts"].to_pylist()
    for name, n, sign in (("lo", 0, -1), ("hi", 1, 1)):
        cells = [
            None if t is None else t + sign * b[n] for t, b in zip(times, bounds, strict=False)
        ]
        left = left.append_column(name, pa.array(cells, pa.int64()))
    options = {"on": "ts", "by": "symbol", "begin": "lo", "end": "hi", "mode": mode, "aggs": COUNT}
    run = drive(
        lambda: window_join_streaming(left.schema, right.schema, reach=6, **options),
        {"left": left, "right": right}, data,
    )  # fmt: skip
    assert run.out.equals(gk.window_join(run.batch("left"), run.batch("right"), **options))


def test_kept_are_the_rows_that_a_window_can_still_reach() -> None:
    rows = table(RIGHT, (1, "a", 1), (2, "b", 2), (3, "a", 3), (4, "a", 4), (8, "a", 5))
    for mode, want in (("wj1", [4, 5]), ("wj", [2, 3, 4, 5])):
        join = stream(before=2, mode=mode)
        join.push_right(rows)
        join.advance("left", 6)
        assert join.right.rows["v"].to_pylist() == want
        join.push_left(table(LEFT, (7, "a", 0)))
        join.advance("left", 20)
        assert join.left.rows.num_rows == 0
        assert join.right.rows["v"].to_pylist() == ([] if mode == "wj1" else [2, 5])


def test_a_full_buffer_stops_the_push_until_the_other_side_moves() -> None:
    join = stream(max_buffer_right=2)
    rows = table(RIGHT, *((t, "a", t) for t in range(5)))
    join.push_right(rows)
    assert join.consumed == 2
    join.advance("left", 3)
    join.push_right(rows.slice(2))
    assert join.consumed == 3


def test_windows_that_see_later_rows_are_marked() -> None:
    assert stream(before=5).plan.causal
    assert not stream(before=5, after=1).plan.causal


def test_polars_in_polars_out() -> None:
    left, right = pl.DataFrame({"ts": [4]}), pl.DataFrame({"ts": [3], "v": [2]})
    join = window_join_streaming(
        left.clear(), right.clear(), on="ts", before=1, aggs={"s": ("sum", "v")}
    )
    join.push_right(right)
    assert join.push_left(left).is_empty()
    assert join.flush().rows() == [(4, 2)]


def test_wrong_use_is_explained() -> None:
    with pytest.raises(gk.PlanError, match="reach= says how long before"):
        stream(reach=3)
    with pytest.raises(gk.PlanError, match="window_join_streaming: mode must be wj or wj1"):
        stream(mode="aj")
    with pytest.raises(gk.PlanError, match="no column 'w' on the right side"):
        stream(aggs={"n": ("sum", "w")})
    bounded = pa.schema({"ts": pa.int64(), "lo": pa.int64(), "hi": pa.int64()})
    right = pa.schema({"ts": pa.int64()})
    options: dict[str, Any] = {"on": "ts", "begin": "lo", "end": "hi", "aggs": COUNT}
    with pytest.raises(gk.PlanError, match="reach= says"):
        window_join_streaming(bounded, right, **options)
    join = window_join_streaming(bounded, right, reach=3, **options)
    with pytest.raises(gk.PlanError, match=r"row 1: the window begins at 1, more than reach = 3"):
        join.push_left(table(bounded, (5, 2, 5), (5, 1, 5)))
    assert join.counters["left"]["given"] == 0
    with pytest.raises(gk.StateError, match="other parameters"):
        stream().restore(stream(before=1).snapshot())
