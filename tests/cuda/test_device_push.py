"""Small batches on a device: done once, then repeated on the same memory, with the batch's bits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import samples
from device_checks import plans
from test_device_plans import FORMS, keyed, one_symbol

import gpukern as gk
from gpukern.device_push import LEAST, length
from gpukern.errors import UnsortedError


def edges(rows: int, seed: int = 3) -> list[int]:
    """Borders of small batches, of one row and of none among them."""
    sizes = np.random.default_rng(seed).integers(0, 47, rows)
    sizes[:3] = 1, 0, 1
    ends = np.cumsum(sizes)
    return [0, *ends[ends < rows].tolist(), rows]


def check_batches(plan: gk.Plan, table: pa.Table) -> None:
    """Small batches give the bits of one large one, and the state that they give on the CPU."""
    table = table.select(plan.input_columns)
    batches = [table.slice(a, b - a) for a, b in pairwise(edges(table.num_rows))]
    job, host = plan.start(device="cudasim"), plan.start()
    made = [job.push(batch) for batch in batches]
    samples.assert_same(pa.concat_tables(made), plan.run(table), plan.output_names)
    for batch in batches:
        host.push(batch)
    assert job.snapshot() == host.snapshot()


@pytest.mark.parametrize("symbols", [1, 6, 80])
def test_small_batches_of_any_length(symbols: int) -> None:
    for plan in plans(FORMS):
        check_batches(plan, keyed(300, symbols))


def test_small_batches_of_one_series() -> None:
    for plan in plans(FORMS, by=None):
        check_batches(plan, one_symbol(300))


def test_small_batches_with_a_parameter_per_symbol() -> None:
    expressions = [
        gk.rolling_mean("price", window={f"S{n}": 3 + n for n in range(6)}),
        gk.vwap(anchor={f"S{n}": f"{10 + 40 * n}s" for n in range(6)}),
    ]
    check_batches(gk.Plan(expressions), keyed(300, 6))


def started(rows: int, symbols: int) -> tuple[Any, pa.Table]:
    """A job that knows all symbols, and rows to push."""
    plan = gk.Plan([gk.midprice(), gk.ewma(gk.log_returns("price"), alpha=0.1)])
    table = keyed(rows, symbols).select(plan.input_columns)
    job: Any = plan.start(device="cudasim")
    job.push(table.slice(0, 40))
    assert len(job.symbols) == symbols
    return job, table.slice(40)


def test_batches_of_like_length_repeat_the_same_launches(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, table = started(300, 3)
    job.push(table.slice(0, 20))
    (recorded,) = [p for p in job.pushes.values() if p.rows == LEAST]
    repeated = []
    own = simulator.repeatable
    monkeypatch.setattr(simulator, "repeatable", lambda tape: repeated.append(tape) or own(tape))
    for begin, end in pairwise([20, 40, 72, 73]):
        job.push(table.slice(begin, end - begin))
    assert repeated == [recorded.tape]
    assert recorded in job.pushes.values()


def test_a_new_symbol_is_recorded_anew() -> None:
    job, table = started(300, 3)
    job.push(table.slice(0, 20))
    before = set(job.pushes.values())
    later = table.slice(20, 20)
    names = pa.array(["another", "S0"] * 10).dictionary_encode()
    job.push(later.set_column(later.schema.get_field_index("symbol"), "symbol", names))
    assert not before & {p for p in job.pushes.values() if p.rows == LEAST}


def test_a_refused_batch_changes_nothing_that_is_repeated() -> None:
    job, table = started(300, 3)
    job.push(table.slice(0, 20))
    before = job.snapshot()
    with pytest.raises(UnsortedError):
        job.push(table.slice(0, 20))
    assert job.snapshot() == before
    job.push(table.slice(20, 20))
    host = job.plan.resume(before)
    host.push(table.slice(20, 20))
    assert job.snapshot() == host.snapshot()


def test_jobs_of_several_threads_do_not_record_each_other() -> None:
    plans_of = [gk.Plan([gk.midprice(), gk.ewma("price", alpha=0.1 * n)]) for n in (1, 2, 3, 4)]
    table = keyed(200, 3).select(plans_of[0].input_columns)

    def pushed(plan: gk.Plan) -> pa.Table:
        job = plan.start(device="cudasim")
        return pa.concat_tables([job.push(table.slice(at, 20)) for at in range(0, 200, 20)])

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(pushed, plans_of))
    for plan, own in zip(plans_of, made, strict=True):
        samples.assert_same(own, plan.run(table), plan.output_names)


@pytest.mark.parametrize(("rows", "shared"), [(1, 32), (32, 32), (33, 64), (4_000, 4_096)])
def test_lengths_are_shared(rows: int, shared: int) -> None:
    assert length(rows, 32_767) == shared


def test_no_length_is_beyond_the_most() -> None:
    assert length(20_000, 32_767) == 32_767
