"""Bars of equal activity: a number of trades, a volume or a notional value each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from gpukern import bar_core as core
from gpukern.bar_fold import Part, fold
from gpukern.bar_table import Trades, number
from gpukern.bar_trade import TradeBars, usable
from gpukern.errors import PlanError

TICKS, VOLUME, DOLLARS = range(3)
NAMES = {"tick_bars": TICKS, "volume_bars": VOLUME, "dollar_bars": DOLLARS}
SUMS = (-1, core.VOLUME, core.NOTIONAL)  # the sum that is compared, by metric
MOST_PARTS = 1_000_000  # bars that one trade may fill: beyond it the size is a mistake


@njit(cache=True, nogil=True, error_model="numpy")
def fold_whole(begin, lo, hi, trades, at, limits, record, ints, floats, marks):
    """Add rows ``begin``… to bars that end with the trade that brings the sum at word ``at`` (−1:
    the number of trades) to the limit. Returns where to go on and the number of bars."""
    times, slots, price, size, side = trades
    count = len(slots)
    mine = np.empty(core.BLOCK, np.int64)
    made = 0
    while begin < count and made + core.BLOCK <= floats.shape[1]:
        end = min(begin + core.BLOCK, count)
        for j in range(core.pick(begin, end, slots, lo, hi, price, size, at >= 0, mine)):
            i = mine[j]
            s = slots[i]
            q = size[i] if core.size_ok(size[i]) else 0.0
            core.add_trade(record, ints, s, times[i], price[i], q, side[i] if len(side) else 0)
            total = core.sum_of(record, s, at) if at >= 0 else float(ints[s, core.COUNT])
            if total >= limits[s] * (1.0 - core.SLACK):
                core.write_bar(record, ints, s, i, floats, marks, made)
                made += 1
            ints[s, core.MARK] += 1
        begin = end
    return begin, made


@njit(cache=True, nogil=True, error_model="numpy")
def fold_split(begin, lo, hi, trades, at, limits, record, ints, floats, marks):
    """The same with the closing trade divided: every bar holds the limit exactly."""
    times, slots, price, size, side = trades
    made = 0
    for i in range(begin, len(slots)):
        s, p, q = slots[i], price[i], size[i]
        if s < lo or s >= hi or not (core.price_ok(p) and core.size_ok(q)):
            continue
        b = side[i] if len(side) else 0
        unit = 1.0 if at == core.VOLUME else p
        limit = limits[s]
        have = core.sum_of(record, s, at) if ints[s, core.COUNT] > 0 else 0.0
        x = q * unit
        if have + x < limit * (1.0 - core.SLACK):
            core.add_trade(record, ints, s, times[i], p, q, b)
            ints[s, core.MARK] += 1
            continue
        part = min(x, limit - have)
        over = x - part
        rest = over % limit  # exact
        bars = 1 + int((over - rest) / limit + 0.5)
        if rest >= limit * (1.0 - core.SLACK):
            bars += 1
            rest = 0.0
        if made + bars > floats.shape[1]:
            return i, made
        for _ in range(bars):
            core.add_trade(record, ints, s, times[i], p, part / unit, b)
            record[s, at], record[s, at + 1] = limit, 0.0
            core.write_bar(record, ints, s, i, floats, marks, made)
            made += 1
            part = limit
        if rest >= limit * core.SLACK:
            core.add_trade(record, ints, s, times[i], p, rest / unit, b)
        ints[s, core.MARK] += 1
    return len(slots), made


class MeasureBars(TradeBars):
    """The carried state of ``tick_bars``, ``volume_bars`` or ``dollar_bars``."""

    def __init__(
        self,
        what: str,
        kind: str,
        schema: pa.Schema,
        threshold: float | Mapping[Any, float],
        *,
        overshoot: str = "keep",
        on: str = "ts",
        by: str | Sequence[str] = "symbol",
    ) -> None:
        metric = NAMES[what]
        if overshoot not in ("keep", "split"):
            raise PlanError(f"{what}: overshoot must be keep or split, got {overshoot!r}")
        super().__init__(
            what, kind, schema, (threshold, overshoot), on=on, by=by, sized=metric != TICKS
        )
        self.at = SUMS[metric]
        self.name = "n" if metric == TICKS else "threshold"
        self.threshold = threshold
        self.split = overshoot == "split"
        for value in threshold.values() if isinstance(threshold, Mapping) else [threshold]:
            self._check(value)

    def _check(self, value: Any) -> float:
        found = number(self.what, self.name, value, 0, above=True)
        if self.at < 0 and found != int(found):
            raise PlanError(f"{self.what}: {self.name} must be a whole number, got {value!r}")
        return found

    def _fold(self, trades: Trades) -> list[Part]:
        limits = self.symbols.per_slot(self.what, self.name, self.threshold, self._check)
        if self.split:
            self._check_parts(trades, limits)
        loop = fold_split if self.split else fold_whole
        record, ints = self.records.record, self.records.ints

        def step(
            begin: int, lo: int, hi: int, floats: np.ndarray, marks: np.ndarray
        ) -> tuple[int, int]:
            return loop(begin, lo, hi, trades.columns, self.at, limits, record, ints, floats, marks)

        return fold(trades.slots, len(self.symbols), step)

    def _check_parts(self, trades: Trades, limits: np.ndarray) -> None:
        used = np.flatnonzero(usable(trades, sized=True))
        amount = trades.size[used]
        if self.at == core.NOTIONAL:
            amount = amount * trades.price[used]
        limit = limits[trades.slots[used]]
        wrong = np.flatnonzero(~(amount <= MOST_PARTS * limit))
        if len(wrong):
            n = int(wrong[0])
            raise PlanError(
                f"{self.what}: row {used[n]} of {amount[n]:g} would fill more than {MOST_PARTS:,} "
                f"bars of {limit[n]:g}; raise the threshold, drop the row or use overshoot='keep'"
            )
