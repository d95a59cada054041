"""Snapshots: what they carry, what they refuse."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk


def exprs() -> list[gk.Expr]:
    """One of each way to carry state."""
    return [
        gk.lag("price", k=3),
        gk.lag("price", k="7s"),
        gk.rolling_std("price", window=20),
        gk.rolling_std("price", window="20s").alias("std_20s"),
        gk.rolling_median("price", window=9),
        gk.rolling_median("price", window="20s").alias("median_20s"),
        gk.cum_sum("price"),
        gk.vwap("price", "size"),
        gk.cusum("price", calib=10),
        gk.ofi(window=5),
        gk.ewma("price", alpha=dict.fromkeys(samples.SYMBOLS, 0.1)),
    ]


@pytest.fixture
def plan() -> gk.Plan:
    return gk.Plan(exprs())


@pytest.fixture
def market(plan: gk.Plan) -> pa.Table:
    return samples.market().select(plan.input_columns)


def test_a_job_that_saw_nothing_has_a_snapshot(plan: gk.Plan, market: pa.Table) -> None:
    resumed = plan.resume(plan.start().snapshot())
    samples.assert_same(resumed.push(market), plan.run(market), plan.output_names)


def test_a_snapshot_leaves_the_job_running(plan: gk.Plan, market: pa.Table) -> None:
    job = plan.start()
    pieces = []
    for start in range(0, market.num_rows, 300):
        pieces.append(job.push(market.slice(start, 300)))
        job.snapshot()
    samples.assert_same(pa.concat_tables(pieces), plan.run(market), plan.output_names)


def test_restarts_after_every_batch_change_nothing(plan: gk.Plan, market: pa.Table) -> None:
    blob = plan.start().snapshot()
    pieces = []
    for start in range(0, market.num_rows, 173):
        job = plan.resume(blob)
        pieces.append(job.push(market.slice(start, 173)))
        blob = job.snapshot()
    samples.assert_same(pa.concat_tables(pieces), plan.run(market), plan.output_names)


def test_an_equal_plan_resumes(plan: gk.Plan, market: pa.Table) -> None:
    job = plan.start()
    job.push(market)
    assert gk.Plan(exprs()).resume(job.snapshot()).snapshot() == job.snapshot()


def test_names_of_outputs_are_no_part_of_the_state() -> None:
    blob = gk.Plan([gk.ewma("price")]).start().snapshot()
    gk.Plan([gk.ewma("price").alias("smooth")]).resume(blob)


@pytest.mark.parametrize(
    "other",
    [
        lambda: gk.Plan([gk.ewma("price", alpha=0.2)]),
        lambda: gk.Plan([gk.ewma("size")]),
        lambda: gk.Plan([gk.ema("price")]),
        lambda: gk.Plan([gk.ewma("price"), gk.cum_sum("price")]),
        lambda: gk.Plan([gk.ewma("price")], by="venue"),
        lambda: gk.Plan([gk.ewma("price")], time="recv_ts"),
        lambda: gk.Plan([gk.ewma("price")], nan_policy="propagate"),
        lambda: gk.Plan([gk.ewma("price", alpha={"a": 0.06})]),
    ],
)
def test_a_snapshot_of_another_plan_is_refused(other: object) -> None:
    blob = gk.Plan([gk.ewma("price", alpha=0.06)]).start().snapshot()
    with pytest.raises(gk.StateError, match="another plan"):
        other().resume(blob)  # type: ignore[operator]


def test_damage_is_found_wherever_it_is(plan: gk.Plan, market: pa.Table) -> None:
    job = plan.start()
    job.push(market.slice(0, 400))
    blob = job.snapshot()
    random = np.random.default_rng(1)
    for at in [0, 9, 20, len(blob) - 1, *random.integers(0, len(blob), 30).tolist()]:
        broken = bytearray(blob)
        broken[at] ^= 1 << int(random.integers(8))
        with pytest.raises(gk.StateError):
            plan.resume(bytes(broken))
    for length in (0, 7, 19, len(blob) // 2, len(blob) - 1):
        with pytest.raises(gk.StateError):
            plan.resume(blob[:length])
    with pytest.raises(gk.StateError):
        plan.resume(blob + b"\0")
    with pytest.raises(gk.StateError, match="not a gpukern snapshot"):
        plan.resume(struct.pack("<q", 5) * 20)


def test_symbols_appear_at_any_time(plan: gk.Plan) -> None:
    parts, holes = samples.symbol_parts(rows=40, long_rows=60)
    order = [s for s, p in parts.items() for _ in p["ts"]]
    one_by_one = samples.table(parts, order=np.array(order), holes=holes)
    one_by_one = one_by_one.select(plan.input_columns)
    job = plan.start()
    pieces, start = [], 0
    for part in parts.values():
        rows = len(part["ts"])
        pieces.append(job.push(one_by_one.slice(start, rows)))
        start += rows
        job = plan.resume(job.snapshot())
    samples.assert_same(pa.concat_tables(pieces), plan.run(one_by_one), plan.output_names)


def test_a_batch_run_after_a_stream_starts_afresh(plan: gk.Plan, market: pa.Table) -> None:
    job = plan.start()
    job.push(market.slice(0, 500))
    expected = gk.Plan(exprs()).run(market)
    samples.assert_same(plan.run(market), expected, plan.output_names)


def test_two_jobs_of_a_plan_do_not_meet(plan: gk.Plan, market: pa.Table) -> None:
    first, second = plan.start(), plan.start()
    got = []
    for start in range(0, market.num_rows, 400):
        got.append(first.push(market.slice(start, 400)))
        second.push(market.slice(0, 0))
    samples.assert_same(pa.concat_tables(got), plan.run(market), plan.output_names)
    samples.assert_same(second.push(market), plan.run(market), plan.output_names)
