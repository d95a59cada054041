"""What exchanges tell of a pair's past: the last trades, and the statistics of a day."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from collectors.market import Print

_REMEMBERED = 100  # trades; no exchange begins a subscription with more


class Happening(NamedTuple):
    """One thing that happened on the market, when its traces are in the book already."""

    time_ns: int
    pair: str
    prints: list[Print]
    changes: dict[tuple[int, int], int]
    """(side: +1 bid, -1 ask; price) -> the size that the level has now."""
    ids: tuple[int, int]
    """The first and the last number of the book's changes, of which one level may have several."""


class Tape:
    """Of one pair, since the market began."""

    def __init__(self, price: int) -> None:
        """`price` stands for the last trade's until there is one."""
        self.recent: deque[tuple[int, Print]] = deque(maxlen=_REMEMBERED)
        self.first = self.last = self.low = self.high = price
        self.volume = 0
        self.notional = 0
        """Price times size, in units of 1e-16."""
        self.count = 0

    def add(self, time_ns: int, one: Print) -> None:
        """Remember a trade."""
        if not self.count:
            self.first = self.low = self.high = one.price
        self.recent.append((time_ns, one))
        self.last = one.price
        self.low, self.high = min(self.low, one.price), max(self.high, one.price)
        self.volume += one.size
        self.notional += one.price * one.size
        self.count += 1

    @property
    def vwap(self) -> int:
        """The mean price, weighted by size."""
        return self.notional // self.volume if self.volume else self.last

    @property
    def change(self) -> int:
        """The last price less the first."""
        return self.last - self.first
