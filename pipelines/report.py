"""One HTML page about a research run that opens offline: nothing is loaded from anywhere."""

from __future__ import annotations

import importlib.util
import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.errors import PipelineError
from pipelines.figures import (
    Figure,
    correlation_figure,
    distribution_figure,
    price_figure,
    volatility_figure,
)
from pipelines.statistics import COLUMNS, cell_text

if TYPE_CHECKING:
    from pipelines.research import Research

FOLDER = Path(__file__).parent / "templates"
TABLE_ROWS = 200
NUMBERED_CELLS = 12


def require_report_extra() -> None:
    """Raise at once, naming the remedy, when the packages for reports are missing."""
    for package in ("plotly", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise PipelineError(
                f"--report needs the package {package!r}; install it with: "
                'pip install "gpukern[report]"'
            )


def write_report(research: Research, path: str | Path) -> None:
    """Write the page."""
    require_report_extra()
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = _figures(research)
    page = environment.get_template("report.html.jinja").render(
        **_content(research, figures),
        style=(FOLDER / "report.css").read_text(encoding="utf-8"),
        script=(FOLDER / "report.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        # "</" would end the script element inside a JSON string.
        figures_json=json.dumps(figures, allow_nan=False).replace("</", "<\\/"),
    )
    Path(path).write_text(page, encoding="utf-8")


def _figures(research: Research) -> dict[str, Figure]:
    summary = research.summary
    figures: dict[str, Figure] = {}
    if summary.plots is not None and "close" in summary.plots.columns:
        for number, code in enumerate(_plotted(research)):
            buckets = summary.plots.filter(pl.col("code") == code)
            figures[f"price-{number}"] = price_figure(buckets, summary.gap_s)
            if "vol_close" in buckets.columns:
                figures[f"volatility-{number}"] = volatility_figure(
                    buckets, summary.gap_s, beside=f"price-{number}"
                )
    series = [(code, summary.labels[code]) for code in _plotted(research)]
    for name, histogram, axis in (
        ("spread", summary.spread, "quoted spread, bps of the mid price"),
        ("imbalance", summary.imbalance, "imbalance of sizes at the best quotes"),
    ):
        if histogram is not None:
            figure = distribution_figure(histogram, series, axis, logarithmic=name == "spread")
            if figure["data"]:
                figures[name] = figure
    if summary.correlation is not None:
        few = len(summary.correlation.names) <= NUMBERED_CELLS
        figures["returns"] = correlation_figure(summary.correlation, numbers=few)
    if summary.features is not None:
        few = len(summary.features.names) <= NUMBERED_CELLS
        figures["features"] = correlation_figure(summary.features, numbers=few)
    return figures


def _plotted(research: Research) -> list[int]:
    """The series with plots, those with most rows first."""
    chosen = set(research.summary.plotted)
    return [code for code in research.summary.table["code"] if code in chosen]


def _content(research: Research, figures: dict[str, Figure]) -> dict[str, Any]:
    summary = research.summary
    table = summary.table
    start, end = table["start"].min(), table["end"].max()
    return {
        "version": metadata.version("gpukern"),
        "research": research,
        "summary": summary,
        "facts": [
            ("rows", f"{summary.rows:,}"),
            ("series", f"{len(table):,}"),
            ("features", f"{len(research.features):,}"),
            ("from", _moment(start)),
            ("to", _moment(end)),
            ("computed in", f"{research.seconds:.1f} s on {research.device}"),
        ],
        "columns": COLUMNS,
        "table_rows": [
            (
                summary.labels[row["code"]],
                [cell_text(column, row[column.name]) for column in COLUMNS],
            )
            for row in table.head(TABLE_ROWS).iter_rows(named=True)
        ],
        "rows_hidden": max(0, len(table) - TABLE_ROWS),
        "figures": figures,
        "plotted": [summary.labels[code] for code in _plotted(research)],
        "step": _duration(summary.plot_step_s),
        "quality": [
            (item.column, item.kind, item.nulls, item.nulls / summary.rows, item.is_feature)
            for item in summary.quality
        ],
    }


def _moment(value: Any) -> str:
    return "–" if value is None else value.strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    """A bucket's length in the largest unit that keeps it readable."""
    for unit, length in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms"
