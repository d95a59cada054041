"""Rows encoded together are those encoded one by one, byte for byte."""

import json as plain_json
import random
import struct

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rows import built, every_channel, trade, trades

from collectors.schema import SCHEMAS
from collectors.serialisation import json
from collectors.serialisation.json import json_lines, json_messages
from collectors.serialisation.json_rows import _LAYOUTS, JsonRows

DECIMAL = st.builds(lambda digits, places: digits / 10**places, st.integers(), st.integers(0, 25))
FLOAT = st.none() | st.floats() | DECIMAL.filter(lambda x: abs(x) < 1e300)
MANY = 2 * json.FEW
SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
NAMES = ("BTC/USD", "S\u00fcd/USD", "A")


@pytest.fixture(scope="module", autouse=True)
def loaded():
    json.load()


def one_by_one(batch):
    """What msgspec makes of every row."""
    columns = [json.plain_column(column).to_pylist() for column in batch.columns]
    rows = [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [msgspec.json.encode(row) for row in rows]


@pytest.mark.parametrize("channel", list(SCHEMAS))
def test_every_channel(channel):
    batch = every_channel()[channel]
    batch = pa.Table.from_batches([batch] * MANY).unify_dictionaries().combine_chunks()
    (batch,) = batch.to_batches()
    rows = one_by_one(batch)
    assert json_messages(batch) == rows
    assert json_messages(batch, b"\0\1") == [b"\0\1" + row for row in rows]
    assert json_lines(batch) == b"".join(row + b"\n" for row in rows)
    named = [b'{"dataset":"%s",' % channel.encode() + row[1:] + b"\n" for row in rows]
    assert json_lines(batch, dataset=channel) == b"".join(named)


def test_slices_have_their_own_values_and_nulls():
    schema = SCHEMAS["trades"]
    batch = trades(0, 3 * MANY)
    gone = pa.array([None if i % 3 else 0.1 * i for i in range(3 * MANY)])
    batch = batch.set_column(schema.get_field_index("price"), schema.field("price"), gone)
    rows = one_by_one(batch)
    for start in (1, 7, 13):
        assert json_messages(batch.slice(start, MANY)) == rows[start : start + MANY]


def test_slices_of_columns_of_every_width():
    count = 5 * MANY
    whole = [None if i % 5 == 0 else i % 128 - 64 for i in range(count)]
    columns = {str(kind): pa.array(whole, kind) for kind in SIGNED}
    for kind in SIGNED:
        codes = pa.array([None if i % 7 == 0 else i % len(NAMES) for i in range(count)], kind)
        columns[f"name_{kind}"] = pa.DictionaryArray.from_arrays(codes, NAMES)
    columns["is_known"] = pa.array([i % 3 == 0 for i in range(count)])
    columns["is_given"] = pa.array([None if i % 11 == 0 else i % 3 == 0 for i in range(count)])
    columns["missing"] = pa.nulls(count, pa.float64())
    sliced = {name: column.slice(3, count - 3) for name, column in columns.items()}
    batch = pa.record_batch(sliced).slice(8, 3 * MANY)
    assert json_messages(batch) == one_by_one(batch)


def test_names_may_change_from_batch_to_batch():
    markets = [built("trades", [trade(i, symbol=name) for i in range(MANY)]) for name in NAMES]
    both = pa.Table.from_batches(markets).unify_dictionaries().combine_chunks().to_batches()[0]
    for batch in (*markets, both, *markets, markets[0].slice(0, 0), both):
        assert JsonRows(batch, b"{", b"}").each() == one_by_one(batch)


def test_more_schemas_than_are_remembered():
    batches = [pa.record_batch({f"price{i}": [1.5, None]}) for i in range(2 * _LAYOUTS)]
    for batch in (*batches, *batches):
        assert JsonRows(batch, b"{", b"}").each() == one_by_one(batch)


@settings(max_examples=400)
@given(values=st.lists(FLOAT, min_size=1, max_size=20))
@example([0.0, -0.0, 1e-5, 9.999e-6, 1e15, 999999999999999.9, -1e15, 1e22, 0.1 + 0.2, 1 / 3])
@example([123456.0, 1e-5, 0.00001234567890123, 99999999999999.9, 1e14, 5e-324])
def test_any_numbers(values):
    batch = pa.record_batch({"price": pa.array(values, pa.float64())})
    together = JsonRows(batch, b"{", b"}")
    expected = one_by_one(batch)
    others = 0
    for told, text in zip(together.each(), expected, strict=True):
        others += not told
        assert told in (b"", text)
    assert together.left_out == others


def test_numbers_as_exchanges_send_them_are_none_of_the_exceptions():
    source = random.Random(5)
    prices = [round(source.lognormvariate(0, 3), source.randrange(9)) for _ in range(20_000)]
    batch = pa.record_batch({"price": [p for p in prices if p == 0 or p >= 1e-5]})
    together = JsonRows(batch, b"{", b"}")
    assert together.left_out == 0
    assert together.each() == one_by_one(batch)


def test_bits_of_any_double_come_back():
    source = np.random.default_rng(6)
    values = source.integers(0, 2**64, 5_000, np.uint64, endpoint=False).view(np.float64)
    values = np.concatenate([values, source.integers(0, 10**16, 5_000) / 1e5, [np.nan, np.inf]])
    batch = pa.record_batch({"price": values, "seq": source.integers(-(2**63), 2**63, len(values))})
    messages = json_messages(batch)
    assert messages == one_by_one(batch)
    read = [plain_json.loads(message)["price"] for message in messages]
    for value, told in zip(values.tolist(), read, strict=True):
        if told is not None:
            assert struct.pack("d", value) == struct.pack("d", told)


def test_names_are_escaped_and_may_be_missing():
    names = pa.array(["BTC/USDT", 'a"b\\c\n', "Ü/€", None] * MANY).dictionary_encode()
    truths = pa.array([True, False, None, True] * MANY)
    batch = pa.record_batch({"symbol": names, "is_snapshot": truths, "side": names.indices})
    assert json_messages(batch) == one_by_one(batch)


def test_it_is_loaded_when_it_is_worth_it(monkeypatch):
    loading = json.loading()
    monkeypatch.setattr(json, "_loading", loading)
    monkeypatch.setattr(loading, "worth", 3 * MANY)
    batch = trades(0, MANY)
    before = [json_messages(batch), json_messages(batch)]
    assert loading.thread is None
    before.append(json_messages(batch))
    loading.thread.join()
    assert loading.load() is JsonRows
    assert before == [json_messages(batch)] * 3


@pytest.mark.parametrize("kind", [pa.float32(), pa.string(), pa.uint64()])
def test_column_of_another_type_is_named_and_not_misread(kind):
    batch = pa.record_batch({"price": pa.array([None], kind)})
    with pytest.raises(TypeError, match=f"column 'price': {kind} is no type of canonical rows"):
        JsonRows(batch, b"{", b"}")
