"""Much more arrives than a sink can take: memory stays flat, and every lost row is counted."""

from __future__ import annotations

import asyncio

import pytest
from scripted import quote, scripted, trade
from slow_sink import Slow

from collectors.collect import Collector, Progress
from collectors.queue_stats import QueueStats
from collectors.queues import SinkQueue

FRAMES = 100_000
MAX_BYTES = 1_000_000


def overloaded(policy: str) -> tuple[Slow, Progress, QueueStats]:
    """A sink that takes one batch and then nothing until everything has arrived."""
    frames = [quote(n) if n % 4 else trade(n // 4) for n in range(1, FRAMES + 1)]
    sink = Slow(permits=1)

    async def run() -> tuple[Progress, QueueStats]:
        async with scripted(frames) as server:
            job = Collector(
                "binance", ["BTC/USDT"], ["ticker"], endpoint=server.url, rest_endpoint="http://x"
            )
            queue = SinkQueue(sink, policy=policy, max_bytes=MAX_BYTES)
            done = asyncio.ensure_future(job.run([queue], batch_s=0.001))
            while job.progress().feed.frames < FRAMES:
                await asyncio.sleep(0)
            job.stop()
            sink.open_up()
            await asyncio.wait_for(done, 60)
            return job.progress(), queue.stats()

    progress, stats = asyncio.run(run())
    return sink, progress, stats


def seqs(sink: Slow) -> list[int]:
    return [seq for channel, batch in sink.batches for seq in batch["seq"].to_pylist()]


def test_dropping_counts_every_row_and_memory_stays_flat() -> None:
    sink, progress, stats = overloaded("drop")
    assert progress.rows == {"ticker": FRAMES}
    dropped = stats.dropped_rows["ticker"]
    assert stats.rows == FRAMES == len(seqs(sink)) + dropped
    assert dropped > 4 * len(seqs(sink))
    assert stats.peak_bytes <= MAX_BYTES


def test_conflating_keeps_every_execution_and_the_newest_quote() -> None:
    sink, progress, stats = overloaded("conflate")
    assert stats.rows == FRAMES == len(seqs(sink)) + stats.conflated_rows
    assert stats.conflated_rows > 0
    executions = [
        row["seq"] for _, batch in sink.batches for row in batch.to_pylist() if row["price"]
    ]
    assert executions == list(range(1, FRAMES // 4 + 1))
    quotes = [row for _, batch in sink.batches for row in batch.to_pylist() if not row["price"]]
    assert quotes[-1]["seq"] == FRAMES - 1
    assert progress.feed.gaps == 0


@pytest.mark.parametrize("policy", ["block", "spill"])
def test_waiting_and_spilling_lose_nothing(policy: str) -> None:
    frames = [trade(n) for n in range(1, 5001)]
    sink = Slow(permits=1)

    async def run() -> QueueStats:
        async with scripted(frames) as server:
            job = Collector(
                "binance", ["BTC/USDT"], ["trades"], endpoint=server.url, rest_endpoint="http://x"
            )
            queue = SinkQueue(sink, policy=policy, max_bytes=20_000)
            done = asyncio.ensure_future(job.run([queue], batch_s=0.001))
            await asyncio.to_thread(sink.writing.wait, 30)
            sink.open_up()
            while queue.stats().written_rows < len(frames):
                await asyncio.sleep(0)
            job.stop()
            await asyncio.wait_for(done, 60)
            return queue.stats()

    stats = asyncio.run(run())
    assert sink.ids() == list(range(1, 5001))
    assert stats.dropped_rows == {}
    assert stats.lost_rows == 0
