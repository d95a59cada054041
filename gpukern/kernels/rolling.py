"""Moments and extremes of a rolling window, of one or two series.

Sums are taken about a value inside the window (``dx = x − centre``), so the moments of
67000 ± 0.01 are as good as those of 0 ± 0.01; a window of equal values has all dx = 0 and hence a
variance of exactly 0.
"""

import math

from gpukern.kernel import NAN, boolean, fold, integer, min_periods, window


@fold("x", out="{x}_mean{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.mean")  # fmt: skip
class rolling_mean:
    """Mean of the window: Σx / n."""

    acc = "s"

    def lift(dx):
        return dx

    def value(n, cx, s):
        return cx + s / n


@fold("x", out="{x}_sum{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.sum")  # fmt: skip
class rolling_sum:
    """Sum of the window: Σx."""

    acc = "s"

    def lift(x):
        return x

    def value(s):
        return s


@fold("x", out="{x}_var{w}", params=[window(20), min_periods("ddof + 1"), integer("ddof", 1, low=0)],
      first="window", units="x^2", scale=2, source="pandas rolling.var")  # fmt: skip
class rolling_var:
    """Variance of the window: Σ(x − mean)² / (n − ddof). A constant window gives 0."""

    acc = "s1 s2"

    def lift(dx):
        return dx, dx * dx

    def value(n, s1, s2, ddof):
        return max(s2 - s1 * s1 / n, 0.0) / (n - ddof)


@fold("x", out="{x}_std{w}", params=[window(20), min_periods("ddof + 1"), integer("ddof", 1, low=0)],
      first="window", units="x", scale=1, source="pandas rolling.std; TA-Lib STDDEV (ddof=0)")  # fmt: skip
class rolling_std:
    """Standard deviation of the window: √(Σ(x − mean)² / (n − ddof)). Constant: 0."""

    acc = "s1 s2"

    def lift(dx):
        return dx, dx * dx

    def value(n, s1, s2, ddof):
        return math.sqrt(max(s2 - s1 * s1 / n, 0.0) / (n - ddof))


@fold("x", out="{x}_max{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.max; TA-Lib MAX")  # fmt: skip
class rolling_max:
    """Largest value of the window."""

    acc = "top"
    zero = (float("-inf"),)

    def lift(x):
        return x

    def join(a, b):
        return a if a > b or a != a else b

    def value(top):
        return top
