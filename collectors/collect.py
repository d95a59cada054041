"""One exchange's feed into its sinks, until told to stop: what `gpukern collect` runs.

    collector = Collector("kraken", ["BTC/USD"], ["trades"])
    await collector.run([SinkQueue(make_sink("parquet", "data"))], duration_s=60)

Stopping is orderly: no more is read, what was received goes through the queues, the sinks are
flushed and closed, all within `drain_s`. An error of a sink or of the raw log stops it as well, and
is raised when everything else is closed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from collectors.errors import CollectorError, SinkError
from collectors.exchanges import make_adapter
from collectors.feed import Feed
from collectors.feed_core import FeedCore
from collectors.feed_lines import FeedStatus
from collectors.metrics import Metrics
from collectors.queue_group import SinkGroup
from collectors.queue_stats import QueueStats
from collectors.queues import SinkQueue
from collectors.raw import RawLog
from collectors.session import Session
from collectors.venues import majors, venue

DRAIN_S = 10.0
BATCH_S = 0.005  # longer batches cost less, shorter ones arrive sooner
RAW_FLUSH_S = 1.0


class Progress(msgspec.Struct):
    """What a collector has done so far."""

    elapsed_s: float
    feed: FeedStatus
    rows: dict[str, int]
    """Rows made, by channel."""
    queues: dict[str, QueueStats]
    """The queues before the sinks, by the sink's name."""


