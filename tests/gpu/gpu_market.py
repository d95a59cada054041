"""Millions of rows in two shapes: few symbols with long series, many with short ones."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pyarrow as pa
import samples

ROWS = int(os.environ.get("GPUKERN_GPU_ROWS", "10_000_000"))
FEW, MANY = 14, 10_000


@cache
def market(symbols: int, rows: int = ROWS) -> pa.Table:
    """Rows of one walk dealt out to symbols at random, with missing values and ties in time.

    Time runs faster with more symbols, so that a symbol's rows are as far apart in any shape.
    """
    values, nulls = samples.punch(samples.columns(rows, seed=31), share=0.02, seed=32)
    for name in ("ts", "last_update"):
        values[name] = samples.START_NS + (values[name] - samples.START_NS) // symbols
    keys = np.random.default_rng(33).integers(0, symbols, rows)
    table = samples.table({"all": values}, holes={"all": nulls})
    names = pa.array([f"S{n}" for n in range(symbols)])
    column = pa.DictionaryArray.from_arrays(pa.array(keys, pa.int32()), names)
    return table.set_column(0, "symbol", column)
