"""Everything so far: running moments, sums, extremes, drawdown, and VWAP of the anchor period."""

import math

from numba.extending import register_jitable

from gpukern.durations import parse_duration
from gpukern.kernel import NAN, NULL, composite, duration, fold, integer, min_periods, window


@register_jitable
def larger(a, b):
    """The larger one (the later of equals); NaN if one is NaN."""
    return a if a > b or a != a else b


@register_jitable
def smaller(a, b):
    """The smaller one (the later of equals); NaN if one is NaN."""
    return a if a < b or a != a else b


@register_jitable
def lost(a, b, total):
    """What rounding took from a + b = total (Knuth's two-sum)."""
    part = total - a
    return (a - (total - part)) + (b - part)


@fold("x", out="mean, variance, stddev",
      params=[integer("ddof", 1, low=0), min_periods("1", default=1)],
      first=("min_periods or 1", *2 * ("max(ddof + 1, min_periods or 1)",)),
      units="x, x^2, x", scale=(1, 2, 1),
      source="Welford 1962; Chan, Golub, LeVeque 1979; pandas expanding()")  # fmt: skip
class welford_mean_var:
    """Mean and variance of all rows so far: Σx / n, Σ(x − mean)² / (n − ddof) and its root.

    Variance and stddev are null before row ddof + 1; all equal rows give 0.
    """

    # The mean is the pair centre + shift: the difference of two nearby means loses no digits.
    base = "rows centre shift m2"
    acc = "s1 s2"

    def lift(dx):
        return dx, dx * dx

    def absorb(rows, centre, shift, m2, n, cx, s1, s2):
        total = rows + n
        centre = cx if rows == 0.0 else centre
        mean = s1 / n
        part = s2 - s1 * mean
        part = 0.0 if part < 0.0 else part
        delta = (cx - centre) + (mean - shift)
        share = n / total
        return total, centre, shift + delta * share, m2 + part + delta * delta * (rows * share)

    def total(rows, centre, shift, m2, ddof, min_periods):
        free = rows - ddof
        known = rows >= min_periods and free > 0.0
        variance = m2 / (free if known else 1.0)
        mean = centre + shift
        return (
            mean if rows >= min_periods else NAN,
            variance if known else NAN,
            math.sqrt(variance) if known else NAN,
        )


@fold("x", out="{x}_cumsum", units="x", scale=1, source="pandas cumsum; Knuth, TAOCP 2, 4.2.2")
class cum_sum:
    """Sum of all rows so far, with the rounding of every addition kept and put back."""

    base = "whole rest"
    acc = "part error"

    def lift(x):
        return x, 0.0

    def join(a, b):
        part = a[0] + b[0]
        return part, lost(a[0], b[0], part) + (a[1] + b[1])

    def absorb(whole, rest, part, error):
        total = whole + part
        return total, lost(whole, part, total) + (rest + error)

    def total(whole, rest):
        return whole + rest


@fold("x", out="{x}_cummax", units="x", scale=1, source="pandas cummax")
class cum_max:
    """Largest value so far."""

    base = "most"
    empty = (float("-inf"),)
    acc = "top"
    zero = (float("-inf"),)

    def lift(x):
        return x

    def join(a, b):
        return larger(a, b)

    def absorb(most, top):
        return larger(most, top)

    def total(most):
        return most


@fold("x", out="{x}_cummin", units="x", scale=1, source="pandas cummin")
class cum_min:
    """Smallest value so far."""

    base = "least"
    empty = (float("inf"),)
    acc = "low"
    zero = (float("inf"),)

    def lift(x):
        return x

    def join(a, b):
        return smaller(a, b)

    def absorb(least, low):
        return smaller(least, low)

    def total(least):
        return least


@register_jitable
def fall(low, peak):
    """low / peak − 1, the drawdown from a positive peak; infinite (no drawdown) from others."""
    return (low - peak) / peak if peak > 0.0 else math.inf


