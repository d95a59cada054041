"""Returns, differences and lags of one series."""

from gpukern import scalar
from gpukern.kernel import lag as lag_param
from gpukern.kernel import map_


@map_("price>0", out="log_return", params=[lag_param()], first="k + 1", units="1", scale=0,
      source="np.diff(np.log(p))")  # fmt: skip
class log_returns:
    """Log return ln(p_t / p_s), s = k valid rows (or a duration) before t.

    Computed as log1p((p_t − p_s) / p_s), which keeps the digits of small returns.
    """

    def value(price, lag_price):
        return scalar.log1p((price - lag_price) / lag_price)


@map_("price>0", out="pct_return", params=[lag_param()], first="k + 1", units="1", scale=0,
      source="pandas pct_change; TA-Lib ROCP")  # fmt: skip
class pct_returns:
    """Simple return (p_t − p_s) / p_s, s = k valid rows (or a duration) before t."""

    def value(price, lag_price):
        return (price - lag_price) / lag_price


@map_("x", out="{x}_lag{k}", params=[lag_param(low=0)], first="k + 1", units="x", scale=1,
      source="pandas shift")  # fmt: skip
class lag:
    """The value k valid rows before, or the latest one at least a duration k old."""

    def value(lag_x):
        return lag_x


@map_("x", out="{x}_diff{k}", params=[lag_param()], first="k + 1", units="x", scale=1,
      source="pandas diff")  # fmt: skip
class diff:
    """Difference x_t − x_s, s = k valid rows (or a duration) before t."""

    def value(x, lag_x):
        return x - lag_x
