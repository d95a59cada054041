"""On CI a skip without an accepted reason is a failure; elsewhere it is a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
BODY = """
import pytest

def test_captures():
    pytest.skip("captures absent: no folder")

def test_device():
    pytest.skip("no GPU: nothing to run on")

def test_extra():
    pytest.importorskip("no_such_module_at_all", reason="extra kafka not installed")

def test_lazy():
    pytest.skip("does not work yet")

@pytest.mark.skip
def test_lazier():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    assert False
"""


WORKERS = ["-n", "2", "--dist", "loadfile"]


def run_tests(folder: Path, ci: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of `folder` under the rule."""
    shutil.copy(TESTS / "conftest.py", folder)
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)],
        env={**environment, "GPUKERN_CI": ci, "PYTHONPATH": str(TESTS)},
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("options", [[], WORKERS], ids=["alone", "workers"])
@pytest.mark.parametrize(
    ("ci", "expected"),
    [("1", "1 failed, 3 skipped, 1 xfailed, 1 error"), ("", "5 skipped, 1 xfailed")],
)
def test_unexplained_skips(tmp_path: Path, ci: str, expected: str, options: list[str]) -> None:
    (tmp_path / "test_some.py").write_text(BODY)
    run = run_tests(tmp_path, ci, *options)
    assert expected in run.stdout
    assert ("unexpected skip: 'does not work yet'" in run.stdout) == bool(ci)


@pytest.mark.parametrize("options", [[], WORKERS], ids=["alone", "workers"])
def test_a_whole_module_that_skips_itself_counts_too(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_some.py").write_text(
        'import pytest\npytest.skip("later", allow_module_level=True)\n'
    )
    run = run_tests(tmp_path, "1", *options)
    assert run.returncode != 0
    assert "unexpected skip: 'later'" in run.stdout
