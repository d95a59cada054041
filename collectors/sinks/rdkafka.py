"""librdkafka without a Python object for each message: a topic's messages are handed over by one
call, from the memory in which they lie.

It is the library that confluent-kafka brings along, by its public C functions (`rdkafka.h`).
confluent-kafka makes a dictionary, an object to remember and a delivery report of every message,
which takes twice as long as librdkafka itself does. Here librdkafka reports failures alone.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_size_t, c_void_p
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collectors.errors import SinkError
from collectors.serialisation.messages import Messages

# rd_kafka_message_t; of those to be produced only err, payload, len, key and key_len are looked at.
_MESSAGE = np.dtype(
    [
        *(("err", np.int32), ("rkt", np.uintp), ("partition", np.int32)),
        *(("payload", np.uintp), ("len", np.uintp), ("key", np.uintp), ("key_len", np.uintp)),
        *(("offset", np.int64), ("private", np.uintp)),
    ],
    align=True,
)


class _Message(ctypes.Structure):
    """The beginning of one that librdkafka gives."""

    _fields_ = (("err", c_int), ("rkt", c_void_p))


_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # what each returns, and takes
    "conf_new": (c_void_p,),
    "conf_destroy": (None, c_void_p),
    "conf_set": (c_int, c_void_p, c_char_p, c_char_p, c_char_p, c_size_t),
    "conf_set_events": (None, c_void_p, c_int),
    "new": (c_void_p, c_int, c_void_p, c_char_p, c_size_t),
    "destroy": (None, c_void_p),
    "name": (c_char_p, c_void_p),
    "err2str": (c_char_p, c_int),
    "metadata": (c_int, c_void_p, c_int, c_void_p, POINTER(c_void_p), c_int),
    "metadata_destroy": (None, c_void_p),
    "topic_new": (c_void_p, c_void_p, c_char_p, c_void_p),
    "topic_destroy": (None, c_void_p),
    "topic_name": (c_char_p, c_void_p),
    "produce_batch": (c_int, c_void_p, c_int32, c_int, c_void_p, c_int),
    "outq_len": (c_int, c_void_p),
    "flush": (c_int, c_void_p, c_int),
    "set_log_queue": (c_int, c_void_p, c_void_p),
    "queue_get_main": (c_void_p, c_void_p),
    "queue_new": (c_void_p, c_void_p),
    "queue_destroy": (None, c_void_p),
    "queue_poll": (c_void_p, c_void_p, c_int),
    "event_type": (c_int, c_void_p),
    "event_destroy": (None, c_void_p),
    "event_log": (c_int, c_void_p, POINTER(c_char_p), POINTER(c_char_p), POINTER(c_int)),
    "event_message_next": (POINTER(_Message), c_void_p),
}
_PRODUCER = 0
_CONF_OK = 0
_ANY_PARTITION = -1
_COPY = 2
_DELIVERY, _LOG = 1, 4
"""Kinds of events."""
_FLUSH_MS = 100
_LEVELS = (*(logging.CRITICAL,) * 3, logging.ERROR, logging.WARNING, *(logging.INFO,) * 2)
"""Of syslog's, from 0 on; those beyond are debugging."""


class Undelivered(NamedTuple):
    """A message that will not arrive."""

    topic: str
    reason: str


@cache
def _library() -> ctypes.CDLL:
    """librdkafka, with the types of what is called: it is found through the module that was linked
    with it, wherever that has it."""
    try:
        from confluent_kafka import cimpl
    except ImportError as error:
        raise SinkError(
            f"Kafka needs the extra 'kafka' ({error}): pip install 'gpukern[kafka]'"
        ) from error
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, *arguments) in _FUNCTIONS.items():
        try:
            function = getattr(library, f"rd_kafka_{name}")
        except AttributeError as error:
            raise SinkError(
                f"Kafka: librdkafka cannot be reached through {cimpl.__file__} ({error}); use a "
                f"wheel of confluent-kafka for Linux or macOS"
            ) from error
        function.restype, function.argtypes = result, arguments
    return library


