"""Decoding and checking recorded messages, against cryptofeed's parsers on the same messages.

One core, one process, both fed the bytes that came from the exchange. Messages are decoded in
blocks of 1024, as `replay` does (and one by one, as a quiet feed does: `single_per_s`). Cryptofeed
takes one message at a time, it has no other way. Decoding alone is what
cryptofeed does with trades, quotes and funding (parsing, and objects of its own; its callbacks are
left out), and what `ratio` compares there. Books it also keeps, so that the ratio there is that of
decoding, checking and keeping. `checked_ratio` is that for every channel: gaps and repetitions are
looked for in trades and quotes as well, which cryptofeed does not do. The levels of Binance's and
Coinbase's books stay in arrays on the way into the book, as in a replay; no list is made of them.
Cryptofeed knows Binance's trades as aggTrade only, so the recorded trades are told to both in that
form. What it cannot parse has a reason instead of a figure.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from collectors.adapter import BookUpdate, Event
from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.integrity import Integrity
from collectors.raw import RawReader
from collectors.replay import BLOCK
from collectors.scan import ready

from .harness import interleaved, median, significant

Frames = Sequence[tuple[int, bytes]]


@dataclass(frozen=True)
class Recorded:
    """Messages of one channel; `snapshot` is the REST reply that its books begin with."""

    exchange: str
    channel: str
    frames: Frames
    passes: int = 1
    """How often they are decoded, each time from the beginning: a few messages take no time."""
    snapshot: bytes = b""
    rival: Callable[[Recorded], Callable[[], None]] | None = None
    reason: str = ""


def recordings(captures: Path) -> Iterator[Recorded]:
    """What there is, by exchange and channel."""
    spot = captures / "binance" / "spot_btcusdt_20240808.recv_ns.gz"
    futures = captures / "binance_usdm" / "usdm_btcusdt_20240808.recv_ns.gz"
    yield from _binance("binance", spot, _binance_spot)
    yield from _binance("binance-futures", futures, _binance_futures)
    funding = captures / "binance_usdm" / "mark_price_1s_20260930.jsonl"
    yield Recorded("binance-futures", "funding", _lines(funding.read_bytes()), 500, b"", _futures)
    kraken = _lines(gzip.decompress((captures / "kraken" / "book_v2_btcusd.jsonl.gz").read_bytes()))
    books = [(at, frame) for at, frame in kraken if b'"channel":"book"' in frame]
    acks = [(at, frame) for at, frame in kraken if b'"method":"subscribe"' in frame]
    version = "parses Kraken's version 1 only"
    yield Recorded("kraken", "book", [*acks, *books], reason=version)
    few = _lines((captures / "kraken" / "ticker_trade_v2.jsonl").read_bytes())
    yield Recorded("kraken", "ticker, trades", few, 1000, reason=version)
    folder = captures / "coinbase"
    updates = _lines((folder / "frames_seq9-22.jsonl").read_bytes())
    books = [(at, frame) for at, frame in updates if b'"l2_data"' in frame]
    yield Recorded("coinbase", "book", books, 500, b"", _coinbase)
    trades = _lines((folder / "market_trades_ccxt27606_20251231.jsonl").read_bytes())
    yield Recorded("coinbase", "trades", trades, 2000, b"", _coinbase)


def measure(recorded: Recorded, repeats: int) -> dict[str, Any]:
    """Messages per second of both, and the ratio."""
    ready.load()
    frames, passes = recorded.frames, recorded.passes
    runs: dict[str, Callable[[], object]] = {
        "single": _single(recorded),
        "decode": _decode(recorded),
        "checked": _check(recorded),
    }
    if recorded.rival is not None:
        runs["cryptofeed"] = recorded.rival(recorded)
    seconds = {name: median(times) for name, times in interleaved(runs, repeats=repeats).items()}
    messages = len(frames) * passes
    case: dict[str, Any] = {
        "exchange": recorded.exchange,
        "channel": recorded.channel,
        "messages": len(frames),
        "bytes": round(sum(len(frame) for _, frame in frames) / len(frames)),
        "block": BLOCK,
        "single_per_s": significant(messages / seconds["single"]),
        "decoded_per_s": significant(messages / seconds["decode"]),
        "checked_per_s": significant(messages / seconds["checked"]),
        "cryptofeed_per_s": None,
        "ratio": None,
        "checked_ratio": None,
        "reason": recorded.reason,
    }
    if recorded.rival is not None:
        case["cryptofeed_per_s"] = significant(messages / seconds["cryptofeed"])
        like = "checked" if recorded.channel == "book" else "decode"
        case["ratio"] = significant(seconds["cryptofeed"] / seconds[like])
        case["checked_ratio"] = significant(seconds["cryptofeed"] / seconds["checked"])
    return case


def measure_book(recorded: Recorded, repeats: int) -> dict[str, Any]:
    """Applying updates decoded in blocks to a book, with its best prices, and proving it by
    sequence, checksum or not being crossed, per message and per level."""
    ready.load()
    adapter, frames = make_adapter(recorded.exchange), _frames(recorded)
    decoded: list[list[Event]] = []
    for start in range(0, len(frames), BLOCK):
        times, block = zip(*frames[start : start + BLOCK], strict=True)
        for events in adapter.decode_many(block, times):
            assert not isinstance(events, DecodeError)
            decoded.append(events)
    levels = [len(e.bids) + len(e.asks) for es in decoded for e in es if isinstance(e, BookUpdate)]

    def apply() -> None:
        for _ in range(recorded.passes):
            check = Integrity().check
            for events in decoded:
                check(events)

    seconds = median(interleaved({"apply": apply}, repeats=repeats)["apply"]) / recorded.passes
    return {
        "exchange": recorded.exchange,
        "updates": len(levels),
        "levels_per_update": significant(sum(levels) / len(levels)),
        "us_per_update": significant(seconds / len(levels) * 1e6),
        "us_per_level": significant(seconds / sum(levels) * 1e6),
    }


def _frames(recorded: Recorded) -> Frames:
    """The messages, after the snapshot if there is one."""
    if not recorded.snapshot:
        return recorded.frames
    wrapped = make_adapter(recorded.exchange).wrap_snapshot(_symbol(recorded), recorded.snapshot)
    return [(0, wrapped), *recorded.frames]


def _symbol(recorded: Recorded) -> str:
    return "BTC/USDT:USDT" if recorded.exchange == "binance-futures" else "BTC/USDT"


def _single(recorded: Recorded) -> Callable[[], None]:
    frames = _frames(recorded)

    def decode_singly() -> None:
        decode = make_adapter(recorded.exchange).decode
        for _ in range(recorded.passes):
            for at, frame in frames:
                decode(frame, at)

    return decode_singly


def _decode(recorded: Recorded) -> Callable[[], None]:
    blocks = list(_blocks(recorded))

    def decode() -> None:
        decode_many = make_adapter(recorded.exchange).decode_many
        for frames, times in blocks:
            for _ in decode_many(frames, times):
                pass

    return decode


def _check(recorded: Recorded) -> Callable[[], None]:
    messages, blocks = len(_frames(recorded)), list(_blocks(recorded))

    def check() -> None:
        decode_many = make_adapter(recorded.exchange).decode_many
        left = 0
        for frames, times in blocks:
            for events in decode_many(frames, times):
                if not left:  # another pass
                    left, check = messages, Integrity().check
                left -= 1
                assert not isinstance(events, DecodeError)
                check(events)

    return check


def _blocks(recorded: Recorded) -> Iterator[tuple[list[bytes], list[int]]]:
    """All messages in blocks, as `replay` makes them, and their times."""
    frames = [*_frames(recorded)] * recorded.passes
    for start in range(0, len(frames), BLOCK):
        block = frames[start : start + BLOCK]
        yield [frame for _, frame in block], [at for at, _ in block]


def _lines(content: bytes) -> Frames:
    return [(at, line) for at, line in enumerate(content.splitlines()) if line]


def _binance(
    exchange: str, path: Path, rival: Callable[[Recorded], Callable[[], None]]
) -> Iterator[Recorded]:
    frames = list(RawReader(path))
    at = next(i for i, (_, frame) in enumerate(frames) if frame.startswith(b'{"lastUpdateId"'))
    snapshot, last_id = frames[at][1], msgspec.json.decode(frames[at][1])["lastUpdateId"]
    quotes = [(ns, frame) for ns, frame in frames if b"@bookTicker" in frame[:40]]
    trades = [(ns, _aggregated(frame)) for ns, frame in frames if b"@trade" in frame[:40]]
    depths = [(ns, frame) for ns, frame in frames if b"@depth" in frame[:40]]
    later = [(ns, f) for ns, f in depths if msgspec.json.decode(f)["data"]["u"] > last_id]
    yield Recorded(exchange, "ticker", quotes, rival=rival)
    yield Recorded(exchange, "trades", trades, rival=rival)
    yield Recorded(exchange, "book", later, snapshot=snapshot, rival=rival)


def _aggregated(frame: bytes) -> bytes:
    """A recorded trade as the stream aggTrade would have told it."""
    told = msgspec.json.decode(frame)
    trade = told["data"]
    number = trade.pop("t")
    trade |= {"e": "aggTrade", "a": number, "f": number, "l": number}
    return msgspec.json.encode({"stream": "btcusdt@aggTrade", "data": trade})


# -- the rival -----------------------------------------------------------------------------


class _Rest:
    """Answers cryptofeed's request for a book snapshot."""

    def __init__(self, snapshot: bytes) -> None:
        self._snapshot = snapshot

    async def read(self, address: str) -> str:
        return self._snapshot.decode()


