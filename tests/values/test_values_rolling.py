"""Returns, rolling windows, exponential weights and cumulative statistics against definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import reference as ref
import samples
import scipy.stats
import talib

import gpukern as gk

LEVELS = {"67000": (67000.0, 0.01), "1e-8": (1e-8, 1e-10)}
WINDOWS: list[Any] = [20, "20s"]


@pytest.fixture(params=LEVELS)
def data(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Prices at both scales, ties in time, a constant stretch longer than the windows."""
    level, tick = LEVELS[request.param]
    found = samples.flatten(samples.columns(260, level=level, tick=tick, seed=21), range(100, 140))
    # No cross-correlation is constant on both sides only: y moves where x stands still.
    found["y"] = samples.columns(260, level=level, tick=tick, seed=22)["price"]
    return found


def spread_scale(data: dict[str, np.ndarray], *names: str) -> float:
    return float(np.prod([np.std(data[n]) for n in names]))


# ------------------------------------------------------------------------------------- returns


@pytest.mark.parametrize("k", [1, 3])
def test_log_returns_over_rows(data: dict[str, np.ndarray], k: int) -> None:
    p = data["price"]
    exact = [math.nan] * k + [math.log1p((b - a) / a) for a, b in zip(p, p[k:], strict=False)]
    ref.assert_close(ref.run(gk.log_returns("p", k=k), p=p), exact, rel=4e-16)


@pytest.mark.parametrize("k", ["7s", "1ns"])
def test_lags_in_time_take_the_latest_row_old_enough(data: dict[str, np.ndarray], k: str) -> None:
    p, t = data["price"], data["ts"]
    length = 7 * samples.SECOND if k == "7s" else 1
    old = [np.flatnonzero(t[: i + 1] <= t[i] - length) for i in range(len(t))]
    lagged = np.array([p[rows[-1]] if len(rows) else math.nan for rows in old])
    ref.assert_close(ref.run(gk.lag("p", k=k), p=p, t=t), lagged)
    ref.assert_close(ref.run(gk.diff("p", k=k), p=p, t=t), p - lagged)
    ref.assert_close(ref.run(gk.pct_returns("p", k=k), p=p, t=t), (p - lagged) / lagged, rel=1e-15)


@pytest.mark.parametrize("k", [1, 4])
def test_lag_diff_and_pct_returns_are_those_of_pandas(data: dict[str, np.ndarray], k: int) -> None:
    p = data["price"]
    s = pd.Series(p)
    ref.assert_close(ref.run(gk.lag("p", k=k), p=p), s.shift(k))
    ref.assert_close(ref.run(gk.diff("p", k=k), p=p), s.diff(k))
    # pandas forms p/p' − 1, which loses the digits that (p − p')/p' keeps.
    ref.assert_close(ref.run(gk.pct_returns("p", k=k), p=p), s.pct_change(k), rel=1, scale=2e-16)


def test_lag_of_no_rows_is_the_row_itself(data: dict[str, np.ndarray]) -> None:
    ref.assert_close(ref.run(gk.lag("p", k=0), p=data["price"]), data["price"])


# ------------------------------------------------------------------------------ rolling windows


