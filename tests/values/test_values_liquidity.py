"""Realised volatility, liquidity and vwap against their published formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference as ref
import samples

import gpukern as gk

NAN = math.nan
WINDOWS: list[Any] = [20, "20s"]


@pytest.fixture(params=[(67000.0, 0.01), (1e-8, 1e-10)], ids=["67000", "1e-8"])
def data(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    level, tick = request.param
    return samples.columns(260, level=level, tick=tick, seed=31)


def after_first(values: list[float] | np.ndarray) -> np.ndarray:
    return np.concatenate([[NAN], values])


# ------------------------------------------------------------------------- realised volatility


def bipower(r: np.ndarray) -> float:
    a = np.abs(r)
    return math.pi / 2 * math.fsum(a[1:] * a[:-1])


def med_realised(r: np.ndarray) -> float:
    a, n = np.abs(r), len(r)
    terms = [np.median(a[j - 1 : j + 2]) ** 2 for j in range(1, n - 1)]
    return math.pi / (6 - 4 * math.sqrt(3) + math.pi) * n / (n - 2) * math.fsum(terms)


@pytest.mark.parametrize("window", WINDOWS)
def test_realised_measures(window: Any) -> None:
    found = samples.columns(200, seed=36)
    r, t = found["log_return"], found["ts"]
    expected = ref.rolled(lambda v: math.fsum(v * v), t, window, 1, r)
    got = ref.run(gk.realized_var(window=window), log_return=r, t=t)
    ref.assert_close(got["realized_var"], expected, rel=1e-12)
    ref.assert_close(got["realized_vol"], np.sqrt(expected), rel=1e-12)
    expected = ref.rolled(bipower, t, window, 2, r)
    got = ref.run(gk.bipower_var(window=window), log_return=r, t=t)
    ref.assert_close(got, expected, rel=1e-12)
    n = np.array([len(rows) for rows in ref.window_rows(t, window)])
    with np.errstate(divide="ignore", invalid="ignore"):
        corrected = expected * n / (n - 1)
    got = ref.run(gk.bipower_var(window=window, corrected=True), log_return=r, t=t)
    ref.assert_close(got, corrected, rel=1e-12)
    expected = ref.rolled(med_realised, t, window, 3, r)
    ref.assert_close(ref.run(gk.medrv(window=window), log_return=r, t=t), expected, rel=1e-12)


def test_realised_measures_by_hand() -> None:
    r = np.array([1.0, -2.0, 3.0, -1.0])
    assert ref.run(gk.realized_var(window=4), log_return=r)["realized_var"][-1] == 15.0
    got = ref.run(gk.bipower_var(window=4), log_return=r)
    assert got[-1] == pytest.approx(math.pi / 2 * (2 + 6 + 3))
    got = ref.run(gk.medrv(window=4), log_return=r)
    assert got[-1] == pytest.approx(math.pi / (6 - 4 * 3**0.5 + math.pi) * 2 * (4 + 4))


def test_riskmetrics_volatility() -> None:
    r = samples.columns(200, seed=37)["log_return"]
    square = pd.Series(r * r)
    expected = np.sqrt(square.ewm(alpha=1 - 0.94, adjust=False).mean())
    ref.assert_close(ref.run(gk.riskmetrics_vol(), log_return=r), expected, rel=1e-12)
    seeded, lam, rows = [], 0.9, 10
    for i in range(len(r)):
        if i < rows - 1:
            seeded.append(NAN)
        elif i == rows - 1:
            seeded.append(float(np.mean(r[:rows] ** 2)))
        else:
            seeded.append(lam * seeded[-1] + (1 - lam) * r[i] ** 2)
    got = ref.run(gk.riskmetrics_vol(lam=lam, init_rows=rows), log_return=r)
    ref.assert_close(got, np.sqrt(seeded), rel=1e-12)
    got = ref.run(gk.riskmetrics_vol(min_periods=7), log_return=r)
    assert np.isnan(got[:6]).all()
    assert got[6] == pytest.approx(expected[6])


# ----------------------------------------------------------------------------------- liquidity


@pytest.mark.parametrize("window", WINDOWS)
def test_kyle_lambda_is_a_regression_slope(data: dict[str, np.ndarray], window: Any) -> None:
    p, x, t = data["price"], data["signed_volume"], data["ts"]
    dp, dx = np.diff(p), x[1:]
    columns = {"price": p, "signed_volume": x, "t": t}
    expected = ref.rolled(ref.slope, t[1:], window, 2, dp, dx)
    scale = float(np.std(dp))
    got = ref.run(gk.kyle_lambda(window=window), **columns)
    ref.assert_close(got, after_first(expected), rel=1e-9, scale=scale)
    logs = np.log1p(dp / p[:-1])
    expected = ref.rolled(ref.slope, t[1:], window, 2, logs, dx)
    got = ref.run(gk.kyle_lambda(window=window, response="log"), **columns)
    ref.assert_close(got, after_first(expected), rel=1e-9, scale=float(np.std(logs)))


def test_kyle_lambda_through_the_origin(data: dict[str, np.ndarray]) -> None:
    p, x = data["price"], data["signed_volume"]
    dp, dx = np.diff(p), x[1:]

    def slope(y: np.ndarray, v: np.ndarray) -> float:
        return math.fsum(v * y) / math.fsum(v * v)

    expected = ref.rolled(slope, data["ts"][1:], 20, 1, dp, dx)
    got = ref.run(gk.kyle_lambda(window=20, intercept=False), price=p, signed_volume=x)
    ref.assert_close(got, after_first(expected), rel=1e-9, scale=float(np.std(dp)))


def test_kyle_lambda_without_volume_differences_is_null() -> None:
    p = np.array([1.0, 2.0, 1.5, 1.7, 1.8])
    got = ref.run(gk.kyle_lambda(window=3), price=p, signed_volume=np.full(5, 2.0))
    assert np.isnan(got).all()
    got = ref.run(gk.kyle_lambda(window=3, intercept=False), price=p, signed_volume=np.zeros(5))
    assert np.isnan(got).all()


@pytest.mark.parametrize("window", WINDOWS)
def test_amihud_illiquidity(data: dict[str, np.ndarray], window: Any) -> None:
    p, v, t = data["price"], data["size"], data["ts"]
    terms = np.abs(np.diff(p) / p[:-1]) / (p[1:] * v[1:])
    expected = ref.rolled(lambda x: 1e6 * math.fsum(x) / len(x), t[1:], window, 1, terms)
    got = ref.run(gk.amihud_illiquidity("price", "size", window=window), price=p, size=v, t=t)
    ref.assert_close(got, after_first(expected), rel=1e-12)


def test_rows_without_volume_do_not_exist_for_amihud() -> None:
    p, v = np.array([10.0, 11.0, 12.0, 13.0]), np.array([1.0, 0.0, 2.0, 1.0])
    got = ref.run(gk.amihud_illiquidity("price", "size", window=1, scale=1.0), price=p, size=v)
    ref.assert_close(got, [NAN, NAN, 0.2 / 24.0, (1 / 12) / 13.0], rel=1e-14)


@pytest.mark.parametrize("window", WINDOWS)
def test_roll_spread(data: dict[str, np.ndarray], window: Any) -> None:
    p, t = data["price"], data["ts"]
    for name, series in {
        "roll_spread": np.diff(p),
        "roll_spread_bps": 1e4 * np.log1p(np.diff(p) / p[:-1]),
    }.items():
        covariance = ref.rolled(ref.covariance, t[2:], window, 2, series[1:], series[:-1])
        covariance = np.concatenate([[NAN, NAN], covariance])
        got = ref.run(gk.roll_spread(window=window), price=p, t=t)[name]
        spread = float(np.var(series))
        clear = np.abs(covariance) > 1e-9 * spread
        expected = 2 * np.sqrt(np.where(covariance <= 0, -covariance, NAN))
        ref.assert_close(got[clear] ** 2, expected[clear] ** 2, rel=1e-9, scale=4 * spread)
        zero = ref.run(gk.roll_spread(window=window, positive="zero"), price=p, t=t)[name]
        assert (zero[clear & (covariance > 0)] == 0.0).all()
        assert (covariance[clear] > 0).any()


def test_roll_spread_of_a_bid_ask_bounce_is_about_the_spread() -> None:
    price = 100.0 + 0.5 * np.tile([1.0, -1.0], 20)
    got = ref.run(gk.roll_spread(window=20), price=price)["roll_spread"]
    c = np.cov(np.diff(price)[-20:], np.diff(price)[-21:-1])[0, 1]
    assert got[-1] == pytest.approx(2 * math.sqrt(-c))


# ---------------------------------------------------------------------------------------- vwap


def test_vwap_restarts_every_utc_day(data: dict[str, np.ndarray]) -> None:
    p, v, t = data["price"], data["size"], data["ts"]
    day = pd.Series(t // (86400 * samples.SECOND))
    assert day.nunique() == 2
    notional = pd.Series(p * v).groupby(day).cumsum()
    expected = notional / pd.Series(v).groupby(day).cumsum()
    got = ref.run(gk.vwap("price", "size"), price=p, size=v, t=t)
    ref.assert_close(got, expected, rel=2e-14)


def test_vwap_anchors() -> None:
    t = np.array([0, 30, 60, 90, 600, 630]) * samples.SECOND
    p, v = np.array([10.0, 20, 30, 40, 50, 60]), np.array([1.0, 1, 2, 2, 0, 4])
    columns = {"price": p, "size": v, "t": t}
    got = ref.run(gk.vwap("price", "size", anchor="1m"), **columns)
    ref.assert_close(got, [10.0, 15.0, 30.0, 35.0, NAN, 60.0], rel=1e-15)
    got = ref.run(gk.vwap("price", "size", anchor="1m", offset="30s"), **columns)
    ref.assert_close(got, [10.0, 20.0, (20 + 60) / 3, 40.0, NAN, 60.0], rel=1e-15)
    got = ref.run(gk.vwap("price", "size", anchor=None), **columns)
    ref.assert_close(got, np.cumsum(p * v) / np.cumsum(v), rel=1e-15)


@pytest.mark.parametrize("window", WINDOWS)
def test_rolling_vwap_ignores_the_anchor(data: dict[str, np.ndarray], window: Any) -> None:
    p, v, t = data["price"], data["size"], data["ts"]

    def statistic(price: np.ndarray, volume: np.ndarray) -> float:
        return float(price[0] + math.fsum((price - price[0]) * volume) / math.fsum(volume))

    rows = ref.window_rows(t, window)
    expected = [statistic(p[r], v[r]) for r in rows]  # min_periods is 1
    got = ref.run(gk.vwap("price", "size", window=window), price=p, size=v, t=t)
    ref.assert_close(got, expected, rel=2e-14)


def test_vwap_without_volume_is_null() -> None:
    got = ref.run(gk.vwap("price", "size"), price=np.array([5.0, 6.0]), size=np.array([0.0, 1.0]))
    ref.assert_close(got, [NAN, 6.0])
