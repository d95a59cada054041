"""Streams on a GPU: micro-batches, snapshots that either side resumes, guesses that are wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import checks
import numpy as np
import pyarrow as pa
import pytest
import samples
from device_checks import check_stream, plans
from gpu_market import FEW, MANY, market

import gpukern as gk
from gpukern import kernel

KERNELS = kernel.kernels()


@pytest.mark.parametrize("name", KERNELS)
def test_snapshots_are_exchanged_byte_for_byte(name: str) -> None:
    subject = checks.Subject(KERNELS[name])
    cuts = [0, 1, 50, 3_000, 90_000]
    for plan in (subject.plan, subject.propagating):
        check_stream(plan, market(FEW, 200_000), "cuda", cuts, swaps=(2, 4))


@pytest.mark.parametrize("symbols", [FEW, MANY])
def test_micro_batches_of_the_default_features(symbols: int) -> None:
    table = market(symbols, 200_000)
    for plan in plans(gk.default_features()):
        narrow = table.select(plan.input_columns).slice(0, 40_000)
        job = plan.start(device="cuda")
        edges = [0, *np.sort(np.random.default_rng(3).integers(0, 40_000, 200)).tolist(), 40_000]
        made = [job.push(narrow.slice(a, b - a)) for a, b in pairwise(edges)]
        samples.assert_same(pa.concat_tables(made), plan.run(narrow), plan.output_names)


def test_batches_of_like_length_repeat_one_graph() -> None:
    plan = gk.Plan(gk.default_features())
    table = market(FEW, 200_000).select(plan.input_columns)
    job: Any = plan.start(device="cuda")
    made = [job.push(table.slice(0, 1_000))]
    made += [job.push(table.slice(1_000 + 60 * n, 60)) for n in range(50)]
    (push,) = [p for p in job.pushes.values() if p.rows == 64]
    assert push.repeat is not None
    samples.assert_same(pa.concat_tables(made), plan.run(table.slice(0, 4_000)), plan.output_names)


@pytest.mark.parametrize("window", ["1s", "60s", "1h"])
@pytest.mark.parametrize("name", ["rolling_mean", "rolling_median"])
def test_windows_wide_for_their_chunks(name: str, window: str) -> None:
    pushed(gk.kernels()[name]("price", window=window))


@pytest.mark.parametrize("window", [1, 31, 128, 129, 3_000])
def test_windows_in_order_of_any_length(window: int) -> None:
    pushed(gk.rolling_median("price", window=window, min_periods=1))


def pushed(expr: Any) -> Any:
    plan = gk.Plan([expr])
    table = market(FEW, 1_000_000).select(plan.input_columns)
    job = plan.start(device="cuda")
    samples.assert_same(job.push(table), plan.run(table), plan.output_names)
    return job


def test_guesses_that_converge_need_no_repair() -> None:
    assert pushed(gk.kalman_1d("price")).repaired == {"kalman_1d": 0}


def test_guesses_that_cannot_converge_still_give_the_bits() -> None:
    assert pushed(gk.cusum("price", calib=10, reset=False)).repaired["cusum"] > 0
