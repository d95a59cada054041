"""Market data of the canonical shape, small and reproducible."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PRICES = {"BTC/USDT": 61_000.0, "ETH/USDT": 2_500.0, "SOL/USDT": 150.0}
START_NS = 1_723_100_000_000_000_000


def ticker_table(rows: int = 3000, symbols: int = 3, seed: int = 7) -> pa.Table:
    """Canonical ticker rows: interleaved symbols, a quarter trades, correlated random walks."""
    random = np.random.default_rng(seed)
    names = list(PRICES)[:symbols]
    code = random.integers(0, symbols, rows)
    walk = np.cumsum(random.normal(0, 3e-5, rows))
    for number in range(symbols):
        own = code == number
        walk[own] += np.cumsum(random.normal(0, 3e-5, own.sum()))
    middle = np.array(list(PRICES.values()))[code] * np.exp(walk)
    half = middle * 1e-5
    quote_only = random.random(rows) < 0.75
    side = np.where(random.random(rows) < 0.5, 1, -1).astype(np.int8)
    time = START_NS + np.cumsum(random.integers(1, 200_000_000, rows))
    stamp = pa.array(time, pa.timestamp("ns", "UTC"))
    return pa.table(
        {
            "ts": stamp,
            "recv_ts": stamp,
            "exchange": pa.array(["binance"] * rows).dictionary_encode(),
            "symbol": pa.DictionaryArray.from_arrays(code.astype(np.int32), names),
            "price": pa.array(middle + side * half, mask=quote_only),
            "size": pa.array(random.exponential(0.1, rows), mask=quote_only),
            "side": pa.array(side, mask=quote_only),
            "bid": middle - half,
            "ask": middle + half,
            "bid_size": random.exponential(1.0, rows),
            "ask_size": random.exponential(1.0, rows),
        }
    )


@pytest.fixture(scope="session")
def ticker() -> pa.Table:
    """Three symbols, 3,000 rows."""
    return ticker_table()


@pytest.fixture
def ticker_file(tmp_path: Path, ticker: pa.Table) -> Path:
    """The same as a Parquet file of several row groups."""
    path = tmp_path / "ticker.parquet"
    pq.write_table(ticker, path, row_group_size=700)
    return path


@pytest.fixture
def plan_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a plan file with the given text."""

    def write(text: str) -> Path:
        path = tmp_path / "plan.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def capture() -> Path:
    """A real recording of Binance Spot; not part of the project."""
    root = Path(os.environ.get("GPUKERN_CAPTURES", Path(__file__).parents[3] / "shared/captures"))
    path = root / "binance" / "spot_btcusdt_20240808.recv_ns.gz"
    if not path.exists():
        pytest.skip("captures absent: no recordings of exchanges at ../shared/captures")
    return path
