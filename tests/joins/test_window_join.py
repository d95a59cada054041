"""window_join: rows of each window against an oracle, kdb+ examples, DuckDB, types, errors."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_oracle import sides

import gpukern as gk
from gpukern import join_table

COUNTED = {"n": ("count", "*"), "first": ("first", "v"), "sum": ("sum", "v")}


def window_rows(
    row: dict[str, Any], right: list[dict[str, Any]], lo: Any, hi: Any, mode: str, closed: str
) -> list[dict[str, Any]]:
    """The right rows in a window, in time order: the definition, row by row."""
    if row["symbol"] is None or lo is None or hi is None or lo > hi:
        return []
    mine = [r for r in right if r["symbol"] == row["symbol"] and r["ts"] is not None]
    mine.sort(key=lambda r: r["ts"])
    if mode == "wj1":
        left_ok = closed in ("both", "left")
        right_ok = closed in ("both", "right")
        return [
            r
            for r in mine
            if (r["ts"] > lo or (left_ok and r["ts"] == lo))
            and (r["ts"] < hi or (right_ok and r["ts"] == hi))
        ]
    before = [r for r in mine if r["ts"] <= lo][-1:]
    return before + [r for r in mine if lo < r["ts"] <= hi]


@settings(max_examples=200)
@given(
    sides(),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from(["wj", "both", "left", "right", "neither"]),
)
def test_equals_the_definition(
    pair: tuple[pa.Table, pa.Table], before: int, after: int, kind: str
) -> None:
    left, right = pair
    mode, closed = ("wj", "both") if kind == "wj" else ("wj1", kind)
    aggs = {f: (f, "v") for f in ("min", "max", "avg", "sum", "count", "first", "last")}
    out = gk.window_join(
        left, right, on="ts", by="symbol", before=before, after=after, mode=mode, closed=closed,
        aggs={**aggs, "n": ("count", "*")},
    ).to_pylist()  # fmt: skip
    others = right.to_pylist()
    for row, got in zip(left.to_pylist(), out, strict=True):
        t = row["ts"]
        lo, hi = (None, None) if t is None else (t - before, t + after)
        rows = window_rows(row, others, lo, hi, mode, closed)
        cells = [r["v"] for r in rows if r["v"] is not None]
        assert got["n"] == len(rows)
        assert got["count"] == len(cells)
        assert got["sum"] == sum(cells)
        assert got["min"] == min(cells, default=None)
        assert got["max"] == max(cells, default=None)
        assert got["first"] == (cells[0] if cells else None)
        assert got["last"] == (cells[-1] if cells else None)
        assert got["avg"] == (sum(cells) / len(cells) if cells else None)


@pytest.mark.parametrize(
    ("window", "mode", "want"),
    [
        ((5, 10), "wj", (3, 1, 10)),
        ((5, 10), "wj1", (2, 5, 9)),
        ((8, 13), "wj", (1, 4, 4)),
        ((8, 13), "wj1", (2, 5, 9)),
        ((9, 8), "wj", (0, None, 0)),
        ((1, 2), "wj", (0, None, 0)),
    ],
)
def test_the_prevailing_row(
    window: tuple[int, int], mode: str, want: tuple[int, int | None, int]
) -> None:
    right = pa.table({"ts": [3, 8, 8], "v": [1, 5, 4]})
    left = pa.table({"ts": [0], "lo": [window[0]], "hi": [window[1]]})
    out = gk.window_join(left, right, on="ts", begin="lo", end="hi", mode=mode, aggs=COUNTED)
    assert tuple(out.select(list(COUNTED)).to_pylist()[0].values()) == want


def test_a_missing_bound_is_an_empty_window_but_the_rows_own_time_may_be_missing() -> None:
    right = pa.table({"ts": [3], "v": [1]})
    left = pa.table({"ts": pa.array([1, None], pa.int64()), "lo": [None, 0], "hi": [9, 9]})
    out = gk.window_join(left, right, on="ts", begin="lo", end="hi", aggs={"n": ("count", "*")})
    assert out["n"].to_pylist() == [0, 1]


@settings(max_examples=30)
@given(sides(), st.integers(0, 5), st.integers(0, 5), st.sampled_from(["<", "<="]))
def test_equals_a_duckdb_range_join(
    pair: tuple[pa.Table, pa.Table], before: int, after: int, compare: str
) -> None:
    near, far = pair
    near = near.append_column("n", pa.array(range(near.num_rows), pa.int64()))
    with duckdb.connect() as db:
        db.register("near", near)
        db.register("far", far)
        theirs = db.execute(
            f"SELECT count(far.ts), coalesce(sum(far.v), 0), max(far.v) FROM near LEFT JOIN far "
            f"ON near.symbol = far.symbol AND far.ts {compare} near.ts + {after} "
            f"AND near.ts - {before} {compare} far.ts GROUP BY near.n ORDER BY near.n"
        ).fetchall()
    mine = gk.window_join(
        near, far, on="ts", by="symbol", before=before, after=after,
        closed="both" if compare == "<=" else "neither",
        aggs={"rows": ("count", "*"), "sum": ("sum", "v"), "max": ("max", "v")},
    ).select(["rows", "sum", "max"])  # fmt: skip
    assert [tuple(r.values()) for r in mine.to_pylist()] == theirs


def test_float_sums_are_made_from_the_window_alone() -> None:
    rng = np.random.default_rng(3)
    x = np.round(rng.normal(0, 1, 2000) * 10.0 ** rng.integers(-8, 9, 2000), 6)
    right = pa.table({"ts": np.arange(2000), "x": x, "w": rng.random(2000) + 0.1})
    left = pa.table({"ts": np.arange(0, 2000, 13)})
    aggs = {"sum": ("sum", "x"), "vwap": ("vwap", "x", "w")}
    out = gk.window_join(left, right, on="ts", before=700, aggs=aggs)
    w = right["w"].to_numpy()
    for t, total, vwap in zip(*(out[c].to_pylist() for c in ("ts", "sum", "vwap")), strict=True):
        part = slice(max(0, t - 700), t + 1)
        exact = math.fsum(x[part])
        assert abs(total - exact) <= 1e-12 * math.fsum(abs(x[part]))
        mean = math.fsum(x[part] * w[part]) / math.fsum(w[part])
        assert abs(vwap - mean) <= 1e-12 * math.fsum(abs(x[part] * w[part]))
    cut = right.slice(500)
    late = left.filter(pa.compute.greater(left["ts"], 1200))
    again = gk.window_join(late, cut, on="ts", before=700, aggs=aggs)
    assert again.equals(out.slice(out.num_rows - again.num_rows))  # earlier rows leave no trace


def test_vwap_leaves_out_rows_without_size() -> None:
    right = pa.table({"ts": [1, 2, 3, 4], "p": [10.0, 20.0, None, 40.0], "q": [1.0, 3.0, 5.0, 0.0]})
    left = pa.table({"ts": [4, 0]})
    out = gk.window_join(left, right, on="ts", before=9, aggs={"v": ("vwap", "p", "q")}, sort=True)
    assert out["v"].to_pylist() == [17.5, None]


def test_integer_sums_are_exact_and_raise_when_they_do_not_fit() -> None:
    high = 2**63 - 1
    left = pa.table({"ts": [9]})
    right = pa.table({"ts": [1, 2, 3], "v": [high, high, -high]})
    out = gk.window_join(left, right, on="ts", before=9, aggs={"s": ("sum", "v")})
    assert out["s"].to_pylist() == [high]
    with pytest.raises(gk.PlanError, match="does not fit into int64"):
        gk.window_join(left, right.slice(0, 2), on="ts", before=9, aggs={"s": ("sum", "v")})


def test_min_max_first_and_last_keep_their_type() -> None:
    when = pa.array([dt.datetime(2024, 1, d, tzinfo=dt.UTC) for d in (2, 1)])
    right = pa.table(
        {
            "ts": [1, 2],
            "when": when,
            "day": pa.array([5, 4], pa.date32()),
            "n": pa.array([3, 4], pa.uint64()),
            "f": pa.array([math.nan, 4.0], pa.float32()),
            "s": ["x", "y"],
            "d": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    aggs = {
        "a": ("min", "when"), "b": ("max", "day"), "c": ("max", "n"), "e": ("first", "f"),
        "g": ("last", "s"), "h": ("first", "d"), "i": ("avg", "f"), "j": ("sum", "n"),
    }  # fmt: skip
    full = gk.window_join(pa.table({"ts": [2]}), right, on="ts", before=5, aggs=aggs)
    assert list(full.to_pylist()[0].values())[1:] == [
        when[1].as_py(), dt.date(1970, 1, 6), 4, 4.0, "y", "x", 4.0, 7,
    ]  # fmt: skip
    for left, other in ((full.slice(0, 0), right), (full, right.slice(0, 0))):
        out = gk.window_join(left.select(["ts"]), other, on="ts", before=5, aggs=aggs)
        out.validate(full=True)
        assert out.schema == full.schema


@settings(max_examples=60)
@given(
    st.sampled_from([pa.float64(), pa.int64(), pa.uint64()]),
    st.integers(1, 400),
    st.integers(0, 2**32 - 1),
)
def test_long_windows_equal_the_cells_in_them(kind: pa.DataType, before: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, few = 600, rng.integers(1, 4)
    cells = [int(c) if rng.random() < 0.8 else None for c in rng.integers(0, few * 3, n)]
    if pa.types.is_integer(kind):
        edge = [2**63 - 1, 0 if kind == pa.uint64() else -(2**63)]
        cells = [edge[c % 2] if c is not None and c < few else c for c in cells]
    else:
        edge_floats = [math.inf, -math.inf]
        cells = [edge_floats[c % 2] if c is not None and c < few else c for c in cells]
    right = pa.table({"ts": np.arange(n), "v": pa.array(cells, kind)})
    left = pa.table({"ts": np.sort(rng.integers(-5, n + before, 50))})
    functions = ("min", "max", "count", "first", "last")
    out = gk.window_join(left, right, on="ts", before=before, aggs={f: (f, "v") for f in functions})
    for row in out.to_pylist():
        inside = cells[max(0, row["ts"] - before) : max(0, row["ts"] + 1)]
        there = [c for c in inside if c is not None]
        want = (min(there), max(there), len(there), there[0], there[-1]) if there else (
            None, None, 0, None, None,
        )  # fmt: skip
        assert tuple(row[f] for f in functions) == want


def test_unsigned_sums_and_extremes_keep_all_their_bits() -> None:
    high = 2**63 + 1
    right = pa.table({"ts": [1, 2, 3], "v": pa.array([high, high + 1, 5], pa.uint64())})
    left = pa.table({"ts": [2, 3]})
    aggs = {"low": ("min", "v"), "high": ("max", "v")}
    out = gk.window_join(left, right, on="ts", before=1, aggs=aggs)
    assert out["low"].to_pylist() == [high, 5]
    assert out["high"].to_pylist() == [high + 1, high + 1]
    with pytest.raises(gk.PlanError, match="in the window of row 0 does not fit"):
        gk.window_join(left, right, on="ts", before=1, aggs={"s": ("sum", "v")})
    small = gk.window_join(left.slice(1), right, on="ts", aggs={"s": ("sum", "v")})
    assert small["s"].to_pylist() == [5]


def test_polars_in_polars_out() -> None:
    left, right = pl.DataFrame({"ts": [5]}), pl.DataFrame({"ts": [4], "v": [2]})
    out = gk.window_join(left, right, on="ts", before="1ns", aggs=COUNTED)
    assert out.rows() == [(5, 1, 2, 2)]


def test_shares_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    left, right = (
        pa.table({"ts": np.sort(rng.integers(0, 99, 300)), "v": rng.random(300)}) for _ in "ab"
    )
    aggs = {"m": ("max", "v"), "s": ("sum", "v"), "n": ("count", "v"), "l": ("last", "v")}
    alone = gk.window_join(left, right, on="ts", before=9, after=3, aggs=aggs)
    monkeypatch.setattr(join_table, "SHARE", 16)
    monkeypatch.setattr(join_table, "threads", lambda: 5)
    assert gk.window_join(left, right, on="ts", before=9, after=3, aggs=aggs).equals(alone)


ONE = pa.table({"ts": [1], "v": [1], "s": ["x"]})


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"mode": "aj"}, gk.PlanError, "mode must be wj or wj1"),
        ({"mode": "wj", "closed": "left"}, gk.PlanError, "closed at both ends"),
        ({"closed": "open"}, gk.PlanError, "closed must be one of"),
        ({"begin": "ts"}, gk.PlanError, "both begin and end"),
        ({"begin": "ts", "end": "ts", "before": 1}, gk.PlanError, "either before and after"),
        ({"before": -1}, gk.PlanError, "must not be negative"),
        ({"aggs": {"v": ("sum", "v")}}, gk.PlanError, "left side has a column of that name"),
        ({"aggs": {"x": ("median", "v")}}, gk.PlanError, "functions: min, max"),
        ({"aggs": {"x": ("vwap", "v")}}, gk.PlanError, "a price and a size column"),
        ({"aggs": {"x": ("sum", "*")}}, gk.PlanError, "only count takes"),
        ({"aggs": {"x": ("sum", "u")}}, gk.PlanError, "no column 'u' on the right side"),
        ({"aggs": {"x": ("sum", "s")}}, TypeError, "must be a number, it is string"),
        ({"aggs": {"x": ("max", "s")}}, TypeError, "a number or a time, it is string"),
    ],
)
def test_wrong_use_is_explained(options: dict[str, Any], kind: type, match: str) -> None:
    with pytest.raises(kind, match=match):
        gk.window_join(ONE, ONE, **{"on": "ts", "aggs": {"n": ("count", "*")}, **options})


def test_unsorted_sides_are_named() -> None:
    falling = pa.table({"ts": [2, 1]})
    with pytest.raises(gk.UnsortedError, match=r"window_join: right side .* row 1, key \(\)"):
        gk.window_join(ONE, falling, on="ts", aggs={"n": ("count", "*")})