@pytest.mark.parametrize("window", WINDOWS)
def test_mean_and_sum(data: dict[str, np.ndarray], window: Any) -> None:
    x, t = data["price"], data["ts"]
    exact = ref.rolled(ref.mean, t, window, 1, x)
    ref.assert_close(ref.run(gk.rolling_mean("x", window=window), x=x, t=t), exact, rel=2e-14)
    total = ref.rolled(math.fsum, t, window, 1, x)
    ref.assert_close(ref.run(gk.rolling_sum("x", window=window), x=x, t=t), total, rel=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("ddof", [0, 1])
def test_variance_deviation_and_zscore(data: dict[str, np.ndarray], window: Any, ddof: int) -> None:
    x, t = data["price"], data["ts"]
    exact = ref.rolled(lambda v: ref.variance(v, ddof), t, window, ddof + 1, x)
    options = {"window": window, "ddof": ddof}
    ref.assert_close(ref.run(gk.rolling_var("x", **options), x=x, t=t), exact, rel=1e-9)
    ref.assert_close(ref.run(gk.rolling_std("x", **options), x=x, t=t), np.sqrt(exact), rel=1e-9)
    z = ref.rolled(lambda v: ref.zscore(v, ddof), t, window, ddof + 1, x)
    ref.assert_close(ref.run(gk.rolling_zscore("x", **options), x=x, t=t), z, rel=1e-9, scale=1)


def test_a_constant_window_has_no_dispersion(data: dict[str, np.ndarray]) -> None:
    x = data["price"]
    flat = slice(119, 140)
    assert (ref.run(gk.rolling_var("x", window=20), x=x)[flat] == 0.0).all()
    assert (ref.run(gk.rolling_std("x", window=20), x=x)[flat] == 0.0).all()
    for kernel in (gk.rolling_zscore, gk.rolling_skew, gk.rolling_kurt):
        assert np.isnan(ref.run(kernel("x", window=20), x=x)[flat]).all()
    y = data["y"]
    assert (ref.run(gk.rolling_cov("x", "y", window=20), x=x, y=y)[flat] == 0.0).all()
    assert np.isnan(ref.run(gk.rolling_corr("x", "y", window=20), x=x, y=y)[flat]).all()
    assert np.isnan(ref.run(gk.rolling_corr("y", "x", window=20), x=x, y=y)[flat]).all()
    assert np.isnan(ref.run(gk.rolling_beta("y", "x", window=20), x=x, y=y)[flat]).all()
    assert np.isnan(ref.run(gk.autocorr("x", lag=1, window=10), x=x)[flat]).all()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("bias", [False, True])
def test_skewness_and_kurtosis(data: dict[str, np.ndarray], window: Any, bias: bool) -> None:
    x, t = data["price"], data["ts"]
    options = {"window": window, "bias": bias}
    third = ref.rolled(lambda v: ref.skew(v, bias), t, window, 2 if bias else 3, x)
    got = ref.run(gk.rolling_skew("x", **options), x=x, t=t)
    if isinstance(window, int):
        ref.assert_close(got, third, rel=1e-7, scale=1)
    else:  # the least number of rows of the biased form is a choice
        both = ~np.isnan(got)
        ref.assert_close(got[both], third[both], rel=1e-7, scale=1)
    fourth = ref.rolled(lambda v: ref.kurt(v, bias), t, window, 2 if bias else 4, x)
    got = ref.run(gk.rolling_kurt("x", **options), x=x, t=t)
    if isinstance(window, int) or not bias:
        ref.assert_close(got, fourth, rel=1e-7, scale=1)
    else:
        both = ~np.isnan(got)
        ref.assert_close(got[both], fourth[both], rel=1e-7, scale=1)


@pytest.mark.parametrize("window", WINDOWS)
def test_order_statistics(data: dict[str, np.ndarray], window: Any) -> None:
    x, t = data["price"], data["ts"]
    for kernel, statistic in {
        gk.rolling_min: np.min,
        gk.rolling_max: np.max,
    }.items():
        exact = ref.rolled(statistic, t, window, 1, x)
        ref.assert_close(ref.run(kernel("x", window=window), x=x, t=t), exact)
    median = ref.rolled(np.median, t, window, 1, x)
    ref.assert_close(ref.run(gk.rolling_median("x", window=window), x=x, t=t), median, rel=9e-16)
    for q in (0.0, 0.05, 0.5, 0.77, 1.0):
        exact = ref.rolled(lambda v, q=q: ref.quantile(v, q), t, window, 1, x)
        got = ref.run(gk.rolling_quantile("x", window=window, q=q), x=x, t=t)
        ref.assert_close(got, exact, rel=9e-16)


@pytest.mark.parametrize("window", WINDOWS)
def test_covariance_correlation_and_beta(data: dict[str, np.ndarray], window: Any) -> None:
    x, y, t = data["price"], data["y"], data["ts"]
    scale = spread_scale(data, "price", "y")
    exact = ref.rolled(ref.covariance, t, window, 2, x, y)
    got = ref.run(gk.rolling_cov("x", "y", window=window), x=x, y=y, t=t)
    ref.assert_close(got, exact, rel=1e-9, scale=scale)
    exact = ref.rolled(ref.correlation, t, window, 2, x, y)
    got = ref.run(gk.rolling_corr("x", "y", window=window), x=x, y=y, t=t)
    ref.assert_close(got, exact, rel=1e-9, scale=1)
    assert np.nanmax(np.abs(got)) <= 1.0
    exact = ref.rolled(ref.slope, t, window, 2, y, x)
    got = ref.run(gk.rolling_beta("y", "x", window=window), x=x, y=y, t=t)
    ref.assert_close(got, exact, rel=1e-9, scale=1)


@pytest.mark.parametrize("lag", [1, 5])
@pytest.mark.parametrize("window", WINDOWS)
def test_autocorrelation_counts_pairs(data: dict[str, np.ndarray], window: Any, lag: int) -> None:
    x, t = data["price"], data["ts"]
    inner = ref.rolled(ref.correlation, t[lag:], window, 2, x[lag:], x[:-lag])
    got = ref.run(gk.autocorr("x", lag=lag, window=window), x=x, t=t)
    ref.assert_close(got, np.concatenate([[math.nan] * lag, inner]), rel=1e-9, scale=1)


def test_rolling_statistics_are_those_of_pandas_and_scipy() -> None:
    x = np.random.default_rng(3).normal(100.0, 3.0, 150)
    y = 0.5 * x + np.random.default_rng(4).normal(0.0, 1.0, 150)
    s, other, w = pd.Series(x), pd.Series(y), 15
    rolling = s.rolling(w)
    for kernel, expected in {
        gk.rolling_mean: rolling.mean(),
        gk.rolling_sum: rolling.sum(),
        gk.rolling_var: rolling.var(),
        gk.rolling_std: rolling.std(),
        gk.rolling_min: rolling.min(),
        gk.rolling_max: rolling.max(),
        gk.rolling_median: rolling.median(),
        gk.rolling_zscore: (s - rolling.mean()) / rolling.std(),
        gk.sma: rolling.mean(),
    }.items():
        ref.assert_close(ref.run(kernel("x", window=w), x=x), expected, rel=1e-9, scale=1)
    skew, kurt = rolling.skew(), rolling.kurt()
    ref.assert_close(ref.run(gk.rolling_skew("x", window=w), x=x), skew, rel=1e-7, scale=1)
    ref.assert_close(ref.run(gk.rolling_kurt("x", window=w), x=x), kurt, rel=1e-7, scale=1)
    last = x[-w:]
    biased = ref.run(gk.rolling_kurt("x", window=w, bias=True), x=x)[-1]
    assert biased == pytest.approx(scipy.stats.kurtosis(last), rel=1e-9)
    expected = pl.Series(x).rolling_skew(w).to_numpy()
    ref.assert_close(
        ref.run(gk.rolling_skew("x", window=w, bias=True), x=x), expected, rel=1e-7, scale=1
    )
    expected = rolling.quantile(0.3)
    ref.assert_close(ref.run(gk.rolling_quantile("x", window=w, q=0.3), x=x), expected, rel=1e-15)
    got = ref.run(gk.rolling_corr("x", "y", window=w), x=x, y=y)
    ref.assert_close(got, rolling.corr(other), rel=1e-9, scale=1)
    ref.assert_close(got, talib.CORREL(x, y, w), rel=1e-9, scale=1)
    got = ref.run(gk.rolling_cov("x", "y", window=w), x=x, y=y)
    ref.assert_close(got, rolling.cov(other), rel=1e-9, scale=1)
    got = ref.run(gk.rolling_std("x", window=w, ddof=0), x=x)
    ref.assert_close(got, talib.STDDEV(x, w), rel=1e-9, scale=1)
    got = ref.run(gk.autocorr("x", lag=2, window=w), x=x)
    ref.assert_close(got, rolling.corr(s.shift(2)), rel=1e-9, scale=1)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_short_windows(window: int) -> None:
    x = np.array([3.0, 1.0, 2.0, 2.0, 5.0])
    s = pd.Series(x)
    ref.assert_close(ref.run(gk.rolling_mean("x", window=window), x=x), s.rolling(window).mean(),
                     rel=1e-15)  # fmt: skip
    ref.assert_close(ref.run(gk.rolling_max("x", window=window), x=x), s.rolling(window).max())
    ref.assert_close(ref.run(gk.rolling_median("x", window=window), x=x),
                     s.rolling(window).median())  # fmt: skip


@pytest.mark.parametrize("periods", [2, 5, 9])
def test_min_periods_opens_the_window_early(data: dict[str, np.ndarray], periods: int) -> None:
    x = data["price"]
    expected = pd.Series(x).rolling(9, min_periods=periods).mean()
    got = ref.run(gk.rolling_mean("x", window=9, min_periods=periods), x=x)
    ref.assert_close(got, expected, rel=2e-14)
    t = data["ts"]
    counts = np.array([len(r) for r in ref.window_rows(t, "20s")])
    got = ref.run(gk.rolling_mean("x", window="20s", min_periods=periods), x=x, t=t)
    assert (np.isnan(got) == (counts < periods)).all()


def test_a_window_in_time_is_left_open_and_does_not_see_later_ties() -> None:
    t = np.array([0, 10, 10, 20, 20, 30]) * samples.SECOND
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    got = ref.run(gk.rolling_sum("x", window="10s"), x=x, t=t)
    ref.assert_close(got, [1.0, 2.0, 6.0, 8.0, 24.0, 32.0])
    got = ref.run(gk.rolling_sum("x", window="20s"), x=x, t=t)
    ref.assert_close(got, [1.0, 3.0, 7.0, 14.0, 30.0, 56.0])
