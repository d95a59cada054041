"""The tour: the shipped recording replayed, its default features, a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collectors.recordings import BINANCE_DEMO
from collectors.replay import replay
from pipelines.errors import PipelineError
from pipelines.report import require_report_extra
from pipelines.research import Progress, Research, research
from pipelines.sources import ParquetSource


@dataclass(frozen=True)
class Demo:
    """Where the market data is, and what research made of it."""

    data: Path
    research: Research


def demo(folder: str | Path = "demo-output", progress: Progress | None = None) -> Demo:
    """Replay the recording into `folder`, compute features, write Parquet and a report."""
    require_report_extra()
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{root}: cannot be created: {error.strerror}") from error
    data = root / "market-data"
    replay([BINANCE_DEMO], "binance", data)
    result = research(
        ParquetSource(data / "ticker"),
        root / "features.parquet",
        features="default",
        report=root / "report.html",
        progress=progress,
    )
    return Demo(data, result)
