"""The 48 default columns: rows per second, share of copy bandwidth, ratio to polars.

``python -m bench features [--rows 2000000] [--repeats 5]``: 14 and 2,000 symbols interleaved at
random, float64, every row traded and with 75 % quote-only rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

import gpukern as gk

from . import polars_features as rival
from .agreement import require_agreement
from .data import ticker
from .harness import (
    console,
    copy_bandwidth,
    interleaved,
    median,
    print_machine,
    print_table,
    significant,
    write_result,
)

SYMBOLS = (14, 2_000)
QUOTE_ONLY = (0.0, 0.75)
FADING = ("macd", "macd_signal", "macd_hist", "rsi")
"""Columns that polars starts from another seed; after FADE_ROWS trades the seed has faded."""
FADE_ROWS = 150


def subset_plan() -> gk.Plan:
    """The expressions of ``default_features()`` that polars can express too."""
    known = set(rival.COLUMNS)
    chosen = [e for e in gk.default_features() if known.issuperset(e.outputs)]
    plan = gk.Plan(chosen, by="symbol", time="ts")
    more = known.difference(plan.output_names)
    if more:
        raise ValueError(f"the rival would compute more columns: {', '.join(sorted(more))}")
    return plan


def bytes_per_row(table: pa.Table, out: pa.Table, plan: gk.Plan) -> float:
    """The least that must move: needed input columns read once, outputs written once."""
    read = sum(table[name].nbytes for name in plan.input_columns)
    return (read + sum(out[name].nbytes for name in plan.output_names)) / table.num_rows


def as_doubles(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_pandas().to_numpy()


def check_answers(table: pa.Table, out: pa.Table, theirs: pl.DataFrame, names: list[str]) -> None:
    symbol = table["symbol"].combine_chunks().indices.to_numpy()
    traded = np.isfinite(as_doubles(table["price"]))
    fading = rows_before(symbol, traded) < FADE_ROWS
    for name in names:
        ours = as_doubles(out[name])
        other = theirs[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        require_agreement(name, ours, other, skip=fading if name in FADING else None)


def rows_before(symbol: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """For every row, how many counted rows of its symbol came before it."""
    order = np.argsort(symbol, kind="stable")
    running = np.cumsum(counted[order]) - counted[order]
    starts = np.flatnonzero(np.r_[True, np.diff(symbol[order]) != 0])
    base = np.repeat(running[starts], np.diff(np.r_[starts, symbol.size]))
    before = np.empty(symbol.size, np.int64)
    before[order] = running - base
    return before


def measure(
    symbols: int, rows: int, quote_only: float, repeats: int, copy_bytes_per_s: float
) -> dict[str, Any]:
    table = ticker(symbols, rows, quote_only=quote_only)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    full, subset = gk.Plan(gk.default_features(), by="symbol", time="ts"), subset_plan()
    out = full.run(table)
    forms = rival.forms(symbols, nulls=quote_only > 0)
    runs: dict[str, Callable[[], object]] = {
        "full": lambda: full.run(table),
        "subset": lambda: subset.run(table),
        **{name: lambda form=form: form(frame) for name, form in forms.items()},  # type: ignore[misc]
    }
    check_answers(table, out, rival.over(frame), subset.output_names)
    seconds = {name: median(times) for name, times in interleaved(runs, repeats=repeats).items()}
    form = min(forms, key=seconds.__getitem__)
    moved = bytes_per_row(table, out, full)
    return {
        "symbols": symbols,
        "rows": rows,
        "quote_only_share": quote_only,
        "columns": len(full.output_names),
        "rows_per_s": significant(rows / seconds["full"]),
        "bytes_per_row": significant(moved),
        "copy_bandwidth_share": significant(moved * rows / seconds["full"] / copy_bytes_per_s),
        "subset_columns": len(subset.output_names),
        "subset_rows_per_s": significant(rows / seconds["subset"]),
        "polars_rows_per_s": significant(rows / seconds[form]),
        "polars_form": form,
        "polars_forms_s": {name: significant(seconds[name]) for name in forms},
        "ratio": significant(seconds[form] / seconds["subset"]),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench features", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of all symbols together")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print_machine()
    copied = copy_bandwidth()
    console.print(f"copy bandwidth {copied / 1e9:.1f} GB/s (read + written, all cores)")
    cases = [
        measure(symbols, options.rows, share, options.repeats, copied)
        for symbols in SYMBOLS
        for share in QUOTE_ONLY
    ]
    print_table(
        f"features: {options.rows:,} rows, medians of {options.repeats} interleaved runs",
        [
            "symbols",
            "quote-only",
            "columns",
            "rows/s",
            "of copy",
            "subset",
            "rows/s",
            "polars",
            "×",
        ],
        [
            (
                f"{case['symbols']:,}",
                f"{case['quote_only_share']:.0%}",
                case["columns"],
                f"{case['rows_per_s'] / 1e6:.1f} M",
                f"{case['copy_bandwidth_share']:.0%}",
                case["subset_columns"],
                f"{case['subset_rows_per_s'] / 1e6:.1f} M",
                f"{case['polars_rows_per_s'] / 1e6:.2f} M",
                f"{case['ratio']:.1f}",
            )
            for case in cases
        ],
    )
    write_result("features", {"copy_bytes_per_s": significant(copied), "cases": cases})
