"""Alarms, losses, drawdown and data quality against their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import reference as ref
import samples
import scipy.stats

import gpukern as gk

NAN = math.nan
WINDOWS: list[Any] = [20, "20s"]


@pytest.fixture
def pnl() -> dict[str, np.ndarray]:
    found = samples.columns(260, seed=51)
    found["x"] = found["pnl"]
    return found


# --------------------------------------------------------------------------------------- cusum


def cusum(
    x: np.ndarray, *, k: float = 0.5, h: float = 5.0, mu: float | None = None,
    sigma: float | None = None, calib: int = 100, reset: bool = True, recalibrate: bool = False,
) -> dict[str, list[float]]:  # fmt: skip
    """Page's two-sided scheme as the specification words it."""
    out: dict[str, list[float]] = {
        n: [] for n in ("cusum_stat", "cusum_pos", "cusum_neg", "cusum_alarm", "cusum_dir")
    }
    known = mu is not None
    kept: list[float] = []
    up = down = 0.0
    for value in x.tolist():
        if not known:
            kept.append(value)
            if len(kept) == calib:
                mu, sigma, known = ref.mean(np.array(kept)), ref.std(np.array(kept)), True
            for column in out.values():
                column.append(NAN)
            continue
        assert mu is not None
        assert sigma is not None
        if sigma == 0.0:
            for column in out.values():
                column.append(NAN)
            continue
        z = (value - mu) / sigma
        up, down = max(0.0, up + z - k), max(0.0, down - z - k)
        direction = 1 if up > h else -1 if down > h else 0
        row = (max(up, down), up, down, float(direction != 0), direction)
        for column, v in zip(out.values(), row, strict=True):
            column.append(v)
        if direction and reset:
            up = down = 0.0
        if direction and recalibrate:
            known, kept = False, []
    return out


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"calib": 20, "h": 2.0},
        {"calib": 20, "h": 2.0, "recalibrate": True},
        {"calib": 20, "h": 2.0, "reset": False},
        {"mu": 0.0, "sigma": 1e-4, "k": 0.25, "h": 3.0},
    ],
    ids=str,
)
def test_cusum(pnl: dict[str, np.ndarray], given: dict[str, Any]) -> None:
    x = pnl["x"].copy()
    x[150:] += 2e-4  # a shift to be found
    expected = cusum(x, **given)
    got = ref.run(gk.cusum("x", **given), x=x)
    assert sum(v == 1.0 for v in expected["cusum_alarm"]) > 0
    for name in ("cusum_stat", "cusum_pos", "cusum_neg"):
        ref.assert_close(got[name], expected[name], rel=1e-9, scale=1)
    ref.assert_close(got["cusum_alarm"], expected["cusum_alarm"])
    ref.assert_close(got["cusum_dir"], expected["cusum_dir"])


def test_cusum_without_dispersion_is_null() -> None:
    got = ref.run(gk.cusum("x", calib=5), x=np.full(12, 3.0))
    for column in got.values():
        assert np.isnan(column).all()


def test_cusum_by_hand() -> None:
    x = np.array([0.0, 3.0, 3.0, 3.0, 0.0, -9.0])
    got = ref.run(gk.cusum("x", mu=0.0, sigma=1.0, k=0.5, h=5.0), x=x)
    ref.assert_close(got["cusum_pos"], [0.0, 2.5, 5.0, 7.5, 0.0, 0.0])
    ref.assert_close(got["cusum_neg"], [0.0, 0.0, 0.0, 0.0, 0.0, 8.5])
    ref.assert_close(got["cusum_stat"], [0.0, 2.5, 5.0, 7.5, 0.0, 8.5])
    ref.assert_close(got["cusum_alarm"], [0, 0, 0, 1, 0, 1])
    ref.assert_close(got["cusum_dir"], [0, 0, 0, 1, 0, -1])


# -------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("alpha", [0.05, 0.13, 0.5])
def test_historical_var_and_cvar(pnl: dict[str, np.ndarray], window: Any, alpha: float) -> None:
    x, t = pnl["x"], pnl["ts"]
    options = {"alpha": alpha, "window": window}
    var = ref.rolled(lambda v: -ref.quantile(v, alpha), t, window, 1, x)
    ref.assert_close(ref.run(gk.historical_var("x", **options), x=x, t=t), var, rel=9e-16)
    if isinstance(window, int):
        expected = -pd.Series(x).rolling(window).quantile(alpha)
        ref.assert_close(var, expected, rel=1e-9)

    def tail_mean(v: np.ndarray) -> float:
        return -ref.mean(v[v <= ref.quantile(v, alpha)])

    expected = ref.rolled(tail_mean, t, window, 1, x)
    got = ref.run(gk.historical_cvar("x", **options), x=x, t=t)
    ref.assert_close(got, expected, rel=1e-13, scale=1e-4)

    def acerbi(v: np.ndarray) -> float:
        s, an = np.sort(v), alpha * len(v)
        whole = math.floor(an)
        return -(math.fsum(s[:whole]) + (an - whole) * s[whole]) / an

    expected = ref.rolled(acerbi, t, window, 1, x)
    got = ref.run(gk.historical_cvar("x", method="acerbi", **options), x=x, t=t)
    ref.assert_close(got, expected, rel=1e-12, scale=1e-4)


