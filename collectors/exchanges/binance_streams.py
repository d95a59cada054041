"""What Binance's markets have in common: the framing of streams, replies, requests, trades.

Frames come wrapped (`{"stream": ..., "data": ...}`, from `/stream`) or bare (from `/ws`); both
decode. A market (`binance.py`, `binance_futures.py`) says which streams a channel is made of and
decodes their payloads; every other stream gives `Ignored`.

- A stream that was decoded before is known again by the bytes up to the end of its name, and its
  frames are parsed once, envelope and payload together.
- trade and aggTrade are the same executions told twice. Per symbol, the kind that comes first is
  decoded and the other ignored, unless `tape` fixes the kind.
- `m` says that the buyer was the maker: the taker sold.
- Times are ms or µs (`timeUnit=MICROSECOND`), told apart by their size.
- A REST depth snapshot carries no symbol. `wrap_snapshot` makes it a frame that does, for raw logs
  of our own. In a foreign recording a bare snapshot belongs to the only symbol whose depth was
  subscribed or seen so far; with none or several it is a `DecodeError`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.adapter import Ack, Adapter, Event, Ignored, Refusal, Request, Shutdown, Trade
from collectors.errors import CollectorError, DecodeError, SymbolError
from collectors.exchanges.binance_rows import AGG_TRADES, trade
from collectors.scan.steps import MICROSECONDS
from collectors.scan.together import Reading, Together
from collectors.symbols import SymbolTable

if TYPE_CHECKING:
    from collectors.scan.frames import Scanner

# The bounds turn NaN, infinities and overflows into errors where they enter.
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=0, le=9_000_000_000_000_000)]
Positive = Annotated[float, Meta(gt=0, le=1e300)]
Amount = Annotated[float, Meta(ge=0, le=1e300)]
Levels = list[tuple[Positive, Amount]]
Tape = Literal["trade", "aggTrade"]
Handler = Callable[[Any, int], Event]


class _Error(Struct):
    code: int
    msg: str = ""


class Frame(Struct):
    """The keys that tell frames apart."""

    stream: str | None = None
    data: Raw = Raw()
    e: str | None = None
    u: Raw = Raw()
    lastUpdateId: Raw = Raw()
    openInterest: Raw = Raw()
    result: Raw = Raw()
    id: int | str | None = None
    code: int | None = None
    msg: str = ""
    error: _Error | None = None


class _AggTrade(Struct, gc=False):
    s: str
    a: Id
    p: Positive
    q: Positive
    T: Time
    m: bool


class _Shutdown(Struct):
    E: Time | None = None


SNAPSHOT = "depth@snapshot"  # ours: marks a REST reply in a raw log
_PER_REQUEST = 200  # streams in one SUBSCRIBE; the documented limit is 1024 per connection

_START = b'{"stream":"'
_KNOWN_STREAMS = 16_384  # more are no exchange's


class Payload:
    """How payloads of one type are parsed, bare and in an envelope; numbers come as strings."""

    def __init__(self, kind: type[Struct]) -> None:
        envelope = msgspec.defstruct("Envelope", [("data", kind)], gc=False)
        self.bare: Callable[[Raw | bytes], Any]
        self.bare = msgspec.json.Decoder(kind, strict=False).decode
        self.wrapped: Callable[[bytes], Any]
        self.wrapped = msgspec.json.Decoder(envelope, strict=False).decode


_frames = msgspec.json.Decoder(Frame)
_agg_trades, _shutdowns = Payload(_AggTrade), Payload(_Shutdown)


class BinanceStreams(Adapter):
    """One of Binance's markets."""

    streams: ClassVar[Mapping[str, tuple[str, ...]]]
    """Channel -> the streams it is made of."""
    symbols: SymbolTable

    def __init__(self, symbols: SymbolTable, tape: Tape | None) -> None:
        self.symbols = symbols
        self._tape = tape
        self._tape_of: dict[str, str] = {}
        self._depth_symbols: set[str] = set()
        self._last_id = 0
        self._kinds: dict[str, tuple[Payload, Handler]] = {
            "aggTrade": (_agg_trades, self._agg_trade),
            "serverShutdown": (_shutdowns, self._shutdown),
        }
        self._known: dict[bytes, tuple[Callable[[bytes], Any], Handler]] = {}
        """By the beginning of their frames, the streams decoded so far."""
        self._pairs: dict[str, str] = {}
        self._readings = {"aggTrade": Reading(Trade, {"data": AGG_TRADES}, tick=trade("a"))}
        self._together = Together(_START, self._readings, self.decode, self._learn)

    @abstractmethod
    def _venue_symbol(self, pair: str) -> str:
        """The market's name of `pair`."""

    @abstractmethod
    def _snapshot(self, data: Raw | bytes, recv_ns: int, pair: str) -> Event:
        """A REST depth reply."""

    def _route(self, stream: str) -> str:
        """The socket that carries streams of this kind; one has no name."""
        return ""

    def _untyped(self, head: Frame, frame: bytes, recv_ns: int) -> Event | None:
        """A bare frame without the key `e`, if the market knows it."""
        return None

    def subscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> list[Request]:
        requests = self._requests("SUBSCRIBE", symbols, channels)
        if "book" in channels:
            self._depth_symbols.update(symbols)
        return requests

    def unsubscribe(
        self, symbols: Sequence[str], channels: Sequence[str], keep: Sequence[str] = ()
    ) -> list[Request]:
        requests = self._requests("UNSUBSCRIBE", symbols, channels, keep)
        if "book" in channels:
            self._depth_symbols.difference_update(symbols)
        return requests

    def rest_symbol(self, symbol: str) -> str:
        return self._venue_symbol(symbol)

    def wrap_snapshot(self, symbol: str, body: bytes) -> bytes:
        """The frame that stands for a REST depth reply of `symbol` in a raw log and in `decode`."""
        stream = f"{self._venue_symbol(symbol).lower()}@{SNAPSHOT}"
        return b'{"stream":%s,"data":%s}' % (msgspec.json.encode(stream), body)

    def decode(self, frame: bytes, recv_ns: int) -> list[Event]:
        try:
            known = self._known.get(frame[: frame.find(b'"', 11)])
            if known is not None:
                parse, handle = known
                return [handle(parse(frame).data, recv_ns)]
            head = _frames.decode(frame)
            if head.stream is not None:
                return [self._streamed(head.stream, head.data, frame, recv_ns)]
            return [self._bare(head, frame, recv_ns)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, SymbolError) as error:
            if frame.lstrip()[:1] == b"[" and _is_json(frame):
                return [Ignored(recv_ns, "array")]
            raise DecodeError(f"{self.exchange}: {error}; frame: {_excerpt(frame)}") from error

    def decode_many(
        self, frames: Sequence[bytes], recv_ns: Sequence[int]
    ) -> Iterable[list[Event] | DecodeError]:
        return self._together.decode(frames, recv_ns)

    def _learn(
        self, scanner: Scanner, frame: bytes, stream: str, events: Sequence[Event]
    ) -> bool | None:
        """How the frames of a stream are written; None if they are not to be read."""
        symbol, _, kind = stream.partition("@")
        symbol, reading, event = symbol.upper(), self._readings.get(kind), events[0]
        pair = self._pairs.get(symbol)
        if reading is None or pair is None or type(event) is Ignored:
            return None
        if type(event) is not reading.event or event.symbol != pair:  # type: ignore[attr-defined]
            return False
        return scanner.learn(frame, kind, reading.shape, symbol.encode(), pair)

    def _streamed(self, stream: str, data: Raw, frame: bytes, recv_ns: int) -> Event:
        name, _, kind = stream.partition("@")
        known = self._kinds.get(kind or name.removeprefix("!"))
        if known is not None:
            payload, handle = known
            event = handle(payload.bare(data), recv_ns)
            start = _START + stream.encode()
            if frame.startswith(start + b'"') and len(self._known) < _KNOWN_STREAMS:
                self._known[start] = payload.wrapped, handle
            return event
        if kind == SNAPSHOT:
            return self._snapshot(data, recv_ns, self.symbols.pair(name.upper()))
        return Ignored(recv_ns, kind or name)

    def _bare(self, head: Frame, frame: bytes, recv_ns: int) -> Event:
        if head.e is not None:
            known = self._kinds.get(head.e)
            if known is None:
                return Ignored(recv_ns, head.e)
            payload, handle = known
            return handle(payload.bare(frame), recv_ns)
        event = self._untyped(head, frame, recv_ns)
        if event is not None:
            return event
        if bytes(head.lastUpdateId):
            if len(self._depth_symbols) != 1:
                seen = ", ".join(sorted(self._depth_symbols)) or "none"
                raise DecodeError(
                    f"{self.exchange}: a depth snapshot names no symbol and the symbols with depth "
                    f"so far are: {seen}; record it with wrap_snapshot, or one symbol per recording"
                )
            return self._snapshot(frame, recv_ns, next(iter(self._depth_symbols)))
        if head.error is not None:
            return Refusal(recv_ns, head.id, head.error.code, head.error.msg)
        if head.code is not None:
            return Refusal(recv_ns, head.id, head.code, head.msg)
        if bytes(head.result):
            return Ack(recv_ns, head.id, msgspec.json.decode(head.result))
        raise DecodeError(
            f"{self.exchange}: neither a stream, an event, a snapshot nor a reply; "
            f"frame: {_excerpt(frame)}"
        )

    def _pair(self, symbol: str) -> str:
        """BASE/QUOTE of a symbol not met before."""
        pair = self._pairs[symbol] = self.symbols.pair(symbol)
        return pair

    def _agg_trade(self, t: _AggTrade, recv_ns: int) -> Event:
        pair = self._pairs.get(t.s) or self._pair(t.s)
        if self._tape_of.get(pair) != "aggTrade" and not self._on_tape(pair, "aggTrade"):
            return Ignored(recv_ns, "aggTrade")
        return Trade(recv_ns, ns(t.T), pair, t.a, t.a, t.p, t.q, -1 if t.m else 1)

    def _on_tape(self, pair: str, kind: str) -> bool:
        return kind == self._tape_of.setdefault(pair, self._tape or kind)

    def _shutdown(self, told: _Shutdown, recv_ns: int) -> Event:
        return Shutdown(recv_ns, None if told.E is None else ns(told.E))

    def _requests(
        self,
        method: str,
        symbols: Sequence[str],
        channels: Sequence[str],
        keep: Sequence[str] = (),
    ) -> list[Request]:
        kept = {kind for channel in keep for kind in self.streams[channel]}
        routes: dict[str, dict[str, None]] = {}  # ordered; ticker and trades share a stream
        for channel in channels:
            if channel not in self.streams:
                raise CollectorError(
                    f"{self.exchange}: no channel {channel!r}; "
                    f"choose from {', '.join(self.channels)}"
                )
            for symbol in symbols:
                venue = self._venue_symbol(symbol).lower()
                for kind in self.streams[channel]:
                    if kind in kept:
                        continue
                    routes.setdefault(self._route(kind), {})[f"{venue}@{kind}"] = None
        requests = []
        for route, streams in routes.items():
            names = list(streams)
            for start in range(0, len(names), _PER_REQUEST):
                self._last_id += 1
                params = names[start : start + _PER_REQUEST]
                message = {"method": method, "params": params, "id": self._last_id}
                requests.append(Request(msgspec.json.encode(message), self._last_id, route))
        return requests


def ns(time: int) -> int:
    """ms or µs -> ns."""
    return time * 1_000_000 if time < MICROSECONDS else time * 1_000


def _is_json(frame: bytes) -> bool:
    try:
        msgspec.json.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _excerpt(frame: bytes) -> str:
    return repr(frame if len(frame) <= 120 else frame[:120] + b"...")[1:]
