"""What Coinbase and Kraken have in common of messages that are read many at once: lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from collectors.adapter import Event, Trade
from collectors.scan.together import Learn, Reading

if TYPE_CHECKING:
    from collectors.scan.frames import Items, Scanner


def listed_trades(
    trades: Items, recv_ns: Sequence[int], keys: tuple[str, str, str], sign: int
) -> Iterator[list[Event]]:
    """The trades of each message, oldest first; `keys` of symbol, size and time. The taker of one
    of which the key `side` tells the first word did `sign`."""
    symbol, size, time = keys
    order = np.lexsort((trades.ints("trade_id"), trades.of_row))
    pairs = np.array(trades.pairs(symbol), object)[order].tolist()
    ids, times = (trades.ints(key)[order].tolist() for key in ("trade_id", time))
    prices, sizes = (trades.floats(key)[order].tolist() for key in ("price", size))
    sides = (sign - 2 * sign * trades.ints("side"))[order].tolist()
    received = of_items(trades, recv_ns)
    events = list(map(Trade, received, times, pairs, ids, ids, prices, sizes, sides))
    return by_message(trades, events)


def of_items(items: Items, values: Sequence[int]) -> list[int]:
    """Each item's, of values of the messages."""
    told: list[int] = np.array(values, np.int64)[items.of_row].tolist()
    return told


def by_message(items: Items, events: Iterable[Event]) -> Iterator[list[Event]]:
    """Events of items, in a list for every message."""
    listed = list(events)
    for begin, end in zip(items.begins.tolist(), items.ends.tolist(), strict=True):
        yield listed[begin:end]


def by_channel(readings: Mapping[str, Reading], pairs: Mapping[str, str]) -> Learn:
    """How to learn from messages that begin with the name of their channel; `pairs` are the symbols
    met so far. A book's snapshot is too rare, and too long."""

    def learn(scanner: Scanner, frame: bytes, channel: str, events: Sequence[Event]) -> bool | None:
        reading = readings.get(channel)
        if reading is None:
            return None
        event = events[-1] if events else None
        if type(event) is not reading.event or getattr(event, "is_snapshot", False):
            return False
        is_new = [scanner.tell(name.encode(), pair) for name, pair in pairs.items()]
        return scanner.learn(frame, channel, reading.shape) or any(is_new)

    return learn
