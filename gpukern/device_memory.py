"""A GPU's memory where RMM is installed: cuDF, CuPy and the engine take it from one place.

RMM's own default asks the driver for every array, and the driver makes all streams wait. So where
nobody has chosen another resource, CUDA's stream-ordered pool takes its place; arrays that are
there keep the resource they came from.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

log = logging.getLogger("gpukern")


def share(cupy: Any) -> bool:
    """Let CuPy allocate from RMM; False where RMM is not installed."""
    if importlib.util.find_spec("rmm") is None:
        return False
    import rmm
    from rmm.allocators.cupy import rmm_cupy_allocator

    if type(rmm.mr.get_current_device_resource()) is rmm.mr.CudaMemoryResource:
        rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource())
        log.info("RMM had no pool: CUDA's stream-ordered one is its resource from now on")
    cupy.cuda.set_allocator(rmm_cupy_allocator)
    return True


def rmm_pool_bytes() -> int:
    """The size of the pools that RMM's current resource takes memory from."""
    import rmm

    return pool_bytes(rmm.mr.get_current_device_resource())


def pool_bytes(resource: Any) -> int:
    """The size of the pools in a chain of resources, in use or not.

    RMM does not say how much of a pool is in use; a piece that is too large finds that out.
    """
    size = 0
    while resource is not None:
        size += resource.pool_size() if hasattr(resource, "pool_size") else 0
        resource = getattr(resource, "upstream_mr", None)
    return size