@fold("equity", out="drawdown, drawdown_abs", hidden=True)
class fall_from_peak:
    """equity / peak − 1 (null while the peak is not positive) and equity − peak."""

    base = "peak"
    empty = (float("-inf"),)
    acc = "top"
    zero = (float("-inf"),)

    def lift(equity):
        return equity

    def join(a, b):
        return larger(a, b)

    def absorb(peak, top):
        return larger(peak, top)

    def total(equity, peak):
        loss = equity - peak
        return loss / peak if peak > 0.0 else NAN, loss


@fold("equity", out="max_drawdown", hidden=True)
class deepest_fall:
    """The least equity / peak − 1 so far; null while the peak is not positive."""

    base = "peak worst"
    empty = (float("-inf"), float("inf"))
    # Of a stretch of rows: its peak, its low, its own worst drawdown.
    acc = "top low deepest"
    zero = (float("-inf"), float("inf"), float("inf"))

    def lift(equity):
        return equity, equity, fall(equity, equity)

    def join(a, b):
        # Rows of b below a's peak; those under a later, higher peak fell further in b's own count.
        deepest = smaller(smaller(a[2], b[2]), fall(b[1], a[0]))
        return larger(a[0], b[0]), smaller(a[1], b[1]), deepest

    def absorb(peak, worst, top, low, deepest):
        return larger(peak, top), smaller(smaller(worst, deepest), fall(low, peak))

    def total(worst):
        return worst if worst <= 0.0 else NAN


@fold("equity", out="drawdown_bars:i64", hidden=True)
class rows_since_peak:
    """Rows since the last one at the running peak."""

    base = "peak at"
    empty = (float("-inf"), 0.0)
    acc = "top place"  # a stretch's peak and the row of its last peak
    zero = (float("-inf"), 0.0)

    def lift(equity, k):
        return equity, float(k)

    def join(a, b):
        return larger(a[0], b[0]), b[1] if b[0] >= a[0] else a[1]

    def absorb(peak, at, top, place):
        return larger(peak, top), place if top >= peak else at

    def total(peak, at, k):
        return int(k - at) if peak == peak else NULL


@composite("equity", out="drawdown, drawdown_abs, max_drawdown, drawdown_bars:i64",
           units="1, equity, 1, rows", scale=(0, 1, 0, 0),
           source="equity / pandas cummax − 1")  # fmt: skip
class drawdown_equity:
    """Fall from the running peak: equity / peak − 1 (≤ 0), equity − peak, the worst drawdown so
    far, and the rows since the last one at the peak.

    Both ratios are null while the peak is not positive.
    """

    def build(equity):
        return fall_from_peak(equity), deepest_fall(equity), rows_since_peak(equity)


@fold("price>0, volume>=0", out="vwap",
      params=[duration("anchor", "1d", optional=True), duration("offset", "0s"),
              window(None, optional=True), min_periods("1", default=1)],
      first="min_periods or 1", units="price", scale=1, segment_by="anchor",
      source="pandas groupby(day).cumsum")  # fmt: skip
class vwap:
    """Volume-weighted average price of the anchor period so far: Σ(price·volume) / Σvolume.

    The period is the UTC day unless given; it restarts when ⌊(t − offset) / anchor⌋ changes.
    anchor=None: since the first row. With a window: rolling, anchor ignored. Null while nothing
    has been traded.
    """

    base = "centre money traded"
    acc = "excess weight"

    def validate(params):
        anchor = params["anchor"]
        for given in anchor.values() if isinstance(anchor, dict) else [anchor]:
            if given is not None and parse_duration(given) == 0:
                return f"anchor must be longer than zero, or None for no restart, got {given!r}"
        return None

    def segment(t, anchor, offset):
        return (t - offset) // anchor if anchor > 0 else 0

    def lift(dprice, volume):
        return dprice * volume, volume

    def absorb(centre, money, traded, cprice, excess, weight):
        centre = cprice if traded == 0.0 else centre
        return centre, money + (excess + weight * (cprice - centre)), traded + weight

    def total(centre, money, traded, k, min_periods):
        return centre + money / traded if traded > 0.0 and k + 1 >= min_periods else NAN

    def value(cprice, excess, weight):
        return cprice + excess / weight if weight > 0.0 else NAN
