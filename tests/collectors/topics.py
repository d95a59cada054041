"""What is in a topic, for tests."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_PATIENCE_S = 120.0
# What a broker answers for a while after it was killed, or too slow to be thought alive.
_NO_LEADER_YET = {
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}


def read_topic(bootstrap, topic):
    """Every message of the topic: (partition, offset, key, value), in order within a partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=_PATIENCE_S).topics[topic].partitions)
        ends = {}
        for number in partitions:
            low, high = _watermarks(consumer, TopicPartition(topic, number))
            if high > low:
                ends[number] = high
        consumer.assign([TopicPartition(topic, number, 0) for number in ends])
        messages: list[tuple[int, int, bytes, bytes]] = []
        last_s = time.monotonic()
        while ends:
            batch = consumer.consume(10_000, timeout=0.1)
            assert batch or time.monotonic() < last_s + _PATIENCE_S, f"{topic}: {ends} not reached"
            for message in batch:
                last_s = time.monotonic()
                assert message.error() is None
                key = message.key()
                messages.append((message.partition(), message.offset(), key, message.value()))
                if message.offset() + 1 >= ends.get(message.partition(), 0):
                    ends.pop(message.partition(), None)
        return sorted(messages, key=lambda message: message[:2])
    finally:
        consumer.close()


def _watermarks(consumer, partition):
    end_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=_PATIENCE_S)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > end_s:
                raise
        consumer.list_topics(partition.topic, timeout=_PATIENCE_S)  # who leads it now?
