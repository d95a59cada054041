"""A collector and a simulated exchange in one process, talking over a real socket in step.

The exchange's time is the collector's, so that the same arguments give the same rows, as fast as
the machine can.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from collectors.collect import Collector, Progress
from collectors.queues import SinkQueue
from collectors.raw import RawLog
from collectors.server.pace import Lockstep
from collectors.server.server import Server, serve

_DRAIN_S = 600.0  # of the machine's time: the market's stands still, so a slow one may take its own


async def collect_simulated(
    exchange: str,
    symbols: Sequence[str],
    sinks: Sequence[SinkQueue],
    *,
    seconds: float,
    channels: Sequence[str] = (),
    raw: RawLog | None = None,
    progress: Callable[[float], None] | None = None,
    watch: Callable[[Server, Collector], None] | None = None,
    **market: Any,
) -> Progress:
    """Collect `seconds` of the market's time into `sinks`, and close them.

    `progress` is told the share that is done, `watch` is given both sides before they begin;
    `market` and faults: see `serve`.
    """
    begin_ns = end_ns = 0
    collector: Collector | None = None

    def done() -> bool:
        if collector is None:
            return False
        now_ns = server.simulation.now_ns
        if progress is not None:
            progress(min(1.0, (now_ns - begin_ns) / max(1, end_ns - begin_ns)))
        if now_ns >= end_ns:
            collector.stop()
            return False
        return collector.traffic == server.traffic

    pace = Lockstep(done)
    async with serve(exchange, symbols, pace=pace, **market) as server:
        begin_ns = server.simulation.now_ns
        end_ns = begin_ns + int(seconds * 1e9)
        pace.begin(begin_ns)
        collector = Collector(
            exchange, symbols, channels, endpoint=server.url, rest_endpoint=server.rest_url
        )
        if watch is not None:
            watch(server, collector)
        chance = random.Random(0)
        await collector.run(
            sinks, raw=raw, drain_s=_DRAIN_S, clock=pace.clock, sleep=pace.sleep, chance=chance
        )
        return collector.progress()
