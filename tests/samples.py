"""Market data with everything that goes wrong in it, small and reproducible.

Every column that a kernel may name is there, so that a loop over the registry finds its inputs:
prices at 67000 ± 0.01 and at 1e-8, ties in time, equal consecutive prices, constant stretches
longer than any window of the tests, one print of 1e9, every kind of missing value, a symbol with
one row, times before 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

SECOND = 1_000_000_000
# 23:55 UTC, so that the data crosses midnight.
START_NS = 1_723_161_300 * SECOND
BAD_PRINT = 1e9
BAD_ROW = 61

SYMBOLS = ("BTC/USD", "TINY/USD", "FLAT/USD", "BAD/USD", "GAPS/USD", "OLD/USD", "ONE/USD")

# Inputs that are neither prices nor levels: they do not change when prices are quoted otherwise.
AMOUNTS = frozenset({"size", "volume", "bid_size", "ask_size", "side", "signed_volume"})
INTEGERS = frozenset({"side", "last_update"})

Missing = Callable[[np.ndarray], np.ndarray]
MISSING_VALUES = (None, np.nan, np.inf, -np.inf, -1.0)


def columns(
    rows: int,
    *,
    level: float = 67000.0,
    tick: float = 0.01,
    start_ns: int = START_NS,
    seed: int = 0,
    ties: bool = True,
    equal_prices: bool = True,
) -> dict[str, np.ndarray]:
    """Columns of one symbol, no value missing."""
    random = np.random.default_rng(seed)
    gaps = random.integers(0 if ties else 1, 3000, rows) * (SECOND // 1000)
    if ties:
        gaps[random.random(rows) < 0.15] = 0
    t = start_ns + np.cumsum(gaps)
    moves = random.integers(-4, 5, rows)
    if not equal_prices:
        moves[moves == 0] = 1
    steps = np.cumsum(moves)
    base = round(level / tick)
    price = (base + steps) * tick
    low = (base + steps - random.integers(0, 5, rows)) * tick
    high = (base + steps + random.integers(1, 5, rows)) * tick
    bid = (base + steps - random.integers(0, 4, rows)) * tick
    ask = bid + random.integers(1, 4, rows) * tick
    size = random.exponential(1.0, rows) + 1e-3
    side = random.choice([-1, 1, 1, -1, 0], rows)
    other = (base + steps // 2 + np.cumsum(random.integers(-3, 4, rows))) * tick
    noise = random.normal(0.0, 1e-4, rows)
    return {
        "ts": t,
        "price": price,
        "size": size,
        "volume": size,
        "side": side,
        "bid": bid,
        "ask": ask,
        "bid_size": np.round(random.exponential(2.0, rows), 3) + 1e-3,
        "ask_size": np.round(random.exponential(2.0, rows), 3) + 1e-3,
        "open": np.concatenate([price[:1], price[:-1]]),
        "high": high,
        "low": low,
        "close": price,
        "exec_price": price,
        "midprice": bid + (ask - bid) / 2.0,
        "signed_volume": side * size,
        "log_return": noise,
        "pnl": noise + 1e-5,
        "equity": price,
        "x": price,
        "y": other,
        "last_update": t - random.integers(-1500, 3000, rows) * (SECOND // 1000),
    }


def flatten(values: dict[str, np.ndarray], where: Iterable[int]) -> dict[str, np.ndarray]:
    """Prices, levels and returns stand still over the rows; time and sizes go on."""
    rows = np.asarray(list(where))
    still = {n: v.copy() for n, v in values.items()}
    for name, column in still.items():
        if name not in AMOUNTS and name not in ("ts", "last_update"):
            column[rows] = 0.0 if name in ("log_return", "pnl") else column[rows[0]]
    return still


def with_print(
    values: dict[str, np.ndarray], row: int = BAD_ROW, value: float = BAD_PRINT
) -> dict[str, np.ndarray]:
    """Every float column holds one absurd value in one row."""
    spoilt = {n: v.copy() for n, v in values.items()}
    for column in spoilt.values():
        if column.dtype == np.float64:
            column[row] = value
    return spoilt


def table(
    parts: dict[str, dict[str, np.ndarray]],
    *,
    order: Sequence[str] | np.ndarray | None = None,
    holes: dict[str, dict[str, np.ndarray]] | None = None,
) -> pa.Table:
    """Symbols' columns as one table, rows in time order or in the given order of symbols.

    ``holes`` names for a symbol the rows of a column that are null.
    """
    names = list(next(iter(parts.values())))
    symbols = np.concatenate([[s] * len(p["ts"]) for s, p in parts.items()])
    data = {n: np.concatenate([p[n] for p in parts.values()]) for n in names}
    nulls = {
        n: np.concatenate(
            [
                (holes or {}).get(s, {}).get(n, np.zeros(len(p["ts"]), bool))
                for s, p in parts.items()
            ]
        )
        for n in names
    }
    if order is None:
        rows = np.argsort(data["ts"], kind="stable")
    else:
        queues = {s: iter(np.flatnonzero(symbols == s)) for s in parts}
        rows = np.array([next(queues[s]) for s in order])
    made = {"symbol": pa.array(symbols[rows]).dictionary_encode()}
    for name in names:
        made[name] = _array(name, data[name][rows], nulls[name][rows])
    return pa.table(made)


def _array(name: str, values: np.ndarray, nulls: np.ndarray) -> pa.Array:
    mask = nulls if nulls.any() else None
    if name == "ts":
        return pa.array(values.astype(np.int64), pa.timestamp("ns", "UTC"), mask=mask)
    if name in INTEGERS:
        return pa.array(values.astype(np.int8 if name == "side" else np.int64), mask=mask)
    return pa.array(values.astype(np.float64), mask=mask)


def punch(
    values: dict[str, np.ndarray], *, share: float = 0.06, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Make values missing in every way there is; returns the columns and their nulls."""
    random = np.random.default_rng(seed)
    spoilt = {n: v.copy() for n, v in values.items()}
    nulls = {}
    for name, column in spoilt.items():
        if name == "ts":
            continue
        hit = random.random(len(column)) < share
        kinds = random.integers(0, len(MISSING_VALUES), len(column))
        nulls[name] = hit & (kinds == 0)
        if column.dtype == np.float64:
            for kind, value in enumerate(MISSING_VALUES[1:], start=1):
                column[hit & (kinds == kind)] = value
    return spoilt, nulls


