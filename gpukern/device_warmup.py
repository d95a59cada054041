"""Device code compiled before it is needed, on any machine: an image can be built without a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from gpukern import backend, codegen, device_functions
from gpukern.errors import PlanError
from gpukern.forms import cuda, device_rows

if TYPE_CHECKING:
    from gpukern.plan import Plan

# The modules of shared functions: those of plans and those of joins.
SHARED = (*device_functions.CHUNKS, "gpukern.join_device")


def parse_architecture(text: str) -> tuple[int, int]:
    """``(9, 0)`` for ``'sm_90'``."""
    found = re.fullmatch(r"sm_(\d+)(\d)", text)
    if found is None:
        raise PlanError(f"arch must be a GPU architecture such as sm_90 or sm_80, got {text!r}")
    return int(found[1]), int(found[2])


def warmup_device(
    plan: Plan,
    architecture: str,
    progress: Callable[[int, int, str], None] | None = None,
) -> int:
    """Compile all that the plan launches on a GPU into the cache; the number of functions.

    ``progress(done, total, function)`` is called after each. Needs numba-cuda, no GPU, no driver.
    """
    compiler = backend.Compiler(parse_architecture(architecture))
    for module in SHARED:
        import_module(module)
    wanted = {
        f"shared.{name}": (function, codegen.text_digest(function), kinds)
        for name, (function, kinds) in device_rows.FUNCTIONS.items()
    }
    for step in plan.steps:
        made = cuda.template(step.template, step.params)
        code = codegen.load_device(step.kernel, made.variant, made.text, False)
        digest = f"{step.kernel.name}_{code.digest}"
        for name, kinds in made.kinds.items():
            function = getattr(code, name)
            wanted[f"{digest}.{name}"] = (function, digest, kinds)
    for done, (name, (function, digest, kinds)) in enumerate(wanted.items(), start=1):
        compiler.load(function, digest, kinds)
        if progress is not None:
            progress(done, len(wanted), name)
    return len(wanted)
