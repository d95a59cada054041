"""A bounded queue and a thread before each sink, so that a slow one slows nobody else.

`SinkQueue` is a sink itself: `write` returns at once while there is room. When there is none, its
policy decides:

- block: `write` waits. Nothing is lost; what feeds the queue slows down.
- conflate: waiting ticker quotes that were superseded are dropped and counted, executions and all
  other channels are not; then it waits if it must.
- spill: batches go to temporary files, up to `max_spill_bytes`, then it waits. Nothing is lost.
- drop: the new batch is dropped and its rows are counted, by channel.

The thread flushes the sink every `flush_s`. An error of the sink is raised by the next call.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import pyarrow as pa

from collectors.errors import SinkError
from collectors.queue_policies import Spill, conflate, merge
from collectors.queue_stats import QueueStats
from collectors.sinks import Sink

POLICIES = ("block", "conflate", "spill", "drop")
MAX_BYTES = 64 << 20
MAX_SPILL_BYTES = 4 << 30
CLOSE_S = 10.0


class _Item(msgspec.Struct):
    """A batch in memory; numbers rise by one from batch to batch."""

    number: int
    channel: str
    batch: pa.RecordBatch
    size: int


class _FlushRequest(msgspec.Struct, eq=False):
    """Somebody waits for the batches up to `number` to be durable."""

    number: int
    done: threading.Event


class SinkQueue(Sink):
    """A sink behind a bounded queue and its own thread."""

    name: ClassVar[str] = "queue"

    def __init__(
        self,
        sink: Sink,
        *,
        policy: str = "block",
        max_bytes: int = MAX_BYTES,
        spill_dir: Path | str | None = None,
        max_spill_bytes: int = MAX_SPILL_BYTES,
        flush_s: float | None = None,
    ) -> None:
        """`flush_s`: how often to flush, by default what suits the sink."""
        if policy not in POLICIES:
            raise SinkError(
                f"queue policy {policy!r} is unknown; choose from {', '.join(POLICIES)}"
            )
        self.sink = sink
        self.policy = policy
        self.max_bytes = max_bytes
        self._flush_s = sink.flush_s if flush_s is None else flush_s
        self._stats = QueueStats()
        self._number = 0
        self._items: deque[_Item] = deque()
        self._spill = Spill(None if spill_dir is None else Path(spill_dir), max_spill_bytes)
        self._requests: list[_FlushRequest] = []
        self._changed = threading.Condition()  # with a lock that its owner may take again
        self._closing = self._done = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> BaseException | None:
        """What made the sink fail, which the next call will raise."""
        return self._failure

    def stats(self) -> QueueStats:
        """The counters now."""
        with self._changed:
            spill = {"spill_rows": self._spill.rows, "spill_bytes": self._spill.bytes}
            dropped = dict(self._stats.dropped_rows)
            return msgspec.structs.replace(self._stats, dropped_rows=dropped, **spill)

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        self._put(channel, batch, wait=True)

    def offer(
        self, batches: Sequence[tuple[str, pa.RecordBatch]]
    ) -> Sequence[tuple[str, pa.RecordBatch]]:
        """As `write_all` without waiting: what is left when there is no more room."""
        with self._changed:  # whoever waits for batches gets all of them
            for taken, (channel, batch) in enumerate(batches):
                if not self._put(channel, batch, wait=False):
                    return batches[taken:]
        return ()

    def flush(self, deadline_s: float | None = None) -> None:
        """Wait until all that was written before is durable."""
        self.await_flush(self.request_flush(), deadline_s)

    def request_flush(self) -> threading.Event:
        """Ask for a flush without waiting; the event is for `await_flush`."""
        with self._changed:
            self._check()
            request = _FlushRequest(self._number, threading.Event())
            self._requests.append(request)
            self._changed.notify_all()
        return request.done

    def await_flush(self, done: threading.Event, deadline_s: float | None) -> None:
        """Wait for what `request_flush` asked for."""
        if not done.wait(deadline_s):
            raise SinkError(
                f"{self.sink.name}: not flushed within {deadline_s:g} s; it is too slow"
            )
        if self._failure is not None:
            raise self._failure

    def close(self, deadline_s: float = CLOSE_S) -> None:
        """Write what waits, flush and close the sink, within the deadline."""
        self.request_close()
        self.await_close(deadline_s)

    def request_close(self) -> None:
        """Take no more batches, and let the thread finish; `await_close` waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def await_close(self, deadline_s: float) -> None:
        """Wait until the sink is closed; rows that do not make it are counted as lost."""
        self._thread.join(max(0.0, deadline_s))
        if self._failure is not None:
            raise self._failure
        with self._changed:
            if self._done:
                return
            lost = self._give_up()
        what = f"{lost} rows were not written" if lost else "the rows written last are not durable"
        raise SinkError(
            f"{self.sink.name}: {what} at the deadline of closing; "
            f"give it more time, or a faster disk or broker"
        )

    def _put(self, channel: str, batch: pa.RecordBatch, *, wait: bool) -> bool:
        with self._changed:
            self._check()
            if batch.num_rows == 0:
                return True
            if not self._take(channel, batch):
                if self.policy == "drop":
                    dropped = self._stats.dropped_rows
                    dropped[channel] = dropped.get(channel, 0) + batch.num_rows
                elif not wait or not self._wait_and_take(channel, batch):
                    return False
            self._stats.rows += batch.num_rows
        return True

    def _wait_and_take(self, channel: str, batch: pa.RecordBatch) -> bool:
        started = time.monotonic()
        taken = False
        while not taken:
            self._changed.wait()
            self._check()
            taken = self._take(channel, batch)
        self._stats.blocked_s += time.monotonic() - started
        return taken

    def _take(self, channel: str, batch: pa.RecordBatch) -> bool:
        """Whether there is room for the batch, if need be after what the policy does."""
        stats, size = self._stats, batch.nbytes
        if self.policy == "conflate" and not self._fits(size):
            self._conflate()
        if self._fits(size) and not self._spill:
            self._items.append(_Item(self._number + 1, channel, batch, size))
            stats.waiting_bytes += size
            stats.peak_bytes = max(stats.peak_bytes, stats.waiting_bytes)
        elif self.policy == "spill" and self._spill.put(channel, batch):
            stats.spilled_rows += batch.num_rows
        else:
            return False
        self._number += 1
        stats.waiting_rows += batch.num_rows
        self._changed.notify_all()
        return True

    def _fits(self, size: int) -> bool:
        waiting = self._stats.waiting_bytes
        return not waiting or waiting + size <= self.max_bytes  # a huge batch passes alone

    def _conflate(self) -> None:
        """One ticker batch in the place of the last one, so that numbers still rise."""
        tickers = [item for item in self._items if item.channel == "ticker"]
        if len(tickers) < 2:
            return
        before = sum(item.batch.num_rows for item in tickers)
        batch = conflate([item.batch for item in tickers])
        merged = _Item(tickers[-1].number, "ticker", batch, batch.nbytes)
        kept = [merged if item is tickers[-1] else item for item in self._items]
        gone = {item.number for item in tickers[:-1]}
        self._items = deque(item for item in kept if item.number not in gone)
        self._stats.waiting_bytes += merged.size - sum(item.size for item in tickers)
        self._stats.waiting_rows -= before - batch.num_rows
        self._stats.conflated_rows += before - batch.num_rows

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing or self._done:
            raise SinkError(f"{self.sink.name}: the queue is closed; make a new one")

    def _work(self) -> None:
        """The thread: writes and flushes until closed or failed."""
        try:
            self._serve()
            self.sink.close()
        except BaseException as error:  # the end of a thread: raised by the caller's next call
            self._failure = error
            with contextlib.suppress(SinkError, OSError):  # the same again
                self.sink.close()
        with self._changed:
            self._give_up()

    def _serve(self) -> None:
        due_s = time.monotonic() + self._flush_s
        while True:
            items, requests, closing = self._next(due_s)
            if items:
                self._write(items)
                self._written(items)
            if requests or time.monotonic() >= due_s:
                self._flush_sink(requests)
                due_s = time.monotonic() + self._flush_s
            if closing:
                return

    def _write(self, items: list[_Item]) -> None:
        """What waits of a channel as one batch; few rows first: they take no time from the others,
        behind which they would wait for long."""
        batches: dict[str, list[pa.RecordBatch]] = {}
        for item in items:
            batches.setdefault(item.channel, []).append(item.batch)
        merged = [(channel, merge(own)) for channel, own in batches.items()]
        self.sink.write_all(sorted(merged, key=lambda each: each[1].num_rows))

    def _next(self, due_s: float) -> tuple[list[_Item], list[_FlushRequest], bool]:
        """What to do next: write batches, answer requests to flush, or end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._items or self._spill or self._requests or self._closing,
                max(0.0, due_s - time.monotonic()),
            )
            oldest = self._items[0].number if self._items else self._number - len(self._spill) + 1
            ready = [request for request in self._requests if request.number < oldest]
            if self._items:
                return self._take_waiting(), ready, False
            if self._spill:
                channel, batch = self._spill.get()
                size = batch.nbytes
                self._stats.waiting_bytes += size
                return [_Item(oldest, channel, batch, size)], ready, False
            return [], ready, self._closing

    def _take_waiting(self) -> list[_Item]:
        """The oldest batch, and more of every channel if the sink likes them large."""
        taken: list[_Item] = []
        left: deque[_Item] = deque()
        rows: Counter[str] = Counter()
        for item in self._items:
            if not taken or rows[item.channel] < self.sink.merge_rows:
                taken.append(item)
                rows[item.channel] += item.batch.num_rows
            else:
                left.append(item)
        self._items = left
        return taken

    def _written(self, items: list[_Item]) -> None:
        with self._changed:
            if self._done:  # too late: counted as lost
                return
            rows = sum(item.batch.num_rows for item in items)
            self._stats.waiting_bytes -= sum(item.size for item in items)
            self._stats.waiting_rows -= rows
            self._stats.written_rows += rows
            self._changed.notify_all()

    def _flush_sink(self, requests: list[_FlushRequest]) -> None:
        started = time.monotonic()
        self.sink.flush()
        with self._changed:
            self._stats.flush_s = time.monotonic() - started
            self._stats.flushes += 1
            for request in requests:
                self._requests.remove(request)
                request.done.set()

    def _give_up(self) -> int:
        """Nothing more is taken; what still waits is lost, and whoever waits is woken."""
        self._done = True
        lost = self._stats.waiting_rows
        self._stats.lost_rows += lost
        self._stats.waiting_rows = self._stats.waiting_bytes = 0
        self._items.clear()
        self._spill.close()
        for request in self._requests:
            request.done.set()
        self._changed.notify_all()
        return lost
