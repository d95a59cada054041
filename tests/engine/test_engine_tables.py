"""Tables in and out: kinds, order, keys, times, types."""

from __future__ import annotations

import decimal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import samples

import gpukern as gk

COLUMNS = ["symbol", "ts", "price", "size", "side"]


@pytest.fixture
def market() -> pa.Table:
    return samples.market().select(COLUMNS)


@pytest.fixture
def plan() -> gk.Plan:
    """Outputs of every type: float, flag, category, count."""
    return gk.Plan(
        [
            gk.log_returns("price"),
            gk.rolling_mean("price", window="20s"),
            gk.trade_sign("price", method="tick"),
            gk.outlier_flag_mad("price", window=9),
            gk.drawdown_equity("price"),
        ]
    )


def test_output_types_are_those_declared(plan: gk.Plan, market: pa.Table) -> None:
    out = plan.run(market)
    types = {n: out.schema.field(n).type for n in plan.output_names}
    assert types["log_return"] == pa.float64()
    assert types["trade_sign"] == pa.int8()
    assert types["outlier_flag"] == pa.bool_()
    assert types["drawdown_bars"] == pa.int64()
    out.validate(full=True)


# --------------------------------------------------------------------------------------- kinds


def test_a_table_comes_back_with_columns_appended(plan: gk.Plan, market: pa.Table) -> None:
    table = market.replace_schema_metadata({"made": "by a test"})
    out = plan.run(table)
    assert isinstance(out, pa.Table)
    assert out.column_names == [*COLUMNS, *plan.output_names]
    assert out.select(COLUMNS).to_pandas().equals(table.to_pandas())
    assert out.schema.metadata == table.schema.metadata


def test_a_record_batch_comes_back_as_one(plan: gk.Plan, market: pa.Table) -> None:
    (batch,) = market.combine_chunks().to_batches()
    out = plan.run(batch)
    assert isinstance(out, pa.RecordBatch)
    samples.assert_same(pa.Table.from_batches([out]), plan.run(market), plan.output_names)


def test_chunks_and_offsets_do_not_matter(plan: gk.Plan, market: pa.Table) -> None:
    pieces = pa.concat_tables([market.slice(a, 97) for a in range(0, market.num_rows, 97)])
    samples.assert_same(plan.run(pieces), plan.run(market), plan.output_names)
    sliced = pa.concat_tables([market.slice(0, 13), market]).slice(13)
    samples.assert_same(plan.run(sliced), plan.run(market), plan.output_names)


def test_polars_in_polars_out(plan: gk.Plan, market: pa.Table) -> None:
    frame = pl.from_arrow(market)
    assert isinstance(frame, pl.DataFrame)
    out = plan.run(frame)
    assert isinstance(out, pl.DataFrame)
    assert out.columns == [*COLUMNS, *plan.output_names]
    assert out.select(COLUMNS).equals(frame)
    samples.assert_same(out.to_arrow(), plan.run(market), plan.output_names)


def test_pandas_in_pandas_out(plan: gk.Plan, market: pa.Table) -> None:
    frame = market.to_pandas()
    frame.index = np.arange(len(frame))[::-1] * 3
    before = frame.copy()
    out = plan.run(frame)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == [*COLUMNS, *plan.output_names]
    assert out.index.equals(frame.index)
    pd.testing.assert_frame_equal(out[COLUMNS], before)
    expected = plan.run(market)
    for name in plan.output_names:
        column = pa.Array.from_pandas(out[name])
        samples.assert_same(pa.table({name: column}), expected, [name])


def test_with_features_takes_a_batch_without_key_and_time() -> None:
    out = gk.with_features(pl.DataFrame({"price": [1.0, 2.0, 4.0]}), gk.pct_returns("price"))
    assert out["pct_return"].to_list() == [None, 1.0, 1.0]
    table = pa.table({"price": [1.0, 2.0], "symbol": ["a", "b"]})
    assert gk.with_features(table, gk.pct_returns("price"))["pct_return"].null_count == 2


# --------------------------------------------------------------------------------------- order


def test_sorting_computes_in_time_order_and_keeps_the_rows(plan: gk.Plan, market: pa.Table) -> None:
    order = pa.compute.sort_indices(market, sort_keys=[("ts", "ascending")])
    known = market.append_column("row", pa.array(range(market.num_rows)))
    ordered = known.take(order)
    shuffled_rows = np.random.default_rng(3).permutation(market.num_rows)
    # Equal times keep their order of arrival, so shuffle only whole instants.
    instant = ordered.column("ts").combine_chunks().dictionary_encode().indices.to_numpy()
    rank = np.argsort(shuffled_rows[: instant.max() + 1], kind="stable")[instant]
    shuffled = ordered.take(pa.array(np.argsort(rank, kind="stable")))
    with pytest.raises(gk.UnsortedError):
        plan.run(shuffled)
    out = plan.run(shuffled, sort=True)
    assert out.select(COLUMNS).to_pandas().equals(shuffled.select(COLUMNS).to_pandas())
    back = out.sort_by([("row", "ascending")])
    expected = plan.run(ordered).sort_by([("row", "ascending")])
    samples.assert_same(back, expected, plan.output_names)


