"""Coinbase Advanced Trade's side of its market data (as of 2026-09).

Channels: level2 (sent as l2_data), market_trades, ticker, heartbeats; others are refused as a
failure to subscribe. Every message of a connection is numbered, whatever its channel. A product
quoted in USDC is the one quoted in USD, and is sent under that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from collectors.market import Market, Print
from collectors.server.dialect import POLICY, Dialect
from collectors.server.faults import Faults
from collectors.server.talk import SECOND, Talk
from collectors.server.tape import Happening, Tape
from collectors.server.text import rfc3339, trimmed

_BATCH_NS = 50_000_000  # book changes of a product are sent together
_SUBSCRIBE_NS = 5 * SECOND
_MESSAGES_PER_S = 8
_CHANNELS = {"level2": "book", "market_trades": "trades", "ticker": "ticker", "heartbeats": ""}
_NUMBER = re.compile(rb'("sequence_num":)\d+')
_COUNTER = 21_697  # a heartbeat's first number: seconds since the server started


class _Request(msgspec.Struct):
    type: str
    channel: str = ""
    product_ids: list[str] = []


_requests = msgspec.json.Decoder(_Request)


class CoinbaseDialect(Dialect):
    """Coinbase Advanced Trade."""

    exchange = "coinbase"
    messages_per_s: ClassVar[int] = _MESSAGES_PER_S

    def __init__(
        self, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
    ) -> None:
        super().__init__(market, tapes, faults, now_ns)
        self._products = {pair: pair.replace("/", "-") for pair in self.pairs}
        self._by_product = {product: pair for pair, product in self._products.items()}
        self._changes: dict[str, dict[tuple[int, int], int]] = {pair: {} for pair in self.pairs}
        """Of books, since they were last sent."""
        self._due: dict[str, int] = {}
        self._numbers: dict[Talk, int] = {}
        self._relayed: dict[Talk, bytes] = {}
        self._beats = _COUNTER
        self._beat_ns = (now_ns // SECOND + 1) * SECOND

    def accepts(self, path: str) -> bool:
        return path in ("", "/")

    def greet(self, talk: Talk, now_ns: int) -> None:
        self._numbers[talk] = 0

    def leave(self, talk: Talk) -> None:
        super().leave(talk)
        self._numbers.pop(talk, None)
        self._relayed.pop(talk, None)

    def announce(self, talk: Talk) -> None:
        """The protocol has no message for it."""

    # -- requests --------------------------------------------------------------------------

    def hear(self, talk: Talk, message: bytes, now_ns: int) -> None:
        if talk.too_fast(now_ns, self.messages_per_s):
            talk.closing = (POLICY, "rate limit exceeded")
            return
        try:
            request = _requests.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            talk.reply(_error("failure to parse message"))
            return
        pairs = [self._pair(product) for product in request.product_ids]
        channel = request.channel
        if request.type not in ("subscribe", "unsubscribe"):
            talk.reply(_error("unknown message type"))
        elif channel not in _CHANNELS or None in pairs or self._refused(channel, pairs):
            talk.reply(_error(f"failure to {request.type}"))
        else:
            self._turn(talk, request, [pair for pair in pairs if pair is not None], now_ns)

    def _pair(self, product: str) -> str | None:
        known = self._by_product.get(product)
        if known is None and product.endswith("-USDC"):
            known = self._by_product.get(product[:-1])
        return known

    def _refused(self, channel: str, pairs: list[str | None]) -> bool:
        of = _CHANNELS[channel]
        return any(self.faults.refusal(of or "none", pair or "") for pair in pairs)

    def _turn(self, talk: Talk, request: _Request, pairs: list[str], now_ns: int) -> None:
        """Begin or end subscriptions; the acknowledgement lists all of the connection."""
        channel, begins = request.channel, request.type == "subscribe"
        new: list[str] = []
        for pair in pairs or [""]:
            stream = f"{channel}:{pair}"
            if not begins:
                self._unsubscribe(talk, stream)
            elif self._subscribe(talk, stream) and pair:
                new.append(pair)
        for pair in new:
            talk.heard_again(_CHANNELS[channel], pair)
            self._snapshot(talk, channel, pair, now_ns)
        held: dict[str, list[str]] = {}
        for stream in talk.subscriptions:
            name, _, pair = stream.partition(":")
            held.setdefault(name, []).append(self._products.get(pair, name))
        talk.reply(self._frame(talk, "subscriptions", _encode([{"subscriptions": held}]), now_ns))

    def _snapshot(self, talk: Talk, channel: str, pair: str, now_ns: int) -> None:
        if channel != "market_trades" and not self.market.book(pair).bids.prices:
            return  # the recording has not come to it
        if channel == "level2":
            self._flush(pair, now_ns)  # those who have the book get what is due before
            book = self.market.book(pair)
            levels = {(1, price): size for price, size in book.bids.levels()}
            levels |= {(-1, price): size for price, size in book.asks.levels()}
            events = self._levels("snapshot", pair, levels, now_ns)
            self._send(talk, "l2_data", "book", pair, events, now_ns)
        elif channel == "market_trades":
            trades = list(self.tapes[pair].recent)
            if not trades:
                return
            events = self._trades("snapshot", pair, trades)
            self._send(talk, "market_trades", "trades", pair, events, now_ns)
        else:
            events = self._ticker("snapshot", pair)
            self._send(talk, "ticker", "ticker", pair, events, now_ns)

    # -- data ------------------------------------------------------------------------------

    def publish(self, what: Happening) -> None:
        pair, now_ns = what.pair, what.time_ns
        if what.prints:
            trades = [(now_ns, one) for one in what.prints]
            self._spread("market_trades", "trades", pair, now_ns, trades)
            self._spread("ticker", "ticker", pair, now_ns, trades)
        if what.changes:
            self._changes[pair] |= what.changes
            self._due.setdefault(pair, (now_ns // _BATCH_NS + 1) * _BATCH_NS)

    def relay(self, channel: str, pair: str, frame: bytes) -> None:
        """As it was but for its number; once, if it is about several products."""
        name = next(name for name, of in _CHANNELS.items() if of == channel)
        for talk in self._listening(f"{name}:{pair}"):
            if self._relayed.get(talk) is not frame and not talk.is_silent(channel, pair):
                self._relayed[talk] = frame
                number = self._numbers[talk]
                self._numbers[talk] = number + 1
                talk.send(channel, pair, _NUMBER.sub(b"\\g<1>%d" % number, frame, count=1))

    def _spread(
        self, channel: str, of: str, pair: str, now_ns: int, trades: list[tuple[int, Print]]
    ) -> None:
        listeners = self._listening(f"{channel}:{pair}")
        if listeners:
            trade = channel == "market_trades"
            events = self._trades("update", pair, trades) if trade else self._ticker("update", pair)
            for talk in listeners:
                self._send(talk, channel, of, pair, events, now_ns)

    def due_ns(self) -> int:
        return min(self._beat_ns, min(self._due.values(), default=self._beat_ns))

    def tick(self, now_ns: int) -> None:
        for pair, due_ns in sorted(self._due.items(), key=lambda item: (item[1], item[0])):
            if due_ns <= now_ns:
                self._flush(pair, now_ns)
        if self._beat_ns <= now_ns:
            self._beat_ns += SECOND
            self._beats += 1
            self._beat(now_ns)

    def _flush(self, pair: str, now_ns: int) -> None:
        """Send the book's changes so far."""
        self._due.pop(pair, None)
        changes, self._changes[pair] = self._changes[pair], {}
        listeners = self._listening(f"level2:{pair}")
        if changes and listeners:
            events = self._levels("update", pair, changes, now_ns)
            for talk in listeners:
                self._send(talk, "l2_data", "book", pair, events, now_ns)

    def _beat(self, now_ns: int) -> None:
        """Heartbeats; who has not subscribed in time is sent away."""
        go_time = rfc3339(self.stamp(now_ns), 9).replace("T", " ").replace("Z", " +0000 UTC")
        event = {
            "current_time": f"{go_time} m=+{self._beats}.195984854",
            "heartbeat_counter": self._beats,
        }
        events = _encode([event])
        for talk in self._listening("heartbeats:"):
            talk.reply(self._frame(talk, "heartbeats", events, now_ns))
        for talk in self._numbers:
            if not talk.asked_ns and now_ns > talk.opened_ns + _SUBSCRIBE_NS:
                talk.closing = (POLICY, "no subscription")

    def _levels(
        self, kind: str, pair: str, levels: Mapping[tuple[int, int], int], now_ns: int
    ) -> bytes:
        """Best first, bids before offers."""
        time = rfc3339(self.stamp(now_ns))
        updates = ",".join(
            f'{{"side":"{"bid" if sign > 0 else "offer"}","event_time":"{time}",'
            f'"price_level":"{trimmed(price)}","new_quantity":"{trimmed(size)}"}}'
            for (sign, price), size in sorted(levels.items(), key=_best_first)
        )
        product = self._products[pair]
        return f'[{{"type":"{kind}","product_id":"{product}","updates":[{updates}]}}]'.encode()

    def _trades(self, kind: str, pair: str, trades: list[tuple[int, Print]]) -> bytes:
        """Newest first; the side is the maker's."""
        listed = [
            {
                "product_id": self._products[pair],
                "trade_id": str(one.trade_id),
                "price": trimmed(one.price),
                "size": trimmed(one.size),
                "time": rfc3339(self.stamp(time_ns)),
                "side": "SELL" if one.side > 0 else "BUY",
            }
            for time_ns, one in reversed(trades)
        ]
        return _encode([{"type": kind, "trades": listed}])

    def _ticker(self, kind: str, pair: str) -> bytes:
        tape = self.tapes[pair]
        bid, bid_size, ask, ask_size = map(trimmed, self.market.book(pair).quote())
        ticker = {
            "type": "ticker",
            "product_id": self._products[pair],
            "price": trimmed(tape.last),
            "volume_24_h": trimmed(tape.volume),
            "low_24_h": trimmed(tape.low),
            "high_24_h": trimmed(tape.high),
            "low_52_w": trimmed(tape.low),
            "high_52_w": trimmed(tape.high),
            "price_percent_chg_24_h": f"{100 * tape.change / tape.first:.8f}",
            "best_bid": bid,
            "best_bid_quantity": bid_size,
            "best_ask": ask,
            "best_ask_quantity": ask_size,
        }
        return _encode([{"type": kind, "tickers": [ticker]}])

    def _send(
        self, talk: Talk, channel: str, of: str, pair: str, events: bytes, now_ns: int
    ) -> None:
        if not talk.is_silent(of, pair):
            talk.send(of, pair, self._frame(talk, channel, events, now_ns))

    def _frame(self, talk: Talk, channel: str, events: bytes, now_ns: int) -> bytes:
        number = self._numbers[talk]
        self._numbers[talk] = number + 1
        time = rfc3339(self.stamp(now_ns), 9).rstrip("Z").rstrip("0").rstrip(".")
        head = f'{{"channel":"{channel}","timestamp":"{time}Z","sequence_num":{number},"events":'
        return head.encode() + events + b"}"


def _best_first(level: tuple[tuple[int, int], int]) -> tuple[int, int]:
    (sign, price), _ = level
    return -sign, -sign * price


def _error(message: str) -> bytes:
    return _encode({"type": "error", "message": message})


def _encode(message: object) -> bytes:
    return msgspec.json.encode(message)
