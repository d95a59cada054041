"""Binance USD-M futures market data streams (protocol as of 2026-09); see `binance_streams.py`.

Decoded: aggTrade, trade, bookTicker, depth differences of every speed, mark prices, REST depth
snapshots and open interest, replies and errors, serverShutdown; fields as of 2024 and of 2026.
Every other stream gives `Ignored`. A bare connection must not carry partial depth (depth5/10/20):
it looks like differences there.

- Two sockets: quotes and books come on the route `public`, trades and mark prices on `market`.
- Ids of book changes are the exchange's, with holes; `pu` links a difference to the one before.
- Fills of the insurance fund and of deleveraging are not market trades: they are `OffBook`.
- The funding rate is that of the running interval, settled at `next_funding_ts`; until then it
  moves. Delivery contracts have none. Open interest is asked for by REST, and is a row of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, ClassVar

from msgspec import Raw, Struct

from collectors.adapter import BookUpdate, Event, Funding, Ignored, OffBook, Quote, Trade
from collectors.errors import DecodeError
from collectors.exchanges.binance_rows import difference, many_ns, quote, trade
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
from collectors.exchanges.binance_symbols import ContractTable, load_contracts
from collectors.scan.steps import (
    AMOUNT,
    BOOL,
    ID,
    LEVELS,
    POSITIVE,
    SAME,
    SIGNED,
    SYMBOL,
    TIME,
    Shape,
)
from collectors.scan.together import Reading, alone

if TYPE_CHECKING:
    from collectors.scan.frames import Rows


class _Trade(Struct, gc=False):
    s: str
    t: Id
    p: Amount
    q: Amount
    T: Time
    m: bool
    X: str = "MARKET"


class _BookTicker(Struct, gc=False):
    u: Id
    s: str
    b: Amount
    B: Amount
    a: Amount
    A: Amount
    T: Time


class _Depth(Struct, gc=False):
    T: Time
    s: str
    U: Id
    u: Id
    pu: Id
    b: Levels
    a: Levels


class _Snapshot(Struct, gc=False):
    lastUpdateId: Id
    bids: Levels
    asks: Levels
    T: Time | None = None


class _MarkPrice(Struct, gc=False):
    E: Time
    s: str
    p: Positive
    i: Amount
    r: str
    T: Time


class _OpenInterest(Struct, gc=False):
    symbol: str
    openInterest: Amount
    time: Time


_trades, _book_tickers = Payload(_Trade), Payload(_BookTicker)
_depths, _snapshots = Payload(_Depth), Payload(_Snapshot)
_mark_prices, _open_interests = Payload(_MarkPrice), Payload(_OpenInterest)

# What is read of many messages at once: market trades, quotes of both sides, known index prices.
_TRADES: Shape = {
    "s": SYMBOL, "t": ID, "p": POSITIVE, "q": POSITIVE, "T": TIME, "m": BOOL, "X": SAME,
}  # fmt: skip
_BOOK_TICKERS: Shape = {
    "u": ID, "s": SYMBOL, "b": POSITIVE, "B": AMOUNT, "a": POSITIVE, "A": AMOUNT, "T": TIME,
}  # fmt: skip
_DEPTHS: Shape = {
    "T": TIME, "s": SYMBOL, "U": ID, "u": ID, "pu": ID, "b": LEVELS, "a": LEVELS,
}  # fmt: skip
_MARK_PRICES: Shape = {
    "E": TIME, "s": SYMBOL, "p": POSITIVE, "i": POSITIVE, "r": SIGNED, "T": TIME,
}  # fmt: skip


class BinanceFutures(BinanceStreams):
    """Binance USD-M futures: trades, best quotes, order book difference, funding."""

    exchange = "binance-futures"
    channels = ("ticker", "trades", "book", "funding")
    streams: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ticker": ("aggTrade", "bookTicker"),
        "trades": ("aggTrade",),
        "book": ("depth@100ms",),
        "funding": ("markPrice@1s",),
    }
    symbols: ContractTable

    def __init__(self, symbols: ContractTable | None = None, tape: Tape | None = None) -> None:
        """`tape` fixes which of the two trade streams is decoded."""
        super().__init__(load_contracts() if symbols is None else symbols, tape)
        mark_prices = ("markPrice", "markPrice@1s", "markPriceUpdate")
        speeds = ("@0ms", "@100ms", "@250ms", "@500ms")
        depths = ("depth", "depthUpdate", *(f"depth{speed}" for speed in speeds))
        self._kinds |= {
            "trade": (_trades, self._trade),
            "bookTicker": (_book_tickers, self._quote),
            **dict.fromkeys(mark_prices, (_mark_prices, self._mark_price)),
            **dict.fromkeys(depths, (_depths, self._depth)),
        }
        changes = Reading(
            # Who sees the first difference of other symbols notes that in its turn.
            BookUpdate, {"data": _DEPTHS}, difference=difference("T", "pu"),
            symbols=self._depth_symbols,
        )  # fmt: skip
        self._readings |= {
            "trade": Reading(Trade, {"data": _TRADES}, tick=trade("t")),
            "bookTicker": Reading(Quote, {"data": _BOOK_TICKERS}, tick=quote("T")),
            **dict.fromkeys(depths, changes),
            **dict.fromkeys(
                mark_prices, Reading(Funding, {"data": _MARK_PRICES}, self._mark_prices_read)
            ),
        }

    def _route(self, stream: str) -> str:
        return "public" if stream.startswith(("bookTicker", "depth")) else "market"

    def _venue_symbol(self, pair: str) -> str:
        return self.symbols.contract(pair)

    def _untyped(self, head: Frame, frame: bytes, recv_ns: int) -> Event | None:
        if not bytes(head.openInterest):
            return None
        o = _open_interests.bare(frame)
        pair = self.symbols.pair(o.symbol)
        return Funding(recv_ns, ns(o.time), pair, None, open_interest=o.openInterest)

    def _trade(self, t: _Trade, recv_ns: int) -> Event:
        pair = self._pairs.get(t.s) or self._pair(t.s)
        if self._tape_of.get(pair) != "trade" and not self._on_tape(pair, "trade"):
            return Ignored(recv_ns, "trade")
        if t.X != "MARKET" or not (t.p and t.q):
            return OffBook(recv_ns, ns(t.T), pair, t.t, t.t)
        return Trade(recv_ns, ns(t.T), pair, t.t, t.t, t.p, t.q, -1 if t.m else 1)

    def _quote(self, q: _BookTicker, recv_ns: int) -> Event:
        pair = self._pairs.get(q.s) or self._pair(q.s)
        if q.b and q.a:
            return Quote(recv_ns, ns(q.T), pair, q.u, q.b, q.a, q.B, q.A)
        # An empty side is sent as price 0.
        bid, bid_size = (q.b, q.B) if q.b else (None, None)
        ask, ask_size = (q.a, q.A) if q.a else (None, None)
        return Quote(recv_ns, ns(q.T), pair, q.u, bid, ask, bid_size, ask_size)

    def _depth(self, d: _Depth, recv_ns: int) -> Event:
        pair = self._pairs.get(d.s) or self._pair(d.s)
        self._depth_symbols.add(pair)
        return BookUpdate(recv_ns, ns(d.T), pair, d.u, d.U, False, d.b, d.a, d.pu)

    def _mark_prices_read(self, rows: Rows, recv_ns: Sequence[int]) -> Iterable[list[Event]]:
        times, due = (many_ns(rows.ints(key)).tolist() for key in ("E", "T"))
        pairs = rows.symbols()
        prices = (rows.floats(key).tolist() for key in ("p", "i", "r"))
        return alone(map(Funding, recv_ns, times, pairs, repeat(None), *prices, due))

    def _snapshot(self, data: Raw | bytes, recv_ns: int, pair: str) -> Event:
        s = _snapshots.bare(data)
        ts = None if s.T is None else ns(s.T)
        return BookUpdate(recv_ns, ts, pair, s.lastUpdateId, None, True, s.bids, s.asks)

    def _mark_price(self, m: _MarkPrice, recv_ns: int) -> Event:
        rate = _rate(m.r)
        due = ns(m.T) if m.T else None
        pair = self._pairs.get(m.s) or self._pair(m.s)
        return Funding(recv_ns, ns(m.E), pair, None, m.p, m.i or None, rate, due)


def _rate(text: str) -> float | None:
    """A delivery contract's rate is an empty string."""
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not math.isfinite(rate):
        raise DecodeError(f"binance-futures: funding rate {text[:40]!r} is no number")
    return rate
