"""Memory of a GPU: tables larger than it, running out of it, errors found by the sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import samples
from gpu_market import FEW, market

import gpukern as gk
from gpukern.errors import DeviceError

SMALL = Path(__file__).with_name("small_run.py")


@pytest.fixture
def pool() -> Iterator[Any]:
    """CuPy's pool, emptied, without a limit afterwards."""
    import cupy

    found = cupy.get_default_memory_pool()
    if cupy.cuda.get_allocator() != found.malloc:
        pytest.skip("extra cuda13 not installed alone: RMM allocates here, it has no limit to set")
    found.free_all_blocks()
    yield found
    found.set_limit(size=0)


def test_a_table_goes_in_pieces() -> None:
    plan = gk.Plan(gk.default_features())
    table = market(FEW, 1_000_000).select(plan.input_columns)
    job = plan.start(device="cuda")
    job.most_rows = 1 << 16
    samples.assert_same(job.run(table), plan.run(table), plan.output_names)


def test_out_of_memory_means_smaller_pieces_and_the_same_bits(pool: Any) -> None:
    plan = gk.Plan(gk.default_features())
    table = market(FEW, 1_000_000).select(plan.input_columns)
    job = plan.start(device="cuda")
    pool.set_limit(size=pool.used_bytes() + (512 << 20))
    samples.assert_same(job.run(table), plan.run(table), plan.output_names)
    assert 0 < job.most_rows < 1_000_000


def test_too_little_memory_for_anything_is_a_clear_error(pool: Any) -> None:
    plan = gk.Plan(gk.default_features())
    table = market(FEW, 200_000).select(plan.input_columns)
    job = plan.start(device="cuda")
    pool.set_limit(size=max(pool.used_bytes(), 1))
    with pytest.raises(DeviceError, match=r"out of memory .* use device='cpu'"):
        job.run(table)


@pytest.mark.parametrize("rows", [2_000, 200_000])
def test_a_push_without_memory_leaves_the_state(pool: Any, rows: int) -> None:
    plan = gk.Plan(gk.default_features())
    table = market(FEW, 300_000).select(plan.input_columns)
    job = plan.start(device="cuda")
    job.push(table.slice(0, 1_000))
    before = job.snapshot()
    pool.free_all_blocks()
    pool.set_limit(size=max(pool.used_bytes(), 1))
    with pytest.raises(DeviceError, match="out of memory"):
        job.push(table.slice(1_000, rows))
    pool.set_limit(size=0)
    assert job.snapshot() == before
    made = job.push(table.slice(1_000, rows))
    expected = plan.run(table.slice(0, 1_000 + rows))
    samples.assert_same(made, expected, plan.output_names, np.arange(1_000, 1_000 + rows))


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no GPU: compute-sanitizer is not on the PATH")
    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, str(SMALL)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
