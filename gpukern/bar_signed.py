"""Imbalance and runs bars: the options, and the streams that carry the expectations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import bar_core as core
from gpukern import bar_flow as flow
from gpukern.bar_fold import Found, Part, fold
from gpukern.bar_table import Trades, number
from gpukern.bar_trade import TradeBars
from gpukern.errors import PlanError

METRICS = ("tick", "volume", "dollar")
SIGNS = ("tick_rule", "side")
KINDS = {"cumulative": flow.CUMULATIVE, "consecutive": flow.CONSECUTIVE}
EXTRA = ("theta", "threshold", "expected_ticks")


@dataclass(frozen=True)
class Rules:
    """When a bar ends; None stands for no limit."""

    metric: str = "tick"
    sign: str = "tick_rule"
    expected_ticks_init: float = 100
    warmup_ticks: int | None = None
    span_bars: float = 20
    span_ticks: float = 1000
    min_expected: float | None = None
    max_expected: float | None = None
    min_ticks: int = 1
    max_ticks: int | None = None
    fixed_threshold: float | Mapping[Any, float] | None = None

    def check(self, what: str) -> None:
        """Raise PlanError for a value that will not do."""
        for name, options in (("metric", METRICS), ("sign", SIGNS)):
            if getattr(self, name) not in options:
                raise PlanError(
                    f"{what}: {name} must be one of {', '.join(options)}, "
                    f"got {getattr(self, name)!r}"
                )
        for name in ("expected_ticks_init", "span_bars", "span_ticks", "min_ticks"):
            number(what, name, getattr(self, name), 1)
        for name in ("warmup_ticks", "max_ticks", "min_expected", "max_expected"):
            if getattr(self, name) is not None:
                number(what, name, getattr(self, name), 1)
        pairs = (("min_ticks", "max_ticks"), ("min_expected", "max_expected"))
        for low, high in pairs:
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise PlanError(f"{what}: {low} {least!r} is above {high} {most!r}")

    def numbers(self, kind: int) -> tuple[float, ...]:
        """The rules as the loop reads them."""
        init = self.expected_ticks_init
        named = {
            flow.KIND: kind,
            flow.METRIC: METRICS.index(self.metric),
            flow.SIDED: self.sign == "side",
            flow.BAR_WEIGHT: 2 / (self.span_bars + 1),
            flow.TICK_WEIGHT: 2 / (self.span_ticks + 1),
            flow.INIT: init,
            flow.WARMUP: init if self.warmup_ticks is None else self.warmup_ticks,
            flow.MIN_TICKS: self.min_ticks,
            flow.MAX_TICKS: math.inf if self.max_ticks is None else self.max_ticks,
            flow.LEAST: 0 if self.min_expected is None else self.min_expected,
            flow.MOST: math.inf if self.max_expected is None else self.max_expected,
        }
        return tuple(float(named[place]) for place in range(len(named)))


class SignedBars(TradeBars):
    """The carried state of ``imbalance_bars`` or ``runs_bars``."""

    def __init__(
        self,
        what: str,
        kind: str,
        schema: pa.Schema,
        rules: Rules,
        *,
        runs: str | None = None,
        on: str = "ts",
        by: str | Sequence[str] = "symbol",
    ) -> None:
        rules.check(what)
        if runs is not None and runs not in KINDS:
            raise PlanError(f"{what}: runs must be cumulative or consecutive, got {runs!r}")
        if rules.sign == "side" and "side" not in schema.names:
            raise PlanError(f"{what}: sign='side' needs a column 'side'; use sign='tick_rule'")
        super().__init__(
            what,
            kind,
            schema,
            (rules, runs),
            on=on,
            by=by,
            sized=rules.metric != "tick",
            words=flow.WORDS,
        )
        self.rules = rules.numbers(flow.IMBALANCE if runs is None else KINDS[runs])
        self.threshold = rules.fixed_threshold
        fixed = rules.fixed_threshold
        for value in fixed.values() if isinstance(fixed, Mapping) else [fixed]:
            self._check(value)

    def _check(self, value: Any) -> float:
        if value is None:
            return math.nan
        return number(self.what, "fixed_threshold", value, 0, above=True)

    def _fold(self, trades: Trades) -> list[Part]:
        fixed = self.symbols.per_slot(self.what, "fixed_threshold", self.threshold, self._check)
        record, ints, rules = self.records.record, self.records.ints, self.rules

        def step(
            begin: int, lo: int, hi: int, floats: np.ndarray, marks: np.ndarray
        ) -> tuple[int, int]:
            return flow.fold_flow(
                begin, lo, hi, trades.columns, rules, fixed, record, ints, floats, marks
            )

        return fold(trades.slots, len(self.symbols), step, floats=len(core.FLOATS) + len(EXTRA))

    def _extra(self, found: Found) -> dict[str, pa.Array]:
        at = len(core.FLOATS)
        theta, threshold, expected = found.floats(range(at, at + len(EXTRA)))
        columns = {
            "theta": pa.array(theta),
            "threshold": pa.array(threshold, from_pandas=True),
            "expected_ticks": pa.array(expected),
        }
        if self.threshold is not None:
            columns["expected_ticks"] = pa.nulls(len(found), pa.float64())
        return columns
