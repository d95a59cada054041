"""Binance's side of its market data protocols, Spot and USD-M futures (as of 2026-09).

Streams: `<symbol>@trade`, `@aggTrade`, `@bookTicker`, `@depth`, `@depth@100ms`; futures also
`@markPrice`, `@markPrice@1s` and depth every 250 (`@depth`) or 500 ms. Any other name is
acknowledged and stays silent, as it does there. Wrapped by `/stream`, bare by `/ws`; streams may be
named in the address, `timeUnit=MICROSECOND` with them.

REST: depth, exchangeInfo, time and ping; futures also openInterest and premiumIndex.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from collectors.exchanges.binance_streams import SNAPSHOT
from collectors.market import Market
from collectors.server.binance_rest import MS, BinanceRest
from collectors.server.dialect import POLICY
from collectors.server.faults import Faults
from collectors.server.talk import Talk
from collectors.server.tape import Happening, Tape

_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
Payload = Callable[[int], bytes]  # a time in the client's unit is made from ns by division


class _Request(msgspec.Struct):
    method: str
    params: list[Any] = []
    id: int | str | None = None


class _Recorded(msgspec.Struct):
    """What tells the stream of a recorded message."""

    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    e: str | None = None
    u: msgspec.Raw = msgspec.Raw()
    B: msgspec.Raw = msgspec.Raw()


_requests = msgspec.json.Decoder(_Request)
_recorded = msgspec.json.Decoder(_Recorded)


class Pending:
    """Changes of a book since the last difference of one speed."""

    def __init__(self, published: int) -> None:
        self.changes: dict[tuple[int, int], int] = {}
        self.first = 0
        self.last = self.published = published
        """Number of the last change that the last difference covered."""
        self.due_ns = 0


class BinanceStreamsDialect(BinanceRest):
    """What both markets have in common."""

    messages_per_s: ClassVar[int]
    speeds: ClassVar[Mapping[str, int]]
    """Depth stream -> ms between its messages."""

    def __init__(
        self, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
    ) -> None:
        super().__init__(market, tapes, faults, now_ns)
        self._quotes = {pair: market.book(pair).quote() for pair in self.pairs}
        self._pending = {
            (pair, stream): Pending(self._last_ids[pair])
            for pair in self.pairs
            for stream in self.speeds
        }
        self._streams: dict[tuple[str, str], tuple[str, bytes, str]] = {}
        self._forms: dict[Talk, tuple[bool, int]] = {}
        self._due: dict[tuple[str, str], int] = {}
        """Differences that are due, by (pair, stream)."""

    # -- requests --------------------------------------------------------------------------

    def greet(self, talk: Talk, now_ns: int) -> None:
        listed = "/".join(talk.query.get("streams", [])) or talk.path.partition("/ws/")[2]
        for stream in filter(None, listed.split("/")):
            self._begin(talk, stream)

    def hear(self, talk: Talk, message: bytes, now_ns: int) -> None:
        if talk.too_fast(now_ns, self.messages_per_s):
            talk.closing = (POLICY, "Too many requests")
            return
        try:
            request = _requests.decode(message)
        except msgspec.ValidationError as error:
            self._refuse(talk, None, 2, f"Invalid request: {error}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(talk, None, 3, f"Invalid JSON: {error}")
        else:
            self._act(talk, request)

    def _act(self, talk: Talk, request: _Request) -> None:
        number, names = request.id, request.params
        if isinstance(number, str) and not _ID.fullmatch(number):
            self._refuse(talk, None, 2, "Invalid request: request ID must be an unsigned integer")
        elif request.method == "LIST_SUBSCRIPTIONS":
            self._reply(talk, number, list(talk.subscriptions))
        elif request.method == "GET_PROPERTY" and names == ["combined"]:
            self._reply(talk, number, self._combined(talk))
        elif request.method == "SET_PROPERTY" and names[:1] == ["combined"]:
            talk.query["combined"] = ["1" if names[1:] == [True] else ""]
            self._forms.pop(talk, None)
            self._reply(talk, number, None)
        elif request.method in ("GET_PROPERTY", "SET_PROPERTY"):
            self._refuse(talk, number, 0, f"Unknown property: {names}")
        elif request.method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            self._refuse(talk, number, 2, f"Invalid request: unknown variant `{request.method}`")
        elif not all(isinstance(name, str) for name in names):
            self._refuse(talk, number, 2, "Invalid request: invalid type: expected a string")
        elif request.method == "UNSUBSCRIBE":
            for name in names:
                self._unsubscribe(talk, name)
            self._reply(talk, number, None)
        else:
            refused = [name for name in names if not self._begin(talk, name)]
            if refused:
                self._refuse(talk, number, 2, f"Invalid request: {', '.join(refused)}")
            else:
                self._reply(talk, number, None)

    def _begin(self, talk: Talk, stream: str) -> bool:
        """Subscribe; False if a fault refuses it."""
        name, _, kind = stream.partition("@")
        pair, channel = self._by_name.get(name.upper(), ""), self._channel(kind)
        if self.faults.refusal(channel or "none", pair):
            return False
        if self._subscribe(talk, stream) and pair:
            talk.heard_again(channel, pair)
        return True

    def _reply(self, talk: Talk, number: int | str | None, result: Any) -> None:
        talk.reply(msgspec.json.encode({"result": result, "id": number}))

    def _refuse(self, talk: Talk, number: int | str | None, code: int, message: str) -> None:
        talk.reply(msgspec.json.encode({"code": code, "msg": message, "id": number}))

    def announce(self, talk: Talk) -> None:
        event = b'{"e":"serverShutdown","E":%d}' % (talk.opened_ns // MS)
        if self._combined(talk):
            event = b'{"stream":"!serverShutdown","data":%s}' % event
        talk.reply(event)

    def _combined(self, talk: Talk) -> bool:
        own = talk.query.get("combined")
        return bool(own[0]) if own else talk.path.endswith("/stream")

    # -- data ------------------------------------------------------------------------------

    def _channel(self, kind: str) -> str:
        if kind.startswith("depth"):
            return "book"
        known = {"bookTicker": "ticker", "trade": "trades", "aggTrade": "trades"}
        return known.get(kind, "funding" if kind.startswith("markPrice") else "")

    def _carries(self, talk: Talk, kind: str) -> bool:
        """Whether the connection's route has streams of this kind."""
        return True

    def _emit(self, pair: str, kind: str, payload: Payload) -> None:
        """Send a stream's message to whoever subscribed it."""
        stream, head, channel = self._stream(pair, kind)
        listeners = self._listeners.get(stream)
        if not listeners:
            return
        made: dict[tuple[bool, int], bytes] = {}
        for talk in list(listeners):
            if not self._carries(talk, kind):
                continue
            form = self._form(talk)
            frame = made.get(form)
            if frame is None:
                frame = payload(form[1])
                if form[0]:
                    frame = head + frame + b"}"
                made[form] = frame
            talk.send(channel, pair, frame)

    def _stream(self, pair: str, kind: str) -> tuple[str, bytes, str]:
        """A stream's name, how its wrapped messages begin, and its channel."""
        known = self._streams.get((pair, kind))
        if known is None:
            stream = f"{self._names[pair].lower()}@{kind}"
            head = b'{"stream":"%s","data":' % stream.encode()
            known = self._streams[pair, kind] = stream, head, self._channel(kind)
        return known

    def _form(self, talk: Talk) -> tuple[bool, int]:
        """Whether the connection's messages are wrapped, and its unit of time in ns."""
        form = self._forms.get(talk)
        if form is None:
            form = self._forms[talk] = self._combined(talk), _unit(talk)
        return form

    def leave(self, talk: Talk) -> None:
        super().leave(talk)
        self._forms.pop(talk, None)

    def publish(self, what: Happening) -> None:
        pair, now_ns = what.pair, what.time_ns
        self._number(what)
        self._trades(what)
        quote = self.market.book(pair).quote()
        if quote != self._quotes[pair]:
            self._quotes[pair] = quote
            self._emit(pair, "bookTicker", self._book_ticker(pair, quote, now_ns))
        if what.changes:
            for stream, every_ms in self.speeds.items():
                pending = self._pending[pair, stream]
                if not pending.changes:
                    pending.first = self._first_number(what)
                    interval = every_ms * MS
                    self._due[pair, stream] = (now_ns // interval + 1) * interval
                pending.changes |= what.changes
                pending.last = self._last_ids[pair]

    def relay(self, channel: str, pair: str, frame: bytes) -> None:
        """A stream of another speed is as good as the recorded one."""
        wrapped = _recorded.decode(frame)
        data = bytes(wrapped.data) or frame
        kind = (wrapped.stream or "").partition("@")[2] or self._kind(data)
        if not self._channel(kind) or kind == SNAPSHOT:
            return  # a REST reply
        family = kind.partition("@")[0]
        name = self._names[pair].lower()
        for stream in self._listeners:
            if stream.partition("@")[0] != name or stream.split("@")[1] != family:
                continue
            for talk in self._listening(stream):
                if self._carries(talk, kind):
                    one = b'{"stream":"%s","data":%s}' % (stream.encode(), data)
                    talk.send(channel, pair, one if self._combined(talk) else data)

    def _kind(self, data: bytes) -> str:
        """The stream of a message that was recorded bare."""
        head = _recorded.decode(data)
        if head.e is None:
            return "bookTicker" if bytes(head.u) and bytes(head.B) else ""
        return {"depthUpdate": "depth", "markPriceUpdate": "markPrice"}.get(head.e, head.e)

    def due_ns(self) -> int:
        return min(self._due.values(), default=2**63 - 1)

    def tick(self, now_ns: int) -> None:
        for (pair, stream), due_ns in sorted(self._due.items(), key=lambda i: (i[1], i[0])):
            if due_ns > now_ns:
                break
            del self._due[pair, stream]
            pending = self._pending[pair, stream]
            self._emit(pair, stream, self._difference(pair, pending, now_ns))
            pending.published, pending.changes = pending.last, {}

    def _changed(self, pair: str, pending: Pending) -> tuple[bytes, bytes]:
        changes = sorted(pending.changes.items())
        bids = [(price, size) for (sign, price), size in reversed(changes) if sign > 0]
        asks = [(price, size) for (sign, price), size in changes if sign < 0]
        return self._levels(pair, bids), self._levels(pair, asks)

    @abstractmethod
    def _number(self, what: Happening) -> None:
        """Give the changes the exchange's numbers."""

    @abstractmethod
    def _first_number(self, what: Happening) -> int:
        """The number of the first of the changes."""

    @abstractmethod
    def _trades(self, what: Happening) -> None:
        """Publish the executions."""

    @abstractmethod
    def _book_ticker(self, pair: str, quote: tuple[int, int, int, int], now_ns: int) -> Payload: ...

    @abstractmethod
    def _difference(self, pair: str, pending: Pending, now_ns: int) -> Payload: ...


def _unit(talk: Talk) -> int:
    """Nanoseconds in one of the client's units of time."""
    unit = talk.query.get("timeUnit")
    return 1_000 if unit and unit[0].upper() == "MICROSECOND" else MS
