"""How fast a simulated market runs."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

_SLICE_S = 0.002
_STEP_NS = 1_000_000_000  # of the market, after which sockets have their turn


class Pace(Protocol):
    """Says when the market may go on."""

    waits: bool
    """Whether the market stands still while nobody is subscribed."""
    patient: bool
    """Whether clients that are behind are waited for, not sent away."""

    async def until(self, now_ns: int, due_ns: int, sent: int) -> int:
        """The market is at `now_ns`, something is due at `due_ns`, `sent` messages have been sent.
        Wait until the market may run again; the market time that it may run to."""
        ...


class RealTime:
    """As the clock does, or so many times faster, if the machine can."""

    waits = patient = False

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._began: tuple[float, int] | None = None

    async def until(self, now_ns: int, due_ns: int, sent: int) -> int:
        """Sleeps until `due_ns`, but never long: a connection may be cut or faults come."""
        if self._began is None:
            self._began = time.monotonic(), now_ns
        wait_s = (due_ns - self._market_ns(*self._began)) / 1e9 / self._speed
        await asyncio.sleep(min(max(wait_s, 0.0), 0.1))
        clock_ns = self._market_ns(*self._began)
        return max(now_ns, min(clock_ns, max(now_ns, due_ns) + _STEP_NS))

    def _market_ns(self, began_s: float, began_ns: int) -> int:
        return began_ns + int((time.monotonic() - began_s) * self._speed * 1e9)


class AsRead:
    """As fast as the clients read; 50 ms of the market at a time."""

    waits = patient = True

    async def until(self, now_ns: int, due_ns: int, sent: int) -> int:
        """Lets the clients' doings be heard in between."""
        await asyncio.sleep(0)
        return due_ns + 50_000_000


class MessagesPerSecond:
    """So many messages a second, whatever the market's time."""

    waits = patient = True

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._began: tuple[float, int] | None = None

    async def until(self, now_ns: int, due_ns: int, sent: int) -> int:
        """Sleeps while more than is due has been sent."""
        if self._began is None:
            self._began = time.perf_counter(), sent
        ahead_s = (sent - self._began[1]) / self._rate
        ahead_s -= time.perf_counter() - self._began[0]
        await asyncio.sleep(0 if ahead_s <= 0 else max(ahead_s, _SLICE_S))
        return due_ns + 10_000_000


class Lockstep:
    """Hand in hand with one collector in the same process: time passes when it has done all.

    Its `clock` and `sleep` are the collector's time, so that a run gives the same rows every time,
    as fast as the machine can.
    """

    waits, patient = False, True

    def __init__(self, done: Callable[[], bool]) -> None:
        """`done()`: whether both have received all that was sent, and are idle."""
        self._done = done
        self._now_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Event]] = []
        self._count = 0

    def begin(self, now_ns: int) -> None:
        """The market's time before anything happens."""
        self._now_ns = now_ns

    def clock(self) -> int:
        """The market's time."""
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        """For so much of the market's time."""
        self._count += 1
        woken = asyncio.Event()
        wake_ns = self._now_ns + int(seconds * 1e9)
        heapq.heappush(self._sleepers, (wake_ns, self._count, woken))
        await woken.wait()

    async def until(self, now_ns: int, due_ns: int, sent: int) -> int:
        """Goes to what is next, a message of the market or the end of somebody's sleep."""
        self._now_ns = max(self._now_ns, now_ns)
        calm = 0
        while calm < 2:  # what was woken may have work for others
            await asyncio.sleep(0)
            calm = calm + 1 if self._done() else 0
        if self._sleepers and self._sleepers[0][0] <= due_ns:
            wake_ns, _, woken = heapq.heappop(self._sleepers)
            self._now_ns = max(self._now_ns, wake_ns)
            woken.set()
            return max(now_ns, wake_ns - 1)
        self._now_ns = max(self._now_ns, due_ns)
        return due_ns
