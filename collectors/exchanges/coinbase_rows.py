"""Coinbase's messages that are read many at once: one event each, of one item or more.

What begins with a list of several events, or of none, is decoded one by one, and so is every book
snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from collectors.adapter import BookUpdate, Event, FrameNumber, Quote, Trade
from collectors.exchanges.item_rows import by_message, listed_trades, of_items
from collectors.levels import LevelRows
from collectors.scan.steps import AMOUNT, ID, NAMED, POSITIVE, SAME, STAMP, Either, Many, One, Shape
from collectors.scan.together import Reading

if TYPE_CHECKING:
    from collectors.scan.frames import Rows

_CHANGE: Shape = {
    "side": Either(b"bid", b"offer"),
    "event_time": STAMP,
    "price_level": POSITIVE,
    "new_quantity": AMOUNT,
}
_BOOKS: Shape = {
    "sequence_num": ID,
    "events": One({"type": SAME, "product_id": NAMED, "updates": Many(_CHANGE)}),
}
_TRADE: Shape = {
    "product_id": NAMED,
    "trade_id": ID,
    "price": POSITIVE,
    "size": POSITIVE,
    "time": STAMP,
    "side": Either(b"BUY", b"SELL"),
}
_TRADES: Shape = {"sequence_num": ID, "events": One({"trades": Many(_TRADE)})}
# A side without orders is told as price 0: not read.
_TICKER: Shape = {
    "product_id": NAMED, "best_bid": POSITIVE, "best_bid_quantity": AMOUNT,
    "best_ask": POSITIVE, "best_ask_quantity": AMOUNT, "volume_24_h": AMOUNT,
}  # fmt: skip
_TICKERS: Shape = {
    "timestamp": STAMP, "sequence_num": ID, "events": One({"tickers": Many(_TICKER)}),
}  # fmt: skip


def _books(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
    changes = rows.items("updates")
    is_ask = changes.ints("side")
    order = np.argsort(2 * changes.of_row + is_ask, kind="stable")  # bids first
    block = np.stack((changes.floats("price_level"), changes.floats("new_quantity")), 1)[order]
    middles = changes.begins + np.bincount(changes.of_row[is_ask == 0], minlength=len(recv_ns))
    begins, ends = changes.begins.tolist(), changes.ends.tolist()
    bids = map(LevelRows, repeat(block), begins, middles.tolist())
    asks = map(LevelRows, repeat(block), middles.tolist(), ends)
    times = changes.ints("event_time")[changes.begins].tolist()  # one per message
    numbers, pairs = rows.ints("sequence_num").tolist(), rows.pairs("product_id")
    unknown = repeat(None), repeat(False)
    updates = map(BookUpdate, recv_ns, times, pairs, numbers, *unknown, bids, asks)
    return map(list, zip(map(FrameNumber, recv_ns, numbers), updates, strict=True))


def _trades(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
    keys = "product_id", "size", "time"
    told = listed_trades(rows.items("trades"), recv_ns, keys, -1)  # the side is the maker's
    return _numbered(rows, recv_ns, told)


def _tickers(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
    tickers = rows.items("tickers")
    received = of_items(tickers, recv_ns)
    times = of_items(tickers, rows.ints("timestamp").tolist())
    numbers = of_items(tickers, rows.ints("sequence_num").tolist())
    keys = "best_bid", "best_ask", "best_bid_quantity", "best_ask_quantity", "volume_24_h"
    values = (tickers.floats(key).tolist() for key in keys)
    quotes = map(Quote, received, times, tickers.pairs("product_id"), numbers, *values)
    return _numbered(rows, recv_ns, by_message(tickers, quotes))


def _numbered(
    rows: Rows, recv_ns: Sequence[int], told: Iterable[list[Event]]
) -> Iterator[list[Event]]:
    """The number of each message before its events."""
    numbers = rows.ints("sequence_num").tolist()
    for number, events in zip(map(FrameNumber, recv_ns, numbers), told, strict=True):
        yield [number, *events]


READINGS = {
    "l2_data": Reading(BookUpdate, _BOOKS, _books),
    "market_trades": Reading(Trade, _TRADES, _trades),
    "ticker": Reading(Quote, _TICKERS, _tickers),
}
