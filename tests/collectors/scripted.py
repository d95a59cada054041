"""A Binance Spot server that says what a script tells it, and nothing of its own accord."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

START_MS = 1_767_614_400_000  # 2026-01-05T12:00:00Z


def trade(number: int, symbol: str = "BTCUSDT") -> bytes:
    data = {"e": "trade", "E": START_MS + number, "s": symbol, "t": number, "p": "60000.1"}
    data |= {"q": "0.5", "T": START_MS + number, "m": number % 2 == 0}
    return msgspec.json.encode({"stream": f"{symbol.lower()}@trade", "data": data})


def quote(number: int, symbol: str = "BTCUSDT") -> bytes:
    data = {"u": number, "s": symbol, "b": "60000.0", "B": f"{number}.5", "a": "60000.2", "A": "1"}
    return msgspec.json.encode({"stream": f"{symbol.lower()}@bookTicker", "data": data})


class Scripted:
    """What the server has heard and said."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = frames
        self.url = ""
        self.connections = 0
        self.said = asyncio.Event()
        """All frames were sent to a connection."""

    async def _talk(self, socket: ServerConnection) -> None:
        self.connections += 1
        try:
            await socket.recv()  # the subscription
            for frame in self.frames:
                await socket.send(frame, text=True)
            self.said.set()
            await socket.wait_closed()
        except ConnectionClosed:
            return


@asynccontextmanager
async def scripted(frames: Iterable[bytes]) -> AsyncIterator[Scripted]:
    """A running server that sends `frames` to whoever subscribes."""
    server = Scripted(list(frames))
    async with serve(server._talk, "127.0.0.1", 0) as running:
        server.url = f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        yield server
