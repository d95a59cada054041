"""Moments and extremes of a rolling window, of one or two series.

Sums are taken about a value inside the window (``dx = x − centre``), so the moments of
67000 ± 0.01 are as good as those of 0 ± 0.01; a window of equal values has all dx = 0 and hence a
dispersion of exactly 0: its variance is 0 and every ratio over it null. Divisions by the number of
rows are multiplications by ``1 / n``, which is the same for all full windows.
"""

import math

from numba.extending import register_jitable

from gpukern.kernel import NAN, boolean, composite, fold, integer, min_periods, window
from gpukern.kernels.returns import lag


@register_jitable
def squares(n, s1, s2):
    """Σ(x − mean)² from the sums of dx and dx²; rounding must not make it negative."""
    m2 = s2 - s1 * s1 * (1.0 / n)
    return 0.0 if m2 < 0.0 else m2


# ------------------------------------------------------------------------------ one series


@fold("x", out="{x}_mean{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.mean")  # fmt: skip
class rolling_mean:
    """Mean of the window: Σx / n."""

    acc = "s1"

    def lift(dx):
        return dx

    def value(n, cx, s1):
        return cx + s1 * (1.0 / n)


@fold("x", out="{x}_sum{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.sum")  # fmt: skip
class rolling_sum:
    """Sum of the window: Σx."""

    acc = "s1"

    def lift(x):
        return x

    def value(s1):
        return s1


@fold("x", out="{x}_var{w}",
      params=[window(20), min_periods("ddof + 1"), integer("ddof", 1, low=0)],
      first="window", units="x^2", scale=2, source="pandas rolling.var")  # fmt: skip
class rolling_var:
    """Variance of the window: Σ(x − mean)² / (n − ddof). A constant window gives 0."""

    acc = "s1 s2"

    def lift(dx):
        return dx, dx * dx

    def value(n, s1, s2, ddof):
        return squares(n, s1, s2) * (1.0 / (n - ddof))


@fold("x", out="{x}_std{w}",
      params=[window(20), min_periods("ddof + 1"), integer("ddof", 1, low=0)],
      first="window", units="x", scale=1,
      source="pandas rolling.std; TA-Lib STDDEV (ddof=0)")  # fmt: skip
class rolling_std:
    """Standard deviation of the window: √(Σ(x − mean)² / (n − ddof)). A constant window gives 0."""

    acc = "s1 s2"

    def lift(dx):
        return dx, dx * dx

    def value(n, s1, s2, ddof):
        return math.sqrt(squares(n, s1, s2) * (1.0 / (n - ddof)))


@fold("x", out="zscore",
      params=[window(100), min_periods("ddof + 1"), integer("ddof", 1, low=0)],
      first="window", units="1", scale=0,
      source="(x − pandas rolling.mean) / rolling.std")  # fmt: skip
class rolling_zscore:
    """Standard score of the row in its window: (x_t − mean) / std, std with ``ddof``.

    The window includes the row. A constant window gives null.
    """

    acc = "s1 s2"

    def lift(dx):
        return dx, dx * dx

    def value(n, x, cx, s1, s2, ddof):
        std = math.sqrt(squares(n, s1, s2) * (1.0 / (n - ddof)))
        return ((x - cx) - s1 * (1.0 / n)) / std if std > 0.0 else NAN


@fold("x", out="skew, kurt", params=[window(20), min_periods(), boolean("bias", False)],
      first="max(window, 3), max(window, 4)", units="1, 1", scale=0, hidden=True,
      source="Joanes–Gill 1998")  # fmt: skip
class window_shape:
    """Skewness and excess kurtosis of one window: who asks for both pays for one."""

    acc = "s1 s2 s3 s4"

    def lift(dx):
        square = dx * dx
        return dx, square, square * dx, square * square

    def value(n, s1, s2, s3, s4, bias):
        share = 1.0 / n
        mean = s1 * share
        m2 = squares(n, s1, s2) * share
        m3 = (s3 - mean * (3.0 * s2 - 2.0 * mean * s1)) * share
        m4 = (s4 - mean * (4.0 * s3 - mean * (6.0 * s2 - 3.0 * mean * s1))) * share
        skew = m3 / (m2 * math.sqrt(m2)) if m2 > 0.0 else NAN
        g = m4 / (m2 * m2) - 3.0 if m2 > 0.0 else NAN
        if bias:
            return skew, g
        skew = skew * (math.sqrt(n * (n - 1.0)) / (n - 2.0)) if n > 2 else NAN
        kurt = (n - 1.0) / ((n - 2.0) * (n - 3.0)) * ((n + 1.0) * g + 6.0) if n > 3 else NAN
        return skew, kurt


