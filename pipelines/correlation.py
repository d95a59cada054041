"""Correlation of returns between series on a common clock, and between features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipelines.buckets import Buckets, next_clock_step

CLOCK_CAPACITY = 4096
CLOCK_SERIES = 256
"""Series on the common clock: those with most rows in the first batch, then as they appear."""

MINIMUM_RETURNS = 30
SAMPLE_ROWS = 50_000


@dataclass(frozen=True)
class Correlation:
    """A symmetric matrix with its names; NaN where there was too little data."""

    names: list[str]
    matrix: np.ndarray
    observations: int
    step_s: float | None = None


def returns_on_clock(clock: Buckets, labels: list[str], at_most: int) -> Correlation | None:
    """Correlation of log returns of last prices on a regular clock.

    A series keeps its last price until the next one. The step is the smallest at which the median
    series has a price in at least half of its buckets (bounded so that 30 returns remain): finer
    steps would mostly compare prices that did not move (Epps 1979).
    """
    step = clock.step_ns
    while True:
        frame = clock.frame(step)
        if frame.is_empty():
            return None
        buckets = frame.group_by("code").agg(
            filled=pl.len(), span=pl.col("bucket").max() - pl.col("bucket").min() + 1
        )
        filled = float((buckets["filled"] / buckets["span"]).median())  # type: ignore[arg-type]
        wider = next_clock_step(step)
        longest = int(buckets["span"].max())  # type: ignore[arg-type]
        if filled >= 0.5 or longest * step // wider <= MINIMUM_RETURNS:
            break
        step = wider
    codes = (
        frame.group_by("code").len().sort(["len", "code"], descending=[True, False]).head(at_most)
    )["code"].to_list()
    codes.sort(key=lambda code: labels[code])
    if len(codes) < 2:
        return None
    first = int(frame["bucket"].min())  # type: ignore[arg-type]
    length = int(frame["bucket"].max()) - first + 1  # type: ignore[arg-type]
    returns = np.full((len(codes), length - 1), np.nan)
    for row, code in enumerate(codes):
        prices = frame.filter(pl.col("code") == code)
        returns[row] = np.diff(_filled_forward(prices, first, length))
    return Correlation(
        [labels[code] for code in codes], pairwise_correlation(returns), length - 1, step / 1e9
    )


def _filled_forward(prices: pl.DataFrame, first: int, length: int) -> np.ndarray:
    """Log prices of one series on the clock: NaN before its first and after its last."""
    at = prices["bucket"].to_numpy() - first
    index = np.full(length, -1)
    index[at] = np.arange(at.size)
    index = np.maximum.accumulate(index)
    values = np.log(prices["price"].to_numpy())
    filled = np.where(index >= 0, values[np.maximum(index, 0)], np.nan)
    filled[at[-1] + 1 :] = np.nan
    return filled


def pairwise_correlation(rows: np.ndarray) -> np.ndarray:
    """Pearson correlation of each two rows over the columns where both have a value."""
    known = np.isfinite(rows)
    # Centring first keeps the products exact for levels with a tiny dispersion.
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(known, rows, 0.0).sum(axis=1) / known.sum(axis=1)
    values = np.where(known, rows - np.nan_to_num(means)[:, None], 0.0)
    scale = np.abs(values).max(axis=1, initial=0.0)
    values /= np.where(scale > 0, scale, 1.0)[:, None]
    weight = known.astype(np.float64)
    n = weight @ weight.T
    with np.errstate(invalid="ignore", divide="ignore"):
        sum_x = values @ weight.T
        cross = values @ values.T - sum_x * sum_x.T / n
        square = (values * values) @ weight.T - sum_x * sum_x / n
        matrix = cross / np.sqrt(square * square.T)
    matrix[n < MINIMUM_RETURNS] = np.nan
    return np.clip(matrix, -1.0, 1.0)


class RowSample:
    """Every k-th row of a stream; k doubles so that at most `capacity` rows are held."""

    def __init__(self, capacity: int = SAMPLE_ROWS) -> None:
        self.stride = 1
        self._capacity = capacity
        self._seen = 0
        self._held = 0
        self._parts: list[pl.DataFrame] = []

    def update(self, frame: pl.DataFrame) -> None:
        """Take the rows of `frame` whose number in the stream is a multiple of the stride."""
        skip = -self._seen % self.stride
        self._seen += len(frame)
        part = frame[skip :: self.stride]
        self._parts.append(part)
        self._held += len(part)
        while self._held > self._capacity:
            self._parts = [pl.concat(self._parts)[::2]]
            self._held = len(self._parts[0])
            self.stride *= 2

    def frame(self) -> pl.DataFrame:
        """The rows held."""
        return pl.concat(self._parts) if self._parts else pl.DataFrame()


def feature_correlation(sample: RowSample) -> Correlation | None:
    """Correlation of features within series: levels of different series are never compared.

    Each feature is standardised within its series first. Features that never vary are left out.
    """
    frame = sample.frame()
    if frame.is_empty():
        return None
    names = [name for name in frame.columns if name != "code"]
    column = pl.col(*names)
    spread = column.std().over("code")
    standard = frame.select(
        pl.when(spread > 0).then((column - column.mean().over("code")) / spread).name.keep()
    )
    rows = standard.to_numpy().T
    useful = np.isfinite(rows).sum(axis=1) >= MINIMUM_RETURNS
    if useful.sum() < 2:
        return None
    kept = [name for name, keep in zip(names, useful, strict=True) if keep]
    return Correlation(kept, pairwise_correlation(rows[useful].astype(np.float64)), len(frame))
