"""Bars of time, volume and notional value: trades per second against polars, DuckDB and pandas.

``python -m bench bars [--rows 5000000] [--repeats 5]``: trades of 14 and of 2,000 symbols,
interleaved at random, from Arrow table to Arrow table, bars in order of time. Every library makes
the same columns; the rivals' idiom is the fastest that was found for each.
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

from gpukern import bars

from .agreement import require_agreement
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

SYMBOLS = (14, 2_000)
EVERY = "1m"
PER_BAR = 50
"""Trades that an information bar holds on average."""
MEAN_SIZE, MEAN_PRICE = 0.8, 15_000.0
BATCH = 1_000
COLUMNS = ["open", "high", "low", "close", "volume", "notional", "n_trades", "buy_volume"]
RIVALS = ("polars", "polars dynamic", "DuckDB", "pandas")
Runs = dict[str, Callable[[], pa.Table]]


def trades(symbols: int, rows: int) -> pa.Table:
    return ticker(symbols, rows).select(["ts", "symbol", "price", "size", "side"])


def polars_aggregates() -> list[pl.Expr]:
    price, size = pl.col("price"), pl.col("size")
    return [
        price.first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.last().alias("close"),
        size.sum().alias("volume"),
        pl.col("notional").sum(),
        pl.len().alias("n_trades"),
        pl.col("bought").sum().alias("buy_volume"),
    ]


def with_amounts(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    price, size = pl.col("price"), pl.col("size")
    return frame.with_columns(
        notional=price * size, bought=pl.when(pl.col("side") > 0).then(size).otherwise(0.0)
    )


SQL_AGGREGATES = """arg_min(price, ts) AS open, max(price) AS high, min(price) AS low,
    arg_max(price, ts) AS close, sum(size) AS volume, sum(price * size) AS notional,
    count(*) AS n_trades, sum(CASE WHEN side > 0 THEN size ELSE 0 END) AS buy_volume"""


def query(table: pa.Table, sql: str) -> pa.Table:
    with duckdb.connect() as db:
        db.execute("SET enable_progress_bar = false")
        db.register("trades", table)
        return db.sql(sql).to_arrow_table()


def pandas_bars(frame: pd.DataFrame, keys: list[Any]) -> pd.DataFrame:
    frame["notional"] = frame["price"] * frame["size"]
    frame["bought"] = np.where(frame["side"] > 0, frame["size"], 0.0)
    grouped = frame.groupby(keys, observed=True, sort=True)
    price = grouped["price"]
    return pd.DataFrame(
        {
            "open": price.first(), "high": price.max(), "low": price.min(),
            "close": price.last(), "volume": grouped["size"].sum(),
            "notional": grouped["notional"].sum(), "n_trades": price.count(),
            "buy_volume": grouped["bought"].sum(),
        }
    ).reset_index()  # fmt: skip


def time_runs(table: pa.Table) -> Runs:
    """One-minute bars of every symbol."""

    def grouped() -> pa.Table:
        frame = with_amounts(table).group_by(pl.col("ts").dt.truncate(EVERY), "symbol")
        return frame.agg(polars_aggregates()).sort("ts", "symbol").to_arrow()

    def dynamic() -> pa.Table:
        frame = with_amounts(table).group_by_dynamic("ts", every=EVERY, group_by="symbol")
        return frame.agg(polars_aggregates()).sort("ts", "symbol").to_arrow()

    def with_pandas() -> pa.Table:
        frame = table.to_pandas()
        frame["ts"] = frame["ts"].dt.floor("min")
        return pa.Table.from_pandas(pandas_bars(frame, ["ts", "symbol"]))

    return {
        "gpukern": lambda: bars.resample_ohlc(table, EVERY, partial=True),
        "polars": grouped,
        "polars dynamic": dynamic,
        "DuckDB": lambda: query(
            table,
            f"SELECT epoch_ns(ts) // 60000000000 AS t, symbol, {SQL_AGGREGATES} "
            "FROM trades GROUP BY t, symbol ORDER BY t, symbol",
        ),
        "pandas": with_pandas,
    }


def measured_runs(table: pa.Table, metric: str) -> Runs:
    """Bars by a running sum per symbol. No rival can start a sum anew where a bar closes, so
    theirs are cut where the cumulative sum passes a multiple of the threshold: about as many bars
    and less work, but not the same ones."""
    name, unit = ("size", MEAN_SIZE) if metric == "volume" else ("amount", MEAN_SIZE * MEAN_PRICE)
    threshold = unit * PER_BAR
    amount = "size" if metric == "volume" else "price * size"

    def with_polars() -> pa.Table:
        frame = with_amounts(table)
        column = "size" if metric == "volume" else "notional"
        frame = frame.with_columns(bar=(pl.col(column).cum_sum().over("symbol") // threshold))
        out = frame.group_by("symbol", "bar").agg(*polars_aggregates(), pl.col("ts").last())
        return out.sort("ts").to_arrow()

    def with_pandas() -> pa.Table:
        frame = table.to_pandas()
        frame["amount"] = frame["price"] * frame["size"]
        sums = frame.groupby("symbol", observed=True)[name].cumsum()
        return pa.Table.from_pandas(pandas_bars(frame, ["symbol", sums // threshold]))

    function = bars.volume_bars if metric == "volume" else bars.dollar_bars
    return {
        "gpukern": lambda: function(table, threshold),
        "polars": with_polars,
        "DuckDB": lambda: query(
            table,
            f"SELECT symbol, bar, {SQL_AGGREGATES}, max(ts) AS t FROM (SELECT *, floor(sum("
            f"{amount}) OVER (PARTITION BY symbol ORDER BY ts) / {threshold}) AS bar FROM trades) "
            "GROUP BY symbol, bar ORDER BY t",
        ),
        "pandas": with_pandas,
    }


def checked(kind: str, runs: Runs) -> dict[str, int]:
    """Number of bars that each library makes; of time they must be the same bars."""
    made: dict[str, int] = {}
    ours = None
    for name, run in runs.items():
        table = run()
        made[name] = table.num_rows
        if kind == "time":
            found = in_order(table)
            ours = found if ours is None else ours
            for column in COLUMNS:
                require_agreement(f"{name} {column}", ours[column], found[column])
    return made


def in_order(table: pa.Table) -> dict[str, np.ndarray]:
    """Columns by time and symbol; of a dictionary some libraries sort by the codes."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    when = "t" if "t" in frame.columns else "ts"
    frame = frame.sort(when, pl.col("symbol").cast(pl.String))
    return {name: frame[name].cast(pl.Float64).to_numpy() for name in COLUMNS}


