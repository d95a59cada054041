"""From process start to the first feature, with an empty and with a filled compile cache.

``python -m bench cold [--repeats 5]``: a new interpreter each time, from before it is spawned until
it has the values. The rival is polars computing the same first feature in a new interpreter.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from .harness import console, median, print_machine, print_table, significant, write_result

TARGET_WARM_S = 1.5

# From a file: pyarrow imports pandas to make columns of lists, which takes 0.3 s.
ROWS = """
import sys
import pyarrow as pa
table = pa.ipc.open_file(pa.memory_map(sys.argv[1])).read_all()
"""
CLOCK = "import time; print(time.monotonic())\n"

PROGRAMS = {
    "one feature": "import gpukern as gk"
    + ROWS
    + 'gk.with_features(table, gk.log_returns("price"), by="symbol", time="ts")\n'
    + CLOCK,
    "48 columns": "import gpukern as gk"
    + ROWS
    + 'gk.with_features(table, *gk.default_features(), by="symbol", time="ts")\n'
    + CLOCK,
    "48 columns, gk.warmup before": "import gpukern as gk"
    + ROWS
    + 'plan = gk.Plan(gk.default_features(), by="symbol", time="ts")\n'
    + "gk.warmup(plan)\n"
    + "plan.run(table)\n"
    + CLOCK,
}
POLARS = (
    "import polars as pl"
    + ROWS
    + 'pl.from_arrow(table).select(pl.col("price").log().diff().over("symbol"))\n'
    + CLOCK
)


def rows() -> pa.Table:
    """What the programs read."""
    prices = pa.array([100.0 + i % 7 for i in range(1000)])
    return pa.table(
        {
            "ts": pa.array(range(1000)).cast(pa.timestamp("ns", tz="UTC")),
            "symbol": pa.array(["BTC/USD"] * 1000).dictionary_encode(),
            **dict.fromkeys(("price", "size", "bid", "ask", "bid_size", "ask_size"), prices),
            "side": pa.array([1, -1] * 500, pa.int8()),
        }
    )


def seconds_to_feature(program: str, cache: Path) -> float:
    """Seconds from before the spawn; CLOCK_MONOTONIC is one clock for both processes."""
    environment = {
        **os.environ,
        "GPUKERN_CACHE_DIR": str(cache / "gpukern"),
        "NUMBA_CACHE_DIR": str(cache / "numba"),
    }
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(cache / "rows.arrow")],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(done.stdout.split()[-1]) - start


def measure(name: str, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cache, table = Path(folder), rows()
        with pa.ipc.new_file(str(cache / "rows.arrow"), table.schema) as file:
            file.write_table(table)
        cold = seconds_to_feature(PROGRAMS[name], cache)
        warm, polars = [], []
        for _ in range(repeats):
            warm.append(seconds_to_feature(PROGRAMS[name], cache))
            polars.append(seconds_to_feature(POLARS, cache))
    return {
        "what": name,
        "cold_s": significant(cold),
        "warm_s": significant(median(warm)),
        "polars_one_feature_s": significant(median(polars)),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench cold", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print_machine()
    cases = [measure(name, options.repeats) for name in PROGRAMS]
    print_table(
        f"cold: seconds from process start, warm ones medians of {options.repeats}",
        ["", "empty cache", "filled cache", "polars, one feature"],
        [
            (
                case["what"],
                f"{case['cold_s']:.2f}",
                f"{case['warm_s']:.2f}",
                f"{case['polars_one_feature_s']:.2f}",
            )
            for case in cases
        ],
    )
    met = cases[0]["warm_s"] < TARGET_WARM_S
    console.print(f"first feature within {TARGET_WARM_S} s, filled cache: {'yes' if met else 'NO'}")
    write_result("cold", {"cases": cases})
