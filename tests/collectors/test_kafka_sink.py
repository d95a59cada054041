"""Kafka, through a real broker and a real registry: every row once, in order, for any reader."""

import json
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from functools import cache

import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from protoc import compiled
from rows import built, every_channel, plain, trade, trades
from topics import read_topic

from collectors.errors import SinkError
from collectors.queues import SinkQueue
from collectors.schema import SCHEMAS
from collectors.serialisation.avro import avro_schema
from collectors.serialisation.protobuf import protobuf_schema
from collectors.sinks import make_sink

FORMATS = ("json", "avro", "protobuf")
_DELIVERY_S = 20.0  # a live broker on a slow machine needs seconds, a dead one this long


@pytest.fixture
def client(schema_registry):
    with SchemaRegistryClient({"url": schema_registry}) as client:
        yield client


@pytest.fixture
def exchange():
    """A name of its own for each test: topics are new."""
    return f"venue{uuid.uuid4().hex[:10]}"


def from_exchange(batch, exchange):
    names = pa.array([exchange] * batch.num_rows).dictionary_encode()
    index = batch.schema.get_field_index("exchange")
    return batch.set_column(index, batch.schema.field(index), names)


def produce(sink, batches, exchange):
    for channel, batch in batches:
        sink.write(channel, from_exchange(batch, exchange))
    sink.close()


def deserializer(form, client, topic, channel, folder):
    """Confluent's own reader of a format."""
    context = SerializationContext(topic, MessageField.VALUE)
    if form == "avro":
        reader = AvroDeserializer(client)
    elif form == "json":
        text = client.get_latest_version(f"{topic}-value").schema.schema_str
        reader = JSONDeserializer(text, schema_registry_client=client)
    else:
        return lambda value: protobuf_by_hand(value, client, channel, folder)
    return lambda value: reader(value, context)


def protobuf_by_hand(value, client, channel, folder):
    """Confluent's reader asks for a form of the schema that only Confluent's registry has."""
    zero, number, index = struct.unpack(">bIb", value[:6])
    assert (zero, index) == (0, 0)
    return message_class(client.get_schema(number).schema_str, channel, folder).FromString(
        value[6:]
    )


@cache
def message_class(text, channel, folder):
    (folder / f"{channel}.proto").write_text(text.replace("package gpukern", f"package {channel}"))
    return compiled(folder, channel, channel.capitalize())


def as_row(message, channel):
    if isinstance(message, dict):
        return message
    return {
        name: getattr(message, name) if message.HasField(name) else None
        for name in SCHEMAS[channel].names
    }


@pytest.mark.parametrize("form", FORMATS)
def test_every_channel_comes_back_through_the_broker(
    kafka, schema_registry, client, exchange, form, tmp_path
):
    sink = make_sink("kafka", kafka, form=form, schema_registry=schema_registry)
    produce(sink, every_channel().items(), exchange)
    rows = 0
    for channel, batch in every_channel().items():
        topic = f"{exchange}-{channel}"
        read = deserializer(form, client, topic, channel, tmp_path)
        messages = read_topic(kafka, topic)
        found = [(key.decode(), as_row(read(value), channel)) for _, _, key, value in messages]
        expected = [(row["symbol"], row) for row in plain(from_exchange(batch, exchange))]
        for symbol in {symbol for symbol, _ in expected}:
            mine = [row for key, row in found if key == symbol]
            assert mine == [row for key, row in expected if key == symbol]
        assert len(found) == len(expected)
        rows += len(found)
    assert sink.delivered_rows == rows


def test_json_without_a_registry_is_plain_json(kafka, exchange):
    produce(make_sink("kafka", kafka), [("trades", trades(0, 3))], exchange)
    messages = read_topic(kafka, f"{exchange}-trades")
    assert [json.loads(value)["trade_id"] for *_, value in messages] == [0, 1, 2]


