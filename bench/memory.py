"""Peak resident memory of a large Parquet through ``gpukern research``, and of ``Plan.run``.

``python -m bench memory [--rows 50000000] [--run-rows 5000000] [--folder DIR]``: writes the Parquet
into a temporary folder first (about 16 bytes a row; the output needs up to 400). Every figure is
the high-water mark of a process of its own. The rival of ``Plan.run`` is polars on the columns it
can express.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .data import FIRST_NS, MEAN_GAP_NS, ticker
from .harness import console, print_machine, print_table, significant, write_result

GROUP_ROWS = 500_000
TARGET_STREAM_MB = 1_500
TARGET_RUN_MB = 300

MARK = """
def mark(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024
"""
RESEARCH = (
    MARK
    + """
import sys
from pipelines.cli import main
main(["research", "--parquet", sys.argv[1], "--output", sys.argv[2], "--time", "ts"],
     standalone_mode=False)
print(mark("VmHWM"))
"""
)
# Writing 5 to clear_refs resets the high-water mark, so that only the run itself is seen.
RUN = (
    MARK
    + """
import sys
from bench.data import ticker
table = ticker(14, int(sys.argv[1]))
small = table.slice(0, 20_000)
{setup}
compute(small)
open("/proc/self/clear_refs", "w").write("5")
before = mark("VmRSS")
out = compute(table)
print(mark("VmHWM") - before - size(out))
"""
)
GPUKERN = RUN.format(
    setup="""
import gpukern as gk
plan = gk.Plan(gk.default_features(), by="symbol", time="ts")
compute = plan.run
def size(out):
    return sum(out[name].nbytes for name in plan.output_names)
"""
)
POLARS = RUN.format(
    setup="""
import polars as pl
from bench import polars_features
whole = pl.from_arrow(table)
def compute(rows):
    return polars_features.over(whole if rows is table else pl.from_arrow(rows))
def size(out):
    return out.estimated_size()
"""
)


def write_parquet(path: Path, symbols: int, rows: int) -> None:
    """Ticker rows by row groups, so that the generator too stays small."""
    writer = None
    for number, start in enumerate(range(0, rows, GROUP_ROWS)):
        count = min(GROUP_ROWS, rows - start)
        # Twice the mean gap is the largest, so the groups cannot overlap in time.
        first_ns = FIRST_NS + 2 * MEAN_GAP_NS * start
        group = ticker(symbols, count, quote_only=0.75, seed=number, first_ns=first_ns)
        writer = writer or pq.ParquetWriter(path, group.schema, compression="zstd")
        writer.write_table(group)
    if writer is not None:
        writer.close()


def child(program: str, *arguments: object) -> int:
    """Runs the program and returns the integer it printed last."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(done.stdout.split()[-1])


def streamed(rows: int, folder: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, output = Path(scratch, "ticker.parquet"), Path(scratch, "features.parquet")
        console.print(f"writing {rows:,} rows …")
        write_parquet(source, 14, rows)
        start = time.perf_counter()
        peak = child(RESEARCH, source, output)
        seconds = time.perf_counter() - start
        written = pq.read_metadata(output).num_rows
        if written != rows:
            raise AssertionError(f"gpukern research wrote {written:,} rows of {rows:,}")
        return {
            "rows": rows,
            "input_mb": round(source.stat().st_size / 1e6),
            "output_mb": round(output.stat().st_size / 1e6),
            "peak_mb": round(peak / 1e6),
            "rows_per_s": significant(rows / seconds),
        }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000_000, help="rows streamed")
    parser.add_argument("--run-rows", type=int, default=5_000_000, help="rows of Plan.run")
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    options = parser.parse_args(arguments)
    print_machine()
    ours = round(child(GPUKERN, options.run_rows) / 1e6)
    theirs = round(child(POLARS, options.run_rows) / 1e6)
    stream = streamed(options.rows, options.folder)
    print_table(
        "memory: peak resident set",
        ["", "rows", "MB", "target", "met"],
        [
            (
                "gpukern research, whole process",
                f"{stream['rows']:,}",
                f"{stream['peak_mb']:,}",
                f"{TARGET_STREAM_MB:,}",
                "yes" if stream["peak_mb"] < TARGET_STREAM_MB else "NO",
            ),
            (
                "Plan.run, 48 columns, above input + output",
                f"{options.run_rows:,}",
                f"{ours:,}",
                f"{TARGET_RUN_MB:,}",
                "yes" if ours < TARGET_RUN_MB else "NO",
            ),
            ("polars, 42 columns, above input + output", f"{options.run_rows:,}", f"{theirs:,}"),
        ],
    )
    run = {"rows": options.run_rows, "gpukern_mb": ours, "polars_mb": theirs}
    write_result("memory", {"stream": stream, "run": run})
