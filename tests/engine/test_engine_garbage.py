"""A push leaves nothing behind for the garbage collector, whose pauses a live stream would feel."""

from __future__ import annotations

import gc

import pytest
import samples

import gpukern as gk


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
