"""Values on a regular clock whose step grows with the time span: bounded memory for any length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

SECOND_NS = 1_000_000_000
CLOCK_STEPS_S = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14_400, 43_200, 86_400)
"""Steps of the common clock; each divides the next, so buckets merge without a rest."""


@dataclass(frozen=True)
class Field:
    """A column of the buckets: how it is made from rows, and how two buckets become one."""

    name: str
    made: pl.Expr
    merged: pl.Expr


def last(name: str, column: str | None = None) -> Field:
    """The last value in a bucket."""
    merged = pl.col(name).drop_nulls().last()
    return Field(name, pl.col(column or name).drop_nulls().last(), merged)


def lowest(name: str, column: str) -> Field:
    """The lowest value in a bucket."""
    return Field(name, pl.col(column).min(), pl.col(name).min())


def highest(name: str, column: str) -> Field:
    """The highest value in a bucket."""
    return Field(name, pl.col(column).max(), pl.col(name).max())


def count(name: str, made: pl.Expr) -> Field:
    """How many rows of a bucket satisfy a condition."""
    return Field(name, made.sum().cast(pl.Int64), pl.col(name).sum())


def last_where(name: str, column: str, condition: str) -> Field:
    """The last value of a column among the rows of a bucket where a flag is set."""
    made = pl.col(column).filter(pl.col(condition)).last()
    return Field(name, made, pl.col(name).drop_nulls().last())


class Buckets:
    """Rows summarised by (series, time // step); the step grows so that few buckets remain.

    `next_step` gives the step after a given one and must return a multiple of it.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        step_ns: int,
        next_step: Callable[[int], int],
        capacity: int,
    ) -> None:
        self.step_ns = step_ns
        self._fields = list(fields)
        self._next_step = next_step
        self._capacity = capacity
        self._parts: list[pl.DataFrame] = []
        self._span: tuple[int, int] | None = None

    def update(self, frame: pl.DataFrame) -> None:
        """Add rows with `code`, `time` (ns) and the fields' columns, in time order per series."""
        frame = frame.filter(pl.col("time").is_not_null())
        if frame.is_empty():
            return
        low, high = frame.select(low=pl.col("time").min(), high=pl.col("time").max()).row(0)
        known = self._span or (low, high)
        self._span = (min(low, known[0]), max(high, known[1]))
        step = self.step_ns
        while self._span[1] // step - self._span[0] // step >= self._capacity:
            step = self._next_step(step)
        self._coarsen(step)
        self._parts.append(
            frame.group_by("code", (pl.col("time") // step).alias("bucket"), maintain_order=True)
            .agg([field.made.alias(field.name) for field in self._fields])
            .with_columns(pl.col("bucket").cast(pl.Int64))
        )
        # Compacting only when the parts have doubled keeps the cost per row constant.
        if len(self._parts) > 1 and sum(map(len, self._parts[1:])) > len(self._parts[0]):
            self._compact()

    def frame(self, step_ns: int | None = None) -> pl.DataFrame:
        """All buckets by series and time: `code`, `bucket`, `time` (ns of its start), fields."""
        if step_ns is not None:
            self._coarsen(step_ns)
        self._compact()
        if not self._parts:
            return pl.DataFrame(schema={"code": pl.UInt32, "bucket": pl.Int64, "time": pl.Int64})
        return (
            self._parts[0]
            .sort("code", "bucket")
            .with_columns((pl.col("bucket") * self.step_ns).alias("time"))
        )

    def _compact(self) -> None:
        if len(self._parts) > 1:
            self._parts = [self._merge(pl.concat(self._parts))]

    def _coarsen(self, step: int) -> None:
        if step == self.step_ns:
            return
        factor = step // self.step_ns
        self.step_ns = step
        if self._parts:
            joined = pl.concat(self._parts)
            self._parts = [self._merge(joined.with_columns(pl.col("bucket") // factor))]

    def _merge(self, frame: pl.DataFrame) -> pl.DataFrame:
        # group_by keeps the order of rows inside a group: `last` stays the last in time.
        return frame.group_by("code", "bucket", maintain_order=True).agg(
            [field.merged.alias(field.name) for field in self._fields]
        )


def next_clock_step(step_ns: int) -> int:
    """The next of CLOCK_STEPS_S, then doubling."""
    return next((s * SECOND_NS for s in CLOCK_STEPS_S if s * SECOND_NS > step_ns), 2 * step_ns)


def double(step_ns: int) -> int:
    """Twice the step."""
    return 2 * step_ns
