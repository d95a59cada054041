"""Kernels of one or two rows, recurrences and running values, and the rivals' ways to them."""

from __future__ import annotations

import numbagg as nbg
import numpy as np
import polars as pl
import talib

import gpukern as gk

from .comparison import Comparison, line

p, r = pl.col("price"), pl.col("r")
size, side, bid, ask = pl.col("size"), pl.col("side"), pl.col("bid"), pl.col("ask")
bid_size, ask_size = pl.col("bid_size"), pl.col("ask_size")
mid = (bid + ask) / 2

ROW_WISE: dict[str, Comparison] = {
    "log_returns": line(
        gk.log_returns("price"),
        "price",
        p.log().diff(),
        lambda f: np.log(f.price).diff(),
        talib=lambda a: np.diff(talib.LN(a["price"]), prepend=np.nan),
    ),
    "pct_returns": line(
        gk.pct_returns("price"),
        "price",
        p.pct_change(),
        lambda f: f.price.pct_change(),
        talib=lambda a: talib.ROCP(a["price"], 1),
    ),
    "lag": line(gk.lag("price", k=5), "price", p.shift(5), lambda f: f.price.shift(5)),
    "diff": line(
        gk.diff("price", k=1),
        "price",
        p.diff(),
        lambda f: f.price.diff(),
        talib=lambda a: talib.MOM(a["price"], 1),
    ),
    "midprice": line(
        gk.midprice("bid", "ask"),
        "bid ask",
        mid,
        lambda f: (f.bid + f.ask) / 2,
        row_wise=True,
        talib=lambda a: talib.MEDPRICE(a["ask"], a["bid"]),
    ),
    "microprice": line(
        gk.microprice("bid", "ask", "bid_size", "ask_size"),
        "bid ask bid_size ask_size",
        bid + (ask - bid) * bid_size / (bid_size + ask_size),
        lambda f: f.bid + (f.ask - f.bid) * f.bid_size / (f.bid_size + f.ask_size),
        row_wise=True,
    ),
    "quoted_spread": line(
        gk.quoted_spread("bid", "ask"),
        "bid ask",
        (ask - bid, 1e4 * (ask - bid) / mid),
        row_wise=True,
    ),
    "l1_imbalance": line(
        gk.l1_imbalance("bid_size", "ask_size"),
        "bid_size ask_size",
        (bid_size - ask_size) / (bid_size + ask_size),
        lambda f: (f.bid_size - f.ask_size) / (f.bid_size + f.ask_size),
        row_wise=True,
    ),
    "effective_spread": line(
        gk.effective_spread("price", "bid"),
        "price bid",
        (2 * (p - bid).abs(), 2e4 * (p - bid).abs() / bid),
        row_wise=True,
    ),
    "signed_volume": line(
        gk.signed_volume("side", "size").alias("taker_volume"),
        "side size",
        side.sign() * size,
        lambda f: np.sign(f.side) * f["size"],
        row_wise=True,
    ),
    "ofi": line(
        gk.ofi("bid", "ask", "bid_size", "ask_size"),
        "bid ask bid_size ask_size",
        pl.when(bid >= bid.shift()).then(bid_size).otherwise(0.0)
        - pl.when(bid <= bid.shift()).then(bid_size.shift()).otherwise(0.0)
        - pl.when(ask <= ask.shift()).then(ask_size).otherwise(0.0)
        + pl.when(ask >= ask.shift()).then(ask_size.shift()).otherwise(0.0),
    ),
}

