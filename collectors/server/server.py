"""The sockets of a `Simulation`: web sockets and REST requests on one port.

    async with serve("kraken", ["BTC/USD"]) as server:
        ...  # server.url, server.rest_url

The market stands still until somebody subscribes, unless it keeps the clock's time. A client that
does not read is waited for (`AsRead`), or its connection is closed once it is 64 MiB behind.
Addresses of the server's own: `/simulator/inject?fault=drop:book` does something wrong,
`/simulator/log` tells what was, `/simulator/status` how the server is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server as Sockets
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from collectors.errors import CollectorError
from collectors.server.dialect import JSON, Answer
from collectors.server.faults import Fault, parse_fault
from collectors.server.pace import AsRead, Pace
from collectors.server.recorded import Recorded
from collectors.server.simulation import Simulation
from collectors.server.talk import Talk

_BEHIND = 64 << 20  # bytes that wait for a client
_CLOSE_S = 1.0
_OWN = "/simulator/"


class Server:
    """A running simulated exchange."""

    def __init__(self, simulation: Simulation, pace: Pace) -> None:
        self.simulation = simulation
        self.sent = 0
        """Messages, to all clients together."""
        self.url = ""
        self.rest_url = ""
        self.listened = asyncio.Event()
        """Somebody has subscribed."""
        self.ended = asyncio.Event()
        """A recording is over."""
        self._pace = pace
        self._sockets: dict[Talk, ServerConnection] = {}
        self._opening: dict[ServerConnection, Talk] = {}
        self._closing: set[asyncio.Future[None]] = set()

    def inject(self, fault: Fault) -> None:
        """Do this wrong from now on."""
        self.simulation.inject(fault)

    def cut(self) -> None:
        """Cut every connection."""
        for talk in self.simulation.talks:
            talk.closing = (0, "cut")

    @property
    def traffic(self) -> tuple[int, int, int]:
        """(connections, messages sent by them, messages received by them)."""
        written, heard = sum(t.written for t in self._sockets), sum(t.heard for t in self._sockets)
        return len(self._sockets), written, heard

    async def flush(self) -> None:
        """Send what is to be sent; waits for clients that are behind, if the pace has it so."""
        for talk, socket in list(self._sockets.items()):
            if talk.out:
                await self._send(talk, socket)
            if talk.closing is not None:
                await self._close(talk, socket)

    async def run(self) -> None:
        """Let the market go on, for ever or to the end of its recording."""
        simulation, waits = self.simulation, self._pace.waits
        if simulation.waits:
            await self.listened.wait()
        while not simulation.over:
            if waits and not simulation.listened:
                self.listened.clear()
                await self.listened.wait()
            due_ns = simulation.due_ns()
            until_ns = await self._pace.until(simulation.now_ns, due_ns, self.sent)
            simulation.advance(until_ns)
            await self.flush()

    # -- web sockets -----------------------------------------------------------------------

    async def talk(self, socket: ServerConnection) -> None:
        """One client, from the handshake to the end."""
        talk = self._opening.pop(socket)
        self._sockets[talk] = socket
        try:
            await self.flush()
            async for message in socket:
                raw = message.encode() if isinstance(message, str) else message
                self.simulation.hear(talk, raw)
                talk.heard += 1
                await self.flush()
                if talk.subscriptions:
                    self.listened.set()
        except ConnectionClosed:
            return
        finally:
            self._sockets.pop(talk, None)
            self.simulation.leave(talk)

    async def _send(self, talk: Talk, socket: ServerConnection) -> None:
        """All that waits in one write: messages are small and many."""
        frames, talk.out = talk.out, []
        transport: asyncio.Transport = socket.transport  # type: ignore[assignment]
        if socket.state is not State.OPEN or transport.is_closing():
            return
        transport.write(b"".join([part for f in frames for part in (_head(len(f)), f)]))
        talk.written += len(frames)
        self.sent += len(frames)
        if not self._pace.patient:
            if transport.get_write_buffer_size() > _BEHIND:
                talk.closing = talk.closing or (1008, "slow consumer")
        else:
            with contextlib.suppress(ConnectionError):
                await socket.drain()

    async def _close(self, talk: Talk, socket: ServerConnection) -> None:
        assert talk.closing is not None
        code, reason = talk.closing
        self._sockets.pop(talk, None)
        if code:
            task = asyncio.ensure_future(_hang_up(socket, code, reason))
            self._closing.add(task)  # a client that does not answer must not stop the market
            task.add_done_callback(self._closing.discard)
        else:
            socket.transport.close()  # type: ignore[attr-defined]

    # -- requests --------------------------------------------------------------------------

    def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """A REST request, or a web socket that is not to be; None opens it."""
        address = urlsplit(request.path)
        query = parse_qs(address.query)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _response(self._rest(address.path, query))
        opened = self.simulation.connect(address.path, query)
        if isinstance(opened, Answer):
            return _response(opened)
        self._opening[socket] = opened
        return None

    def _rest(self, path: str, query: dict[str, list[str]]) -> Answer:
        if path.startswith(_OWN):
            return self._own(path.removeprefix(_OWN), query)
        answer = self.simulation.ask(path, query)
        return answer or Answer(404, b'{"msg":"there is nothing at this address"}', JSON)

    def _own(self, what: str, query: dict[str, list[str]]) -> Answer:
        simulation = self.simulation
        if what == "log":
            return Answer(200, msgspec.json.encode([_told(one) for one in simulation.log]))
        if what == "status":
            status = {
                "time_ns": simulation.now_ns,
                "sent": self.sent,
                "connections": len(simulation.talks),
                "connections_ever": simulation.connections,
                "faults": len(simulation.log),
            }
            return Answer(200, msgspec.json.encode(status))
        if what == "inject":
            try:
                faults = [parse_fault(text) for text in query.get("fault", [])]
            except CollectorError as error:
                return Answer(400, msgspec.json.encode({"msg": str(error)}))
            for fault in faults:
                self.inject(fault)
            return Answer(200, b'{"injected":%d}' % len(faults))
        return Answer(404, b'{"msg":"there are inject, log and status"}')


@asynccontextmanager
async def serve(
    exchange: str,
    symbols: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    pace: Pace | None = None,
    faults: Iterable[Fault] = (),
    recording: Path | str | None = None,
    **market: Any,
) -> AsyncIterator[Server]:
    """A running server; by default as fast as clients read. `market`: see `Simulation`."""
    if recording is not None:
        simulation: Simulation = Recorded(
            exchange, symbols, recording=recording, faults=faults, seed=market.get("seed", 1)
        )
    else:
        simulation = Simulation(exchange, symbols, faults=faults, **market)
    server = Server(simulation, pace or AsRead())
    try:
        opened = await serve_sockets(
            server.talk,
            host,
            port,
            process_request=server.answer,
            compression=None,
            ping_interval=20.0,
            ping_timeout=60.0,
            close_timeout=_CLOSE_S,
        )
    except OSError as error:
        raise CollectorError(f"{host}:{port} cannot be listened at: {error.strerror}") from error
    running = asyncio.ensure_future(server.run())
    running.add_done_callback(lambda task: server.ended.set())
    try:
        bound = _port(opened)
        shown = f"[{host}]" if ":" in host else host
        server.url, server.rest_url = f"ws://{shown}:{bound}", f"http://{shown}:{bound}"
        yield server
    finally:
        running.cancel()
        for socket in server._sockets.values():
            socket.transport.abort()  # type: ignore[attr-defined]
        opened.close()
        await opened.wait_closed()
        with contextlib.suppress(asyncio.CancelledError):
            await running  # raises what ended it, if anything did


def _port(sockets: Sockets) -> int:
    (first, *_) = sockets.sockets
    port: int = first.getsockname()[1]
    return port


def _head(length: int) -> bytes:
    """Of an unmasked text frame (RFC 6455, 5.2)."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


async def _hang_up(socket: ServerConnection, code: int, reason: str) -> None:
    """Close in good manners, or without if the client does not read."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            await socket.close(code, reason)
    except TimeoutError:
        socket.transport.abort()  # type: ignore[attr-defined]


def _told(one: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(one) | {"frame": one.frame.decode(errors="replace")}


def _response(answer: Answer) -> Response:
    from websockets.datastructures import Headers

    headers = Headers(answer.headers)
    headers["Content-Length"] = str(len(answer.body))
    headers["Connection"] = "close"
    status = HTTPStatus(answer.status)
    return Response(status.value, status.phrase, headers, answer.body)
