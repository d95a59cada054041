"""Canonical Arrow rows of market data.

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

from collections.abc import Mapping

import pyarrow as pa

TIME = pa.timestamp("ns", "UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())
_COMMON = [
    ("ts", TIME),
    ("recv_ts", TIME),
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
        next_funding_ts=TIME,
        open_interest=pa.float64(),
    ),
    "gaps": _schema(
        channel=_NAME,
        from_seq=pa.int64(),
        to_seq=pa.int64(),
        start_ts=TIME,
        end_ts=TIME,
        reason=_NAME,
        recovered_ts=TIME,
    ),
}
