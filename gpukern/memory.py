"""Memory for columns: blocks that are used again, and rooms that pieces use in turn."""

from __future__ import annotations

import mmap
import os
from collections import deque
from functools import cache

import numpy as np
import pyarrow as pa

from gpukern.errors import PlanError

SMALL = 1 << 15  # bytes below which NumPy's own allocator is quicker
LARGE = 1 << 20  # bytes of a column from which its block is used again
PAGE = 1 << 21  # bytes of a large page
KEPT_MB = 1024  # of blocks that nobody uses
KEEPS = hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MADV_HUGEPAGE")


def empty(n: int, dtype: type = np.float64) -> np.ndarray:
    """An uninitialised array. Touching pages that are new to the process costs more than most
    kernels do on them, so large arrays reuse memory."""
    size = n * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.empty(n, dtype)
    if size < LARGE or not KEEPS:
        return np.frombuffer(pa.allocate_buffer(size), dtype, n)
    return blocks().lend(size)[:size].view(dtype)


def zeros(n: int) -> np.ndarray:
    """Floats that are 0. The system clears the large pages of many when they are first used, in the
    thread that does; to fill them here would be to write them twice, in one thread."""
    size = 8 * n
    if size < LARGE or not KEEPS:
        return np.zeros(n)
    words = np.frombuffer(_block(size + PAGE), np.uint8)
    return words[-words.ctypes.data % PAGE :][:size].view(np.float64)


def _block(size: int) -> mmap.mmap:
    """So many bytes from the system, of large pages."""
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"the system has no {size:,} bytes of memory: {error}") from error
    block.madvise(mmap.MADV_HUGEPAGE)
    return block


class Blocks:
    """Memory of results that nobody uses any more, kept for the next ones.

    The pool of Arrow gives large blocks back to the system within milliseconds. The next table's
    results then wait for pages to be cleared, which takes as long as a dozen kernels. Kept blocks
    are marked as free: the system takes them when it is short of memory. At most
    ``$GPUKERN_KEPT_MB`` (default 1024) are kept, those given back last.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.free: deque[mmap.mmap] = deque()  # whose own operations are safe in any thread
        # Kept here, because at the end of the process modules are gone before results are.
        self.unused: int = getattr(mmap, "MADV_FREE", 0)

    def lend(self, size: int) -> np.ndarray:
        """So many bytes or more, whose content means nothing; the block comes back when no array
        needs it."""
        room = -(-size // PAGE) * PAGE
        for _ in range(len(self.free)):
            try:
                block = self.free.pop()
            except IndexError:  # another thread has taken the last
                break
            if room <= len(block) - PAGE <= room + room // 4:
                return np.asarray(_Lease(self, block))
            self.free.appendleft(block)
        return np.asarray(_Lease(self, _block(room + PAGE)))

    def give_back(self, block: mmap.mmap) -> None:
        """Nobody uses the block."""
        block.madvise(self.unused)
        self.free.append(block)
        kept = sum(map(len, tuple(self.free)))
        while kept > self.most and self.free:
            kept -= len(self.free.popleft())


class _Lease:
    """A block while arrays need it, from the first of its large pages on."""

    def __init__(self, owner: Blocks, block: mmap.mmap) -> None:
        self.owner, self.block = owner, block
        start = np.frombuffer(block, np.uint8).ctypes.data
        first = -(-start // PAGE) * PAGE
        self.__array_interface__ = {
            "version": 3, "typestr": "|u1", "shape": (len(block) - PAGE,), "data": (first, False),
        }  # fmt: skip

    def __del__(self) -> None:
        self.owner.give_back(self.block)


@cache
def blocks() -> Blocks:
    """The blocks of this process."""
    given = os.environ.get("GPUKERN_KEPT_MB", str(KEPT_MB))
    if not given.isdecimal():
        raise PlanError(
            f"GPUKERN_KEPT_MB must be a whole number of MB, 0 keeps none; got {given!r}"
        )
    return Blocks(int(given) << 20)


class Rooms:
    """Blocks for so many elements that are lent and given back, the last one first.

    What was written last is still in the cache, and no thread meets pages that are new to it, as
    with an allocator that keeps a heap for each thread. Calls from several threads are safe.
    """

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self.free: dict[int, list[np.ndarray]] = {1: [], 4: [], 8: []}  # by bytes of an element

    def lend(self, width: int) -> np.ndarray:
        """A block of bytes whose content means nothing, for elements of so many bytes."""
        try:
            return self.free[width].pop()
        except IndexError:
            return empty(width * self.elements, np.uint8)


class Lent:
    """Arrays in rooms, all given back at the end and some of them earlier."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.blocks: dict[int, tuple[int, np.ndarray]] = {}

    def empty(self, n: int, dtype: type = np.float64) -> np.ndarray:
        """An uninitialised array; a small one, or one that no room can hold, is an ordinary one."""
        width = np.dtype(dtype).itemsize
        if n * width < SMALL or n > self.rooms.elements:
            return empty(n, dtype)
        block = self.rooms.lend(width)
        self.blocks[id(block)] = width, block
        return block[: n * width].view(dtype)

    def give_back(self, array: np.ndarray) -> None:
        """Nobody reads the array, or another view of its room, any more."""
        width, block = self.blocks.pop(id(array.base), (0, None))
        if block is not None:
            self.rooms.free[width].append(block)

    def close(self) -> None:
        """Nobody reads any of the arrays any more."""
        for width, block in self.blocks.values():
            self.rooms.free[width].append(block)
        self.blocks.clear()