def symbol_parts(
    rows: int = 180, long_rows: int = 420
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """The columns of all symbols and their nulls. One symbol is long enough for several blocks."""
    gaps, nulls = punch(columns(long_rows, seed=5), seed=6)
    parts = {
        "BTC/USD": columns(long_rows, seed=1),
        "TINY/USD": columns(rows, level=1e-8, tick=1e-10, seed=2),
        "FLAT/USD": flatten(columns(rows, seed=3), range(rows // 3, 2 * rows // 3)),
        "BAD/USD": with_print(columns(rows, seed=4), rows // 3),
        "GAPS/USD": gaps,
        "OLD/USD": columns(rows, level=50.0, start_ns=-100 * SECOND, seed=7),
        "ONE/USD": columns(1, seed=8),
    }
    return parts, {"GAPS/USD": nulls}


def market() -> pa.Table:
    """All symbols in one table, in time order within each symbol, interleaved at random."""
    parts, holes = symbol_parts()
    random = np.random.default_rng(9)
    order = np.concatenate([[s] * len(p["ts"]) for s, p in parts.items()])
    random.shuffle(order)
    return table(parts, order=order, holes=holes)


def clean(rows: int = 300, seed: int = 11, **options: Any) -> pa.Table:
    """One symbol, nothing missing, no ties, no equal consecutive prices."""
    return table({"BTC/USD": columns(rows, seed=seed, ties=False, equal_prices=False, **options)})


def bits(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(validity, the values' bit patterns with 0 where null): equal iff the columns are."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    valid = np.asarray(array.is_valid())
    filled = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    values = filled.to_numpy(zero_copy_only=False)
    if values.dtype == np.float64:
        values = values.view(np.int64)
    return valid, np.where(valid, values, 0)


def assert_same(
    got: pa.Table, expected: pa.Table, names: Iterable[str], rows: np.ndarray | None = None
) -> None:
    """The named columns agree bit for bit; ``got`` has the ``rows`` of ``expected``."""
    for name in names:
        assert got.schema.field(name).type == expected.schema.field(name).type
        valid, values = bits(got.column(name))
        wanted_valid, wanted = bits(expected.column(name))
        if rows is not None:
            wanted_valid, wanted = wanted_valid[rows], wanted[rows]
        assert len(valid) == len(wanted_valid), f"{name}: {len(valid)} rows"
        different = np.flatnonzero((valid != wanted_valid) | (values != wanted))
        if len(different):
            row = int(different[0])
            at = row if rows is None else int(rows[row])
            found, right = got.column(name)[row].as_py(), expected.column(name)[at].as_py()
            raise AssertionError(
                f"{name}: {len(different)} of {len(valid)} rows differ, first row {row}: "
                f"{found!r} instead of {right!r}"
            )
