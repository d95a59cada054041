"""A client's connection, seen from the exchange: what it asked for and what it is sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from collectors.server.faults import Fault, Faults, Injected

_SLOW_S = 1.0
_SHUTDOWN_S = 10.0
_SIZE = re.compile(rb'"(?:qty":|new_quantity":"|[0-9.]+",")[0-9.]*[1-8]')
SECOND = 1_000_000_000


class Talk:
    """One connection. Everything that is sent goes through `reply` or `send`; faults strike here.

    The socket's owner takes `out` and looks at `closing`; nothing here knows a socket.
    """

    def __init__(
        self,
        number: int,
        path: str,
        query: dict[str, list[str]],
        faults: Faults,
        announce: Callable[[Talk], None],
    ) -> None:
        """`announce` says to this connection that it will be closed, if the protocol can."""
        self.number = number
        self.path = path
        self.query = query
        self.opened_ns = 0
        self.out: list[bytes] = []
        self.closing: tuple[int, str] | None = None
        """Close code and reason, once the exchange wants to hang up; code 0 cuts the line."""
        self.subscriptions: dict[str, None] = {}
        """What the client is subscribed to, in the exchange's words, in the order of asking."""
        self.sent: Counter[tuple[str, str]] = Counter()
        """Messages by (channel, symbol), those that a fault kept back included."""
        self.written = self.heard = 0
        """Messages that have gone to the socket and come from it."""
        self.asked_ns: list[int] = []
        """When its last messages came."""
        self._faults = faults
        self._announce = announce
        self._now_ns = 0
        self._held: dict[tuple[str, str], list[bytes]] = {}  # until the successor has gone
        self._silent: dict[tuple[str, str], int] = {}  # stalled, until when (0: for good)
        self._slow_until_ns = 0
        self._waiting: list[bytes] = []
        self._hang_up_ns = 0

    def reply(self, frame: bytes) -> None:
        """Send what is no market data."""
        (self._waiting if self._slow_until_ns else self.out).append(frame)

    def send(self, channel: str, symbol: str, frame: bytes) -> None:
        """Send market data, unless a fault has it otherwise."""
        if self.closing is not None:
            return
        key = channel, symbol
        self.sent[key] += 1
        fault = self._faults.message(channel, symbol)
        if fault is None and not self._silent and not self._held:
            (self._waiting if self._slow_until_ns else self.out).append(frame)
            return
        if key in self._silent:
            return
        if fault is None:
            self.reply(frame)
        else:
            self._log(fault.kind, channel, symbol, frame)
            self._spoil(fault, key, frame)
        if fault is None or fault.kind != "reorder":
            for late in self._held.pop(key, ()):
                self.reply(late)

    def _spoil(self, fault: Fault, key: tuple[str, str], frame: bytes) -> None:
        kind, seconds = fault.kind, fault.seconds
        if kind == "reorder":
            self._held.setdefault(key, []).append(frame)
        elif kind == "stall":
            self.reply(frame)
            self._silent[key] = self._now_ns + int(seconds * SECOND) if seconds else 0
        elif kind == "disconnect":
            self.closing = (0, "cut")
        elif kind == "slow":
            self._slow_until_ns = self._now_ns + int((seconds or _SLOW_S) * SECOND)
            self.reply(frame)
        elif kind == "shutdown":
            self.reply(frame)
            self._announce(self)
            self._hang_up_ns = self._now_ns + int((seconds or _SHUTDOWN_S) * SECOND)
        elif kind == "duplicate":
            self.reply(frame)
            self.reply(frame)
        elif kind == "corrupt":
            self.reply(self._faults.corrupt(frame))
        elif kind == "alter":
            self.reply(_altered(frame))
        # And `drop` is to do nothing.

    def _log(self, kind: str, channel: str, symbol: str, frame: bytes) -> None:
        self._faults.log.append(Injected(kind, channel, symbol, self.number, self._now_ns, frame))

    def is_silent(self, channel: str, symbol: str) -> bool:
        """Whether this has been stalled: there is no message then that could have a number."""
        return (channel, symbol) in self._silent

    def heard_again(self, channel: str, symbol: str) -> None:
        """A subscription of this begins: whatever silenced it is over."""
        self._silent.pop((channel, symbol), None)
        self._held.pop((channel, symbol), None)

    def pass_time(self, now_ns: int) -> None:
        """It is so late: what was kept back for a while goes out."""
        self._now_ns = now_ns
        if self._slow_until_ns and now_ns >= self._slow_until_ns:
            self._slow_until_ns = 0
            self.out += self._waiting
            self._waiting = []
        if self._silent:
            over = [key for key, end in self._silent.items() if end and now_ns >= end]
            for key in over:
                del self._silent[key]
        if self._hang_up_ns and now_ns >= self._hang_up_ns and self.closing is None:
            self.closing = (1001, "going away")

    def due_ns(self) -> int | None:
        """When time changes something here."""
        times = [self._slow_until_ns, self._hang_up_ns if self.closing is None else 0]
        return min((time for time in times if time), default=None)

    def too_fast(self, now_ns: int, per_s: int) -> bool:
        """Whether the client has sent more than `per_s` messages within a second, this included."""
        self.asked_ns = [time for time in self.asked_ns if time > now_ns - SECOND]
        self.asked_ns.append(now_ns)
        return len(self.asked_ns) > per_s


def _altered(frame: bytes) -> bytes:
    """`frame` with a digit of the first size that has one to change; a removal has none."""
    match = _SIZE.search(frame)
    if match is None:
        return frame
    at = match.end() - 1
    return frame[:at] + bytes((frame[at] + 1,)) + frame[at + 1 :]
