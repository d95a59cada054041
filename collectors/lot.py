"""Messages that came together, market data among them as columns: no object for each.

A `Lot` is what `Adapter.decode_many` may give instead of the events of every message, and means the
same: going through it gives those events. What is computed of its columns is in `lot_compiled.py`,
which is imported where there is a lot: who made it has loaded the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collectors.adapter import BookUpdate, Event, Quote, Trade
from collectors.levels import LevelRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Which = slice | Sequence[int] | NDArray[np.int64]

TRADE, QUOTE, DIFFERENCE = 1, 2, 3
"""Kinds of messages, the last one of books; every other one is 0."""
RECV_TS, TS, SYMBOL, SEQ, SIDE, FIRST_SEQ, PREV_SEQ, BIDS, BIDS_END, ASKS, ASKS_END = range(11)
"""Columns of whole numbers: times in ns, the number of the symbol, that of the event. Of a trade
the taker's side; of a difference the numbers that link it to others, see `BookUpdate`, and where
its levels begin and end. Of decimals a trade has price and size, a quote bid, ask and their
sizes."""
NONE = -(2**63)
"""What is missing, as a time where the exchange sends none."""


class Chain(NamedTuple):
    """Of each symbol that has events of one kind, the first and the last of them."""

    names: list[str]
    first_seqs: list[int]
    lasts: list[int]
    """Which message."""
    rises: bool
    """Whether the numbers of each symbol's events rise: those of trades by one."""


class Differences(NamedTuple):
    """Of each symbol whose book changes, the messages that change it."""

    names: list[str]
    messages: list[NDArray[np.int64]]
    """Which, in their order."""
    follow: bool
    """Whether each is the next of its symbol after the one before."""
    levels: int
    """How many all have."""


@dataclass(frozen=True)
class Lot:
    """Every message means one trade, quote or difference, or what `others` says of it."""

    symbols: Sequence[str]
    """BASE/QUOTE by number; more than those of the lot."""
    kinds: NDArray[np.int8]
    """Of every message."""
    ints: NDArray[np.int64]
    """Columns of every message."""
    floats: NDArray[np.float64]
    levels: NDArray[np.float64]
    """Prices and sizes of differences."""
    others: Mapping[int, list[Event]]
    """By message, those of one kind in the order of arrival."""
    ticks: int
    """How many trades and quotes there are."""
    differences: int

    def __len__(self) -> int:
        return self.in_columns + len(self.others)

    @property
    def in_columns(self) -> int:
        """How many messages are."""
        return self.ticks + self.differences

    def __iter__(self) -> Iterator[list[Event]]:
        """The events of each message."""
        for kind, events in self._kinds():
            if (self.kinds == kind).all():  # then each is made when its turn comes
                return ([event] for event in events(slice(None)))
        return iter(self.of_messages())  # type: ignore[arg-type]  # there are no others

    def of_messages(self) -> list[list[Event] | None]:
        """The events of each message that there was, None for those that are not of the lot."""
        told: list[list[Event] | None] = [None] * len(self.kinds)
        for kind, events in self._kinds():
            at = np.flatnonzero(self.kinds == kind)
            for i, event in zip(at.tolist(), events(at), strict=True):
                told[i] = [event]
        for i, of_one in self.others.items():
            told[i] = of_one
        return told

    def _kinds(self) -> Iterable[tuple[int, Callable[[_Which], Iterator[Event]]]]:
        return (TRADE, self.trades), (QUOTE, self.quotes), (DIFFERENCE, self.updates)

    def without_differences(self, begin: int) -> Lot:
        """The same with the differences among the messages from `begin` on as events."""
        at = begin + np.flatnonzero(self.kinds[begin:] == DIFFERENCE)
        kinds = self.kinds.copy()
        kinds[at] = 0
        others = dict(self.others)
        others.update(zip(at.tolist(), ([update] for update in self.updates(at)), strict=True))
        others = {message: others[message] for message in sorted(others)}
        left = self.differences - len(at)
        return replace(self, kinds=kinds, others=others, differences=left)

    def trades(self, at: _Which) -> Iterator[Trade]:
        """Those of the messages `at`."""
        seqs, sides = self.ints[SEQ, at].tolist(), self.ints[SIDE, at].tolist()
        return map(Trade, *self._common(at), seqs, seqs, *self.floats[:2, at].tolist(), sides)

    def quotes(self, at: _Which) -> Iterator[Quote]:
        """Those of the messages `at`."""
        seqs = self.ints[SEQ, at].tolist()
        return map(Quote, *self._common(at), seqs, *self.floats[:, at].tolist())

    def updates(self, at: _Which) -> Iterator[BookUpdate]:
        """The differences of the messages `at`."""
        seqs, firsts = self.ints[SEQ, at].tolist(), self.ints[FIRST_SEQ, at].tolist()
        bounds = (self.ints[column, at].tolist() for column in (BIDS, BIDS_END, ASKS, ASKS_END))
        bids_begin, bids_end, asks_begin, asks_end = bounds
        bids = map(LevelRows, repeat(self.levels), bids_begin, bids_end)
        asks = map(LevelRows, repeat(self.levels), asks_begin, asks_end)
        before = _or_none(self.ints[PREV_SEQ, at])
        return map(BookUpdate, *self._common(at), seqs, firsts, repeat(False), bids, asks, before)

    def _common(self, at: _Which) -> tuple[Iterable[Any], ...]:
        """Receive times, times, symbols."""
        times = _or_none(self.ints[TS, at])
        symbols = map(self.symbols.__getitem__, self.ints[SYMBOL, at].tolist())
        return self.ints[RECV_TS, at].tolist(), times, symbols

    @cached_property
    def chains(self) -> tuple[Chain, Chain]:
        """Of the trades and of the quotes."""
        from collectors.lot_compiled import chain

        firsts, lasts = np.full((2, 2, len(self.symbols)), -1)
        rises = chain(self.kinds, self.ints, firsts, lasts)
        return self._chain(firsts[0], lasts[0], rises[0]), self._chain(
            firsts[1], lasts[1], rises[1]
        )

    def _chain(self, firsts: NDArray[np.int64], lasts: NDArray[np.int64], rises: bool) -> Chain:
        own = np.flatnonzero(lasts >= 0)
        names = [self.symbols[number] for number in own.tolist()]
        return Chain(names, self.ints[SEQ, firsts[own]].tolist(), lasts[own].tolist(), rises)

    @cached_property
    def by_book(self) -> Differences:
        """The differences."""
        from collectors.lot_compiled import group

        order = np.empty(self.differences, np.int64)
        ends = np.empty(len(self.symbols), np.int64)
        follow, levels = group(self.kinds, self.ints, order, ends)
        names, messages, begin = [], [], 0
        for symbol, end in zip(self.symbols, ends.tolist(), strict=True):
            if begin < end:
                names.append(symbol)
                messages.append(order[begin:end])
            begin = end
        return Differences(names, messages, follow, levels)

    @cached_property
    def last_quotes(self) -> dict[str, Quote]:
        """The last quote of each symbol that has any."""
        quotes = self.chains[1]
        return dict(zip(quotes.names, self.quotes(quotes.lasts), strict=True))


def _or_none(numbers: NDArray[np.int64]) -> Iterable[int | None]:
    """Each, or None where it is missing."""
    missing = numbers == NONE
    if missing.all():
        return repeat(None)
    told = numbers.tolist()
    return [None if number == NONE else number for number in told] if missing.any() else told
