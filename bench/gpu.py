"""The GPU: share of copy bandwidth per kernel, the 48 default columns, latency, crossover.

``python -m bench gpu [--rows 20000000] [--repeats 5] [--quick]``: 14 and 10,000 symbols interleaved
at random, against this project's CPU path on all cores of the same machine. Needs a GPU; the first
run also compiles every kernel (minutes, then cached on disk).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

import gpukern as gk
from gpukern import backend

from .data import ticker
from .gpu_device import Device, Resident, arguments_of
from .gpu_rivals import measure_rivals
from .harness import (
    console,
    interleaved,
    machine,
    median,
    print_table,
    significant,
    write_result,
)

FEW, MANY = 14, 10_000
LIVE_SYMBOLS = 4_000
DEVICES = {"gpu": "cuda", "cpu": "cpu"}
SIZES = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20)


def measure_kernels(device: Device, table: pa.Table, symbols: int, repeats: int) -> list[dict]:
    """Per kernel: its own launches, and the whole work on columns that are on the device."""
    found = []
    for name, kernel in gk.kernels().items():
        plan = gk.Plan([kernel(**arguments_of(kernel))], time="ts")
        run = Resident(device, plan, table)
        whole, steps = run.seconds(repeats)
        forms = sorted({step.kernel.form for step in plan.steps})
        found.append(
            {
                "kernel": name,
                "forms": forms,
                "symbols": symbols,
                "rows": table.num_rows,
                "step_rows_per_s": significant(table.num_rows / steps),
                "step_copy_share": significant(run.step_bytes / steps / device.copy),
                "rows_per_s": significant(table.num_rows / whole),
                "copy_share": significant(run.bytes / whole / device.copy),
            }
        )
    return found


def same_bits(ours: pa.Table, theirs: pa.Table, names: list[str]) -> None:
    """Raises unless the columns agree in every bit; no time is reported for other results."""
    for name in names:
        one, two = (t[name].combine_chunks() for t in (ours, theirs))
        valid = np.asarray(one.is_valid())
        filled = [pa.compute.fill_null(c.cast(pa.float64()), 0.0).to_numpy() for c in (one, two)]
        bits = [f.view(np.int64) for f in filled]
        if not (np.array_equal(valid, np.asarray(two.is_valid())) and np.array_equal(*bits)):
            raise AssertionError(f"{name}: the GPU's bits are not the CPU's")


def measure_features(device: Device, table: pa.Table, symbols: int, repeats: int) -> dict[str, Any]:
    """The 48 default columns: on the device, from host memory and back, on the CPU."""
    plan = gk.Plan(gk.default_features(), time="ts")
    narrow = table.select(plan.input_columns)
    same_bits(plan.run(narrow, device="cuda"), plan.run(narrow), plan.output_names)
    run = Resident(device, plan, table)
    whole, _ = run.seconds(repeats)
    runs = {name: partial(plan.run, narrow, device=on) for name, on in DEVICES.items()}
    seconds = {name: median(times) for name, times in interleaved(runs, repeats=repeats).items()}
    copied = run.bytes_in / device.to_device + run.bytes_out / device.to_host
    return {
        "symbols": symbols,
        "rows": table.num_rows,
        "columns": len(plan.output_names),
        "on_device_rows_per_s": significant(table.num_rows / whole),
        "on_device_copy_share": significant(run.bytes / whole / device.copy),
        "end_to_end_rows_per_s": significant(table.num_rows / seconds["gpu"]),
        "end_to_end_share_of_pinned_copies": significant(copied / seconds["gpu"]),
        "cpu_rows_per_s": significant(table.num_rows / seconds["cpu"]),
        "ratio_on_device": significant(seconds["cpu"] / whole),
        "ratio_end_to_end": significant(seconds["cpu"] / seconds["gpu"]),
    }


def _push_next(job: gk.Job, batches: Iterator[pa.Table]) -> pa.Table:
    return job.push(next(batches))


def measure_latency(pushes: int) -> dict[str, Any]:
    """A micro-batch of one row for each of 4,000 symbols, 48 columns, host to host."""
    plan = gk.Plan(gk.default_features(), time="ts")
    rows = LIVE_SYMBOLS * (pushes + 10)
    table = ticker(LIVE_SYMBOLS, rows).select(plan.input_columns)
    names = pa.array([f"COIN{i}/USD" for i in range(LIVE_SYMBOLS)])
    codes = np.tile(np.arange(LIVE_SYMBOLS, dtype=np.int32), pushes + 10)
    table = table.set_column(0, "symbol", pa.DictionaryArray.from_arrays(pa.array(codes), names))
    batches = [table.slice(at, LIVE_SYMBOLS) for at in range(0, rows, LIVE_SYMBOLS)]
    made: dict[str, Any] = {"symbols": LIVE_SYMBOLS, "columns": len(plan.output_names)}
    for name, job in (("gpu", plan.start(device="cuda")), ("cpu", plan.start(threads=None))):
        push = partial(_push_next, job, iter(batches))
        times = interleaved({"push": push}, repeats=pushes, warmups=10)["push"]
        made[f"{name}_median_ms"] = significant(1e3 * median(times))
        made[f"{name}_p99_ms"] = significant(1e3 * float(np.quantile(times, 0.99)))
    return made


def measure_crossover(repeats: int) -> dict[str, Any]:
    """From how many rows on the GPU wins, host memory to host memory."""
    plan = gk.Plan(gk.default_features(), time="ts")
    points = []
    for rows in SIZES:
        table = ticker(FEW, rows).select(plan.input_columns)
        seconds = interleaved(
            {name: partial(plan.run, table, device=on) for name, on in DEVICES.items()},
            repeats=repeats,
        )
        points.append({"rows": rows, **{n: significant(median(t)) for n, t in seconds.items()}})
    wins = [p["gpu"] < p["cpu"] for p in points]
    first = next((p["rows"] for p, w in zip(points, wins, strict=True) if w), None)
    return {"rows": first, "points": points}


def show(result: dict[str, Any]) -> None:
    """What was measured, as tables."""
    print_table(
        "kernels: share of the device's copy bandwidth",
        ["kernel", "form", "symbols", "rows/s", "of copy", "with grouping", "of copy"],
        [
            (
                k["kernel"],
                "+".join(k["forms"]),
                f"{k['symbols']:,}",
                f"{k['step_rows_per_s'] / 1e9:.2f} G",
                f"{k['step_copy_share']:.0%}",
                f"{k['rows_per_s'] / 1e9:.2f} G",
                f"{k['copy_share']:.0%}",
            )
            for k in result["kernels"]
        ],
    )
    print_table(
        "the default columns",
        ["symbols", "on the device", "end to end", "CPU", "× on device", "× end to end"],
        [
            (
                f"{c['symbols']:,}",
                f"{c['on_device_rows_per_s'] / 1e6:.0f} M/s",
                f"{c['end_to_end_rows_per_s'] / 1e6:.1f} M/s",
                f"{c['cpu_rows_per_s'] / 1e6:.1f} M/s",
                f"{c['ratio_on_device']:.1f}",
                f"{c['ratio_end_to_end']:.1f}",
            )
            for c in result["features"]
        ],
    )
    live = result["latency"]
    console.print(
        f"micro-batch of {live['symbols']:,} rows: GPU {live['gpu_median_ms']} ms (p99 "
        f"{live['gpu_p99_ms']}), CPU {live['cpu_median_ms']} ms (p99 {live['cpu_p99_ms']})"
    )
    console.print(f"the GPU wins from {result['crossover']['rows']} rows on")
    for rival in result["rivals"]:
        console.print(f"{rival['what']}: {rival['ratio']} × {rival['rival']}")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 M rows, 3 repeats, no kernels")
    options = parser.parse_args(arguments)
    missing = backend.what_is_missing()
    if missing:
        print(f"bench gpu needs a GPU: {missing}", file=sys.stderr)
        raise SystemExit(2)
    rows, repeats = (2_000_000, 3) if options.quick else (options.rows, options.repeats)
    device = Device()
    console.print(
        f"{backend.describe()}: copy {device.copy / 1e9:.0f} GB/s (read + written), pinned "
        f"{device.to_device / 1e9:.1f} GB/s in, {device.to_host / 1e9:.1f} GB/s out"
    )
    kernels: list[dict[str, Any]] = []
    features = []
    for symbols in (FEW, MANY):
        table = ticker(symbols, rows)
        features.append(measure_features(device, table, symbols, repeats))
        if not options.quick:
            kernels += measure_kernels(device, table, symbols, repeats)
        del table
    result = {
        "machine": {**machine(), "gpu": backend.describe(), "compiler": backend.compiler_version()},
        "copy_bytes_per_s": significant(device.copy),
        "pinned_to_device_bytes_per_s": significant(device.to_device),
        "pinned_to_host_bytes_per_s": significant(device.to_host),
        "features": features,
        "kernels": kernels,
        "latency": measure_latency(50 if options.quick else 500),
        "crossover": measure_crossover(repeats),
        "rivals": measure_rivals(device, rows, repeats),
    }
    show(result)
    write_result("gpu", result)
