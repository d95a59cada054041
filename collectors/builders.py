"""The builders of all channels: events in, canonical batches out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.adapter import BookUpdate, Funding, Gap, Recovery
from collectors.batch_builder import BatchBuilder, RowBuilder
from collectors.schema import TIME
from collectors.tick_builders import TickerBuilder, TradesBuilder

_OF_SIDES = np.array([1, -1], np.int8)


class BookBuilder(BatchBuilder):
    """Book updates and snapshots -> `book`; a row is made of each level when they are taken."""

    channel = "book"

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {BookUpdate: self._update}
        self._rows = 0
        self._updates: list[BookUpdate] = []

    def __len__(self) -> int:
        return self._rows

    def _update(self, u: BookUpdate) -> None:
        if u.bids or u.asks:
            self._rows += len(u.bids) + len(u.asks)
            self._updates.append(u)

    def _drain(self) -> dict[str, Any]:
        updates, self._updates, self._rows = self._updates, [], 0
        counts = np.array([(len(u.bids), len(u.asks)) for u in updates], np.int64).reshape(-1, 2)
        rows = counts.sum(1)
        levels = _all_levels(updates)

        def of_each(values: Sequence[int | None], kind: pa.DataType) -> pa.Array:
            """Of every row what its update has."""
            missing = [value is None for value in values]
            known = [value or 0 for value in values] if any(missing) else values
            mask = np.repeat(missing, rows) if any(missing) else None
            return pa.array(np.repeat(np.array(known, np.int64), rows), kind, mask=mask)

        return {
            "ts": of_each([u.ts for u in updates], TIME),
            "recv_ts": of_each([u.recv_ts for u in updates], TIME),
            "symbol": of_each([self._code(u.symbol) for u in updates], pa.int32()),
            "seq": of_each([u.seq for u in updates], pa.int64()),
            "first_seq": of_each([u.first_seq for u in updates], pa.int64()),
            "side": pa.array(np.repeat(np.tile(_OF_SIDES, len(updates)), counts.ravel())),
            "price": pa.array(levels[:, 0]),
            "size": pa.array(levels[:, 1]),
            "is_snapshot": pa.array(
                np.repeat(np.array([u.is_snapshot for u in updates], np.bool_), rows)
            ),
        }


def _all_levels(updates: Sequence[BookUpdate]) -> NDArray[np.float64]:
    """Those of the updates, bids first, one below the other."""
    parts: list[NDArray[np.float64]] = []
    listed: list[float] = []  # of the updates since the last part; many become an array at once
    for u in updates:
        for levels in (u.bids, u.asks):
            if isinstance(levels, list):
                listed.extend(chain.from_iterable(levels))
            elif levels:
                if listed:
                    parts.append(np.array(listed).reshape(-1, 2))
                    listed = []
                parts.append(levels.rows)
    return np.concatenate((*parts, np.array(listed).reshape(-1, 2)))


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
