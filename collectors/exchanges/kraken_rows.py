"""Kraken's messages that are read many at once: trades and quotes. Of books the digits are needed,
too: they are decoded one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from collectors.adapter import Event, Quote, Trade
from collectors.exchanges.item_rows import by_message, listed_trades, of_items
from collectors.scan.steps import AMOUNT, ID, NAMED, POSITIVE, STAMP, Either, Many, Shape
from collectors.scan.together import Reading

if TYPE_CHECKING:
    from collectors.scan.frames import Rows

_TRADE: Shape = {
    "symbol": NAMED,
    "side": Either(b"buy", b"sell"),
    "price": POSITIVE,
    "qty": POSITIVE,
    "trade_id": ID,
    "timestamp": STAMP,
}
# A side without orders is told as price 0: not read.
_TICKER: Shape = {
    "symbol": NAMED,
    "bid": POSITIVE,
    "bid_qty": AMOUNT,
    "ask": POSITIVE,
    "ask_qty": AMOUNT,
    "volume": AMOUNT,
    "timestamp": STAMP,
}


def _trades(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
    return listed_trades(rows.items("data"), recv_ns, ("symbol", "qty", "timestamp"), 1)


def _tickers(rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
    tickers = rows.items("data")
    times, pairs = tickers.ints("timestamp").tolist(), tickers.pairs("symbol")
    keys = "bid", "ask", "bid_qty", "ask_qty", "volume"
    values = (tickers.floats(key).tolist() for key in keys)
    quotes = map(Quote, of_items(tickers, recv_ns), times, pairs, repeat(None), *values)
    return by_message(tickers, quotes)


READINGS = {
    "trade": Reading(Trade, {"data": Many(_TRADE)}, _trades),
    "ticker": Reading(Quote, {"data": Many(_TICKER)}, _tickers),
}
