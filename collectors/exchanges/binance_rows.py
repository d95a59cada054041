"""What the markets of Binance have in common of messages that are read many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collectors.lot import QUOTE, TRADE
from collectors.scan.steps import BOOL, ID, MICROSECONDS, POSITIVE, SYMBOL, TIME, Shape
from collectors.scan.together import Difference, Tick

if TYPE_CHECKING:
    from collectors.scan.frames import Ints

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


def difference(time: str, prev_seq: str | None) -> Difference:
    """Of messages that have their time in the key `time`, linked by `prev_seq` or not."""
    return Difference("u", time, "U", prev_seq, "b", "a")
