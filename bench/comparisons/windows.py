"""Windowed kernels and the rivals' ways to them."""

from __future__ import annotations

import math

import bottleneck as bn
import numbagg as nbg
import numpy as np
import polars as pl
import talib

import gpukern as gk

from .comparison import Comparison, Outputs, line

p, r, size, signed = pl.col("price"), pl.col("r"), pl.col("size"), pl.col("signed_volume")
high, low = pl.col("high"), pl.col("low")
stoch_k = 100 * (p - low.rolling_min(14)) / (high.rolling_max(14) - low.rolling_min(14))
MEDRV_SCALE = math.pi / (6 - 4 * math.sqrt(3) + math.pi) * 20 / 18


def _mid_first(bands: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Outputs:
    upper, middle, lower = bands
    return middle, upper, lower


def _with_middle(top: np.ndarray, bottom: np.ndarray) -> Outputs:
    return top, bottom, (top + bottom) / 2


WINDOWS: dict[str, Comparison] = {
    "rolling_mean": line(
        gk.rolling_mean("price", window=20),
        "price",
        p.rolling_mean(20),
        lambda f: f.price.rolling(20).mean(),
        talib=lambda a: talib.SMA(a["price"], 20),
        numbagg=lambda a: nbg.move_mean(a["price"], window=20),
        bottleneck=lambda a: bn.move_mean(a["price"], 20),
    ),
    "rolling_mean, 1000": line(
        gk.rolling_mean("price", window=1000),
        "price",
        p.rolling_mean(1000),
        lambda f: f.price.rolling(1000).mean(),
        talib=lambda a: talib.SMA(a["price"], 1000),
        numbagg=lambda a: nbg.move_mean(a["price"], window=1000),
        bottleneck=lambda a: bn.move_mean(a["price"], 1000),
    ),
    "rolling_mean, 60 s": line(
        gk.rolling_mean("price", window="60s"),
        "price ts",
        p.rolling_mean_by("ts", "60s"),
        lambda f: f.set_index("ts").price.rolling("60s").mean(),
        needs_time=True,
    ),
    "sma": line(
        gk.sma("price", window=20),
        "price",
        p.rolling_mean(20),
        talib=lambda a: talib.SMA(a["price"], 20),
        bottleneck=lambda a: bn.move_mean(a["price"], 20),
    ),
    "rolling_sum": line(
        gk.rolling_sum("size", window=20),
        "size",
        size.rolling_sum(20),
        lambda f: f["size"].rolling(20).sum(),
        talib=lambda a: talib.SUM(a["size"], 20),
        numbagg=lambda a: nbg.move_sum(a["size"], window=20),
        bottleneck=lambda a: bn.move_sum(a["size"], 20),
    ),
    "rolling_var": line(
        gk.rolling_var("price", window=20),
        "price",
        p.rolling_var(20),
        lambda f: f.price.rolling(20).var(),
        numbagg=lambda a: nbg.move_var(a["price"], window=20),
        bottleneck=lambda a: bn.move_var(a["price"], 20, ddof=1),
    ),
    "rolling_std": line(
        gk.rolling_std("price", window=20),
        "price",
        p.rolling_std(20),
        lambda f: f.price.rolling(20).std(),
        numbagg=lambda a: nbg.move_std(a["price"], window=20),
        bottleneck=lambda a: bn.move_std(a["price"], 20, ddof=1),
    ),
    "rolling_std, 60 s": line(
        gk.rolling_std("price", window="60s"),
        "price ts",
        p.rolling_std_by("ts", "60s"),
        lambda f: f.set_index("ts").price.rolling("60s").std(),
        needs_time=True,
    ),
    "rolling_skew": line(
        gk.rolling_skew("r", window=20),
        "r",
        r.rolling_skew(20, bias=False),
        lambda f: f.r.rolling(20).skew(),
    ),
    "rolling_kurt": line(
        gk.rolling_kurt("r", window=20),
        "r",
        r.rolling_kurtosis(20, bias=False),
        lambda f: f.r.rolling(20).kurt(),
    ),
    "rolling_min": line(
        gk.rolling_min("price", window=20),
        "price",
        p.rolling_min(20),
        lambda f: f.price.rolling(20).min(),
        talib=lambda a: talib.MIN(a["price"], 20),
        bottleneck=lambda a: bn.move_min(a["price"], 20),
    ),
    "rolling_max": line(
        gk.rolling_max("price", window=20),
        "price",
        p.rolling_max(20),
        lambda f: f.price.rolling(20).max(),
        talib=lambda a: talib.MAX(a["price"], 20),
        bottleneck=lambda a: bn.move_max(a["price"], 20),
    ),
    "rolling_max, 60 s": line(
        gk.rolling_max("price", window="60s"),
        "price ts",
        p.rolling_max_by("ts", "60s"),
        lambda f: f.set_index("ts").price.rolling("60s").max(),
        needs_time=True,
    ),
    "rolling_zscore": line(
        gk.rolling_zscore("price", window=100),
        "price",
        (p - p.rolling_mean(100)) / p.rolling_std(100),
        lambda f: (f.price - f.price.rolling(100).mean()) / f.price.rolling(100).std(),
        bottleneck=lambda a: (
            (a["price"] - bn.move_mean(a["price"], 100)) / bn.move_std(a["price"], 100, ddof=1)
        ),
    ),
    "bollinger_bands": line(
        gk.bollinger_bands("price"),
        "price",
        (
            p.rolling_mean(20),
            p.rolling_mean(20) + 2 * p.rolling_std(20, ddof=0),
            p.rolling_mean(20) - 2 * p.rolling_std(20, ddof=0),
        ),
        talib=lambda a: _mid_first(talib.BBANDS(a["price"], 20)),
    ),
    "donchian_channel": line(
        gk.donchian_channel("high", "low"),
        "high low",
        (
            high.rolling_max(20),
            low.rolling_min(20),
            (high.rolling_max(20) + low.rolling_min(20)) / 2,
        ),
        talib=lambda a: _with_middle(talib.MAX(a["high"], 20), talib.MIN(a["low"], 20)),
        bottleneck=lambda a: _with_middle(bn.move_max(a["high"], 20), bn.move_min(a["low"], 20)),
    ),
    "stochastic_osc": line(
        gk.stochastic_osc("high", "low", "price"),
        "high low price",
        (
            stoch_k,
            stoch_k.rolling_mean(3),
        ),
        talib=lambda a: talib.STOCHF(a["high"], a["low"], a["price"], 14, 3),
    ),
    "rolling_cov": line(
        gk.rolling_cov("r", "size", window=20),
        "r size",
        pl.rolling_cov(r, size, window_size=20),
        lambda f: f.r.rolling(20).cov(f["size"]),
        numbagg=lambda a: nbg.move_cov(a["r"], a["size"], window=20),
    ),
    "rolling_corr": line(
        gk.rolling_corr("r", "size", window=20),
        "r size",
        pl.rolling_corr(r, size, window_size=20),
        lambda f: f.r.rolling(20).corr(f["size"]),
        talib=lambda a: talib.CORREL(a["r"], a["size"], 20),
        numbagg=lambda a: nbg.move_corr(a["r"], a["size"], window=20),
    ),
    "rolling_beta": line(
        gk.rolling_beta("r", "size", window=20),
        "r size",
        pl.rolling_cov(r, size, window_size=20) / size.rolling_var(20),
        lambda f: f.r.rolling(20).cov(f["size"]) / f["size"].rolling(20).var(),
        numbagg=lambda a: (
            nbg.move_cov(a["r"], a["size"], window=20) / nbg.move_var(a["size"], window=20)
        ),
    ),
    "autocorr": line(
        gk.autocorr("r", lag=5, window=100),
        "r",
        pl.rolling_corr(r, r.shift(5), window_size=100),
        lambda f: f.r.rolling(100).corr(f.r.shift(5)),
    ),
    "realized_var": line(
        gk.realized_var("r"),
        "r",
        ((r * r).rolling_sum(20), (r * r).rolling_sum(20).sqrt()),
    ),
    "bipower_var": line(
        gk.bipower_var("r"), "r", math.pi / 2 * (r * r.shift()).abs().rolling_sum(19)
    ),
    "medrv": line(
        gk.medrv("r"),
        "r",
        MEDRV_SCALE * r.abs().rolling_median(3).pow(2).rolling_sum(18),
    ),
    "kyle_lambda": line(
        gk.kyle_lambda("price", "signed_volume"),
        "price signed_volume",
        pl.rolling_cov(p.diff(), signed, window_size=20) / signed.rolling_var(20),
    ),
    "amihud_illiquidity": line(
        gk.amihud_illiquidity("price", "size"),
        "price size",
        1e6 * (p.pct_change().abs() / (p * size)).rolling_mean(20),
    ),
    "roll_spread": line(
        gk.roll_spread("price"),
        "price",
        2 * (-pl.rolling_cov(p.diff(), p.diff().shift(), window_size=20)).sqrt(),
    ),
}

RANKS: dict[str, Comparison] = {
    "rolling_median": line(
        gk.rolling_median("price", window=20),
        "price",
        p.rolling_median(20),
        lambda f: f.price.rolling(20).median(),
        bottleneck=lambda a: bn.move_median(a["price"], 20),
    ),
    "rolling_median, 100": line(
        gk.rolling_median("r", window=100),
        "r",
        r.rolling_median(100),
        lambda f: f.r.rolling(100).median(),
        bottleneck=lambda a: bn.move_median(a["r"], 100),
    ),
    "rolling_quantile": line(
        gk.rolling_quantile("r", window=20, q=0.95),
        "r",
        r.rolling_quantile(0.95, interpolation="linear", window_size=20),
        lambda f: f.r.rolling(20).quantile(0.95),
    ),
    "rolling_quantile, 1000": line(
        gk.rolling_quantile("r", window=1000, q=0.95),
        "r",
        r.rolling_quantile(0.95, interpolation="linear", window_size=1000),
        lambda f: f.r.rolling(1000).quantile(0.95),
    ),
    "historical_var": line(
        gk.historical_var("r", alpha=0.05, window=100),
        "r",
        -r.rolling_quantile(0.05, interpolation="linear", window_size=100),
        lambda f: -f.r.rolling(100).quantile(0.05),
    ),
}
