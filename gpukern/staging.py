"""Copies between host and device: a ring of pinned buffers, beside the work on a GPU.

Pieces go through three streams: in, work, out. Each piece is copied once into pinned memory, so
the copy to the device runs while the piece before is worked on and the one before that travels
back. Memory is given back in the order of its own stream only, so an array that crosses to another
stream is held until that stream has passed the point of its last use.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np


class HostStaging:
    """The same calls where the device is the host."""

    def upload(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The arrays on the device."""
        return [a.copy() if a.size else np.zeros(1, a.dtype) for a in arrays]

    def download(self, arrays: list[np.ndarray], targets: list[np.ndarray]) -> None:
        """Begin to copy the arrays' first elements into the targets."""
        for array, target in zip(arrays, targets, strict=True):
            target[:] = array[: len(target)]

    def release(self, arrays: list[Any]) -> None:
        """The work on uploaded arrays has been queued."""

    def finish(self) -> None:
        """All targets are filled."""


class PinnedStaging:
    """Pinned buffers, one stream in, one out."""

    def __init__(self, cupy: Any, work: Any) -> None:
        self.cp = cupy
        self.work = work
        self.inward = cupy.cuda.Stream(non_blocking=True)
        self.outward = cupy.cuda.Stream(non_blocking=True)
        # (event, pinned buffers): free for use again when the event has happened.
        self.busy: deque[tuple[Any, list[Any]]] = deque()
        self.free: dict[int, list[Any]] = {}
        self.held: deque[list[Any]] = deque()
        self.leaving: deque[tuple[Any, list[Any], list[tuple[Any, np.ndarray]]]] = deque()

    def upload(self, arrays: list[np.ndarray]) -> list[Any]:
        """The arrays on the device; work queued from now on waits for them."""
        buffers, copies = [], []
        with self.inward:
            for array in arrays:
                copy = self.cp.empty(max(array.size, 1), array.dtype)
                if array.size:
                    buffer = self._pinned(array.nbytes)
                    pinned = np.frombuffer(buffer, array.dtype, array.size)
                    pinned[:] = array
                    copy.set(pinned, stream=self.inward)
                    buffers.append(buffer)
                copies.append(copy)
            event = self.inward.record()
        self.work.wait_event(event)
        self.busy.append((event, buffers))
        return copies

    def release(self, arrays: list[Any]) -> None:
        """The work on uploaded arrays has been queued: hold them until the next piece's is."""
        done = self.work.record()
        self.held.append(arrays)
        if len(self.held) > 1:
            self.held.popleft()
        # What is given back to the inward stream's memory now is written after that work.
        self.inward.wait_event(done)

    def download(self, arrays: list[Any], targets: list[np.ndarray]) -> None:
        """Begin to copy the arrays' first elements into the targets."""
        self.outward.wait_event(self.work.record())
        moves = []
        for array, target in zip(arrays, targets, strict=True):
            if target.size:
                buffer = self._pinned(target.nbytes)
                pinned = np.frombuffer(buffer, target.dtype, target.size)
                array[: target.size].get(stream=self.outward, out=pinned, blocking=False)
                moves.append((buffer, target))
        self.leaving.append((self.outward.record(), arrays, moves))
        while len(self.leaving) > 1:
            self._land()

    def finish(self) -> None:
        """All targets are filled."""
        while self.leaving:
            self._land()
        self.held.clear()

    def _land(self) -> None:
        event, arrays, moves = self.leaving.popleft()
        event.synchronize()
        for buffer, target in moves:
            target[:] = np.frombuffer(buffer, target.dtype, target.size)
            self.free.setdefault(_size(target.nbytes), []).append(buffer)
        arrays.clear()

    def _pinned(self, size: int) -> Any:
        """A pinned buffer of at least that size, from the ring if one is free."""
        while self.busy and self.busy[0][0].done:
            _, buffers = self.busy.popleft()
            for buffer in buffers:
                self.free.setdefault(_size(buffer.mem.size), []).append(buffer)
        room = _size(size)
        if self.free.get(room):
            return self.free[room].pop()
        return self.cp.cuda.alloc_pinned_memory(room)


def _size(size: int) -> int:
    """Sizes come in powers of two, so that buffers fit again."""
    return 1 << max(12, (size - 1).bit_length())
