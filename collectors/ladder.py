"""Both sides of a book in arrays, kept by compiled code: for levels that come in arrays.

Of every side there is a table of prices, found by their bits, and a heap of those that may be the
best. A level that is removed stays in both – many come back soon – until it would be the best one;
then it leaves the heap. When the tables are half full they are built anew from the levels that are
left.

Importing this loads the compiler: `Book` does so when the first levels come in an array, which the
scanner has made, so that it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
from numba import njit
from numpy.typing import NDArray

from collectors.book_sides import Side
from collectors.levels import Level, LevelRows, Levels
from collectors.lot import ASKS as ASKS_BEGIN
from collectors.lot import ASKS_END, BIDS_END, Lot
from collectors.lot import BIDS as BIDS_BEGIN

BIDS, ASKS = 0, 1
_SIGNS = (-1.0, 1.0)  # a side's heap has its prices times this: the least is the best

_PRICE, _SIZE = 0, 1  # of a row of a table; price 0: the row is free
_LEFT = -1.0  # the size of a removed level that is no longer in the heap; 0: it is still there
_KNOWN, _HEAPED = 0, 1  # what is counted of a side: rows taken in its table, prices in its heap
_NO_ROOM, _CROSSED = -1, 1
_BOUNDS = [BIDS_BEGIN, BIDS_END, ASKS_BEGIN, ASKS_END]
_LEAST_ROWS = 1024

_U = np.uint64
_MIX, _HALF, _BIT = _U(0x9E3779B97F4A7C15), _U(32), _U(1)
_UNSIGNED = _U(2**63 - 1)

_jit = njit(cache=True, nogil=True, error_model="numpy")


@_jit
def _row(table, price, bits):  # type: ignore[no-untyped-def]
    """Where the price is, or where it goes if it is new."""
    last = _U(len(table) - 1)
    mixed = (bits ^ bits >> _HALF) * _MIX
    row = mixed >> _HALF & last
    while table[row, _PRICE] != price and table[row, _PRICE] != 0.0:
        row = row + _BIT & last
    return row


@_jit
def _push(heap, count, key):  # type: ignore[no-untyped-def]
    """Add a key to a heap of so many."""
    at = _U(count)
    while at > 0:
        above = at - _BIT >> _BIT
        if heap[above] <= key:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = key


@_jit
def _pop(heap, count):  # type: ignore[no-untyped-def]
    """Take the first key off a heap, of which so many are left."""
    key, at, left = heap[_U(count)], _U(0), _U(count)
    while True:
        below = at + at + _BIT
        if below >= left:
            break
        if below + _BIT < left and heap[below + _BIT] < heap[below]:
            below += _BIT
        if heap[below] >= key:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = key


@_jit
def _best_row(table, heap, counts):  # type: ignore[no-untyped-def]
    """Where the best level is, once those that were removed are off the heap; 0 if there is none,
    which the counts say."""
    bits = heap.view(np.uint64)
    while counts[_HEAPED] > 0:
        row = _row(table, abs(heap[0]), bits[0] & _UNSIGNED)
        if table[row, _SIZE] > 0.0:
            return row
        table[row, _SIZE] = _LEFT
        counts[_HEAPED] -= 1
        _pop(heap, counts[_HEAPED])
    return _U(0)


@_jit
def _change(table, heap, counts, sign, levels, begin, end):  # type: ignore[no-untyped-def]
    """Set the sizes of levels, in order."""
    bits = levels.view(np.uint64)
    for level in range(begin, end):
        price, size = levels[level, _PRICE], levels[level, _SIZE]
        row = _row(table, price, bits[level, _PRICE])
        if table[row, _PRICE] == 0.0:
            if size == 0.0:
                continue
            table[row, _PRICE], table[row, _SIZE] = price, _LEFT
            counts[_KNOWN] += 1
        if table[row, _SIZE] == _LEFT:
            if size == 0.0:
                continue
            _push(heap, counts[_HEAPED], price * sign)
            counts[_HEAPED] += 1
        table[row, _SIZE] = size
    _best_row(table, heap, counts)


@_jit
def _apply(  # type: ignore[no-untyped-def]
    tables, heaps, counts, levels, bids_begin, bids_end, asks_begin, asks_end
):
    """Change both sides; whether they cross then, or that there is no room and nothing was done."""
    room = heaps.shape[1]
    if counts[0, _KNOWN] + bids_end - bids_begin > room:
        return _NO_ROOM
    if counts[1, _KNOWN] + asks_end - asks_begin > room:
        return _NO_ROOM
    _change(tables[0], heaps[0], counts[0], -1.0, levels, bids_begin, bids_end)
    _change(tables[1], heaps[1], counts[1], 1.0, levels, asks_begin, asks_end)
    if counts[0, _HEAPED] == 0 or counts[1, _HEAPED] == 0:
        return 0
    return _CROSSED if -heaps[0, 0] >= heaps[1, 0] else 0


@_jit
def _apply_all(tables, heaps, counts, levels, ints, messages, begin):  # type: ignore[no-untyped-def]
    """Apply the differences of these messages of a lot, from the `begin`th on, up to one that makes
    them cross, or for which there is no room; how many there are then, and what `_apply` told."""
    for at in range(begin, len(messages)):
        message = messages[at]
        bids, bids_end = ints[BIDS_BEGIN, message], ints[BIDS_END, message]
        asks, asks_end = ints[ASKS_BEGIN, message], ints[ASKS_END, message]
        told = _apply(tables, heaps, counts, levels, bids, bids_end, asks, asks_end)
        if told == _NO_ROOM:
            return at, told
        if told == _CROSSED:
            return at + 1, told
    return len(messages), 0


@_jit
def _top(table, heap, counts, sign, best):  # type: ignore[no-untyped-def]
    """Copy the best levels, as many as there is place for; how many they are."""
    found = 0
    while found < len(best):
        row = _best_row(table, heap, counts)
        if counts[_HEAPED] == 0:
            break
        best[found, _PRICE], best[found, _SIZE] = table[row, _PRICE], table[row, _SIZE]
        found += 1
        counts[_HEAPED] -= 1
        _pop(heap, counts[_HEAPED])
    for level in range(found):
        _push(heap, counts[_HEAPED], best[level, _PRICE] * sign)
        counts[_HEAPED] += 1
    return found


class Ladder:
    """Both sides."""

    @staticmethod
    def compile() -> None:
        """Compile, or load what was compiled before."""
        ladder = Ladder()
        ladder.apply([(float(price), 1.0) for price in range(1, 32)], [])
        ladder.top(BIDS, 1)
        none = np.zeros(0, np.int64)
        parts = ladder._tables, ladder._heaps, ladder._counts
        _apply_all(*parts, np.zeros((0, 2)), none.reshape(ASKS_END + 1, 0), none, 0)

    def __init__(self) -> None:
        self.crossed = False
        self._clear(_LEAST_ROWS)

    def _clear(self, rows: int) -> None:
        self._tables = np.zeros((2, rows, 2))
        self._heaps = np.empty((2, rows // 2))
        self._counts = np.zeros((2, 2), np.int64)

    # -- what is in it ---------------------------------------------------------------------

    def levels(self, side: int) -> NDArray[np.float64]:
        """All levels of a side, in no order."""
        table = self._tables[side]
        live: NDArray[np.float64] = table[table[:, _SIZE] > 0.0]
        return live

    def best_price(self, side: int) -> float | None:
        """The best level's; None if the side is empty."""
        if not self._counts[side, _HEAPED]:
            return None
        return abs(float(self._heaps[side, 0]))

    def top(self, side: int, count: int) -> list[Level]:
        """The best `count` levels, best first; takes the longer the more they are."""
        heaped = int(self._counts[side, _HEAPED])
        if 16 * count > heaped:
            best = self.levels(side)
            best = best[np.argsort(best[:, _PRICE] * _SIGNS[side])[:count]]
        else:
            best = np.empty((count, 2))
            parts = self._tables[side], self._heaps[side], self._counts[side]
            best = best[: _top(*parts, _SIGNS[side], best)]
        return LevelRows(best, 0, len(best))[:]

    # -- changes ---------------------------------------------------------------------------

    def replace(self, bids: Levels, asks: Levels) -> None:
        """Forget all levels and take these."""
        self._clear(_LEAST_ROWS)
        self.apply(bids, asks)

    def apply(self, bids: Levels, asks: Levels) -> None:
        """Set the levels' sizes, in order; size 0 removes a level, known or not."""
        changes = _changes(bids, asks)
        told = _apply(self._tables, self._heaps, self._counts, *changes)
        if told == _NO_ROOM:
            self._build_anew(max(len(bids), len(asks)))
            told = _apply(self._tables, self._heaps, self._counts, *changes)
        self.crossed = told == _CROSSED

    def apply_all(self, lot: Lot, messages: NDArray[np.int64]) -> int:
        """Apply the differences of these messages up to one that makes the sides cross; how many
        were."""
        done, told = 0, _NO_ROOM
        while True:
            done, told = _apply_all(
                self._tables, self._heaps, self._counts, lot.levels, lot.ints, messages, done
            )
            if told != _NO_ROOM:
                self.crossed = told == _CROSSED
                return int(done)
            bids, bids_end, asks, asks_end = lot.ints[_BOUNDS, messages[done]].tolist()
            self._build_anew(max(bids_end - bids, asks_end - asks))

    def _build_anew(self, more: int) -> None:
        """Forget the removed levels and make room for so many more."""
        bids, asks = self.levels(BIDS), self.levels(ASKS)
        rows = _LEAST_ROWS
        while rows < 4 * (max(len(bids), len(asks)) + more):
            rows *= 2
        self._clear(rows)
        block, count = np.concatenate((bids, asks)), len(bids)
        _apply(self._tables, self._heaps, self._counts, block, 0, count, count, len(block))


def _changes(bids: Levels, asks: Levels) -> tuple[NDArray[np.float64], int, int, int, int]:
    """A block with the levels of both, and where they begin and end in it."""
    if isinstance(bids, LevelRows) and isinstance(asks, LevelRows) and bids.block is asks.block:
        return bids.block, bids.begin, bids.end, asks.begin, asks.end
    count = len(bids) + len(asks)
    numbers = chain.from_iterable(chain(bids, asks))
    block = np.fromiter(numbers, np.float64, 2 * count).reshape(count, 2)
    return block, 0, len(bids), len(bids), count


class LadderSide(Side):
    """One side of a ladder, to be read."""

    def __init__(self, ladder: Ladder, side: int) -> None:
        self._ladder = ladder
        self._side = side

    @property
    def sizes(self) -> Mapping[float, float]:
        return dict(self._ladder.levels(self._side).tolist())

    def best_price(self) -> float | None:
        return self._ladder.best_price(self._side)

    def best(self) -> Level | None:
        return next(iter(self._ladder.top(self._side, 1)), None)

    def top(self, count: int) -> list[Level]:
        return self._ladder.top(self._side, count)
