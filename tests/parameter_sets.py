"""Parameter sets for the contract: what each kernel's table row in the specification allows.

A kernel that is not named here is tested with its defaults (windows and lags made short) and, if
its window may be a duration, with one of those; so a new kernel is covered without a line here.
"""

from __future__ import annotations

from typing import Any

from gpukern.kernel import Kernel

WINDOW, SPAN = 9, "20s"
ROWS_AND_TIME = [{"window": WINDOW}, {"window": SPAN}, {"window": WINDOW, "min_periods": 4}]
WEIGHTS = [
    {},
    {"half_life": 10},
    {"span": 9, "adjust": True},
    {"com": 4.0, "min_periods": 5},
    {"half_life": "30s"},
    {"half_life": "30s", "adjust": False},
]
BIASED_WEIGHTS = [*WEIGHTS, {"bias": False}, {"half_life": "30s", "bias": False}]
LAGS = [{}, {"k": 3}, {"k": "7s"}]

CASES: dict[str, list[dict[str, Any]]] = {
    "log_returns": LAGS,
    "pct_returns": LAGS,
    "lag": [*LAGS, {"k": 0}],
    "diff": LAGS,
    "welford_mean_var": [{}, {"ddof": 0}, {"min_periods": 5}],
    "ewma": [*WEIGHTS, {"alpha": 1.0}],
    "ewvar": BIASED_WEIGHTS,
    "ewstd": BIASED_WEIGHTS,
    "ewcov": BIASED_WEIGHTS,
    "ewcorr": WEIGHTS,
    "ema": [
        {"period": 5},
        {"period": 5, "seed": "first"},
        {"alpha": 0.1},
        {"half_life": 5.0},
        {"period": 5, "min_periods": 8},
    ],
    "rolling_mean": [*ROWS_AND_TIME, {"window": 1}, {"window": 140}],
    "rolling_var": [*ROWS_AND_TIME, {"window": WINDOW, "ddof": 0}],
    "rolling_std": [*ROWS_AND_TIME, {"window": WINDOW, "ddof": 0}],
    "rolling_cov": [*ROWS_AND_TIME, {"window": WINDOW, "ddof": 0}],
    "rolling_zscore": [*ROWS_AND_TIME, {"window": WINDOW, "ddof": 0}],
    "rolling_skew": [*ROWS_AND_TIME, {"window": WINDOW, "bias": True}],
    "rolling_kurt": [*ROWS_AND_TIME, {"window": WINDOW, "bias": True}],
    "rolling_quantile": [*ROWS_AND_TIME, {"window": WINDOW, "q": 0.9}, {"window": 140, "q": 0.0}],
    "autocorr": [{"window": 9}, {"lag": 3, "window": 9}, {"window": SPAN}],
    "ofi": [{}, {"window": WINDOW}, {"window": SPAN}, {"window": WINDOW, "min_periods": 2}],
    "effective_spread": [{}, {"side": "side", "signed": True}],
    "trade_sign": [
        {"bid": "bid", "ask": "ask"},
        {"method": "tick"},
        {"bid": "bid", "ask": "ask", "method": "quote"},
        {"bid": "bid", "ask": "ask", "method": "emo"},
    ],
    "vpin": [
        {"side": "side", "bucket_volume": 3.0, "n_buckets": 4},
        {"price": "price", "bucket_volume": 0.7, "n_buckets": 3, "classify": "bvc",
         "sigma_window": 10},
    ],
    "bipower_var": [*ROWS_AND_TIME, {"window": WINDOW, "corrected": True}],
    "riskmetrics_vol": [{}, {"lam": 0.9, "init_rows": 10}, {"min_periods": 5}],
    "kyle_lambda": [
        {"window": 9},
        {"window": 9, "response": "log"},
        {"window": 9, "intercept": False},
        {"window": SPAN},
    ],
    "amihud_illiquidity": [*ROWS_AND_TIME, {"window": WINDOW, "scale": 1.0}],
    "roll_spread": [*ROWS_AND_TIME, {"window": WINDOW, "positive": "zero"}],
    "vwap": [
        {},
        {"anchor": "1h", "offset": "10m"},
        {"anchor": None},
        {"window": WINDOW},
        {"window": SPAN},
        {"window": WINDOW, "min_periods": 4},
    ],
    "macd": [{"fast": 3, "slow": 6, "signal": 4, "seed": s} for s in ("talib", "sma", "first")],
    "rsi": [{"period": 5}],
    "atr": [{"period": 5}],
    "bollinger_bands": [*ROWS_AND_TIME, {"window": WINDOW, "k": 1.5, "ddof": 1}],
    "stochastic_osc": [
        {"k_period": 5},
        {"k_period": 6, "smooth": 3, "d_period": 4},
    ],
    "donchian_channel": [
        *ROWS_AND_TIME,
        {"window": WINDOW, "include_current": False},
        {"window": SPAN, "include_current": False},
    ],
    "kalman_1d": [{}, {"q": 0.1, "r": 0.01}, {"q": 0.0}, {"x0": 100.0, "p0": 5.0}],
    "cusum": [
        {"calib": 10},
        {"calib": 10, "recalibrate": True, "h": 2.0},
        {"calib": 10, "reset": False},
        {"mu": 1.0, "sigma": 2.0},
    ],
    "historical_var": [{"window": 20, "alpha": 0.1}, {"window": SPAN, "alpha": 0.3}],
    "historical_cvar": [
        {"window": 20, "alpha": 0.1},
        {"window": 20, "alpha": 0.12, "method": "acerbi"},
        {"window": SPAN, "alpha": 0.3},
    ],
    "outlier_flag_mad": [
        {"window": 9},
        {"window": 9, "include_current": True},
        {"window": SPAN},
        {"window": 9, "min_periods": 4},
    ],
    "stale_quote_detector": [{}, {"max_age_ms": 200.0, "max_skew_ms": 0.0}],
}  # fmt: skip

