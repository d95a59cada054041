"""Price impact and illiquidity over a window of trades."""

import math

from gpukern import scalar
from gpukern.kernel import NAN, boolean, choice, composite, fold, map_, min_periods, number, window


@fold("price>0, signed_volume", out="kyle_lambda",
      params=[window(20, low=2), min_periods("2"), choice("response", "diff", "diff", "log"),
              boolean("intercept", True)],
      first="window + 1", units="price/size", source="Kyle 1985; statsmodels OLS")  # fmt: skip
class kyle_lambda:
    """Price impact: the least-squares slope of price changes on signed volume.

    The window counts changes. ``response='log'``: of log returns. ``intercept=False``: Σxy/Σx².
    Null where the signed volume does not vary (without intercept: is 0 throughout).
    """

    acc = "sx sy sxx sxy"
    series = "y x"

    def inner(price, prev_price, signed_volume, response):
        change = price - prev_price
        if response == 1:
            change = scalar.log1p(change / prev_price)
        return change, signed_volume

    def lift(y, x, dy, dx, intercept):
        u = dx if intercept == 1 else x
        v = dy if intercept == 1 else y
        return u, v, u * u, u * v

    def value(n, sx, sy, sxx, sxy, intercept):
        mean = sx / n if intercept == 1 else 0.0
        spread = sxx - sx * mean
        return (sxy - sy * mean) / spread if spread > 0.0 else NAN


@fold("price>0, volume>0", out="amihud_illiquidity",
      params=[window(20), min_periods(), number("scale", 1e6, above=0)], first="window + 1",
      units="1/currency", source="Amihud 2002")  # fmt: skip
class amihud_illiquidity:
    """Mean of abs(p_t/p_{t−1} − 1) / (p_t·volume_t), times ``scale``: return per so much traded.

    The window counts returns; rows without volume do not exist.
    """

    acc = "s"
    series = "y"

    def inner(price, volume, prev_price):
        return abs(price - prev_price) / prev_price / (price * volume)

    def lift(y):
        return y

    def value(n, s, scale):
        return scale * (s / n)


@map_("price>0", out="change, log_change", first="2", hidden=True)
class price_changes:
    """Change of the price and of its logarithm since the row before."""

    def value(price, prev_price):
        change = price - prev_price
        return change, scalar.log1p(change / prev_price)


@fold("change, log_change", out="roll_spread, roll_spread_bps",
      params=[window(20, low=2), min_periods("2"), choice("positive", "null", "null", "zero")],
      first="window + 1", hidden=True)  # fmt: skip
class covariance_spread:
    """Roll's spread from the covariance of successive changes."""

    acc = "sa sb sab su sv suv"
    series = "a b u v"

    def inner(change, prev_change, log_change, prev_log_change):
        return change, prev_change, log_change, prev_log_change

    def lift(da, db, du, dv):
        return da, db, da * db, du, dv, du * dv

    def value(n, sa, sb, sab, su, sv, suv, positive):
        c = (sab - sa * sb / n) / (n - 1.0)
        d = (suv - su * sv / n) / (n - 1.0)
        above = NAN if positive == 0 else 0.0
        spread = 2.0 * math.sqrt(-c) if c <= 0.0 else (above if c > 0.0 else NAN)
        bps = 2e4 * math.sqrt(-d) if d <= 0.0 else (above if d > 0.0 else NAN)
        return spread, bps


@composite("price>0", out="roll_spread, roll_spread_bps",
           params=[window(20, low=2), min_periods("2"), choice("positive", "null", "null", "zero")],
           first="window + 2", units="price, bps", scale=(1, 0), source="Roll 1984")  # fmt: skip
class roll_spread:
    """Implied spread 2√(−c), c = Cov(Δp_t, Δp_{t−1}) over the pairs in the window, ddof 1.

    bps: the same of log returns, times 1e4. Null where c > 0; with ``positive='zero'`` 0.
    """

    def build(price, window, min_periods, positive):
        changes = price_changes(price)
        return covariance_spread(
            changes["change"], changes["log_change"],
            window=window, min_periods=min_periods, positive=positive,
        )  # fmt: skip
