"""Messages that came together, the trades and quotes among them as columns: no object for each.

A `Lot` is what `Adapter.decode_many` may give instead of the events of every message, and means the
same: going through it gives those events. What is computed of its columns is in `lot_compiled.py`,
which is imported where there is a lot: who made it has loaded the compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collectors.adapter import Event, Quote, Trade

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Which = slice | Sequence[int] | NDArray[np.int64]

TRADE, QUOTE = 1, 2
"""Kinds of messages; every other one is 0."""
RECV_TS, TS, SYMBOL, SEQ, SIDE = range(5)
"""Columns of whole numbers: times in ns, the number of the symbol, that of the event, the taker's
side. Of decimals a trade has price and size, a quote bid, ask and their sizes."""
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


@dataclass(frozen=True)
class Lot:
    """Every message means one trade, or one quote, or what `others` says of it."""

    symbols: Sequence[str]
    """BASE/QUOTE by number; more than those of the lot."""
    kinds: NDArray[np.int8]
    """Of every message."""
    ints: NDArray[np.int64]
    """Columns of every message."""
    floats: NDArray[np.float64]
    others: Mapping[int, list[Event]]
    """By message, those of one kind in the order of arrival."""
    ticks: int
    """How many trades and quotes there are."""

    def __len__(self) -> int:
        return self.ticks + len(self.others)

    def __iter__(self) -> Iterator[list[Event]]:
        """The events of each message."""
        for kind, events in ((TRADE, self.trades), (QUOTE, self.quotes)):
            if (self.kinds == kind).all():  # then each is made when its turn comes
                return ([event] for event in events(slice(None)))
        return iter(self.of_messages())  # type: ignore[arg-type]  # there are no others

    def of_messages(self) -> list[list[Event] | None]:
        """The events of each message that there was, None for those that are not of the lot."""
        told: list[list[Event] | None] = [None] * len(self.kinds)
        for kind, events in ((TRADE, self.trades), (QUOTE, self.quotes)):
            at = np.flatnonzero(self.kinds == kind)
            for i, event in zip(at.tolist(), events(at), strict=True):
                told[i] = [event]
        for i, of_one in self.others.items():
            told[i] = of_one
        return told

    def trades(self, at: _Which) -> Iterator[Trade]:
        """Those of the messages `at`."""
        seqs, sides = self.ints[SEQ, at].tolist(), self.ints[SIDE, at].tolist()
        return map(Trade, *self._common(at), seqs, seqs, *self.floats[:2, at].tolist(), sides)

    def quotes(self, at: _Which) -> Iterator[Quote]:
        """Those of the messages `at`."""
        seqs = self.ints[SEQ, at].tolist()
        return map(Quote, *self._common(at), seqs, *self.floats[:, at].tolist())

    def _common(self, at: _Which) -> tuple[Iterable[Any], ...]:
        """Receive times, times, symbols."""
        ts = self.ints[TS, at]
        missing = ts == NONE
        times: Iterable[int | None] = repeat(None) if missing.all() else ts.tolist()
        if missing.any() and not missing.all():
            times = [None if time == NONE else time for time in ts.tolist()]
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
    def last_quotes(self) -> dict[str, Quote]:
        """The last quote of each symbol that has any."""
        quotes = self.chains[1]
        return dict(zip(quotes.names, self.quotes(quotes.lasts), strict=True))