def test_rows_of_several_exchanges_go_to_their_topics(kafka, exchange):
    both = pa.concat_tables(
        pa.table(from_exchange(trades(i, i + 1), f"{exchange}{i % 2}")) for i in range(6)
    )
    sink = make_sink("kafka", kafka)
    sink.write("trades", both.unify_dictionaries().combine_chunks().to_batches()[0])
    sink.close()
    for parity in (0, 1):
        messages = read_topic(kafka, f"{exchange}{parity}-trades")
        found = [json.loads(value)["trade_id"] for *_, value in messages]
        assert found == [parity, parity + 2, parity + 4]


def test_a_symbol_keeps_its_partition_and_its_order(kafka, exchange):
    symbols = [f"S{i}/USD" for i in range(12)]
    batch = built("trades", [trade(n, symbol=symbols[n % 12]) for n in range(12_000)])
    produce(make_sink("kafka", kafka, partitions=3), [("trades", batch)], exchange)
    messages = read_topic(kafka, f"{exchange}-trades")
    homes = {(key, partition) for partition, _, key, _ in messages}
    assert len(homes) == 12
    assert {partition for _, partition in homes} == {0, 1, 2}
    for i, symbol in enumerate(symbols):
        ids = [json.loads(v)["trade_id"] for _, _, key, v in messages if key == symbol.encode()]
        assert ids == list(range(i, 12_000, 12))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_messages_are_read(kafka, exchange, compression):
    sink = make_sink("kafka", kafka, compression=compression)
    produce(sink, [("trades", trades(0, 500))], exchange)
    assert len(read_topic(kafka, f"{exchange}-trades")) == 500


def test_flush_returns_when_everything_is_acknowledged(kafka, exchange):
    sink = make_sink("kafka", kafka)
    for first in range(0, 20_000, 1000):
        sink.write("trades", from_exchange(trades(first, first + 1000), exchange))
    sink.flush()
    assert sink.delivered_rows == 20_000
    sink.close()


def test_few_batches_of_a_topic_are_on_their_way(kafka, exchange, monkeypatch):
    monkeypatch.setattr("collectors.sinks.kafka._PAUSE_S", 300.0)
    sink = make_sink("kafka", kafka)
    for number in range(30):
        sink.write("trades", from_exchange(trades(100 * number, 100 * number + 100), exchange))
        assert sink.delivered_rows >= 100 * (number + 1 - 4)
    sink.close()
    assert sink.delivered_rows == 3000


def test_acknowledged_rows_are_told_without_another_call(kafka, exchange):
    sink = make_sink("kafka", kafka)
    sink.write("trades", from_exchange(trades(0, 100), exchange))
    deadline = time.monotonic() + 120
    while sink.delivered_rows < 100:
        assert time.monotonic() < deadline
    sink.close()


@pytest.mark.parametrize(("form", "schema"), [("avro", avro_schema), ("protobuf", protobuf_schema)])
def test_registry_accepts_the_next_version_of_a_schema(client, exchange, form, schema, monkeypatch):
    from confluent_kafka.schema_registry import ConfigCompatibilityLevel, Schema, ServerConfig

    subject = f"{exchange}-trades-value"
    client.register_schema(subject, Schema(schema("trades"), form.upper()))
    client.set_config(subject, ServerConfig(ConfigCompatibilityLevel.FULL))
    wider = SCHEMAS["trades"].append(pa.field("venue_fee", pa.float64()))
    monkeypatch.setattr(f"collectors.serialisation.{form}.SCHEMAS", {"trades": wider})
    newer = Schema(schema("trades"), form.upper())
    assert "venue_fee" in newer.schema_str
    client.register_schema(subject, newer)
    assert client.get_latest_version(subject).version == 2


def test_broker_killed_while_producing_every_row_arrives_once_and_in_order(own_broker):
    sink = make_sink("kafka", own_broker.bootstrap, config={"reconnect.backoff.max.ms": 200})
    symbols = [f"S{i}/USD" for i in range(5)]
    rows, batch_rows = 60_000, 500

    def produce_rows():
        for first in range(0, rows, batch_rows):
            numbers = range(first, first + batch_rows)
            sink.write(
                "trades", built("trades", [trade(n, symbol=symbols[n % 5]) for n in numbers])
            )
            written.append(first + batch_rows)
            progress.release()
        sink.flush()

    written: list[int] = []
    progress = threading.Semaphore(0)
    producer = threading.Thread(target=produce_rows)
    producer.start()
    for _ in range(3):
        for _ in range(25):
            assert progress.acquire(timeout=120)
        own_broker.kill()
        own_broker.start()
    producer.join()
    sink.close()
    assert sink.delivered_rows == rows
    messages = read_topic(own_broker.bootstrap, "binance-trades")
    ids = [(key, json.loads(value)["trade_id"]) for _, _, key, value in messages]
    assert Counter(ids).most_common(1)[0][1] == 1
    assert len(ids) == rows
    for i, symbol in enumerate(symbols):
        mine = [number for key, number in ids if key == symbol.encode()]
        assert mine == list(range(i, rows, 5))


