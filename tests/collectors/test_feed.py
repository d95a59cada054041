"""The feed over real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from collectors.exchanges import make_adapter
from collectors.feed import Feed
from collectors.feed_core import FeedCore
from collectors.session import Session
from collectors.venues import venue

Serve = Callable[[ServerConnection], Awaitable[None]]


def quote(number: int) -> str:
    data = {"u": number, "s": "BTCUSDT", "b": "10.0", "B": f"{number}.0", "a": "11.0", "A": "1"}
    return msgspec.json.encode({"stream": "btcusdt@bookTicker", "data": data}).decode()


async def collect(handler: Serve, on_batch: Callable[[Feed, str, pa.RecordBatch], Any]) -> Feed:
    """Run a feed against the handler until ``on_batch`` stops it."""
    async with serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        adapter = make_adapter("binance")
        where = venue("binance", f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}")
        core = FeedCore(adapter, where, Session(adapter, ["ticker", "gaps"]))

        async def hand_on(batches: Sequence[tuple[str, pa.RecordBatch]]) -> None:
            for channel, batch in batches:
                answer = on_batch(feed, channel, batch)
                if answer is not None:
                    await answer

        feed = Feed(core, hand_on, batch_s=0.01)
        feed.subscribe(["BTC/USDT"], ["ticker"])
        await asyncio.wait_for(feed.run(), 30)
    return feed


def test_every_message_becomes_a_row() -> None:
    rows: list[int] = []

    async def handler(socket: ServerConnection) -> None:
        request = msgspec.json.decode(await socket.recv())
        assert request["params"] == ["btcusdt@trade", "btcusdt@bookTicker"]
        for number in range(1, 1001):
            await socket.send(quote(number))
        await socket.wait_closed()

    def on_batch(feed: Feed, channel: str, batch: pa.RecordBatch) -> None:
        rows.extend(batch["seq"].to_pylist())
        if len(rows) == 1000:
            feed.stop()

    feed = asyncio.run(collect(handler, on_batch))
    assert rows == list(range(1, 1001))
    assert feed.status().frames == 1000
    assert feed.status().gaps == 0


def test_rows_that_wait_for_a_slow_sink_arrive_when_the_feed_is_stopped() -> None:
    rows: list[int] = []
    released = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        for number in range(1, 101):
            await socket.send(quote(number))
        await socket.wait_closed()

    async def slow(feed: Feed, batch: pa.RecordBatch) -> None:
        feed.stop()
        asyncio.get_running_loop().call_soon(released.set)
        await released.wait()
        rows.extend(batch["seq"].to_pylist())

    asyncio.run(collect(handler, lambda feed, channel, batch: slow(feed, batch)))
    assert rows == list(range(1, len(rows) + 1))
    assert rows


def test_what_waits_in_a_socket_is_taken_when_the_feed_is_stopped() -> None:
    rows: list[int] = []

    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(quote(1))
        await socket.wait_closed()

    def on_batch(feed: Feed, channel: str, batch: pa.RecordBatch) -> None:
        if not rows:
            (socket,) = feed._sockets.values()
            for number in range(2, 601):
                socket.data_received(
                    Frame(Opcode.TEXT, quote(number).encode()).serialize(mask=False)
                )
            feed.stop()
        rows.extend(batch["seq"].to_pylist())

    asyncio.run(collect(handler, on_batch))
    assert rows == list(range(1, 601))


def test_a_connection_that_drops_is_opened_again_and_the_hole_is_told() -> None:
    told: list[dict[str, Any]] = []
    connections = 0

    async def handler(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await socket.recv()
        await socket.send(quote(connections))
        if connections > 1:
            await socket.wait_closed()

    def on_batch(feed: Feed, channel: str, batch: pa.RecordBatch) -> None:
        if channel == "gaps":
            told.extend(batch.to_pylist())
        if len(told) == 2:
            feed.stop()

    asyncio.run(collect(handler, on_batch))
    assert [(g["reason"], g["recovered_ts"] is None) for g in told] == [
        ("disconnect", True),
        ("disconnect", False),
    ]


def test_an_error_of_the_sink_ends_the_feed() -> None:
    async def handler(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(quote(1))
        await socket.wait_closed()

    def on_batch(feed: Feed, channel: str, batch: pa.RecordBatch) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(collect(handler, on_batch))
