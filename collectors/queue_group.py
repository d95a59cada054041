"""Several sinks fed at once, each at its own pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import ClassVar

import pyarrow as pa

from collectors.errors import SinkError
from collectors.queues import CLOSE_S, SinkQueue
from collectors.sinks import Sink

WATCH_S = 0.25


class SinkGroup(Sink):
    """Several sinks at once, each behind its own queue."""

    name: ClassVar[str] = "group"

    def __init__(self, queues: Iterable[SinkQueue]) -> None:
        self.queues = list(queues)

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        for queue in self.queues:
            queue.write(channel, batch)

    async def put(self, batches: Sequence[tuple[str, pa.RecordBatch]]) -> None:
        """As `write_all`, for an event loop: other tasks go on while a full queue is waited for."""
        for queue in self.queues:
            if left := queue.offer(batches):
                await asyncio.to_thread(queue.write_all, left)

    async def watch(self) -> None:
        """Until cancelled: raise what made a sink fail, though nothing more is written to it."""
        while True:
            for queue in self.queues:
                if queue.failure is not None:
                    raise queue.failure
            await asyncio.sleep(WATCH_S)

    def flush(self, deadline_s: float | None = None) -> None:
        for queue, done in [(queue, queue.request_flush()) for queue in self.queues]:
            queue.await_flush(done, deadline_s)

    def close(self, deadline_s: float = CLOSE_S) -> None:
        """Close all at the same time; every failure is told, the first one is the cause."""
        end = time.monotonic() + deadline_s
        for queue in self.queues:
            queue.request_close()
        failures: list[Exception] = []
        for queue in self.queues:
            try:
                queue.await_close(end - time.monotonic())
            except (SinkError, OSError) as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise SinkError("; ".join(map(str, failures))) from failures[0]
