"""Exponentially weighted moments, with decay per row or per unit of time.

Every kernel here is the same fold. A block of rows is kept as its total decay ``d``, its total
weight ``w`` and sums of weighted differences from its *latest* row: prices that lie close together
lose no digits, and what a bad print leaves in the sums decays as fast as its weight does.

A row's weight is 1 with ``adjust=True``; without it 1 for the symbol's first row and 1 − decay for
the others, so that the weights add up to 1.
"""

import math

from gpukern import scalar
from gpukern.durations import parse_duration
from gpukern.kernel import (
    NAN,
    Param,
    boolean,
    composite,
    fold,
    half_life,
    integer,
    map_,
    number,
    per_symbol,
    step,
)

RISKMETRICS_ALPHA = 0.06
DECAY = [
    number("alpha", None, above=0, high=1, optional=True),
    half_life(),
    number("span", None, low=1, optional=True),
    number("com", None, low=0, optional=True),
    Param("adjust", None, "boolean", optional=True),
]
ROW_DECAY = [number("alpha"), boolean("adjust", False), integer("min_periods", 1)]
TIME_DECAY = [boolean("adjust", True), integer("min_periods", 1)]
SPREAD = [boolean("bias", True)]


def _one_decay(params):
    given = {n: params[n] for n in ("alpha", "half_life", "span", "com") if params[n] is not None}
    if len(given) > 1:
        shown = " and ".join(f"{n}={v!r}" for n, v in given.items())
        return f"give at most one of alpha, half_life, span and com, got {shown}"
    kinds = {isinstance(v, str) for v in _values(params["half_life"])}
    if len(kinds) > 1:
        return f"half_life must be rows or a duration for all symbols, got {params['half_life']!r}"
    return None


def _values(value):
    return list(value.values()) if isinstance(value, dict) else [value]


def _row_alpha(alpha, half_life, span, com):
    if alpha is not None:
        return alpha
    if half_life is not None:
        return -scalar.expm1(-scalar.LN2 / half_life)  # 1 - 2**(-1 / half_life)
    if span is not None:
        return 2.0 / (span + 1.0)
    return RISKMETRICS_ALPHA if com is None else 1.0 / (1.0 + com)


def _weighted(by_row, by_time, series, alpha, half_life, span, com, adjust, **others):
    """The fold that the decay's parameters call for, on one or two series."""
    if isinstance(_values(half_life)[0], str):
        return by_time(
            *series,
            fall(
                elapsed(*series),
                half_life_ns=per_symbol(lambda h: float(parse_duration(h)), half_life),
            ),
            adjust=True if adjust is None else adjust,
            **others,
        )
    return by_row(
        *series,
        alpha=per_symbol(_row_alpha, alpha, half_life, span, com),
        adjust=False if adjust is None else adjust,
        **others,
    )


@step("x, y?", out="elapsed", units="ns", hidden=True)
class elapsed:
    """Time since the previous valid row in ns, 0 on the first row.

    The state holds the time in two halves that float64 represents exactly.
    """

    state = "high low"

    def init():
        return 0.0, 0.0

    def step(high, low, t, k):
        now_high = float(t >> 30)
        now_low = float(t & 1073741823)
        gap = (now_high - high) * 1073741824.0 + (now_low - low)
        return (now_high, now_low), (gap if k > 0 else 0.0)


@map_("elapsed", out="fall", params=[number("half_life_ns")], units="1", hidden=True)
class fall:
    """By how much weights decay in that time: 2^(−elapsed / half-life) − 1."""

    def value(elapsed, half_life_ns):
        return scalar.expm1(-scalar.LN2 * (elapsed / half_life_ns))


# ---------------------------------------------------------------------------------------- mean


def _mean_join(a, b):
    d1, w1, x1, s1 = a
    d2, w2, x2, s2 = b
    return d1 * d2, w1 * d2 + w2, x2, (s1 - w1 * (x2 - x1)) * d2 + s2


def _mean_absorb(weight, mean, d, w, x, s):
    old = weight * d
    new = old + w
    return new, x + (old * (mean - x) + s) / new


def _mean_total(mean, k, min_periods, null):
    return mean if k + 1 >= min_periods else null


@fold("x", out="ewma", params=ROW_DECAY, units="x", scale=1, hidden=True)
class ew_mean_rows:
    """Weighted mean, decay per row."""

    acc = "d w x s"
    base = "weight mean"
    zero = (1.0, 0.0, 0.0, 0.0)
    join, absorb, total = _mean_join, _mean_absorb, _mean_total

    def lift(x, k, alpha, adjust):
        d = 1.0 - alpha
        w = 1.0 if adjust == 1 or k == 0 else 1.0 - d
        # -0.0 is what adding changes nothing to; the compiler leaves such additions out.
        return d, w, x, -0.0


