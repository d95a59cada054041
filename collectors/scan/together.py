"""Decoding the messages of streams together: those that a scanner knows, and the rest as ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from collectors.adapter import Event, Ignored, singly
from collectors.errors import DecodeError
from collectors.scan import ready
from collectors.scan.steps import Row

if TYPE_CHECKING:
    from collectors.scan.frames import Rows, Scanner

FEW = 128
"""Fewer messages are decoded faster one by one."""
_FIRST = 16  # messages that say how the others are written, as long as nothing is known
_PAUSE = 32  # calls without a look, after one that found nothing to read
_MOST_STREAMS = 16_384  # more are no exchange's

Decoded = list[Event] | DecodeError


class Reading(NamedTuple):
    """What is read of the messages of a kind of stream."""

    event: type[Event]
    """What their decoding gives, if they are to be read at all."""
    row: Row
    events: Callable[[Rows, Sequence[int]], Iterable[Event]]
    """Of what was read, and the receive times."""


class Together:
    """Messages that begin with `{"stream":"<symbol>@<kind>"`."""

    def __init__(
        self,
        within: str,
        readings: Mapping[str, Reading],
        pairs: Mapping[str, str],
        decode: Callable[[bytes, int], list[Event]],
    ) -> None:
        """`within`: the key of the object that is read; `readings` by kind of stream; `pairs` by
        the exchange's symbol, those met so far; `decode` decodes one message."""
        self._within = within
        self._readings = readings
        self._pairs = pairs
        self._decode = decode
        self._scanner: Scanner | None = None
        self._pause = 0
        """For so many calls nothing is read: there was nothing to read."""
        self._others: set[bytes] = set()
        """Beginnings of messages of which there is nothing to learn."""

    def decode(self, frames: Sequence[bytes], recv_ns: Sequence[int]) -> Iterator[Decoded]:
        """What `decode` makes of each of them, in their order."""
        if len(frames) < FEW:
            return singly(self._decode, frames, recv_ns)
        if self._scanner is None and (scanner := ready.loaded(len(frames))) is not None:
            self._scanner = scanner(_START, self._within)
        if self._pause:
            self._pause -= 1
        if self._scanner is None or self._pause:
            return singly(self._decode, frames, recv_ns)
        if self._scanner.columns:
            return self._scanned(self._scanner, frames, recv_ns)
        # The first few say how the others are written.
        parts = (slice(0, _FIRST), slice(_FIRST, None))
        return chain.from_iterable(
            self._scanned(self._scanner, frames[part], recv_ns[part]) for part in parts
        )

    def _scanned(
        self, scanner: Scanner, frames: Sequence[bytes], recv_ns: Sequence[int]
    ) -> Iterator[Decoded]:
        """What the scanner does not know is decoded when its turn comes."""
        told: list[Event | None] = [None] * len(frames)
        groups = scanner.read(frames)
        for rows in groups:
            make = self._readings[rows.kind].events
            if len(rows.frames) == len(frames):
                told = list(make(rows, recv_ns))
                break
            events = make(rows, [recv_ns[i] for i in rows.frames])
            for i, read in zip(rows.frames, events, strict=True):
                told[i] = read
        seen: set[bytes] = set()
        learned = False
        for i, event in enumerate(told):
            if event is not None:
                yield [event]
                continue
            frame = frames[i]
            try:
                decoded = self._decode(frame, recv_ns[i])
            except DecodeError as error:
                yield error
                continue
            start = frame[: frame.find(b'"', len(_START))]
            if start not in self._others and start not in seen:
                seen.add(start)
                learned |= self._learn(scanner, frame, start, decoded)
            yield decoded
        if not groups and not learned:
            self._pause = _PAUSE

    def _learn(self, scanner: Scanner, frame: bytes, start: bytes, events: Sequence[Event]) -> bool:
        """Note how a message is written, if more that start so can be read; whether they can."""
        if not start.startswith(_START):
            return False
        symbol, _, kind = start.removeprefix(_START).decode(errors="replace").partition("@")
        reading, event = self._readings.get(kind), events[0]
        pair = self._pairs.get(symbol.upper())
        if reading is None or pair is None or type(event) is Ignored:
            if len(self._others) < _MOST_STREAMS:
                self._others.add(start)
        elif type(event) is reading.event and event.symbol == pair:  # type: ignore[attr-defined]
            return scanner.learn(frame, kind, reading.row, symbol.upper().encode(), pair)
        return False


_START = b'{"stream":"'
