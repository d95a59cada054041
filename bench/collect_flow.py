"""From a socket into a sink: the whole collector, the simulated exchange in another process.

Measured once as fast as the collector reads and at steady rates, until the last row is flushed: on
the disk, or acknowledged by the broker. Latency is that of trades: from the time at which the
exchange's process sends one to the time at which its row is in the sink's queue, and to that at
which the sink has taken it (Parquet) or the broker has acknowledged it (Kafka). Processor time is
the collector's and, for Kafka, that of the sink's process; not the exchange's or the broker's.

A virtual machine's host takes processors for others, and wakes them late while it does: a p99 of 15
s says nothing but that once it is without 150 ms of them. A flow begins when it takes nothing, and
flows are repeated until it has taken no more than `QUIET_SHARE` of enough of them; all are told,
those of which it took least count.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from collectors.collect import BATCH_S, Collector
from collectors.process import dedicate_process
from collectors.queues import SinkQueue
from collectors.scan import ready
from collectors.serialisation import json
from collectors.sinks import Sink
from collectors.sinks.apart import SinkProcess
from collectors.sinks.kafka import KafkaSink
from collectors.sinks.parquet_live import LiveParquetSink

from .harness import console, significant

LOOK_S = 0.001
SNAPSHOTS_PER_S = 1000.0
QUIET_SHARE = 0.002
WAIT_S, MOST_WAITS = 3.0, 20
Batches = Sequence[tuple[str, pa.RecordBatch]]


class TimedQueue(SinkQueue):
    """Notes when the rows of trades are ready for their sink."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self.latencies_ns: list[np.ndarray] = []

    def offer(self, batches: Batches) -> Batches:
        self.latencies_ns += [_latencies_ns(batch) for name, batch in batches if name == "trades"]
        return super().offer(batches)


class TimedParquet(LiveParquetSink):
    """Notes when the rows of trades have been taken."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.latencies_ns: list[np.ndarray] = []

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        super().write(channel, batch)
        if channel == "trades":
            self.latencies_ns.append(_latencies_ns(batch))

    def noted(self) -> tuple[np.ndarray, float]:
        """Latencies; s of processor time in other processes."""
        return np.concatenate(self.latencies_ns), 0.0


class TimedKafka(KafkaSink):
    """Notes when messages of trades have been acknowledged: looked up every millisecond."""

    def __init__(self, bootstrap: str, told: Path) -> None:
        """`told`: where latencies and the process' time are written to, when it is closed."""
        super().__init__(bootstrap)
        self.latencies_ns: list[np.ndarray] = []
        self._told = told
        self._waiting: deque[tuple[int, np.ndarray]] = deque()
        """Of every batch of trades: the rows delivered when it is, and when its own were sent."""
        self._written_rows = 0
        self._cpu_s = 0.0
        json.load()  # which a thread does, once in the life of a busy process
        self._is_done = False
        self._looking = threading.Thread(target=self._look)
        self._looking.start()

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        if not self._written_rows:
            self._cpu_s = time.process_time()
        super().write(channel, batch)
        self._written_rows += batch.num_rows
        if channel == "trades":
            self._waiting.append((self._written_rows, _sent_ns(batch)))

    def _look(self) -> None:
        while not self._is_done or self._waiting:
            time.sleep(LOOK_S)
            if self._waiting:
                delivered, now = self.delivered_rows, time.time_ns()
                while self._waiting and self._waiting[0][0] <= delivered:
                    self.latencies_ns.append(now - self._waiting.popleft()[1])

    def close(self) -> None:
        cpu_s = time.process_time() - self._cpu_s
        self.flush()
        self._is_done = True
        self._looking.join()
        super().close()
        np.savez(self._told, cpu_s=cpu_s, latencies_ns=np.concatenate(self.latencies_ns))


class TimedKafkaProcess(SinkProcess):
    """That, as the command uses it."""

    def __init__(self, bootstrap: str, told: Path) -> None:
        super().__init__("bench.collect_flow:TimedKafka", bootstrap, told)
        self._told = told

    def noted(self) -> tuple[np.ndarray, float]:
        """Latencies; s of processor time in other processes."""
        told = np.load(self._told)
        return told["latencies_ns"], float(told["cpu_s"])


def _processors() -> np.ndarray:
    """Ticks of all processors that a virtual machine's host took for others, and all; none of
    either where the system does not tell."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return np.zeros(2, np.int64)
    ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return np.array([ticks[7], sum(ticks)])


def _latencies_ns(batch: pa.RecordBatch) -> np.ndarray:
    return time.time_ns() - _sent_ns(batch)


def _sent_ns(batch: pa.RecordBatch) -> np.ndarray:
    """The exchange's time, which is the time of sending."""
    return batch.column("ts").cast(pa.int64()).to_numpy(zero_copy_only=False)


