"""An order book at full depth, kept from absolute sizes of price levels."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from collectors.adapter import BookUpdate, Proof, Quote
from collectors.book_sides import DeepSide, ProvenSide, Side
from collectors.levels import Level, LevelRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from collectors.ladder import Ladder
    from collectors.lot import Lot


class Book:
    """Both sides of one symbol's book.

    They are kept in one of three ways, by how the updates come: with proofs, in lists, and in
    arrays. Once some come in arrays, the lists are made arrays, too.
    """

    def __init__(self) -> None:
        self.bids: Side
        self.asks: Side
        self.bids, self.asks = self._deep = DeepSide(1), DeepSide(-1)
        self._proven: tuple[ProvenSide, ProvenSide] | None = None
        self._ladder: Ladder | None = None

    def apply(self, update: BookUpdate) -> None:
        """Take an update or a snapshot; all with a proof, or none."""
        if update.proof is not None:
            self._apply_proven(update, update.proof)
            return
        bids, asks = update.bids, update.asks
        if self._ladder is not None or type(bids) is LevelRows:
            ladder = self._ladder or self._climb()
            (ladder.replace if update.is_snapshot else ladder.apply)(bids, asks)
            return
        deep_bids, deep_asks = self._deep
        if update.is_snapshot:
            deep_bids.replace(bids)
            deep_asks.replace(asks)
        else:
            if bids:
                deep_bids.apply(bids)
            if asks:
                deep_asks.apply(asks)

    def apply_all(self, lot: Lot, messages: NDArray[np.int64]) -> int:
        """Take the differences of these messages of a lot up to one that makes the sides cross; how
        many were taken."""
        return (self._ladder or self._climb()).apply_all(lot, messages)

    def _climb(self) -> Ladder:
        """From now on in arrays."""
        from collectors.ladder import ASKS, BIDS, Ladder, LadderSide

        self._ladder = ladder = Ladder()
        ladder.apply(*(list(side.sizes.items()) for side in self._deep))
        self.bids, self.asks = LadderSide(ladder, BIDS), LadderSide(ladder, ASKS)
        self._deep = DeepSide(1), DeepSide(-1)
        return ladder

    def _apply_proven(self, update: BookUpdate, proof: Proof) -> None:
        if self._proven is None:
            self.bids, self.asks = self._proven = ProvenSide(1), ProvenSide(-1)
        bids, asks = self._proven
        if update.bids or update.is_snapshot:
            bids.take(update.bids, proof.bid_tokens, proof.depth, update.is_snapshot)
        if update.asks or update.is_snapshot:
            asks.take(update.asks, proof.ask_tokens, proof.depth, update.is_snapshot)

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best `count` bids and asks, best first; fewer if there are fewer."""
        return self.bids.top(count), self.asks.top(count)

    @property
    def crossed(self) -> bool:
        """Whether a bid is at or above an ask, which no true book is."""
        if self._ladder is not None:
            return self._ladder.crossed
        if self._proven is None:
            highest, lowest = (side.bound() for side in self._deep)
            if highest is None or lowest is None or highest < lowest:
                return False  # in most cases, and cheap to know
        bid, ask = self.bids.best_price(), self.asks.best_price()
        return bid is not None and ask is not None and bid >= ask

    def checksum(self) -> int:
        """CRC32 of the digits of the best ten asks and bids, if every update carried a proof."""
        if self._proven is None:
            raise ValueError("a book whose updates carry no proofs has no checksum")
        bids, asks = self._proven
        return zlib.crc32(asks.proof_digits() + bids.proof_digits())

    def quote(self, update: BookUpdate) -> Quote:
        """The best bid and ask after `update`, with its times and number."""
        bid, bid_size = self.bids.best() or (None, None)
        ask, ask_size = self.asks.best() or (None, None)
        return Quote(
            update.recv_ts, update.ts, update.symbol, update.seq, bid, ask, bid_size, ask_size
        )
