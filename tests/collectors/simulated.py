"""A simulated Binance Spot over real sockets: the market's frames, its REST books, and faults.

What it would send without faults is the truth: `truth` has seen every frame, sent or not. After
every fault it waits until the collector has asked for the book again, so that tests need no clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from collectors.exchanges.binance import BinanceSpot
from collectors.integrity import Integrity
from collectors.simulator import generate_frames

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
FAULTS = ("drop", "duplicate", "swap", "corrupt", "disconnect")


def depth_of(frame: bytes, symbol: str) -> bool:
    """Whether it is a difference of the symbol's book."""
    return frame.startswith(b'{"stream":"%s@depth@100ms"' % _name(symbol).lower().encode())


def ids(frame: bytes) -> tuple[int, int]:
    """The changes that a difference covers."""
    data = msgspec.json.decode(frame)["data"]
    return data["U"], data["u"]


class Simulated:
    """A market of three symbols, and what the server does with its frames."""

    def __init__(self, faults: Mapping[int, str], seconds: float) -> None:
        """`faults`: at which of `frames` to do what; `swap` exchanges it with the next of its
        stream, `disconnect` happens before it. The next connection goes on from there."""
        adapter = BinanceSpot()
        self.truth = Integrity()
        self.faults = dict(faults)
        self.frames: list[bytes] = []
        self.url = self.rest_url = ""
        self.sent = asyncio.Event()
        """Everything has been sent."""
        self.messages = 0
        """Sent so far."""
        self._asked: dict[str, asyncio.Event] = {s: asyncio.Event() for s in SYMBOLS}
        self._seq: dict[str, int] = {}
        self._adapter = adapter
        self._at = 0
        begun = 0
        for _, frame in generate_frames(SYMBOLS, seconds=seconds, seed=5):
            if b"@depth@snapshot" in frame or begun < len(SYMBOLS):
                self._learn(frame)
                begun += b"@depth@snapshot" in frame
            else:
                self.frames.append(frame)

    def find(self, symbol: str, after: int) -> int:
        """The first difference of the symbol's book from there on."""
        return next(i for i in range(after, len(self.frames)) if depth_of(self.frames[i], symbol))

    def _learn(self, frame: bytes) -> None:
        events = self._adapter.decode(frame, 0)
        for event in self.truth.check(events):
            if hasattr(event, "bids"):
                self._seq[event.symbol] = event.seq

    async def _talk(self, socket: ServerConnection) -> None:
        try:
            await socket.recv()  # the subscription
            while self._at < len(self.frames):
                if self.faults.get(self._at) == "disconnect":
                    del self.faults[self._at]
                    return
                await self._send(socket)
                if self._at == 200:  # books begin before anything happens to them
                    for asked in self._asked.values():
                        await asked.wait()
            self.sent.set()
            await socket.wait_closed()
        except ConnectionClosed:
            return

    async def _send(self, socket: ServerConnection) -> None:
        frame, fault = self.frames[self._at], self.faults.pop(self._at, "")
        self._at += 1
        self._learn(frame)
        symbol = self._symbol(frame)
        if fault == "swap":
            later = self.find(symbol, self._at)
            self.frames.insert(self._at, self.frames.pop(later))
            self._learn(self.frames[self._at])
            await self._give(socket, self.frames[self._at])
            self._at += 1
        if fault == "corrupt":
            frame = frame.replace(b'"U":', b'"U";')
        if fault != "drop":
            await self._give(socket, frame)
        if fault == "duplicate":
            await self._give(socket, frame)
        if fault in ("drop", "swap", "corrupt") and b"@depth" in frame:
            await self._noticed(socket, symbol)

    async def _give(self, socket: ServerConnection, frame: bytes) -> None:
        self.messages += 1
        await socket.send(frame, text=True)

    async def _noticed(self, socket: ServerConnection, symbol: str) -> None:
        """Go on to the next difference of the symbol, which shows the fault; wait for the answer"""
        self._asked[symbol].clear()
        shown = self.find(symbol, self._at)
        while self._at <= shown:
            await self._send(socket)
        await self._asked[symbol].wait()

    def _symbol(self, frame: bytes) -> str:
        name = msgspec.json.decode(frame)["stream"].partition("@")[0].upper()
        return next(symbol for symbol in SYMBOLS if _name(symbol) == name)

    def _answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """A REST request comes by the same port."""
        address = urlsplit(request.path)
        if address.path != "/api/v3/depth":
            return None
        (name,) = parse_qs(address.query)["symbol"]
        symbol = next(symbol for symbol in SYMBOLS if _name(symbol) == name)
        book = self.truth.book(symbol)
        assert book is not None
        bids, asks = ([[repr(p), repr(q)] for p, q in side] for side in book.top(5000))
        body = {"lastUpdateId": self._seq[symbol], "bids": bids, "asks": asks}
        self._asked[symbol].set()
        return socket.respond(HTTPStatus.OK, msgspec.json.encode(body).decode())


@asynccontextmanager
async def simulated(
    faults: Mapping[int, str] | None = None, seconds: float = 120.0
) -> AsyncIterator[Simulated]:
    """A running server; it sends everything once, whatever the number of connections."""
    server = Simulated(faults or {}, seconds)
    async with serve(server._talk, "127.0.0.1", 0, process_request=server._answer) as running:
        port = running.sockets[0].getsockname()[1]
        server.url, server.rest_url = f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}"
        yield server


def _name(symbol: str) -> str:
    return symbol.replace("/", "")
