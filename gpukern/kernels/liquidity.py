"""Price impact and illiquidity over a window of trades."""

import math

from gpukern import scalar
from gpukern.kernel import NAN, boolean, choice, composite, fold, map_, min_periods, number, window


@map_("price>0, signed_volume", out="change", params=[choice("response", "diff", "diff", "log")],
      first="2", hidden=True)  # fmt: skip
class impact_change:
    """Change of the price, or of its logarithm, since the row before that has a volume too."""

    def value(price, prev_price, response):
        change = price - prev_price
        return scalar.log1p(change / prev_price) if response == 1 else change


@fold("y, x", out="slope",
      params=[window(20, low=2), min_periods("2"), boolean("intercept", True)],
      first="window", hidden=True)  # fmt: skip
class response_slope:
    """Least-squares slope of y on x, with or without a constant."""

    acc = "sx sy sxx sxy"

    def lift(y, x, dy, dx, intercept):
        u = dx if intercept == 1 else x
        v = dy if intercept == 1 else y
        return u, v, u * u, u * v

    def value(n, sx, sy, sxx, sxy, intercept):
        mean = sx * (1.0 / n) if intercept == 1 else 0.0
        spread = sxx - sx * mean
        return (sxy - sy * mean) / spread if spread > 0.0 else NAN


@composite("price>0, signed_volume", out="kyle_lambda",
           params=[window(20, low=2), min_periods("2"), choice("response", "diff", "diff", "log"),
                   boolean("intercept", True)],
           first="window + 1", units="price/size", source="Kyle 1985; statsmodels OLS")  # fmt: skip
class kyle_lambda:
    """Price impact: the least-squares slope of price changes on signed volume.

    The window counts changes. ``response='log'``: of log returns. ``intercept=False``: Σxy/Σx².
    Null where the signed volume does not vary (without intercept: is 0 throughout).
    """

    def build(price, signed_volume, window, min_periods, response, intercept):
        change = impact_change(price, signed_volume, response=response)
        return response_slope(
            change, signed_volume, window=window, min_periods=min_periods, intercept=intercept
        )


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
        return scale * (s * (1.0 / n))


@map_("price>0", out="change", first="2", hidden=True)
class price_change:
    """Change of the price since the row before."""

    def value(price, prev_price):
        return price - prev_price


@map_("price>0", out="log_change", first="2", hidden=True)
class log_price_change:
    """Change of the price's logarithm since the row before."""

    def value(price, prev_price):
        return scalar.log1p((price - prev_price) / prev_price)


@fold("change", out="spread",
      params=[window(20, low=2), min_periods("2"), choice("positive", "null", "null", "zero"),
              number("scale", 2.0)],
      first="window + 1", hidden=True)  # fmt: skip
class covariance_spread:
    """Roll's spread from the covariance of successive changes: ``scale``·√(−c)."""

    acc = "sa sb sab"
    series = "a b"

    def inner(change, prev_change):
        return change, prev_change

    def lift(da, db):
        return da, db, da * db

    def value(n, sa, sb, sab, positive, scale):
        c = (sab - sa * sb * (1.0 / n)) * (1.0 / (n - 1.0))
        above = NAN if positive == 0 else 0.0
        return scale * math.sqrt(-c) if c <= 0.0 else (above if c > 0.0 else NAN)


@composite("price>0", out="roll_spread, roll_spread_bps",
           params=[window(20, low=2), min_periods("2"), choice("positive", "null", "null", "zero")],
           first="window + 2", units="price, bps", scale=(1, 0), source="Roll 1984")  # fmt: skip
class roll_spread:
    """Implied spread 2√(−c), c = Cov(Δp_t, Δp_{t−1}) over the pairs in the window, ddof 1.

    bps: the same of log returns, times 1e4. Null where c > 0; with ``positive='zero'`` 0.
    """

    def build(price, window, min_periods, positive):
        given = {"window": window, "min_periods": min_periods, "positive": positive}
        return (
            covariance_spread(price_change(price), **given),
            covariance_spread(log_price_change(price), scale=2e4, **given),
        )
