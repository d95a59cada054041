"""Memory for columns: from Arrow's pool, which keeps freed pages instead of returning them."""

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