@fold("x, fall", out="ewma", params=TIME_DECAY, units="x", scale=1, hidden=True)
class ew_mean_time:
    """Weighted mean, decay 1 + ``fall``."""

    acc = "d w x s"
    base = "weight mean"
    zero = (1.0, 0.0, 0.0, 0.0)
    join, absorb, total = _mean_join, _mean_absorb, _mean_total

    def lift(x, fall, k, adjust):
        w = 1.0 if adjust == 1 or k == 0 else -fall
        return 1.0 + fall, w, x, -0.0


@composite("x", out="ewma", params=[*DECAY, integer("min_periods", 1, low=1)],
           first="min_periods", units="x", scale=1,
           source="pandas ewm.mean; polars ewm_mean_by (adjust=False)")  # fmt: skip
class ewma:
    """Exponentially weighted moving average Σw̃x.

    Give at most one of ``alpha`` (weight of the newest row), ``half_life``, ``span``
    (α = 2/(span + 1)) and ``com`` (α = 1/(1 + com)); none is α = 0.06. ``half_life`` is a number of
    rows or a duration such as '30s'. ``adjust=True`` (default with a duration): weights
    (1 − α)^(rows ago) or 2^(−age / half_life), normalised. ``adjust=False`` (default by rows):
    s₁ = x₁, s_t = (1 − a)s_{t−1} + a·x_t with a = α or 1 − 2^(−Δt / half_life).
    """

    validate = _one_decay

    def build(x, alpha, half_life, span, com, adjust, min_periods):
        return _weighted(ew_mean_rows, ew_mean_time, (x,), alpha, half_life, span, com, adjust,
                         min_periods=min_periods)  # fmt: skip


# ------------------------------------------------------------------------------------ variance


def _var_join(a, b):
    d1, w1, x1, s1, ss1, ww1 = a
    d2, w2, x2, s2, ss2, ww2 = b
    h = x2 - x1
    shifted = s1 - w1 * h
    return (
        d1 * d2,
        w1 * d2 + w2,
        x2,
        shifted * d2 + s2,
        (ss1 - h * (s1 + shifted)) * d2 + ss2,
        ww1 * (d2 * d2) + ww2,
    )


def _var_absorb(weight, row, offset, c, squares, d, w, x, s, ss, ww):
    # The mean before is row + offset, the block's is x + s/w: their distance loses no digits.
    old = weight * d
    new = old + w
    own = s / w if w > 0.0 else 0.0
    inside = ss - s * own
    inside = 0.0 if inside < 0.0 else inside
    ahead = (x - row) - offset
    gap = ahead + own
    return (
        new,
        x,
        (s - old * ahead) / new,
        c * d + inside + (old * w / new) * (gap * gap),
        squares * (d * d) + ww,
    )


def _var_total(weight, c, squares, k, min_periods, bias, root, null):
    effective = weight if bias == 1 else weight - squares / weight
    var = c / effective if effective > 0.0 else NAN
    var = math.sqrt(var) if root == 1 else var
    return var if k + 1 >= min_periods else null


@fold("x", out="ewvar", params=[*ROW_DECAY, *SPREAD, boolean("root", False)], hidden=True)
class ew_var_rows:
    """Weighted variance or (``root``) standard deviation, decay per row."""

    acc = "d w x s ss ww"
    base = "weight row offset c squares"
    zero = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    join, absorb, total = _var_join, _var_absorb, _var_total

    def lift(x, k, alpha, adjust):
        d = 1.0 - alpha
        w = 1.0 if adjust == 1 or k == 0 else 1.0 - d
        return d, w, x, -0.0, -0.0, w * w


@fold("x, fall", out="ewvar", params=[*TIME_DECAY, *SPREAD, boolean("root", False)],
      hidden=True)  # fmt: skip
class ew_var_time:
    """Weighted variance or (``root``) standard deviation, decay 1 + ``fall``."""

    acc = "d w x s ss ww"
    base = "weight row offset c squares"
    zero = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    join, absorb, total = _var_join, _var_absorb, _var_total

    def lift(x, fall, k, adjust):
        w = 1.0 if adjust == 1 or k == 0 else -fall
        return 1.0 + fall, w, x, -0.0, -0.0, w * w


@composite("x", out="ewvar",
           params=[*DECAY, boolean("bias", True), integer("min_periods", 2, low=1)],
           first="min_periods", units="x^2", scale=2,
           source="RiskMetrics 1996; pandas ewm.var")  # fmt: skip