class Producer:
    """Hands messages to librdkafka, which sends them in a thread of its own."""

    def __init__(self, settings: Mapping[str, object], log: logging.Logger) -> None:
        """`settings` are librdkafka's. Raises `ValueError` for one that it does not take."""
        self.failed = 0
        """Messages that were taken and will not arrive; see `poll`."""
        self.failure: Undelivered | None = None
        """The first of them: those after it are often its consequence."""
        self._log = log
        self._calls = library = _library()
        self._handle = self._new(settings)
        self._failures = library.rd_kafka_queue_get_main(self._handle)
        self._lines = library.rd_kafka_queue_new(self._handle)  # what waits there is no message
        library.rd_kafka_set_log_queue(self._handle, self._lines)
        self._topics: dict[str, int] = {}
        self._end = weakref.finalize(
            self, _destroy, library, self._handle, (self._failures, self._lines), self._topics
        )
        self._end.atexit = False

    def _new(self, settings: Mapping[str, object]) -> int:
        library, why = self._calls, ctypes.create_string_buffer(512)
        conf = library.rd_kafka_conf_new()
        own = {"log.queue": True, "delivery.report.only.error": True}
        for name, value in {**settings, **own}.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            told = library.rd_kafka_conf_set(conf, name.encode(), text.encode(), why, len(why))
            if told != _CONF_OK:
                library.rd_kafka_conf_destroy(conf)
                raise ValueError(why.value.decode(errors="replace"))
        library.rd_kafka_conf_set_events(conf, _DELIVERY | _LOG)
        handle = library.rd_kafka_new(_PRODUCER, conf, why, len(why))
        if handle is None:
            library.rd_kafka_conf_destroy(conf)
            raise ValueError(why.value.decode(errors="replace"))
        return int(handle)

    def __len__(self) -> int:
        """Messages on their way: neither acknowledged nor told to have failed. Whatever else waits
        for `poll` counts, too."""
        return int(self._calls.rd_kafka_outq_len(self._handle))

    def reach(self, timeout_s: float) -> str:
        """Ask the brokers for what they have; why they did not answer, empty if they did."""
        metadata = c_void_p()
        error = self._calls.rd_kafka_metadata(
            self._handle, 0, None, byref(metadata), int(timeout_s * 1000)
        )
        if error:
            return self._told(error)
        self._calls.rd_kafka_metadata_destroy(metadata)
        return ""

    def produce(
        self, topic: str, messages: Messages, keys: Sequence[bytes], codes: NDArray[np.integer[Any]]
    ) -> None:
        """Take messages, each with the key that its code says: they are copied.

        Those that cannot be taken are among the failed.
        """
        handle = self._topics.get(topic)
        if handle is None:
            handle = self._calls.rd_kafka_topic_new(self._handle, topic.encode(), None)
            self._topics[topic] = handle
        begins, names = messages.begins, Messages.of(keys)
        rows = np.zeros(len(messages), _MESSAGE)
        rows["payload"] = _address(messages.text) + begins
        rows["len"] = messages.ends - begins
        rows["key"] = (_address(names.text) + names.begins)[codes]
        rows["key_len"] = (names.ends - names.begins)[codes]
        taken = self._calls.rd_kafka_produce_batch(
            handle, _ANY_PARTITION, _COPY, rows.ctypes.data, len(rows)
        )
        if taken != len(rows):
            errors = rows["err"]
            self._failed(topic, int(errors[errors != 0][0]), len(rows) - taken)

    def poll(self, timeout_s: float = 0.0) -> None:
        """Take note of what librdkafka tells: lines for the log, and messages that failed, waiting
        for these so long at most."""
        self._serve(self._lines, 0)
        self._serve(self._failures, int(timeout_s * 1000))

    def _serve(self, queue: int, wait_ms: int) -> None:
        while event := self._calls.rd_kafka_queue_poll(queue, wait_ms):
            wait_ms = 0
            try:
                kind = self._calls.rd_kafka_event_type(event)
                if kind == _LOG:
                    self._note(event)
                elif kind == _DELIVERY:
                    self._note_failures(event)
            finally:
                self._calls.rd_kafka_event_destroy(event)

    def flush(self) -> None:
        """Wait until no message is on its way."""
        while len(self):
            self._calls.rd_kafka_flush(self._handle, _FLUSH_MS)
            self.poll()

    def close(self) -> None:
        """Let go, without waiting: what is on its way is lost."""
        self._end()

    def _note(self, event: int) -> None:
        facility, text, level = c_char_p(), c_char_p(), c_int()
        self._calls.rd_kafka_event_log(event, byref(facility), byref(text), byref(level))
        severity = _LEVELS[level.value] if level.value < len(_LEVELS) else logging.DEBUG
        told = [(part.value or b"").decode(errors="replace") for part in (facility, text)]
        name = self._calls.rd_kafka_name(self._handle).decode(errors="replace")
        self._log.log(severity, "%s [%s] %s", told[0], name, told[1])

    def _note_failures(self, event: int) -> None:
        while message := self._calls.rd_kafka_event_message_next(event):
            told = message.contents
            topic = self._calls.rd_kafka_topic_name(told.rkt).decode()
            self._failed(topic, told.err, 1)

    def _failed(self, topic: str, error: int, count: int) -> None:
        self.failed += count
        if self.failure is None:
            self.failure = Undelivered(topic, self._told(error))

    def _told(self, error: int) -> str:
        return str(self._calls.rd_kafka_err2str(error).decode())


def _destroy(
    library: ctypes.CDLL, handle: int, queues: Sequence[int], topics: Mapping[str, int]
) -> None:
    for topic in topics.values():
        library.rd_kafka_topic_destroy(topic)
    for queue in queues:
        library.rd_kafka_queue_destroy(queue)
    library.rd_kafka_destroy(handle)


def _address(text: bytes) -> int:
    return int(np.frombuffer(text, np.uint8).ctypes.data)
