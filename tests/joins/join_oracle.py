"""The joins as the specification words them: every left row looks at every right row."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

SYMBOLS = ("a", "b", "c", None)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    return table.to_pylist()


def matching_row(
    left: dict[str, Any],
    right: list[dict[str, Any]],
    *,
    on: str = "ts",
    by: tuple[str, ...] = ("symbol",),
    direction: str = "backward",
    tolerance: int | None = None,
    exact: bool = True,
) -> int | None:
    """Number of the right row that matches, by comparing with all of them."""
    t = left[on]
    if t is None or any(left[name] is None for name in by):
        return None
    best: tuple[int, int, int] | None = None
    for n, row in enumerate(right):
        u = row[on]
        if u is None or any(row[name] != left[name] for name in by):
            continue
        if u == t and not exact:
            continue
        if (direction == "backward" and u > t) or (direction == "forward" and u < t):
            continue
        if tolerance is not None and abs(t - u) > tolerance:
            continue
        rank = (-abs(t - u), -u, n)  # closest, of equals the earlier, of the same time the last
        if best is None or rank > best:
            best = rank
    return None if best is None else best[2]


def expected(left: pa.Table, right: pa.Table, *, age: str = "age", **options: Any) -> list[Any]:
    """(time, value, age) that the join must append to each left row."""
    others = rows_of(right)
    found = []
    for row in rows_of(left):
        n = matching_row(row, others, **options)
        if n is None:
            found.append((None, None, None))
        else:
            found.append((others[n]["ts"], others[n]["v"], row["ts"] - others[n]["ts"]))
    return found


@st.composite
def sides(
    draw: st.DrawFn, *, most: int = 25, span: int = 12, sort: bool = True
) -> tuple[pa.Table, pa.Table]:
    """Two small tables with many ties, missing keys, missing times and missing values."""
    return draw(side("p", most, span, sort)), draw(side("v", most, span, sort))


@st.composite
def side(draw: st.DrawFn, value: str, most: int, span: int, sort: bool) -> pa.Table:
    cell = st.tuples(
        st.one_of(st.none(), st.integers(-span, span), st.integers(0, span)),
        st.sampled_from(SYMBOLS),
        st.one_of(st.none(), st.integers(0, 9)),
    )
    rows = draw(st.lists(cell, max_size=most))
    if sort:
        times = iter(sorted(t for t, _, _ in rows if t is not None))
        rows = [(None if t is None else next(times), s, v) for t, s, v in rows]
    return pa.table(
        {
            "ts": pa.array([r[0] for r in rows], pa.int64()),
            "symbol": pa.array([r[1] for r in rows], pa.string()),
            value: pa.array([r[2] for r in rows], pa.int64()),
        }
    )
