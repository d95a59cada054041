"""Channels and bands around a price, and where it stands in them."""

import math

from gpukern.kernel import NAN, boolean, composite, fold, integer, min_periods, number, window
from gpukern.kernels.rolling import rolling_mean, squares


@composite("x", out="sma", params=[window(20), min_periods()], first="window", units="x", scale=1,
           source="TA-Lib SMA")  # fmt: skip
class sma:
    """Simple moving average: the mean of the window."""

    def build(x, window, min_periods):
        return rolling_mean(x, window=window, min_periods=min_periods)


@fold("price", out="bb_mid, bb_upper, bb_lower",
      params=[window(20), number("k", 2.0), integer("ddof", 0, low=0), min_periods("ddof + 1")],
      first="window", units="price", scale=1, source="Bollinger 1983; TA-Lib BBANDS")  # fmt: skip
class bollinger_bands:
    """Bollinger bands: the mean m of the window, m + k·s and m − k·s, s the standard deviation.

    A constant window gives three equal values.
    """

    acc = "s1 s2"

    def lift(dprice):
        return dprice, dprice * dprice

    def value(n, cprice, s1, s2, k, ddof):
        mid = cprice + s1 * (1.0 / n)
        reach = k * math.sqrt(squares(n, s1, s2) * (1.0 / (n - ddof)))
        return mid, mid + reach, mid - reach


@fold("high, low", out="donchian_high, donchian_low, donchian_mid",
      params=[window(20), min_periods(), boolean("include_current", True)],
      first="window if include_current else window + 1", units="price", scale=1,
      exclude_current="include_current", source="TA-Lib MAX, MIN")  # fmt: skip
class donchian_channel:
    """Donchian channel: the highest high, the lowest low and their middle.

    include_current=False: of the ``window`` rows before. For ticks give the price as both inputs.
    """

    acc = "top bottom"
    zero = (float("-inf"), float("inf"))

    def lift(high, low):
        return high, low

    def join(a, b):
        return (
            a[0] if a[0] > b[0] or a[0] != a[0] else b[0],
            a[1] if a[1] < b[1] or a[1] != a[1] else b[1],
        )

    def value(top, bottom):
        return top, bottom, bottom + 0.5 * (top - bottom)


@fold("high, low, close", out="raw", params=[window(14, rows_only=True), min_periods()],
      first="window", units="percent", scale=0, hidden=True, source="Lane")  # fmt: skip
class range_position:
    """Where the close stands between the lowest low (0) and the highest high (100)."""

    acc = "top bottom"
    zero = (float("-inf"), float("inf"))

    def lift(high, low):
        return high, low

    def join(a, b):
        return (
            a[0] if a[0] > b[0] or a[0] != a[0] else b[0],
            a[1] if a[1] < b[1] or a[1] != a[1] else b[1],
        )

    def value(close, top, bottom):
        return 100.0 * (close - bottom) / (top - bottom) if top > bottom else NAN


@composite("high, low, close", out="stoch_k, stoch_d",
           params=[integer("k_period", 14, low=1), integer("d_period", 3, low=1),
                   integer("smooth", 1, low=1)],
           first="k_period + smooth - 1, k_period + smooth + d_period - 2", units="percent",
           scale=0, source="Lane; TA-Lib STOCHF (smooth=1), STOCH (smooth=3)")  # fmt: skip
class stochastic_osc:
    """Stochastic oscillator: k = mean of ``smooth`` raw values, d = mean of ``d_period`` k.

    raw = 100 (close − lowest low) / (highest high − lowest low) over k_period rows; a flat range
    gives null, and such rows do not exist for the means.
    """

    def build(high, low, close, k_period, d_period, smooth):
        raw = range_position(high, low, close, window=k_period)
        k = raw if smooth == 1 else rolling_mean(raw, window=smooth)
        return k, rolling_mean(k, window=d_period)
