"""For each kernel, how polars, pandas, TA-Lib, numbagg and bottleneck compute the same thing.

A rival is listed where it has the statistic in its own compiled code; where it would take a Python
function per window, it has not. numbagg and bottleneck know no time windows, TA-Lib no nulls.
"""

import gpukern as gk

from .comparison import Comparison, line
from .rows import CUMULATIVE, RECURRENCES, ROW_WISE
from .windows import RANKS, WINDOWS

UNRIVALLED: dict[str, Comparison] = {
    "historical_cvar": line(gk.historical_cvar("r", alpha=0.05, window=100), "r"),
    "outlier_flag_mad": line(gk.outlier_flag_mad("r", window=100), "r"),
    "cusum": line(gk.cusum("r"), "r"),
    "vpin": line(gk.vpin("size", "side", bucket_volume=40.0), "size side"),
    "kalman_1d": line(gk.kalman_1d("price"), "price"),
    "trade_sign": line(gk.trade_sign("price", "bid", "ask"), "price bid ask"),
    "stale_quote_detector": line(
        gk.stale_quote_detector("last_update"), "last_update", needs_time=True
    ),
}
"""Kernels that none of the rivals has; their rows per second are listed all the same."""

COMPARISONS: dict[str, Comparison] = {
    **ROW_WISE,
    **RECURRENCES,
    **CUMULATIVE,
    **WINDOWS,
    **RANKS,
    **UNRIVALLED,
}
