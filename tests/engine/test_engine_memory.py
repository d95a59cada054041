"""Blocks of results are used again, when nobody needs them and not before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import memory
from gpukern.memory import PAGE, Blocks

pytestmark = pytest.mark.skipif(
    not memory.KEEPS, reason="this system cannot keep memory that it may take back"
)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_a_block_comes_back_when_no_view_needs_it() -> None:
    blocks = Blocks(8 * PAGE)
    room = blocks.lend(PAGE + 1)
    assert len(room) == 2 * PAGE
    assert address(room) % PAGE == 0
    room[:] = 7
    buffer = pa.py_buffer(room[8:800].view(np.float64))
    where = address(room)
    del room
    assert not blocks.free
    assert buffer.to_pybytes() == bytes([7]) * 792
    del buffer
    assert len(blocks.free) == 1
    assert address(blocks.lend(2 * PAGE)) == where


def test_another_size_gets_another_block() -> None:
    blocks = Blocks(64 * PAGE)
    small, large = blocks.lend(PAGE), blocks.lend(8 * PAGE)
    places = address(small), address(large)
    del small, large
    again = blocks.lend(7 * PAGE)
    assert address(again) == places[1]
    assert address(blocks.lend(PAGE)) == places[0]
    assert address(blocks.lend(2 * PAGE)) not in places


@pytest.mark.parametrize(("pages", "kept"), [(0, 0), (4, 2), (5, 2), (6, 3)])
def test_no_more_is_kept_than_allowed(pages: int, kept: int) -> None:
    blocks = Blocks(pages * PAGE)
    rooms = [blocks.lend(PAGE) for _ in range(5)]
    del rooms
    assert len(blocks.free) == kept


def test_threads_never_share_a_block() -> None:
    blocks = Blocks(64 * PAGE)

    def fill(n: int) -> bool:
        for _ in range(50):
            room = blocks.lend(PAGE)[:4096]
            room[:] = n
            if not (room == n).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fill, range(8)))


def test_results_that_live_on_keep_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "LARGE", 64)
    plan = gk.Plan(gk.default_features())
    table = samples.market().select(plan.input_columns)
    expected = plan.run(table)
    told = []
    for n in range(3):
        told.append(plan.run(table))
        plan.run(table.slice(0, 700 + n))  # its memory is free at once
    for out in told:
        samples.assert_same(out, expected, plan.output_names)


def test_a_setting_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUKERN_KEPT_MB", "lots")
    memory.blocks.cache_clear()
    try:
        with pytest.raises(gk.PlanError, match=r"GPUKERN_KEPT_MB must be .* got 'lots'"):
            gk.Plan([gk.lag("x", 1)]).start()
    finally:
        memory.blocks.cache_clear()