# ---------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_string_keys_of_any_layout(plan: gk.Plan, market: pa.Table, kind: pa.DataType) -> None:
    names = market.column("symbol").cast(pa.string())
    if pa.types.is_dictionary(kind):
        keys = names.cast(kind.value_type).dictionary_encode().cast(kind)
    else:
        keys = names.cast(kind)
    out = plan.run(market.set_column(0, "symbol", keys))
    samples.assert_same(out, plan.run(market), plan.output_names)


def test_integer_keys(plan: gk.Plan, market: pa.Table) -> None:
    codes = market.column("symbol").combine_chunks().indices.cast(pa.int64())
    keys = pa.compute.multiply(codes, -(10**12))
    out = plan.run(market.set_column(0, "symbol", keys))
    samples.assert_same(out, plan.run(market), plan.output_names)


def test_categorical_keys_of_frames(plan: gk.Plan, market: pa.Table) -> None:
    frame = market.to_pandas()
    frame["symbol"] = frame["symbol"].astype(str).astype("category")
    expected = plan.run(market)
    out = plan.run(frame)["log_return"]
    samples.assert_same(
        pa.table({"log_return": pa.Array.from_pandas(out)}), expected, ["log_return"]
    )
    lazy = pl.from_arrow(market)
    assert isinstance(lazy, pl.DataFrame)
    polars = lazy.with_columns(pl.col("symbol").cast(pl.String).cast(pl.Categorical))
    samples.assert_same(plan.run(polars).to_arrow(), expected, plan.output_names)


def test_a_batch_may_bring_another_dictionary(plan: gk.Plan, market: pa.Table) -> None:
    names = market.column("symbol").cast(pa.string())
    plain = market.set_column(0, "symbol", names)
    job = plan.start()
    pieces = []
    for start in range(0, market.num_rows, 211):
        piece = plain.slice(start, 211)
        keys = piece.column("symbol").combine_chunks().dictionary_encode()
        pieces.append(job.push(piece.set_column(0, "symbol", keys)).select(plan.output_names))
    samples.assert_same(pa.concat_tables(pieces), plan.run(market), plan.output_names)


def test_every_batch_has_a_dictionary_of_many_symbols() -> None:
    """Most are found in the last batch's dictionary: new ones, ones that were away, ones that do
    not occur and ones that stand there twice are not."""
    rng = np.random.default_rng(2)
    known = np.array([f"COIN{n}/USD" for n in range(300)])
    plan = gk.Plan([gk.cum_sum("x")], time=None)
    job, batches, told = plan.start(), [], []
    for seen in (100, 150, 90, 300, 300):
        names = rng.permutation(known[:seen])
        codes = rng.integers(0, seen - 5, 400)  # the last five do not occur
        codes[codes == 7] = 8
        names[7] = names[8]  # twice
        keys = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names))
        batches.append(pa.table({"symbol": keys, "x": rng.normal(size=400)}))
        told.append(job.push(batches[-1])["x_cumsum"].combine_chunks())
    symbols = np.concatenate([b["symbol"].cast(pa.string()).to_numpy() for b in batches])
    x = np.concatenate([b["x"].to_numpy() for b in batches])
    whole = plan.run(pa.table({"symbol": symbols, "x": x}))["x_cumsum"]
    assert pa.chunked_array(told).equals(whole)
    assert len(job.symbols) == len(np.unique(symbols))


def test_several_key_columns_are_one_key(market: pa.Table) -> None:
    plan = gk.Plan([gk.cum_sum("n")], by=["exchange", "symbol"], time=None)
    table = pa.table(
        {
            "symbol": ["a", "b", "a", "a", "b", "b"],
            "exchange": ["k", "k", "c", "k", "c", "k"],
            "n": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        }
    )
    assert plan.run(table)["n_cumsum"].to_pylist() == [1.0, 2.0, 4.0, 9.0, 16.0, 34.0]
    job = plan.start()
    out = [job.push(table.slice(i, 1))["n_cumsum"][0].as_py() for i in range(6)]
    assert out == [1.0, 2.0, 4.0, 9.0, 16.0, 34.0]
    resumed = plan.resume(job.snapshot())
    assert resumed.push(table.slice(0, 1))["n_cumsum"].to_pylist() == [10.0]


def test_no_key_is_one_series() -> None:
    plan = gk.Plan([gk.cum_sum("n")], by=None, time=None)
    assert plan.run(pa.table({"n": [1.0, 2.0, 3.0]}))["n_cumsum"].to_pylist() == [1.0, 3.0, 6.0]


