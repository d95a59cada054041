"""Columns that are on the device: in small batches and large ones the CPU's bits, in one wait."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import samples
from test_device_plans import FORMS, keyed, one_symbol
from test_device_push import edges

import gpukern as gk
from gpukern.errors import UnsortedError


class Resident:
    """A job that is given columns of the device, and what a CPU's job is given."""

    def __init__(self, plan: gk.Plan, table: pa.Table) -> None:
        self.plan, self.table = plan, table.select(plan.input_columns)
        self.job: Any = plan.start(device="cudasim")
        names = self.table["symbol"].to_pylist() if plan.by else [None]
        self.host = plan.start()
        self.expected = self.host.push(self.table)
        for name in self.host.symbols.slots:  # in the order in which the CPU has met them
            self.job.symbols.slot(name)
        self.slots = np.array([self.job.symbols.slot(name) for name in names], np.int32)
        self.t = self.table["ts"].cast("int64").to_numpy()
        self.columns = {name: self._words(self.table[name], name) for name in plan.value_columns}

    def _words(self, column: pa.ChunkedArray, name: str) -> np.ndarray:
        if name in self.job.integers:
            return column.cast("int64").fill_null(np.iinfo(np.int64).min).to_numpy()
        return column.cast("float64").to_numpy()

    def push(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Words and validity of the outputs, a row for each."""
        n = end - begin
        slots = self.slots[begin:end] if self.plan.by else int(self.slots[0])
        own = {name: column[begin:end] for name, column in self.columns.items()}
        words, bitmaps = self.job.run_resident(n, slots, self.t[begin:end], own)
        outputs = len(self.plan.output_names)
        bits = np.unpackbits(bitmaps.reshape(outputs, -1), axis=1, bitorder="little")
        return words.reshape(outputs, n), bits[:, :n].astype(bool)


def check(resident: Resident, borders: list[int]) -> None:
    """Batches between the borders give the bits and the state of a CPU's."""
    made = [resident.push(a, b) for a, b in pairwise(borders) if a < b]
    words, valid = (np.concatenate(part, axis=1) for part in zip(*made, strict=True))
    for n, name in enumerate(resident.plan.output_names):
        known, values = samples.bits(resident.expected[name])
        np.testing.assert_array_equal(valid[n], known)
        np.testing.assert_array_equal(words[n][known], values[known])
    assert resident.job.snapshot() == resident.host.snapshot()


@pytest.mark.parametrize("symbols", [1, 6])
def test_batches_of_any_length(symbols: int) -> None:
    check(Resident(gk.Plan(FORMS), keyed(300, symbols)), edges(300))


def test_a_large_batch_after_small_ones() -> None:
    check(Resident(gk.Plan(FORMS), keyed(300, 3)), [0, 20, 250, 260, 300])


def test_batches_without_a_key() -> None:
    check(Resident(gk.Plan(FORMS, by=None), one_symbol(200)), [0, 30, 31, 150, 200])


def test_small_batches_repeat_the_launches_of_other_tables(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = Resident(gk.Plan([gk.midprice(), gk.ewma("price", alpha=0.1)]), keyed(120, 3))
    repeated = []
    own = simulator.repeatable
    monkeypatch.setattr(simulator, "repeatable", lambda tape: repeated.append(tape) or own(tape))
    resident.push(0, 20)
    resident.job.push(resident.table.slice(20, 20))
    resident.push(40, 60)
    (push,) = resident.job.pushes.values()
    assert repeated == [push.tape]


@pytest.mark.parametrize("rows", [20, 60])
def test_the_host_waits_once(rows: int, simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = Resident(gk.Plan([gk.ewma("price", alpha=0.1)]), keyed(300, 3))
    resident.push(0, 150)
    waits = []
    own = simulator.fetch
    monkeypatch.setattr(simulator, "fetch", lambda array: waits.append(array.size) or own(array))
    resident.push(150, 150 + rows)
    assert len(waits) == 1


@pytest.mark.parametrize("rows", [20, 100])
def test_time_that_goes_backwards_is_refused(rows: int) -> None:
    resident = Resident(gk.Plan(FORMS), keyed(300, 3))
    resident.push(0, 100)
    before = resident.job.snapshot()
    with pytest.raises(UnsortedError, match="time goes backwards: column 'ts', symbol 'S"):
        resident.push(50, 50 + rows)
    assert resident.job.snapshot() == before
    resident.push(100, 200)
    host = resident.plan.resume(before)
    host.push(resident.table.slice(100, 100))
    assert resident.job.snapshot() == host.snapshot()