class ewvar:
    """Exponentially weighted variance Σw̃(x − m)² about the mean m with the same weights.

    ``bias=False`` divides by 1 − Σw̃². Weights and decay parameters as in ``ewma``.
    """

    validate = _one_decay

    def build(x, alpha, half_life, span, com, adjust, bias, min_periods):
        return _weighted(ew_var_rows, ew_var_time, (x,), alpha, half_life, span, com, adjust,
                         bias=bias, min_periods=min_periods)  # fmt: skip


@composite("x", out="ewstd",
           params=[*DECAY, boolean("bias", True), integer("min_periods", 2, low=1)],
           first="min_periods", units="x", scale=1,
           source="RiskMetrics 1996; pandas ewm.std")  # fmt: skip
class ewstd:
    """Exponentially weighted standard deviation, the root of ``ewvar``."""

    validate = _one_decay

    def build(x, alpha, half_life, span, com, adjust, bias, min_periods):
        return _weighted(ew_var_rows, ew_var_time, (x,), alpha, half_life, span, com, adjust,
                         bias=bias, min_periods=min_periods, root=True)  # fmt: skip


# ---------------------------------------------------------------------------------- covariance


def _cov_join(a, b):
    d1, w1, x1, y1, sx1, sy1, sxy1, ww1 = a
    d2, w2, x2, y2, sx2, sy2, sxy2, ww2 = b
    hx = x2 - x1
    hy = y2 - y1
    shifted_x = sx1 - w1 * hx
    shifted_y = sy1 - w1 * hy
    return (
        d1 * d2,
        w1 * d2 + w2,
        x2,
        y2,
        shifted_x * d2 + sx2,
        shifted_y * d2 + sy2,
        (sxy1 - hx * sy1 - hy * shifted_x) * d2 + sxy2,
        ww1 * (d2 * d2) + ww2,
    )


def _cov_absorb(weight, row_x, off_x, row_y, off_y, c, squares, d, w, x, y, sx, sy, sxy, ww):
    old = weight * d
    new = old + w
    inverse = 1.0 / w if w > 0.0 else 0.0
    own_x = sx * inverse
    own_y = sy * inverse
    ahead_x = (x - row_x) - off_x
    ahead_y = (y - row_y) - off_y
    return (
        new,
        x,
        (sx - old * ahead_x) / new,
        y,
        (sy - old * ahead_y) / new,
        c * d + (sxy - sx * own_y) + (old * w / new) * ((ahead_x + own_x) * (ahead_y + own_y)),
        squares * (d * d) + ww,
    )


def _cov_total(weight, c, squares, k, min_periods, bias, null):
    effective = weight if bias == 1 else weight - squares / weight
    cov = c / effective if effective > 0.0 else NAN
    return cov if k + 1 >= min_periods else null


@fold("x, y", out="ewcov", params=[*ROW_DECAY, *SPREAD], hidden=True)
class ew_cov_rows:
    """Weighted covariance, decay per row."""

    acc = "d w x y sx sy sxy ww"
    base = "weight row_x off_x row_y off_y c squares"
    zero = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    join, absorb, total = _cov_join, _cov_absorb, _cov_total

    def lift(x, y, k, alpha, adjust):
        d = 1.0 - alpha
        w = 1.0 if adjust == 1 or k == 0 else 1.0 - d
        return d, w, x, y, -0.0, -0.0, -0.0, w * w


@fold("x, y, fall", out="ewcov", params=[*TIME_DECAY, *SPREAD], hidden=True)
class ew_cov_time:
    """Weighted covariance, decay 1 + ``fall``."""

    acc = "d w x y sx sy sxy ww"
    base = "weight row_x off_x row_y off_y c squares"
    zero = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    join, absorb, total = _cov_join, _cov_absorb, _cov_total

    def lift(x, y, fall, k, adjust):
        w = 1.0 if adjust == 1 or k == 0 else -fall
        return 1.0 + fall, w, x, y, -0.0, -0.0, -0.0, w * w


@composite("x, y", out="ewcov",
           params=[*DECAY, boolean("bias", True), integer("min_periods", 2, low=1)],
           first="min_periods", units="x*y", scale=2,
           source="RiskMetrics 1996; pandas ewm.cov")  # fmt: skip
class ewcov:
    """Exponentially weighted covariance Σw̃(x − mx)(y − my), means with the same weights.

    ``bias=False`` divides by 1 − Σw̃². Weights and decay parameters as in ``ewma``.
    """

    validate = _one_decay

    def build(x, y, alpha, half_life, span, com, adjust, bias, min_periods):
        return _weighted(ew_cov_rows, ew_cov_time, (x, y), alpha, half_life, span, com, adjust,
                         bias=bias, min_periods=min_periods)  # fmt: skip


