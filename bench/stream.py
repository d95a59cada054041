"""``push`` of small and large batches with all 48 columns: latency and rows per second.

``python -m bench stream [--pushes 2000]``: 1, 100 and 10,000 rows a batch, 14 and 2,000 symbols.
Every batch is an Arrow record batch with a dictionary of its own, as a decoder makes them. What is
pushed is checked to equal ``Plan.run`` over the same rows, bit for bit. The rival has no state, so
it recomputes: polars, the 42 columns it can express, over the last 400 rows of one symbol.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

import gpukern as gk

from . import polars_features as rival
from .data import ticker
from .harness import console, median, print_machine, print_table, significant, write_result

SYMBOLS = (14, 2_000)
BATCH_ROWS = (1, 100, 10_000)
HISTORY_ROWS = 200_000
"""Pushed before the clock starts: windows are full and buffers have grown."""
RECOMPUTED_ROWS = 400
LARGEST_RUN_ROWS = 2_000_000
ROUNDS = 3
"""Medians of so many: on shared cores one round in a few is disturbed."""
# Latency with p99 above these misses the target; large batches are judged by rows per second.
TARGET_P99_US = {1: 1_000, 100: 1_500}
TARGET_ROWS_PER_S = 2_000_000


def batches_of(table: pa.Table, rows: int) -> list[pa.RecordBatch]:
    """The table cut into batches, each with a dictionary of just its symbols."""
    cut = []
    for start in range(0, table.num_rows, rows):
        piece = table.slice(start, rows)
        names = piece["symbol"].combine_chunks().cast(pa.string()).dictionary_encode()
        columns = [
            names if name == "symbol" else piece[name].combine_chunks()
            for name in table.schema.names
        ]
        cut.append(pa.record_batch(columns, names=table.schema.names))
    return cut


def measure(symbols: int, batch_rows: int, pushes: int) -> dict[str, Any]:
    pushes = max(20, min(pushes, LARGEST_RUN_ROWS // batch_rows))
    table = ticker(symbols, HISTORY_ROWS + pushes * batch_rows)
    plan = gk.Plan(gk.default_features(), by="symbol", time="ts")
    job = plan.start()
    history = table.slice(0, HISTORY_ROWS).combine_chunks()
    for batch in history.to_batches(max_chunksize=10_000):
        job.push(batch)
    batches = batches_of(table.slice(HISTORY_ROWS), batch_rows)
    for batch in batches[: len(batches) // 10]:  # this size's own code paths, untimed
        job.push(batch)
    blob = job.snapshot()
    timed = batches[len(batches) // 10 :]
    # Large batches may use all cores, as a job of its own would; small ones gain nothing by it.
    threads = os.cpu_count() if batch_rows >= 10_000 else 1
    rounds = [push_all(plan.resume(blob, threads=threads), timed) for _ in range(ROUNDS)]
    again = plan.resume(blob, threads=threads)
    pushed = pa.Table.from_batches([again.push(batch) for batch in timed])
    require_equal_bits(plan, table, pushed)
    p50, p99, longest = (
        median([float(np.percentile(ns, q)) for ns in rounds]) / 1e3 for q in (50, 99, 100)
    )
    return {
        "symbols": symbols,
        "batch_rows": batch_rows,
        "columns": len(plan.output_names),
        "pushes": len(timed),
        "p50_us": significant(p50),
        "p99_us": significant(p99),
        "max_us": significant(longest),
        "rows_per_s": significant(
            len(timed) * batch_rows / median([ns.sum() for ns in rounds]) * 1e9
        ),
    }


def push_all(job: gk.Job, batches: list[pa.RecordBatch]) -> np.ndarray:
    """ns of each push."""
    nanoseconds = np.empty(len(batches))
    for i, batch in enumerate(batches):
        start = time.perf_counter_ns()
        job.push(batch)  # consumed at once: keeping every result would time the page faults of it
        nanoseconds[i] = time.perf_counter_ns() - start
    return nanoseconds


def require_equal_bits(plan: gk.Plan, table: pa.Table, pushed: pa.Table) -> None:
    whole = plan.run(table).slice(table.num_rows - pushed.num_rows)
    for name in plan.output_names:
        if not pushed[name].combine_chunks().equals(whole[name].combine_chunks()):
            raise AssertionError(f"{name}: pushed batches differ from Plan.run over the same rows")


def recomputation(repeats: int = 200) -> dict[str, Any]:
    """What one more row costs without state: the last rows of its symbol all over again."""
    frame = pl.from_arrow(ticker(1, RECOMPUTED_ROWS))
    assert isinstance(frame, pl.DataFrame)
    nanoseconds = np.empty(repeats)
    for i in range(-20, repeats):
        start = time.perf_counter_ns()
        rival.recompute(frame)
        nanoseconds[max(i, 0)] = time.perf_counter_ns() - start
    p50, p99 = np.percentile(nanoseconds, (50, 99)) / 1e3
    return {
        "what": f"polars, {len(rival.COLUMNS)} columns over the last {RECOMPUTED_ROWS} rows",
        "p50_us": significant(p50),
        "p99_us": significant(p99),
    }


def verdict(case: dict[str, Any]) -> str:
    if case["batch_rows"] in TARGET_P99_US:
        return "yes" if case["p99_us"] < TARGET_P99_US[case["batch_rows"]] else "NO"
    return "yes" if case["rows_per_s"] > TARGET_ROWS_PER_S else "NO"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench stream", description=__doc__)
    parser.add_argument("--pushes", type=int, default=2_000, help="pushes per case, at most")
    options = parser.parse_args(arguments)
    print_machine()
    again = recomputation()
    cases = [measure(symbols, rows, options.pushes) for symbols in SYMBOLS for rows in BATCH_ROWS]
    for case in cases:
        if case["batch_rows"] == 1:
            case["ratio"] = significant(again["p50_us"] / case["p50_us"])
    print_table(
        f"stream: push, {cases[0]['columns']} columns",
        ["symbols", "rows a batch", "p50 µs", "p99 µs", "rows/s", "target met"],
        [
            (
                f"{case['symbols']:,}",
                f"{case['batch_rows']:,}",
                f"{case['p50_us']:,.0f}",
                f"{case['p99_us']:,.0f}",
                f"{case['rows_per_s']:,.0f}",
                verdict(case),
            )
            for case in cases
        ],
    )
    console.print(
        f"rival, one row: {again['what']}: p50 {again['p50_us']:,.0f} µs, "
        + ", ".join(f"{case['ratio']:.0f} ×" for case in cases if "ratio" in case)
    )
    write_result("stream", {"cases": cases, "rival": again})
