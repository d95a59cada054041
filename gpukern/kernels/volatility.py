"""Realised volatility and its forecasts, from returns."""

import math

from gpukern.kernel import boolean, composite, fold, integer, min_periods, number, window

HALF_PI = 1.5707963267948966
MEDIAN_SCALE = 1.4193583020224414  # π / (6 − 4√3 + π)
# Stands for "no row" among absolute returns, which are never negative.
NONE = -1.0


@fold("log_return", out="realized_var, realized_vol", params=[window(20), min_periods()],
      first="window", units="1", source="Andersen & Bollerslev 1998")  # fmt: skip
class realized_var:
    """Realised variance Σr² of the window, and realised volatility, its root."""

    acc = "s"

    def lift(log_return):
        return log_return * log_return

    def value(s):
        return s, math.sqrt(s)


def fewer(rows, less):
    """A number of rows, or one for each symbol, less so many, but one at least; None stays."""
    if isinstance(rows, dict):
        return {symbol: max(n - less, 1) for symbol, n in rows.items()}
    return None if rows is None else max(rows - less, 1)


def in_rows(window):
    """Whether a window is of rows rather than of a duration."""
    return not isinstance(next(iter(window.values())) if isinstance(window, dict) else window, str)


@fold("log_return", out="bipower_var",
      params=[window(19), min_periods(), boolean("corrected", False)], first="window + 1",
      hidden=True)  # fmt: skip
class products:
    """Bipower variation from the products of successive rows, of which a window of n rows has
    n − 1: a sum over a window that is shorter by a row."""

    acc = "s"
    series = "product"

    def inner(log_return, prev_log_return):
        return abs(log_return) * abs(prev_log_return)

    def lift(product):
        return product

    def value(n, s, corrected):
        factor = (n + 1.0) / n if corrected == 1 else 1.0
        return HALF_PI * s * factor


@fold("log_return", out="bipower_var",
      params=[window("1m"), min_periods("2"), boolean("corrected", False)], first="window",
      hidden=True)  # fmt: skip
class products_inside:
    """The same where it depends on times how many rows the window has."""

    acc = "first last s"
    zero = (NONE, NONE, 0.0)

    def lift(log_return):
        size = abs(log_return)
        return size, size, size - size  # 0, and NaN of a NaN wherever that stands in the window

    def join(a, b):
        first1, last1, s1 = a
        first2, last2, s2 = b
        left = 0.0 if last1 < 0.0 else last1
        right = 0.0 if first2 < 0.0 else first2
        return (
            first2 if first1 < 0.0 else first1,
            last1 if last2 < 0.0 else last2,
            s1 + s2 + left * right,
        )

    def value(n, s, corrected):
        factor = n / (n - 1.0) if corrected == 1 else 1.0
        return HALF_PI * s * factor


@composite("log_return", out="bipower_var",
           params=[window(20, low=2), min_periods("2"), boolean("corrected", False)],
           first="window", units="1",
           source="Barndorff-Nielsen & Shephard 2004; highfrequency rBPCov")  # fmt: skip
class bipower_var:
    """Bipower variation (π/2)·Σ abs(r_j)·abs(r_{j−1}) over the n − 1 products inside the window.

    Robust to jumps. ``corrected=True`` multiplies by n / (n − 1).
    """

    def build(log_return, window, min_periods, corrected):
        if in_rows(window):
            window, min_periods = fewer(window, 1), fewer(min_periods, 1)
            return products(log_return, window, min_periods=min_periods, corrected=corrected)
        return products_inside(log_return, window, min_periods=min_periods, corrected=corrected)


@fold("log_return", out="medrv", params=[window(18), min_periods()], first="window + 2",
      hidden=True)  # fmt: skip
class medians:
    """Realised variance by the medians of three successive rows, of which a window of n rows has
    n − 2: a sum over a window that is shorter by two rows."""

    acc = "s"
    series = "square"

    def inner(log_return, prev_log_return, prev2_log_return):
        a, b, c = abs(log_return), abs(prev_log_return), abs(prev2_log_return)
        median = max(min(a, b), min(max(a, b), c))
        return median * median + ((a - a) + (b - b) + (c - c))  # NaN of a NaN

    def lift(square):
        return square

    def value(n, s):
        return MEDIAN_SCALE * (n + 2.0) / n * s


@fold("log_return", out="medrv", params=[window("1m"), min_periods("3")], first="window",
      hidden=True)  # fmt: skip
class medians_inside:
    """The same where it depends on times how many rows the window has."""

    acc = "first second before last s"
    zero = (NONE, NONE, NONE, NONE, 0.0)

    def lift(log_return):
        size = abs(log_return)
        return size, NONE, NONE, size, size - size  # 0, and NaN of a NaN

    def join(a, b):
        first1, second1, before1, last1, s1 = a
        first2, second2, before2, last2, s2 = b
        # The triples that straddle the seam; one with a missing row has a negative minimum.
        low = min(before1, last1)
        high = max(before1, last1)
        left = max(low, min(high, first2))
        left = left * left if low >= 0.0 and first2 >= 0.0 else 0.0
        low = min(first2, second2)
        high = max(first2, second2)
        right = max(low, min(high, last1))
        right = right * right if low >= 0.0 and last1 >= 0.0 else 0.0
        return (
            first2 if first1 < 0.0 else first1,
            (first2 if last1 >= 0.0 else second2) if second1 < 0.0 else second1,
            (last1 if last2 >= 0.0 else before1) if before2 < 0.0 else before2,
            last1 if last2 < 0.0 else last2,
            s1 + s2 + left + right,
        )

    def value(n, s):
        return MEDIAN_SCALE * n / (n - 2.0) * s


@composite("log_return", out="medrv", params=[window(20, low=3), min_periods("3")], first="window",
           units="1",
           source="Andersen, Dobrev & Schaumburg 2012; highfrequency rMedRVar")  # fmt: skip
class medrv:
    """Realised variance by medians: π/(6 − 4√3 + π)·n/(n − 2)·Σ med(three neighbouring abs r)².

    The sum runs over the n − 2 triples inside the window. Robust to jumps and to zero returns.
    """

    def build(log_return, window, min_periods):
        if in_rows(window):
            window, min_periods = fewer(window, 2), fewer(min_periods, 2)
            return medians(log_return, window, min_periods=min_periods)
        return medians_inside(log_return, window, min_periods=min_periods)


@fold("log_return", out="riskmetrics_vol",
      params=[number("lam", 0.94, low=0, below=1), integer("init_rows", 1, low=1),
              min_periods("init_rows")],
      first="max(init_rows, min_periods or 1)", units="1",
      source="RiskMetrics 1996; pandas ewm(alpha=1−λ, adjust=False)")  # fmt: skip
class riskmetrics_vol:
    """Volatility forecast for the next row: σ² ← λσ² + (1 − λ)r², begun with the mean of the first
    ``init_rows`` r².
    """

    acc = "a s"
    base = "variance"
    zero = (1.0, 0.0)

    def lift(log_return, k, lam, init_rows):
        a = k / (k + 1.0) if k < init_rows else lam
        return a, (1.0 - a) * (log_return * log_return)

    def join(before, after):
        a1, s1 = before
        a2, s2 = after
        return a1 * a2, s1 * a2 + s2

    def absorb(variance, a, s):
        return variance * a + s

    def total(variance, k, min_periods, null):
        return math.sqrt(variance) if k + 1 >= min_periods else null
