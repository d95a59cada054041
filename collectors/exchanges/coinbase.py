"""Coinbase Advanced Trade market data (protocol as of 2026-09; messages of 2024 decode too).

Decoded: l2_data, market_trades, ticker, subscriptions, errors. Every other channel gives `Ignored`,
heartbeats among them. Every frame but an error is numbered within its connection, whatever its
channel: its first event is its `FrameNumber`.

- `side` of market_trades is the maker's: the taker did the opposite.
- Trades come newest first and are given oldest first. A subscription begins with the last 100.
- `seq` of books and quotes is the number of their frame, of a trade its id.
- The book is subscribed as `level2` and comes as `l2_data`; asks are called `offer`.
- ticker_batch carries no best bid and ask, and is ignored.
- Subscriptions close when nothing happens for a minute unless heartbeats are subscribed: they are,
  with every other channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.adapter import (
    Ack,
    Adapter,
    BookUpdate,
    Event,
    FrameNumber,
    Ignored,
    Quote,
    Refusal,
    Request,
    Trade,
)
from collectors.errors import CollectorError, DecodeError
from collectors.exchanges.coinbase_rows import READINGS
from collectors.exchanges.coinbase_symbols import load_symbols, pair_of, product_of
from collectors.exchanges.item_rows import by_channel
from collectors.levels import Level
from collectors.scan.together import Together
from collectors.symbols import SymbolTable
from collectors.times import rfc3339_ns

_Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Positive = Annotated[float, Meta(gt=0, le=1e300)]
_Amount = Annotated[float, Meta(ge=0, le=1e300)]


class _Frame(Struct):
    """The envelope of whatever is not decoded below."""

    channel: str | None = None
    sequence_num: _Id = -1
    events: Raw = Raw(b"[]")
    type: str = ""
    message: str = ""


class _Change(Struct, gc=False):
    side: Literal["bid", "offer"]
    price_level: _Positive
    new_quantity: _Amount
    event_time: str = ""


class _Book(Struct, gc=False):
    type: Literal["snapshot", "update"]
    product_id: str
    updates: list[_Change]


class _Trade(Struct, gc=False):
    product_id: str
    trade_id: _Id
    price: _Positive
    size: _Positive
    time: str
    side: Literal["BUY", "SELL"]


class _Trades(Struct, gc=False):
    trades: list[_Trade]


class _Ticker(Struct, gc=False):
    product_id: str
    best_bid: _Amount
    best_bid_quantity: _Amount
    best_ask: _Amount
    best_ask_quantity: _Amount
    volume_24_h: _Amount | None = None


class _Tickers(Struct, gc=False):
    tickers: list[_Ticker]


class _BookFrame(Struct, gc=False):
    timestamp: str
    sequence_num: _Id
    events: list[_Book]


class _TradeFrame(Struct, gc=False):
    sequence_num: _Id
    events: list[_Trades]


class _TickerFrame(Struct, gc=False):
    timestamp: str
    sequence_num: _Id
    events: list[_Tickers]


_CHANNELS = {
    "ticker": ("market_trades", "ticker"),
    "trades": ("market_trades",),
    "book": ("level2",),
}
_DECODED = ("l2_data", "market_trades", "ticker")
_START = b'{"channel":"'
_STARTS = {_START + channel.encode(): channel for channel in _DECODED}
"""Frames that begin so are parsed once; all others first for their channel."""

_trade_id = attrgetter("trade_id")
_frames = msgspec.json.Decoder(_Frame)
# Numbers come as strings.
_books = msgspec.json.Decoder(_BookFrame, strict=False)
_trades = msgspec.json.Decoder(_TradeFrame, strict=False)
_tickers = msgspec.json.Decoder(_TickerFrame, strict=False)


class Coinbase(Adapter):
    """Coinbase Advanced Trade: trades, best quotes, order book."""

    exchange = "coinbase"
    channels = ("ticker", "trades", "book")

    def __init__(self, symbols: SymbolTable | None = None) -> None:
        self.symbols = load_symbols() if symbols is None else symbols
        self._pairs: dict[str, str] = {}
        self._last_id = 0
        self._together = Together(_START, READINGS, self.decode, by_channel(READINGS, self._pairs))

    def subscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> list[Request]:
        heartbeats = self._request({"type": "subscribe", "channel": "heartbeats"})
        return [heartbeats, *self._requests("subscribe", symbols, channels)]

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
            raise DecodeError(f"coinbase: {error}; frame: {excerpt}") from error

    def decode_many(
        self, frames: Sequence[bytes], recv_ns: Sequence[int]
    ) -> Iterable[list[Event] | DecodeError]:
        return self._together.decode(frames, recv_ns)

    def _told(self, frame: bytes, recv_ns: int) -> list[Event]:
        """A frame that does not begin as market data does."""
        head = _frames.decode(frame)
        channel = head.channel
        if channel is None:
            if head.type != "error":
                raise DecodeError("neither a channel nor an error")
            return [Refusal(recv_ns, None, 0, head.message)]
        if channel in _DECODED:
            return self._data(channel, frame, recv_ns)
        if head.sequence_num < 0:
            raise DecodeError("no sequence_num")
        number = FrameNumber(recv_ns, head.sequence_num)
        if channel == "subscriptions":
            return [number, Ack(recv_ns, None, msgspec.json.decode(head.events))]
        return [number, Ignored(recv_ns, channel)]

    def _data(self, channel: str, frame: bytes, recv_ns: int) -> list[Event]:
        if channel == "l2_data":
            books = _books.decode(frame)
            number, sent = books.sequence_num, books.timestamp
            told = [self._book(book, number, sent, recv_ns) for book in books.events]
        elif channel == "market_trades":
            executions = _trades.decode(frame)
            number = executions.sequence_num
            trades = [t for event in executions.events for t in event.trades]
            if len(trades) > 1:
                trades.sort(key=_trade_id)
            told = [self._trade(t, recv_ns) for t in trades]
        else:
            tickers = _tickers.decode(frame)
            number, sent_ns = tickers.sequence_num, rfc3339_ns(tickers.timestamp)
            quotes = [t for event in tickers.events for t in event.tickers]
            told = [self._quote(t, number, sent_ns, recv_ns) for t in quotes]
        return [FrameNumber(recv_ns, number), *told]

    def _book(self, b: _Book, number: int, sent: str, recv_ns: int) -> Event:
        bids: list[Level] = []
        asks: list[Level] = []
        for change in b.updates:
            side = bids if change.side == "bid" else asks
            side.append((change.price_level, change.new_quantity))
        # One time per message; snapshots used to say 1970 instead.
        text = b.updates[0].event_time if b.updates else ""
        ts = (rfc3339_ns(text) if text else 0) or rfc3339_ns(sent)
        pair, is_snapshot = self._pair(b.product_id), b.type == "snapshot"
        return BookUpdate(recv_ns, ts, pair, number, None, is_snapshot, bids, asks)

    def _pair(self, product_id: str) -> str:
        pair = self._pairs.get(product_id)
        if pair is None:
            pair = self._pairs[product_id] = pair_of(self.symbols, product_id)
        return pair

    def _trade(self, t: _Trade, recv_ns: int) -> Event:
        side = -1 if t.side == "BUY" else 1
        ts, pair = rfc3339_ns(t.time), self._pair(t.product_id)
        return Trade(recv_ns, ts, pair, t.trade_id, t.trade_id, t.price, t.size, side)

    def _quote(self, t: _Ticker, number: int, sent: int, recv_ns: int) -> Event:
        bid, bid_size = (t.best_bid, t.best_bid_quantity) if t.best_bid else (None, None)
        ask, ask_size = (t.best_ask, t.best_ask_quantity) if t.best_ask else (None, None)
        pair = self._pair(t.product_id)
        return Quote(recv_ns, sent, pair, number, bid, ask, bid_size, ask_size, t.volume_24_h)

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
                    f"coinbase: no channel {channel!r}; choose from {', '.join(self.channels)}"
                )
        products = [product_of(self.symbols, symbol) for symbol in symbols]
        kept = {name for channel in keep for name in _CHANNELS[channel]}
        names_of = (name for channel in channels for name in _CHANNELS[channel])
        wanted = dict.fromkeys(name for name in names_of if name not in kept)
        return [
            self._request({"type": method, "product_ids": products, "channel": name})
            for name in wanted
        ]

    def _request(self, message: dict[str, Any]) -> Request:
        """The protocol has no request ids: these only tell requests apart."""
        self._last_id += 1
        return Request(msgspec.json.encode(message), self._last_id)
