"""Oscillators, bands and filters against TA-Lib and their published recursions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference as ref
import samples
import talib

import gpukern as gk

NAN = math.nan


@pytest.fixture
def bars() -> dict[str, np.ndarray]:
    """Bars at a level where TA-Lib's own sums keep their digits."""
    return samples.columns(200, level=100.0, tick=0.01, seed=41)


def averaged(x: np.ndarray, period: int, alpha: float, begin: int = 0) -> np.ndarray:
    """EMA seeded by the mean of ``period`` rows from ``begin`` on."""
    out = np.full(len(x), NAN)
    seed = begin + period - 1
    out[seed] = np.mean(x[begin : seed + 1])
    for i in range(seed + 1, len(x)):
        out[i] = out[i - 1] + alpha * (x[i] - out[i - 1])
    return out


# -------------------------------------------------------------------------------------- trends


def test_ema_is_that_of_talib(bars: dict[str, np.ndarray]) -> None:
    x = bars["close"]
    for period in (1, 2, 14):
        expected = talib.EMA(x, period) if period > 1 else x
        ref.assert_close(ref.run(gk.ema("x", period=period), x=x), expected, rel=2e-14)


def test_ema_seeds(bars: dict[str, np.ndarray]) -> None:
    x = bars["close"]
    expected = pd.Series(x).ewm(span=9, adjust=False).mean()
    expected[:8] = NAN
    ref.assert_close(ref.run(gk.ema("x", period=9, seed="first"), x=x), expected, rel=2e-14)
    expected = pd.Series(x).ewm(alpha=0.1, adjust=False).mean()
    ref.assert_close(ref.run(gk.ema("x", alpha=0.1), x=x), expected, rel=2e-14)
    expected = pd.Series(x).ewm(halflife=5, adjust=False).mean()
    ref.assert_close(ref.run(gk.ema("x", half_life=5), x=x), expected, rel=2e-14)


def test_sma(bars: dict[str, np.ndarray]) -> None:
    x, t = bars["close"], bars["ts"]
    ref.assert_close(ref.run(gk.sma("x", window=10), x=x), talib.SMA(x, 10), rel=2e-14)
    expected = ref.rolled(ref.mean, t, "20s", 1, x)
    ref.assert_close(ref.run(gk.sma("x", window="20s"), x=x, t=t), expected, rel=2e-14)


def test_macd_is_that_of_talib(bars: dict[str, np.ndarray]) -> None:
    x = bars["close"]
    macd, signal, hist = talib.MACD(x, 12, 26, 9)
    got = ref.run(gk.macd("x"), x=x)
    shown = 26 + 9 - 2  # TA-Lib blanks the line until the signal exists
    ref.assert_close(got["macd"][shown:], macd[shown:], rel=2e-14, scale=100.0)
    ref.assert_close(got["macd_signal"], signal, rel=2e-14, scale=100.0)
    ref.assert_close(got["macd_hist"], hist, rel=2e-14, scale=100.0)
    assert np.isnan(got["macd"][:25]).all()
    assert not np.isnan(got["macd"][25:]).any()


@pytest.mark.parametrize("seed", ["talib", "sma", "first"])
def test_macd_seeds(bars: dict[str, np.ndarray], seed: str) -> None:
    x = bars["close"]
    fast, slow, span = 5, 8, 4
    if seed == "first":
        frame = pd.Series(x)
        line = (
            frame.ewm(span=fast, adjust=False).mean() - frame.ewm(span=slow, adjust=False).mean()
        ).to_numpy(copy=True)
        signal = pd.Series(line).ewm(span=span, adjust=False).mean().to_numpy(copy=True)
        line[: slow - 1] = NAN
        signal[: slow + span - 2] = NAN
    else:
        begin = slow - fast if seed == "talib" else 0
        line = averaged(x, fast, 2 / (fast + 1), begin) - averaged(x, slow, 2 / (slow + 1))
        signal = averaged(line, span, 2 / (span + 1), slow - 1)
    got = ref.run(gk.macd("x", fast=fast, slow=slow, signal=span, seed=seed), x=x)
    ref.assert_close(got["macd"], line, rel=2e-14, scale=100.0)
    ref.assert_close(got["macd_signal"], signal, rel=2e-14, scale=100.0)
    ref.assert_close(got["macd_hist"], line - signal, rel=4e-14, scale=100.0)


