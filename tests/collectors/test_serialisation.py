"""Messages: what we write is what independent readers read, to the last bit."""

import io
import json

import fastavro
import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoc import compiled
from rows import every_channel, plain, trades

from collectors.errors import SinkError
from collectors.schema import SCHEMAS
from collectors.serialisation.avro import avro_messages, avro_schema
from collectors.serialisation.formats import Encoders
from collectors.serialisation.json import json_messages, json_schema
from collectors.serialisation.protobuf import protobuf_messages, protobuf_schema

INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 63, 64, -64, -65, 127, 128, 2**35])
FLOAT = st.floats(allow_nan=False)
TRADE = st.tuples(
    st.none() | INT64,
    INT64,
    st.sampled_from(["binance", "kraken"]),
    st.sampled_from(["BTC/USDT", "ETH/USD", "Ü/€", "X" * 200 + "/USD"]),
    st.none() | INT64,
    st.none() | INT64,
    st.none() | FLOAT,
    st.none() | FLOAT,
    st.none() | st.integers(-128, 127),
)


def avro_read(message, schema, reader=None):
    return fastavro.schemaless_reader(io.BytesIO(message), schema, reader)


@pytest.fixture(scope="module")
def protobuf_classes(tmp_path_factory):
    """Message classes that protoc makes of our schemas."""
    folder = tmp_path_factory.mktemp("proto")
    classes = {}
    for channel in SCHEMAS:
        (folder / f"{channel}_row.proto").write_text(protobuf_schema(channel))
        classes[channel] = compiled(folder, f"{channel}_row", channel.capitalize())
    return classes


def protobuf_read(message, kind):
    row = kind.FromString(message)
    names = [field.name for field in kind.DESCRIPTOR.fields]
    return {name: getattr(row, name) if row.HasField(name) else None for name in names}


@pytest.mark.parametrize("channel", list(SCHEMAS))
class TestEveryChannel:
    def test_avro(self, channel):
        batch = every_channel()[channel]
        schema = fastavro.parse_schema(json.loads(avro_schema(channel)))
        assert [avro_read(m, schema) for m in avro_messages(batch)] == plain(batch)

    def test_protobuf(self, channel, protobuf_classes):
        batch = every_channel()[channel]
        kind = protobuf_classes[channel]
        assert [protobuf_read(m, kind) for m in protobuf_messages(batch)] == plain(batch)

    def test_json(self, channel):
        batch = every_channel()[channel]
        rows = [json.loads(message) for message in json_messages(batch)]
        assert rows == plain(batch)
        for row in rows:
            jsonschema.validate(row, json.loads(json_schema(channel)))


