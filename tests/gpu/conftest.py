"""These tests need a GPU: `make gpu` runs them, elsewhere they are skipped with the reason.

They need only what the engine needs (NumPy, numba, Arrow), CuPy and pytest.
"""

from __future__ import annotations

import numba
import pytest

from gpukern import backend


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """Skips what cannot run here."""
    missing = backend.what_is_missing()
    if missing:
        pytest.skip(f"no GPU: {missing}")
    if numba.config.ENABLE_CUDASIM:
        pytest.skip("no GPU: the simulator is on in this process; run tests/gpu alone (make gpu)")
