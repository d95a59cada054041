"""Binance Spot market data streams (protocol as of 2026-09); see `binance_streams.py`.

Decoded: trade, aggTrade, bookTicker, depth and depth@100ms difference, REST depth snapshots,
replies and errors, serverShutdown. Every other stream gives `Ignored`: block trades are off-book
prints, and partial depth (depth5/10/20) is a second view of a book that differences already
describe. bookTicker carries no time.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Raw, Struct

from collectors.adapter import BookUpdate, Event, Ignored, Quote, Trade
from collectors.exchanges.binance_rows import difference, quote, trade
from collectors.exchanges.binance_streams import (
    Amount,
    BinanceStreams,
    Frame,
    Id,
    Levels,
    Payload,
    Positive,
    Tape,
    Time,
    ns,
)
from collectors.exchanges.binance_symbols import load_symbols
from collectors.scan.steps import AMOUNT, BOOL, ID, LEVELS, POSITIVE, SYMBOL, TIME, Shape
from collectors.scan.together import Reading
from collectors.symbols import SymbolTable, split_pair


class _Trade(Struct, gc=False):
    s: str
    t: Id
    p: Positive
    q: Positive
    T: Time
    m: bool


class _BookTicker(Struct, gc=False):
    u: Id
    s: str
    b: Amount
    B: Amount
    a: Amount
    A: Amount


class _Depth(Struct, gc=False):
    E: Time
    s: str
    U: Id
    u: Id
    b: Levels
    a: Levels


class _Snapshot(Struct, gc=False):
    lastUpdateId: Id
    bids: Levels
    asks: Levels


_trades, _book_tickers = Payload(_Trade), Payload(_BookTicker)
_depths, _snapshots = Payload(_Depth), Payload(_Snapshot)

# What is read of many messages at once. A side without orders is told as price 0: not read.
_TRADES: Shape = {"s": SYMBOL, "t": ID, "p": POSITIVE, "q": POSITIVE, "T": TIME, "m": BOOL}
_BOOK_TICKERS: Shape = {
    "u": ID, "s": SYMBOL, "b": POSITIVE, "B": AMOUNT, "a": POSITIVE, "A": AMOUNT,
}  # fmt: skip
_DEPTHS: Shape = {"E": TIME, "s": SYMBOL, "U": ID, "u": ID, "b": LEVELS, "a": LEVELS}


class BinanceSpot(BinanceStreams):
    """Binance Spot: trades, best quotes, order book differences."""

    exchange = "binance"
    channels = ("ticker", "trades", "book")
    streams: ClassVar = {
        "ticker": ("trade", "bookTicker"),
        "trades": ("trade",),
        "book": ("depth@100ms",),
    }

    def __init__(self, symbols: SymbolTable | None = None, tape: Tape | None = None) -> None:
        """`tape` fixes which of the two trade streams is decoded."""
        super().__init__(load_symbols() if symbols is None else symbols, tape)
        depths = ("depth", "depth@100ms", "depthUpdate")
        self._kinds |= {
            "trade": (_trades, self._trade),
            "bookTicker": (_book_tickers, self._quote),
            **dict.fromkeys(depths, (_depths, self._depth)),
        }
        changes = Reading(
            # Who sees the first difference of other symbols notes that in its turn.
            BookUpdate, {"data": _DEPTHS}, difference=difference("E", None),
            symbols=self._depth_symbols,
        )  # fmt: skip
        self._readings |= {
            "trade": Reading(Trade, {"data": _TRADES}, tick=trade("t")),
            "bookTicker": Reading(Quote, {"data": _BOOK_TICKERS}, tick=quote(None)),
            **dict.fromkeys(depths, changes),
        }

    def _untyped(self, head: Frame, frame: bytes, recv_ns: int) -> Event | None:
        return self._quote(_book_tickers.bare(frame), recv_ns) if bytes(head.u) else None

    def _trade(self, t: _Trade, recv_ns: int) -> Event:
        pair = self._pairs.get(t.s) or self._pair(t.s)
        if self._tape_of.get(pair) != "trade" and not self._on_tape(pair, "trade"):
            return Ignored(recv_ns, "trade")
        return Trade(recv_ns, ns(t.T), pair, t.t, t.t, t.p, t.q, -1 if t.m else 1)

    def _quote(self, q: _BookTicker, recv_ns: int) -> Event:
        pair = self._pairs.get(q.s) or self._pair(q.s)
        if q.b and q.a:
            return Quote(recv_ns, None, pair, q.u, q.b, q.a, q.B, q.A)
        # An empty side is sent as price 0.
        bid, bid_size = (q.b, q.B) if q.b else (None, None)
        ask, ask_size = (q.a, q.A) if q.a else (None, None)
        return Quote(recv_ns, None, pair, q.u, bid, ask, bid_size, ask_size)

    def _depth(self, d: _Depth, recv_ns: int) -> Event:
        pair = self._pairs.get(d.s) or self._pair(d.s)
        self._depth_symbols.add(pair)
        return BookUpdate(recv_ns, ns(d.E), pair, d.u, d.U, False, d.b, d.a)

    def _snapshot(self, data: Raw | bytes, recv_ns: int, pair: str) -> Event:
        s = _snapshots.bare(data)
        return BookUpdate(recv_ns, None, pair, s.lastUpdateId, None, True, s.bids, s.asks)

    def _venue_symbol(self, pair: str) -> str:
        known = self.symbols.symbol(pair)
        if known is not None:
            return known
        base, quote = split_pair(pair)
        self.symbols.add(base + quote, pair)  # the exchange writes a pair as base and quote joined
        return base + quote
