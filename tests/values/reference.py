"""Definitions by brute force: exact sums over each window, no running state.

Sums are taken in rational numbers where digits matter, so the reference has no rounding of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import samples

import gpukern as gk
from gpukern.durations import parse_duration

NAN = math.nan
SECOND = samples.SECOND


def run(
    expr: Any, *, t: np.ndarray | None = None, **columns: Any
) -> np.ndarray | dict[str, np.ndarray]:
    """Outputs on one series, null as NaN: an array, or arrays by name for several outputs."""
    rows = len(next(iter(columns.values())))
    when = np.arange(rows) * SECOND if t is None else np.asarray(t)
    data = {"ts": pa.array(when, pa.timestamp("ns", "UTC"))}
    for name, values in columns.items():
        array = np.asarray(values)
        data[name] = pa.array(array, mask=np.isnan(array)) if array.dtype == np.float64 \
            else pa.array(array)  # fmt: skip
    plan = gk.Plan([expr.alias(*(f"out {n}" for n in expr.names))], by=None)
    out = plan.run(pa.table(data))
    found = {
        n: out.column(f"out {n}").cast(pa.float64()).to_numpy(zero_copy_only=False)
        for n in expr.names
    }
    return found if len(found) > 1 else next(iter(found.values()))


def assert_close(got: Any, expected: Any, *, rel: float = 0.0, scale: Any = 0.0) -> None:
    """Same nulls, and abs(got − expected) ≤ rel · max(abs(expected), scale) in every row."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    assert got.shape == expected.shape
    gone, missing = np.isnan(got), np.isnan(expected)
    wrong = np.flatnonzero(gone != missing)
    assert not len(wrong), (
        f"row {wrong[0]}: {got[wrong[0]]} instead of {expected[wrong[0]]} ({len(wrong)} rows)"
    )
    allowed = rel * np.maximum(np.abs(expected), scale)
    far = np.flatnonzero(~missing & ~(np.abs(got - expected) <= allowed))
    assert not len(far), (
        f"row {far[0]}: {got[far[0]]!r} instead of {expected[far[0]]!r} ({len(far)} rows)"
    )
    assert not missing.all()


def window_rows(t: np.ndarray, window: int | str) -> list[np.ndarray]:
    """The rows of each row's window."""
    n = len(t)
    if isinstance(window, int):
        return [np.arange(max(0, i - window + 1), i + 1) for i in range(n)]
    length = parse_duration(window)
    return [np.flatnonzero(t[: i + 1] > t[i] - length) for i in range(n)]


def rolled(
    statistic: Callable[..., float],
    t: np.ndarray,
    window: int | str,
    least: int,
    *series: np.ndarray,
) -> np.ndarray:
    """The statistic of every window that has the rows for it; NaN before."""
    needed = max(window, least) if isinstance(window, int) else least
    return np.array(
        [
            statistic(*(s[rows] for s in series)) if len(rows) >= needed else NAN
            for rows in window_rows(t, window)
        ]
    )


def exact_mean(x: np.ndarray) -> Fraction:
    return sum(map(Fraction, x.tolist()), Fraction(0)) / len(x)


def moment(x: np.ndarray, order: int) -> Fraction:
    """Population central moment."""
    centre = exact_mean(x)
    return sum(((Fraction(v) - centre) ** order for v in x.tolist()), Fraction(0)) / len(x)


def comoment(x: np.ndarray, y: np.ndarray) -> Fraction:
    """Σ(x − mx)(y − my)."""
    mx, my = exact_mean(x), exact_mean(y)
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return sum(((Fraction(a) - mx) * (Fraction(b) - my) for a, b in pairs), Fraction(0))


def mean(x: np.ndarray) -> float:
    return float(exact_mean(x))


def variance(x: np.ndarray, ddof: int = 1) -> float:
    return float(moment(x, 2) * len(x) / (len(x) - ddof))


def std(x: np.ndarray, ddof: int = 1) -> float:
    return math.sqrt(variance(x, ddof))


def skew(x: np.ndarray, bias: bool = False) -> float:
    n, spread = len(x), float(moment(x, 2))
    if spread == 0.0:
        return NAN
    g = float(moment(x, 3)) / spread**1.5
    return g if bias else g * math.sqrt(n * (n - 1)) / (n - 2)


def kurt(x: np.ndarray, bias: bool = False) -> float:
    n, spread = len(x), moment(x, 2)
    if spread == 0:
        return NAN
    g = float(moment(x, 4) / spread**2) - 3.0
    return g if bias else (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * g + 6.0)


def zscore(x: np.ndarray, ddof: int = 1) -> float:
    spread = std(x, ddof)
    return float(Fraction(float(x[-1])) - exact_mean(x)) / spread if spread else NAN


def covariance(x: np.ndarray, y: np.ndarray, ddof: int = 1) -> float:
    return float(comoment(x, y)) / (len(x) - ddof)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    xx, yy = comoment(x, x), comoment(y, y)
    if xx == 0 or yy == 0:
        return NAN
    return float(comoment(x, y)) / math.sqrt(float(xx)) / math.sqrt(float(yy))


def slope(y: np.ndarray, x: np.ndarray) -> float:
    xx = comoment(x, x)
    return float(comoment(x, y) / xx) if xx else NAN


def quantile(x: np.ndarray, q: float) -> float:
    s = np.sort(x)
    h = (len(s) - 1) * q
    j = min(int(h), len(s) - 1)
    upper = s[min(j + 1, len(s) - 1)]
    return float(s[j] + (h - j) * (upper - s[j]))


def weights(n: int, *, decay: list[float], adjust: bool) -> np.ndarray:
    """Exponential weights of rows 0…n−1 at row n−1; decay[i] acts when row i arrives."""
    w = np.zeros(n)
    for i in range(n):
        w[:i] *= decay[i]
        w[i] = 1.0 if adjust or i == 0 else 1.0 - decay[i]
    return w / math.fsum(w)
