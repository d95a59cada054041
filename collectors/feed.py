"""The one feed loop: the sockets, the clock and the REST requests of `FeedCore`.

What the core decides is done here: connections by `websockets`, requests by `httpx`, rows handed on
in batches. A sink that is slow makes the loop stop reading once `max_rows` wait, which the exchange
answers in its own way: by waiting too or by hanging up – a gap that is noticed and mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from collectors.feed_core import FeedCore
from collectors.feed_fetch import LIMITED, LIMITED_S
from collectors.feed_lines import Action, Close, FeedStatus, Fetch, Open, Send

if TYPE_CHECKING:
    import httpx

    from collectors.feed_socket import MessageSocket

MAX_MESSAGE = 128 << 20  # bytes; a full Coinbase book is 5 MB
MAX_ROWS = 1_000_000
LOT = 2048  # messages decoded together at most: a feed that is behind catches up by larger lots
GATHER_S = 0.004  # so long they wait for each other at most: together they cost half
TICK_S = 0.25
BATCH_S = 0.25
OPEN_S = 15.0
FETCH_S = 20.0

OnBatches = Callable[[Sequence[tuple[str, pa.RecordBatch]]], Awaitable[None]]


class Feed:
    """Runs a `FeedCore` until told to stop."""

    def __init__(
        self,
        core: FeedCore,
        on_batches: OnBatches,
        *,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        max_rows: int = MAX_ROWS,
        batch_s: float = BATCH_S,
    ) -> None:
        """`on_batches` is awaited with the rows of all channels that have some; while it waits, at
        most `max_rows` rows are collected before reading stops. `clock` and `sleep` are the time in
        which the exchange lives: another one than the machine's for a simulated exchange."""
        self.core = core
        self._on_batches = on_batches
        self._clock = clock
        self._sleep = sleep
        self._max_rows = max_rows
        self._batch_s = batch_s
        # Where time is another one, a few ms of the machine's may be long.
        self._gather_s = min(GATHER_S, batch_s) if sleep is asyncio.sleep else 0.0
        self._handed_s = 0.0
        """When rows were last handed on."""
        self._sockets: dict[int, MessageSocket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._due = asyncio.Event()
        self._handing = asyncio.Lock()
        self._stop = asyncio.Event()
        self._http: httpx.AsyncClient | None = None
        self._early: list[Action] = []
        """What is to be done once `run` begins."""
        self._failure: BaseException | None = None

    def status(self) -> FeedStatus:
        """The counters now."""
        counters = self.core.counters
        counters.connected = len(self._sockets)
        return counters

    @property
    def traffic(self) -> tuple[int, int, int] | None:
        """(connections, messages received by them, messages sent by them); None while a connection
        is being opened or closed, or a message or request is on its way."""
        lines = self.core.lines.values()
        if self._http is None or self._errands:
            return None
        if any(line.closing or not line.opened_ns for line in lines):
            return None
        frames, messages = sum(x.frames for x in lines), sum(x.messages for x in lines)
        return len(lines), frames, messages

    def know(self, trades: Mapping[str, tuple[int, int]]) -> None:
        """See `FeedCore.know`."""
        self.core.know(trades, self._clock())

    def subscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> None:
        """Also these, from now on."""
        self._do(self.core.subscribe(symbols, channels, self._clock()))

    def unsubscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> None:
        """No longer these."""
        self._do(self.core.unsubscribe(symbols, channels, self._clock()))

    def stop(self) -> None:
        """Close the connections and hand on what has been collected; `run` then returns."""
        self._stop.set()

    async def run(self) -> None:
        """Collect until `stop`. Raises what `on_batches` raises."""
        import httpx

        self._room.set()
        limits = httpx.Limits(max_connections=4)
        async with httpx.AsyncClient(timeout=FETCH_S, limits=limits) as self._http:
            try:
                self._do(self._early)
                self._do(self.core.tick(self._clock()))
                self._start(self._ticks())
                self._start(self._batches())
                await self._stop.wait()
            finally:
                await self._end()
        if self._failure is not None:
            raise self._failure
        await self._hand_on()

    async def _end(self) -> None:
        """Take what has arrived, close the sockets, let a batch that is being handed on arrive, end
        the tasks."""
        try:
            if self._failure is None:
                self._take_what_waits()
        finally:
            self._do(self.core.stop())
            async with self._handing:
                tasks = list(self._tasks)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _take_what_waits(self) -> None:
        for line, socket in self._sockets.items():
            while (waiting := socket.take(LOT))[0]:
                frames, times = waiting
                self._do(self.core.received_many(line, times, frames))

    # -- tasks -----------------------------------------------------------------------------

    def _start(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _run_errand(self, work: Any) -> None:
        task = self._start(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._failure is None:
            self._failure = error
            self._stop.set()

    async def _ticks(self) -> None:
        while True:
            await self._sleep(TICK_S)
            self._do(self.core.tick(self._clock()))

    async def _batches(self) -> None:
        """Hand rows on at the latest when they are due; before, when messages were decoded and
        those that come next have to wait for each other anyway."""
        loop = asyncio.get_running_loop()
        while True:
            timer = loop.call_later(self._batch_s, self._due.set)
            await self._due.wait()
            timer.cancel()
            self._due.clear()
            await self._hand_on()

    async def _hand_on(self) -> None:
        async with self._handing:
            # All are taken before one is handed on: what then wakes up would take turns from this.
            if batches := list(self.core.session.take()):
                self._handed_s = time.monotonic()
                await self._on_batches(batches)
            self._room.set()

    def _do(self, actions: Sequence[Action]) -> None:
        if self._http is None:
            self._early += actions
            return
        for action in actions:
            if isinstance(action, Open):
                self._start(self._connection(action))
            elif isinstance(action, Send):
                self._run_errand(self._send(action))
            elif isinstance(action, Fetch):
                self._run_errand(self._fetch(action))
            else:
                self._start(self._close(action))

    # -- sockets ---------------------------------------------------------------------------

    async def _connection(self, wanted: Open) -> None:
        """One connection from its opening to its end."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        from collectors.feed_socket import MessageSocket

        line, reason, retry_after_s = wanted.line, "", 0.0
        try:
            async with connect(
                wanted.url,
                create_connection=partial(MessageSocket, clock=self._clock),  # type: ignore[arg-type]
                max_size=MAX_MESSAGE,
                compression=None,
                ping_interval=None,  # the exchange pings; each ping of ours counts as a message
                open_timeout=OPEN_S,
                close_timeout=1.0,
            ) as socket:
                assert isinstance(socket, MessageSocket)
                self._sockets[line] = socket
                self._do(self.core.opened(line, self._clock()))
                reason = await self._read(line, socket)
        except InvalidStatus as error:
            status, headers = error.response.status_code, error.response.headers
            reason = f"HTTP {status}"
            retry_after_s = _seconds(headers.get("Retry-After", ""))
            if status in LIMITED:
                retry_after_s = max(retry_after_s, LIMITED_S)
        except (WebSocketException, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        finally:
            self._sockets.pop(line, None)
        self._do(self.core.closed(line, self._clock(), reason, retry_after_s))

    async def _read(self, line: int, socket: MessageSocket) -> str:
        """Read until the connection ends; why it did."""
        from websockets.exceptions import ConnectionClosed

        received, room = self.core.received_many, self._room
        count = 0
        try:
            while True:
                frames, times = await socket.messages(LOT, self._gather_s)
                self._do(received(line, times, frames))
                count += len(frames)
                if time.monotonic() - self._handed_s >= self._batch_s / 2:
                    self._due.set()
                # Counting rows for every frame would cost as much as decoding a small one; batches
                # and timers run between two lots of what has arrived already.
                if count >= LOT:
                    count = 0
                    if self.core.session.rows > self._max_rows:
                        room.clear()
                        await room.wait()
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            return str(error)

    async def _send(self, message: Send) -> None:
        from websockets.exceptions import ConnectionClosed

        socket = self._sockets.get(message.line)
        if socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(message.frame, text=True)
                line = self.core.lines.get(message.line)
                if line is not None:
                    line.messages += 1

    async def _close(self, what: Close) -> None:
        socket = self._sockets.get(what.line)
        if socket is not None:
            await socket.close(reason=what.reason[:100])

    async def _fetch(self, wanted: Fetch) -> None:
        import httpx

        assert self._http is not None
        try:
            answer = await self._http.get(wanted.url)
        except httpx.HTTPError:
            actions = self.core.fetched(wanted, self._clock(), 0, b"")
        else:
            pause_s = _seconds(answer.headers.get("Retry-After", ""))
            body = answer.content
            actions = self.core.fetched(wanted, self._clock(), answer.status_code, body, pause_s)
        self._do(actions)


def _seconds(header: str) -> float:
    """Of a Retry-After header; 0 if it is none or a date."""
    return float(header) if header.isdigit() else 0.0