def test_var_of_a_hundred_losses_by_hand() -> None:
    x = np.arange(100.0) - 50.0  # −50 … 49
    assert ref.run(gk.historical_var("x", alpha=0.05, window=100), x=x)[-1] == pytest.approx(45.05)
    got = ref.run(gk.historical_cvar("x", alpha=0.05, window=100), x=x)
    assert got[-1] == 48.0  # −50 … −46
    got = ref.run(gk.historical_cvar("x", alpha=0.05, window=100, method="acerbi"), x=x)
    assert got[-1] == 48.0


# ------------------------------------------------------------------------------------ drawdown


def test_drawdown() -> None:
    equity = np.random.default_rng(52).normal(0.0, 1.0, 300).cumsum() + 100.0
    equity[50] = equity[:50].max()  # the peak is reached again
    series = pd.Series(equity)
    peak = series.cummax()
    got = ref.run(gk.drawdown_equity("equity"), equity=equity)
    ref.assert_close(got["drawdown"], equity / peak - 1, rel=1e-9, scale=1e-3)
    ref.assert_close(got["drawdown_abs"], equity - peak)
    ref.assert_close(got["max_drawdown"], (equity / peak - 1).cummin(), rel=1e-9, scale=1e-3)
    at_peak = np.flatnonzero(equity == peak.to_numpy())
    bars = [i - at_peak[at_peak <= i].max() for i in range(300)]
    ref.assert_close(got["drawdown_bars"], bars)


def test_drawdown_of_a_worthless_peak_is_null() -> None:
    got = ref.run(gk.drawdown_equity("equity"), equity=np.array([-2.0, -3.0, 0.0, 5.0, 4.0]))
    ref.assert_close(got["drawdown"], [NAN, NAN, NAN, 0.0, -0.2], rel=1e-15)
    ref.assert_close(got["drawdown_abs"], [0.0, -1.0, 0.0, 0.0, -1.0])
    ref.assert_close(got["max_drawdown"][3:], [0.0, -0.2], rel=1e-15)
    ref.assert_close(got["drawdown_bars"], [0, 1, 0, 0, 1])


# -------------------------------------------------------------------------------- data quality


def hampel_score(window: np.ndarray, x: float) -> float:
    middle = float(np.median(window))
    scale = 1.4826 * float(scipy.stats.median_abs_deviation(window))
    if scale == 0.0:
        scale = 1.2533 * float(np.mean(np.abs(window - middle)))
    return abs(x - middle) / scale if scale else 0.0


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("current", [False, True])
def test_outlier_flags(window: Any, current: bool) -> None:
    found = samples.flatten(samples.columns(200, seed=53), range(100, 140))
    x, t = found["price"], found["ts"]
    x[180] = samples.BAD_PRINT
    scores = []
    for i, rows in enumerate(ref.window_rows(t, window)):
        if isinstance(window, int) and not current:
            rows = np.arange(max(0, i - window), i)
        elif not current:
            rows = rows[:-1]
        enough = len(rows) >= (window if isinstance(window, int) else 1)
        scores.append(hampel_score(x[rows], x[i]) if enough else NAN)
    got = ref.run(gk.outlier_flag_mad("x", window=window, include_current=current), x=x, t=t)
    ref.assert_close(got["outlier_score"], scores, rel=1e-9, scale=1e-6)
    flags = np.where(np.isnan(scores), NAN, np.array(scores) > 3.0)
    ref.assert_close(got["outlier_flag"], flags)
    assert got["outlier_flag"][180] == 1.0


def test_an_outlier_in_a_constant_window_has_no_scale() -> None:
    x = np.array([5.0] * 6 + [9.0])
    got = ref.run(gk.outlier_flag_mad("x", window=6), x=x)
    assert got["outlier_score"][-1] == 0.0
    assert got["outlier_flag"][-1] == 0.0


def test_half_equal_values_fall_back_on_the_mean_deviation() -> None:
    x = np.array([5.0, 5, 5, 5, 5, 6, 9])
    got = ref.run(gk.outlier_flag_mad("x", window=6), x=x)
    assert got["outlier_score"][-1] == pytest.approx(4.0 / (1.2533 / 6))


def test_stale_quotes() -> None:
    ms = 1_000_000
    t = np.array([10_000, 10_000, 10_000, 10_000, 10_000]) * ms
    last = np.array([9_500, 9_000, 8_999, 11_000, 11_001]) * ms
    got = ref.run(gk.stale_quote_detector("last"), t=t, last=last)
    ref.assert_close(got["is_stale"], [0, 0, 1, 0, 1])
    ref.assert_close(got["quote_age_ms"], [500.0, 1000.0, 1001.0, -1000.0, -1001.0])


def test_quote_ages_are_differences_of_integers() -> None:
    t = np.array([1_723_161_300_000_000_123])
    got = ref.run(gk.stale_quote_detector("last"), t=t, last=t - 1)
    ref.assert_close(got["quote_age_ms"], [1e-6])
