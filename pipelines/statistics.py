"""Statistics per series, gathered batch by batch in memory that depends on the series only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

YEAR_S = 365 * 86_400.0
"""Crypto markets never close: a year has 365 days."""

MINIMUM_GAP_NS = 60 * 1_000_000_000

SUMS = (
    *("rows", "trades", "returns", "spreads", "spread_sum", "imbalances", "imbalance_sum"),
    *("alarms", "outliers", "crossed"),
)
IMBALANCE_EDGES = np.linspace(-1.0, 1.0, 41)
SPREAD_EDGES = np.logspace(-5, 5, 201)
"""Spreads in basis points, 20 bins per decade; a spread of zero or less is counted apart."""


@dataclass(frozen=True)
class Column:
    """A column for readers: its meaning, how a value is written, whether a terminal shows it."""

    name: str
    heading: str
    meaning: str
    write: str
    brief: bool = True


COLUMNS = (
    Column("rows", "rows", "rows of the input", ",d"),
    Column("trades", "trades", "rows with a price", ",d"),
    Column("mean_return_bps", "mean return", "mean log return per trade, in basis points", "+.4f"),
    Column("volatility_bps", "volatility", "standard deviation of log returns, bps", ".3f"),
    Column(
        "volatility_annual",
        "annualised",
        "volatility per trade × √(trades per 365 days); includes the bounce between bid and ask",
        ".1%",
    ),
    Column("spread_bps", "spread", "mean quoted spread over the mid price, in bps", ".4g"),
    Column(
        "imbalance", "imbalance", "mean of (bid size − ask size) / (bid size + ask size)", "+.3f"
    ),
    Column("alarms", "alarms", "CUSUM change alarms on log returns", ",d"),
    Column("outliers", "outliers", "log returns beyond 3 scaled MAD of the last 100", ",d"),
    Column("crossed", "crossed", "rows whose bid is above the ask", ",d", False),
    Column("gaps", "gaps", "silences longer than the threshold", ",d"),
    Column("longest_gap_s", "longest gap", "longest silence, in seconds", ",.1f"),
)


def cell_text(column: Column, value: Any) -> str:
    """A value of the statistics table as text; an unknown value is a dash."""
    return "–" if value is None else format(value, column.write)


class SeriesStatistics:
    """Counts, moments and gaps of each series.

    `update` takes frames in time order per series with `code` (number of the series), `time` (ns)
    and any of price, bid, ask, log_return, spread_bps, imbalance, alarm, outlier. Moments of
    batches are combined by Chan, Golub and LeVeque (1979), so nothing is summed in raw squares.
    """

    def __init__(self, gap_ns: int) -> None:
        self.gap_ns = gap_ns
        self._state: pl.DataFrame | None = None

    def update(self, frame: pl.DataFrame) -> None:
        """Add the rows of one batch."""
        partial = frame.group_by("code", maintain_order=True).agg(self._partial(set(frame.columns)))
        if self._state is not None:
            partial = (
                pl.concat([self._state, partial])
                .group_by("code", maintain_order=True)
                .agg(self._merged(partial.columns))
            )
        self._state = partial

    def table(self) -> pl.DataFrame:
        """One row per series, by `code`; columns whose input the data lacks are null."""
        if self._state is None:
            return pl.DataFrame()
        elapsed_s = (pl.col("end") - pl.col("start")) / 1e9
        volatility = (pl.col("return_m2") / (pl.col("returns") - 1)).sqrt()
        several = pl.col("returns") > 1
        columns = {
            "rows": pl.col("rows"),
            "trades": pl.col("trades"),
            "start": pl.from_epoch("start", "ns").dt.replace_time_zone("UTC"),
            "end": pl.from_epoch("end", "ns").dt.replace_time_zone("UTC"),
            "mean_return_bps": pl.when(pl.col("returns") > 0).then(1e4 * pl.col("return_mean")),
            "volatility_bps": pl.when(several).then(1e4 * volatility),
            "volatility_annual": pl.when(several & (elapsed_s > 0)).then(
                volatility * (pl.col("returns") / elapsed_s * YEAR_S).sqrt()
            ),
            "spread_bps": pl.col("spread_sum") / pl.col("spreads"),
            "imbalance": pl.col("imbalance_sum") / pl.col("imbalances"),
            "alarms": pl.col("alarms"),
            "outliers": pl.col("outliers"),
            "crossed": pl.col("crossed"),
            "gaps": pl.col("gaps"),
            "longest_gap_s": pl.col("longest_gap") / 1e9,
        }
        return self._state.sort("code").select(
            "code", *[expression.alias(name) for name, expression in columns.items()]
        )

    def _partial(self, names: set[str]) -> list[pl.Expr]:
        def given(name: str, expression: pl.Expr) -> pl.Expr:
            return expression if name in names else pl.lit(None)

        step = pl.col("time").diff()
        quoted = {"bid", "ask"} <= names
        crossed = (pl.col("bid") > pl.col("ask")).sum() if quoted else pl.lit(None)
        mean = pl.col("log_return").mean()
        return [
            pl.len().cast(pl.Int64).alias("rows"),
            given("price", pl.col("price").count()).cast(pl.Int64).alias("trades"),
            pl.col("time").drop_nulls().first().alias("start"),
            pl.col("time").drop_nulls().last().alias("end"),
            (step > self.gap_ns).sum().cast(pl.Int64).alias("gaps"),
            step.max().alias("longest_gap"),
            given("log_return", pl.col("log_return").count()).cast(pl.Int64).alias("returns"),
            given("log_return", mean.fill_null(0.0)).cast(pl.Float64).alias("return_mean"),
            given("log_return", (pl.col("log_return") - mean).pow(2).sum())
            .cast(pl.Float64)
            .alias("return_m2"),
            given("spread_bps", pl.col("spread_bps").count()).cast(pl.Int64).alias("spreads"),
            given("spread_bps", pl.col("spread_bps").sum()).cast(pl.Float64).alias("spread_sum"),
            given("imbalance", pl.col("imbalance").count()).cast(pl.Int64).alias("imbalances"),
            given("imbalance", pl.col("imbalance").sum()).cast(pl.Float64).alias("imbalance_sum"),
            given("alarm", pl.col("alarm").sum()).cast(pl.Int64).alias("alarms"),
            given("outlier", pl.col("outlier").sum()).cast(pl.Int64).alias("outliers"),
            crossed.cast(pl.Int64).alias("crossed"),
        ]

    def _merged(self, names: list[str]) -> list[pl.Expr]:
        between = pl.col("start") - pl.col("end").shift(1)
        n = pl.col("returns")
        mean = (n * pl.col("return_mean")).sum() / n.sum()
        merged = {
            "start": pl.col("start").min(),
            "end": pl.col("end").max(),
            "gaps": pl.col("gaps").sum() + (between > self.gap_ns).sum(),
            "longest_gap": pl.max_horizontal(pl.col("longest_gap").max(), between.max()),
            "return_mean": pl.when(n.sum() > 0).then(mean).otherwise(pl.col("return_mean").first()),
            "return_m2": pl.col("return_m2").sum()
            + pl.when(n.sum() > 0)
            .then((n * (pl.col("return_mean") - mean).pow(2)).sum())
            .otherwise(0.0),
        }
        for name in SUMS:
            # A column the data lacks stays null; sum alone would turn it into 0.
            merged[name] = pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum())
        return [merged[name].alias(name) for name in names if name in merged]


class Histogram:
    """Counts of a column's values between fixed edges, for each series."""

    def __init__(self, edges: np.ndarray) -> None:
        self.edges = edges
        self._counts = np.zeros((0, edges.size + 1), dtype=np.int64)

    def update(self, codes: np.ndarray, values: np.ndarray) -> None:
        """Count the values that are finite; below the first and above the last edge apart."""
        finite = np.isfinite(values)
        bins = np.searchsorted(self.edges, values[finite], side="right")
        # The last edge belongs to the last bin: an imbalance of exactly 1 is inside.
        bins[values[finite] == self.edges[-1]] = self.edges.size - 1
        width = self.edges.size + 1
        counts = np.bincount(codes[finite].astype(np.int64) * width + bins)
        rows = -(-counts.size // width)
        if rows > len(self._counts):
            grown = np.zeros((rows, width), dtype=np.int64)
            grown[: len(self._counts)] = self._counts
            self._counts = grown
        padded = np.zeros(rows * width, dtype=np.int64)
        padded[: counts.size] = counts
        self._counts[:rows] += padded.reshape(rows, width)

    def of(self, code: int) -> np.ndarray:
        """Counts of one series: below, each bin, above."""
        if code < len(self._counts):
            return self._counts[code]
        return np.zeros(self.edges.size + 1, dtype=np.int64)


def gap_threshold_ns(times: list[np.ndarray]) -> int:
    """What counts as a gap, from the first rows of each series.

    Rows at a fixed distance (bars): half as long again. Ticks: ten times the median distance, at
    least a minute.
    """
    steps = [np.diff(series) for series in times if series.size > 2]
    if not steps:
        return MINIMUM_GAP_NS
    joined = np.concatenate(steps)
    low, median, high = np.quantile(joined, [0.1, 0.5, 0.9])
    if low == high and median > 0:
        return int(1.5 * median)
    return max(MINIMUM_GAP_NS, int(10 * median))
