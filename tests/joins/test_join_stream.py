"""The streaming join: the same rows as the batch join, however and in whatever cuts they come."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_driver import drive
from join_oracle import sides

import gpukern as gk

LEFT = pa.schema({"ts": pa.int64(), "symbol": pa.string(), "p": pa.int64()})
RIGHT = pa.schema({"ts": pa.int64(), "symbol": pa.string(), "v": pa.int64()})


def stream(**options: Any) -> Any:
    return gk.asof_join_streaming(LEFT, RIGHT, **{"on": "ts", "by": "symbol", **options})


def table(schema: pa.Schema, *rows: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema)


def test_a_row_waits_for_the_last_right_row_of_its_time() -> None:
    join = stream()
    assert join.push_right(table(RIGHT, (5, "a", 1))).num_rows == 0
    assert join.push_left(table(LEFT, (5, "a", 0))).num_rows == 0
    assert join.push_right(table(RIGHT, (5, "a", 2))).num_rows == 0
    assert join.push_right(table(RIGHT, (6, "b", 3)))["v"].to_pylist() == [2]


def test_without_exact_matches_a_row_of_the_same_time_is_enough() -> None:
    join = stream(allow_exact_matches=False)
    join.push_left(table(LEFT, (5, "a", 0)))
    assert join.push_right(table(RIGHT, (4, "a", 1), (5, "a", 2)))["v"].to_pylist() == [1]


def test_forward_waits_for_the_tolerance_to_pass() -> None:
    join = stream(direction="forward", tolerance=3)
    join.push_left(table(LEFT, (5, "a", 0)))
    assert join.push_right(table(RIGHT, (8, "b", 1))).num_rows == 0
    assert join.push_right(table(RIGHT, (8, "a", 2))).num_rows == 0
    assert join.push_right(table(RIGHT, (9, "a", 3)))["v"].to_pylist() == [2]


def test_advance_stands_for_an_idle_side() -> None:
    join = stream()
    join.push_left(table(LEFT, (5, "a", 0)))
    assert join.advance("right", 5).num_rows == 0
    assert join.advance("right", 6).to_pylist() == [
        {"ts": 5, "symbol": "a", "p": 0, "ts_right": None, "v": None}
    ]
    assert join.push_right(table(RIGHT, (5, "a", 1))).num_rows == 0
    assert join.counters["right"] == {"given": 1, "accepted": 0, "late": 1, "null": 0}


def test_late_rows_are_counted_and_handed_out_on_request() -> None:
    for policy, want in (("drop", None), ("side", [1, 3])):
        join = stream(lateness_left=2, late_policy=policy)
        rows = [(9, "a", 0), (6, "a", 1), (7, "a", 2), (None, "a", 9), (2, None, 3)]
        join.push_left(table(LEFT, *rows))
        assert join.counters["left"] == {"given": 5, "accepted": 2, "late": 2, "null": 1}
        assert (join.late if want is None else join.late["p"].to_pylist()) == want
        out = join.flush()
        assert out["p"].to_pylist() == [2, 0]  # by time


@settings(max_examples=200)
@given(
    sides(most=18, span=8, sort=False),
    st.sampled_from(["backward", "forward", "nearest"]),
    st.one_of(st.none(), st.integers(0, 4)),
    st.booleans(),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.one_of(st.none(), st.integers(1, 3)), st.booleans()),
    st.data(),
)
def test_any_interleaving_and_restart_equals_the_batch_join_of_the_accepted_rows(
    pair: tuple[pa.Table, pa.Table],
    direction: str,
    tolerance: int | None,
    exact: bool,
    lateness: tuple[int, int],
    extras: tuple[int | None, bool],
    data: st.DataObject,
) -> None:
    if direction != "backward" and tolerance is None:
        tolerance = 3
    options = {
        "direction": direction, "tolerance": tolerance, "allow_exact_matches": exact,
        "age_column": "age",
    }  # fmt: skip
    streaming = {**options, "lateness_left": lateness[0], "lateness_right": lateness[1]}
    limit, restart = extras
    if limit is not None:
        streaming["max_pending_left"] = limit
    left, right = pair[0].cast(LEFT), pair[1].cast(RIGHT)
    run = drive(
        lambda: stream(**streaming), {"left": left, "right": right}, data,
        restart=restart, check=lambda join: limit is None or join.left.rows.num_rows <= limit,
    )  # fmt: skip
    near, far = run.batch("left", lateness[0]), run.batch("right", lateness[1])
    want = gk.asof_join(near, far, on="ts", by="symbol", **options)
    assert run.out.to_pylist() == want.to_pylist()
    assert run.out.schema == want.schema
    run.check_counters(left=lateness[0], right=lateness[1])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.booleans()), max_size=80))
def test_the_buffer_keeps_one_row_per_key_and_what_lies_ahead(
    steps: list[tuple[int, str, bool]],
) -> None:
    join, now, keys, waiting = stream(), 0, set(), []
    for gap, symbol, is_left in steps:
        now += gap
        if is_left:
            join.push_left(table(LEFT, (now, symbol, 0)))
            waiting.append(now)
        else:
            join.push_right(table(RIGHT, (now, symbol, 0)))
            keys.add(symbol)
        if waiting:
            oldest = min([join.watermarks["left"], *join.left.times.tolist()])
            ahead = {(s, t) for s, t in zip(join.right.rows["symbol"].to_pylist(),
                     join.right.times.tolist(), strict=True) if t >= oldest}  # fmt: skip
            assert join.right.rows.num_rows <= len(keys) + len(ahead)


def test_without_left_rows_a_full_right_buffer_stops_the_push_until_the_left_moves() -> None:
    join = stream(max_buffer_right=2)
    rows = table(RIGHT, *((t, "a", t) for t in range(5)))
    join.push_right(rows)
    assert join.consumed == 2
    join.advance("left", 9)
    join.push_right(rows.slice(2))
    assert join.consumed == 3
    assert join.right.rows["v"].to_pylist() == [4]


def test_a_right_row_out_of_reach_of_the_tolerance_is_forgotten() -> None:
    join = stream(tolerance=2)
    join.push_right(table(RIGHT, (1, "a", 1)))
    join.advance("left", 3)
    assert join.right.rows.num_rows == 1
    join.advance("left", 4)
    assert join.right.rows.num_rows == 0


# -- decisions at arrival ----------------------------------------------------------------------

SEQ_LEFT = pa.schema({"arrival_seq": pa.int64(), "recv_ts": pa.int64(), "symbol": pa.string()})
SEQ_RIGHT = pa.schema([*SEQ_LEFT, pa.field("v", pa.int64())])


def arrival(**options: Any) -> Any:
    return gk.asof_join_streaming(SEQ_LEFT, SEQ_RIGHT, by="symbol", emit="arrival", **options)


def test_at_arrival_a_row_sees_what_was_taken_before_it() -> None:
    join = arrival()
    join.push_right(table(SEQ_RIGHT, (1, 10, "a", 1), (3, 12, "a", 2), (4, 12, "b", 3)))
    assert join.push_left(table(SEQ_LEFT, (2, 11, "a")))["v"].to_pylist() == [1]
    assert join.push_left(table(SEQ_LEFT, (5, 13, "a"), (6, 13, "b")))["v"].to_pylist() == [2, 3]
    assert join.right.rows.num_rows == 2
    with pytest.raises(gk.UnsortedError, match="5 follows 6; push rows as they arrive"):
        join.push_right(table(SEQ_RIGHT, (5, 13, "a", 4)))


def test_at_arrival_the_tolerance_and_the_age_compare_recv_ts() -> None:
    join = arrival(tolerance=2, age_column="age")
    join.push_right(table(SEQ_RIGHT, (1, 10, "a", 1)))
    out = join.push_left(table(SEQ_LEFT, (2, 12, "a"), (3, 13, "a"), (4, None, "a")))
    assert out["v"].to_pylist() == [1, None, None]
    assert out["age"].to_pylist() == [2, None, None]


def test_arrival_equals_the_batch_join_on_the_arrival_number() -> None:
    right = table(SEQ_RIGHT, *((n, n, "ab"[n % 2], n) for n in range(0, 40, 3)))
    left = table(SEQ_LEFT, *((n, n, "ab"[n % 4 // 2]) for n in range(1, 40, 3)))
    join, out = arrival(), []
    for n in range(14):
        join.push_right(right.slice(n, 1))
        out.append(join.push_left(left.slice(n, 1)))
    want = gk.asof_join(left, right, on="arrival_seq", by="symbol", allow_exact_matches=False)
    assert pa.concat_tables(out).equals(want)


# -- use ---------------------------------------------------------------------------------------


def test_polars_in_polars_out() -> None:
    left, right = pl.DataFrame({"ts": [1]}), pl.DataFrame({"ts": [1], "v": [2]})
    join = gk.asof_join_streaming(left.clear(), right.clear(), on="ts")
    assert join.push_left(left).is_empty()
    join.push_right(right)
    assert join.flush().rows() == [(1, 1, 2)]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"direction": "forward"}, "needs a tolerance"),
        ({"late_policy": "keep"}, "late_policy must be drop or side"),
        ({"emit": "now"}, "emit must be final or arrival"),
        ({"max_pending_left": 0}, "at least 1"),
        ({"lateness_left": -1}, "must not be negative"),
        ({"emit": "arrival"}, "leave on out"),
        ({"by": "venue"}, "no column 'venue'"),
    ],
)
def test_wrong_use_is_explained(options: dict[str, Any], match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        stream(**options)


def test_other_columns_and_foreign_snapshots_are_refused() -> None:
    with pytest.raises(gk.PlanError, match="declared with ts int64, symbol string, p int64"):
        stream().push_left(table(RIGHT))
    with pytest.raises(gk.PlanError, match="side must be left or right"):
        stream().advance("both", 1)
    with pytest.raises(gk.StateError, match="other parameters"):
        stream().restore(stream(tolerance=1).snapshot())
