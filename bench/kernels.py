"""Each kernel alone against the best of polars, pandas, TA-Lib, numbagg and bottleneck.

``python -m bench kernels [NAME …] [--rows 2000000] [--repeats 5]``: one symbol, and 14 symbols
interleaved at random. Array libraries and pandas get 14 symbols split, applied and put back; polars
uses ``over``. A rival that is three times slower than the best in the first round is not repeated.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import gpukern as gk

from .agreement import require_agreement
from .comparisons import COMPARISONS, Comparison
from .comparisons.comparison import Outputs
from .data import ticker
from .harness import (
    console,
    interleaved,
    median,
    print_machine,
    print_table,
    significant,
    write_result,
)

SYMBOLS = (1, 14)
FADE_ROWS = 1_000
HOPELESS = 3.0
"""A rival this many times slower than the best rival is out after the first round."""


class Market:
    """One table in every library's form; conversion is not timed."""

    def __init__(self, symbols: int, rows: int) -> None:
        self.symbols = symbols
        table = ticker(symbols, rows)
        self.code = table["symbol"].combine_chunks().indices.to_numpy()
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        high, low = pl.max_horizontal("price", "ask"), pl.min_horizontal("price", "bid")
        self.polars = frame.with_columns(
            high=high,
            low=low,
            side=pl.col("side").cast(pl.Float64),
            signed_volume=pl.col("side") * pl.col("size"),
            last_update=pl.col("ts").dt.epoch("ns") - pl.lit(500_000_000),
            r=pl.col("price").log().diff().over("symbol"),
            code=pl.Series(self.code, dtype=pl.Int64),
        )
        self.table = self.polars.drop("code").to_arrow()
        self.pandas = self.polars.drop("symbol").to_pandas()
        self.arrays = {
            name: self.pandas[name].to_numpy() for name in self.pandas if name not in ("ts", "code")
        }

    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows grouped by symbol, and where each symbol starts; part of what a rival pays."""
        order = np.argsort(self.code.astype(np.int16), kind="stable")
        counts = np.bincount(self.code, minlength=self.symbols)
        return order, np.concatenate(([0], np.cumsum(counts)))


def as_tuple(outputs: Outputs) -> tuple[np.ndarray, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def polars_run(comparison: Comparison, market: Market) -> Callable[[], tuple[np.ndarray, ...]]:
    expressions = list(comparison.polars)
    if market.symbols > 1 and not comparison.row_wise:
        expressions = [expression.over("code") for expression in expressions]
    query = market.polars.lazy().select(
        expression.alias(f"out{i}") for i, expression in enumerate(expressions)
    )
    return lambda: tuple(query.collect().get_columns())  # type: ignore[arg-type]


def arrays_run(
    function: Callable[[dict[str, np.ndarray]], Outputs], comparison: Comparison, market: Market
) -> Callable[[], tuple[np.ndarray, ...]]:
    columns = {name: market.arrays[name] for name in comparison.uses}
    if market.symbols == 1 or comparison.row_wise:
        return lambda: as_tuple(function(columns))

    def split_apply() -> tuple[np.ndarray, ...]:
        order, starts = market.order()
        grouped = {name: values[order] for name, values in columns.items()}
        parts = [
            as_tuple(function({name: values[a:b] for name, values in grouped.items()}))
            for a, b in itertools.pairwise(starts)
        ]
        return put_back(parts, order)

    return split_apply


def pandas_run(
    function: Callable[[pd.DataFrame], Any], comparison: Comparison, market: Market
) -> Callable[[], tuple[np.ndarray, ...]]:
    frame = market.pandas[list(comparison.uses)]
    if market.symbols == 1 or comparison.row_wise:
        return lambda: (function(frame).to_numpy(),)

    def split_apply() -> tuple[np.ndarray, ...]:
        order, starts = market.order()
        grouped = frame.take(order)
        parts = [(function(grouped.iloc[a:b]).to_numpy(),) for a, b in itertools.pairwise(starts)]
        return put_back(parts, order)

    return split_apply


def put_back(parts: Sequence[tuple[np.ndarray, ...]], order: np.ndarray) -> tuple[np.ndarray, ...]:
    outputs = []
    for pieces in zip(*parts, strict=True):
        output = np.empty(order.size)
        output[order] = np.concatenate(pieces)
        outputs.append(output)
    return tuple(outputs)


def rival_runs(comparison: Comparison, market: Market) -> dict[str, Callable[[], Any]]:
    runs: dict[str, Callable[[], Any]] = {}
    if comparison.polars:
        runs["polars"] = polars_run(comparison, market)
    if comparison.pandas is not None:
        runs["pandas"] = pandas_run(comparison.pandas, comparison, market)
    for name, function in comparison.arrays.items():
        runs[name] = arrays_run(function, comparison, market)
    return runs


def our_plan(comparison: Comparison, market: Market) -> gk.Plan:
    return gk.Plan(
        [comparison.ours],
        by="symbol" if market.symbols > 1 else None,
        time="ts" if comparison.needs_time else None,
    )


def as_doubles(column: Any) -> np.ndarray:
    if isinstance(column, pl.Series):
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if isinstance(column, pa.ChunkedArray):
        return column.cast(pa.float64()).to_pandas().to_numpy()
    return np.asarray(column, dtype=np.float64)


def check_answers(
    name: str, plan: gk.Plan, ours: pa.Table, theirs: tuple[Any, ...], market: Market
) -> None:
    skip = np.zeros(market.code.size, bool)
    skip[: FADE_ROWS * market.symbols * 2] = True  # seeds of an EMA fade; interleaving is even
    for output, column in zip(plan.output_names, theirs, strict=False):
        label = f"{name}, {output}"
        require_agreement(label, as_doubles(ours[output]), as_doubles(column), skip=skip)


def measure(name: str, comparison: Comparison, market: Market, repeats: int) -> dict[str, Any]:
    plan, table = our_plan(comparison, market), market.table
    rivals = rival_runs(comparison, market)
    ours = plan.run(table)
    for rival, run in rivals.items():
        check_answers(f"{name} ({rival})", plan, ours, run(), market)
    first = {rival: median(times) for rival, times in interleaved(rivals, repeats=1).items()}
    limit = HOPELESS * min(first.values(), default=0.0)
    contenders = {rival: run for rival, run in rivals.items() if first[rival] <= limit}
    runs = {"gpukern": lambda: plan.run(table), **contenders}
    seconds = {key: median(times) for key, times in interleaved(runs, repeats=repeats).items()}
    best = min(contenders, key=seconds.__getitem__, default=None)
    return {
        "kernel": name,
        "symbols": market.symbols,
        "rows_per_s": significant(table.num_rows / seconds["gpukern"]),
        "rivals_rows_per_s": {
            rival: significant(table.num_rows / seconds.get(rival, first[rival]))
            for rival in rivals
        },
        "best": best,
        "ratio": significant(seconds[best] / seconds["gpukern"]) if best else None,
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench kernels", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="lines to measure; default all")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(COMPARISONS)
    if unknown:
        parser.error(f"no line {sorted(unknown)[0]!r}; there are {', '.join(COMPARISONS)}")
    print_machine()
    cases = []
    for symbols in SYMBOLS:
        market = Market(symbols, options.rows)
        for name in options.names or COMPARISONS:
            case = measure(name, COMPARISONS[name], market, options.repeats)
            console.print(
                f"{name:24} {symbols:3} symbols {case['rows_per_s'] / 1e6:8.1f} M rows/s, "
                + (f"{case['ratio']:.1f} × {case['best']}" if case["best"] else "no rival")
            )
            cases.append(case)
    print_table(
        f"kernels: {options.rows:,} rows, medians of {options.repeats} interleaved runs",
        ["kernel", "symbols", "rows/s", "best rival", "rows/s", "×"],
        [table_row(case) for case in cases],
    )
    behind = [case for case in cases if case["ratio"] is not None and case["ratio"] < 1]
    console.print(
        f"behind the best rival: {len(behind)} of {sum(case['best'] is not None for case in cases)}"
        + "".join(f"\n  {case['kernel']}, {case['symbols']} symbols" for case in behind)
    )
    unlisted = set(gk.kernels()) - {name.partition(",")[0] for name in COMPARISONS}
    if unlisted:
        console.print(f"not in the table: {', '.join(sorted(unlisted))}")
    if not options.names:
        write_result("kernels", {"rows": options.rows, "cases": cases})


def table_row(case: dict[str, Any]) -> list[str]:
    best = case["best"]
    return [
        case["kernel"],
        str(case["symbols"]),
        f"{case['rows_per_s'] / 1e6:.1f} M",
        best or "none has it",
        f"{case['rivals_rows_per_s'][best] / 1e6:.1f} M" if best else "",
        f"{case['ratio']:.1f}" if best else "",
    ]
