"""Rows to Kafka: topic `{exchange}-{channel}`, key = symbol, one message per row.

The producer is idempotent and waits for all in-sync replicas: within one run every row is in its
topic once, and a symbol's rows are in order, through broker restarts too. A message that cannot be
delivered within `delivery_s` ends the sink with an error; none is given up silently. Keys go to
partitions as Java's clients put them (murmur2).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from collectors.errors import SinkError
from collectors.serialisation.formats import Encoder, Encoders
from collectors.sinks import Sink, by_exchange
from collectors.sinks.rdkafka import Producer

COMPRESSIONS = ("lz4", "zstd", "gzip", "snappy", "none")
_CHUNK = 5_000
_IN_FLIGHT = 100_000  # messages that the producer holds at most
_CONNECT_S = 10.0
# While five requests of a partition are on their way, which is the most that idempotence allows,
# and messages wait, librdkafka looks for room in a loop without a pause: up to 300,000 times a
# second (2.16). That processor is better left to the feed and the broker.
_ON_THEIR_WAY = 4  # chunks of a topic, each of them a request for each partition
_PAUSE_S = 0.05  # so long at most the next chunk waits: one partition's leader stops no other
_LOOK_S = 0.001
_log = logging.getLogger(__name__)


class KafkaSink(Sink):
    """A producer for every topic that the rows ask for; topics are created if they are absent."""

    name: ClassVar[str] = "kafka"
    merge_rows: ClassVar[int] = _CHUNK

    def __init__(
        self,
        bootstrap: str,
        *,
        form: str = "json",
        schema_registry: str | None = None,
        compression: str = "lz4",
        partitions: int = -1,
        replication: int = -1,
        delivery_s: float = 120.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect to the brokers `bootstrap` (`host:port,...`).

        `form` is json, avro or protobuf. `partitions` and `replication` are those of topics that
        are created, -1 for the broker's defaults. `config` goes to librdkafka as it is: SASL, TLS.
        """
        if compression not in COMPRESSIONS:
            raise SinkError(
                f"compression {compression!r} is unknown; choose from {', '.join(COMPRESSIONS)}"
            )
        self.bootstrap = bootstrap
        self._produced_rows = 0
        self._chunks: dict[str, deque[int]] = {}
        """By topic, of the last chunks: the rows delivered once each of them is."""
        self._encoders = Encoders(form, schema_registry)
        self._topics: dict[tuple[str, str], tuple[str, Encoder]] = {}
        self._layout = partitions, replication
        self._delivery_s = delivery_s
        self._on_their_way: int | None = None
        """Rows that were so when the sink was closed."""
        self._common = {
            "bootstrap.servers": bootstrap,
            "client.id": "gpukern-collect",
            **(config or {}),
        }
        self._producer = self._connect({"compression.type": compression, **self._common})

    @property
    def delivered_rows(self) -> int:
        """Rows that all in-sync replicas have acknowledged."""
        waiting = self._on_their_way
        if waiting is None:
            self._serve()
            waiting = len(self._producer)
        return self._produced_rows - self.failed_rows - waiting

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        self._check()
        for exchange, rows in by_exchange(batch):
            topic, encode = self._topic(exchange, channel)
            for start in range(0, rows.num_rows, _CHUNK):
                self._produce(topic, encode, rows.slice(start, _CHUNK))

    def flush(self) -> None:
        """Wait until every message is acknowledged."""
        self._check()
        self._producer.flush()
        self._check()

    def close(self) -> None:
        if self._on_their_way is not None:
            return
        try:
            self.flush()
        finally:
            self._on_their_way = len(self._producer)
            self._producer.close()
            self._encoders.close()

    def _connect(self, config: dict[str, Any]) -> Producer:
        settings = {
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 0.2,  # rows come in batches already: no more of them will come soon
            "delivery.timeout.ms": int(self._delivery_s * 1000),
            # The room is counted in messages, see _produce; bytes never refuse one.
            "queue.buffering.max.messages": _IN_FLIGHT + _CHUNK,
            "queue.buffering.max.kbytes": 2_097_151,
        }
        try:
            producer = Producer({**settings, **config}, _log)
            told = producer.reach(_CONNECT_S)
        except ValueError as error:
            told = str(error)
        if told:
            raise SinkError(
                f"Kafka at {self.bootstrap}: {told}; is the address right, and the broker running?"
            )
        return producer

    def _topic(self, exchange: str, channel: str) -> tuple[str, Encoder]:
        known = self._topics.get((exchange, channel))
        if known is None:
            topic = f"{exchange}-{channel}"
            self._create(topic)
            known = topic, self._encoders.encoder(topic, channel)
            self._topics[exchange, channel] = known
        return known

    def _create(self, topic: str) -> None:
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import AdminClient, NewTopic

        partitions, replication = self._layout
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replication)
        # Notices and worse: it would tell of every topic that its answer came before its end.
        admin = AdminClient({"log_level": 5, **self._common})
        # Not result(): what that raises holds this frame by its traceback, and the client's own
        # thread may be the last to hold that. A client destroyed by its thread ends the process.
        error = admin.create_topics([wanted], request_timeout=self._delivery_s)[topic].exception()
        if error is None:
            return
        if not isinstance(error, KafkaException):
            raise error
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise SinkError(
                f"Kafka at {self.bootstrap}: cannot create topic {topic}: {_told(error)}; "
                f"create it by hand, or allow it"
            ) from error

    def _produce(self, topic: str, encode: Encoder, rows: pa.RecordBatch) -> None:
        symbols = rows.column("symbol")
        keys = [name.encode() for name in symbols.dictionary.to_pylist()]
        messages = encode(rows)
        chunks = self._chunks.setdefault(topic, deque(maxlen=_ON_THEIR_WAY))
        if len(chunks) == _ON_THEIR_WAY:
            self._await(chunks[0])
        # With room made first the producer takes a chunk whole, so rows stay in order.
        while len(self._producer) > _IN_FLIGHT:
            self._serve(_LOOK_S)
            self._check()
        self._producer.produce(topic, messages, keys, symbols.indices.to_numpy())
        self._produced_rows += len(messages)
        chunks.append(self._produced_rows)
        self._serve()
        self._check()

    def _await(self, rows: int) -> None:
        """Wait until so many rows are delivered, but not for long."""
        end_s = time.monotonic() + _PAUSE_S
        while self.delivered_rows < rows and time.monotonic() < end_s:
            self._serve(_LOOK_S)
            self._check()

    def _serve(self, wait_s: float = 0.0) -> None:
        self._producer.poll(wait_s)
        self.failed_rows = self._producer.failed

    def _check(self) -> None:
        failure = self._producer.failure
        self.failed_rows = self._producer.failed
        if failure is not None:
            raise SinkError(
                f"Kafka at {self.bootstrap}: a message to {failure.topic} could not be delivered: "
                f"{failure.reason}; rows after it may be missing, too"
            )
        if self._on_their_way is not None:
            raise SinkError(f"Kafka at {self.bootstrap}: the sink is closed; make a new one")


def _told(error: Any) -> str:
    return str(error.args[0].str())
