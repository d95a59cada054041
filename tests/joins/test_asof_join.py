"""asof_join: which row is matched, against an oracle that compares every pair of rows."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_oracle import expected, sides

import gpukern as gk
from gpukern import join_table

DIRECTIONS = ("backward", "forward", "nearest")


def quotes(*ts: int) -> pa.Table:
    return pa.table({"ts": list(ts), "px": list(ts)})


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, [5, 15, 25]),
        ({"direction": "forward"}, [15, 25, 35]),
        ({"direction": "nearest"}, [5, 15, 25]),
        ({"tolerance": 4}, [None, None, None]),
        ({"tolerance": 5}, [5, 15, 25]),
    ],
)
def test_each_trade_finds_its_quote(options: dict[str, Any], want: list[int | None]) -> None:
    trades = pa.table({"ts": [10, 20, 30]})
    out = gk.asof_join(trades, quotes(5, 15, 25, 35), on="ts", **options)
    assert out["px"].to_pylist() == want


@pytest.mark.parametrize(
    ("direction", "exact", "want"),
    [
        ("backward", True, "bbd"),
        ("forward", True, "bdd"),
        ("nearest", True, "bbd"),
        ("backward", False, "-bb"),
        ("forward", False, "dd-"),
        ("nearest", False, "dbb"),
    ],
)
def test_of_equal_times_the_last_row_counts(direction: str, exact: bool, want: str) -> None:
    right = pa.table({"ts": [10, 10, 20, 20], "v": list("abcd")})
    left = pa.table({"ts": [10, 15, 20]})
    out = gk.asof_join(left, right, on="ts", direction=direction, allow_exact_matches=exact)
    assert "".join(v or "-" for v in out["v"].to_pylist()) == want


def test_missing_keys_and_times_match_nothing() -> None:
    left = pa.table({"ts": [1, None, 3], "symbol": ["a", "a", None]})
    right = pa.table({"ts": [None, 1, 1], "symbol": ["a", "a", None], "v": [1, 2, 3]})
    assert gk.asof_join(left, right, on="ts", by="symbol")["v"].to_pylist() == [2, None, None]


def test_the_whole_row_is_taken_with_its_nulls() -> None:
    right = pa.table({"ts": [1, 2], "bid": [1.0, None], "ask": [2.0, 3.0]})
    out = gk.asof_join(pa.table({"ts": [2]}), right, on="ts")
    assert (out["bid"].to_pylist(), out["ask"].to_pylist()) == ([None], [3.0])


def test_times_at_the_ends_of_int64_do_not_wrap() -> None:
    low, high = -(2**63), 2**63 - 1
    left = pa.table({"ts": [low, high]})
    right = pa.table({"ts": [low, high - 1], "v": [1, 2]})
    for direction, want in (("backward", [1, 2]), ("forward", [1, None]), ("nearest", [1, 2])):
        out = gk.asof_join(left, right, on="ts", direction=direction, age_column="age")
        assert out["v"].to_pylist() == want
    out = gk.asof_join(pa.table({"ts": [high]}), right.slice(0, 1), on="ts", age_column="age")
    assert out["age"].to_pylist() == [high]  # saturated
    near = gk.asof_join(pa.table({"ts": [high]}), right.slice(0, 1), on="ts", tolerance=high)
    assert near["v"].to_pylist() == [None]


@settings(max_examples=300)
@given(
    sides(),
    st.sampled_from(DIRECTIONS),
    st.one_of(st.none(), st.integers(0, 6)),
    st.booleans(),
    st.booleans(),
)
def test_equals_the_comparison_of_all_pairs(
    pair: tuple[pa.Table, pa.Table],
    direction: str,
    tolerance: int | None,
    exact: bool,
    keyed: bool,
) -> None:
    left, right = pair
    by = ("symbol",) if keyed else ()
    out = gk.asof_join(
        left,
        right if keyed else right.drop_columns("symbol"),
        on="ts",
        by=by,
        direction=direction,
        tolerance=tolerance,
        allow_exact_matches=exact,
        age_column="age",
    )
    want = expected(left, right, by=by, direction=direction, tolerance=tolerance, exact=exact)
    got = zip(*(out[n].to_pylist() for n in ("ts_right", "v", "age")), strict=True)
    assert list(got) == want
    assert out.select(left.column_names).equals(left)


@settings(max_examples=100)
@given(sides(sort=False), st.sampled_from(DIRECTIONS))
def test_sort_gives_the_same_for_any_order_of_rows(
    pair: tuple[pa.Table, pa.Table], direction: str
) -> None:
    left, right = pair
    out = gk.asof_join(left, right, on="ts", by="symbol", direction=direction, sort=True)
    want = expected(left, right, direction=direction)
    assert list(zip(out["ts_right"].to_pylist(), out["v"].to_pylist(), strict=True)) == [
        w[:2] for w in want
    ]


@pytest.mark.parametrize("ordered", ["by time", "by key"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("exact", [True, False])
def test_shares_of_rows_change_nothing(
    ordered: str, direction: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    n = 400

    def table(value: str) -> pa.Table:
        found = pa.table(
            {
                "ts": np.sort(rng.integers(0, n, n)),
                "symbol": pa.array(rng.integers(0, 9, n), mask=rng.random(n) < 0.05),
                "venue": rng.integers(0, 3, n).astype(str),
                value: rng.integers(0, n, n),
            }
        )
        return found if ordered == "by time" else found.sort_by([("symbol", "ascending")])

    left, right = table("p"), table("v")
    by = ("symbol", "venue")
    options = {"direction": direction, "allow_exact_matches": exact, "tolerance": 40}
    alone = gk.asof_join(left, right, on="ts", by=by, age_column="age", **options)
    options.pop("allow_exact_matches")
    want = expected(left, right, by=by, exact=exact, **options)
    assert list(zip(*(alone[c].to_pylist() for c in ("ts_right", "v", "age")), strict=True)) == want
    monkeypatch.setattr(join_table, "SHARE", 16)
    monkeypatch.setattr(join_table, "threads", lambda: 7)
    shared = gk.asof_join(
        left, right, on="ts", by=by, age_column="age", allow_exact_matches=exact, **options
    )
    assert shared.equals(alone)


@settings(max_examples=15)
@given(sides(most=12, sort=False), st.sampled_from(DIRECTIONS), st.booleans())
def test_a_device_gives_the_rows_of_the_cpu(
    pair: tuple[pa.Table, pa.Table], direction: str, exact: bool
) -> None:
    options: dict[str, Any] = {
        "on": "ts", "by": "symbol", "direction": direction, "allow_exact_matches": exact,
        "tolerance": 5, "age_column": "age", "sort": True,
    }  # fmt: skip
    assert gk.asof_join(*pair, device="cudasim", **options).equals(gk.asof_join(*pair, **options))


def test_a_device_checks_the_order_too() -> None:
    falling, rising = pa.table({"ts": [2, 1]}), pa.table({"ts": [1, 2]})
    with pytest.raises(gk.UnsortedError, match="right side is not in time order"):
        gk.asof_join(rising, falling, on="ts", device="cudasim")
    with pytest.raises(gk.UnsortedError, match="left side is not in time order"):
        gk.asof_join(falling, rising, on="ts", device="cudasim")


# -- other libraries, where they mean the same: no missing keys or times, one row per key and time


def comparable(pair: tuple[pa.Table, pa.Table]) -> tuple[pd.DataFrame, pd.DataFrame]:
    left, right = (t.to_pandas(integer_object_nulls=False) for t in pair)
    left, right = left.dropna(subset=["ts", "symbol"]), right.dropna(subset=["ts", "symbol"])
    right = right.drop_duplicates(["symbol", "ts"], keep="last")
    types = {"ts": "int64", "symbol": "object"}
    return left.astype(types).reset_index(drop=True), right.astype(types).reset_index(drop=True)


def same_values(got: Any, want: Any) -> bool:
    return [None if v != v else v for v in got] == [None if v != v else v for v in want]


@settings(max_examples=80)
@given(
    sides(),
    st.sampled_from(DIRECTIONS),
    st.one_of(st.none(), st.integers(0, 6)),
    st.booleans(),
)
def test_equals_pandas_merge_asof(
    pair: tuple[pa.Table, pa.Table], direction: Any, tolerance: int | None, exact: bool
) -> None:
    left, right = comparable(pair)
    if tolerance == 0 and not exact:
        return  # pandas refuses it; here it matches nothing
    right["v"] = right["v"].astype("float64")
    mine = gk.asof_join(
        left, right, on="ts", by="symbol", direction=direction, tolerance=tolerance,
        allow_exact_matches=exact,
    )  # fmt: skip
    theirs = pd.merge_asof(
        left, right, on="ts", by="symbol", direction=direction, tolerance=tolerance,
        allow_exact_matches=exact,
    )  # fmt: skip
    assert same_values(mine["v"].tolist(), theirs["v"].tolist())


@settings(max_examples=60)
@given(sides(), st.sampled_from(("backward", "forward")), st.one_of(st.none(), st.integers(0, 6)))
def test_equals_polars_join_asof(
    pair: tuple[pa.Table, pa.Table], strategy: Any, tolerance: int | None
) -> None:
    left, right = (
        pl.DataFrame({n: pl.Series(n, f[n].tolist(), strict=False) for n in f.columns},
                     schema_overrides={"ts": pl.Int64, "symbol": pl.String})
        for f in comparable(pair)
    )  # fmt: skip
    mine = gk.asof_join(left, right, on="ts", by="symbol", direction=strategy, tolerance=tolerance)
    theirs = left.join_asof(
        right, on="ts", by="symbol", strategy=strategy, tolerance=tolerance, check_sortedness=False
    )
    assert same_values(mine["v"].to_list(), theirs["v"].to_list())


@settings(max_examples=60)
@given(sides())
def test_equals_duckdb_asof(pair: tuple[pa.Table, pa.Table]) -> None:
    left, right = comparable(pair)
    left["n"] = range(len(left))
    near, far = pa.Table.from_pandas(left), pa.Table.from_pandas(right)
    near, far = (t.set_column(1, "symbol", t["symbol"].cast(pa.string())) for t in (near, far))
    with duckdb.connect() as db:
        db.register("near", near)
        db.register("far", far)
        theirs = db.execute(
            "SELECT far.v FROM near ASOF LEFT JOIN far ON near.symbol = far.symbol "
            "AND near.ts >= far.ts ORDER BY near.n"
        ).fetchall()
    mine = gk.asof_join(near, far, on="ts", by="symbol")
    assert same_values(mine["v"].to_pylist(), [v for (v,) in theirs])
