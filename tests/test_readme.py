"""The README's commands and programs run, and print what it says they print."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpukern import kernel

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

# Time and speed differ from run to run; everything else must be equal.
VOLATILE = re.compile(r"\d[\d,.]*(?= (?:ns|µs|ms|s|M rows/s|rows/s)\b)")


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steady(text: str) -> list[str]:
    return VOLATILE.sub("#", text).splitlines()


@pytest.fixture(autouse=True)
def _own_kernels_go_again() -> Iterator[None]:
    """The README registers a kernel of its own; other tests loop over the registry."""
    before = set(kernel.kernels(hidden=True))
    yield
    for name in set(kernel.kernels(hidden=True)) - before:
        kernel.unregister(name)


def test_transcripts_and_programs_print_what_the_readme_shows(
    docs: ModuleType, tmp_path: Path
) -> None:
    assert steady(docs.with_outputs(README, tmp_path)) == steady(README)


def test_figures_are_those_the_benchmarks_wrote(docs: ModuleType) -> None:
    shown = docs.MEASUREMENTS.search(README)
    assert shown is not None
    assert shown.group() == docs.measurements()


def test_first_screen_names_the_two_commands() -> None:
    first_screen = "\n".join(README.splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in first_screen


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "gpukern demo"),
        ("test", "pytest -W error"),
        ("check", "ruff format --check"),
        ("bench", "-m bench"),
        ("docs", "docs/build.py"),
        ("warmup", "gpukern warmup"),
    ],
)
def test_make_target_runs(target: str, command: str) -> None:
    plan = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert command in plan.stdout


def test_old_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    run = subprocess.run(
        ["make", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert f"needs Python 3.11 or newer, but {old} is Python 3.9.2" in run.stderr
    assert "make PYTHON=" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_relative_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
