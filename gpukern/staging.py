"""Copies between host and device: a ring of pinned buffers, beside the work on a GPU.

Pieces go through three streams: in, work, out. Each column is copied once into pinned memory, so
the copy to the device runs while the piece before is worked on and the one before that travels
back. An array that crosses to another stream is held until that stream has passed the point of its
last use: memory is given back in the order of its own stream only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

NO_MEMORY = 2  # cudaErrorMemoryAllocation, for which CuPy has no name
COPIERS = min(8, os.cpu_count() or 1)
SHARED = 1 << 20  # bytes that are worth several threads


class HostStaging:
    """The same calls where the device is the host."""

    def upload(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """The columns on the device, one below the other."""
        return np.concatenate(columns) if columns else np.zeros(1, np.int64)

    def fill(self, target: np.ndarray, columns: Sequence[np.ndarray], stride: int) -> None:
        """The columns into memory that is there, each ``stride`` behind the one before."""
        for at, column in enumerate(columns):
            target[at * stride : at * stride + column.size] = column

    def make_room(self, *downloads: Any) -> None:
        """Memory that so many downloads of such arrays will need."""

    def release(self, arrays: list[Any]) -> None:
        """The work on uploaded arrays has been queued."""

    def download(self, array: np.ndarray, targets: Sequence[np.ndarray], stride: int) -> None:
        """Begin to copy into the targets what stands ``stride`` behind each other."""
        for at, target in enumerate(targets):
            target[:] = array[at * stride : at * stride + target.size]

    def finish(self) -> None:
        """All targets are filled."""


class PinnedStaging:
    """Pinned buffers, one stream in, one out."""

    def __init__(self, cupy: Any, work: Any) -> None:
        self.cp = cupy
        self.work = work
        self.inward = cupy.cuda.Stream(non_blocking=True)
        self.outward = cupy.cuda.Stream(non_blocking=True)
        self.free: dict[int, list[Any]] = {}  # pinned buffers by size
        self.busy: deque[tuple[Any, int, Any]] = deque()  # (event, size, buffer) on their way in
        self.held: deque[tuple[list[Any], Any]] = deque()  # (arrays, event) that work reads
        self.copiers = ThreadPoolExecutor(COPIERS, "gpukern-copy")
        self.landing = ThreadPoolExecutor(1, "gpukern-land")  # while the next work is queued
        self.leaving: deque[Callable[[], None]] = deque()  # what is left of downloads

    def upload(self, columns: Sequence[np.ndarray]) -> Any:
        """The columns on the device, one below the other; work queued later waits for them."""
        total = sum(c.size for c in columns)
        dtype = columns[0].dtype if columns else np.dtype(np.int64)
        size, buffer = self._pinned(max(total, 1) * dtype.itemsize)
        pinned = np.frombuffer(buffer, dtype, max(total, 1))
        ends = np.cumsum([c.size for c in columns]).tolist()
        parts = [pinned[end - c.size : end] for end, c in zip(ends, columns, strict=True)]
        self._copy(parts, columns)
        with self.inward:
            copy = self.cp.empty(max(total, 1), dtype)
            copy.set(pinned, stream=self.inward)
            event = self.inward.record()
        self.work.wait_event(event)
        self.busy.append((event, size, buffer))
        return copy

    def fill(self, target: Any, columns: Sequence[np.ndarray], stride: int) -> None:
        """The columns into memory that is there, each ``stride`` behind the one before.

        For small batches: in the order of the work, beside which there is nothing to do.
        """
        size, buffer = self._pinned(target.nbytes)
        pinned = np.frombuffer(buffer, target.dtype, target.size)
        for at, column in enumerate(columns):
            pinned[at * stride : at * stride + column.size] = column
        target.set(pinned, stream=self.work)
        self.busy.append((self.work.record(), size, buffer))

    def make_room(self, *downloads: Any) -> None:
        """Memory that downloads of such arrays will need: it runs short now or not at all."""
        for size, buffer in [self._pinned(array.nbytes) for array in downloads]:
            self.free.setdefault(size, []).append(buffer)

    def release(self, arrays: list[Any]) -> None:
        """The work on uploaded arrays has been queued: hold them until the next piece's is.

        Their memory goes back to the inward stream then, and is written there after the work on
        them: what is uploaded next waits for that work, but not for this piece's.
        """
        self.held.append((arrays, self.work.record()))
        if len(self.held) > 1:
            _, done = self.held.popleft()
            self.inward.wait_event(done)

    def download(self, array: Any, targets: Sequence[np.ndarray], stride: int) -> None:
        """Begin to copy into the targets what stands ``stride`` behind each other."""
        self.outward.wait_event(self.work.record())
        if not targets:
            return
        size, buffer = self._pinned(array.nbytes)
        pinned = np.frombuffer(buffer, array.dtype, array.size)
        array.get(stream=self.outward, out=pinned, blocking=False)
        land = partial(self._land, self.outward.record(), array, size, buffer, targets, stride)
        # A small batch has nothing beside which to land, and changing threads takes longer.
        self.leaving.append(land if size < SHARED else self.landing.submit(land).result)
        while len(self.leaving) > 2:  # values and bitmaps of one piece are on their way
            self.leaving.popleft()()

    def finish(self) -> None:
        """All targets are filled."""
        while self.leaving:
            self.leaving.popleft()()
        self.work.synchronize()
        self.held.clear()

    def _land(
        self, event: Any, array: Any, size: int, buffer: Any, targets: Sequence[np.ndarray],
        stride: int,
    ) -> None:  # fmt: skip
        """Into the targets, when the pinned buffer is filled; until then the array lives."""
        event.synchronize()
        pinned = np.frombuffer(buffer, array.dtype, array.size)
        self._copy(targets, [pinned[at * stride :][: t.size] for at, t in enumerate(targets)])
        self.free.setdefault(size, []).append(buffer)

    def _copy(self, targets: Sequence[np.ndarray], sources: Sequence[np.ndarray]) -> None:
        """On the host: one thread alone is slower than the way to the device."""
        run = self.copiers.map if sum(t.nbytes for t in targets) >= SHARED else map
        deque(run(np.copyto, targets, sources), maxlen=0)

    def _pinned(self, size: int) -> tuple[int, Any]:
        """A pinned buffer of at least that size, from the ring if one is free."""
        while self.busy and self.busy[0][0].done:
            _, room, buffer = self.busy.popleft()
            self.free.setdefault(room, []).append(buffer)
        room = 1 << max(12, (size - 1).bit_length())  # powers of two, so that they fit again
        if self.free.get(room):
            return room, self.free[room].pop()
        try:
            return room, self.cp.cuda.alloc_pinned_memory(room)
        except self.cp.cuda.runtime.CUDARuntimeError as error:
            if error.status != NO_MEMORY:
                raise
            raise MemoryError(f"{room} bytes of pinned memory of the host") from error
