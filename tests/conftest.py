"""What all tests share: the skip rule of CI, the real captures."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

# What may be missing on a machine. Any other skip is a test that nobody runs: CI fails on it.
ALLOWED_SKIPS = [
    re.compile(r"captures absent: .+"),
    re.compile(r"no GPU: .+"),
    re.compile(r"extra \w+ not installed\b.*"),
]
pytest_plugins = ["kafka_fixtures"]

with suppress(ImportError):  # a GPU machine has pytest alone
    from hypothesis import HealthCheck, settings

    # How long examples take says how busy the machine is.
    unhurried = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("unhurried", **unhurried)
    settings.load_profile("unhurried")


def _fail_unexpected_skip(report: Any) -> None:
    if os.environ.get("GPUKERN_CI") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not any(allowed.fullmatch(reason) for allowed in ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"unexpected skip: {reason!r}; ALLOWED_SKIPS in tests/conftest.py lists"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, Any]:
    report = yield
    _fail_unexpected_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: Any) -> Generator[None, Any, Any]:
    report = yield
    _fail_unexpected_skip(report)
    return report


@pytest.fixture(scope="session")
def captures() -> Path:
    """Real recorded messages; not part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "captures"
    root = Path(os.environ.get("GPUKERN_CAPTURES", beside))
    if not root.is_dir():
        pytest.skip(f"captures absent: no folder {root}")
    return root
