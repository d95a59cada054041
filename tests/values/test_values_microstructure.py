"""Quotes, order flow, realised volatility and liquidity against their published formulas."""

from __future__ import annotations

import math
from itertools import pairwise
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


@pytest.fixture(params=[(67000.0, 0.01), (1e-8, 1e-10)], ids=["67000", "1e-8"])
def data(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    level, tick = request.param
    return samples.columns(260, level=level, tick=tick, seed=31)


def after_first(values: list[float] | np.ndarray) -> np.ndarray:
    return np.concatenate([[NAN], values])


# -------------------------------------------------------------------------------------- quotes


def test_mid_and_spread(data: dict[str, np.ndarray]) -> None:
    bid, ask = data["bid"], data["ask"]
    mid = (bid + ask) / 2
    ref.assert_close(ref.run(gk.midprice(), bid=bid, ask=ask), mid, rel=3e-16)
    got = ref.run(gk.quoted_spread(), bid=bid, ask=ask)
    ref.assert_close(got["quoted_spread"], ask - bid)
    ref.assert_close(got["quoted_spread_bps"], 1e4 * (ask - bid) / mid, rel=1e-15)


def test_a_crossed_quote_has_a_negative_spread() -> None:
    got = ref.run(gk.quoted_spread(), bid=np.array([10.2]), ask=np.array([10.0]))
    assert got["quoted_spread"][0] == pytest.approx(-0.2)
    assert got["quoted_spread_bps"][0] == pytest.approx(-1e4 * 0.2 / 10.1)


def test_microprice_is_the_size_weighted_mid(data: dict[str, np.ndarray]) -> None:
    bid, ask, bs, as_ = (data[n] for n in ("bid", "ask", "bid_size", "ask_size"))
    expected = bid + (ask - bid) * bs / (bs + as_)
    got = ref.run(gk.microprice(), bid=bid, ask=ask, bid_size=bs, ask_size=as_)
    ref.assert_close(got, expected, rel=3e-16)
    got = ref.run(gk.l1_imbalance(), bid_size=bs, ask_size=as_)
    ref.assert_close(got, (bs - as_) / (bs + as_), rel=1e-15)


def test_no_size_on_either_side_is_null() -> None:
    sizes = {"bid_size": np.array([0.0, 0.0, 3.0]), "ask_size": np.array([0.0, 1.0, 1.0])}
    quotes = {"bid": np.array([9.0] * 3), "ask": np.array([11.0] * 3)}
    ref.assert_close(ref.run(gk.l1_imbalance(), **sizes), [NAN, -1.0, 0.5])
    ref.assert_close(ref.run(gk.microprice(), **quotes, **sizes), [NAN, 9.0, 10.5])


def order_flow(d: dict[str, np.ndarray]) -> np.ndarray:
    events = []
    for i in range(1, len(d["bid"])):
        b, pb, a, pa = d["bid"][i], d["bid"][i - 1], d["ask"][i], d["ask"][i - 1]
        q, pq, s, ps = (
            d["bid_size"][i],
            d["bid_size"][i - 1],
            d["ask_size"][i],
            d["ask_size"][i - 1],
        )
        events.append(
            (q if b >= pb else 0.0) - (pq if b <= pb else 0.0)
            - (s if a <= pa else 0.0) + (ps if a >= pa else 0.0)
        )  # fmt: skip
    return np.array(events)


def test_order_flow_imbalance(data: dict[str, np.ndarray]) -> None:
    quotes = {n: data[n] for n in ("bid", "ask", "bid_size", "ask_size")}
    events, t = order_flow(data), data["ts"]
    got = ref.run(gk.ofi(), **quotes)
    ref.assert_close(got, after_first(events), rel=1e-15, scale=20.0)
    for window in WINDOWS:
        expected = after_first(ref.rolled(math.fsum, t[1:], window, 1, events))
        got = ref.run(gk.ofi(window=window), t=t, **quotes)
        ref.assert_close(got, expected, rel=1e-12, scale=20.0)


def test_order_flow_of_a_rising_bid_is_its_whole_size() -> None:
    got = ref.run(
        gk.ofi(),
        bid=np.array([10.0, 10.5, 10.5, 10.0]),
        ask=np.array([11.0, 11.0, 10.8, 10.8]),
        bid_size=np.array([5.0, 7.0, 4.0, 6.0]),
        ask_size=np.array([2.0, 2.0, 3.0, 3.0]),
    )
    # bid up: +7; ask falls to 10.8 with 3, bid size 7 → 4: −3 − 3; bid down: −4.
    ref.assert_close(got, [NAN, 7.0, -6.0, -4.0])


# -------------------------------------------------------------------------------------- trades


def test_effective_spread(data: dict[str, np.ndarray]) -> None:
    price, mid, side = data["price"], data["midprice"], data["side"]
    columns = {"exec_price": price, "midprice": mid}
    got = ref.run(gk.effective_spread(), **columns)
    ref.assert_close(got["effective_spread"], 2 * np.abs(price - mid), rel=1e-15)
    ref.assert_close(got["effective_spread_bps"], 2e4 * np.abs(price - mid) / mid, rel=1e-15)
    got = ref.run(gk.effective_spread(side="side", signed=True), side=side, **columns)
    ref.assert_close(got["effective_spread"], 2 * side * (price - mid), rel=1e-15)
    assert (got["effective_spread_bps"] < 0).any()


def test_signed_volume_uses_only_the_sign_of_the_side() -> None:
    got = ref.run(
        gk.signed_volume(), side=np.array([2.0, -0.5, 0.0, 1.0]), volume=np.array([3.0, 4, 5, 0])
    )
    ref.assert_close(got, [3.0, -4.0, 0.0, 0.0])


def tick_rule(price: np.ndarray) -> list[float]:
    signs, last = [NAN], NAN
    for before, now in pairwise(price):
        if now != before:
            last = 1.0 if now > before else -1.0
        signs.append(last)
    return signs


def test_trade_signs(data: dict[str, np.ndarray]) -> None:
    price, bid, ask = data["price"], data["bid"], data["ask"]
    mid = bid + (ask - bid) / 2
    tick = tick_rule(price)
    quote = [NAN if p == m else math.copysign(1, p - m) for p, m in zip(price, mid, strict=True)]
    lee_ready = [t if math.isnan(q) else q for q, t in zip(quote, tick, strict=True)]
    emo = [
        1.0 if p == a else -1.0 if p == b else t
        for p, a, b, t in zip(price, ask, bid, tick, strict=True)
    ]
    quotes = {"bid": bid, "ask": ask}
    ref.assert_close(ref.run(gk.trade_sign("price", method="tick"), price=price), tick)
    for method, expected in {"quote": quote, "lee_ready": lee_ready, "emo": emo}.items():
        expr = gk.trade_sign("price", "bid", "ask", method=method)
        ref.assert_close(ref.run(expr, price=price, **quotes), expected)


def test_the_tick_rule_is_null_before_the_first_price_change() -> None:
    price = np.array([5.0, 5.0, 5.0, 6.0, 6.0, 5.5])
    got = ref.run(gk.trade_sign("price", method="tick"), price=price)
    ref.assert_close(got, [NAN, NAN, NAN, 1.0, 1.0, -1.0])


def test_at_the_mid_lee_ready_falls_back_on_the_tick_rule() -> None:
    quotes = {"bid": np.array([9.0] * 4), "ask": np.array([11.0] * 4)}
    price = np.array([10.0, 10.5, 10.0, 10.0])
    expr = gk.trade_sign("price", "bid", "ask")
    ref.assert_close(ref.run(expr, price=price, **quotes), [NAN, 1.0, -1.0, -1.0])


def vpin(volume: np.ndarray, share: np.ndarray, size: float, count: int) -> tuple[Any, Any]:
    """The sequential form of the specification; a NaN share adds nothing."""
    fill = buy = 0.0
    closed: list[float] = []
    values, buckets = [], []
    for v, f in zip(volume, share, strict=True):
        if not math.isnan(f):
            while True:
                room = size - fill
                if v < room:
                    break
                closed.append(abs(2 * (buy + room * f) - size))
                v -= room
                fill = buy = 0.0
            fill += v
            buy += v * f
        full = len(closed) >= count
        values.append(math.fsum(closed[-count:]) / (count * size) if full else NAN)
        buckets.append(len(closed))
    return values, buckets


@pytest.mark.parametrize(("size", "count"), [(3.0, 4), (0.2, 5), (40.0, 2)])
def test_vpin_on_signed_trades(size: float, count: int) -> None:
    found = samples.columns(200, seed=33)
    volume, side = found["size"], found["side"]
    share = np.where(side > 0, 1.0, np.where(side < 0, 0.0, 0.5))
    values, buckets = vpin(volume, share, size, count)
    expr = gk.vpin("size", "side", bucket_volume=size, n_buckets=count)
    got = ref.run(expr, size=volume, side=side)
    ref.assert_close(got["vpin"], values, rel=1e-12)
    seen = ~np.isnan(got["vpin_buckets"])
    assert (got["vpin_buckets"][seen] == np.array(buckets)[seen]).all()
    assert seen[~np.isnan(values)].all()


def test_vpin_with_bulk_classification() -> None:
    found = samples.columns(200, seed=34)
    volume, price = found["size"], found["price"]
    changes = pd.Series(np.diff(price))
    sigma = changes.rolling(10).std().to_numpy()
    share = after_first(scipy.stats.norm.cdf(changes / sigma))
    values, _ = vpin(volume, share, 3.0, 4)
    expr = gk.vpin(volume="size", price="price", bucket_volume=3.0, n_buckets=4,
                   classify="bvc", sigma_window=10)  # fmt: skip
    got = ref.run(expr, size=volume, price=price)
    ref.assert_close(got["vpin"], values, rel=1e-7)


def test_one_large_trade_closes_several_buckets() -> None:
    got = ref.run(
        gk.vpin("size", "side", bucket_volume=2.0, n_buckets=2),
        size=np.array([1.0, 5.0, 1.0]),
        side=np.array([-1, 1, -1]),
    )
    # Buckets: 1 sold + 1 bought → 0; 2 bought → 2; 2 bought → 2 exactly at the edge; …
    ref.assert_close(got["vpin"], [NAN, 1.0, 1.0])
    assert got["vpin_buckets"][-1] == 3


def test_vpin_calibrates_its_bucket_on_the_first_thousand_trades() -> None:
    found = samples.columns(1600, seed=35)
    volume, side = found["size"], found["side"]
    got = ref.run(
        gk.vpin("size", "side", bucket_volume="calibrated", n_buckets=3), size=volume, side=side
    )
    assert np.isnan(got["vpin"][:1000]).all()
    assert not np.isnan(got["vpin"][-1])
    changed = volume.copy()
    changed[1001:] *= 3.0
    later = ref.run(
        gk.vpin("size", "side", bucket_volume="calibrated", n_buckets=3), size=changed, side=side
    )
    assert later["vpin_buckets"][-1] > 2 * got["vpin_buckets"][-1]
