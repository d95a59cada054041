"""Names, time and filters as the features see them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.errors import PipelineError
from pipelines.view import make_view, parse_mapping, parse_names

NS = 1_723_100_000_123_456_789


def view_of(table: pa.Table, by: tuple[str, ...] = (), **options: object):  # type: ignore[no-untyped-def]
    return make_view("input", table.schema, by=by, **options)  # type: ignore[arg-type]


def times(values: pa.Array) -> list[int]:
    table = pa.table({"t": values})
    view = view_of(table, time="t")
    seen = view.features_batch(table.to_batches()[0], ["t"])
    assert seen.schema.field("t").type == pa.timestamp("ns", "UTC")
    return seen.column("t").cast(pa.int64()).to_pylist()


def test_time_is_the_arrival_time_where_there_is_one(ticker: pa.Table) -> None:
    assert view_of(ticker).time == "recv_ts"
    assert view_of(ticker.drop_columns(["recv_ts"])).time == "ts"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_integers_are_read_by_magnitude(unit: str) -> None:
    scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    assert times(pa.array([NS // scale, None], pa.int64())) == [NS // scale * scale, None]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_every_unit_with_or_without_zone(unit: str) -> None:
    scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    for zone in (None, "UTC", "America/New_York"):
        values = pa.array([NS // scale], pa.int64()).cast(pa.timestamp(unit, zone))
        assert times(values) == [NS // scale * scale]


def test_text_and_dates_are_read_as_utc() -> None:
    day = 1_723_075_200_000_000_000
    assert times(pa.array(["2024-08-08", "2024-08-08 00:00:01.5"])) == [day, day + 1_500_000_000]
    assert times(pa.array(["2024-08-08T02:00:00+02:00"])) == [day]
    assert times(pa.array(["2024-08-08"]).dictionary_encode()) == [day]
    assert times(pa.array(["2024-08-08"]).cast(pa.date32())) == [day]
    assert times(pa.array([1_723_075_200.25])) == [day + 250_000_000]


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"input: time column 't': .*'yesterday'"):
        times(pa.array(["yesterday"]))
    with pytest.raises(PipelineError, match="time column 't': cannot read bool as time"):
        times(pa.array([True]))
    with pytest.raises(PipelineError, match="1e\\+19 is no time since 1970"):
        times(pa.array([1e19]))


def test_mapping_gives_columns_the_features_names() -> None:
    table = pa.table({"t": [1, 2], "close": [5.0, 6.0], "price": [0.0, 0.0]})
    view = view_of(table, time="t", mapping=parse_mapping("price=close, volume=price"))
    seen = view.features_batch(table.to_batches()[0], ["t", "price", "volume"])
    assert seen.column("price").to_pylist() == [5.0, 6.0]
    assert seen.column("volume").to_pylist() == [0.0, 0.0]


def test_mapping_errors_say_which_way_round() -> None:
    table = pa.table({"ts": [1], "close": [5.0]})
    with pytest.raises(PipelineError, match=r"no column 'price'; did you mean --map price=close\?"):
        view_of(table, mapping={"close": "price"})
    with pytest.raises(PipelineError, match="expected NAME=COLUMN, for example price=close"):
        parse_mapping("price")
    with pytest.raises(PipelineError, match="'price' is given twice"):
        parse_mapping("price=a,price=b")


def test_missing_columns_are_named_with_those_there_are() -> None:
    table = pa.table({"when": [1], "close": [5.0]})
    with pytest.raises(
        PipelineError, match=r"no time column .*--time COLUMN; columns: when, close"
    ):
        view_of(table)
    with pytest.raises(PipelineError, match="--time moment: no such column; columns: when, close"):
        view_of(table, time="moment")
    with pytest.raises(PipelineError, match="--by symbol: no such column"):
        view_of(table, time="when", by=("symbol",))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("symbol = 'a'", [1, 3]),
        ("symbol == 'b' OR price > 2.5", [2, 3]),
        ("symbol LIKE 'a%' AND price IS NOT NULL", [1, 3]),
        ("ts >= TIMESTAMP '2024-08-08 00:00:01'", [2, 3, 4]),
        ("price > 1", [2, 3]),
    ],
)
def test_where_keeps_rows_for_which_it_is_true_not_those_for_which_it_is_unknown(
    where: str, kept: list[int]
) -> None:
    day = 1_723_075_200_000_000_000
    table = pa.table(
        {
            "ts": pa.array([day + n * 10**9 for n in range(4)], pa.timestamp("ns", "UTC")),
            "symbol": pa.array(["a", "b", "a", None]).dictionary_encode(),
            "price": [1.0, 2.0, 3.0, None],
            "row": [1, 2, 3, 4],
        }
    )
    view = view_of(table, where=where)
    rows = view.filtered(table.to_batches()[0]).column("row").to_pylist()
    assert rows == kept


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("symbol ==", "unable to parse|syntax|expected"),
        ("colour = 'red'", "colour"),
        ("price", "must be true or false for each row, gives Float64"),
        ("price > 1; DROP TABLE t", "--where"),
    ],
)
def test_a_wrong_where_is_one_clear_error(where: str, message: str) -> None:
    table = pa.table({"ts": [1], "symbol": ["a"], "price": [1.0]})
    with pytest.raises(PipelineError, match=message) as caught:
        view_of(table, where=where)
    assert "\n" not in str(caught.value)


def test_names_of_an_option() -> None:
    assert parse_names(None) is None
    assert parse_names("none") == ()
    assert parse_names("exchange, symbol") == ("exchange", "symbol")