def batch_of(rows):
    schema = SCHEMAS["trades"]
    arrays = []
    for i, field in enumerate(schema):
        values = [row[i] for row in rows]
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode())
        elif pa.types.is_timestamp(field.type):
            arrays.append(pa.array(values, pa.int64()).cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class TestAnyValues:
    @settings(max_examples=150)
    @given(rows=st.lists(TRADE, max_size=12))
    def test_avro(self, rows):
        batch = batch_of(rows)
        schema = fastavro.parse_schema(json.loads(avro_schema("trades")))
        assert [avro_read(m, schema) for m in avro_messages(batch)] == plain(batch)

    @settings(max_examples=150)
    @given(rows=st.lists(TRADE, max_size=12))
    def test_protobuf(self, rows, protobuf_classes):
        batch = batch_of(rows)
        read = [protobuf_read(m, protobuf_classes["trades"]) for m in protobuf_messages(batch)]
        assert read == plain(batch)

    @settings(max_examples=150)
    @given(rows=st.lists(TRADE, max_size=12))
    def test_json(self, rows):
        batch = batch_of(rows)
        read = [json.loads(m) for m in json_messages(batch)]
        finite = [
            {k: None if v in (float("inf"), float("-inf")) else v for k, v in row.items()}
            for row in plain(batch)
        ]
        assert read == finite  # JSON has no infinity


def test_slice_of_a_batch_is_its_rows():
    batch = trades(0, 10)
    assert avro_messages(batch.slice(3, 4)) == avro_messages(batch)[3:7]
    assert protobuf_messages(batch.slice(3, 4)) == protobuf_messages(batch)[3:7]
    assert json_messages(batch.slice(3, 4)) == json_messages(batch)[3:7]


class TestEvolution:
    """One more nullable column at the end: old readers and new ones read each other's messages."""

    @pytest.fixture
    def newer(self, monkeypatch):
        wider = SCHEMAS["trades"].append(pa.field("venue_fee", pa.float64()))
        monkeypatch.setattr("collectors.serialisation.avro.SCHEMAS", {"trades": wider})
        monkeypatch.setattr("collectors.serialisation.protobuf.SCHEMAS", {"trades": wider})
        batch = trades(0, 3)
        return pa.RecordBatch.from_arrays(
            [*batch.columns, pa.array([0.5, None, 0.25])], schema=wider
        )

    @pytest.fixture
    def older(self):
        return {
            "rows": trades(0, 3),
            "avro": fastavro.parse_schema(json.loads(avro_schema("trades"))),
            "proto": protobuf_schema("trades"),
        }

    def test_avro(self, older, newer):
        new = fastavro.parse_schema(json.loads(avro_schema("trades")))
        old = older["avro"]
        by_new = [avro_read(m, old, new) for m in avro_messages(older["rows"])]
        assert by_new == [{**row, "venue_fee": None} for row in plain(older["rows"])]
        by_old = [avro_read(m, new, old) for m in avro_messages(newer)]
        assert by_old == plain(older["rows"])

    def test_protobuf(self, older, newer, tmp_path):
        (tmp_path / "new").mkdir()
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "a.proto").write_text(older["proto"].replace("gpukern", "old.a"))
        new_text = protobuf_schema("trades").replace("gpukern", "new.a")
        (tmp_path / "new" / "b.proto").write_text(new_text)
        old = compiled(tmp_path / "old", "a", "Trades")
        new = compiled(tmp_path / "new", "b", "Trades")
        by_new = [protobuf_read(m, new) for m in protobuf_messages(older["rows"])]
        assert by_new == [{**row, "venue_fee": None} for row in plain(older["rows"])]
        by_old = [protobuf_read(m, old) for m in protobuf_messages(newer)]
        assert by_old == plain(older["rows"])


def test_protobuf_numbers_are_those_that_were_promised():
    """Stored messages depend on them: columns are appended, never inserted or removed."""
    numbers = [line.split() for line in protobuf_schema("trades").splitlines() if "=" in line]
    assert [(field[2], field[4]) for field in numbers if field[0] == "optional"] == [
        ("ts", "1;"),
        ("recv_ts", "2;"),
        ("exchange", "3;"),
        ("symbol", "4;"),
        ("seq", "5;"),
        ("trade_id", "6;"),
        ("price", "7;"),
        ("size", "8;"),
        ("side", "9;"),
    ]


def test_row_without_what_every_row_has_is_an_error():
    batch = trades(0, 2)
    batch = batch.set_column(1, batch.schema.field(1), pa.nulls(2, batch.schema.field(1).type))
    with pytest.raises(ValueError, match="recv_ts is null"):
        avro_messages(batch)


def test_unknown_format_is_named():
    with pytest.raises(SinkError, match="format 'xml' is unknown; choose from json, avro"):
        Encoders("xml")


@pytest.mark.parametrize("form", ["avro", "protobuf"])
def test_formats_that_nobody_could_read_need_a_registry(form):
    with pytest.raises(SinkError, match=f"format {form} needs a schema registry.*--format json"):
        Encoders(form)


@pytest.mark.parametrize("url", ["localhost:8081", "ftp://host", "http://"])
def test_url_of_the_registry_is_checked(url):
    with pytest.raises(SinkError, match=r"expected a URL such as http://host:8081"):
        Encoders("avro", url)


def test_registry_that_does_not_answer_is_named():
    encoders = Encoders("avro", "http://user:secret@127.0.0.1:9")
    with pytest.raises(SinkError, match=r"registry http://127\.0\.0\.1:9 does not answer") as error:
        encoders.encoder("binance-trades", "trades")
    encoders.close()
    assert "secret" not in str(error.value)
