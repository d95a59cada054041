"""What every benchmark shares: the machine, interleaved medians, copy bandwidth, results."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "numpy",
    "numba",
    "pyarrow",
    "polars",
    "pandas",
    "TA-Lib",
    "numbagg",
    "bottleneck",
    "duckdb",
)

console = Console(highlight=False, width=max(100, Console().width))


def machine() -> dict[str, Any]:
    """The machine in words, without names that identify it, and the versions that were timed."""
    cores = len(os.sched_getaffinity(0))
    model, virtual = platform.machine(), False
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() == "flags":
            virtual = "hypervisor" in value.split()
    return {
        "name": f"{cores}-core {model}{' VM' if virtual else ''}",
        "memory_gb": round(memory_bytes / 1e9),
        "python": platform.python_version(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {name: found[name] for name in LIBRARIES if name in found}


def interleaved(
    runs: Mapping[str, Callable[[], object]], *, repeats: int, warmups: int = 1
) -> dict[str, list[float]]:
    """Seconds of each run, taken in turn (A B A B …) so that a slow spell of the machine hits all.

    ``warmups`` untimed rounds come first: compilation, page faults and thread pools are the subject
    of the ``cold`` benchmark, not of the others.
    """
    for _ in range(warmups):
        for run in runs.values():
            run()
            wait_until_idle()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            gc.collect()
            start = time.perf_counter()
            result = run()
            seconds[name].append(time.perf_counter() - start)
            del result
            wait_until_idle()
    return seconds


def wait_until_idle(window_s: float = 0.1, share: float = 0.02, most_s: float = 3.0) -> None:
    """Until this process has all but rested for a while.

    Allocators give memory back to the system in threads of their own, for a second after a large
    result is dropped. That is work of the run before, and would be charged to the next one.
    """
    deadline = time.perf_counter() + most_s
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(window_s)
        if time.process_time() - before < share * window_s:
            return


def median(seconds: Sequence[float]) -> float:
    return statistics.median(seconds)


@numba.njit(parallel=True, nogil=True)
def _copy(source: np.ndarray, target: np.ndarray) -> None:
    for i in numba.prange(source.size):
        target[i] = source[i]


def copy_bandwidth(size_bytes: int = 512 << 20, repeats: int = 7) -> float:
    """Bytes per second, read plus written, that all cores together copy from memory to memory.

    The better of a compiled parallel loop and ``np.copyto``; "share of copy" refers to it.
    """
    source = np.ones(size_bytes // 8)
    target = np.zeros_like(source)
    seconds = interleaved(
        {"loop": lambda: _copy(source, target), "copyto": lambda: np.copyto(target, source)},
        repeats=repeats,
    )
    return 2 * source.nbytes / min(median(times) for times in seconds.values())


def write_result(name: str, payload: dict[str, Any]) -> Path:
    """Writes ``results/<name>.json``; the machine is part of the result."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"benchmark": name, "machine": machine(), **payload}, indent=1)
    path.write_text(text + "\n")
    console.print(
        f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}"
    )
    return path


def print_machine() -> None:
    about = machine()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    console.print(f"{about['name']}, {about['memory_gb']} GB, Python {about['python']}; {versions}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table; every column but the first is right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def significant(value: float, digits: int = 3) -> float:
    """Rounded for print and for JSON: nobody measures more digits than these."""
    return float(f"{value:.{digits}g}")
