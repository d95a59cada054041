"""Steps of a piece on all threads, each as soon as what it reads is there.

There is no waiting for the others of a level: only what is left at the end of a piece may leave a
thread without work. Of what is ready the longest way to the end goes first, by the times of the
piece before.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from heapq import heappop, heappush
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpukern.plan import Plan

Task = Callable[[], bool]
"""Part of a unit; whether it was the last part."""


class Order:
    """Which units (steps, or groups of steps led by one) read what others make."""

    def __init__(self, plan: Plan, units: list[int], leader: dict[int, int]) -> None:
        self.units = units
        self.sources: dict[int, set[int]] = {}
        self.readers: dict[int, list[int]] = {n: [] for n in units}
        members: dict[int, list[int]] = {}
        for n in range(len(plan.steps)):
            members.setdefault(leader.get(n, n), []).append(n)
        for unit in units:
            refs = [ref for n in members[unit] for _, ref in plan.steps[n].inputs]
            made = {ref[0] for ref in refs if ref is not None and isinstance(ref[0], int)}
            self.sources[unit] = {leader.get(n, n) for n in made}
            for source in self.sources[unit]:
                self.readers[source].append(unit)

    def ways(self, cost: list[int]) -> dict[int, int]:
        """ns from the beginning of each unit to the end of the last that waits for it."""
        ways: dict[int, int] = {}
        for unit in reversed(self.units):  # readers come after what they read
            ways[unit] = cost[unit] + max((ways[r] for r in self.readers[unit]), default=0)
        return ways


class Flow:
    """The units of one piece; ``open_unit`` gives the parts of one whose sources are done."""

    def __init__(
        self, order: Order, cost: list[int], open_unit: Callable[[int], list[Task]]
    ) -> None:
        self.order = order
        self.open_unit = open_unit
        self.ways = order.ways(cost)
        self.waiting = {unit: len(sources) for unit, sources in order.sources.items()}
        self.ready: list[tuple[int, int]] = []  # (−way, unit)
        self.parts: list[tuple[int, Task]] = []  # of opened units
        self.left = len(order.units)
        self.failed = False
        self.changed = Condition()
        for unit, waits in self.waiting.items():
            if not waits:
                heappush(self.ready, (-self.ways[unit], unit))

    def run(self, pool: Executor, threads: int) -> None:
        """Do everything, on this thread and others of the pool."""
        others = [pool.submit(self._work) for _ in range(threads - 1)]
        try:
            self._work()
        finally:
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error

    def _work(self) -> None:
        while True:
            with self.changed:
                while not (self.parts or self.ready or self.failed or not self.left):
                    self.changed.wait()
                if self.failed or not self.left:
                    return
                if self.parts:
                    unit, task = self.parts.pop()
                else:
                    unit, task = heappop(self.ready)[1], None
            finished = False
            try:
                if task is None:
                    task = self._open(unit)
                last = task()
                finished = True
            finally:
                if not finished:
                    with self.changed:
                        self.failed = True
                        self.changed.notify_all()
            if last:
                self._finish(unit)

    def _open(self, unit: int) -> Task:
        """The unit's first part; others are left to whoever is free."""
        first, *others = self.open_unit(unit)
        if others:
            with self.changed:
                self.parts += [(unit, part) for part in others]
                self.changed.notify(len(others))
        return first

    def _finish(self, unit: int) -> None:
        with self.changed:
            self.left -= 1
            freed = 0
            for reader in self.order.readers[unit]:
                self.waiting[reader] -= 1
                if not self.waiting[reader]:
                    heappush(self.ready, (-self.ways[reader], reader))
                    freed += 1
            if not self.left:
                self.changed.notify_all()
            elif freed > 1:
                self.changed.notify(freed - 1)
