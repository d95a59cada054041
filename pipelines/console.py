"""Results as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipelines.statistics import COLUMNS, cell_text

if TYPE_CHECKING:
    from pathlib import Path

    from collectors.replay import ReplayReport
    from gpukern.kernel import Kernel
    from pipelines.correlation import Correlation
    from pipelines.demo import Demo
    from pipelines.doctor import Finding
    from pipelines.research import Research
    from pipelines.warmup import Warmup

SERIES_SHOWN = 20
CORRELATIONS_SHOWN = 10


def stdout() -> Console:
    """Standard output; wide enough for whole tables where it is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


@contextmanager
def progress_bar(label: str, unit: str = "rows") -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, on a terminal only; yields `update(done, total)`."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}" + f" {unit}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_replay(console: Console, report: ReplayReport, folder: Path) -> None:
    """What a replay read and wrote."""
    _say(console, f"{report.frames:,} frames")
    for channel, rows in report.rows.items():
        _say(console, f"{rows:>12,} rows  {folder / channel}")
    if report.errors:
        _say(console, f"{report.errors:,} frames could not be decoded and are in no dataset:")
        for example in report.error_examples:
            _say(console, f"  {example}")
    for stream, frames in report.ignored.items():
        _say(console, f"note: {frames:,} frames of {stream}, which is not decoded")
    if report.truncated:
        _say(console, f"note: {report.truncated} recordings end in an unfinished line, left out")
    if report.clock_steps_back:
        _say(
            console, f"note: {report.clock_steps_back} frames had a receive time that stepped back"
        )


def print_warmup(console: Console, result: Warmup) -> None:
    """What is compiled now, and where."""
    _say(console, f"{result.features} features ready in {result.seconds:.1f} s ({result.folder})")


def print_demo(console: Console, result: Demo) -> None:
    """What was collected, the research table and where to look."""
    feed, rows = result.collected.feed, result.collected.rows
    counted = ", ".join(f"{count:,} {channel}" for channel, count in sorted(rows.items()))
    _say(console, f"collected {feed.frames:,} messages: {counted} rows; {feed.gaps} gaps")
    print_research(console, result.research)
    _say(console, f"market data  {result.data}")
    _say(console, f"\nOpen {result.research.report} in a browser.")


def print_research(console: Console, research: Research) -> None:
    """Statistics per series, correlation of returns, notes, and where the files are."""
    summary = research.summary
    columns = [c for c in COLUMNS if c.brief and summary.table[c.name].is_not_null().any()]
    table = _table("series", *(c.heading for c in columns))
    for row in summary.table.head(SERIES_SHOWN).iter_rows(named=True):
        cells = [cell_text(column, row[column.name]) for column in columns]
        table.add_row(summary.labels[row["code"]], *cells)
    console.print(table)
    hidden = len(summary.table) - SERIES_SHOWN
    if hidden > 0:
        _say(console, f"and {hidden} more series with fewer rows")
    if summary.correlation is not None:
        _print_correlation(console, summary.correlation)
    for note in research.notes:
        _say(console, f"note: {note}")
    _say(
        console,
        f"{summary.rows:,} rows, {len(research.features)} features in {research.seconds:.1f} s "
        f"on {research.device}",
    )
    _say(console, f"features  {research.output}")
    if research.report is not None:
        _say(console, f"report    {research.report}")


def _print_correlation(console: Console, correlation: Correlation) -> None:
    names = correlation.names[:CORRELATIONS_SHOWN]
    _say(console, f"correlation of returns on a clock of {correlation.step_s:g} s")
    table = _table("", *names)
    for name, row in zip(names, correlation.matrix, strict=False):
        cells = ["–" if value != value else f"{value:+.2f}" for value in row[: len(names)]]
        table.add_row(name, *cells)
    console.print(table)


def print_kernels(console: Console, kernels: Sequence[Kernel]) -> None:
    """The catalogue: one line per kernel."""
    table = _table("kernel", "form", "outputs", "what it is", numbers=False)
    for kernel in kernels:
        outputs = ", ".join(output.name for output in kernel.outputs)
        table.add_row(kernel.name, kernel.form, outputs, kernel.doc.split("\n", 1)[0])
    console.print(table)
    _say(console, f"{len(kernels)} kernels; gpukern kernels NAME explains one")


def print_kernel(console: Console, kernel: Kernel) -> None:
    """Everything the registry knows about a kernel."""
    _say(console, f"gk.{kernel.signature}\n")
    _say(console, f"{kernel.doc}\n")
    table = _table("output", "type", "unit", "first valid row", numbers=False)
    for output, first in zip(kernel.outputs, kernel.first, strict=True):
        table.add_row(output.name, output.dtype, output.unit, first)
    console.print(table)
    _say(console, f"form    {kernel.form}\nfamily  {kernel.family}\nsource  {kernel.source or '–'}")


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """The doctor's report."""
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        remedy = f"  ->  {finding.remedy}" if finding.remedy else ""
        _say(console, f"{finding.topic:<{width}}  {finding.value}{remedy}")


def _table(first: str, *headings: str, numbers: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right" if numbers else "left", no_wrap=numbers)
    return table


def _say(console: Console, text: Any) -> None:
    """Print as it is: names and paths may hold what rich would read as markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
