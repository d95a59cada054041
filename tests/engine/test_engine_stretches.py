"""Long batches go through a tape in stretches: the bits and the state of pieces."""

from __future__ import annotations

from functools import cache

import checks
import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import job as job_module
from gpukern import kernel, presence, tape
from gpukern.forms.cpu_play import STEP
from gpukern.tape_script import Script


@cache
def market() -> pa.Table:
    return samples.market()


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "MOST", 0)
    monkeypatch.setattr(tape, "STRETCH", 256)
    monkeypatch.setattr(tape, "RUN", 1)
    monkeypatch.setattr(job_module, "SHARE", 1)


def in_pieces(plan: gk.Plan) -> gk.Job:
    job = plan.start(threads=1)
    job.taped = False
    return job


@pytest.mark.parametrize("name", kernel.kernels())
def test_every_kernel(name: str) -> None:
    subject = checks.Subject(kernel.kernels()[name])
    rows = subject.narrow(market())
    for plan in (subject.plan, subject.propagating):
        pieces, stretches = in_pieces(plan), plan.start(threads=3)
        samples.assert_same(stretches.run(rows), pieces.run(rows), subject.names)
        assert stretches.snapshot() == pieces.snapshot()


@pytest.mark.parametrize("policy", ["skip", "propagate"])
@pytest.mark.parametrize("threads", [1, 2, 4, 40])
def test_the_default_features(threads: int, policy: str) -> None:
    plan = gk.Plan(gk.default_features(), nan_policy=policy)
    rows = market().select(plan.input_columns)
    pieces, stretches = in_pieces(plan), plan.start(threads=threads)
    samples.assert_same(stretches.run(rows), pieces.run(rows), plan.output_names)
    assert stretches.snapshot() == pieces.snapshot()


@pytest.mark.parametrize("kind", ["polars", "pandas", "batch"])
def test_flags_and_signs_are_packed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    rooms = []

    def guarded(n: int, dtype: type = np.float64) -> np.ndarray:
        size = n * np.dtype(dtype).itemsize
        room = np.full(size + 8 * n, 0xA5, np.uint8)
        rooms.append(room[size:])
        return room[:size].view(dtype)

    sign = gk.trade_sign("price", "bid", "ask")
    alarm = gk.cusum("price", mu=67_000.0, sigma=5.0, h=4.0)
    plan = gk.Plan([sign.alias("sign"), gk.rolling_sum(sign, 9).alias("flow"), alarm], time=None)
    few = market().select(plan.input_columns)
    rows = pa.concat_tables([few] * (1 + presence.FEW // few.num_rows)).combine_chunks()
    make = {
        "polars": lambda t: pl.from_arrow(t),
        "pandas": lambda t: t.to_pandas(),
        "batch": lambda t: t.to_batches()[0],
    }[kind]
    expected = in_pieces(plan).run(rows)
    monkeypatch.setattr(job_module, "empty", guarded)
    out = plan.run(make(rows))
    assert rooms
    assert all((rest == 0xA5).all() for rest in rooms)
    assert type(out) is type(make(rows))
    for name in plan.output_names:
        assert pa.array(out[name]).to_pylist() == expected[name].to_pylist()


def test_one_result_under_two_names() -> None:
    mean = gk.rolling_mean("price", window=4)
    plan = gk.Plan([mean.alias("a"), mean.alias("b"), gk.lag(mean, 1).alias("c")])
    out = plan.run(market().select(plan.input_columns))
    assert out["a"].equals(out["b"])
    assert out["a"].null_count > 0


def test_windows_in_time_have_room_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "ARENA_SPAN", 512)
    plan = gk.Plan([gk.rolling_mean("price", window="7s"), gk.rolling_median("price", "70s")])
    rows = market().select(plan.input_columns)
    pieces, stretches = in_pieces(plan), plan.start(threads=2)
    samples.assert_same(stretches.run(rows), pieces.run(rows), plan.output_names)
    assert stretches.snapshot() == pieces.snapshot()


def test_symbols_that_come_later() -> None:
    plan = gk.Plan([gk.ewma("price", alpha=0.1), gk.rolling_std("price", 9)])
    rows = market().select(plan.input_columns)
    symbols = rows["symbol"].to_pylist()
    more = pa.array([s if n < 500 else f"{s}{n % 300}" for n, s in enumerate(symbols)])
    rows = rows.set_column(rows.column_names.index("symbol"), "symbol", more)
    job = plan.start(threads=2)
    got = pa.concat_tables([job.run(rows.slice(0, 400)), job.run(rows.slice(400))])
    samples.assert_same(got, in_pieces(plan).run(rows), plan.output_names)


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_tasks_come_after_what_they_wait_for(threads: int) -> None:
    script = Script(gk.Plan(gk.default_features()).start(threads=threads))
    at = {task: n for n, task in enumerate(script.tasks)}
    for task, waits in script.waits.items():
        assert all(at[other] < at[task] for other in waits)
    released = [0] * len(script.tasks)
    for n, task in enumerate(script.tasks):
        if task[0] != STEP or task[2] == 0:  # one of a step's parts releases for all
            for reader in script.readers[script.firsts[n] : script.firsts[n + 1]]:
                released[max(reader, ~reader)] += 1
    assert released == script.later_waits.tolist()
    parts = {task[2] for task in script.tasks if task[0] == STEP}
    assert parts == set(range(threads))
