"""Simulated exchanges: frames in an exchange's own format, from a seeded market model.

    python -m collectors.simulator OUT.recv_ns.gz

writes the recording that the package ships (`recordings/`); options vary it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec

from collectors.exchanges.binance import BinanceSpot
from collectors.market import UNIT, Market, Print
from collectors.raw import write_frames

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")  # of the shipped recording
START_NS = 1_767_614_400_000_000_000  # 2026-01-05 12:00:00 UTC
_DEPTH_INTERVAL_NS = 100_000_000
_SNAPSHOT_AFTER_NS = 500_000_000
_LATENCY_NS = 3_000_000


def generate_frames(
    symbols: Sequence[str] = PAIRS,
    *,
    seconds: float = 600.0,
    frames: int | None = None,
    seed: int = 1,
    start_ns: int = START_NS,
    bursts_per_s: float = 1.6,
) -> Iterator[tuple[int, bytes]]:
    """Frames of one Binance Spot connection, (recv_ns, frame), as a recorder would log them.

    `symbols` are BASE/QUOTE. The connection subscribes to their trades, best quotes and depth
    differences, and fetches a depth snapshot of each. It ends after `seconds` of market time or
    after `frames`, whichever comes first. The same arguments give the same bytes.
    """
    market = Market(symbols, seed, start_ns, bursts_per_s)
    stream = BinanceFrames(market, symbols, seed, start_ns)
    timed = takewhile(lambda item: item[0] < start_ns + int(seconds * 1e9), stream)
    for count, item in enumerate(timed):
        if count == frames:
            return
        yield item


class BinanceFrames:
    """What Binance Spot would send about a `Market`, in the order of arrival."""

    def __init__(self, market: Market, pairs: Sequence[str], seed: int, start_ns: int) -> None:
        self._market = market
        self._pairs = list(pairs)
        self._adapter = BinanceSpot()
        self._random = random.Random(f"latency {seed}")  # must not disturb the market's numbers
        self._start_ns = start_ns
        self._recv_ns = start_ns
        self._names = {pair: pair.replace("/", "") for pair in pairs}
        self._published = {pair: market.book(pair).update_id for pair in pairs}
        self._quotes: dict[str, tuple[int, int, int, int]] = {}
        self._due: dict[str, int] = {}

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for request in self._adapter.subscribe(self._pairs, self._adapter.channels):
            yield self._stamp(self._start_ns), b'{"result":null,"id":%d}' % request.request_id
        for pair in self._pairs:
            yield from self._quote(pair, self._start_ns)
        snapshots_due: list[str] = list(self._pairs)
        while True:
            time_ns, pair = self._market.advance()
            yield from self._differences(time_ns)
            if time_ns >= self._start_ns + _SNAPSHOT_AFTER_NS:
                for waiting in snapshots_due:
                    yield self._stamp(time_ns), self._snapshot(waiting)
                snapshots_due = []
            for one in self._market.act(pair):
                yield self._stamp(time_ns), self._trade(pair, time_ns, one)
            yield from self._quote(pair, time_ns)
            if self._market.book(pair).changes:
                interval = time_ns // _DEPTH_INTERVAL_NS + 1
                self._due.setdefault(pair, interval * _DEPTH_INTERVAL_NS)

    def _stamp(self, time_ns: int) -> int:
        """When the frame arrives: in order, a few ms later."""
        latency_ns = _LATENCY_NS + int(self._random.expovariate(1.0) * 1e3) * 1_000
        self._recv_ns = max(self._recv_ns + 2_000, time_ns + latency_ns)
        return self._recv_ns

    def _quote(self, pair: str, time_ns: int) -> Iterator[tuple[int, bytes]]:
        """A bookTicker, if the best quote is another than the one sent last."""
        book = self._market.book(pair)
        quote = book.quote()
        if quote == self._quotes.get(pair):
            return
        self._quotes[pair] = quote
        name = self._names[pair]
        bid, bid_size, ask, ask_size = map(_decimal, quote)
        data = {"u": book.update_id, "s": name, "b": bid, "B": bid_size, "a": ask, "A": ask_size}
        yield self._stamp(time_ns), _wrap(name, "bookTicker", data)

    def _trade(self, pair: str, time_ns: int, one: Print) -> bytes:
        name, time_ms = self._names[pair], time_ns // 1_000_000
        data = {
            "e": "trade",
            "E": time_ms,
            "s": name,
            "t": one.trade_id,
            "p": _decimal(one.price),
            "q": _decimal(one.size),
            "T": time_ms,
            "m": one.side < 0,
            "M": True,
        }
        return _wrap(name, "trade", data)

    def _differences(self, until_ns: int) -> Iterator[tuple[int, bytes]]:
        """The depth differences whose interval ends by `until_ns`."""
        for pair, due_ns in sorted(self._due.items(), key=lambda item: (item[1], item[0])):
            if due_ns > until_ns:
                break
            del self._due[pair]
            name, book = self._names[pair], self._market.book(pair)
            changes = sorted(book.take_changes().items())
            data = {
                "e": "depthUpdate",
                "E": due_ns // 1_000_000,
                "s": name,
                "U": self._published[pair] + 1,
                "u": book.update_id,
                "b": [[_decimal(p), _decimal(q)] for (sign, p), q in reversed(changes) if sign > 0],
                "a": [[_decimal(p), _decimal(q)] for (sign, p), q in changes if sign < 0],
            }
            self._published[pair] = book.update_id
            yield self._stamp(due_ns), _wrap(name, "depth@100ms", data)

    def depth(self, pair: str) -> bytes:
        """The pair's order book now, as a REST request for its depth is answered."""
        book = self._market.book(pair)
        data = {
            "lastUpdateId": book.update_id,
            "bids": [[_decimal(p), _decimal(q)] for p, q in book.bids.levels()],
            "asks": [[_decimal(p), _decimal(q)] for p, q in book.asks.levels()],
        }
        return msgspec.json.encode(data)

    def _snapshot(self, pair: str) -> bytes:
        return self._adapter.wrap_snapshot(pair, self.depth(pair))


def _wrap(name: str, kind: str, data: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"stream": f"{name.lower()}@{kind}", "data": data})


def _decimal(units: int) -> str:
    """Units of 1e-8 as Binance writes them: eight decimals."""
    return f"{units // UNIT}.{units % UNIT:08d}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a simulated recording; the defaults write the shipped one."""
    parser = argparse.ArgumentParser(
        prog="python -m collectors.simulator",
        description="Write a simulated Binance Spot recording (the defaults: the shipped one).",
    )
    parser.add_argument("out", type=Path, help="file to write: .gz, .zst or plain")
    parser.add_argument("--symbols", nargs="+", default=list(PAIRS), metavar="BASE/QUOTE")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--bursts-per-s", type=float, default=1.6, help="activity in calm times")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    frames = generate_frames(
        options.symbols,
        seconds=options.seconds,
        seed=options.seed,
        bursts_per_s=options.bursts_per_s,
    )
    print(f"{options.out}: {write_frames(options.out, frames)} frames")


if __name__ == "__main__":
    main()