# ---------------------------------------------------------------------------------------- times


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_units_and_zones_of_time_do_not_matter(unit: str, zone: str | None) -> None:
    seconds = np.sort(np.random.default_rng(4).integers(1_700_000_000, 1_700_000_500, 100))
    x = np.random.default_rng(5).normal(0, 1, 100)
    plan = gk.Plan([gk.rolling_sum("x", window="30s")], by=None)
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = pa.array(seconds * scale, pa.timestamp(unit, zone))
    expected = plan.run(pa.table({"ts": seconds * 10**9, "x": x}))
    samples.assert_same(plan.run(pa.table({"ts": stamps, "x": x})), expected, plan.output_names)


def test_a_time_beyond_nanoseconds_is_refused() -> None:
    table = pa.table({"ts": pa.array([10**12], pa.timestamp("s")), "x": [1.0]})
    with pytest.raises(gk.PlanError, match="'ts'"):
        gk.Plan([gk.rolling_sum("x", window="30s")], by=None).run(table)


# ---------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, None, 5], pa.int8()),
        pa.array([3, None, 5], pa.uint64()),
        pa.array([3.0, None, 5.0], pa.float32()),
        pa.array([decimal.Decimal(3), None, decimal.Decimal(5)], pa.decimal128(9, 2)),
    ],
    ids=lambda a: str(a.type),
)
def test_numbers_of_any_type(values: pa.Array) -> None:
    out = gk.Plan([gk.cum_sum("x")], by=None, time=None).run(pa.table({"x": values}))
    assert out["x_cumsum"].to_pylist() == [3.0, None, 8.0]


def test_null_columns_and_flags_are_numbers_too() -> None:
    plan = gk.Plan([gk.cum_sum("x")], by=None, time=None)
    nothing = pa.table({"x": pa.nulls(3)})
    assert plan.run(nothing)["x_cumsum"].to_pylist() == [None] * 3
    flags = pa.table({"x": [True, False, True]})
    assert plan.run(flags)["x_cumsum"].to_pylist() == [1.0, 1.0, 2.0]


def test_all_kinds_of_missing_are_the_same() -> None:
    x = pa.array([1.0, None, np.nan, np.inf, -np.inf, 2.0])
    out = gk.Plan([gk.cum_sum("x")], by=None, time=None).run(pa.table({"x": x}))
    assert out["x_cumsum"].to_pylist() == [1.0, None, None, None, None, 3.0]
    assert out["x_cumsum"].null_count == 4


# ---------------------------------------------------------------------------------------- sizes


def test_an_empty_table_has_the_columns(plan: gk.Plan, market: pa.Table) -> None:
    out = plan.run(market.slice(0, 0))
    assert out.num_rows == 0
    full = plan.run(market)
    assert out.schema.equals(full.schema)
    frame: Any = plan.run(pl.from_arrow(market.slice(0, 0)))
    assert frame.columns == full.column_names
    assert list(plan.run(market.slice(0, 0).to_pandas()).columns) == full.column_names


def test_one_row_at_a_time(plan: gk.Plan, market: pa.Table) -> None:
    few = market.slice(0, 150)
    job = plan.start()
    rows = [job.push(few.slice(i, 1)) for i in range(150)]
    samples.assert_same(pa.concat_tables(rows), plan.run(few), plan.output_names)


def test_more_rows_than_one_piece() -> None:
    rows = 200_000
    x = np.random.default_rng(6).integers(0, 5, rows).astype(float)
    x[::7] = np.nan
    symbol = np.random.default_rng(7).integers(0, 3, rows)
    out = gk.Plan([gk.cum_sum("x"), gk.rolling_max("x", window=50)], time=None).run(
        pa.table({"symbol": symbol, "x": x})
    )
    frame = pd.DataFrame({"symbol": symbol, "x": x})
    expected = frame.groupby("symbol")["x"].cumsum()
    got = out["x_cumsum"].to_numpy()
    np.testing.assert_array_equal(got, expected)
    assert out["x_cumsum"].null_count == np.isnan(x).sum()


def test_arrow_tables_do_not_import_pandas(tmp_path: Path, market: pa.Table) -> None:
    """It takes 0.3 s, a fifth of what a new process needs for its first feature."""
    path = tmp_path / "market.arrow"
    with pa.ipc.new_file(str(path), market.schema) as file:
        file.write_table(market)
    script = (
        "import sys, pyarrow as pa, gpukern as gk\n"
        "table = pa.ipc.open_file(pa.memory_map(sys.argv[1])).read_all()\n"
        'gk.with_features(table, gk.rolling_mean("price", window=20), by="symbol", time="ts")\n'
        'print("pandas" in sys.modules)'
    )
    command = [sys.executable, "-c", script, str(path)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False\n"


def test_slices_with_an_offset_are_read_where_they_begin(plan: gk.Plan, market: pa.Table) -> None:
    cut = market.slice(7, 50)
    alone = cut.take(np.arange(50))
    for name in plan.output_names:
        found, expected = plan.run(cut)[name], plan.run(alone)[name]
        assert found.combine_chunks().equals(expected.combine_chunks())
