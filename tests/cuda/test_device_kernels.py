"""Every registered kernel gives the CPU's bits on the CUDA simulator: a loop over the registry."""

from __future__ import annotations

from functools import cache
from typing import Any

import checks
import numpy as np
import pyarrow as pa
import pytest
import samples
from device_checks import check_run, check_stream

from gpukern import kernel

KERNELS = kernel.kernels()
each_kernel = pytest.mark.parametrize("name", KERNELS)

# Pieces of no row, one row, a few (one thread per symbol) and many (chunks of one symbol's rows);
# host and device have each other's snapshot after the third and the sixth.
CUTS = [0, 1, 30, 60, 61, 300, 520]
SWAPS = (2, 5)


def market() -> pa.Table:
    """Every fault there is, one symbol longer than two blocks and the longest window."""
    parts, holes = samples.symbol_parts(rows=70, long_rows=300)
    order = np.concatenate([[s] * len(p["ts"]) for s, p in parts.items()])
    np.random.default_rng(2).shuffle(order)
    return samples.table(parts, order=order, holes=holes)


MARKET = market()


@cache
def subject(name: str) -> checks.Subject:
    return checks.Subject(KERNELS[name])


@each_kernel
def test_batch_and_stream_give_the_cpu_s_bits_and_snapshots(name: str) -> None:
    for plan in (subject(name).plan, subject(name).propagating):
        check_run(plan, MARKET, "cudasim")
        check_stream(plan, MARKET, "cudasim", CUTS, SWAPS)


@each_kernel
def test_one_thread_per_symbol_gives_the_bits_of_many(name: str, undivided: Any) -> None:
    for plan in (subject(name).plan, subject(name).propagating):
        check_run(plan, MARKET, undivided.name)