# --------------------------------------------------------------------------------- oscillators


def test_rsi_is_that_of_talib(bars: dict[str, np.ndarray]) -> None:
    x = bars["close"]
    for period in (2, 14):
        ref.assert_close(ref.run(gk.rsi("x", period=period), x=x), talib.RSI(x, period),
                         rel=1e-9, scale=1)  # fmt: skip


def test_a_flat_price_has_no_oscillators() -> None:
    flat = np.full(60, 7.0)
    assert np.isnan(ref.run(gk.rsi("x"), x=flat)).all()
    got = ref.run(gk.stochastic_osc(), high=flat, low=flat, close=flat)
    assert np.isnan(got["stoch_k"]).all()
    assert np.isnan(got["stoch_d"]).all()


def test_rsi_of_a_price_that_only_rises_is_100() -> None:
    got = ref.run(gk.rsi("x", period=3), x=np.array([1.0, 2, 3, 4, 5]))
    ref.assert_close(got, [NAN, NAN, NAN, 100.0, 100.0])


def test_stochastic_is_that_of_talib(bars: dict[str, np.ndarray]) -> None:
    columns = {n: bars[n] for n in ("high", "low", "close")}
    args = tuple(columns.values())
    k, d = talib.STOCHF(*args, fastk_period=14, fastd_period=3)
    got = ref.run(gk.stochastic_osc(), **columns)
    ref.assert_close(got["stoch_d"], d, rel=1e-9, scale=1)
    ref.assert_close(got["stoch_k"][15:], k[15:], rel=1e-9, scale=1)
    assert not np.isnan(got["stoch_k"][13:]).any()
    k, d = talib.STOCH(*args, fastk_period=14, slowk_period=3, slowd_period=4)
    got = ref.run(gk.stochastic_osc(smooth=3, d_period=4), **columns)
    ref.assert_close(got["stoch_d"], d, rel=1e-9, scale=1)
    ref.assert_close(got["stoch_k"][18:], k[18:], rel=1e-9, scale=1)


def test_rows_without_a_range_do_not_exist_for_the_slow_stochastic() -> None:
    high = np.array([2.0, 3, 3, 3, 3, 4])
    low = np.array([1.0, 2, 3, 3, 3, 3])
    close = np.array([1.5, 3, 3, 3, 3, 3.5])
    got = ref.run(gk.stochastic_osc(k_period=2, d_period=2), high=high, low=low, close=close)
    # raw: null, 100, 100, null (3…3), null, 50
    ref.assert_close(got["stoch_k"], [NAN, 100.0, 100.0, NAN, NAN, 50.0], rel=1e-15)
    ref.assert_close(got["stoch_d"], [NAN, NAN, 100.0, NAN, NAN, 75.0], rel=1e-15)


def test_atr_is_that_of_talib(bars: dict[str, np.ndarray]) -> None:
    columns = {n: bars[n] for n in ("high", "low", "close")}
    args = tuple(columns.values())
    for period in (3, 14):
        got = ref.run(gk.atr(period=period), **columns)
        ref.assert_close(got["atr"], talib.ATR(*args, period), rel=1e-9)
        ref.assert_close(got["natr"], talib.NATR(*args, period), rel=1e-9)


# --------------------------------------------------------------------------------------- bands


def test_bollinger_bands_are_those_of_talib(bars: dict[str, np.ndarray]) -> None:
    x = bars["close"]
    upper, middle, lower = talib.BBANDS(x, 20, 2.0, 2.0)
    got = ref.run(gk.bollinger_bands("x"), x=x)
    ref.assert_close(got["bb_mid"], middle, rel=2e-14)
    ref.assert_close(got["bb_upper"], upper, rel=1e-8)  # TA-Lib sums squares
    ref.assert_close(got["bb_lower"], lower, rel=1e-8)


