"""As-of, window and streaming joins: rows per second against polars, DuckDB and pandas.

``python -m bench joins [--rows 5000000] [--repeats 5]``: as many trades as quotes, 14 and 2,000
symbols interleaved at random, four quote columns, end to end from Arrow table to Arrow table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import gpukern as gk
from gpukern.join_stream_window import window_join_streaming

from .agreement import require_agreement
from .data import MEAN_GAP_NS, ticker
from .harness import (
    console,
    interleaved,
    median,
    print_machine,
    print_table,
    significant,
    write_result,
)

SYMBOLS = (14, 2_000)
PAYLOAD = ["bid", "ask", "bid_size", "ask_size"]
WINDOW_ROWS = (10, 1_000)
"""Right rows that a window holds on average."""
MOST_RANGE_ROWS = 250_000
"""Rows up to which DuckDB takes part in window joins: it needs minutes for millions."""
STREAMS = ((1_000, 250_000), (1, 2_000))
"""Rows of a batch, and of all batches together."""


def tables(symbols: int, rows: int) -> tuple[pa.Table, pa.Table]:
    """Trades and quotes of the same symbols and hours, in time order, at times of their own."""
    trades = ticker(symbols, rows, seed=1).select(["ts", "symbol", "price", "size"])
    return trades, ticker(symbols, rows, seed=2).select(["ts", "symbol", *PAYLOAD])


def asof_runs(trades: pa.Table, quotes: pa.Table) -> dict[str, Callable[[], pa.Table]]:
    """The same join in every library, each from Arrow to Arrow."""

    def with_polars() -> pa.Table:
        left, right = pl.from_arrow(trades), pl.from_arrow(quotes)
        assert isinstance(left, pl.DataFrame)
        assert isinstance(right, pl.DataFrame)
        # Both sides are sorted; polars cannot check that by symbol.
        return left.join_asof(right, on="ts", by="symbol", check_sortedness=False).to_arrow()

    def with_pandas() -> pa.Table:
        left, right = trades.to_pandas(), quotes.to_pandas()
        return pa.Table.from_pandas(pd.merge_asof(left, right, on="ts", by="symbol"))

    return {
        "gpukern": lambda: gk.asof_join(trades, quotes, on="ts", by="symbol"),
        "polars": with_polars,
        "DuckDB": lambda: query(
            trades,
            quotes,
            f"SELECT l.*, {', '.join(f'r.{c}' for c in PAYLOAD)} FROM trades l ASOF LEFT JOIN "
            "quotes r ON l.symbol = r.symbol AND l.ts >= r.ts",
        ),
        "pandas": with_pandas,
    }


def query(trades: pa.Table, quotes: pa.Table, sql: str) -> pa.Table:
    with duckdb.connect() as db:
        db.register("trades", trades)
        db.register("quotes", quotes)
        return db.sql(sql).to_arrow_table()


def check(runs: dict[str, Callable[[], pa.Table]], columns: list[str]) -> None:
    """All libraries must give the same columns; DuckDB may give the rows in another order."""
    ours = runs["gpukern"]()
    for name, run in runs.items():
        theirs = run()
        if name == "DuckDB":
            theirs = theirs.sort_by("ts")
        for column in columns:
            require_agreement(f"{name} {column}", doubles(ours, column), doubles(theirs, column))


def doubles(table: pa.Table, column: str) -> np.ndarray:
    return table[column].cast(pa.float64()).to_pandas().to_numpy()


def timed(runs: dict[str, Callable[[], pa.Table]], rows: int, repeats: int) -> dict[str, Any]:
    seconds = {name: median(s) for name, s in interleaved(runs, repeats=repeats).items()}
    rival = min((name for name in seconds if name != "gpukern"), key=seconds.__getitem__)
    return {
        "rows_per_s": {name: significant(rows / s) for name, s in seconds.items()},
        "fastest_rival": rival,
        "ratio": significant(seconds[rival] / seconds["gpukern"]),
    }


def measure_asof(symbols: int, rows: int, repeats: int) -> dict[str, Any]:
    runs = asof_runs(*tables(symbols, rows))
    check(runs, PAYLOAD)
    return {"join": "asof", "symbols": symbols, "rows": rows, **timed(runs, rows, repeats)}


def window_runs(
    trades: pa.Table, quotes: pa.Table, before: int, *, with_duckdb: bool
) -> dict[str, Callable[[], pa.Table]]:
    """Count, lowest bid and highest ask of the quotes in the time before each trade.

    polars has no such join; what comes closest are its rolling windows over the union of both
    sides. DuckDB joins by a range of times.
    """
    aggs = {"n": ("count", "*"), "low": ("min", "bid"), "high": ("max", "ask")}

    def with_polars() -> pa.Table:
        left, right = pl.from_arrow(trades), pl.from_arrow(quotes)
        assert isinstance(left, pl.DataFrame)
        assert isinstance(right, pl.DataFrame)
        both = pl.concat(
            [right.with_columns(quote=pl.lit(1)), left.with_columns(quote=pl.lit(0))],
            how="diagonal",
        ).sort("ts")
        window: Any = {"window_size": f"{before}ns", "closed": "both"}
        rolled = both.with_columns(
            n=pl.col("quote").rolling_sum_by("ts", **window).over("symbol"),
            low=pl.col("bid").rolling_min_by("ts", **window).over("symbol"),
            high=pl.col("ask").rolling_max_by("ts", **window).over("symbol"),
        )
        return rolled.filter(quote=0).select(*trades.column_names, "n", "low", "high").to_arrow()

    runs: dict[str, Callable[[], pa.Table]] = {
        "gpukern": lambda: gk.window_join(
            trades, quotes, on="ts", by="symbol", before=before, aggs=aggs
        ),
        "polars": with_polars,
    }
    if with_duckdb:
        runs["DuckDB"] = lambda: query(
            trades,
            quotes.set_column(0, "ts", quotes["ts"].cast(pa.int64())),
            "SELECT l.ts, count(r.ts) n, min(r.bid) low, max(r.ask) high FROM (SELECT *, "
            "epoch_ns(ts) t FROM trades) l LEFT JOIN quotes r ON l.symbol = r.symbol "
            f"AND r.ts BETWEEN l.t - {before} AND l.t GROUP BY l.ts, l.symbol",
        )
    return runs


def measure_window(symbols: int, rows: int, window_rows: int, repeats: int) -> dict[str, Any]:
    trades, quotes = tables(symbols, rows)
    before = window_rows * symbols * MEAN_GAP_NS
    small = rows <= MOST_RANGE_ROWS
    runs = window_runs(trades, quotes, before, with_duckdb=small and window_rows == WINDOW_ROWS[0])
    check(runs, ["n", "low", "high"])
    name = f"window of {window_rows:,}"
    return {"join": name, "symbols": symbols, "rows": rows, **timed(runs, rows, repeats)}


def measure_stream(name: str, symbols: int, batch: int, rows: int) -> dict[str, Any]:
    """Batches of each side in turn: rows per second, milliseconds per pair."""
    trades, quotes = tables(symbols, rows)
    schemas = (trades.schema, quotes.schema)
    join: Any = gk.asof_join_streaming(*schemas, on="ts", by="symbol")
    if name == "window":
        before = WINDOW_ROWS[0] * symbols * MEAN_GAP_NS
        aggs = {"n": ("count", "*"), "low": ("min", "bid"), "high": ("max", "ask")}
        join = window_join_streaming(*schemas, on="ts", by="symbol", before=before, aggs=aggs)
    spent = []
    for at in range(0, rows, batch):
        left, right = trades.slice(at, batch), quotes.slice(at, batch)
        begin = time.perf_counter()
        join.push_right(right)
        join.push_left(left)
        spent.append(time.perf_counter() - begin)
    spent = sorted(spent[len(spent) // 10 :])  # the first tenth loads the compiled loops
    return {
        "join": name,
        "symbols": symbols,
        "rows": rows,
        "batch": batch,
        "rows_per_s": significant(2 * batch * len(spent) / sum(spent)),
        "median_ms": significant(1e3 * median(spent)),
        "p99_ms": significant(1e3 * spent[len(spent) * 99 // 100]),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench joins", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of each side")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print_machine()
    console.print(f"duckdb {duckdb.__version__}")
    rows = options.rows
    cases = [measure_asof(symbols, rows, options.repeats) for symbols in SYMBOLS]
    for symbols in SYMBOLS:
        few = min(rows, MOST_RANGE_ROWS)
        cases.append(measure_window(symbols, few, WINDOW_ROWS[0], options.repeats))
        for window_rows in WINDOW_ROWS:
            cases.append(measure_window(symbols, rows, window_rows, options.repeats))
    print_table(
        f"joins: million left rows per second, medians of {options.repeats} interleaved runs",
        ["join", "symbols", "rows", "gpukern", "polars", "DuckDB", "pandas", "×"],
        [
            (
                case["join"],
                f"{case['symbols']:,}",
                f"{case['rows']:,}",
                *(
                    f"{case['rows_per_s'][name] / 1e6:.2f}" if name in case["rows_per_s"] else "–"
                    for name in ("gpukern", "polars", "DuckDB", "pandas")
                ),
                f"{case['ratio']:.1f}",
            )
            for case in cases
        ],
    )
    streams = [
        measure_stream(name, symbols, batch, min(rows, most))
        for name in ("as-of", "window")
        for symbols in SYMBOLS
        for batch, most in STREAMS
    ]
    print_table(
        "streaming joins: a batch of right rows, then one of left rows",
        ["join", "symbols", "rows of a batch", "rows/s", "ms per batch pair", "99 %"],
        [
            (
                case["join"],
                f"{case['symbols']:,}",
                f"{case['batch']:,}",
                f"{case['rows_per_s']:,.0f}",
                case["median_ms"],
                case["p99_ms"],
            )
            for case in streams
        ],
    )
    write_result("joins", {"duckdb": duckdb.__version__, "cases": cases, "streams": streams})
