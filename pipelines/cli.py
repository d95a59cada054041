"""The `gpukern` command: every subcommand reads its options and makes one library call."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from collectors.command import collect
from collectors.server.command import simulate

BAD_INPUT = 2


class Commands(click.Group):
    """Turns errors that the user can mend into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            if not _is_users_error(error):
                raise
            click.echo(f"Error: {_one_line(error)}", err=True)
            ctx.exit(BAD_INPUT)


def _is_users_error(error: ValueError | OSError) -> bool:
    """Errors of the three packages, and of the file system where they name a file."""
    if isinstance(error, OSError):
        return error.filename is not None
    known = (
        ("pipelines.errors", "PipelineError"),
        ("gpukern.errors", "Error"),
        ("collectors.errors", "CollectorError"),
    )
    # A module that was never imported cannot have raised; importing it here would cost start time.
    kinds = [getattr(sys.modules[module], name) for module, name in known if module in sys.modules]
    return isinstance(error, tuple(kinds))


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _on_terminate(number: int, frame: FrameType | None) -> NoReturn:
    # SystemExit unwinds the stack, so temporary files are removed.
    raise SystemExit(128 + number)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gpukern", message="%(prog)s %(version)s")
def main() -> None:
    """Crypto market data in; features, signals and backtests out.

    Start with `gpukern demo`. Bad input ends with one line on standard error and exit code 2; no
    partial output is left.
    """
    signal.signal(signal.SIGTERM, _on_terminate)


main.add_command(collect)
main.add_command(simulate)


@main.command()
@click.argument("raw", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--exchange", required=True, help="Whose messages they are, for example binance.")
@click.option("--parquet", required=True, type=click.Path(path_type=Path), help="Output folder.")
@click.option("--channels", help="Which to write, comma-separated.  [default: all]")
@click.option("--symbols", type=click.Path(path_type=Path), help="The exchange's symbol list.")
@click.option("--strict", is_flag=True, help="Stop at the first frame that cannot be decoded.")
def replay(
    raw: tuple[Path, ...],
    exchange: str,
    parquet: Path,
    channels: str | None,
    symbols: Path | None,
    strict: bool,
) -> None:
    """Decode raw recordings into canonical Parquet datasets.

    RAW are files of `<recv_ns> <json>` lines, plain, .gz or .zst. The datasets are
    PARQUET/{trades,ticker,book}/exchange=.../date=.../; replaying a recording again replaces its
    rows.
    """
    from collectors.replay import replay as run
    from pipelines.console import print_replay, progress_bar, stdout
    from pipelines.view import parse_names

    with progress_bar("replay", "bytes") as progress:
        report = run(
            raw,
            exchange,
            parquet,
            channels=parse_names(channels),
            symbols=symbols,
            strict=strict,
            progress=progress,
        )
    print_replay(stdout(), report, parquet)


@main.command()
@click.option("--parquet", type=click.Path(path_type=Path), help="A file, folder or dataset.")
@click.option("--csv", type=click.Path(path_type=Path), help="A CSV file with a header line.")
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="Parquet file."
)
@click.option(
    "--features",
    default="available",
    show_default=True,
    metavar="available|default|PLAN.toml",
    help="The standard features the columns allow; all 48 or an error; or those of a plan file.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Also write an HTML report.")
@click.option("--where", metavar="EXPR", help="Keep rows where this SQL expression is true.")
@click.option(
    "--map",
    "mapping",
    default="",
    metavar="NAME=COLUMN,…",
    help="Columns under other names: price=close,size=volume.",
)
@click.option(
    "--by",
    help="Columns that tell series apart, comma-separated, or none.  "
    "[default: exchange,symbol where present]",
)
@click.option("--time", help="Time column.  [default: recv_ts, else ts]")
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where to compute."
)
@click.option("--sort", is_flag=True, help="Sort by time first; holds the input in memory.")
def research(
    parquet: Path | None,
    csv: Path | None,
    output: Path,
    features: str,
    report: Path | None,
    where: str | None,
    mapping: str,
    by: str | None,
    time: str | None,
    device: str,
    sort: bool,
) -> None:
    """Compute features for a whole Parquet dataset or CSV file.

    The output has the input's rows and columns, then the features. Rows stream through, so the
    input may be larger than memory.

    \b
    gpukern research --parquet data/ticker --output features.parquet --report report.html
    gpukern research --csv bars.csv --time date --map price=close,size=volume --output out.parquet
    gpukern research --parquet data/ticker --where "symbol = 'BTC/USDT'" --output btc.parquet
    """
    from pipelines.console import print_research, progress_bar, stdout
    from pipelines.research import research as run
    from pipelines.sources import open_source
    from pipelines.view import parse_mapping, parse_names

    mapped = parse_mapping(mapping)
    source = open_source(parquet=parquet, csv=csv, numeric=mapped.values())
    with progress_bar("features") as progress:
        result = run(
            source,
            output,
            features=features,
            by=parse_names(by),
            time=time,
            mapping=mapped,
            where=where,
            report=report,
            device=device,
            sort=sort,
            progress=progress,
        )
    print_research(stdout(), result)


@main.command()
@click.argument("name", required=False)
def kernels(name: str | None) -> None:
    """List the kernels, or explain the one called NAME."""
    from pipelines.catalogue import all_kernels, find_kernel
    from pipelines.console import print_kernel, print_kernels, stdout

    if name is None:
        print_kernels(stdout(), all_kernels())
    else:
        print_kernel(stdout(), find_kernel(name))


@main.command()
def doctor() -> None:
    """Say what is installed, which devices there are, which extras are missing."""
    from pipelines.console import print_findings, stdout
    from pipelines.doctor import examine

    print_findings(stdout(), examine())


@main.command()
@click.option(
    "--features",
    default="default",
    show_default=True,
    metavar="default|PLAN.toml",
    help="What to compile.",
)
@click.option(
    "--device", default="cpu", show_default=True, metavar="cpu|cuda", help="What to compile for."
)
@click.option("--arch", metavar="sm_NN", help="Of the GPU, with --device cuda: sm_90, sm_80, …")
def warmup(features: str, device: str, arch: str | None) -> None:
    """Compile what a plan needs, so that later runs start at once.

    With --device cuda this needs neither a GPU nor a driver: an image can be built anywhere.
    """
    from pipelines.console import print_warmup, progress_bar, stdout
    from pipelines.warmup import warmup as run

    with progress_bar("compile", "functions") as progress:
        result = run(features, progress, device=device, arch=arch)
    print_warmup(stdout(), result)


@main.command()
@click.option(
    "--output",
    "-o",
    default="demo-output",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for the results.",
)
def demo(output: Path) -> None:
    """Collect from a simulated exchange, compute the default features, write a report."""
    from pipelines.console import print_demo, progress_bar, stdout
    from pipelines.demo import demo as run

    with progress_bar("features") as progress:
        result = run(output, progress)
    print_demo(stdout(), result)
