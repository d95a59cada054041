"""Exponential weights and cumulative statistics against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import reference as ref
import samples

import gpukern as gk

LEVELS = {"67000": (67000.0, 0.01), "1e-8": (1e-8, 1e-10)}


@pytest.fixture(params=LEVELS)
def data(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Prices at both scales, ties in time, a constant stretch longer than the windows."""
    level, tick = LEVELS[request.param]
    found = samples.flatten(samples.columns(260, level=level, tick=tick, seed=21), range(100, 140))
    # No cross-correlation is constant on both sides only: y moves where x stands still.
    found["y"] = samples.columns(260, level=level, tick=tick, seed=22)["price"]
    return found


# -------------------------------------------------------------------------- exponential weights

HALF_LIFE_S = 30
DECAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, False),
    "alpha": ({"alpha": 0.3}, False),
    "half_life": ({"half_life": 10}, False),
    "span": ({"span": 9}, False),
    "com": ({"com": 4.0}, False),
    "adjusted": ({"alpha": 0.3, "adjust": True}, True),
    "time": ({"half_life": f"{HALF_LIFE_S}s"}, True),
    "time, not adjusted": ({"half_life": f"{HALF_LIFE_S}s", "adjust": False}, False),
}


def decays(given: dict[str, Any], t: np.ndarray) -> list[float]:
    """The factor by which earlier weights shrink when each row arrives."""
    if isinstance(given.get("half_life"), str):
        gaps = np.diff(t, prepend=t[0]) / samples.SECOND
        return [2.0 ** (-g / HALF_LIFE_S) for g in gaps]
    alpha = given.get("alpha", 0.06)
    if "half_life" in given:
        alpha = 1 - 2 ** (-1 / given["half_life"])
    elif "span" in given:
        alpha = 2 / (given["span"] + 1)
    elif "com" in given:
        alpha = 1 / (1 + given["com"])
    return [1 - alpha] * len(t)


def weighted(
    statistic: Any, name: str, t: np.ndarray, x: np.ndarray, y: np.ndarray, least: int
) -> np.ndarray:
    given, adjust = DECAYS[name]
    decay = decays(given, t)
    found = []
    for n in range(1, len(t) + 1):
        w = ref.weights(n, decay=decay[:n], adjust=adjust)
        found.append(statistic(w, x[:n], y[:n]) if n >= least else math.nan)
    return np.array(found)


