"""The simulator as a device, its sizes as they are or as a test sets them."""

from __future__ import annotations

from typing import Any

import pytest

from gpukern import backend


@pytest.fixture
def simulator() -> Any:
    return backend.get("cudasim")


@pytest.fixture
def undivided(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulator with every symbol's rows left to one thread."""
    monkeypatch.setattr(simulator, "split_rows", 1 << 62)
    return simulator
