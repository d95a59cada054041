"""Examples that others publish: the reference pages of kdb+, and what polars once got wrong."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

import gpukern as gk

# -- https://code.kx.com/q/ref/aj/, https://code.kx.com/q/ref/wj/ ------------------------------


def at(*clock: str) -> pa.Array:
    """Times of day as timestamps."""
    moments = [dt.datetime.fromisoformat(f"2024-01-01T{c}+00:00") for c in clock]
    return pa.array(moments, pa.timestamp("ns", tz="UTC"))


TRADES = pa.table(
    {
        "time": at("10:01:01", "10:01:03", "10:01:04"),
        "sym": ["msft", "ibm", "ge"],
        "qty": [100, 200, 150],
    }
)
QUOTES = pa.table(
    {
        "time": at("10:01:00", "10:01:00", "10:01:00", "10:01:02"),
        "sym": ["ibm", "msft", "msft", "ibm"],
        "px": [100, 99, 101, 98],
    }
)


def test_kdb_aj() -> None:
    out = gk.asof_join(TRADES, QUOTES, on="time", by="sym")
    assert out.select(TRADES.column_names).equals(TRADES)
    assert out["px"].to_pylist() == [101, 98, None]


def test_kdb_aj0_shows_the_time_of_the_quote() -> None:
    out = gk.asof_join(TRADES, QUOTES, on="time", by="sym")
    assert out["time_right"].to_pylist() == [*at("10:01:00", "10:01:02").to_pylist(), None]


def test_kdb_wj() -> None:
    trades = pa.table(
        {
            "sym": ["ibm"] * 3,
            "time": at("10:01:01", "10:01:04", "10:01:08"),
            "price": [100, 101, 105],
        }
    )
    quotes = pa.table(
        {
            "sym": ["ibm"] * 9,
            "time": at(*(f"10:01:0{n}" for n in range(1, 10))),
            "ask": [101, 103, 103, 104, 104, 107, 108, 107, 108],
            "bid": [98, 99, 102, 103, 103, 104, 106, 106, 107],
        }
    )
    aggs = {"ask": ("max", "ask"), "bid": ("min", "bid"), "quotes": ("count", "*")}
    for mode in ("wj", "wj1"):  # the same, because there is a quote exactly at each begin
        out = gk.window_join(
            trades, quotes, on="time", by="sym", before="2s", after="1s", mode=mode, aggs=aggs
        )
        assert out.select(["ask", "bid", "quotes"]).to_pylist() == [
            {"ask": 103, "bid": 98, "quotes": 2},
            {"ask": 104, "bid": 99, "quotes": 4},
            {"ask": 108, "bid": 104, "quotes": 4},
        ]


# -- https://github.com/pola-rs/polars/issues/… ------------------------------------------------


def test_polars_5718_forward_with_groups() -> None:
    left = pa.table({"category": ["a"] * 5, "one": [1, 2, 3, 5, 12]})
    right = pa.table({"category": ["a"], "two": [3]})
    out = gk.asof_join(
        left, right, left_on="one", right_on="two", by="category", direction="forward"
    )
    assert out["two"].to_pylist() == [3, 3, 3, None, None]


def test_polars_9930_nearest_with_interleaved_groups() -> None:
    left = pa.table(
        {
            "code": [676, 35, 676, 676, 676],
            "time": [364_360, 364_370, 364_380, 365_400, 367_440],
        }
    )
    right = pa.table(
        {
            "code": [676, 676, 35, 676, 676],
            "time": [364_000, 365_000, 365_000, 366_000, 367_000],
            "price": [1.0, 2.0, 50.0, 3.0, None],
        }
    )
    out = gk.asof_join(left, right, on="time", by="code", direction="nearest")
    assert out["price"].to_pylist() == [1.0, 50.0, 1.0, 2.0, None]


def test_polars_10462_nearest_keeps_to_the_tolerance() -> None:
    left = pa.table({"ts": at("09:16:24.960", "10:40:56.230", "11:17:33.720"), "a": [10, 10, 11]})
    right = pa.table(
        {"ts": at("09:20:25.110", "10:40:56.750", "11:14:32.010"), "b": ["Y", "Y", "N"]}
    )
    out = gk.asof_join(left, right, on="ts", direction="nearest", tolerance="1s")
    assert out["b"].to_pylist() == [None, "Y", None]


@pytest.mark.parametrize("direction", ["backward", "forward", "nearest"])
def test_polars_10534_tolerance_zero_with_groups(direction: str) -> None:
    left = pa.table({"ts": [2022, 2023], "id": ["a", "a"]})
    right = pa.table({"val": [1.0], "ts": [2022], "id": ["a"]})
    out = gk.asof_join(left, right, on="ts", by="id", tolerance=0, direction=direction)
    assert out["val"].to_pylist() == [1.0, None]


@pytest.mark.parametrize(
    ("tolerance", "want"),
    [
        (100, [1_000_001, 2_000_010, 2_999_900]),
        (99, [1_000_001, 2_000_010, None]),
        (0, [1_000_001, None, None]),
    ],
)
def test_polars_11649_the_tolerance_is_inclusive(tolerance: int, want: list[int | None]) -> None:
    left = pa.table({"a": [1, 1, 1], "b": [1_000_001, 2_000_000, 3_000_000]})
    right = pa.table({"a": [1, 1, 1], "b": [1_000_001, 2_000_010, 2_999_900]})
    out = gk.asof_join(left, right, on="b", by="a", direction="nearest", tolerance=tolerance)
    assert out["b_right"].to_pylist() == want


def test_polars_27165_no_row_of_another_group_where_there_is_no_match() -> None:
    left = pa.table({"index": [1], "key": [1], "group": [0]})
    right = pa.table({"index": [2, 3], "key": [0, None], "group": pa.array([None, 0], pa.int64())})
    out = gk.asof_join(left, right, on="key", by="group", direction="nearest")
    assert out["index_right"].to_pylist() == [None]
