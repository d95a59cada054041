"""What the markets of Binance have in common of messages that are read many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from collectors.adapter import Event, Trade
from collectors.scan.steps import BOOL, ID, MICROSECONDS, POSITIVE, SYMBOL, TIME, Row

if TYPE_CHECKING:
    from collectors.scan.frames import Rows

AGG_TRADES: Row = {
    "s": SYMBOL, "a": ID, "p": POSITIVE, "q": POSITIVE, "T": TIME, "m": BOOL,
}  # fmt: skip


def trades(key: str) -> Callable[[Rows, Sequence[int]], Iterable[Event]]:
    """Trades on the tape of rows that have their numbers in `key`."""

    def made(rows: Rows, recv_ns: Sequence[int]) -> Iterable[Event]:
        ids, times = rows.ints(key).tolist(), many_ns(rows.ints("T"))
        sides = (1 - 2 * rows.ints("m")).tolist()
        prices, sizes = rows.floats("p"), rows.floats("q")
        return map(Trade, recv_ns, times, rows.pairs(), ids, ids, prices, sizes, sides)

    return made


def many_ns(times: Any) -> list[int]:
    """ms or µs -> ns, each."""
    factors = 1_000 + 999_000 * (times < MICROSECONDS)
    told: list[int] = (times * factors).tolist()
    return told