def weighted_mean(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(x[0] + math.fsum(w * (x - x[0])))


def weighted_cov(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    dx, dy = x - x[0], y - y[0]
    dx, dy = dx - math.fsum(w * dx), dy - math.fsum(w * dy)
    return math.fsum(w * dx * dy)


def unbiased_cov(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    left = 1 - math.fsum(w * w)
    return weighted_cov(w, x, y) / left if left > 1e-12 else math.nan


def weighted_corr(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    spread = math.sqrt(weighted_cov(w, x, x) * weighted_cov(w, y, y))
    return weighted_cov(w, x, y) / spread if spread else math.nan


@pytest.mark.parametrize("name", DECAYS)
def test_ewma_is_the_weighted_mean(data: dict[str, np.ndarray], name: str) -> None:
    x, t = data["price"], data["ts"]
    exact = weighted(weighted_mean, name, t, x, x, 1)
    ref.assert_close(ref.run(gk.ewma("x", **DECAYS[name][0]), x=x, t=t), exact, rel=2e-14)


@pytest.mark.parametrize("name", DECAYS)
def test_exponentially_weighted_covariances(data: dict[str, np.ndarray], name: str) -> None:
    x, y, t = data["price"][:99], data["y"][:99], data["ts"][:99]
    given = DECAYS[name][0]
    scale = float(np.std(x) * np.std(y))
    exact = weighted(weighted_cov, name, t, x, y, 2)
    got = ref.run(gk.ewcov("x", "y", **given), x=x, y=y, t=t)
    ref.assert_close(got, exact, rel=1e-9, scale=scale)
    exact = weighted(weighted_cov, name, t, x, x, 2)
    scale = float(np.var(x))
    ref.assert_close(ref.run(gk.ewvar("x", **given), x=x, t=t), exact, rel=1e-9, scale=scale)
    got = ref.run(gk.ewstd("x", **given), x=x, t=t)
    ref.assert_close(got**2, exact, rel=1e-9, scale=scale)
    exact = weighted(weighted_corr, name, t, x, y, 2)
    got = ref.run(gk.ewcorr("x", "y", **given), x=x, y=y, t=t)
    # The first rows may tie in time or price and have no dispersion; both must then say so.
    ref.assert_close(got, exact, rel=1e-9, scale=1)


@pytest.mark.parametrize("name", [n for n in DECAYS if n != "time, not adjusted"])
def test_unbiased_exponential_variance(data: dict[str, np.ndarray], name: str) -> None:
    x, t = data["price"][:99], data["ts"][:99]
    exact = weighted(unbiased_cov, name, t, x, x, 2)
    got = ref.run(gk.ewvar("x", bias=False, **DECAYS[name][0]), x=x, t=t)
    ref.assert_close(got, exact, rel=1e-9, scale=float(np.var(x)))


@pytest.mark.parametrize("adjust", [False, True])
def test_exponential_weights_are_those_of_pandas(adjust: bool) -> None:
    x = np.random.default_rng(5).normal(100.0, 3.0, 120)
    y = np.random.default_rng(6).normal(10.0, 1.0, 120)
    weights = pd.Series(x).ewm(alpha=0.2, adjust=adjust)
    other = pd.Series(y)
    options = {"alpha": 0.2, "adjust": adjust}
    ref.assert_close(ref.run(gk.ewma("x", **options), x=x), weights.mean(), rel=2e-14)
    for bias in (True, False):
        expected = weights.var(bias=bias)
        expected[0] = math.nan  # min_periods is 2
        got = ref.run(gk.ewvar("x", bias=bias, **options), x=x)
        ref.assert_close(got, expected, rel=1e-9)
        expected = weights.cov(other, bias=bias)
        expected[0] = math.nan
        got = ref.run(gk.ewcov("x", "y", bias=bias, **options), x=x, y=y)
        ref.assert_close(got, expected, rel=1e-9, scale=3.0)
    got = ref.run(gk.ewcorr("x", "y", **options), x=x, y=y)
    ref.assert_close(got, weights.corr(other), rel=1e-9, scale=1)


def test_time_decayed_ewma_is_that_of_pandas_and_polars() -> None:
    found = samples.columns(150, seed=9, ties=False)
    x, t = found["price"], found["ts"]
    since = pd.to_datetime(t - t[0])  # pandas takes times as float64
    expected = pd.Series(x).ewm(halflife="30s", times=since).mean()
    got = ref.run(gk.ewma("x", half_life="30s"), x=x, t=t)
    ref.assert_close(got, expected, rel=2e-14)
    frame = pl.DataFrame({"x": x, "t": pl.Series(t).cast(pl.Datetime("ns"))})
    polars = frame.select(pl.col("x").ewm_mean_by("t", half_life="30s"))["x"].to_numpy()
    got = ref.run(gk.ewma("x", half_life="30s", adjust=False), x=x, t=t)
    ref.assert_close(got, polars, rel=2e-14)


def test_a_tie_has_no_weight_when_time_decay_is_not_adjusted() -> None:
    t = np.array([0, 10, 10, 20]) * samples.SECOND
    got = ref.run(gk.ewma("x", half_life="10s", adjust=False), x=np.array([0.0, 8, 100, 4]), t=t)
    ref.assert_close(got, [0.0, 4.0, 4.0, 4.0])


# --------------------------------------------------------------------------------- cumulative


def test_welford_is_the_expanding_mean_and_variance(data: dict[str, np.ndarray]) -> None:
    x = data["price"]
    n = len(x)
    got = ref.run(gk.welford_mean_var("x"), x=x)
    ref.assert_close(got["mean"], [ref.mean(x[:i]) for i in range(1, n + 1)], rel=2e-14)
    exact = np.array([math.nan] + [ref.variance(x[:i]) for i in range(2, n + 1)])
    scale = float(np.var(x))
    ref.assert_close(got["variance"], exact, rel=1e-9, scale=scale)
    ref.assert_close(got["stddev"], np.sqrt(exact), rel=1e-9, scale=math.sqrt(scale))
    got = ref.run(gk.welford_mean_var("x", ddof=0, min_periods=4), x=x)
    assert np.isnan(got["mean"][:3]).all()
    assert not np.isnan(got["mean"][3:]).any()
    assert got["variance"][-1] == pytest.approx(ref.variance(x, 0), rel=1e-9)


def test_cumulative_extremes(data: dict[str, np.ndarray]) -> None:
    x = data["price"]
    ref.assert_close(ref.run(gk.cum_max("x"), x=x), np.maximum.accumulate(x))
    ref.assert_close(ref.run(gk.cum_min("x"), x=x), np.minimum.accumulate(x))


def test_cumulative_sum_is_compensated() -> None:
    x = np.full(20_000, 0.1)
    got = ref.run(gk.cum_sum("x"), x=x)
    assert abs(got[-1] - math.fsum(x)) <= 2 * math.ulp(2000.0)
    r = np.random.default_rng(2).normal(0.0, 1.0, 3000)
    exact = [math.fsum(r[: i + 1]) for i in range(3000)]
    ref.assert_close(ref.run(gk.cum_sum("x"), x=r), exact, rel=1e-15, scale=float(np.abs(r).sum()))


def test_sums_after_a_huge_value_are_not_lost() -> None:
    x = np.array([1.0, 1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    got = ref.run(gk.rolling_sum("x", window=3), x=x)
    ref.assert_close(got[4:], [6.0, 9.0, 12.0, 15.0])
    got = ref.run(gk.rolling_var("x", window=3), x=x)
    ref.assert_close(got[4:], [1.0] * 4)
