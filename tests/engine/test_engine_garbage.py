"""A push leaves nothing behind for the garbage collector, whose pauses a live stream would feel."""

from __future__ import annotations

import gc
import weakref

import pytest
import samples

import gpukern as gk
from gpukern import tape


@pytest.mark.parametrize("threads", [1, 2])
def test_a_push_leaves_no_cycles(threads: int) -> None:
    plan = gk.Plan(
        [
            gk.log_returns("price"),
            gk.rolling_mean("price", window=5),
            gk.outlier_flag_mad("price", window=9),
            gk.ewma("price", half_life="3s"),
        ],
        by="symbol",
        time="ts",
    )
    job = plan.start(threads=threads)
    table = samples.market().select(["symbol", "ts", "price"]).combine_chunks()
    first, *batches = table.to_batches(max_chunksize=50)
    job.push(first)
    gc.collect()
    gc.disable()
    try:
        rows = [job.push(batch).num_rows for batch in batches]
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert rows == [batch.num_rows for batch in batches]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_and_its_tapes_are_no_cycle(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rooms of a table are free with its job."""
    plan = gk.Plan(gk.default_features())
    table = samples.market().select(plan.input_columns)
    job = plan.start(threads=threads)
    job.run(table)
    monkeypatch.setattr(tape, "MOST", 0)
    job.run(table.slice(table.num_rows - 1))
    assert job.tape is not None
    assert job.long is not None
    gone = weakref.ref(job)
    gc.disable()
    try:
        del job
        assert gone() is None
    finally:
        gc.enable()


def test_what_was_found_for_a_plan_goes_with_it() -> None:
    """Addresses and scripts are kept beside plans, not in them: they must not keep them."""
    plan = gk.Plan(gk.default_features())
    plan.run(samples.market().select(plan.input_columns))
    gone = weakref.ref(plan)
    gc.disable()
    try:
        del plan
        assert gone() is None
    finally:
        gc.enable()
