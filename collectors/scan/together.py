"""Decoding messages together: those that a scanner knows, and the rest as ever."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collectors.adapter import Event, singly
from collectors.errors import DecodeError
from collectors.lot import ASKS_END, Lot
from collectors.scan import ready
from collectors.scan.steps import Shape

if TYPE_CHECKING:
    from collectors.scan.frames import Rows, Scanner

FEW = 40
"""Fewer messages are decoded faster one by one."""
_FIRST = 16  # messages that say how the others are written, as long as nothing is known
_PAUSE = 32  # calls without a look, after one that found nothing to read
_MOST_OTHERS = 16_384  # more are no exchange's

Decoded = list[Event] | DecodeError


class Tick(NamedTuple):
    """Where messages that mean one trade or one quote each have what it is made of: keys."""

    kind: int
    """See `collectors.lot`."""
    seq: str
    time: str | None
    maker: str | None
    """Of a trade: was the buyer the maker?"""
    values: tuple[str, ...]
    """Price and size; or bid, ask and their sizes, both with orders."""


class Difference(NamedTuple):
    """Where messages that mean one change of a book each have what it is made of: keys."""

    seq: str
    time: str
    first_seq: str
    prev_seq: str | None
    bids: str
    asks: str


class Reading(NamedTuple):
    """What is read of the messages of a kind, and what is made of it: `events`, a `tick` or a
    `difference`."""

    event: type[Event]
    """What their decoding gives, if they are to be read at all."""
    shape: Shape
    events: Callable[[Rows, Sequence[int]], Iterable[list[Event]]] | None = None
    """Those of each message, of what was read and the receive times."""
    tick: Tick | None = None
    difference: Difference | None = None
    symbols: Container[str] | None = None
    """Of others they are decoded each when its turn comes; None: of all they are read."""


def alone(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Events of messages that mean one each."""
    return ([event] for event in events)


Learn = Callable[["Scanner", bytes, str, Sequence[Event]], bool | None]
"""Tell the scanner what there is to learn from a message, its name and what it was decoded to:
whether it can read more of them now; None if there never is anything to learn from that name."""


class Together:
    """Messages that begin with `start` and a name, and have what is asked for behind it."""

    def __init__(
        self,
        start: bytes,
        readings: dict[str, Reading],
        decode: Callable[[bytes, int], list[Event]],
        learn: Learn,
    ) -> None:
        """`readings` by kind of message; `decode` decodes one message."""
        self._start = start
        self._readings = readings
        self._decode = decode
        self._learn = learn
        self._scanner: Scanner | None = None
        self._pause = 0
        """For so many calls nothing is read: there was nothing to read."""
        self._others: set[bytes] = set()
        """Beginnings of messages of which there is nothing to learn."""

    def decode(self, frames: Sequence[bytes], recv_ns: Sequence[int]) -> Iterable[Decoded]:
        """What `decode` makes of each of them, in their order; a `Lot` where that can be."""
        if len(frames) < FEW:
            return singly(self._decode, frames, recv_ns)
        if self._scanner is None and (scanner := ready.loaded(frames)) is not None:
            self._scanner = scanner(self._start)
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
    ) -> Iterable[Decoded]:
        count, ticks, differences = len(frames), 0, 0
        kinds = np.zeros(count, np.int8)
        ints, floats = np.empty((ASKS_END + 1, count), np.int64), np.empty((4, count))
        others: dict[int, list[Event]] = {}
        times = np.array(recv_ns, np.int64)
        for rows in scanner.read(frames):
            reading = self._readings[rows.kind]
            if reading.symbols is not None and not rows.are_of(reading.symbols):
                continue
            if reading.tick is not None:
                rows.place(reading.tick, times, kinds, ints, floats)
                ticks += len(rows)
            elif reading.difference is not None:
                rows.place_differences(reading.difference, times, kinds, ints)
                differences += len(rows)
            elif reading.events is not None:
                told = reading.events(rows, times[rows.at].tolist())
                others.update(zip(rows.frames, told, strict=True))
        levels = scanner.levels
        lot = Lot(scanner.symbols, kinds, ints, floats, levels, others, ticks, differences)
        return lot if len(lot) == count else self._mixed(scanner, frames, recv_ns, lot)

    def _mixed(
        self, scanner: Scanner, frames: Sequence[bytes], recv_ns: Sequence[int], lot: Lot
    ) -> Iterator[Decoded]:
        """What the scanner does not know is decoded when its turn comes."""
        seen: set[bytes] = set()
        learned = False
        for i, read in enumerate(lot.of_messages()):
            if read is not None:
                yield read
                continue
            frame = frames[i]
            try:
                decoded = self._decode(frame, recv_ns[i])
            except DecodeError as error:
                yield error
                continue
            start = frame[: frame.find(b'"', len(self._start))]
            if start not in self._others and start not in seen:
                seen.add(start)
                learned |= self._learned(scanner, frame, start, decoded)
            yield decoded
        if not len(lot) and not learned:
            self._pause = _PAUSE

    def _learned(
        self, scanner: Scanner, frame: bytes, start: bytes, events: Sequence[Event]
    ) -> bool:
        """Whether more messages that begin so can be read now."""
        if not start.startswith(self._start):
            return False
        name = start.removeprefix(self._start).decode(errors="replace")
        learned = self._learn(scanner, frame, name, events)
        if learned is None and len(self._others) < _MOST_OTHERS:
            self._others.add(start)
        return bool(learned)
