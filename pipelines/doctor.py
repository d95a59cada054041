"""What is installed, what this machine has, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import gpukern as gk
from gpukern import backend

LIBRARIES = ("numpy", "numba", "pyarrow", "polars")
DEVICE_LIBRARIES = ("numba-cuda", "cupy-cuda13x", "cupy-cuda12x", "cudf")


@dataclass(frozen=True)
class Finding:
    """A line of the report; `remedy` is what to do about it, empty when all is well."""

    topic: str
    value: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at this installation; starts nothing and needs no network."""
    return [
        Finding("gpukern", metadata.version("gpukern")),
        Finding("python", f"{platform.python_version()} ({sys.executable})"),
        *(Finding(name, metadata.version(name)) for name in LIBRARIES),
        Finding("cpu", f"{_cpu_name()}, {_usable_cores()} cores"),
        Finding("gpu", _gpu()),
        *(Finding(n, metadata.version(n)) for n in DEVICE_LIBRARIES if _installed(n)),
        _cache(),
        *(_extra(name) for name in _extras()),
    ]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Cores this process may use; a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu() -> str:
    missing = backend.what_is_missing()
    if missing:
        return f"none used, everything runs on the CPU: {missing}"
    return backend.describe()


def _cache() -> Finding:
    folder = Path(gk.cache_dir())
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    if not files:
        return Finding("compile cache", f"{folder}, empty", "fill it: gpukern warmup")
    size = sum(path.stat().st_size for path in files)
    return Finding("compile cache", f"{folder}, {len(files)} files, {size / 1e6:.1f} MB")


def _extras() -> list[str]:
    names = metadata.metadata("gpukern").get_all("Provides-Extra") or []
    return [name for name in names if name != "all"]


def _extra(name: str) -> Finding:
    packages = extra_packages(name, metadata.requires("gpukern") or [])
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return Finding(f"extra {name}", "installed")
    return Finding(
        f"extra {name}", f"missing {', '.join(missing)}", f'pip install "gpukern[{name}]"'
    )


def extra_packages(extra: str, requirements: list[str]) -> list[str]:
    """The packages an extra asks for, from a distribution's `Requires-Dist` lines."""
    marker = re.compile(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""")
    packages = []
    for requirement in requirements:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and marker.search(requirement) and name.group() != "gpukern":
            packages.append(name.group())
    return packages


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
