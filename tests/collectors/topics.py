"""What is in a topic, for tests."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, TopicPartition

_PATIENCE_S = 120.0


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
            low, high = consumer.get_watermark_offsets(
                TopicPartition(topic, number), timeout=_PATIENCE_S
            )
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
