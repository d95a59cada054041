"""Frames in, checked events and canonical rows out: one code path for a live feed and its replay.

A session is what a raw log describes: frames in the order of arrival, and between them *marks* of
the collector's own – a connection lost, a stream gone quiet – which are no exchange's but change
what is known. Marks are frames too (JSON with the one key `gpukern`), so that replaying the log
gives the rows of the live run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import msgspec
import numpy as np
import pyarrow as pa

from collectors.adapter import Adapter, BookUpdate, Event, Ignored, Quote, Trade
from collectors.batch_builder import BatchBuilder
from collectors.builders import BUILDERS
from collectors.errors import DecodeError
from collectors.integrity import Integrity
from collectors.lot import QUOTE, TRADE, Lot

_PREFIX = b'{"gpukern":'


class Lost(msgspec.Struct, frozen=True):
    """From here on nothing is known of these channels of these symbols (None: of all)."""

    reason: str
    channels: list[str] | None = None
    symbols: list[str] | None = None


class Forget(msgspec.Struct, frozen=True):
    """These channels of these symbols are no longer subscribed: their silence is no gap."""

    channels: list[str]
    symbols: list[str]


class Subscribed(msgspec.Struct, frozen=True):
    """These were subscribed: what an adapter learns from that, it learns in a replay too."""

    channels: list[str]
    symbols: list[str]


class Known(msgspec.Struct, frozen=True):
    """These trades, one of a symbol, were collected last before: what follows them is new."""

    symbols: list[str]
    trade_ids: list[int]
    recv_ns: list[int]


class _Mark(msgspec.Struct, omit_defaults=True):
    lost: Lost | None = None
    forget: Forget | None = None
    subscribed: Subscribed | None = None
    known: Known | None = None


class _MarkFrame(msgspec.Struct):
    gpukern: _Mark


_marks = msgspec.json.Decoder(_MarkFrame)


def mark(what: Lost | Forget | Subscribed | Known) -> bytes:
    """The frame that says so."""
    return msgspec.json.encode({"gpukern": {type(what).__name__.lower(): what}})


class Session:
    """One feed's frames, decoded, checked and collected as rows."""

    def __init__(self, adapter: Adapter, channels: Sequence[str]) -> None:
        """`channels`: those whose rows are collected, `gaps` among them if wanted."""
        self.adapter = adapter
        self.integrity = Integrity()
        self.frames = 0
        self.errors = 0
        """Frames that could not be decoded, and are in no dataset."""
        self.events: Counter[type] = Counter()
        self.ignored: Counter[str] = Counter()
        self.builders: list[BatchBuilder] = [BUILDERS[c](adapter.exchange) for c in channels]
        self._handlers: dict[type, list[Callable[..., None]]] = {}
        for builder in self.builders:
            for kind, handler in builder.handlers.items():
                self._handlers.setdefault(kind, []).append(handler)

    @property
    def rows(self) -> int:
        """Rows collected and not yet taken."""
        return sum(len(builder) for builder in self.builders)

    def frame(self, recv_ns: int, frame: bytes) -> list[Event]:
        """The checked events of a frame, whose rows are collected.

        Raises `DecodeError` for a frame that means nothing; it is counted and changes nothing.
        """
        self.frames += 1
        try:
            if frame.startswith(_PREFIX):
                checked = self._marked(recv_ns, frame)
            else:
                checked = self.integrity.check(self.adapter.decode(frame, recv_ns))
        except DecodeError:
            self.errors += 1
            raise
        self._collect(checked)
        return checked

    def many(
        self, frames: Sequence[bytes], recv_ns: Sequence[int]
    ) -> Iterator[list[Event] | DecodeError | Lot]:
        """What `frame` returns or raises for each of them, which is faster decoded together.

        A `Lot` stands for messages whose rows are collected without events; those of its messages
        that it has events of follow. Take all before anything else is asked of the session.
        """
        begin = 0
        marks: Iterable[int] = ()
        if _PREFIX in b"".join(frames):  # to look through one text is faster than through hundreds
            marks = [i for i, frame in enumerate(frames) if frame.startswith(_PREFIX)]
        for at in chain(marks, (len(frames),)):
            if begin < at:
                told = self.adapter.decode_many(frames[begin:at], recv_ns[begin:at])
                if isinstance(told, Lot) and told.in_columns and self.integrity.admits(told):
                    yield from self._take_lot(told)
                else:
                    yield from map(self._checked, told)
            if at < len(frames):
                try:
                    yield self.frame(recv_ns[at], frames[at])
                except DecodeError as error:
                    yield error
            begin = at + 1

    def _take_lot(self, lot: Lot) -> Iterator[list[Event] | DecodeError | Lot]:
        """Collect what nothing is to be said of; then the rest."""
        told = self.integrity.take_differences(lot) if lot.differences else {}
        if told is None:
            lot, told = lot.without_differences(0), {}
        elif told:
            lot = lot.without_differences(min(told))
        self.frames += lot.in_columns
        trades, quotes = (int(np.count_nonzero(lot.kinds == kind)) for kind in (TRADE, QUOTE))
        counts = (Trade, trades), (Quote, quotes), (BookUpdate, lot.differences)
        for event, count in counts:
            if count:
                self.events[event] += count
        for builder in self.builders:
            builder.add(lot)
        if lot.in_columns:
            yield lot
        for message, events in lot.others.items():
            if message in told:
                self.frames += 1
                self._collect(told[message])
                yield told[message]
            else:
                yield self._checked(events)

    def _checked(self, decoded: list[Event] | DecodeError) -> list[Event] | DecodeError:
        self.frames += 1
        if isinstance(decoded, DecodeError):
            self.errors += 1
            return decoded
        checked = self.integrity.check(decoded)
        self._collect(checked)
        return checked

    def _collect(self, checked: list[Event]) -> None:
        """The rows of checked events."""
        handlers, events = self._handlers, self.events
        for event in checked:
            kind = type(event)
            events[kind] += 1
            for handler in handlers.get(kind, ()):
                handler(event)
            if kind is Ignored:
                self.ignored[event.stream] += 1  # type: ignore[attr-defined]

    def take(self, at_least: int = 1) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of every channel that has so many, as (channel, batch)."""
        for builder in self.builders:
            if len(builder) >= max(at_least, 1):
                yield builder.channel, builder.take()

    def _marked(self, recv_ns: int, frame: bytes) -> list[Event]:
        try:
            told = _marks.decode(frame).gpukern
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DecodeError(f"a mark that is none: {error}; frame: {frame[:120]!r}") from error
        if told.subscribed is not None:
            self.adapter.subscribe(told.subscribed.symbols, told.subscribed.channels)
        if told.forget is not None:
            self.integrity.forget(told.forget.channels, told.forget.symbols)
        if told.known is not None:
            known = told.known
            for last in zip(known.symbols, known.trade_ids, known.recv_ns, strict=False):
                self.integrity.know(*last)
        if told.lost is None:
            return []
        lost = told.lost
        return self.integrity.lose(recv_ns, lost.reason, lost.channels, lost.symbols)