@composite("x", out="{x}_skew{w}",
           params=[window(20), min_periods("1 if bias else 3"), boolean("bias", False)],
           first="window", units="1", scale=0,
           source="pandas rolling.skew; polars rolling_skew (bias=True)")  # fmt: skip
class rolling_skew:
    """Skewness of the window: g = μ₃ / μ₂^1.5; unless ``bias``, g·√(n(n−1)) / (n−2).

    A constant window gives null.
    """

    def build(x, window, min_periods, bias):
        return window_shape(x, window=window, min_periods=min_periods, bias=bias)["skew"]


@composite("x", out="{x}_kurt{w}",
           params=[window(20), min_periods("1 if bias else 4"), boolean("bias", False)],
           first="window", units="1", scale=0,
           source="pandas rolling.kurt; SciPy kurtosis (bias=True)")  # fmt: skip
class rolling_kurt:
    """Excess kurtosis of the window: g = μ₄ / μ₂² − 3.

    Unless ``bias``, (n−1) / ((n−2)(n−3)) · ((n+1)g + 6). A constant window gives null.
    """

    def build(x, window, min_periods, bias):
        return window_shape(x, window=window, min_periods=min_periods, bias=bias)["kurt"]


@fold("x", out="{x}_min{w}", params=[window(20), min_periods()], first="window", units="x",
      scale=1, source="pandas rolling.min; TA-Lib MIN")  # fmt: skip
class rolling_min:
    """Smallest value of the window."""

    acc = "low"
    zero = (float("inf"),)

    def lift(x):
        return x

    def join(a, b):
        return a if a < b or a != a else b

    def value(low):
        return low


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


# ------------------------------------------------------------------------------ two series


@fold("x, y", out="rolling_cov",
      params=[window(20), min_periods("ddof + 1"), integer("ddof", 1, low=0)],
      first="window", units="x·y", scale=2, source="pandas rolling.cov")  # fmt: skip
class rolling_cov:
    """Covariance of the window: Σ(x − mean x)(y − mean y) / (n − ddof).

    0 if one of the series is constant.
    """

    acc = "sx sy sxy"

    def lift(dx, dy):
        return dx, dy, dx * dy

    def value(n, sx, sy, sxy, ddof):
        return (sxy - sx * sy * (1.0 / n)) * (1.0 / (n - ddof))


@fold("x, y", out="rolling_corr", params=[window(20), min_periods("2")], first="window",
      units="1", scale=0, source="pandas rolling.corr; TA-Lib CORREL")  # fmt: skip
class rolling_corr:
    """Pearson correlation of the window, in [−1, 1]; null if one of the series is constant."""

    acc = "sx sy sxx sxy syy"

    def lift(dx, dy):
        return dx, dy, dx * dx, dx * dy, dy * dy

    def value(n, sx, sy, sxx, sxy, syy):
        # The product of the roots, as that of the squares leaves the range of a double earlier.
        spread = math.sqrt(squares(n, sx, sxx)) * math.sqrt(squares(n, sy, syy))
        r = (sxy - sx * sy * (1.0 / n)) / spread if spread > 0.0 else NAN
        r = 1.0 if r > 1.0 else r
        return -1.0 if r < -1.0 else r


@fold("y, x", out="rolling_beta", params=[window(20), min_periods("2")], first="window",
      units="y/x", scale=0, source="pandas rolling.cov / rolling.var")  # fmt: skip
class rolling_beta:
    """Least-squares slope of y on x in the window: Cov(y, x) / Var(x); null if x is constant."""

    acc = "sx sy sxx sxy"

    def lift(dx, dy):
        return dx, dy, dx * dx, dx * dy

    def value(n, sx, sy, sxx, sxy):
        spread = squares(n, sx, sxx)
        return (sxy - sx * sy * (1.0 / n)) / spread if spread > 0.0 else NAN


@composite("x", out="{x}_autocorr{lag}",
           params=[integer("lag", 1, low=1), window(100), min_periods("2")],
           first="window + lag", units="1", scale=0,
           source="pandas x.rolling(w).corr(x.shift(lag))")  # fmt: skip
class autocorr:
    """Autocorrelation: Pearson of the pairs (x_i, x_{i−lag}), each side with its own mean.

    The window counts pairs. Null if one side is constant.
    """

    def build(x, lag, window, min_periods):
        return rolling_corr(x, lagged(x, k=lag), window=window, min_periods=min_periods)


lagged = lag  # ``build`` has a parameter of that name
