"""Kraken's side of its WebSocket v2 (as of 2026-09): book, trade, ticker, status, heartbeats.

A book is sent to the subscribed depth, with the CRC32 of its best ten levels as written; levels
that fall out of that depth are not mentioned. Channels that collectors do not read (ohlc,
instrument, level3) are refused as unknown.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from collectors.market import BookSide, Market
from collectors.server.dialect import POLICY, Dialect
from collectors.server.faults import Faults
from collectors.server.talk import SECOND, Talk
from collectors.server.tape import Happening, Tape
from collectors.server.text import decimals_of, fixed, full, rfc3339

_DEPTHS = (10, 25, 100, 500, 1000)
_PROVEN = 10
_TRADES = 50  # in a snapshot
_MESSAGES_PER_S = 20
_CHANNELS = {"book": "book", "trade": "trades", "ticker": "ticker"}
_IDLE_NS = 60 * SECOND


class _Params(msgspec.Struct):
    channel: str = ""
    symbol: list[str] = []
    depth: int = 10
    snapshot: bool | None = None
    event_trigger: str = "trades"


class _Request(msgspec.Struct):
    method: str = ""
    params: _Params = msgspec.field(default_factory=_Params)
    req_id: int | None = None


class _Recorded(msgspec.Struct):
    """A recorded message."""

    channel: str = ""
    type: str = ""
    data: list[msgspec.Raw] = []


class _Symbol(msgspec.Struct):
    symbol: str = ""


_requests = msgspec.json.Decoder(_Request)
_recorded, _symbols = msgspec.json.Decoder(_Recorded), msgspec.json.Decoder(_Symbol)
_View = tuple[list[tuple[int, int]], list[tuple[int, int]]]


class KrakenDialect(Dialect):
    """Kraken Spot."""

    exchange = "kraken"
    messages_per_s: ClassVar[int] = _MESSAGES_PER_S

    def __init__(
        self, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
    ) -> None:
        super().__init__(market, tapes, faults, now_ns)
        self._decimals = {pair: decimals_of(self.market.asset(pair).tick) for pair in self.pairs}
        self._views: dict[tuple[str, int], _View] = {}
        """What a book's subscribers have, by (pair, depth)."""
        self._quotes = {pair: market.book(pair).quote() for pair in self.pairs}
        self._latest = dict.fromkeys(self.pairs, now_ns)
        self._talks: dict[Talk, None] = {}
        self._beat_ns = (now_ns // SECOND + 1) * SECOND

    def accepts(self, path: str) -> bool:
        return path in ("/v2", "/v2/")

    def greet(self, talk: Talk, now_ns: int) -> None:
        self._talks[talk] = None
        self._status(talk, "online")

    def leave(self, talk: Talk) -> None:
        super().leave(talk)
        self._talks.pop(talk, None)

    def announce(self, talk: Talk) -> None:
        self._status(talk, "maintenance")

    def _status(self, talk: Talk, system: str) -> None:
        data: dict[str, Any] = {"version": "2.0.10", "system": system, "api_version": "v2"}
        data |= {"connection_id": 15_113_583_034_416_118_000 + talk.number}
        talk.reply(_encode({"channel": "status", "type": "update", "data": [data]}))

    # -- requests --------------------------------------------------------------------------

    def hear(self, talk: Talk, message: bytes, now_ns: int) -> None:
        if talk.too_fast(now_ns, self.messages_per_s):
            talk.reply(b'{"Error":"Exceeded msg rate"}')
            return
        try:
            request = _requests.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            talk.reply(_encode({"error": "Malformed request", "success": False}))
            return
        times = {"time_in": rfc3339(self.stamp(now_ns)), "time_out": rfc3339(self.stamp(now_ns))}
        if request.req_id is not None:
            times["req_id"] = request.req_id  # type: ignore[assignment]
        params, method = request.params, request.method
        if method == "ping":
            talk.reply(_encode({"method": "pong", **times}))
        elif method not in ("subscribe", "unsubscribe"):
            talk.reply(_encode({"error": "Unsupported method", "success": False, **times}))
        else:
            for symbol in params.symbol or [""]:
                self._turn(talk, method, symbol, params, times)

    def _turn(
        self, talk: Talk, method: str, symbol: str, params: _Params, times: Mapping[str, Any]
    ) -> None:
        """Begin or end one subscription, and say so."""
        error = self._error(method, symbol, params)
        channel = params.channel
        if channel == "book":  # of a recording, all get the depth that it has
            params.depth = self.depths_recorded.get(symbol, params.depth)
        variant = {"book": str(params.depth), "ticker": params.event_trigger}.get(channel, "")
        stream = f"{channel}:{variant}:{symbol}"
        if not error and method == "subscribe" and not _may(talk, channel, symbol):
            error = "Already subscribed"
        elif not error and method == "unsubscribe" and not self._unsubscribe(talk, stream):
            error = "Subscription Not Found"
        if error:
            refusal = {"error": error, "method": method, "success": False, **times}
            talk.reply(_encode(refusal | ({"symbol": symbol} if symbol else {})))
            return
        result: dict[str, Any] = {"channel": channel, "symbol": symbol}
        if channel == "book":
            result["depth"] = params.depth
        elif channel == "ticker":
            result["event_trigger"] = params.event_trigger
        snapshot = channel != "trade" if params.snapshot is None else params.snapshot
        if method == "subscribe":
            result["snapshot"] = snapshot
        talk.reply(_encode({"method": method, "result": result, "success": True, **times}))
        if method == "subscribe":
            self._subscribe(talk, stream)
            talk.heard_again(_CHANNELS[channel], symbol)
            if snapshot:
                self._snapshot(talk, channel, symbol, params.depth)

    def _error(self, method: str, symbol: str, params: _Params) -> str:
        if params.channel not in _CHANNELS:
            return "Channel not found" if params.channel else "Channel field must be a string"
        if symbol not in self.tapes:
            return f"Currency pair not supported {symbol}"
        if params.channel == "book" and params.depth not in _DEPTHS:
            return "Subscription depth not supported"
        if params.channel == "ticker" and params.event_trigger not in ("trades", "bbo"):
            return "Event trigger not supported"
        refused = self.faults.refusal(_CHANNELS[params.channel], symbol)
        return "Internal error" if refused and method == "subscribe" else ""

    def _snapshot(self, talk: Talk, channel: str, symbol: str, depth: int) -> None:
        if channel != "trade" and not self.market.book(symbol).bids.prices:
            return  # the recording has not come to it
        if channel == "book":
            view = self._views.setdefault((symbol, depth), self._view(symbol, depth))
            frame = self._book("snapshot", symbol, view, view, self._latest[symbol])
        elif channel == "ticker":
            frame = self._ticker("snapshot", symbol, self._latest[symbol])
        else:
            trades = list(self.tapes[symbol].recent)[-_TRADES:]
            if not trades:
                return
            data = [self._trade(symbol, time_ns, one) for time_ns, one in trades]
            frame = b'{"channel":"trade","type":"snapshot","data":[%s]}' % b",".join(data)
        talk.send(_CHANNELS[channel], symbol, frame)

    # -- data ------------------------------------------------------------------------------

    def publish(self, what: Happening) -> None:
        pair, now_ns = what.pair, what.time_ns
        self._latest[pair] = now_ns
        if what.prints:
            listeners = self._listening(f"trade::{pair}")
            if listeners:
                data = b",".join(self._trade(pair, now_ns, one) for one in what.prints)
                frame = b'{"channel":"trade","type":"update","data":[%s]}' % data
                for talk in listeners:
                    talk.send("trades", pair, frame)
        quote = self.market.book(pair).quote()
        moved, self._quotes[pair] = quote != self._quotes[pair], quote
        for trigger, due in (("bbo", moved), ("trades", bool(what.prints))):
            listeners = self._listening(f"ticker:{trigger}:{pair}") if due else ()
            if listeners:
                frame = self._ticker("update", pair, now_ns)
                for talk in listeners:
                    talk.send("ticker", pair, frame)
        if what.changes:
            for depth in _DEPTHS:
                self._difference(pair, depth, now_ns)

    def relay(self, channel: str, pair: str, frame: bytes) -> None:
        """A message about several symbols is sent to each symbol's subscribers, cut to it."""
        data = _recorded.decode(frame)
        own = [one for one in data.data if _symbols.decode(one).symbol == pair]
        if len(own) != len(data.data):
            listed = b",".join(map(bytes, own))
            head = data.channel.encode(), data.type.encode(), listed
            frame = b'{"channel":"%s","type":"%s","data":[%s]}' % head
        streams = [s for s in self._listeners if s.partition(":")[0] == data.channel]
        for talk in self._listening_to(s for s in streams if s.endswith(f":{pair}")):
            talk.send(channel, pair, frame)

    def _difference(self, pair: str, depth: int, now_ns: int) -> None:
        """What a book's subscribers have to know to see it as it is."""
        listeners = self._listening(f"book:{depth}:{pair}")
        if not listeners:
            self._views.pop((pair, depth), None)
            return
        before, now = self._views[pair, depth], self._view(pair, depth)
        self._views[pair, depth] = now
        book = self.market.book(pair)
        bids = _changes(before[0], now[0], book.bids)
        asks = _changes(before[1], now[1], book.asks)
        if bids or asks:
            frame = self._book("update", pair, (bids, asks), now, now_ns)
            for talk in listeners:
                talk.send("book", pair, frame)

    def _view(self, pair: str, depth: int) -> _View:
        book = self.market.book(pair)
        return book.bids.levels()[:depth], book.asks.levels()[:depth]

    def _book(self, kind: str, pair: str, levels: _View, book: _View, now_ns: int) -> bytes:
        """`levels` with the checksum of `book`."""
        decimals = self._decimals[pair]
        bids, asks = (
            ",".join(
                f'{{"price":{fixed(price, decimals)},"qty":{full(size)}}}' for price, size in side
            )
            for side in levels
        )
        proof = "".join(
            _digits(fixed(price, decimals)) + _digits(full(size))
            for side in (book[1], book[0])
            for price, size in side[:_PROVEN]
        )
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{pair}","bids":[{bids}],'
            f'"asks":[{asks}],"checksum":{zlib.crc32(proof.encode())},'
            f'"timestamp":"{rfc3339(self.stamp(now_ns))}"}}]}}'
        ).encode()

    def _trade(self, pair: str, time_ns: int, one: Any) -> bytes:
        return (
            f'{{"symbol":"{pair}","side":"{"buy" if one.side > 0 else "sell"}",'
            f'"price":{fixed(one.price, self._decimals[pair])},"qty":{full(one.size)},'
            f'"ord_type":"market","trade_id":{one.trade_id},'
            f'"timestamp":"{rfc3339(self.stamp(time_ns))}"}}'
        ).encode()

    def _ticker(self, kind: str, pair: str, now_ns: int) -> bytes:
        tape = self.tapes[pair]
        bid, bid_size, ask, ask_size = self.market.book(pair).quote()
        price = self._decimals[pair]
        change = f"-{fixed(-tape.change, price)}" if tape.change < 0 else fixed(tape.change, price)
        return (
            f'{{"channel":"ticker","type":"{kind}","data":[{{"symbol":"{pair}",'
            f'"bid":{fixed(bid, price)},"bid_qty":{full(bid_size)},'
            f'"ask":{fixed(ask, price)},"ask_qty":{full(ask_size)},'
            f'"last":{fixed(tape.last, price)},"volume":{full(tape.volume)},'
            f'"vwap":{fixed(tape.vwap, price)},"low":{fixed(tape.low, price)},'
            f'"high":{fixed(tape.high, price)},"change":{change},'
            f'"change_pct":{100 * tape.change / tape.first:.2f},"trades":{tape.count},'
            f'"timestamp":"{rfc3339(self.stamp(now_ns))}"}}]}}'
        ).encode()

    # -- heartbeats ------------------------------------------------------------------------

    def due_ns(self) -> int:
        return self._beat_ns

    def tick(self, now_ns: int) -> None:
        self._beat_ns += SECOND
        for talk in self._talks:
            if talk.subscriptions:
                talk.reply(b'{"channel":"heartbeat"}')
            elif now_ns > _IDLE_NS + max([talk.opened_ns, *talk.asked_ns]):
                talk.closing = (POLICY, "idle")


def _changes(
    before: Sequence[tuple[int, int]], now: Sequence[tuple[int, int]], side: BookSide
) -> list[tuple[int, int]]:
    """Levels that are new or other, and those that are gone from the book; not those that only
    are no longer among the best."""
    old = dict(before)
    changed = [(price, size) for price, size in now if old.get(price) != size]
    kept = dict(now)
    gone = [(p, 0) for p in old if p not in kept and p not in side.sizes]
    return gone + changed


def _may(talk: Talk, channel: str, symbol: str) -> bool:
    """A connection has a channel of a symbol once."""
    same = (stream for stream in talk.subscriptions if stream.startswith(f"{channel}:"))
    return not any(stream.endswith(f":{symbol}") for stream in same)


def _digits(text: str) -> str:
    return text.replace(".", "").lstrip("0")


def _encode(message: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(message)
