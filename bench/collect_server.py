"""A simulated Binance Spot that only talks: frames made beforehand, as fast as asked for.

``python -m bench.collect_server --frames N --per-s R`` prints its address and waits. To whoever
connects and subscribes it sends N messages of 14 symbols, R a second (0: as fast as they are read).
Trades carry the time of sending, in µs.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Iterator

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from collectors.simulator import generate_frames

SLICE_S = 0.001
_TRADE_TIME = re.compile(rb'"T":(\d{13}),')
_LATER = b"0" * 16  # a time in µs has sixteen digits


def encoded(frames: int) -> tuple[list[bytes], list[int]]:
    """Frames of the protocol, and where in each the time of sending goes (0: nowhere)."""
    wire, holes = [], []
    for _, frame in generate_frames(seconds=1e9, frames=frames + 1):
        if b'"result"' not in frame:
            stamped = _TRADE_TIME.sub(b'"T":%s,' % _LATER, frame) if b"@trade" in frame else frame
            data = Frame(Opcode.TEXT, stamped).serialize(mask=False)
            wire.append(data)
            holes.append(data.find(_LATER) if stamped is not frame else 0)
    return wire, holes


class Server:
    """One set of frames for every connection."""

    def __init__(self, frames: int, per_s: float) -> None:
        self._wire, self._holes = encoded(frames)
        self._per_s = per_s

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await _shake_hands(reader, writer):
                await reader.read(2)  # the subscription has begun to arrive
                for data in self._slices():
                    writer.write(data)
                    await writer.drain()
                    await self._pace()
                await reader.read()
        except ConnectionError:
            return
        finally:
            writer.close()

    def _slices(self) -> Iterator[bytes]:
        """What is to be sent next, some frames at a time."""
        wire, holes, count = self._wire, self._holes, len(self._wire)
        self._sent, self._started_s = 0, time.perf_counter()
        while self._sent < count:
            due = count
            if self._per_s:
                due = int((time.perf_counter() - self._started_s) * self._per_s) + 1
            end = min(count, due, self._sent + 256)
            now = b"%d" % (time.time_ns() // 1000)
            yield b"".join(
                data[:hole] + now + data[hole + 16 :] if hole else data
                for data, hole in zip(wire[self._sent : end], holes[self._sent : end], strict=True)
            )
            self._sent = end

    async def _pace(self) -> None:
        if self._per_s:
            ahead_s = self._sent / self._per_s - (time.perf_counter() - self._started_s)
            if ahead_s > 0:
                await asyncio.sleep(max(ahead_s, SLICE_S))


async def _shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether it is a web socket; any other request is answered with an error."""
    protocol = ServerProtocol()
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    response = protocol.accept(request)
    protocol.send_response(response)
    writer.write(b"".join(protocol.data_to_send()))
    await writer.drain()
    return response.status_code == 101


async def _serve(frames: int, per_s: float) -> None:
    server = await asyncio.start_server(Server(frames, per_s).talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.collect_server", description=__doc__)
    parser.add_argument("--frames", type=int, default=250_000)
    parser.add_argument("--per-s", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(_serve(options.frames, options.per_s))


if __name__ == "__main__":
    main()
