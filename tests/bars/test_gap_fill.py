"""gap_fill: the state of every symbol on a grid, in batch and in stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from bar_oracle import accepted
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk
from gpukern import bars

SCHEMA = pa.schema({"ts": pa.int64(), "symbol": pa.string(), "v": pa.int64(), "w": pa.float64()})
EXAMPLE = pa.table({"ts": [3, 12, 38], "symbol": ["a"] * 3, "v": [1, None, 3]})
Row = dict[str, Any]


def cells(out: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(out[n].to_pylist() for n in names), strict=True))


def test_the_whole_last_row_holds_its_nulls_included() -> None:
    out = bars.gap_fill(EXAMPLE, 10, on="ts")
    assert cells(out, "ts", "v", "source_ts", "age_ns", "filled") == [
        (10, 1, 3, 7, False),
        (20, None, 12, 8, False),
        (30, None, 12, 18, True),
    ]


def test_by_column_the_last_value_holds() -> None:
    out = bars.gap_fill(EXAMPLE, 10, on="ts", fill="column")
    assert cells(out, "ts", "v", "source_ts") == [(10, 1, 3), (20, 1, 12), (30, 1, 12)]


def test_what_is_too_old_is_null() -> None:
    rows = bars.gap_fill(EXAMPLE, 10, on="ts", max_age=17)
    assert cells(rows, "v", "source_ts", "age_ns") == [(1, 3, 7), (None, 12, 8), (None, 12, 18)]
    columns = bars.gap_fill(EXAMPLE, 10, on="ts", max_age=17, fill="column")
    assert columns["v"].to_pylist() == [1, 1, None]  # the value of time 3 is 27 old at 30


def test_start_and_end_bound_the_grid_but_nothing_is_filled_backwards() -> None:
    out = bars.gap_fill(EXAMPLE, 10, on="ts", start=-50, end=65)
    assert out["ts"].to_pylist() == [10, 20, 30, 40, 50, 60]
    assert out["v"].to_pylist() == [1, None, None, 3, 3, 3]
    assert bars.gap_fill(EXAMPLE, 10, on="ts", start=15, end=25)["ts"].to_pylist() == [20]
    assert bars.gap_fill(EXAMPLE, 10, on="ts", origin=-12)["ts"].to_pylist() == [8, 18, 28, 38]


def test_equals_pandas_reindex() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "ts": pd.to_datetime(np.cumsum(rng.integers(1, 4_000, 300)) * 10**6, utc=True),
            "v": rng.normal(size=300),
        }
    )
    got = bars.gap_fill(frame, "1s", on="ts", by=())
    grid = pd.date_range(frame["ts"][0].ceil("s"), frame["ts"].iloc[-1].floor("s"), freq="s")
    want = frame.set_index("ts")["v"].reindex(grid, method="ffill")
    assert got["ts"].tolist() == grid.tolist()
    assert got["v"].tolist() == want.tolist()


def expected(rows: list[Row], every: int, upto: int | None = None, **o: Any) -> list[Row]:
    """Every point looks at every row."""
    rows = sorted((r for r in rows if None not in (r["ts"], r["symbol"])), key=lambda r: r["ts"])
    if not rows:
        return []
    end = o.get("end")
    last = rows[-1]["ts"] if end is None else end
    last = last if upto is None else min(last, upto)
    found = []
    for symbol in {r["symbol"] for r in rows}:
        mine = [r for r in rows if r["symbol"] == symbol]
        first = max(mine[0]["ts"], o.get("start", mine[0]["ts"]))
        for point in range(-(-first // every) * every, last + 1, every):
            there = [r for r in mine if r["ts"] <= point]
            row = {"symbol": symbol, "ts": point}
            for name in ("v", "w"):
                held = there
                if o["fill"] == "column":
                    held = [r for r in there if r[name] is not None]
                age = point - held[-1]["ts"] if held else 0
                old = o["max_age"] is not None and age > o["max_age"]
                row[name] = held[-1][name] if held and not old else None
            source = there[-1]["ts"]
            row |= {"source_ts": source, "age_ns": point - source}
            found.append(row | {"filled": source <= point - every})
    return sorted(found, key=lambda r: (r["ts"], r["symbol"]))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.one_of(st.none(), st.integers(0, 60), st.integers(-20, 60)),
            "symbol": st.sampled_from(["a", "b", "a", "b", None]),
            "v": st.one_of(st.none(), st.integers(0, 9)),
            "w": st.one_of(st.none(), st.floats(0, 1)),
        }
    ),
    max_size=30,
)
OPTIONS = st.fixed_dictionaries(
    {
        "fill": st.sampled_from(["row", "column"]),
        "max_age": st.sampled_from([None, 0, 5, 20]),
    },
    optional={"start": st.integers(-20, 40), "end": st.integers(0, 90)},
)


@settings(max_examples=150)
@given(ROWS, st.integers(1, 15), OPTIONS)
def test_equals_looking_at_every_row(rows: list[Row], every: int, options: dict[str, Any]) -> None:
    got = bars.gap_fill(pa.Table.from_pylist(rows, SCHEMA), every, on="ts", sort=True, **options)
    assert got.to_pylist() == expected(rows, every, **options)


@settings(max_examples=150)
@given(
    ROWS, st.integers(1, 15), OPTIONS, st.sampled_from([0, 4, 30]), st.booleans(), st.booleans(),
    st.sampled_from([0, 1000]), st.data(),
)  # fmt: skip
def test_any_cut_and_restart_equals_the_batch_of_the_accepted_rows(
    rows: list[Row],
    every: int,
    options: dict[str, Any],
    lateness: int,
    ordered: bool,
    restart: bool,
    spare: int,
    data: st.DataObject,
) -> None:
    if ordered:
        times = iter(sorted(r["ts"] for r in rows if r["ts"] is not None))
        rows = [{**r, "ts": None if r["ts"] is None else next(times)} for r in rows]
    whole = pa.Table.from_pylist(rows, SCHEMA)

    def make() -> Any:
        grid = bars.streaming(
            "gap_fill", SCHEMA, every=every, on="ts", lateness=lateness, **options
        )
        grid.spare = spare
        return grid

    grid, out, at = make(), [make().flush()], 0
    while at < whole.num_rows:
        size = data.draw(st.integers(1, 9))
        out.append(grid.push(whole.slice(at, size)))
        at += size
        if restart:
            blob = grid.snapshot()
            grid = make()
            grid.restore(blob)
            assert grid.snapshot() == blob
    kept, late = accepted(rows, lateness)
    assert grid.counters["late"] == late
    if kept:
        latest = max(r["ts"] for r in kept)
        want = expected(kept, every, upto=latest - lateness - 1, **options)
        assert pa.concat_tables(out).to_pylist() == want  # a point waits for W > point
    out.append(grid.flush())
    batch = bars.gap_fill(pa.Table.from_pylist(kept, SCHEMA), every, on="ts", sort=True, **options)
    assert pa.concat_tables(out).equals(batch)


def test_a_point_waits_until_the_watermark_has_passed_it() -> None:
    grid = bars.streaming("gap_fill", EXAMPLE.schema, every=10, on="ts")
    assert grid.push(EXAMPLE.slice(0, 1)).num_rows == 0
    at_ten = pa.table({"ts": [10], "symbol": ["a"], "v": [7]})
    assert grid.push(at_ten).num_rows == 0
    assert grid.advance(10).num_rows == 0
    assert grid.advance(11)["v"].to_pylist() == [7]


def test_a_long_stream_holds_a_row_per_symbol() -> None:
    grid = bars.streaming("gap_fill", SCHEMA, every=10, on="ts", fill="column")
    for begin in range(0, 60_000, 3_000):
        ts = np.arange(begin, begin + 3_000)
        grid.push(
            pa.table(
                {"ts": ts, "symbol": np.where(ts % 2, "a", "b"), "v": ts, "w": ts * 1.0}, SCHEMA
            )
        )
    assert grid.held.num_rows < 8_000


def test_dictionaries_polars_and_empty_input() -> None:
    coded = EXAMPLE.set_column(1, "symbol", EXAMPLE["symbol"].dictionary_encode())
    frame = pl.from_arrow(coded)
    out = bars.gap_fill(frame, 10, on="ts")
    assert out.schema == bars.gap_fill(frame.clear(), 10, on="ts").schema
    assert out["symbol"].to_list() == ["a"] * 3
    grid = bars.streaming("gap_fill", coded.schema, every=10, on="ts")
    parts = [grid.push(coded.slice(n, 1)) for n in range(3)]
    assert pa.concat_tables([*parts, grid.flush()])["v"].to_pylist() == [1, None, None]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"every": 0}, "every must be above 0"),
        ({"fill": "linear"}, "fill must be row or column"),
        ({"max_age": "1x"}, "max_age must be an integer and one of"),
        ({"on": "time"}, "no column 'time'"),
        ({"every": 1, "end": 2**61}, "check the times, or use a longer step"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        bars.gap_fill(EXAMPLE, **{"every": 10, "on": "ts", **options})


def test_disorder_and_taken_names_are_errors() -> None:
    with pytest.raises(gk.UnsortedError, match=r"row 1, key .* 3 follows 38"):
        bars.gap_fill(EXAMPLE.take([2, 0]), 10, on="ts")
    with pytest.raises(gk.PlanError, match="has a column 'filled' already"):
        bars.gap_fill(EXAMPLE.append_column("filled", pa.array([1] * 3)), 10, on="ts")
