"""Writes rapids-26.10.txt: what Dockerfile.cuda installs with pip beside RAPIDS.

``python requirements/lock.py`` (pip and packaging, no GPU) resolves the project's dependencies
together with RAPIDS from PyPI, for the image's Python, and writes down those that are not the conda
environment's, with all that they need. Another release of RAPIDS is put here, into
rapids-26.10-conda.txt and into Dockerfile.cuda; tests/cuda/test_images.py compares the three.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PYTHON = "3.13"
RAPIDS = ["cudf-cu13==26.10.*", "dask-cuda==26.10.*"]
COMPILER = ["numba-cuda[cu13]==0.30.4", "cupy-cuda13x==14.2.*"]
EXTRAS = ("kafka", "metrics")
# What conda has: cuDF's own dependencies, and those that rapids-26.10-conda.txt pins.
CONDA = {"numpy", "numba", "pandas", "pyarrow", "msgspec", "zstandard", "packaging"}
PLATFORMS = [f"manylinux_2_{glibc}_x86_64" for glibc in (34, 28, 27, 26, 24, 17)]
PLATFORMS += ["manylinux2014_x86_64"]
MARKERS = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "os_name": "posix",
}
HEAD = """\
# What Dockerfile.cuda installs with pip beside RAPIDS 26.10, dependencies included (pip install
# --no-deps). Made by `python requirements/lock.py` for Python {python} on x86-64; resolved together
# with {together},
# so that nothing here moves a package of RAPIDS.
"""


def wanted() -> list[str]:
    """The project's requirements and those of its GPU tests."""
    text = (HERE.parent / "pyproject.toml").read_text()
    project: dict[str, Any] = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(line for e in EXTRAS for line in extras[e]), "pytest>=8.3"]


def resolved(requirements: list[str]) -> dict[str, dict[str, Any]]:
    """Metadata of every package that pip would install, by name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
            "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp",
            *(f"--platform={p}" for p in PLATFORMS), f"--target={folder}", f"--report={report}",
        ]  # fmt: skip
        subprocess.run([*command, *requirements], check=True)
        found = json.loads(report.read_text())["install"]
    return {canonicalize_name(i["metadata"]["name"]): i["metadata"] for i in found}


def closure(roots: list[str], packages: dict[str, dict[str, Any]]) -> set[str]:
    """The packages that these requirements lead to, without conda's."""
    found: set[str] = set()
    open_ = [Requirement(line) for line in roots]
    seen: set[tuple[str, str]] = set()
    while open_:
        requirement = open_.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if name in CONDA or (name, extra) in seen:
                continue
            seen.add((name, extra))
            found.add(name)
            for line in packages[name].get("requires_dist", []):
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({**MARKERS, "extra": extra}):
                    open_.append(needed)
    return found


def main() -> None:
    packages = resolved([*wanted(), *RAPIDS, *COMPILER])
    fixed = [canonicalize_name(Requirement(line).name) for line in [*RAPIDS, *COMPILER]]
    together = ", ".join(f"{name} {packages[name]['version']}" for name in fixed)
    lines = [f"{n}=={packages[n]['version']}" for n in sorted(closure(wanted(), packages))]
    text = HEAD.format(together=together, python=PYTHON) + "\n".join(lines) + "\n"
    (HERE / "rapids-26.10.txt").write_text(text)


if __name__ == "__main__":
    main()
