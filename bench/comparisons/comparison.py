"""One line of the kernel table: our expression and the rivals' ways to the same columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

Arrays = dict[str, np.ndarray]
Outputs = np.ndarray | tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Comparison:
    """Our expression, the columns it uses, and how rivals get its outputs (the first ones, if
    they have fewer), in our order."""

    ours: Any
    uses: tuple[str, ...]
    polars: tuple[pl.Expr, ...] = ()
    pandas: Callable[[pd.DataFrame], Any] | None = None
    arrays: dict[str, Callable[[Arrays], Outputs]] = field(default_factory=dict)
    row_wise: bool = False
    needs_time: bool = False


def line(
    ours: Any,
    uses: str,
    polars: pl.Expr | tuple[pl.Expr, ...] = (),
    pandas: Callable[[pd.DataFrame], Any] | None = None,
    *,
    row_wise: bool = False,
    needs_time: bool = False,
    **arrays: Callable[[Arrays], Outputs],
) -> Comparison:
    """An entry, with the columns it uses as words and one polars expression or several."""
    expressions = polars if isinstance(polars, tuple) else (polars,)
    return Comparison(ours, tuple(uses.split()), expressions, pandas, arrays, row_wise, needs_time)
