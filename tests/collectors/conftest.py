"""Where the recordings are."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def captures() -> Path:
    """Real recorded messages, which are not part of the project."""
    root = Path(__file__).parents[2]
    path = Path(os.environ.get("GPUKERN_CAPTURES", root.parent / "shared" / "captures"))
    if not path.is_dir():
        pytest.skip(f"no captures at {path}: set GPUKERN_CAPTURES to their directory")
    return path


@pytest.fixture(scope="session")
def spot_capture(captures: Path) -> Path:
    return captures / "binance" / "spot_btcusdt_20240808.recv_ns.gz"


@pytest.fixture(scope="session")
def usdm_capture(captures: Path) -> Path:
    return captures / "binance_usdm" / "usdm_btcusdt_20240808.recv_ns.gz"