def measure_medians(
    make: Callable[[], Sink], kinds: Sequence[tuple[int, float]], repeats: int, tries: int
) -> list[dict[str, Any]]:
    """Of each kind of flow, so many messages and how many per second, the median.

    Flows of all kinds take turns: when the host is quiet, it is so for all of them.
    """
    cases: list[list[dict[str, Any]]] = [[] for _ in kinds]
    with contextlib.ExitStack() as running:
        urls = [running.enter_context(_exchange(*kind)) for kind in kinds]
        for _ in range(tries):
            for kind, url, own in zip(kinds, urls, cases, strict=True):
                if sum(map(_is_quiet, own)) == repeats:
                    continue
                _wait_for_quiet()
                case = asyncio.run(_collect(url, make(), *kind))
                console.print(
                    f"{case['messages_per_s']:,.0f} messages/s, p99 {case['taken_p99_ms']} ms, "
                    f"{case['stolen_share']:.2%} stolen"
                )
                own.append(case)
    return [_median(own, repeats) for own in cases]


def _wait_for_quiet() -> None:
    """Until the host has taken nothing for some seconds; not for long, it may never be so."""
    for _ in range(MOST_WAITS):
        before = _processors()
        time.sleep(WAIT_S)
        if not (_processors() - before)[0]:
            return


def _median(cases: Sequence[dict[str, Any]], repeats: int) -> dict[str, Any]:
    """Of the so many flows of which the host took least the one with the median p99; of all that
    were tried what that was in each, and what the host took."""
    counted = sorted(cases, key=_stolen)[:repeats]
    median = sorted(counted, key=lambda case: float(case["taken_p99_ms"]))[len(counted) // 2]
    return {
        **median,
        "flows_counted": len(counted),
        "taken_p99_ms_of_each": [case["taken_p99_ms"] for case in cases],
        "stolen_share_of_each": [case["stolen_share"] for case in cases],
    }


def measure(make: Callable[[], Sink], frames: int, per_s: float) -> dict[str, Any]:
    """Messages per second, share of a core, latency."""
    with _exchange(frames, per_s) as url:
        return asyncio.run(_collect(url, make(), frames, per_s))


def _is_quiet(case: dict[str, Any]) -> bool:
    return _stolen(case) <= QUIET_SHARE


def _stolen(case: dict[str, Any]) -> float:
    return float(case["stolen_share"])


@contextlib.contextmanager
def _exchange(frames: int, per_s: float) -> Iterator[str]:
    """In another process; whoever connects gets the same."""
    command = [sys.executable, "-m", "bench.collect_server"]
    command += ["--frames", str(frames), "--per-s", str(per_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"ws://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


async def _collect(url: str, sink: Any, frames: int, per_s: float) -> dict[str, Any]:
    collector = Collector("binance", endpoint=url, rest_endpoint=url.replace("ws:", "http:"))
    # At the pace that Binance allows 14 books take 35 s, for which the differences of hours of its
    # market would wait here.
    collector.venue = replace(collector.venue, snapshots_per_s=SNAPSHOTS_PER_S)
    queue = TimedQueue(sink)
    ready.load()  # which a thread does, once in the life of a busy process
    gc.collect()
    dedicate_process()  # as the command does
    wall_s, cpu_s, before = time.perf_counter(), time.process_time(), _processors()
    running = asyncio.ensure_future(collector.run([queue], drain_s=60.0))
    while collector.progress().feed.frames < frames and not running.done():
        await asyncio.sleep(0.02)
        if not collector.progress().feed.frames:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.sleep(2 * BATCH_S)  # the last rows are on their way to the queue
    await asyncio.to_thread(queue.flush)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    stolen, of_all = _processors() - before
    collector.stop()
    await running
    stats, feed = queue.stats(), collector.progress().feed
    if feed.snapshots != len(collector.symbols) or feed.refusals:
        raise AssertionError(f"books are not what they are at an exchange: {feed}")
    if feed.gaps or feed.errors or stats.written_rows != sum(collector.progress().rows.values()):
        raise AssertionError(f"rows were lost on the way: {feed}, {stats}")
    taken_ns, more_cpu_s = sink.noted()
    queued_ms = _quantiles_ms(np.concatenate(queue.latencies_ns))
    taken_ms = _quantiles_ms(taken_ns)
    return {
        "sink": sink.name,
        "messages": frames,
        "rows": stats.written_rows,
        "offered_per_s": per_s or None,
        "messages_per_s": significant(frames / wall_s),
        "cpu_share": significant((cpu_s + more_cpu_s) / wall_s),
        "queued_p50_ms": queued_ms[0],
        "queued_p99_ms": queued_ms[1],
        "taken_p50_ms": taken_ms[0],
        "taken_p99_ms": taken_ms[1],
        "stolen_share": significant(stolen / max(of_all, 1)),
        "max_queue_mb": significant(stats.peak_bytes / 1e6),
    }


def _quantiles_ms(latencies_ns: np.ndarray) -> tuple[float, float]:
    """Median and p99, without the first quarter: caches, threads and connections warm up."""
    later = latencies_ns[len(latencies_ns) // 4 :]
    p50, p99 = np.percentile(later / 1e6, (50, 99))
    return significant(p50), significant(p99)
