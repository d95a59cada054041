"""Copies beside the work: what waits for what, by the clocks of streams that note what they saw."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from test_device_plans import FORMS

import gpukern as gk
from gpukern import device_job, staging


class Event:
    """What a stream had done, and seen others do, at a point."""

    done = False

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen

    def synchronize(self) -> None:
        self.done = True


class Stream:
    """Counts its operations by name and takes over the counts of streams it waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: Counter[str] = Counter()

    def do(self) -> Counter[str]:
        self.seen[self.name] += 1
        return self.seen.copy()

    def record(self) -> Event:
        return Event(self.seen.copy())

    def wait_event(self, event: Event) -> None:
        self.seen |= event.seen

    def synchronize(self) -> None:
        """Nothing is left to do in a count."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        """The stream is no longer the current one."""


class Array(np.ndarray):
    """Memory of the device; copies note what had been done before them."""

    log: list[Counter[str]]

    def set(self, source: np.ndarray, stream: Stream) -> None:
        self.log.append(stream.do())
        self[:] = source

    def get(self, stream: Stream, out: np.ndarray, blocking: bool) -> None:
        assert not blocking
        self.log.append(stream.do())
        out[:] = self


class Cupy:
    """As much of CuPy as staging asks for."""

    def __init__(self) -> None:
        self.names = iter(("in", "out"))
        self.cuda = self
        self.runtime = self
        self.CUDARuntimeError = OSError
        self.log: list[Counter[str]] = []

    def Stream(self, non_blocking: bool) -> Stream:
        return Stream(next(self.names))

    def empty(self, n: int, dtype: Any) -> Array:
        made = np.empty(n, dtype).view(Array)
        made.log = self.log
        return made

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size)


@pytest.fixture
def cupy() -> Cupy:
    return Cupy()


def test_a_piece_s_copies_run_beside_the_work_on_the_one_before(cupy: Cupy) -> None:
    work = Stream("work")
    stage = staging.PinnedStaging(cupy, work)
    columns = [np.arange(4), np.arange(3) + 10]
    copied = []
    for _ in range(4):
        array = stage.upload(columns)
        np.testing.assert_array_equal(array, [0, 1, 2, 3, 10, 11, 12])
        copied.append(cupy.log[-1])
        work.do()
        assert work.seen["in"] == len(copied)  # the work waits for its own piece's columns
        stage.release([array])
    # Piece 2 is copied when piece 0 is done with, whose memory it may take, not after piece 1.
    assert [seen["work"] for seen in copied] == [0, 0, 1, 2]


@pytest.mark.parametrize("rows", [3, staging.SHARED // 8])
def test_results_travel_after_their_work_and_land_where_they_belong(rows: int, cupy: Cupy) -> None:
    work = Stream("work")
    stage = staging.PinnedStaging(cupy, work)
    targets = [[np.zeros(rows, np.int64), np.zeros(rows - 1, np.int64)] for _ in range(4)]
    for n, target in enumerate(targets):
        work.do()
        array = cupy.empty(2 * rows, np.int64)
        array[:] = np.arange(2 * rows) + 10 * n
        stage.download(array, target, stride=rows)
        assert cupy.log[-1]["work"] == n + 1
    stage.finish()
    for n, (first, second) in enumerate(targets):
        np.testing.assert_array_equal(first, np.arange(rows) + 10 * n)
        np.testing.assert_array_equal(second, np.arange(rows, 2 * rows - 1) + 10 * n)


def test_large_columns_are_copied_by_several_threads(cupy: Cupy) -> None:
    stage = staging.PinnedStaging(cupy, Stream("work"))
    columns = [np.arange(staging.SHARED // 8) + n for n in range(3)]
    np.testing.assert_array_equal(stage.upload(columns), np.concatenate(columns))


def test_pinned_buffers_are_used_again(cupy: Cupy) -> None:
    stage = staging.PinnedStaging(cupy, Stream("work"))
    made = []
    own = cupy.alloc_pinned_memory
    cupy.alloc_pinned_memory = lambda size: made.append(size) or own(size)  # type: ignore[method-assign]
    for _ in range(5):
        stage.download(cupy.empty(6, np.int64), [np.zeros(6, np.int64)], stride=6)
        stage.finish()
    assert made == [4096]


def test_no_copy_of_a_large_table_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = gk.Plan(FORMS)
    job: Any = plan.start(device="cudasim")
    monkeypatch.setattr(device_job, "STAGED", 8 * 5_000 * len(plan.output_names))
    assert job._rows_that_fit() == 5_000
    monkeypatch.setattr(device_job, "STAGED", 1)
    assert job._rows_that_fit() == device_job.LEAST_ROWS