class Collector:
    """One exchange's symbols and channels, checked and ready to be collected once."""

    def __init__(
        self,
        exchange: str,
        symbols: Sequence[str] = (),
        channels: Sequence[str] = (),
        *,
        endpoint: str = "",
        rest_endpoint: str = "",
        symbol_list: Path | str | None = None,
    ) -> None:
        """By default the majors and every channel; gaps are always told.

        `endpoint` and `rest_endpoint` replace scheme, host and port of the exchange's addresses;
        `symbol_list` is a file with the exchange's own list of symbols. Raises `CollectorError` for
        anything that the exchange does not have; nothing is opened yet.
        """
        self.adapter = make_adapter(exchange, symbol_list)
        self.venue = venue(exchange, endpoint, rest_endpoint)
        self.symbols = list(dict.fromkeys(name.upper() for name in symbols)) or majors(exchange)
        wanted = dict.fromkeys(name for name in channels if name != "gaps")
        self.channels = list(wanted) or list(self.adapter.channels)
        # The adapter that asks is another one: asking changes what it knows.
        make_adapter(exchange, symbol_list).subscribe(self.symbols, self.channels)
        self._rows: Counter[str] = Counter()
        self._on_the_way = 0
        self._started_s = 0.0
        self._queues: list[SinkQueue] = []
        self._feed: Feed | None = None
        self._stop = asyncio.Event()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin to stop; `run` returns when all is drained. For any thread or signal handler."""
        self._stopped = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    @property
    def traffic(self) -> tuple[int, int, int] | None:
        """See `Feed.traffic`; None before it runs."""
        return None if self._feed is None else self._feed.traffic

    def progress(self) -> Progress:
        """The counters now."""
        return Progress(
            elapsed_s=time.monotonic() - self._started_s if self._started_s else 0.0,
            feed=FeedStatus() if self._feed is None else self._feed.status(),
            rows=dict(self._rows),
            queues={queue.sink.name: queue.stats() for queue in self._queues},
        )

    async def run(
        self,
        sinks: Sequence[SinkQueue],
        *,
        raw: RawLog | None = None,
        metrics: Metrics | None = None,
        duration_s: float | None = None,
        drain_s: float = DRAIN_S,
        batch_s: float = BATCH_S,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: random.Random | None = None,
    ) -> None:
        """Collect into `sinks`, and close them and `raw` in the end, come what may.

        `clock` and `sleep` are the time in which the exchange lives, a simulated one's if need be;
        `duration_s` and `drain_s` are the machine's. `chance` spreads requests and reconnects.

        Raises what a sink or the raw log raised: `SinkError` or `OSError`.
        """
        if self._feed is not None:
            raise CollectorError("a collector runs once; make a new one")
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            self._stop.set()
        self._queues = list(sinks)
        group = SinkGroup(self._queues)
        session = Session(self.adapter, [*self.channels, "gaps"])
        for builder in session.builders:
            builder.take()  # the first batch imports what it needs: not while messages wait
        on_raw = None if raw is None else raw.append
        core = FeedCore(self.adapter, self.venue, session, on_raw=on_raw, chance=chance)

        async def on_batches(batches: Sequence[tuple[str, pa.RecordBatch]]) -> None:
            for channel, batch in batches:
                self._rows[channel] += batch.num_rows
                self._on_the_way += batch.num_rows
                if metrics is not None:
                    metrics.observe(channel, batch)
            await group.put(batches)
            self._on_the_way = 0

        self._feed = Feed(core, on_batches, clock=clock, sleep=sleep, batch_s=batch_s)
        if metrics is not None:
            metrics.add_feed(self.adapter.exchange, self._feed.status)
            for queue in self._queues:
                metrics.add_queue(queue)
        self._started_s = time.monotonic()
        failures = await self._collect(self._feed, raw, duration_s, drain_s, group)
        for failure in failures:
            if len(failures) == 1 or not isinstance(failure, SinkError | OSError):
                raise failure
        if failures:
            raise SinkError("; ".join(map(str, failures))) from failures[0]

    def _last_trades(self) -> dict[str, tuple[int, int]]:
        """What the sinks show of earlier runs: the latest of each symbol."""
        last: dict[str, tuple[int, int]] = {}
        for queue in self._queues:
            for symbol, trade in queue.sink.last_trades(self.adapter.exchange).items():
                if symbol in self.symbols:
                    last[symbol] = max(trade, last.get(symbol, trade))
        return last

    async def _collect(
        self,
        feed: Feed,
        raw: RawLog | None,
        duration_s: float | None,
        drain_s: float,
        group: SinkGroup,
    ) -> list[BaseException]:
        """Until stopped, then drain; the errors that ended it or came while closing."""
        failures: list[BaseException] = []
        feed.know(self._last_trades())
        feed.subscribe(self.symbols, self.channels)
        reading = asyncio.ensure_future(feed.run())
        stopped = asyncio.ensure_future(self._stop.wait())
        watching = asyncio.ensure_future(group.watch())
        waited: set[asyncio.Future[Any]] = {reading, stopped, watching}
        flushing = None if raw is None else asyncio.ensure_future(_flush(raw))
        if flushing is not None:
            waited.add(flushing)
        await asyncio.wait(waited, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        end_s = time.monotonic() + drain_s
        stopped.cancel()
        feed.stop()
        await asyncio.wait({reading}, timeout=drain_s)
        await _settle(reading, failures)
        await _settle(watching, failures)
        lost = feed.core.session.rows + self._on_the_way
        if lost and not failures:
            what = f"{lost} rows did not reach every sink within {drain_s:g} s of stopping"
            failures.append(SinkError(f"{what}; give it more time, or faster sinks"))
        closing = asyncio.to_thread(group.close, max(0.0, end_s - time.monotonic()))
        await _attempt(closing, failures)
        if flushing is not None and raw is not None:
            await _settle(flushing, failures)
            await _attempt(asyncio.to_thread(raw.close), failures)
        return failures


async def _flush(raw: RawLog) -> None:
    """Force the raw log to the disk every second, in a thread: no frame waits for it."""
    while True:
        await asyncio.sleep(RAW_FLUSH_S)
        await asyncio.to_thread(raw.flush)


async def _settle(task: asyncio.Future[None], failures: list[BaseException]) -> None:
    """End a task, and note the error that it ended with."""
    task.cancel()
    done = await asyncio.gather(task, return_exceptions=True)
    _note(done[0], failures)


async def _attempt(work: Coroutine[Any, Any, None], failures: list[BaseException]) -> None:
    done = await asyncio.gather(work, return_exceptions=True)
    _note(done[0], failures)


def _note(error: BaseException | None, failures: list[BaseException]) -> None:
    """Keep an error that is new: a queue tells its own again when it is closed."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return
    if str(error) not in map(str, failures):
        failures.append(error)
