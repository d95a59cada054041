"""Kraken Spot WebSocket v2 (protocol as of 2026-09).

Decoded: book, trade, ticker, status, replies and errors. Every other channel gives `Ignored`,
heartbeats among them.

- Book messages carry no numbers but a CRC32 over the digits of the best ten levels, as written:
  trailing zeros count, so the digits are kept beside the numbers (`Proof`). The exchange drops
  levels beyond the subscribed depth without saying so; the depth is the acknowledged one, and
  until an acknowledgement is seen the one that the snapshot shows.
- `ticker` is subscribed with the trigger `bbo`: a quote at every change of the best bid or ask.
- `side` is the taker's. A trade snapshot may hold several symbols.
- Symbols are BASE/QUOTE already; `kraken_assets.json` renames the assets that Kraken calls
  otherwise than everybody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from importlib import resources
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.adapter import (
    Ack,
    Adapter,
    BookUpdate,
    Event,
    Ignored,
    Proof,
    Quote,
    Refusal,
    Request,
    Status,
    Trade,
)
from collectors.errors import CollectorError, DecodeError
from collectors.exchanges.item_rows import by_channel
from collectors.exchanges.kraken_rows import READINGS
from collectors.levels import Level
from collectors.scan.together import Together
from collectors.symbols import SymbolTable, split_pair
from collectors.times import rfc3339_ns

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Positive = Annotated[float, Meta(gt=0, le=1e300)]
_Amount = Annotated[float, Meta(ge=0, le=1e300)]


class _Frame(Struct):
    """Whatever is not decoded below."""

    channel: str | None = None
    data: Raw = Raw(b"[]")
    method: str | None = None
    success: bool = True
    result: Raw = Raw(b"null")
    error: str | None = None
    Error: str | None = None
    req_id: int | None = None


class _Subscription(Struct):
    channel: str = ""
    symbol: str = ""
    depth: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class _Level(Struct, gc=False):
    price: Raw
    qty: Raw


class _Book(Struct, gc=False):
    symbol: str
    bids: list[_Level]
    asks: list[_Level]
    checksum: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    timestamp: str | None = None


class _Trade(Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]
    price: _Positive
    qty: _Positive
    trade_id: _Id
    timestamp: str


class _Ticker(Struct, gc=False):
    symbol: str
    bid: _Amount
    bid_qty: _Amount
    ask: _Amount
    ask_qty: _Amount
    volume: _Amount | None = None
    timestamp: str | None = None


class _System(Struct):
    system: str


class _BookFrame(Struct, gc=False):
    type: Literal["snapshot", "update"]
    data: list[_Book]


class _TradeFrame(Struct, gc=False):
    data: list[_Trade]


class _TickerFrame(Struct, gc=False):
    data: list[_Ticker]


_CHANNELS = {"ticker": ("trade", "ticker"), "trades": ("trade",), "book": ("book",)}
DEPTHS = (10, 25, 100, 500, 1000)
"""What the exchange offers; any other is refused."""

_DECODED = ("book", "trade", "ticker")
_START = b'{"channel":"'
_STARTS = {_START + channel.encode(): channel for channel in _DECODED}
"""Frames that begin so are parsed once; all others first for their channel."""

_trade_id = attrgetter("trade_id")
_frames = msgspec.json.Decoder(_Frame)
_subscriptions = msgspec.json.Decoder(_Subscription)
_books = msgspec.json.Decoder(_BookFrame)
_trades = msgspec.json.Decoder(_TradeFrame)
_tickers = msgspec.json.Decoder(_TickerFrame)
_systems = msgspec.json.Decoder(list[_System])


class Kraken(Adapter):
    """Kraken Spot: trades, best quotes, order book."""

    exchange = "kraken"
    channels = ("ticker", "trades", "book")

    def __init__(self, symbols: SymbolTable | None = None, depth: int = 10) -> None:
        """`depth`: levels of a book's side; of more than 10, only the best 10 are proven right."""
        if depth not in DEPTHS:
            raise CollectorError(
                f"kraken: no book depth {depth}; choose from {', '.join(map(str, DEPTHS))}"
            )
        self.symbols = SymbolTable(self.exchange, {}) if symbols is None else symbols
        self._aliases = _load_assets()
        self._depth = depth
        self._depths: dict[str, int] = {}
        self._pairs: dict[str, str] = {}
        self._last_id = 0
        self._together = Together(_START, READINGS, self.decode, by_channel(READINGS, self._pairs))

    def subscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> list[Request]:
        return self._requests("subscribe", symbols, channels)

    def unsubscribe(
        self, symbols: Sequence[str], channels: Sequence[str], keep: Sequence[str] = ()
    ) -> list[Request]:
        return self._requests("unsubscribe", symbols, channels, keep)

    def decode(self, frame: bytes, recv_ns: int) -> list[Event]:
        try:
            channel = _STARTS.get(frame[: frame.find(b'"', 12)])
            if channel is None:
                return self._told(frame, recv_ns)
            return self._data(channel, frame, recv_ns)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            excerpt = repr(frame if len(frame) <= 120 else frame[:120] + b"...")[1:]
            raise DecodeError(f"kraken: {error}; frame: {excerpt}") from error

    def decode_many(
        self, frames: Sequence[bytes], recv_ns: Sequence[int]
    ) -> Iterable[list[Event] | DecodeError]:
        return self._together.decode(frames, recv_ns)

    def _told(self, frame: bytes, recv_ns: int) -> list[Event]:
        """A frame that does not begin as market data does."""
        head = _frames.decode(frame)
        if head.channel is None:
            return [self._reply(head, recv_ns)]
        if head.channel in _DECODED:
            return self._data(head.channel, frame, recv_ns)
        if head.channel == "status":
            return [Status(recv_ns, s.system) for s in _systems.decode(head.data)]
        return [Ignored(recv_ns, head.channel)]

    def _data(self, channel: str, frame: bytes, recv_ns: int) -> list[Event]:
        if channel == "book":
            books = _books.decode(frame)
            is_snapshot = books.type == "snapshot"
            return [self._book(b, is_snapshot, recv_ns) for b in books.data]
        if channel == "ticker":
            return [self._quote(t, recv_ns) for t in _tickers.decode(frame).data]
        trades = _trades.decode(frame).data
        if len(trades) > 1:
            trades.sort(key=_trade_id)
        return [self._trade(t, recv_ns) for t in trades]

    def _book(self, b: _Book, is_snapshot: bool, recv_ns: int) -> Event:
        bids, bid_tokens = _levels(b.bids)
        asks, ask_tokens = _levels(b.asks)
        pair = self._pair(b.symbol)
        if pair not in self._depths:
            shown = max(len(bids), len(asks))
            self._depths[pair] = next((d for d in DEPTHS if shown <= d), shown)
        proof = Proof(b.checksum, self._depths[pair], bid_tokens, ask_tokens)
        ts = None if b.timestamp is None else rfc3339_ns(b.timestamp)
        return BookUpdate(recv_ns, ts, pair, None, None, is_snapshot, bids, asks, None, proof)

    def _trade(self, t: _Trade, recv_ns: int) -> Event:
        side = 1 if t.side == "buy" else -1
        ts, pair = rfc3339_ns(t.timestamp), self._pair(t.symbol)
        return Trade(recv_ns, ts, pair, t.trade_id, t.trade_id, t.price, t.qty, side)

    def _quote(self, t: _Ticker, recv_ns: int) -> Event:
        bid, bid_size = (t.bid, t.bid_qty) if t.bid else (None, None)
        ask, ask_size = (t.ask, t.ask_qty) if t.ask else (None, None)
        ts = None if t.timestamp is None else rfc3339_ns(t.timestamp)
        pair = self._pair(t.symbol)
        return Quote(recv_ns, ts, pair, None, bid, ask, bid_size, ask_size, t.volume)

    def _reply(self, head: _Frame, recv_ns: int) -> Event:
        failed = head.error if head.error is not None else head.Error
        if failed is not None or not head.success:
            return Refusal(recv_ns, head.req_id, 0, failed or "refused without a reason")
        if head.method is None:
            raise DecodeError("neither a channel, a reply nor an error")
        result = msgspec.json.decode(head.result)
        if head.method == "subscribe" and isinstance(result, dict):
            told = _subscriptions.decode(head.result)
            if told.channel == "book" and told.depth is not None:
                self._depths[self._pair(told.symbol)] = told.depth
        return Ack(recv_ns, head.req_id, result)

    def _requests(
        self,
        method: str,
        symbols: Sequence[str],
        channels: Sequence[str],
        keep: Sequence[str] = (),
    ) -> list[Request]:
        for channel in channels:
            if channel not in _CHANNELS:
                raise CollectorError(
                    f"kraken: no channel {channel!r}; choose from {', '.join(self.channels)}"
                )
        names = [self._venue_symbol(symbol) for symbol in symbols]
        kept = {name for channel in keep for name in _CHANNELS[channel]}
        names_of = (name for channel in channels for name in _CHANNELS[channel])
        wanted = dict.fromkeys(name for name in names_of if name not in kept)
        requests = []
        for name in wanted:  # one message per channel: the exchange limits messages, not symbols
            params: dict[str, Any] = {"channel": name, "symbol": names}
            if name == "book":
                params["depth"] = self._depth
            elif name == "ticker":
                params["event_trigger"] = "bbo"
            if name == "trade" and method == "subscribe":
                params["snapshot"] = True  # fills the hole that a reconnect leaves
            self._last_id += 1
            message = {"method": method, "params": params, "req_id": self._last_id}
            requests.append(Request(msgspec.json.encode(message), self._last_id))
        return requests

    def _pair(self, symbol: str) -> str:
        pair = self._pairs.get(symbol)
        if pair is None:
            base, quote = split_pair(symbol.upper())
            pair = f"{self._aliases.get(base, base)}/{self._aliases.get(quote, quote)}"
            self._pairs[symbol] = pair
        return pair

    def _venue_symbol(self, pair: str) -> str:
        split_pair(pair)
        return self.symbols.symbol(pair) or pair


def _levels(levels: list[_Level]) -> tuple[list[Level], list[bytes]]:
    """Numbers, and the digits that enter the checksum."""
    numbers: list[Level] = []
    tokens: list[bytes] = []
    for level in levels:
        price_text, qty_text = bytes(level.price), bytes(level.qty)
        price, qty = float(price_text), float(qty_text)
        if not (0.0 < price <= 1e300 and 0.0 <= qty <= 1e300):
            raise DecodeError(f"{price_text[:40]!r}, {qty_text[:40]!r} are no price and size")
        token = _token(price_text) + _token(qty_text)
        if not token.isdigit():  # in exponent form
            token = _token(_written_out(price_text)) + _token(_written_out(qty_text))
        numbers.append((price, qty))
        tokens.append(token)
    return numbers, tokens


def _token(text: bytes) -> bytes:
    """The digits without point and leading zeros."""
    return text.replace(b".", b"").lstrip(b"0")


def _written_out(text: bytes) -> bytes:
    return format(Decimal(text.decode()), "f").encode()


def _load_assets() -> Mapping[str, str]:
    shipped = resources.files("collectors.exchanges").joinpath("kraken_assets.json").read_bytes()
    return msgspec.json.decode(shipped, type=dict[str, str])
