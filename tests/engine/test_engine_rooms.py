"""Rooms for the columns of a piece: lent, given back, lent again."""

import numpy as np
import pyarrow as pa
import pytest

import gpukern as gk
from gpukern import memory
from gpukern.forms import scratch
from gpukern.memory import Lent, Rooms

ROWS = 10_000


def test_what_was_given_back_last_is_lent_first():
    lent = Lent(Rooms(ROWS))
    first, second = lent.empty(ROWS), lent.empty(ROWS)
    lent.give_back(first)
    lent.give_back(second)
    assert lent.empty(ROWS, np.int64).ctypes.data == second.ctypes.data
    assert lent.empty(ROWS, np.float64).ctypes.data == first.ctypes.data


def test_arrays_that_are_lent_do_not_overlap():
    lent = Lent(Rooms(ROWS))
    kinds = (np.float64, np.int64, np.uint32, np.uint32)
    arrays = [lent.empty(ROWS, kind) for kind in kinds]
    for n, array in enumerate(arrays):
        array[:] = n % 2
    assert [int(array.sum()) for array in arrays] == [0, ROWS, 0, ROWS]


def test_all_rooms_come_back_at_the_end():
    rooms = Rooms(ROWS)
    lent = Lent(rooms)
    arrays = [lent.empty(ROWS) for _ in range(5)]
    lent.give_back(arrays[2])
    lent.close()
    assert len(rooms.free[8]) == 5
    assert len({block.ctypes.data for block in rooms.free[8]}) == 5


def test_an_array_of_the_callers_is_left_alone():
    rooms = Rooms(ROWS)
    lent = Lent(rooms)
    lent.give_back(np.zeros(ROWS))
    lent.give_back(memory.empty(ROWS))
    assert not any(rooms.free.values())


def test_what_no_room_holds_is_an_ordinary_array():
    rooms = Rooms(ROWS)
    lent = Lent(rooms)
    small, large = lent.empty(8), lent.empty(2 * ROWS)
    lent.close()
    assert (len(small), len(large)) == (8, 2 * ROWS)
    assert not any(rooms.free.values())


def test_a_job_needs_rooms_for_one_piece_however_many_it_runs():
    rows = 100_000
    features = [gk.ewma("x", alpha=0.1).alias("a"), gk.rolling_std("x", 20).alias("b")]
    symbol = pa.array(["A", "B", "C", "D"] * (rows // 4))
    table = pa.table({"symbol": symbol, "x": np.sin(np.arange(float(rows)))})
    job = gk.Plan(features, by="symbol", time=None).start()
    job.taped = False
    job.push(table)
    after_one = {width: len(blocks) for width, blocks in job.rooms.free.items()}
    for _ in range(3):
        job.push(table)
    assert after_one == {width: len(blocks) for width, blocks in job.rooms.free.items()}
    assert sum(after_one.values()) > 0


@pytest.mark.skipif(not memory.KEEPS, reason="this system has no memory that is kept for reuse")
def test_a_block_comes_back_when_modules_are_gone(monkeypatch):
    """As at the end of a process, where results may be the last to go."""
    free = memory.blocks().free
    array = memory.empty(memory.LARGE)
    before = len(free)
    monkeypatch.setattr(memory, "mmap", None)
    del array
    assert len(free) == before + 1


@pytest.mark.parametrize("n", [0, 1, 1_000, memory.LARGE // 8, memory.LARGE])
def test_zeros_are_zeros_that_can_be_written(n):
    zeros = memory.zeros(n)
    assert zeros.shape == (n,)
    assert zeros.dtype == np.float64
    assert not zeros.any()
    zeros[:] = 1.5
    assert not memory.zeros(n).any()
    if 8 * n >= memory.LARGE and memory.KEEPS:
        assert zeros.ctypes.data % memory.PAGE == 0


@pytest.mark.skipif(not memory.KEEPS, reason="needs large pages of Linux")
def test_no_memory_is_told_by_name():
    with pytest.raises(MemoryError, match="the system has no 1,152,921,504,6"):
        memory.zeros(1 << 57)
    with pytest.raises(MemoryError, match="the system has no 1,152,921,504,6"):
        memory.empty(1 << 57)


def test_a_push_for_whose_symbols_there_is_no_memory_leaves_the_job_as_it_was(monkeypatch):
    plan = gk.Plan([gk.rolling_mean("x", window=3)], time=None)
    job, other = plan.start(), plan.start()
    few = pa.table({"symbol": ["A"] * 5, "x": [1.0, 2.0, 4.0, 8.0, 16.0]})
    more = pa.table({"symbol": ["B", "A"] * 5, "x": [float(n) for n in range(10)]})
    job.push(few)
    other.push(few)

    def none(n):
        raise MemoryError(n)

    with monkeypatch.context() as short:
        short.setattr("gpukern.job.zeros", none)
        with pytest.raises(MemoryError):
            job.push(more)
    assert job.snapshot() == other.snapshot()
    assert job.push(more).equals(other.push(more))
    assert job.snapshot() == other.snapshot()


@pytest.mark.parametrize(("column", "value"), [("ts", -1), ("tape", 0)], ids=["time", "memory"])
def test_a_long_push_that_fails_while_threads_prepare_it_leaves_the_job_as_it_was(
    column, value, monkeypatch
):
    n = 40_000
    plan = gk.Plan([gk.rolling_mean("x", window=3), gk.diff("x")], by="symbol", time="ts")

    def table(begin, n):
        rows = np.arange(begin, begin + n)
        symbols = pa.array(np.array(["A", "B", "C"])[rows % 3])
        return {"symbol": symbols, "ts": rows, "x": (rows % 101).astype(np.int16)}

    job, other = plan.start(threads=2), plan.start(threads=1)
    few, more, later = (table(begin, size) for begin, size in [(0, 100), (100, n), (100 + n, n)])
    assert job.push(pa.table(few)).equals(other.push(pa.table(few)))
    with monkeypatch.context() as broken:
        if column == "ts":
            bad = dict(more, ts=np.append(more["ts"][:-1], value))
            with pytest.raises(gk.UnsortedError, match=f"row {n - 1}"):
                job.push(pa.table(bad))
        else:

            def none(*_, **__):
                raise MemoryError("no room")

            broken.setattr("gpukern.job.Tape", none)
            with pytest.raises(MemoryError, match="no room"):
                job.push(pa.table(more))
    assert job.snapshot() == other.snapshot()
    for own in (more, later):
        assert job.push(pa.table(own)).equals(other.push(pa.table(own)))
    assert job.snapshot() == other.snapshot()


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_parts_of_arrays_are_the_arrays_memory(dtype):
    import numba

    part, will_read = scratch.COMPILED["part"], scratch.COMPILED["will_read"]

    @numba.njit(**scratch.UNCOUNTED)
    def double(flat, square, begin, words):
        will_read(flat, begin)
        will_read(square, 10_000)
        for array in (part(flat, begin, words), part(square, begin, words)):
            for j in range(len(array)):
                array[j] *= 2
        return len(part(part(flat, begin, words), 1, words - 1))

    arrays = np.arange(24).astype(dtype), np.arange(24).astype(dtype).reshape(4, 6)
    assert double(*arrays, 3, 15) == 14
    for array in arrays:
        expected = np.arange(24)
        expected[3:18] *= 2
        np.testing.assert_array_equal(array.ravel(), expected)
        np.testing.assert_array_equal(scratch.part(array, 3, 15), expected[3:18])
