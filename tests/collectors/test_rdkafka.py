"""librdkafka by its C functions, without a broker; `test_kafka_sink.py` has one."""

import logging
import time

import numpy as np
import pytest
from confluent_kafka import cimpl

from collectors.errors import SinkError
from collectors.serialisation.messages import Messages
from collectors.sinks import rdkafka
from collectors.sinks.rdkafka import Producer

LOG = logging.getLogger("test")
NOBODY = {"bootstrap.servers": "127.0.0.1:9"}
WAIT_S = 120


def served(producer, done):
    """Serve the producer until that is so."""
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline
        producer.poll(0.05)


def send(producer, texts, topic="t"):
    codes = np.zeros(len(texts), np.int32)
    producer.produce(topic, Messages.of(texts), [b"BTC/USD"], codes)


def test_messages_that_nobody_takes_fail_one_by_one():
    producer = Producer({**NOBODY, "delivery.timeout.ms": 2000, "linger.ms": 0}, LOG)
    send(producer, [b"a", b"b", b"c"])
    served(producer, lambda: len(producer) == 3)
    assert producer.failed == 0
    producer.flush()
    assert producer.failed == 3
    assert producer.failure == ("t", "Local: Message timed out")


def test_messages_that_librdkafka_refuses_have_failed_at_once():
    producer = Producer({**NOBODY, "message.max.bytes": 1000}, LOG)
    send(producer, [b"a", b"b" * 2000, b"c"])
    assert producer.failed == 1
    served(producer, lambda: len(producer) == 2)
    assert producer.failure == ("t", "Broker: Message size too large")
    send(producer, [b"d" * 3000], topic="u")
    assert producer.failed == 2
    assert producer.failure.topic == "t"  # the first is the one to tell
    producer.close()
    producer.close()


def test_lines_of_the_log_go_to_the_log(caplog):
    producer = Producer({**NOBODY, "client.id": "me"}, LOG)
    with caplog.at_level(logging.DEBUG, "test"):
        served(producer, lambda: "Connection refused" in caplog.text)
    line = next(record for record in caplog.records if "refused" in record.message)
    assert line.levelno == logging.ERROR
    assert line.message.startswith("FAIL [me#producer-")


def test_why_brokers_do_not_answer():
    producer = Producer(NOBODY, LOG)
    assert producer.reach(0.2) == "Local: Broker transport failure"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"no.such.thing": 1}, 'No such configuration property: "no.such.thing"'),
        ({"acks": "some"}, "Invalid value for configuration property"),
        ({"enable.idempotence": True, "acks": 1}, "`acks` must be set to `all`"),
    ],
)
def test_setting_that_is_none_is_named(settings, why):
    with pytest.raises(ValueError, match=why):
        Producer({**NOBODY, **settings}, LOG)


def test_library_without_the_functions_is_named(monkeypatch):
    monkeypatch.setattr(cimpl, "__file__", np.__file__.replace("__init__.py", "x.so"))
    monkeypatch.setattr(rdkafka.ctypes, "CDLL", lambda path: object())
    with pytest.raises(SinkError, match=r"cannot be reached through .*x\.so .*use a wheel"):
        rdkafka._library.__wrapped__()
