"""Memory for columns: from Arrow's pool, and rooms that the pieces of a run use in turn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

SMALL = 1 << 15  # bytes below which NumPy's own allocator is quicker


def empty(n: int, dtype: type = np.float64) -> np.ndarray:
    """An uninitialised array. Touching pages that are new to the process costs more than most
    kernels do on them, so large arrays reuse the pool's."""
    size = n * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.empty(n, dtype)
    return np.frombuffer(pa.allocate_buffer(size), dtype, n)


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