@pytest.mark.parametrize("window", [20, "20s"])
@pytest.mark.parametrize("level", [(67000.0, 0.01), (1e-8, 1e-10)])
def test_bollinger_bands_keep_the_digits(level: tuple[float, float], window: Any) -> None:
    found = samples.columns(120, level=level[0], tick=level[1], seed=42)
    x, t = found["price"], found["ts"]
    for ddof in (0, 1):
        middle = ref.rolled(ref.mean, t, window, ddof + 1, x)
        width = ref.rolled(lambda v, d=ddof: 2.5 * ref.std(v, d), t, window, ddof + 1, x)
        got = ref.run(gk.bollinger_bands("x", window=window, k=2.5, ddof=ddof), x=x, t=t)
        both = ~np.isnan(middle)  # whether one row is enough for the middle is a choice
        assert (~np.isnan(got["bb_upper"]) == both).all()
        ref.assert_close(got["bb_mid"][both], middle[both], rel=2e-14)
        ref.assert_close(got["bb_upper"][both], (middle + width)[both], rel=2e-14)
        ref.assert_close(got["bb_lower"][both], (middle - width)[both], rel=2e-14)


def test_bands_of_a_constant_price_are_the_price() -> None:
    got = ref.run(gk.bollinger_bands("x", window=5), x=np.full(8, 0.1))
    for band in got.values():
        assert (band[4:] == 0.1).all()


@pytest.mark.parametrize("window", [20, "20s"])
def test_donchian_channel(bars: dict[str, np.ndarray], window: Any) -> None:
    high, low, t = bars["high"], bars["low"], bars["ts"]
    top, bottom = ref.rolled(np.max, t, window, 1, high), ref.rolled(np.min, t, window, 1, low)
    got = ref.run(gk.donchian_channel(window=window), high=high, low=low, t=t)
    ref.assert_close(got["donchian_high"], top)
    ref.assert_close(got["donchian_low"], bottom)
    ref.assert_close(got["donchian_mid"], (top + bottom) / 2, rel=3e-16)
    if isinstance(window, int):
        ref.assert_close(top, talib.MAX(high, window))
        ref.assert_close(bottom, talib.MIN(low, window))


def test_donchian_channel_of_the_rows_before(bars: dict[str, np.ndarray]) -> None:
    high, low, t = bars["high"], bars["low"], bars["ts"]
    got = ref.run(gk.donchian_channel(window=10, include_current=False), high=high, low=low)
    ref.assert_close(got["donchian_high"], pd.Series(high).rolling(10).max().shift())
    ref.assert_close(got["donchian_low"], pd.Series(low).rolling(10).min().shift())
    got = ref.run(gk.donchian_channel(window="20s", include_current=False), high=high, low=low, t=t)
    rows = [r[:-1] for r in ref.window_rows(t, "20s")]
    ref.assert_close(got["donchian_high"], [high[r].max() if len(r) else NAN for r in rows])


# ------------------------------------------------------------------------------------- filters


def local_level(
    x: np.ndarray, q: float, r: float, x0: float | None, p0: float | None
) -> tuple[list[float], list[float]]:
    levels, variances = [], []
    a, p = x0, r if p0 is None else p0
    for i, value in enumerate(x.tolist()):
        if i == 0 and a is None:
            a, p = value, r
        else:
            assert a is not None
            if i:
                p += q
            gain = p / (p + r)
            a += gain * (value - a)
            p *= 1 - gain
        levels.append(a)
        variances.append(p)
    return levels, variances


@pytest.mark.parametrize(
    "given",
    [{}, {"q": 0.5, "r": 0.01}, {"q": 0.0}, {"q": 1e-9, "r": 10.0}],
    ids=str,
)
@pytest.mark.parametrize("level", [(67000.0, 0.01), (1e-8, 1e-10)])
def test_kalman_filter_of_a_local_level(
    given: dict[str, float], level: tuple[float, float]
) -> None:
    x = samples.columns(600, level=level[0], tick=level[1], seed=43)["price"]
    levels, variances = local_level(x, given.get("q", 1e-3), given.get("r", 1e-1), None, None)
    got = ref.run(gk.kalman_1d("x", **given), x=x)
    ref.assert_close(got["kalman_filtered"], levels, rel=1e-13)
    ref.assert_close(got["kalman_var"], variances, rel=1e-9)


def test_kalman_filter_from_a_prior() -> None:
    x = np.array([1.0, 2.0, 1.5])
    # Row 1 is an ordinary update of the prior: K = P/(P + r).
    for p0 in (4.0, None):
        p = 0.1 if p0 is None else p0
        got = ref.run(gk.kalman_1d("x", x0=0.0, p0=p0), x=x)
        first = got["kalman_filtered"][0]
        candidates = [p / (p + 0.1), (p + 1e-3) / (p + 1e-3 + 0.1)]  # with or without P += q
        assert min(abs(first - c) for c in candidates) < 1e-12
