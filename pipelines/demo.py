"""The tour: a collector on a simulated exchange, the default features of what it got, a report."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from collectors.collect import Progress as Collected
from collectors.queues import SinkQueue
from collectors.server.local import collect_simulated
from collectors.sinks import make_sink
from pipelines.errors import PipelineError
from pipelines.report import require_report_extra
from pipelines.research import Progress, Research, research
from pipelines.sources import ParquetSource

EXCHANGE = "binance"
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
MINUTES = 10
_BURSTS_PER_S = 2.0
_OURS = ".gpukern-demo"  # marks a folder that the demo made, and may empty


@dataclass(frozen=True)
class Demo:
    """Where the market data is, what was collected, and what research made of it."""

    data: Path
    collected: Collected
    research: Research


def demo(folder: str | Path = "demo-output", progress: Progress | None = None) -> Demo:
    """Collect ten minutes of a simulated Binance Spot over a socket into `folder`/market-data,
    compute features, write Parquet and a report."""
    require_report_extra()
    root = Path(folder)
    data = _emptied(root / "market-data")
    sink = make_sink("parquet", data)
    market = collect_simulated(
        EXCHANGE, SYMBOLS, [SinkQueue(sink)], seconds=60.0 * MINUTES, bursts_per_s=_BURSTS_PER_S
    )
    collected = asyncio.run(market)
    result = research(
        ParquetSource(data / "ticker"),
        root / "features.parquet",
        features="default",
        report=root / "report.html",
        progress=progress,
    )
    return Demo(data, collected, result)


def _emptied(data: Path) -> Path:
    """The folder without what an earlier demo left; anybody else's data stay."""
    try:
        if data.is_dir() and any(data.iterdir()):
            if not (data / _OURS).exists():
                raise PipelineError(
                    f"{data}: holds data that are not the demo's; choose another --output"
                )
            shutil.rmtree(data)
        data.mkdir(parents=True, exist_ok=True)
        (data / _OURS).touch()
    except OSError as error:
        raise PipelineError(f"{data}: cannot be created: {error.strerror}") from error
    return data