RECURRENCES: dict[str, Comparison] = {
    "ewma": line(
        gk.ewma("price", alpha=0.06),
        "price",
        p.ewm_mean(alpha=0.06, adjust=False),
        lambda f: f.price.ewm(alpha=0.06, adjust=False).mean(),
    ),
    "ewma, adjust": line(
        gk.ewma("price", alpha=0.06, adjust=True),
        "price",
        p.ewm_mean(alpha=0.06, adjust=True),
        lambda f: f.price.ewm(alpha=0.06).mean(),
        numbagg=lambda a: nbg.move_exp_nanmean(a["price"], alpha=0.06),
    ),
    "ewma, 30 s": line(
        gk.ewma("price", half_life="30s", adjust=False),
        "price ts",
        p.ewm_mean_by("ts", half_life="30s"),
        needs_time=True,
    ),
    "ewvar": line(
        gk.ewvar("r", alpha=0.06, bias=False, adjust=True),
        "r",
        r.ewm_var(alpha=0.06, adjust=True),
        lambda f: f.r.ewm(alpha=0.06).var(),
        numbagg=lambda a: nbg.move_exp_nanvar(a["r"], alpha=0.06),
    ),
    "ewstd": line(
        gk.ewstd("r", alpha=0.06, bias=False, adjust=True),
        "r",
        r.ewm_std(alpha=0.06, adjust=True),
        lambda f: f.r.ewm(alpha=0.06).std(),
        numbagg=lambda a: nbg.move_exp_nanstd(a["r"], alpha=0.06),
    ),
    "ewcov": line(
        gk.ewcov("r", "size", alpha=0.06, bias=False, adjust=True),
        "r size",
        pandas=lambda f: f.r.ewm(alpha=0.06).cov(f["size"]),
        numbagg=lambda a: nbg.move_exp_nancov(a["r"], a["size"], alpha=0.06),
    ),
    "ewcorr": line(
        gk.ewcorr("r", "size", alpha=0.06, adjust=True),
        "r size",
        pandas=lambda f: f.r.ewm(alpha=0.06).corr(f["size"]),
        numbagg=lambda a: nbg.move_exp_nancorr(a["r"], a["size"], alpha=0.06),
    ),
    "ema": line(
        gk.ema("price", period=20),
        "price",
        p.ewm_mean(span=20, adjust=False),
        talib=lambda a: talib.EMA(a["price"], 20),
    ),
    "macd": line(
        gk.macd("price"),
        "price",
        talib=lambda a: talib.MACD(a["price"]),
    ),
    "rsi": line(
        gk.rsi("price"),
        "price",
        100
        * p.diff().clip(lower_bound=0).ewm_mean(alpha=1 / 14, adjust=False)
        / p.diff().abs().ewm_mean(alpha=1 / 14, adjust=False),
        talib=lambda a: talib.RSI(a["price"], 14),
    ),
    "atr": line(
        gk.atr("high", "low", "price"),
        "high low price",
        talib=lambda a: (
            talib.ATR(a["high"], a["low"], a["price"], 14),
            talib.NATR(a["high"], a["low"], a["price"], 14),
        ),
    ),
    "riskmetrics_vol": line(
        gk.riskmetrics_vol("r"),
        "r",
        (r * r).ewm_mean(alpha=0.06, adjust=False).sqrt(),
        lambda f: np.sqrt((f.r * f.r).ewm(alpha=0.06, adjust=False).mean()),
    ),
}

CUMULATIVE: dict[str, Comparison] = {
    "cum_sum": line(gk.cum_sum("r"), "r", r.cum_sum(), lambda f: f.r.cumsum()),
    "cum_max": line(gk.cum_max("price"), "price", p.cum_max(), lambda f: f.price.cummax()),
    "cum_min": line(gk.cum_min("price"), "price", p.cum_min(), lambda f: f.price.cummin()),
    "welford_mean_var": line(
        gk.welford_mean_var("r"),
        "r",
        (
            r.cum_sum() / r.cum_count(),
            ((r * r).cum_sum() - r.cum_sum() ** 2 / r.cum_count()) / (r.cum_count() - 1),
            (((r * r).cum_sum() - r.cum_sum() ** 2 / r.cum_count()) / (r.cum_count() - 1)).sqrt(),
        ),
    ),
    "drawdown_equity": line(
        gk.drawdown_equity("price"),
        "price",
        (p / p.cum_max() - 1, p - p.cum_max(), (p / p.cum_max() - 1).cum_min()),
    ),
    "vwap": line(
        gk.vwap("price", "size", anchor=None),
        "price size",
        (p * size).cum_sum() / size.cum_sum(),
        lambda f: (f.price * f["size"]).cumsum() / f["size"].cumsum(),
        needs_time=True,
    ),
}
