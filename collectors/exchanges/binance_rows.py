"""What the markets of Binance have in common of messages that are read many at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from collectors.adapter import BookUpdate, Event
from collectors.lot import QUOTE, TRADE
from collectors.scan.steps import BOOL, ID, MICROSECONDS, POSITIVE, SYMBOL, TIME, Shape
from collectors.scan.together import Tick, alone

if TYPE_CHECKING:
    from collectors.scan.frames import Ints, Rows

AGG_TRADES: Shape = {
    "s": SYMBOL, "a": ID, "p": POSITIVE, "q": POSITIVE, "T": TIME, "m": BOOL,
}  # fmt: skip


def trade(key: str) -> Tick:
    """Of messages that have the trade's number in `key`."""
    return Tick(TRADE, key, "T", "m", ("p", "q"))


def quote(time: str | None) -> Tick:
    """Of messages that have their time in the key `time`, if any."""
    return Tick(QUOTE, "u", time, None, ("b", "a", "B", "A"))


def many_ns(times: Ints) -> Ints:
    """ms or µs -> ns, each."""
    return times * (1_000 + 999_000 * (times < MICROSECONDS))


def differences(
    time: str, seen: Container[str], links: bool
) -> Callable[[Rows, Sequence[int]], Iterable[list[Event]] | None]:
    """Differences of books whose time is in the key `time`, linked by `pu` or not.

    Only of symbols whose depth was `seen`: who sees the first one of others notes that in its turn.
    """

    def made(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]] | None:
        times, pairs = many_ns(rows.ints(time)).tolist(), rows.symbols()
        if not all(map(seen.__contains__, set(pairs))):
            return None
        ids, first_ids = rows.ints("u").tolist(), rows.ints("U").tolist()
        before = rows.ints("pu").tolist() if links else repeat(None)
        sides = rows.levels("b"), rows.levels("a")
        updates = map(
            BookUpdate, recv_ns, times, pairs, ids, first_ids, repeat(False), *sides, before
        )
        return alone(updates)

    return made
