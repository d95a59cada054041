"""Binance Spot market data streams (protocol as of 2026-09).

Frames come wrapped (`{"stream": ..., "data": ...}`, from `/stream`) or bare (from `/ws`); both
decode. Decoded: trade, aggTrade, bookTicker, depth and depth@100ms differences, REST depth
snapshots, replies and errors, serverShutdown. Every other stream gives `Ignored`: block trades are
off-book prints, and partial depth (depth5/10/20) is a second view of a book that differences
already describe.

- trade and aggTrade are the same executions told twice. Per symbol, the kind that comes first is
  decoded and the other ignored, unless `tape` fixes the kind.
- `m` says that the buyer was the maker: the taker sold.
- Times are ms or µs (`timeUnit=MICROSECOND`), told apart by their size. bookTicker carries none.
- A REST depth snapshot carries no symbol. `wrap_snapshot` makes it a frame that does, for raw logs
  of our own. In a foreign recording a bare snapshot belongs to the only symbol whose depth was
  subscribed or seen so far; with none or several it is a `DecodeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.adapter import (
    Ack,
    Adapter,
    BookUpdate,
    Event,
    Ignored,
    Quote,
    Refusal,
    Request,
    Shutdown,
    Trade,
)
from collectors.errors import CollectorError, DecodeError, SymbolError
from collectors.exchanges.binance_symbols import load_symbols
from collectors.symbols import SymbolTable, split_pair

# The bounds turn NaN, infinities and overflows into errors where they enter.
_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Time = Annotated[int, Meta(ge=0, le=9_000_000_000_000_000)]
_Positive = Annotated[float, Meta(gt=0, le=1e300)]
_Amount = Annotated[float, Meta(ge=0, le=1e300)]
_Levels = list[tuple[_Positive, _Amount]]


class _Error(Struct):
    code: int
    msg: str = ""


class _Frame(Struct):
    """The keys that tell frames apart."""

    stream: str | None = None
    data: Raw = Raw()
    e: str | None = None
    u: Raw = Raw()
    lastUpdateId: Raw = Raw()
    result: Raw = Raw()
    id: int | str | None = None
    code: int | None = None
    msg: str = ""
    error: _Error | None = None


class _Trade(Struct, gc=False):
    s: str
    t: _Id
    p: _Positive
    q: _Positive
    T: _Time
    m: bool


class _AggTrade(Struct, gc=False):
    s: str
    a: _Id
    p: _Positive
    q: _Positive
    T: _Time
    m: bool


class _BookTicker(Struct, gc=False):
    u: _Id
    s: str
    b: _Amount
    B: _Amount
    a: _Amount
    A: _Amount


class _Depth(Struct, gc=False):
    E: _Time
    s: str
    U: _Id
    u: _Id
    b: _Levels
    a: _Levels


class _Snapshot(Struct, gc=False):
    lastUpdateId: _Id
    bids: _Levels
    asks: _Levels


class _Shutdown(Struct):
    E: _Time | None = None


_STREAMS = {"ticker": ("trade", "bookTicker"), "trades": ("trade",), "book": ("depth@100ms",)}
_SNAPSHOT = "depth@snapshot"  # ours: marks a REST reply in a raw log
_PER_REQUEST = 200  # streams in one SUBSCRIBE; the documented limit is 1024 per connection

_frames = msgspec.json.Decoder(_Frame)
_T = TypeVar("_T", bound=Struct)


def _decoder(kind: type[_T]) -> msgspec.json.Decoder[_T]:
    return msgspec.json.Decoder(kind, strict=False)  # numbers come as strings


_trades, _agg_trades = _decoder(_Trade), _decoder(_AggTrade)
_book_tickers, _depths = _decoder(_BookTicker), _decoder(_Depth)
_snapshots, _shutdowns = _decoder(_Snapshot), _decoder(_Shutdown)


class BinanceSpot(Adapter):
    """Binance Spot: trades, best quotes, order book differences."""

    exchange = "binance"
    channels = ("ticker", "trades", "book")

    def __init__(
        self,
        symbols: SymbolTable | None = None,
        tape: Literal["trade", "aggTrade"] | None = None,
    ) -> None:
        """`tape` fixes which of the two trade streams is decoded."""
        self.symbols = load_symbols() if symbols is None else symbols
        self._tape = tape
        self._tape_of: dict[str, str] = {}
        self._depth_symbols: set[str] = set()
        self._last_id = 0
        self._kinds: dict[str, Callable[[Raw | bytes, int], Event]] = {
            "trade": self._trade,
            "aggTrade": self._agg_trade,
            "bookTicker": self._quote,
            "depth": self._depth,
            "depth@100ms": self._depth,
            "depthUpdate": self._depth,
            "serverShutdown": self._shutdown,
        }

    def subscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> list[Request]:
        requests = self._requests("SUBSCRIBE", symbols, channels)
        if "book" in channels:
            self._depth_symbols.update(symbols)
        return requests

    def unsubscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> list[Request]:
        requests = self._requests("UNSUBSCRIBE", symbols, channels)
        if "book" in channels:
            self._depth_symbols.difference_update(symbols)
        return requests

    def wrap_snapshot(self, symbol: str, body: bytes) -> bytes:
        """The frame that stands for a REST depth reply of `symbol` in a raw log and in `decode`."""
        stream = f"{self._venue_symbol(symbol).lower()}@{_SNAPSHOT}"
        return b'{"stream":%s,"data":%s}' % (msgspec.json.encode(stream), body)

    def decode(self, frame: bytes, recv_ns: int) -> list[Event]:
        try:
            head = _frames.decode(frame)
            if head.stream is not None:
                return [self._streamed(head.stream, head.data, recv_ns)]
            return [self._bare(head, frame, recv_ns)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, SymbolError) as error:
            if frame.lstrip()[:1] == b"[" and _is_json(frame):
                return [Ignored(recv_ns, "array")]
            raise DecodeError(f"binance: {error}; frame: {_excerpt(frame)}") from error

    def _streamed(self, stream: str, data: Raw, recv_ns: int) -> Event:
        name, _, kind = stream.partition("@")
        handler = self._kinds.get(kind or name.removeprefix("!"))
        if handler is not None:
            return handler(data, recv_ns)
        if kind == _SNAPSHOT:
            return self._snapshot(data, recv_ns, self.symbols.pair(name.upper()))
        return Ignored(recv_ns, kind or name)

    def _bare(self, head: _Frame, frame: bytes, recv_ns: int) -> Event:
        if head.e is not None:
            handler = self._kinds.get(head.e)
            return Ignored(recv_ns, head.e) if handler is None else handler(frame, recv_ns)
        if bytes(head.u):
            return self._quote(frame, recv_ns)
        if bytes(head.lastUpdateId):
            if len(self._depth_symbols) != 1:
                seen = ", ".join(sorted(self._depth_symbols)) or "none"
                raise DecodeError(
                    f"binance: a depth snapshot names no symbol and the symbols with depth so far "
                    f"are: {seen}; record it with wrap_snapshot, or one symbol per recording"
                )
            return self._snapshot(frame, recv_ns, next(iter(self._depth_symbols)))
        if head.error is not None:
            return Refusal(recv_ns, head.id, head.error.code, head.error.msg)
        if head.code is not None:
            return Refusal(recv_ns, head.id, head.code, head.msg)
        if bytes(head.result):
            return Ack(recv_ns, head.id, msgspec.json.decode(head.result))
        raise DecodeError(
            f"binance: neither a stream, an event, a snapshot nor a reply; frame: {_excerpt(frame)}"
        )

    def _trade(self, data: Raw | bytes, recv_ns: int) -> Event:
        t = _trades.decode(data)
        pair = self.symbols.pair(t.s)
        if not self._on_tape(pair, "trade"):
            return Ignored(recv_ns, "trade")
        return Trade(recv_ns, _ns(t.T), pair, t.t, t.t, t.p, t.q, -1 if t.m else 1)

    def _agg_trade(self, data: Raw | bytes, recv_ns: int) -> Event:
        t = _agg_trades.decode(data)
        pair = self.symbols.pair(t.s)
        if not self._on_tape(pair, "aggTrade"):
            return Ignored(recv_ns, "aggTrade")
        return Trade(recv_ns, _ns(t.T), pair, t.a, t.a, t.p, t.q, -1 if t.m else 1)

    def _on_tape(self, pair: str, kind: str) -> bool:
        return kind == (self._tape or self._tape_of.setdefault(pair, kind))

    def _quote(self, data: Raw | bytes, recv_ns: int) -> Event:
        q = _book_tickers.decode(data)
        # An empty side is sent as price 0.
        bid, bid_size = (q.b, q.B) if q.b else (None, None)
        ask, ask_size = (q.a, q.A) if q.a else (None, None)
        return Quote(recv_ns, None, self.symbols.pair(q.s), q.u, bid, ask, bid_size, ask_size)

    def _depth(self, data: Raw | bytes, recv_ns: int) -> Event:
        d = _depths.decode(data)
        pair = self.symbols.pair(d.s)
        self._depth_symbols.add(pair)
        return BookUpdate(recv_ns, _ns(d.E), pair, d.u, d.U, False, d.b, d.a)

    def _snapshot(self, data: Raw | bytes, recv_ns: int, pair: str) -> Event:
        s = _snapshots.decode(data)
        return BookUpdate(recv_ns, None, pair, s.lastUpdateId, None, True, s.bids, s.asks)

    def _shutdown(self, data: Raw | bytes, recv_ns: int) -> Event:
        time = _shutdowns.decode(data).E
        return Shutdown(recv_ns, None if time is None else _ns(time))

    def _requests(
        self, method: str, symbols: Sequence[str], channels: Sequence[str]
    ) -> list[Request]:
        streams: dict[str, None] = {}  # ordered; ticker and trades share a stream
        for channel in channels:
            if channel not in _STREAMS:
                raise CollectorError(
                    f"binance: no channel {channel!r}; choose from {', '.join(self.channels)}"
                )
            for symbol in symbols:
                venue = self._venue_symbol(symbol).lower()
                streams.update(dict.fromkeys(f"{venue}@{kind}" for kind in _STREAMS[channel]))
        names = list(streams)
        requests = []
        for start in range(0, len(names), _PER_REQUEST):
            self._last_id += 1
            params = names[start : start + _PER_REQUEST]
            message = {"method": method, "params": params, "id": self._last_id}
            requests.append(Request(msgspec.json.encode(message), self._last_id))
        return requests

    def _venue_symbol(self, pair: str) -> str:
        known = self.symbols.symbol(pair)
        if known is not None:
            return known
        base, quote = split_pair(pair)
        self.symbols.add(base + quote, pair)  # the exchange writes a pair as base and quote joined
        return base + quote


def _ns(time: int) -> int:
    """ms or µs -> ns; 10^14 ms is the year 5138, 10^14 µs is March 1973."""
    return time * 1_000_000 if time < 100_000_000_000_000 else time * 1_000


def _is_json(frame: bytes) -> bool:
    try:
        msgspec.json.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _excerpt(frame: bytes) -> str:
    return repr(frame if len(frame) <= 120 else frame[:120] + b"...")[1:]
