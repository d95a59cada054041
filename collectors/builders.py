"""The builders of all channels: events in, canonical batches out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.adapter import BookUpdate, Funding, Gap, Recovery
from collectors.batch_builder import BatchBuilder, RowBuilder, column
from collectors.levels import Levels
from collectors.lot import DIFFERENCE, FIRST_SEQ, NONE, RECV_TS, SEQ, SIDE, SYMBOL, TS, Lot
from collectors.lot_builder import LotBuilder
from collectors.schema import TIME
from collectors.tick_builders import TickerBuilder, TradesBuilder

_OF_SIDES = np.array([1, -1], np.int8)
_NO_LEVELS = np.empty((0, 2))


class BookBuilder(LotBuilder):
    """Book updates and snapshots -> `book`; a row of each level."""

    channel = "book"
    ints: ClassVar = {
        "ts": TS, "recv_ts": RECV_TS, "symbol": SYMBOL, "seq": SEQ, "first_seq": FIRST_SEQ,
        "side": SIDE,
    }  # fmt: skip
    floats = ("price", "size")

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {BookUpdate: self._update}
        self._rows = 0
        self._told: list[int] = []
        """Of every update what its rows have, see `_update`, end to end."""
        self._levels: list[Levels] = []
        """Its bids and its asks."""
        self._falses = pa.array([], pa.bool_())

    def add(self, lot: Lot) -> None:
        if not lot.differences:
            return
        from collectors.lot_compiled import add_differences

        self._room(lot.by_book.levels)
        codes = self._codes_of(lot, DIFFERENCE)
        self._used = add_differences(
            lot.kinds, lot.ints, lot.levels, codes, self._used, self._ints, self._floats
        )

    def _pack(self, rows: int) -> dict[str, pa.Array]:
        if len(self._falses) < rows:
            self._falses = pa.array(np.zeros(2 * rows, np.bool_))
        return super()._pack(rows) | {"is_snapshot": self._falses[:rows]}

    def _event_rows(self) -> int:
        return self._rows

    def _update(self, u: BookUpdate) -> None:
        bids, asks = len(u.bids), len(u.asks)
        if bids or asks:
            ts, seq, first_seq = u.ts, u.seq, u.first_seq
            self._told += (
                NONE if ts is None else ts, u.recv_ts,
                NONE if seq is None else seq, NONE if first_seq is None else first_seq,
                self._code(u.symbol), u.is_snapshot, bids, asks,
            )  # fmt: skip
            self._levels += (u.bids, u.asks)
            self._rows += bids + asks

    def _drain_events(self) -> dict[str, Any]:
        told = np.array(self._told, np.int64).reshape(-1, 8)
        prices, sizes = _price_and_size(self._levels)
        self._told, self._levels, self._rows = [], [], 0
        counts = told[:, 6:]
        rows = counts.sum(1)
        ts, recv_ts, seq, first_seq = np.repeat(told[:, :4].T, rows, axis=1)
        codes = np.repeat(told[:, 4].astype(np.int32), rows)
        sides = np.repeat(np.tile(_OF_SIDES, len(told)), counts.ravel())
        return {
            "ts": column(ts, TIME, ts == NONE),
            "recv_ts": column(recv_ts, TIME),
            "symbol": column(codes, pa.int32()),
            "seq": column(seq, pa.int64(), seq == NONE),
            "first_seq": column(first_seq, pa.int64(), first_seq == NONE),
            "side": column(sides, pa.int8()),
            "price": column(prices, pa.float64()),
            "size": column(sizes, pa.float64()),
            "is_snapshot": pa.array(np.repeat(told[:, 5].astype(np.bool_), rows)),
        }


def _price_and_size(sides: Sequence[Levels]) -> NDArray[np.float64]:
    """Of all levels, one side behind the other."""
    parts: list[NDArray[np.float64]] = []
    listed: list[float] = []  # of the sides since the last part; many become an array at once
    block, begin, end = _NO_LEVELS, 0, 0  # of the last part, which goes on while they lie together
    for levels in sides:
        if isinstance(levels, list):
            listed.extend(chain.from_iterable(levels))
            continue
        if levels.block is block and levels.begin == end and not listed:
            end = levels.end
            continue
        parts.append(block[begin:end])
        if listed:
            parts.append(np.array(listed).reshape(-1, 2))
            listed = []
        block, begin, end = levels.block, levels.begin, levels.end
    parts += (block[begin:end], np.array(listed).reshape(-1, 2))
    return np.concatenate(parts).T.copy()


class FundingBuilder(RowBuilder):
    """Funding -> `funding`."""

    channel = "funding"
    columns = (
        *("ts", "recv_ts", "symbol", "seq"),
        *("mark_price", "index_price", "funding_rate", "next_funding_ts", "open_interest"),
    )

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Funding: self._funding}

    def _funding(self, f: Funding) -> None:
        self._values.extend((f.ts, f.recv_ts, self._code(f.symbol), f.seq))
        self._values.extend((f.mark_price, f.index_price, f.funding_rate))
        self._values.extend((f.next_funding_ts, f.open_interest))


class GapsBuilder(RowBuilder):
    """Gaps and recoveries -> `gaps`."""

    channel = "gaps"
    columns = (
        *("ts", "recv_ts", "symbol", "seq", "channel", "from_seq", "to_seq"),
        *("start_ts", "end_ts", "reason", "recovered_ts"),
    )

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Gap: self._gap, Recovery: self._recovery}

    def _gap(self, g: Gap) -> None:
        self._row(g, g.recv_ts, None)

    def _recovery(self, r: Recovery) -> None:
        self._row(r.gap, r.recv_ts, r.recv_ts)

    def _row(self, g: Gap, recv_ts: int, recovered_ts: int | None) -> None:
        self._values.extend((g.ts, recv_ts, self._code(g.symbol), None, g.channel))
        self._values.extend((g.from_seq, g.to_seq, g.start_ts, g.recv_ts, g.reason, recovered_ts))


BUILDERS: Mapping[str, type[BatchBuilder]] = {
    builder.channel: builder
    for builder in (TickerBuilder, TradesBuilder, BookBuilder, FundingBuilder, GapsBuilder)
}
