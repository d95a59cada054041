"""An order book at full depth, kept from absolute sizes of price levels.

Each side is a sorted list of keys with the best level last, next to a map from price to size: most
changes happen near the best price, where inserting into the list moves next to nothing.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Sequence
from operator import neg

from collectors.adapter import BookUpdate, Level, Quote

_PROVEN_LEVELS = 10  # of each side enter a checksum, whatever the depth


class BookSide:
    """The levels of one side."""

    def __init__(self, sign: int) -> None:
        """`sign`: +1 for bids, of which the highest is best, -1 for asks."""
        self.sizes: dict[float, float] = {}
        self._sign = sign
        self._keys: list[float] = []  # price times sign, ascending
        self._tokens: dict[float, bytes] = {}  # by key
        self._digits: bytes | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def best(self) -> Level | None:
        """Price and size of the best level; None if the side is empty."""
        if not self._keys:
            return None
        price = self._keys[-1] * self._sign
        return price, self.sizes[price]

    def top(self, count: int) -> list[Level]:
        """The best `count` levels, best first."""
        sign, sizes = self._sign, self.sizes
        keys = self._keys[: -count - 1 : -1]
        return [(price, sizes[price]) for price in (key * sign for key in keys)]

    def replace(self, levels: Sequence[Level]) -> None:
        """Forget the side and take these levels, in any order."""
        self.sizes = {price: size for price, size in dict(levels).items() if size > 0.0}
        self._keys = sorted(self.sizes if self._sign > 0 else map(neg, self.sizes))
        self._tokens.clear()

    def apply(self, levels: Sequence[Level]) -> None:
        """Set the levels' sizes, in order; size 0 removes a level, known or not."""
        sizes, keys, sign = self.sizes, self._keys, self._sign
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

    def note(self, levels: Sequence[Level], tokens: Sequence[bytes]) -> None:
        """Remember the digits in which the levels came, for `proof_digits`."""
        sign, known = self._sign, self._tokens
        for (price, _), token in zip(levels, tokens, strict=True):
            known[price * sign] = token
        self._digits = None

    def cut(self, depth: int) -> None:
        """Forget all but the best `depth` levels."""
        keys = self._keys
        excess = len(keys) - depth
        if excess > 0:
            for key in keys[:excess]:
                del self.sizes[key * self._sign]
            del keys[:excess]
        if len(self._tokens) > 4 * (depth + len(keys)):
            self._tokens = {key: self._tokens[key] for key in keys}

    def proof_digits(self) -> bytes:
        """The noted digits of the best levels, best first."""
        if self._digits is None:
            best = self._keys[: -_PROVEN_LEVELS - 1 : -1]
            self._digits = b"".join(map(self._tokens.__getitem__, best))
        return self._digits


class Book:
    """Both sides of one symbol's book."""

    def __init__(self) -> None:
        self.bids = BookSide(1)
        self.asks = BookSide(-1)

    def apply(self, update: BookUpdate) -> None:
        """Take an update or a snapshot."""
        bids, asks = self.bids, self.asks
        if update.is_snapshot:
            bids.replace(update.bids)
            asks.replace(update.asks)
        else:
            bids.apply(update.bids)
            asks.apply(update.asks)
        proof = update.proof
        if proof is not None:
            for side, levels, tokens in (
                (bids, update.bids, proof.bid_tokens),
                (asks, update.asks, proof.ask_tokens),
            ):
                if levels or update.is_snapshot:
                    side.note(levels, tokens)
                    side.cut(proof.depth)

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best `count` bids and asks, best first; fewer if there are fewer."""
        return self.bids.top(count), self.asks.top(count)

    @property
    def crossed(self) -> bool:
        """Whether a bid is at or above an ask, which no true book is."""
        bids, asks = self.bids._keys, self.asks._keys
        return bool(bids and asks) and bids[-1] >= -asks[-1]

    def checksum(self) -> int:
        """CRC32 of the digits of the best ten asks and bids, if every update carried a proof."""
        return zlib.crc32(self.asks.proof_digits() + self.bids.proof_digits())

    def quote(self, update: BookUpdate) -> Quote:
        """The best bid and ask after `update`, with its times and number."""
        bid, bid_size = self.bids.best() or (None, None)
        ask, ask_size = self.asks.best() or (None, None)
        return Quote(
            update.recv_ts, update.ts, update.symbol, update.seq, bid, ask, bid_size, ask_size
        )
