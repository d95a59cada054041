"""Cumulative folds that start anew: many threads on a symbol give the bits of one after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import samples
from device_checks import check_run, check_stream, plans

import gpukern as gk
from gpukern import kernel
from gpukern.forms.cpu import BLOCK
from gpukern.kernel import duration, fold, min_periods

# Rows are 1.3 s apart: segments of about one row, eight, one block, two and a half, all rows.
ANCHORS = ["1s", "10s", f"{int(1.3 * BLOCK)}s", f"{int(3.2 * BLOCK)}s", "30d"]


def two_symbols(rows: int) -> pa.Table:
    parts = {s: samples.columns(rows + 90 * n, seed=n) for n, s in enumerate(["A", "B"])}
    order = np.repeat(["A", "B"], [rows, rows + 90])
    np.random.default_rng(4).shuffle(order)
    punched = {s: samples.punch(p, share=0.03, seed=7) for s, p in parts.items()}
    return samples.table(
        {s: p for s, (p, _) in punched.items()},
        order=order,
        holes={s: h for s, (_, h) in punched.items()},
    )


@pytest.mark.parametrize("anchor", ANCHORS)
def test_segments_of_any_length(anchor: str) -> None:
    for plan in plans([gk.vwap(anchor=anchor, offset="3s")]):
        check_run(plan, two_symbols(4 * BLOCK), "cudasim")


@pytest.mark.parametrize("cut", [-1, 0, 1])
def test_pieces_that_end_beside_a_block_s_edge(cut: int) -> None:
    table = samples.clean(5 * BLOCK)
    cuts = [60, 2 * BLOCK + cut, 3 * BLOCK + cut, 3 * BLOCK + 60]
    for anchor in ANCHORS[2:]:
        check_stream(gk.Plan([gk.vwap(anchor=anchor)]), table, "cudasim", cuts, swaps=(1,))


@pytest.mark.parametrize("cut", [0, 1])
def test_pieces_that_end_beside_a_segment_s_edge(cut: int) -> None:
    table = samples.clean(3 * BLOCK)
    t = np.arange(3 * BLOCK) * 1_000_000_000
    table = table.set_column(1, "ts", pa.array(t, pa.timestamp("ns", "UTC")))
    plan = gk.Plan([gk.vwap(anchor="150s")])
    check_stream(plan, table, "cudasim", [150 + cut, 300 + cut], swaps=(0,))


def test_a_segment_length_per_symbol() -> None:
    plan = gk.Plan([gk.vwap(anchor={"A": "20s", "B": ANCHORS[3]})])
    check_stream(plan, two_symbols(2 * BLOCK), "cudasim", [100, 350], swaps=(1,))


@pytest.fixture
def rises() -> Iterator[Any]:
    """A kernel with segments that looks at previous rows, and whose absorption divides."""

    @fold("price>0", out="mean_rise", params=[duration("anchor", "60s"), min_periods("1")],
          first="2", units="price", scale=1, source="this test")  # fmt: skip
    class user_mean_rise:
        """Mean of the price changes since the anchor."""

        series = "step"
        acc = "sum count"
        base = "mean rows"

        def segment(t, anchor):
            return t // anchor

        def inner(price, prev_price):
            return price - prev_price

        def lift(step):
            return step, 1.0

        def absorb(mean, rows, sum, count, n):
            return mean + (sum / n - mean) * (count / (rows + count)), rows + count

        def total(mean):
            return mean

    yield gk.user_mean_rise
    kernel.unregister("user_mean_rise")


def test_segments_of_a_kernel_that_looks_back(rises: Any) -> None:
    for anchor in ("5s", ANCHORS[3]):
        for plan in plans([rises("price", anchor=anchor)]):
            check_stream(plan, two_symbols(2 * BLOCK), "cudasim", [1, 2, 140, 350], swaps=(0, 2))