# A parameter and two values of it that symbols are given in turn, besides ``window``.
MAPPED: dict[str, tuple[dict[str, Any], str, tuple[Any, Any]]] = {
    "log_returns": ({}, "k", (1, 4)),
    "lag": ({}, "k", ("5s", "9s")),
    "ewma": ({}, "alpha", (0.1, 0.5)),
    "ewvar": ({}, "half_life", ("10s", "30s")),
    "ema": ({}, "period", (4, 9)),
    "macd": ({"fast": 3, "signal": 4}, "slow", (6, 8)),
    "rsi": ({}, "period", (4, 9)),
    "vpin": ({"side": "side", "n_buckets": 3}, "bucket_volume", (2.0, 5.0)),
    "cusum": ({}, "calib", (8, 12)),
    "kalman_1d": ({}, "q", (0.1, 0.001)),
    "stale_quote_detector": ({}, "max_age_ms", (100.0, 900.0)),
    "rolling_quantile": ({"window": WINDOW}, "q", (0.25, 0.5)),
    "historical_var": ({"window": 20}, "alpha", (0.25, 0.1)),
}

# Parameters in the units of an input: with them a kernel does not scale with its inputs.
ABSOLUTE = frozenset({"mu", "sigma", "x0", "p0", "bucket_volume"})


def cases(kernel: Kernel) -> list[dict[str, Any]]:
    """Keyword arguments (parameters and optional inputs) to call the kernel with."""
    if kernel.name in CASES:
        return CASES[kernel.name]
    plain: dict[str, Any] = {}
    durations: dict[str, Any] = {}
    for param in kernel.params:
        if param.kind == "window" and isinstance(param.default, int):
            plain[param.name] = max(WINDOW, int(param.low or 1))
            if not param.rows_only:
                durations[param.name] = SPAN
    return [plain, {**plain, **durations}] if durations else [plain]


def mapped_cases(kernel: Kernel) -> list[tuple[dict[str, Any], str, tuple[Any, Any]]]:
    """(other arguments, parameter, two values) for the per-symbol check."""
    found = [MAPPED[kernel.name]] if kernel.name in MAPPED else []
    windows = [c for c in cases(kernel) if isinstance(c.get("window"), int)][:1]
    for case in windows:
        window = case["window"]
        found.append((without(case, "window"), "window", (window, window + 4)))
    base = windows[0] if windows else cases(kernel)[0]
    for param in kernel.params:
        if param.kind == "boolean":
            found.append((without(base, param.name), param.name, (True, False)))
        elif param.kind == "choice":
            found.append((without(base, param.name), param.name, param.options[:2]))
    return found


def without(case: dict[str, Any], name: str) -> dict[str, Any]:
    return {n: v for n, v in case.items() if n != name}