# --------------------------------------------------------------------------------- correlation


def _corr_join(a, b):
    d1, w1, x1, y1, sx1, sy1, sxx1, sxy1, syy1 = a
    d2, w2, x2, y2, sx2, sy2, sxx2, sxy2, syy2 = b
    hx = x2 - x1
    hy = y2 - y1
    shifted_x = sx1 - w1 * hx
    shifted_y = sy1 - w1 * hy
    return (
        d1 * d2,
        w1 * d2 + w2,
        x2,
        y2,
        shifted_x * d2 + sx2,
        shifted_y * d2 + sy2,
        (sxx1 - hx * (sx1 + shifted_x)) * d2 + sxx2,
        (sxy1 - hx * sy1 - hy * shifted_x) * d2 + sxy2,
        (syy1 - hy * (sy1 + shifted_y)) * d2 + syy2,
    )


def _corr_absorb(
    weight, row_x, off_x, row_y, off_y, cxx, cxy, cyy, d, w, x, y, sx, sy, sxx, sxy, syy
):
    old = weight * d
    new = old + w
    inverse = 1.0 / w if w > 0.0 else 0.0
    own_x = sx * inverse
    own_y = sy * inverse
    ahead_x = (x - row_x) - off_x
    ahead_y = (y - row_y) - off_y
    gap_x = ahead_x + own_x
    gap_y = ahead_y + own_y
    share = old * w / new
    return (
        new,
        x,
        (sx - old * ahead_x) / new,
        y,
        (sy - old * ahead_y) / new,
        cxx * d + (sxx - sx * own_x) + share * (gap_x * gap_x),
        cxy * d + (sxy - sx * own_y) + share * (gap_x * gap_y),
        cyy * d + (syy - sy * own_y) + share * (gap_y * gap_y),
    )


def _corr_total(weight, row_x, off_x, row_y, off_y, cxx, cxy, cyy, k, min_periods, null):
    # A deviation below 2**-50 of the mean is what rounding leaves of none at all.
    least_x = 8.881784197001252e-16 * (row_x + off_x)
    least_y = 8.881784197001252e-16 * (row_y + off_y)
    spread = cxx > least_x * least_x * weight and cyy > least_y * least_y * weight
    scale = math.sqrt(cxx) * math.sqrt(cyy) if spread else 0.0
    corr = cxy / scale if scale > 0.0 else NAN
    corr = 1.0 if corr > 1.0 else corr
    corr = -1.0 if corr < -1.0 else corr
    return corr if k + 1 >= min_periods else null


@fold("x, y", out="ewcorr", params=ROW_DECAY, hidden=True)
class ew_corr_rows:
    """Weighted correlation, decay per row."""

    acc = "d w x y sx sy sxx sxy syy"
    base = "weight row_x off_x row_y off_y cxx cxy cyy"
    zero = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    join, absorb, total = _corr_join, _corr_absorb, _corr_total

    def lift(x, y, k, alpha, adjust):
        d = 1.0 - alpha
        w = 1.0 if adjust == 1 or k == 0 else 1.0 - d
        return d, w, x, y, -0.0, -0.0, -0.0, -0.0, -0.0


@fold("x, y, fall", out="ewcorr", params=TIME_DECAY, hidden=True)
class ew_corr_time:
    """Weighted correlation, decay 1 + ``fall``."""

    acc = "d w x y sx sy sxx sxy syy"
    base = "weight row_x off_x row_y off_y cxx cxy cyy"
    zero = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    join, absorb, total = _corr_join, _corr_absorb, _corr_total

    def lift(x, y, fall, k, adjust):
        w = 1.0 if adjust == 1 or k == 0 else -fall
        return 1.0 + fall, w, x, y, -0.0, -0.0, -0.0, -0.0, -0.0


@composite("x, y", out="ewcorr", params=[*DECAY, integer("min_periods", 2, low=1)],
           first="min_periods", units="1", scale=0,
           source="RiskMetrics 1996; pandas ewm.corr")  # fmt: skip
class ewcorr:
    """Exponentially weighted correlation C / √(Vx·Vy), clipped to [−1, 1].

    Null where a series has no dispersion: variance ≤ (2⁻⁵⁰·abs(mean))². Weights and decay
    parameters as in ``ewma``.
    """

    validate = _one_decay

    def build(x, y, alpha, half_life, span, com, adjust, min_periods):
        return _weighted(ew_corr_rows, ew_corr_time, (x, y), alpha, half_life, span, com, adjust,
                         min_periods=min_periods)  # fmt: skip
