"""Numba's simulator, made fit for threads that wait for each other.

Its own blocks look all the time whether their threads wait, which takes Python's lock from those
very threads (5 ms a barrier), and two threads that ask for a shared array at the same time may get
two arrays.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

PATIENCE_S = 60.0  # for a thread that never comes to the barrier


def mend(kernel: Any, kernelapi: Any) -> None:
    """Put the parts below into numba's modules of the simulator."""

    def run(self: Any, grid_point: Any, *arguments: Any) -> None:
        """The threads of a block, which meet at a barrier."""
        self.barrier = threading.Barrier(int(np.prod(self._block_dim)))

        def work() -> None:
            try:
                self._f(*arguments)
            except BaseException:
                self.barrier.abort()  # nobody waits for this thread
                raise

        threads = [
            kernel.BlockThread(work, self, grid_point, point, self._debug)
            for point in np.ndindex(*self._block_dim)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = [t.exception for t in threads if t.exception]
        # The barrier's end is what the others saw of the one that failed.
        failed.sort(key=lambda e: isinstance(e[0], threading.BrokenBarrierError))
        if failed:
            raise failed[0][0].with_traceback(failed[0][1])

    kernel.BlockManager.run = run
    kernel.BlockThread.syncthreads = _meet
    kernelapi.FakeCUDAShared.array = _shared_array
    # It has no warps: the few threads of its blocks are one.
    kernelapi.FakeCUDAModule.syncwarp = kernelapi.FakeCUDAModule.syncthreads


def _meet(thread: Any) -> None:
    thread._manager.barrier.wait(PATIENCE_S)


def _shared_array(shared: Any, shape: int, dtype: Any) -> np.ndarray:
    """The array that a line of a kernel asks for, the same for every thread of a block."""
    line = sys._getframe(1)
    found: np.ndarray = shared._allocations.setdefault(
        (line.f_code.co_filename, line.f_lineno), np.empty(shape, dtype)
    )
    return found