def measure(kind: str, symbols: int, rows: int, repeats: int) -> dict[str, Any]:
    table = trades(symbols, rows)
    runs = time_runs(table) if kind == "time" else measured_runs(table, kind)
    made = checked(kind, runs)  # which warms up, too
    timings = interleaved(runs, repeats=repeats, warmups=0)
    seconds = {name: median(s) for name, s in timings.items()}
    rival = min((name for name in seconds if name != "gpukern"), key=seconds.__getitem__)
    return {
        "bars": kind,
        "symbols": symbols,
        "rows": rows,
        "made": made,
        "rows_per_s": {name: significant(rows / s) for name, s in seconds.items()},
        "fastest_rival": rival,
        "ratio": significant(seconds[rival] / seconds["gpukern"]),
    }


def measure_stream(kind: str, symbols: int, rows: int) -> dict[str, Any]:
    """Batches of 1,000 rows: rows per second, milliseconds per batch."""
    table = trades(symbols, rows)
    if kind == "time":
        stream = bars.streaming("resample_ohlc", table.schema, every=EVERY)
    else:
        stream = bars.streaming("volume_bars", table.schema, threshold=MEAN_SIZE * PER_BAR)
    spent = []
    for at in range(0, rows, BATCH):
        batch = table.slice(at, BATCH)
        begin = time.perf_counter()
        stream.push(batch)
        spent.append(time.perf_counter() - begin)
    spent.sort()
    return {
        "bars": kind,
        "symbols": symbols,
        "rows": rows,
        "batch": BATCH,
        "rows_per_s": significant(rows / sum(spent)),
        "median_ms": significant(1e3 * median(spent)),
        "p99_ms": significant(1e3 * spent[len(spent) * 99 // 100]),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench bars", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="trades")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print_machine()
    kinds = ("time", "volume", "dollar")
    cases = [
        measure(kind, symbols, options.rows, options.repeats)
        for kind in kinds
        for symbols in SYMBOLS
    ]
    names = ("gpukern", *RIVALS)
    print_table(
        f"bars: million trades per second, medians of {options.repeats} interleaved runs",
        ["bars", "symbols", "made", *names, "×"],
        [
            (
                case["bars"],
                f"{case['symbols']:,}",
                f"{case['made']['gpukern']:,}",
                *(
                    f"{case['rows_per_s'][name] / 1e6:.2f}" if name in case["rows_per_s"] else "–"
                    for name in names
                ),
                f"{case['ratio']:.1f}",
            )
            for case in cases
        ],
    )
    console.print(
        "volume, dollar: the rivals cut where the cumulative sum passes multiples of the threshold"
    )
    streams = [
        measure_stream(kind, symbols, min(options.rows, 500_000))
        for kind in kinds[:2]
        for symbols in SYMBOLS
    ]
    print_table(
        f"bars of a stream, batches of {BATCH:,} rows",
        ["bars", "symbols", "rows/s", "ms per batch", "99 %"],
        [
            (
                case["bars"],
                f"{case['symbols']:,}",
                f"{case['rows_per_s'] / 1e6:.2f} M",
                case["median_ms"],
                case["p99_ms"],
            )
            for case in streams
        ],
    )
    write_result("bars", {"cases": cases, "streams": streams})
