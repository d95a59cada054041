"""Sums that a run leaves undone: whoever needs them makes them, with the same bits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk

WINDOWS = {"A": 7, "B": 40, "C": 2}
N = 400


def plan() -> gk.Plan:
    return gk.Plan(
        [
            gk.rolling_mean("x", window=WINDOWS),
            gk.rolling_min("x", window=WINDOWS),
            gk.rolling_corr("x", "y", window=30, min_periods=3),
            gk.roll_spread("x", window=WINDOWS, positive="zero"),
            gk.medrv("y", window=9),
        ],
        time=None,
    )


def rows() -> pa.Table:
    rng = np.random.default_rng(5)
    symbols = rng.choice(list(WINDOWS), N, p=[0.6, 0.3, 0.1])
    return pa.table({"symbol": symbols, "x": 9 + rng.normal(size=N), "y": rng.normal(size=N)})


@settings(max_examples=40)
@given(st.lists(st.integers(1, N - 1), max_size=12, unique=True), st.integers(0, 12))
def test_long_and_short_runs_in_any_order(cuts: list[int], kept: int) -> None:
    table, features = rows(), plan()
    one, cut = features.start(), features.start()
    whole = pa.concat_tables([one.push(table.slice(n, 1)) for n in range(N)])
    ends = [*sorted(cuts), N]
    parts = []
    for n, (lo, hi) in enumerate(zip([0, *ends], ends, strict=False)):
        parts.append(cut.push(table.slice(lo, hi - lo)))
        if n == kept:  # another job goes on, from what this one has told
            cut = features.resume(cut.snapshot())
    samples.assert_same(pa.concat_tables(parts), whole, features.output_names)
    assert cut.snapshot() == one.snapshot()


@pytest.mark.parametrize("device", ["cpu", "cudasim"])
def test_a_snapshot_changes_nothing(device: str) -> None:
    table, features = rows(), plan()
    job = features.start(device=device)
    first = job.push(table.slice(0, 250))
    told = job.snapshot()
    assert job.snapshot() == told
    second = job.push(table.slice(250))
    samples.assert_same(
        pa.concat_tables([first, second]), features.run(table), features.output_names
    )
    # What the sums are made of is all that the devices share.
    assert told == _snapshot(features, table.slice(0, 250))


def _snapshot(features: gk.Plan, table: pa.Table) -> bytes:
    job = features.start()
    job.push(table)
    return job.snapshot()


def test_only_symbols_whose_last_run_was_long_owe_sums() -> None:
    table = rows()
    job = gk.Plan([gk.rolling_mean("x", window=30)], time=None).start()
    job.push(table)
    job.push(table.filter(pa.compute.equal(table["symbol"], "B")).slice(0, 2))
    (state,), slots = job.states, list(job.symbols.slots)
    assert [slots[n] for n in state.owed(3)] == [s for s in slots if s != "B"]
    job.snapshot()
    assert not len(state.owed(3))
