"""Compiles device code to PTX and machine code without a driver; one JSON line per function.

``python ptx_worker.py SHARE SHARES PTXAS``: of the variants that the registry's parameter sets
use, and of the shared modules, every SHARES-th from SHARE on. A process of its own, because the
compiler and its simulator exclude each other. What numba makes of a function is the same for every
architecture (``test_ptx.py`` asks), so only libNVVM runs once for each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import checks

from gpukern import backend, codegen, join_device, kernel
from gpukern.forms import cuda, device_cut, device_rows, device_segments, device_split

ARCHITECTURES = ((9, 0), (8, 0))
SHARED = (device_rows, device_cut, device_segments, device_split, join_device)
WHOLE = 7  # every so many functions, the second architecture is compiled from Python, too

Function = tuple[str, Callable[..., Any], str]  # name, function, argument kinds


def functions() -> Iterator[Function]:
    """Every device function that a plan may launch."""
    compiler = backend._cuda_module()
    for module in SHARED:
        module.__dict__["cuda"] = compiler
    for name, (function, kinds) in device_rows.FUNCTIONS.items():
        yield f"shared.{name}", function, kinds
    seen = set()
    for found in kernel.kernels().values():
        for step in checks.Subject(found).plan.steps:
            made = cuda.template(step.template, step.params)
            key = (step.kernel.name, made.text)
            if key in seen:
                continue
            seen.add(key)
            module = codegen.load_device(step.kernel, made.variant, made.text, False)
            module.__dict__["cuda"] = compiler
            for name, kinds in made.kinds.items():
                yield f"{step.kernel.name}.{made.variant}.{name}", getattr(module, name), kinds


def compile_both(function: Callable[..., Any], kinds: str) -> tuple[str, str]:
    """PTX for the first architecture and, from the same IR, for the second."""
    nvvm: Any = import_module("numba.cuda.cudadrv.nvvm")
    own, calls = nvvm.compile_ir, []

    def noted(ir: Any, **options: Any) -> Any:
        calls.append((ir, options))
        return own(ir, **options)

    nvvm.compile_ir = noted
    try:
        first = backend.compile_ptx(function, kinds, ARCHITECTURES[0])
    finally:
        nvvm.compile_ir = own
    ((ir, options),) = calls
    major, minor = ARCHITECTURES[1]
    second = own(ir, **{**options, "arch": f"compute_{major}{minor}"})
    return first, second.decode().strip("\x00").strip()


def unnamed(ptx: str) -> str:
    """Without symbols: numba counts what it compiles in them."""
    return re.sub(r"_Z\w+|_cudapy_smem_\d+", "_", ptx)


def assemble(ptx: str, architecture: str, ptxas: str) -> dict[str, int]:
    """Registers, stack and spills by ptxas."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        done = subprocess.run(
            [ptxas, "-v", "--gpu-name", architecture, "-o", "/dev/null", file.name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip

    def largest(pattern: str) -> int:
        return max(map(int, re.findall(pattern, done.stderr)), default=-1)

    return {
        "registers": largest(r"Used (\d+) registers"),
        "stack": largest(r"(\d+) bytes stack frame"),
        "spilled": largest(r"(\d+) bytes spill"),
    }


def describe(name: str, kinds: str, ptx: str, architecture: str, ptxas: str) -> dict[str, Any]:
    """What the tests ask about."""
    head = ptx[ptx.index(".visible .entry") :]
    return {
        "function": name,
        "architecture": architecture,
        "kinds": kinds,
        "target": re.findall(r"^\.target (\w+)", ptx, re.M),
        "entries": len(re.findall(r"\.visible \.entry", ptx)),
        "parameters": re.findall(r"\.param \.(\w+)", head[: head.index("{")]),
        "contracted": sorted(set(re.findall(r"\b(?:fma|mad)\.(?:rn|rz|rm|rp)?\.?f\d+", ptx))),
        "contractible": sorted(set(re.findall(r"\b(?:mul|add|sub)\.f(?:32|64)", ptx))),
        "approximate": sorted(set(re.findall(r"\b\w+\.(?:approx|full)\.\w+", ptx))),
        "extern": re.findall(r"\.extern [^\n]*", ptx),
        **assemble(ptx, architecture, ptxas),
    }


def main(share: int, shares: int, ptxas: str) -> None:
    for n, (name, function, kinds) in enumerate(functions()):
        if n % shares != share:
            continue
        texts = compile_both(function, kinds)
        same = True
        if n % (WHOLE * shares) == share:
            whole = backend.compile_ptx(function, kinds, ARCHITECTURES[1])
            same = unnamed(whole) == unnamed(texts[1])
        for (major, minor), text in zip(ARCHITECTURES, texts, strict=True):
            found = describe(name, kinds, text, f"sm_{major}{minor}", ptxas)
            print(json.dumps({**found, "same": same}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
