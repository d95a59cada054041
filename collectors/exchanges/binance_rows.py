"""What the markets of Binance have in common of messages that are read many at once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from collectors.adapter import BookUpdate, Event, Trade
from collectors.scan.steps import BOOL, ID, MICROSECONDS, POSITIVE, SYMBOL, TIME, Shape
from collectors.scan.together import alone

if TYPE_CHECKING:
    from collectors.scan.frames import Rows

AGG_TRADES: Shape = {
    "s": SYMBOL, "a": ID, "p": POSITIVE, "q": POSITIVE, "T": TIME, "m": BOOL,
}  # fmt: skip


def trades(key: str) -> Callable[[Rows, Sequence[int]], Iterable[list[Event]]]:
    """Trades on the tape of rows that have their numbers in `key`."""

    def made(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
        ids, times = rows.ints(key).tolist(), many_ns(rows.ints("T"))
        sides = (1 - 2 * rows.ints("m")).tolist()
        prices, sizes = rows.floats("p").tolist(), rows.floats("q").tolist()
        symbols = rows.symbols()
        return alone(map(Trade, recv_ns, times, symbols, ids, ids, prices, sizes, sides))

    return made


def many_ns(times: Any) -> list[int]:
    """ms or µs -> ns, each."""
    factors = 1_000 + 999_000 * (times < MICROSECONDS)
    told: list[int] = (times * factors).tolist()
    return told


def differences(
    time: str, seen: Container[str], links: bool
) -> Callable[[Rows, Sequence[int]], Iterable[list[Event]] | None]:
    """Differences of books whose time is in the key `time`, linked by `pu` or not.

    Only of symbols whose depth was `seen`: who sees the first one of others notes that in its turn.
    """

    def made(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]] | None:
        times, pairs = many_ns(rows.ints(time)), rows.symbols()
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