def _binance_spot(recorded: Recorded) -> Callable[[], None]:
    from cryptofeed.exchanges import Binance

    return _cryptofeed(Binance, recorded, "BTC-USDT", "BTCUSDT")


def _binance_futures(recorded: Recorded) -> Callable[[], None]:
    from cryptofeed.exchanges import BinanceFutures

    return _cryptofeed(BinanceFutures, recorded, "BTC-USDT-PERP", "BTCUSDT")


def _futures(recorded: Recorded) -> Callable[[], None]:
    from cryptofeed.exchanges import BinanceFutures

    names = {msgspec.json.decode(frame)["data"]["s"] for _, frame in recorded.frames}
    return _cryptofeed(BinanceFutures, recorded, *(name for n in names for name in (n, n)))


def _coinbase(recorded: Recorded) -> Callable[[], None]:
    from cryptofeed.exchanges import Coinbase

    names = [f"{base}-USD" for base in ("BTC", "ETH", "SOL", "XRP", "DOGE")]
    return _cryptofeed(Coinbase, recorded, *(name for n in names for name in (n, n)))


def _cryptofeed(kind: Any, recorded: Recorded, *names: str) -> Callable[[], None]:
    from cryptofeed.symbols import Symbols
    from cryptofeed.types import OrderBook

    logging.getLogger("feedhandler").setLevel(logging.CRITICAL)
    known = dict(zip(names[::2], names[1::2], strict=True))
    Symbols.set(kind.id, known, {"tick_size": {}, "instrument_type": {}})
    frames = [(at / 1e9, frame.decode()) for at, frame in recorded.frames]

    async def parse() -> None:
        for _ in range(recorded.passes):
            feed = kind()
            feed.http_conn = _Rest(recorded.snapshot)
            if not recorded.snapshot:  # books that begin with no snapshot begin empty
                feed._l2_book = {n: OrderBook(kind.id, n, bids={}, asks={}) for n in known}
            handle = feed.message_handler
            for at, frame in frames:
                await handle(frame, None, at)

    return lambda: asyncio.run(parse())