def test_rows_that_cannot_be_delivered_are_an_error_that_stays(own_broker):
    sink = make_sink("kafka", own_broker.bootstrap, delivery_s=_DELIVERY_S)
    sink.write("trades", trades(0, 10))
    sink.flush()
    own_broker.kill()
    sink.write("trades", trades(10, 20))
    for call in (sink.flush, lambda: sink.write("trades", trades(20, 30)), sink.close):
        with pytest.raises(SinkError, match="message to binance-trades could not be delivered"):
            call()
    assert (sink.delivered_rows, sink.failed_rows) == (10, 10)


def test_queue_before_kafka_tells_of_rows_that_were_not_delivered(own_broker):
    queue = SinkQueue(make_sink("kafka", own_broker.bootstrap, delivery_s=_DELIVERY_S))
    queue.write("trades", trades(0, 10))
    queue.flush()
    own_broker.kill()
    queue.write("trades", trades(10, 20))
    with pytest.raises(SinkError, match="could not be delivered"):
        queue.close(300)


def test_message_that_the_broker_refuses_is_an_error(kafka, exchange):
    sink = make_sink("kafka", kafka, config={"message.max.bytes": 1000})
    long = built("trades", [trade(1, symbol="X" * 2000 + "/USD")])
    with pytest.raises(SinkError, match=r"could not be delivered: .*[Ss]ize"):
        produce(sink, [("trades", long)], exchange)


SLOW_ADMIN = """
import sys, threading
from concurrent.futures import Future

from confluent_kafka.admin import AdminClient

from collectors.sinks.kafka import KafkaSink

told, done = threading.Event(), threading.Event()


class SlowFuture(Future):
    \"\"\"The client's thread holds it for longer than whoever asks.\"\"\"

    def set_exception(self, exception):
        super().set_exception(exception)
        told.set()
        done.wait(0.5)


def slow():
    future = SlowFuture()
    assert future.set_running_or_notify_cancel()
    return future


AdminClient._create_future = staticmethod(slow)
sink = KafkaSink(sys.argv[1])
sink._create(sys.argv[2])
done.set()
sink.close()
print("told" if told.is_set() else "not told")
"""


def test_topic_that_exists_is_no_matter_though_its_client_is_slow_to_let_go(kafka, exchange):
    topic = f"{exchange}-trades"
    produce(make_sink("kafka", kafka), [("trades", trades(0, 1))], exchange)
    ended = subprocess.run(
        [sys.executable, "-c", SLOW_ADMIN, kafka, topic],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "told\n", "")


def test_address_where_nobody_listens_is_named(monkeypatch):
    monkeypatch.setattr("collectors.sinks.kafka._CONNECT_S", 0.2)
    with pytest.raises(SinkError, match=r"Kafka at 127\.0\.0\.1:9: .*is the address right"):
        make_sink("kafka", "127.0.0.1:9")


def test_setting_that_librdkafka_does_not_know_is_named():
    with pytest.raises(SinkError, match=r"Kafka at 127\.0\.0\.1:9: .*no\.such\.thing"):
        make_sink("kafka", "127.0.0.1:9", config={"no.such.thing": 1})


def test_unknown_compression_is_named():
    with pytest.raises(SinkError, match="compression 'rar' is unknown; choose from lz4, zstd"):
        make_sink("kafka", "127.0.0.1:9", compression="rar")


def test_closed_sink_says_so(kafka):
    sink = make_sink("kafka", kafka)
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="is closed"):
        sink.write("trades", trades(0, 1))
