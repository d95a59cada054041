"""The levels of one side of a book, kept in Python.

- `DeepSide`, thousands of levels of which the best price is wanted: a message of any length is one
  update of a map. Only prices that are new to the map enter a heap. A level that is removed stays
  in both with size 0 – many come back soon – until the best price is wanted and it is better, or
  until such levels are most of it.
- `ProvenSide`, tens of levels whose first ten are wanted in their order, with the digits in which
  they came: a map and a sorted list with the best level last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from operator import neg

from collectors.levels import Level, Levels

_PROVEN_LEVELS = 10  # of each side enter a checksum, whatever the depth
_FEW_REMOVED = 1024  # levels with size 0 are worth the time it takes to clear them out


class Side(ABC):
    """The levels of one side, to be read."""

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    @abstractmethod
    def sizes(self) -> Mapping[float, float]:
        """Price -> size."""

    @abstractmethod
    def best_price(self) -> float | None:
        """The best level's; None if the side is empty."""

    @abstractmethod
    def best(self) -> Level | None:
        """Price and size of the best level; None if the side is empty."""

    @abstractmethod
    def top(self, count: int) -> list[Level]:
        """The best `count` levels, best first."""


class _SizesSide(Side):
    """A side with its sizes in a map."""

    def __init__(self, sign: int) -> None:
        """`sign`: +1 for bids, of which the highest is best, -1 for asks."""
        self._sign = sign
        self._sizes: dict[float, float] = {}

    def best(self) -> Level | None:
        price = self.best_price()
        return None if price is None else (price, self._sizes[price])

    @abstractmethod
    def replace(self, levels: Iterable[Level]) -> None:
        """Forget the side and take these levels, in any order."""

    @abstractmethod
    def apply(self, levels: Iterable[Level]) -> None:
        """Set the levels' sizes, in order; size 0 removes a level, known or not."""


class DeepSide(_SizesSide):
    """A side of which the best price is asked after every change."""

    def __init__(self, sign: int) -> None:
        super().__init__(sign)
        self._heap: list[float] = []  # the keys of `_sizes` times -sign
        self._most = _FEW_REMOVED

    @property
    def sizes(self) -> Mapping[float, float]:
        self._clear_out()
        return self._sizes

    def bound(self) -> float | None:
        """A price that no level is better than, cheaper to know; None if the side is empty."""
        return abs(self._heap[0]) if self._heap else None

    def best_price(self) -> float | None:
        sizes, heap = self._sizes, self._heap
        while heap:
            price = abs(heap[0])
            if sizes[price]:
                return price
            heappop(heap)
            del sizes[price]
        return None

    def top(self, count: int) -> list[Level]:
        """The best `count` levels, best first; takes the longer the more they are."""
        if 16 * count > len(self._heap):
            sizes = self.sizes
            prices = sorted(sizes, reverse=self._sign > 0)[:count]
            return [(price, sizes[price]) for price in prices]
        levels: list[Level] = []
        while len(levels) < count and (level := self.best()) is not None:
            levels.append(level)
            heappop(self._heap)
        for price, _ in levels:
            heappush(self._heap, -self._sign * price)
        return levels

    def replace(self, levels: Iterable[Level]) -> None:
        self._sizes = dict(levels)
        self._clear_out()

    def _clear_out(self) -> None:
        """Forget the levels that were removed."""
        self._sizes = sizes = {price: size for price, size in self._sizes.items() if size}
        self._heap = list(map(neg, sizes) if self._sign > 0 else sizes)
        heapify(self._heap)
        self._most = 3 * len(sizes) + _FEW_REMOVED

    def apply(self, levels: Iterable[Level]) -> None:
        sizes, heap = self._sizes, self._heap
        before = len(sizes)
        sizes.update(levels)
        added = len(sizes) - before
        if added:
            sign = -self._sign
            for price in islice(reversed(sizes), added):  # a map keeps the order of insertion
                heappush(heap, sign * price)
            if len(sizes) > self._most:
                self._clear_out()


class ProvenSide(_SizesSide):
    """A side whose best levels are proven after every change, by the digits in which they came."""

    def __init__(self, sign: int) -> None:
        super().__init__(sign)
        self._keys: list[float] = []  # price times sign, ascending
        self._tokens: dict[float, bytes] = {}  # by key
        self._digits: bytes | None = None

    @property
    def sizes(self) -> Mapping[float, float]:
        return self._sizes

    def best_price(self) -> float | None:
        return self._keys[-1] * self._sign if self._keys else None

    def top(self, count: int) -> list[Level]:
        sign, sizes = self._sign, self._sizes
        keys = self._keys[: -count - 1 : -1]
        return [(price, sizes[price]) for price in (key * sign for key in keys)]

    def replace(self, levels: Iterable[Level]) -> None:
        self._sizes = {price: size for price, size in dict(levels).items() if size}
        self._keys = sorted(self._sizes if self._sign > 0 else map(neg, self._sizes))
        self._tokens.clear()

    def apply(self, levels: Iterable[Level]) -> None:
        sizes, keys, sign = self._sizes, self._keys, self._sign
        for price, size in levels:
            if size > 0.0:
                if price not in sizes:
                    key = price * sign
                    if keys and key < keys[-1]:
                        keys.insert(bisect_left(keys, key), key)
                    else:
                        keys.append(key)
                sizes[price] = size
            elif sizes.pop(price, None) is not None:
                del keys[bisect_left(keys, price * sign)]

    def take(self, levels: Levels, tokens: Sequence[bytes], depth: int, is_snapshot: bool) -> None:
        """Levels with the digits in which they came; only the best `depth` are kept."""
        if is_snapshot:
            self.replace(levels)
        else:
            self.apply(levels)
        sign, known = self._sign, self._tokens
        for (price, _), token in zip(levels, tokens, strict=True):
            known[price * sign] = token
        self._digits = None
        self._cut(depth)

    def _cut(self, depth: int) -> None:
        """Forget all but the best `depth` levels."""
        keys = self._keys
        excess = len(keys) - depth
        if excess > 0:
            for key in keys[:excess]:
                del self._sizes[key * self._sign]
            del keys[:excess]
        if len(self._tokens) > 4 * (depth + len(keys)):
            self._tokens = {key: self._tokens[key] for key in keys}

    def proof_digits(self) -> bytes:
        """The noted digits of the best levels, best first."""
        if self._digits is None:
            best = self._keys[: -_PROVEN_LEVELS - 1 : -1]
            self._digits = b"".join(map(self._tokens.__getitem__, best))
        return self._digits
