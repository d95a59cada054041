"""The kernels of the registry, by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import gpukern as gk
from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from gpukern.kernel import Kernel


def all_kernels() -> list[Kernel]:
    """Every kernel, by family and name."""
    return sorted(gk.kernels().values(), key=lambda kernel: (kernel.family, kernel.name))


def find_kernel(name: str) -> Kernel:
    """The kernel called `name`; the error suggests the nearest name."""
    known = gk.kernels()
    if name not in known:
        raise PipelineError(f"no kernel {name!r}{nearest(name)}")
    return known[name]


def nearest(name: str) -> str:
    """What to try instead of a name that is not there."""
    close = get_close_matches(name, gk.kernels(), n=1)
    return f"; did you mean {close[0]!r}?" if close else "; `gpukern kernels` lists the names"
