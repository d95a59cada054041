"""Bins of time: how long, from where, which end belongs to them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from gpukern import join_table as tables
from gpukern.bar_table import FURTHEST
from gpukern.errors import PlanError
from gpukern.join_plan import moment_ns

WHAT = "resample_ohlc"
EMPTY = ("skip", "ffill", "null")


@dataclass(frozen=True)
class Bins:
    """The options of ``resample_ohlc``, checked; times in ns."""

    every: int
    origin: int
    closed: str
    label: str
    lateness: int
    empty: str

    @classmethod
    def of(
        cls,
        every: str | int | dt.timedelta,
        *,
        origin: int | dt.datetime = 0,
        closed: str = "left",
        label: str = "left",
        lateness: str | int | dt.timedelta = 0,
        empty: str = "skip",
    ) -> Bins:
        """Raise PlanError for a value that will not do."""
        step = tables.duration_ns(f"{WHAT}: every", every)
        if not 0 < step < FURTHEST:
            raise PlanError(f"{WHAT}: every must be above 0 and below 146 years, got {every!r}")
        for name, value, options in (
            ("closed", closed, ("left", "right")),
            ("label", label, ("left", "right")),
            ("empty", empty, EMPTY),
        ):
            if value not in options:
                raise PlanError(f"{WHAT}: {name} must be {' or '.join(options)}, got {value!r}")
        start = moment_ns(f"{WHAT}: origin", origin)
        late = min(tables.duration_ns(f"{WHAT}: lateness", lateness), FURTHEST)
        return cls(step, start % step, closed, label, late, empty)

    @property
    def shift(self) -> int:
        """1 for bins closed on the right: their rows are those of (start + 1, end + 1) closed left,
        times being whole ns, and they are complete 1 ns later."""
        return int(self.closed == "right")

    @property
    def first(self) -> int:
        """The shifted origin in 0…every."""
        return (self.origin + self.shift) % self.every

    def known_at(self, time: int) -> int:
        """The smallest watermark that completes the bar of that time."""
        return self.first + ((time - self.first) // self.every + 1) * self.every
