"""The standard feature set: 48 columns of canonical ticker rows.

The rows have price, size, side (null on rows that only change a quote) and the prevailing bid,
ask, bid_size, ask_size. A feature of trades therefore steps over quote rows, and a feature of
quotes exists on every row.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpukern.expr import Expr
from gpukern.kernel import kernels


def default_features(
    *, bucket_volume: float | Mapping[str, float] | str = "calibrated"
) -> list[Expr]:
    """The 48 standard columns, as expressions for a plan by symbol with a time column.

    ``bucket_volume`` is VPIN's bucket in units of size: one number, {symbol: number}, or
    'calibrated': 50 times the mean size of each symbol's first 1,000 trades, null until then.
    """
    k = kernels()
    price, size, side = "price", "size", "side"
    quotes = ("bid", "ask", "bid_size", "ask_size")
    log_return = k["log_returns"](price)
    midprice = k["midprice"]("bid", "ask")
    signed_volume = k["signed_volume"](side, size)
    return [
        # price and returns
        log_return,
        k["lag"](log_return, k=1),
        k["diff"](price, k=1),
        k["ewma"](price, alpha=0.06),
        k["ema"](price, alpha=0.1),
        k["rolling_zscore"](price, window=100),
        k["kalman_1d"](price)["kalman_filtered"],
        # quotes
        midprice,
        k["microprice"](*quotes),
        k["quoted_spread"]("bid", "ask"),
        k["l1_imbalance"]("bid_size", "ask_size"),
        k["ofi"](*quotes),
        # trades
        k["vpin"](volume=size, side=side, bucket_volume=bucket_volume)["vpin"],
        signed_volume,
        k["effective_spread"](price, midprice)["effective_spread"],
        # volatility
        k["realized_var"](log_return, window=20)["realized_var"],
        k["bipower_var"](log_return, window=20),
        k["medrv"](log_return, window=20),
        k["riskmetrics_vol"](log_return, lam=0.94),
        # shape of the returns
        k["rolling_std"](log_return, window=20),
        k["rolling_skew"](log_return, window=20),
        k["rolling_kurt"](log_return, window=20),
        k["autocorr"](log_return, lag=5, window=100),
        # momentum and bands
        k["macd"](price, fast=12, slow=26, signal=9),
        k["rsi"](price, period=14),
        k["bollinger_bands"](price, window=20, k=2.0),
        k["donchian_channel"](price, price, window=20),
        # since the first row
        k["welford_mean_var"](log_return),
        k["cum_sum"](log_return).alias("pnl"),
        k["drawdown_equity"](price)["drawdown"],
        # liquidity
        k["kyle_lambda"](price, signed_volume, window=20),
        k["amihud_illiquidity"](price, size, window=20),
        k["roll_spread"](price, window=20)["roll_spread"],
        k["vwap"](price, size, anchor="1d"),
        # risk and data quality
        k["cusum"](log_return)[["cusum_stat", "cusum_alarm"]],
        k["historical_var"](log_return, alpha=0.05, window=100),
        k["historical_cvar"](log_return, alpha=0.05, window=100),
        k["outlier_flag_mad"](log_return, window=100)["outlier_flag"],
    ]
