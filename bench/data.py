"""Ticker rows of a made-up market, as an exchange's feed would deliver them.

Prices move by ticks (most rows do not move them, as in real tick data), symbols interleave at
random, quotes surround the price. All of it is a function of the arguments and the seed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

FIRST_NS = 1_700_000_000_000_000_000
MEAN_GAP_NS = 20_000_000
TICK = 0.5
"""Price step, and a power of two: sums of ticks are exact, so prices repeat exactly."""


def ticker(
    symbols: int, rows: int, *, quote_only: float = 0.0, seed: int = 1, first_ns: int = FIRST_NS
) -> pa.Table:
    """Canonical ticker rows in time order; ``quote_only`` is the share without price, size, side.

    Columns: ts, symbol, price, size, side, bid, ask, bid_size, ask_size.
    """
    rng = np.random.default_rng(seed)
    code = rng.integers(0, symbols, rows, dtype=np.int32)
    ts = first_ns + np.cumsum(rng.integers(1, 2 * MEAN_GAP_NS, rows))
    price = _walks(rng, code, symbols)
    bid = price - TICK * rng.integers(0, 2, rows)
    ask = bid + TICK * rng.integers(1, 4, rows)
    missing = rng.random(rows) < quote_only if quote_only else None
    names = pa.array([f"COIN{i}/USD" for i in range(symbols)])
    side = rng.integers(0, 2, rows, dtype=np.int8) * np.int8(2) - np.int8(1)
    return pa.table(
        {
            "ts": pa.array(ts).cast(pa.timestamp("ns", tz="UTC")),
            "symbol": pa.DictionaryArray.from_arrays(pa.array(code), names),
            "price": pa.array(price, mask=missing),
            "size": pa.array(_sizes(rng, rows), mask=missing),
            "side": pa.array(side, mask=missing),
            "bid": pa.array(bid),
            "ask": pa.array(ask),
            "bid_size": pa.array(_sizes(rng, rows)),
            "ask_size": pa.array(_sizes(rng, rows)),
        }
    )


def _walks(rng: np.random.Generator, code: np.ndarray, symbols: int) -> np.ndarray:
    """One random walk in ticks per symbol, each from its own level, laid out in row order."""
    order = np.argsort(code, kind="stable")
    step = rng.choice(np.array([-TICK, 0.0, 0.0, TICK]), code.size)
    walk = np.cumsum(step)
    counts = np.bincount(code, minlength=symbols)
    starts = np.cumsum(counts) - counts
    level = np.round(10_000.0 * np.exp(rng.normal(0.0, 0.7, symbols))) + 4_000.0
    before = np.concatenate(([0.0], walk))[starts]
    price = np.empty(code.size)
    price[order] = walk + np.repeat(level - before, counts)
    return price


def _sizes(rng: np.random.Generator, rows: int) -> np.ndarray:
    return np.round(rng.exponential(0.8, rows), 4) + 1e-4
