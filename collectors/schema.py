"""Canonical Arrow rows of market data, and the builders that make them from events.

Every channel starts with the same columns: `ts`, the exchange's time (null where it sends none);
`recv_ts`, the receiver's, which never decreases; `exchange`; `symbol` as BASE/QUOTE; `seq`, the
exchange's number of the message within its stream. Missing is null. `side` is the taker's: +1
bought, -1 sold; in `book` it is the side of the book: +1 bid, -1 ask.

- trades: one row per execution.
- ticker: one row per execution and per quote update, in arrival order. `bid`, `ask` and their sizes
  are those in force, on every row, null until the first quote; `price`, `size` and `side` only on
  executions. `seq` is the event's own, so it orders quotes among quotes and trades among trades.
- book: one row per changed level, bids first; rows of one message share `recv_ts` and `seq`. `size`
  is absolute, 0 removes the level. A message covers the book changes `first_seq`..`seq`. Rows with
  `is_snapshot` replace the symbol's book.
- funding: perpetual futures; a row holds what its message told, the rest is null.
- gaps: what was missed or found wrong, between the receive times `start_ts` and `end_ts`; numbers
  `from_seq`..`to_seq` where the exchange counts. One row when it is found and, if it is repaired,
  the same once more with `recovered_ts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.adapter import BookUpdate, Funding, Gap, Quote, Recovery, Trade

_TIME = pa.timestamp("ns", "UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())
_COMMON = [
    ("ts", _TIME),
    ("recv_ts", _TIME),
    ("exchange", _NAME),
    ("symbol", _NAME),
    ("seq", pa.int64()),
]


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([*_COMMON, *columns.items()])


SCHEMAS: Mapping[str, pa.Schema] = {
    "ticker": _schema(
        price=pa.float64(),
        size=pa.float64(),
        side=pa.int8(),
        bid=pa.float64(),
        ask=pa.float64(),
        bid_size=pa.float64(),
        ask_size=pa.float64(),
        volume_24h=pa.float64(),
    ),
    "trades": _schema(trade_id=pa.int64(), price=pa.float64(), size=pa.float64(), side=pa.int8()),
    "book": _schema(
        first_seq=pa.int64(),
        side=pa.int8(),
        price=pa.float64(),
        size=pa.float64(),
        is_snapshot=pa.bool_(),
    ),
    "funding": _schema(
        mark_price=pa.float64(),
        index_price=pa.float64(),
        funding_rate=pa.float64(),
        next_funding_ts=_TIME,
        open_interest=pa.float64(),
    ),
    "gaps": _schema(
        channel=_NAME,
        from_seq=pa.int64(),
        to_seq=pa.int64(),
        start_ts=_TIME,
        end_ts=_TIME,
        reason=_NAME,
        recovered_ts=_TIME,
    ),
}


class BatchBuilder(ABC):
    """Collects one exchange's events of one channel and gives them as a canonical batch."""

    channel: ClassVar[str]
    handlers: Mapping[type, Callable[[Any], None]]
    """Event types that make rows of this channel -> the method that takes them."""

    def __init__(self, exchange: str) -> None:
        self.schema = SCHEMAS[self.channel]
        self._exchange = pa.array([exchange])
        self._codes: dict[str, int] = {}
        self._symbols = pa.array([], pa.string())

    @abstractmethod
    def __len__(self) -> int:
        """Rows collected since the last `take`."""

    @abstractmethod
    def _drain(self) -> dict[str, Any]:
        """The columns collected, `symbol` as codes and without `exchange`; forget the rows."""

    def take(self) -> pa.RecordBatch:
        """The rows collected since the last call."""
        rows = len(self)
        columns = self._drain()
        if len(self._symbols) < len(self._codes):
            self._symbols = pa.array(self._codes, pa.string())
        columns["exchange"] = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(rows, np.int32)), self._exchange
        )
        columns["symbol"] = pa.DictionaryArray.from_arrays(
            pa.array(columns["symbol"], pa.int32()), self._symbols
        )
        arrays = [
            values if isinstance(values, pa.Array) else pa.array(values, field.type, size=rows)
            for field in self.schema
            for values in (columns[field.name],)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _code(self, symbol: str) -> int:
        return self._codes.setdefault(symbol, len(self._codes))


class _RowBuilder(BatchBuilder):
    """Rows end to end in one list: the cheapest append, and no object per row to collect later."""

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._values) // len(self.columns)

    def _drain(self) -> dict[str, Any]:
        values, self._values = self._values, []
        return {name: values[i :: len(self.columns)] for i, name in enumerate(self.columns)}


class TradesBuilder(_RowBuilder):
    """Trades -> `trades`."""

    channel = "trades"
    columns = ("ts", "recv_ts", "symbol", "seq", "trade_id", "price", "size", "side")

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Trade: self._trade}

    def _trade(self, t: Trade) -> None:
        self._values.extend(
            (t.ts, t.recv_ts, self._code(t.symbol), t.seq, t.trade_id, t.price, t.size, t.side)
        )


class TickerBuilder(_RowBuilder):
    """Trades and quotes -> `ticker`; the quotes in force outlive `take`."""

    channel = "ticker"
    columns = (
        *("ts", "recv_ts", "symbol", "seq", "price", "size", "side"),
        *("bid", "ask", "bid_size", "ask_size", "volume_24h"),
    )

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Trade: self._trade, Quote: self._quote}
        self._quotes: dict[str, Quote] = {}

    def _trade(self, t: Trade) -> None:
        q = self._quotes.get(t.symbol)
        quote = (None,) * 5 if q is None else _in_force(q)
        code = self._code(t.symbol)
        self._values.extend((t.ts, t.recv_ts, code, t.seq, t.price, t.size, t.side, *quote))

    def _quote(self, q: Quote) -> None:
        self._quotes[q.symbol] = q
        code = self._code(q.symbol)
        self._values.extend((q.ts, q.recv_ts, code, q.seq, None, None, None, *_in_force(q)))


def _in_force(q: Quote) -> tuple[float | None, ...]:
    return q.bid, q.ask, q.bid_size, q.ask_size, q.volume_24h


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
        of_side = np.repeat(np.tile(np.array([1, -1], np.int8), len(updates)), counts.ravel())
        of_update = pa.array(np.repeat(np.arange(len(updates)), counts.sum(1)))
        levels = _all_levels(updates)
        of_each = {
            "ts": pa.array([u.ts for u in updates], _TIME),
            "recv_ts": pa.array([u.recv_ts for u in updates], _TIME),
            "symbol": pa.array([self._code(u.symbol) for u in updates], pa.int32()),
            "seq": pa.array([u.seq for u in updates], pa.int64()),
            "first_seq": pa.array([u.first_seq for u in updates], pa.int64()),
            "is_snapshot": pa.array([u.is_snapshot for u in updates], pa.bool_()),
        }
        rows = pa.RecordBatch.from_pydict(of_each).take(of_update)
        return {
            **dict(zip(of_each, rows.columns, strict=True)),
            "side": pa.array(of_side),
            "price": pa.array(levels[:, 0]),
            "size": pa.array(levels[:, 1]),
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


class FundingBuilder(_RowBuilder):
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


class GapsBuilder(_RowBuilder):
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
