"""Imbalance and runs bars by the formulas of López de Prado (2018), 2.3.2, one bar at a time.

Expectations are computed afresh from the lists of all earlier bars and trades whenever a bar ends.
"""

from __future__ import annotations

import math
from functools import reduce
from itertools import groupby
from typing import Any

from bar_oracle import Row, size_of, summary, usable


def ewma(values: list[float], span: float) -> float | None:
    """Exponentially weighted mean, weight 2/(span + 1), seeded by the first value."""
    weight = 2 / (span + 1)
    return reduce(lambda e, v: (1 - weight) * e + weight * v, values) if values else None


def signs(rows: list[Row], rule: str) -> list[int]:
    """b of every trade: the tick rule, or the taker side where there is one."""
    found, tick = [], 0
    for n, row in enumerate(rows):
        if n and row["price"] != rows[n - 1]["price"]:
            tick = 1 if row["price"] > rows[n - 1]["price"] else -1
        taker = row["side"] if rule == "side" else None
        found.append(taker or tick)
    return found


def theta_of(kind: str, bar: list[tuple[int, float]]) -> float:
    """The weight of a bar of (b, x)."""
    signed = [(b, x) for b, x in bar if b]
    if kind == "imbalance":
        return math.fsum(b * x for b, x in signed)
    if kind == "consecutive":
        runs = [math.fsum(x for _, x in run) for _, run in groupby(signed, key=lambda t: t[0])]
        return runs[-1] if runs else 0.0
    return max(math.fsum(x for b, x in signed if b == side) for side in (1, -1))


def threshold_of(kind: str, closed: list[list[tuple[int, float]]], o: dict[str, Any]) -> Any:
    """(expected trades, threshold) after the closed bars; None while nothing has a sign."""
    init, span = o["expected_ticks_init"], o["span_bars"]
    expected, weight = init, 2 / (span + 1)
    for bar in closed:
        expected = (1 - weight) * expected + weight * len(bar)
        expected = min(max(expected, o["min_expected"]), o["max_expected"])
    signed = [[(b, x) for b, x in bar if b] for bar in closed]
    if kind == "imbalance":
        mean = ewma([b * x for bar in signed for b, x in bar], o["span_ticks"])
        return expected, None if mean is None else expected * abs(mean)
    share = ewma([sum(b > 0 for b, _ in bar) / len(bar) for bar in signed if bar], span)
    if share is None:
        return expected, None
    means = []
    for side in (1, -1):
        amounts = [[x for b, x in bar if b == side] for bar in signed]
        means.append(ewma([math.fsum(a) / len(a) for a in amounts if a], span) or 0.0)
    return expected, expected * max(share * means[0], (1 - share) * means[1])


def flow_bars(
    rows: list[Row],
    kind: str,
    metric: str = "tick",
    *,
    sign: str = "tick_rule",
    expected_ticks_init: float = 100,
    warmup_ticks: int | None = None,
    span_bars: float = 20,
    span_ticks: float = 1000,
    min_expected: float = 0.0,
    max_expected: float = math.inf,
    min_ticks: int = 1,
    max_ticks: float = math.inf,
    fixed_threshold: float | None = None,
) -> list[Row]:
    options = {
        "expected_ticks_init": expected_ticks_init, "span_bars": span_bars,
        "span_ticks": span_ticks, "min_expected": min_expected, "max_expected": max_expected,
    }  # fmt: skip
    warmup = expected_ticks_init if warmup_ticks is None else warmup_ticks
    found = []
    for symbol in {r["symbol"] for r in rows}:
        mine = [
            (at, r)
            for at, r in enumerate(rows)
            if r["symbol"] == symbol and usable(r, sized=metric != "tick")
        ]
        own = [r for _, r in mine]
        closed: list[list[tuple[int, float]]] = []
        bar: list[tuple[int, float]] = []
        expected, limit = threshold_of(kind, closed, options)
        for n, ((at, row), b) in enumerate(zip(mine, signs(own, sign), strict=True)):
            price, size = row["price"], size_of(row)
            bar.append((b, {"tick": 1.0, "volume": size, "dollar": price * size}[metric]))
            theta = theta_of(kind, bar)
            goal = limit if fixed_threshold is None else fixed_threshold
            full = len(bar) >= warmup if goal is None else abs(theta) >= goal * (1 - 1e-12)
            if (full and len(bar) >= min_ticks) or len(bar) >= max_ticks:
                closed.append(bar)
                found.append((at, {
                    "symbol": symbol, **summary(own[n + 1 - len(bar) : n + 1]), "known_seq": n,
                    "theta": theta, "threshold": goal,
                    "expected_ticks": expected if fixed_threshold is None else None,
                }))  # fmt: skip
                bar = []
                expected, limit = threshold_of(kind, closed, options)
    return [bar for _, bar in sorted(found, key=lambda f: f[0])]
