"""asof_join: columns, types, containers and errors; AsofTable and its versions."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import gpukern as gk

UTC_NS = pa.timestamp("ns", tz="UTC")
LEFT = pa.table({"ts": [1, 5, 9], "symbol": ["a", "b", "a"], "price": [1.5, 2.5, 3.5]})
RIGHT = pa.table(
    {
        "ts": pa.array([0, 4, 8], pa.int64()),
        "symbol": ["a", "a", "b"],
        "price": pa.array([7, 8, 9], pa.int64()),
        "flag": [True, False, True],
        "venue": pa.array(["x", "y", "x"]).dictionary_encode(),
        "name": ["r0", "r1", "r2"],
        "day": pa.array([0, 1, 2], pa.date32()),
        "nothing": pa.nulls(3, pa.float32()),
    }
)


def join(left: Any = LEFT, right: Any = RIGHT, **options: Any) -> Any:
    return gk.asof_join(left, right, **{"on": "ts", "by": "symbol", **options})


def test_columns_come_in_the_declared_order_with_a_suffix_where_needed() -> None:
    out = join(age_column="age")
    assert out.column_names == [
        "ts", "symbol", "price", "ts_right", "price_right", "flag", "venue", "name", "day",
        "nothing", "age",
    ]  # fmt: skip
    assert join(columns=["name", "price"]).column_names[3:] == ["ts_right", "name", "price_right"]


def test_types_do_not_depend_on_the_data() -> None:
    schema = join().schema
    assert schema.field("price_right").type == pa.int64()
    assert schema.field("venue").type == RIGHT.schema.field("venue").type
    for left in (LEFT, LEFT.slice(0, 0)):
        for right in (RIGHT, RIGHT.slice(0, 0), RIGHT.slice(2, 1)):
            out = join(left, right)
            out.validate(full=True)
            assert out.schema == schema


ANY_TYPE = {
    "small": pa.array([1, 2], pa.int8()),
    "huge": pa.array([1, 2**64 - 1], pa.uint64()),
    "half": pa.array([1.0, None]).cast(pa.float16()),
    "text": ["x", None],
    "view": pa.array(["x", "much longer than a view"], pa.string_view()),
    "bytes": pa.array([b"x", None], pa.binary_view()),
    "fixed": pa.array([b"xx", b"yy"], pa.binary(2)),
    "word": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), ["a", "b"]),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 2], [3, 4]),
    "list": [[1], None],
    "record": [{"a": 1}, {"a": None}],
    "money": pa.array([decimal.Decimal("1.5"), None]),
    "date": pa.array([dt.date(2024, 1, 1), None]),
    "span": pa.array([1, 2], pa.duration("us")),
    "naive": pa.array([1, 2], pa.timestamp("ms")),
}


@pytest.mark.parametrize("name", ANY_TYPE)
def test_a_right_column_of_any_type_stays_what_it_is(name: str) -> None:
    right = pa.table({"ts": [1, 5], "v": ANY_TYPE[name]})
    field = right.schema.field("v")
    left = pa.table({"ts": [0, 2, 6]})
    full = gk.asof_join(left, right, on="ts")
    full.validate(full=True)
    first, second = right["v"].to_pylist()
    assert full["v"].to_pylist() == [None, first, second]
    assert gk.asof_join(left, right.slice(0, 0), on="ts")["v"].to_pylist() == [None] * 3
    for near, far in ((left.slice(0, 0), right), (left, right.slice(0, 0)), (left, right)):
        assert gk.asof_join(near, far, on="ts").schema.field("v") == field
    join = gk.asof_join_streaming(left.schema, right.schema, on="ts")
    join.push_right(right)
    again = gk.asof_join_streaming(left.schema, right.schema, on="ts")
    again.restore(join.snapshot())
    out = pa.concat_tables([again.push_left(left), again.flush()])
    assert out.schema == full.schema
    assert out.to_pylist() == full.to_pylist()


def test_an_empty_right_side_keeps_the_categories_of_pandas() -> None:
    right = pd.DataFrame({"ts": [1], "v": pd.Categorical(["x"], ["x", "y"], ordered=True)})
    out = gk.asof_join(pd.DataFrame({"ts": [1]}), right.iloc[:0], on="ts")
    assert out["v"].dtype == right["v"].dtype


def test_keys_may_be_encoded_in_any_way() -> None:
    for kind in (pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        keyed = LEFT.set_column(1, "symbol", LEFT["symbol"].cast(kind))
        assert join(keyed)["name"].to_pylist() == join()["name"].to_pylist()
    runs = pa.RunEndEncodedArray.from_arrays([1, 2, 3], ["a", "b", "a"])
    assert join(LEFT.set_column(1, "symbol", runs))["name"].to_pylist() == ["r0", None, "r1"]


def test_chunks_and_dictionaries_of_their_own_make_no_difference() -> None:
    parts = [RIGHT.slice(i, 1) for i in range(3)]
    recoded = []
    for part in parts:
        symbol = part["symbol"].combine_chunks().dictionary_encode()
        venue = part["venue"].combine_chunks().cast(pa.string()).dictionary_encode()
        recoded.append(part.set_column(1, "symbol", symbol).set_column(4, "venue", venue))
    chunked = pa.concat_tables(recoded)
    assert chunked["symbol"].num_chunks == 3
    assert join(LEFT, chunked).to_pydict() == join().to_pydict()


def test_a_dictionary_may_hold_a_value_twice_or_null() -> None:
    values = pa.array(["a", None, "a", "b"])
    symbol = pa.DictionaryArray.from_arrays(pa.array([2, 3, 0], pa.int8()), values)
    odd = LEFT.set_column(1, "symbol", symbol)
    assert join(odd)["name"].to_pylist() == join()["name"].to_pylist()
    pieces = pa.chunked_array([symbol.slice(0, 1), symbol.slice(1), symbol.slice(0, 0)])
    assert join(LEFT.set_column(1, "symbol", pieces))["name"].to_pylist() == ["r0", None, "r1"]
    nulls = pa.DictionaryArray.from_arrays(pa.array([1, 3, None], pa.int8()), values)
    assert join(LEFT.set_column(1, "symbol", nulls))["name"].to_pylist() == [None] * 3


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_timestamps_of_any_unit_and_zone_are_compared_in_ns(unit: str, zone: str) -> None:
    left = pa.table({"ts": pa.array([1, 5], pa.timestamp("s", tz="UTC"))})
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    right = pa.table({"ts": pa.array([0, 4 * scale], pa.timestamp(unit, tz=zone)), "v": [1, 2]})
    out = gk.asof_join(left, right, on="ts", age_column="age", tolerance="1s")
    assert out["v"].to_pylist() == [1, 2]
    assert out["age"].to_pylist() == [10**9, 10**9]
    assert out.schema.field("ts_right").type == pa.timestamp(unit, tz=zone)


@pytest.mark.parametrize("zero", ["0ns", 0, dt.timedelta(0)])
def test_tolerance_zero_wants_equal_times(zero: Any) -> None:
    left, right = pa.table({"ts": [4, 5]}), pa.table({"ts": [4], "v": [1]})
    assert gk.asof_join(left, right, on="ts", tolerance=zero)["v"].to_pylist() == [1, None]
    none = gk.asof_join(left, right, on="ts", tolerance=zero, allow_exact_matches=False)
    assert none["v"].to_pylist() == [None, None]


def test_the_container_of_the_left_side_comes_back() -> None:
    want = join().to_pydict()
    batch = join(LEFT.to_batches()[0], RIGHT.to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    assert batch.to_pydict() == want
    polars = join(pl.from_arrow(LEFT), pl.from_arrow(RIGHT))
    assert isinstance(polars, pl.DataFrame)
    assert polars.to_dict(as_series=False) == want
    assert polars.schema["venue"] == pl.from_arrow(RIGHT).schema["venue"]
    frame = join(LEFT.to_pandas(), RIGHT.to_pandas())
    assert isinstance(frame, pd.DataFrame)
    assert frame["price_right"].dtype == pd.Int64Dtype()
    assert frame["flag"].dtype == pd.BooleanDtype()
    assert frame["venue"].dtype == "category"
    assert frame["name"].tolist()[::2] == ["r0", "r1"]
    assert frame["price_right"].isna().tolist() == [False, True, False]


def test_polars_enums_and_categoricals_stay_what_they_are() -> None:
    left = pl.DataFrame({"ts": [1], "symbol": ["a"]})
    right = pl.DataFrame({"ts": [1], "symbol": ["a"], "v": ["x"], "w": ["y"]}).with_columns(
        pl.col("v").cast(pl.Categorical), pl.col("w").cast(pl.Enum(["y", "z"]))
    )
    out = join(left, right)
    assert (out.schema["v"], out.schema["w"]) == (right.schema["v"], right.schema["w"])
    assert out.row(0) == (1, "a", 1, "x", "y")


def test_a_pandas_index_is_kept() -> None:
    left = LEFT.to_pandas().set_index(pd.Index([7, 7, 3], name="id"))
    assert join(left, RIGHT.to_pandas()).index.equals(left.index)


def test_unsorted_rows_are_named() -> None:
    right = pa.table({"recv_ts": [9, 7, 5], "symbol": ["BTC/USD", "ETH/USD", "BTC/USD"]})
    left = pa.table({"recv_ts": [1], "symbol": ["BTC/USD"]})
    with pytest.raises(gk.UnsortedError) as caught:
        gk.asof_join(left, right, on="recv_ts", by="symbol")
    assert str(caught.value) == (
        "asof_join: right side is not in time order: column 'recv_ts', row 2, "
        "key ('BTC/USD',): 5 follows 9; sort it or pass sort=True"
    )
    with pytest.raises(gk.UnsortedError, match=r"left side .* row 2, key"):
        gk.asof_join(right, left, on="recv_ts", by="symbol")
    gk.asof_join(right, right, on="recv_ts", by="symbol", sort=True)


def test_rows_without_key_or_time_may_stand_anywhere() -> None:
    right = pa.table({"ts": [9, None, 1, 10], "symbol": ["a", "a", None, "a"], "v": [1, 2, 3, 4]})
    assert join(LEFT, right)["v"].to_pylist() == [None, None, 1]


FLOAT_KEY = pa.table({"ts": [1], "symbol": pa.array([1.0]).dictionary_encode()})
NAIVE = pa.table({"ts": pa.array([1], pa.timestamp("ns")), "symbol": ["a"]})


@pytest.mark.parametrize(
    ("left", "right", "options", "kind", "match"),
    [
        (NAIVE, NAIVE, {}, TypeError, "no time zone"),
        (LEFT, RIGHT.set_column(0, "ts", RIGHT["ts"].cast(UTC_NS)), {}, TypeError, "make both"),
        (LEFT.set_column(0, "ts", LEFT["ts"].cast("float64")), RIGHT, {}, TypeError, "double"),
        (LEFT, RIGHT.set_column(1, "symbol", RIGHT["ts"]), {}, TypeError, "key column 'symbol'"),
        (LEFT, RIGHT, {"by": "price"}, TypeError, "must be a string or an integer"),
        (FLOAT_KEY, FLOAT_KEY, {}, TypeError, "must be a string or an integer"),
        (LEFT, RIGHT, {"by": "sym"}, gk.PlanError, "no column 'sym' on the left side"),
        (LEFT, RIGHT, {"columns": ["vol"]}, gk.PlanError, "no column 'vol' on the right side"),
        (LEFT, RIGHT, {"columns": ["symbol"]}, gk.PlanError, "in the result already"),
        (LEFT, RIGHT, {"suffix": ""}, gk.PlanError, "give another suffix"),
        (LEFT, RIGHT, {"age_column": "price"}, gk.PlanError, "age_column 'price'"),
        (LEFT, RIGHT, {"direction": "back"}, gk.PlanError, "direction must be one of"),
        (LEFT, RIGHT, {"tolerance": -1}, gk.PlanError, "must not be negative"),
        (LEFT, RIGHT, {"tolerance": 1.5}, TypeError, "whole nanoseconds, got 1.5"),
        (LEFT, RIGHT, {"tolerance": "1.5s"}, gk.PlanError, "tolerance"),
        (LEFT, RIGHT, {"left_on": "ts"}, gk.PlanError, "either on="),
        (LEFT, [1, 2], {}, gk.PlanError, "input must be"),
    ],
)
def test_wrong_use_is_explained(
    left: Any, right: Any, options: dict[str, Any], kind: type, match: str
) -> None:
    with pytest.raises(kind, match=match):
        join(left, right, **options)


def test_what_sees_later_rows_is_marked() -> None:
    causal = {d: gk.AsofTable(RIGHT, on="ts", by="symbol", direction=d).plan.causal
              for d in ("backward", "forward", "nearest")}  # fmt: skip
    assert causal == {"backward": True, "forward": False, "nearest": False}


# -- AsofTable ---------------------------------------------------------------------------------


def test_a_table_joined_in_cuts_equals_the_join_of_the_sorted_whole() -> None:
    left, right = LEFT.take([2, 0, 1]), RIGHT.take([1, 2, 0])
    lookup = gk.AsofTable(right, on="ts", by="symbol")
    cuts = pa.concat_tables([lookup.join(left.slice(0, 1)), lookup.join(left.slice(1))])
    assert cuts.equals(join(left, right, sort=True))
    assert gk.asof_join_table(left, right, on="ts", by="symbol").equals(cuts)


def test_without_time_the_last_row_of_the_key_counts() -> None:
    right = pa.table({"symbol": ["a", "b", "a"], "tick": [1, 2, 3]})
    out = gk.asof_join_table(LEFT, right, by="symbol")
    assert out["tick"].to_pylist() == [3, 2, 3]


def test_versions_hold_from_their_time_on_whatever_the_cuts() -> None:
    first = pa.table({"symbol": ["a", "b"], "tick": [1, 2]})
    second = pa.table({"symbol": ["a"], "tick": [10]})
    lookup = gk.AsofTable(versions=[(2, first), (9, second)], left_on="ts", by="symbol")
    assert lookup.join(LEFT)["tick"].to_pylist() == [None, 2, 10]
    one = [lookup.join(LEFT.slice(i, 1))["tick"].to_pylist()[0] for i in range(3)]
    assert one == [None, 2, 10]


def test_versions_may_start_at_a_zoned_datetime() -> None:
    start = dt.datetime(1970, 1, 1, 0, 0, 5, tzinfo=dt.UTC)
    left = pa.table({"ts": pa.array([4, 5], pa.timestamp("s", tz="UTC")), "symbol": ["a", "a"]})
    table = pa.table({"symbol": ["a"], "tick": [1]})
    out = gk.asof_join_table(left, versions=[(start, table)], left_on="ts", by="symbol")
    assert out["tick"].to_pylist() == [None, 1]
    with pytest.raises(TypeError, match="time zone"):
        gk.AsofTable(versions=[(start.replace(tzinfo=None), table)], left_on="ts", by="symbol")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "either a right table or versions"),
        ({"versions": [], "left_on": "ts"}, "versions is empty"),
        ({"versions": [(2, RIGHT), (2, RIGHT)], "left_on": "ts"}, "must increase"),
        ({"versions": [(1, RIGHT), (2, LEFT)], "left_on": "ts"}, "other columns or types"),
        ({"versions": [(1, RIGHT)]}, "left time column"),
        ({"right": RIGHT, "right_on": "ts"}, "needs left_on"),
        ({"right": RIGHT, "tolerance": 1}, "need a right time column"),
    ],
)
def test_wrong_tables_are_explained(options: dict[str, Any], match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        gk.AsofTable(**{"by": "symbol", **options})
