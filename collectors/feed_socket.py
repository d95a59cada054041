"""A web socket that gives all messages at once that have arrived, instead of one by one.

A busy exchange sends hundreds of small messages in what one read of the socket returns. Whole text
messages are cut out of it here; everything else – the handshake, control frames, fragments, large
messages, errors, the end – is left to `websockets`, in the order of arrival.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State

MAX_WAITING = 4096
"""Messages that wait to be taken; beyond that, reading stops."""
_TEXT = 0x81  # the first byte of a text message in one frame
_END_OF_HANDSHAKE = b"\r\n\r\n"


class MessageSocket(ClientConnection):
    """What `websockets.connect(..., create_connection=MessageSocket)` connects.

    Take messages by `messages`, not by `recv`.
    """

    def __init__(
        self, *arguments: Any, clock: Callable[[], int] = time.time_ns, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._clock = clock
        self._arrived: list[bytes] = []
        self._times: list[int] = []
        """When they did."""
        self._fragments: list[bytes] = []
        self._begun = b""
        """The beginning of a frame whose end has not arrived."""
        self._owed = 0
        """Bytes yet to come of a frame whose beginning `websockets` has already."""
        self._waiter: asyncio.Future[None] | None = None
        self._enough = 1
        """So many messages are worth waking up for."""
        self._is_lost = self._is_paused = False

    async def messages(
        self, most: int = sys.maxsize, within_s: float = 0.0
    ) -> tuple[list[bytes], list[int]]:
        """The first `most` that have arrived and were not taken yet, and when they did; waits until
        there is something, and then `within_s` for as many.

        Raises `ConnectionClosed` after the last one.
        """
        while not self._arrived:
            if self._is_lost:
                await self.recv(decode=False)  # raises what the connection ended with
            await self._wait(1)
        if len(self._arrived) < most and within_s and not self._is_lost:
            timer = self.loop.call_later(within_s, self._wake, 0)
            try:
                await self._wait(most)
            finally:
                timer.cancel()
        return self.take(most)

    def take(self, most: int) -> tuple[list[bytes], list[int]]:
        """The same without waiting."""
        arrived, self._arrived = self._arrived[:most], self._arrived[most:]
        times, self._times = self._times[:most], self._times[most:]
        if self._is_paused and len(self._arrived) <= MAX_WAITING:
            self._is_paused = False
            self.transport.resume_reading()
        return arrived, times

    async def _wait(self, enough: int) -> None:
        """Until there are so many messages, or the connection is lost."""
        self._enough = enough
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- what asyncio and websockets call --------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.protocol.state is State.CONNECTING:
            data = self._shake_hands(data)
            if not data:
                return
        data, self._begun = self._begun + data, b""
        start = min(self._owed, len(data))
        if start:
            self._owed -= start
            super().data_received(data[:start])
        while start < len(data):
            if self.protocol.state is not State.OPEN:
                super().data_received(data[start:])
                break
            start = self._cut(data, start)
            start = self._pass_on(data, start)
        self._note_time()
        if len(self._arrived) > MAX_WAITING and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()
        self._wake(self._enough)

    def eof_received(self) -> None:
        self._pass_on_rest()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_on_rest()
        super().connection_lost(exc)
        self._is_lost = True
        self._wake(0)

    def process_event(self, event: Event) -> None:
        """Messages of several frames, and those that were not cut out here."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self._fragments.append(bytes(event.data))
            if event.fin:
                self._arrived.append(b"".join(self._fragments))
                self._fragments.clear()
        else:
            super().process_event(event)

    # -- inside ----------------------------------------------------------------------------

    def _shake_hands(self, data: bytes) -> bytes:
        """Pass on the answer to the handshake; what follows it are frames."""
        before = self._begun  # its last bytes, in which its end may have begun
        told = before + data
        end = told.find(_END_OF_HANDSHAKE)
        if end < 0:
            super().data_received(data)
            self._begun = told[-3:]
            return b""
        end += len(_END_OF_HANDSHAKE) - len(before)
        self._begun = b""
        super().data_received(data[:end])
        return data[end:]

    def _cut(self, data: bytes, start: int) -> int:
        """Take the whole text messages from `start` on; where they end."""
        if self._fragments:
            return start  # a message amid another one is an error
        arrived, size = self._arrived, len(data)
        while start + 4 <= size and data[start] == _TEXT:
            length, begin = data[start + 1], start + 2
            if length == 126:
                length, begin = data[start + 2] << 8 | data[start + 3], start + 4
            elif length > 126:  # a large message, or one that is masked, which is an error
                break
            end = begin + length
            if end > size:
                break
            arrived.append(data[begin:end])
            start = end
        return start

    def _pass_on(self, data: bytes, start: int) -> int:
        """Give `websockets` the frame at `start` that is no short text message; where it ends."""
        end, is_large = _frame(data, start)
        if end <= len(data):
            super().data_received(data[start:end])
            return end
        if is_large:  # need not be held here until it is complete
            super().data_received(data[start:])
            self._owed = end - len(data)
        else:
            self._begun = data[start:]
        return len(data)

    def _pass_on_rest(self) -> None:
        begun, self._begun = self._begun, b""
        if begun and self.protocol.state is not State.CONNECTING:
            super().data_received(begun)
            self._note_time()

    def _note_time(self) -> None:
        """Of the messages that have just arrived."""
        new = len(self._arrived) - len(self._times)
        if new:
            self._times += [self._clock()] * new

    def _wake(self, enough: int) -> None:
        """Whoever waits, if so many messages have arrived."""
        if len(self._arrived) >= enough and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _frame(data: bytes, start: int) -> tuple[int, bool]:
    """Where a server's frame ends, as far as can be told; whether it is one of the large kind."""
    head = data[start : start + 10]
    if len(head) < 2:
        return start + 2, False
    length = head[1] & 0x7F
    if length < 126:
        return start + 2 + length, False
    size = 4 if length == 126 else 10
    if len(head) < size:
        return start + size, False
    return start + size + int.from_bytes(head[2:size]), size == 10
