"""The default features that polars can express, in the fastest form found for it.

42 of the 48 columns. Missing: kalman_filtered, vpin, cusum_stat, cusum_alarm, cvar, outlier_flag –
state machines and order statistics of a window that polars has no expression for.

Where the definitions allow polars less work it gets less: EMA-type columns start from the first
value instead of from a simple average, and the running variance is Σr² − (Σr)²/n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import polars as pl

price, size, bid, ask = pl.col("price"), pl.col("size"), pl.col("bid"), pl.col("ask")
bid_size, ask_size, midprice = pl.col("bid_size"), pl.col("ask_size"), pl.col("midprice")
log_return, price_diff = pl.col("log_return"), pl.col("price_diff1")
signed_volume = pl.col("signed_volume")

Expressions = dict[str, pl.Expr]

QUOTE_ROWS: Expressions = {
    "midprice": (bid + ask) / 2,
    "microprice": bid + (ask - bid) * bid_size / (bid_size + ask_size),
    "quoted_spread": ask - bid,
    "l1_imbalance": (bid_size - ask_size) / (bid_size + ask_size),
}
QUOTE_SERIES: Expressions = {
    "ofi": pl.when(bid >= bid.shift()).then(bid_size).otherwise(0.0)
    - pl.when(bid <= bid.shift()).then(bid_size.shift()).otherwise(0.0)
    - pl.when(ask <= ask.shift()).then(ask_size).otherwise(0.0)
    + pl.when(ask >= ask.shift()).then(ask_size.shift()).otherwise(0.0),
}
QUOTE_DONE: Expressions = {"quoted_spread_bps": 1e4 * pl.col("quoted_spread") / midprice}

TRADE_ROWS: Expressions = {
    "signed_volume": pl.col("side") * size,
    "effective_spread": 2 * (price - midprice).abs(),
    "_log": price.log(),
    "_notional": price * size,
}
TRADE_DIFFERENCES: Expressions = {
    "log_return": pl.col("_log").diff(),
    "price_diff1": price.diff(),
}


def _macd() -> pl.Expr:
    return price.ewm_mean(span=12, adjust=False) - price.ewm_mean(span=26, adjust=False)


def _medrv() -> pl.Expr:
    scale = math.pi / (6 - 4 * math.sqrt(3) + math.pi) * 20 / 18
    return scale * log_return.abs().rolling_median(3).pow(2).rolling_sum(18)


TRADE_SERIES: Expressions = {
    "log_return_lag1": log_return.shift(1),
    "ewma": price.ewm_mean(alpha=0.06, adjust=False),
    "ema": price.ewm_mean(alpha=0.1, adjust=False),
    "zscore": (price - price.rolling_mean(100)) / price.rolling_std(100),
    "realized_var": log_return.pow(2).rolling_sum(20),
    "bipower_var": math.pi / 2 * (log_return * log_return.shift()).abs().rolling_sum(19),
    "medrv": _medrv(),
    "riskmetrics_vol": log_return.pow(2).ewm_mean(alpha=0.06, adjust=False).sqrt(),
    "log_return_std20": log_return.rolling_std(20),
    "log_return_skew20": log_return.rolling_skew(20, bias=False),
    "log_return_kurt20": log_return.rolling_kurtosis(20, bias=False),
    "log_return_autocorr5": pl.rolling_corr(log_return, log_return.shift(5), window_size=100),
    "macd": _macd(),
    "macd_signal": _macd().ewm_mean(span=9, adjust=False),
    "_gain": price_diff.clip(lower_bound=0).ewm_mean(alpha=1 / 14, adjust=False),
    "_moves": price_diff.abs().ewm_mean(alpha=1 / 14, adjust=False),
    "bb_mid": price.rolling_mean(20),
    "_bb_half": 2 * price.rolling_std(20, ddof=0),
    "donchian_high": price.rolling_max(20),
    "donchian_low": price.rolling_min(20),
    "pnl": log_return.cum_sum(),
    "_n": log_return.cum_count(),
    "_squares": log_return.pow(2).cum_sum(),
    "drawdown": price / price.cum_max() - 1,
    "kyle_lambda": pl.rolling_cov(price_diff, signed_volume, window_size=20)
    / signed_volume.rolling_var(20),
    "amihud_illiquidity": 1e6
    * ((price_diff / price.shift()).abs() / pl.col("_notional")).rolling_mean(20),
    "roll_spread": 2 * (-pl.rolling_cov(price_diff, price_diff.shift(), window_size=20)).sqrt(),
    "var": -log_return.rolling_quantile(0.05, interpolation="linear", window_size=100),
}
TRADE_DAYS: Expressions = {"vwap": pl.col("_notional").cum_sum() / size.cum_sum()}
TRADE_DONE: Expressions = {
    "macd_hist": pl.col("macd") - pl.col("macd_signal"),
    "rsi": 100 * pl.col("_gain") / pl.col("_moves"),
    "bb_upper": pl.col("bb_mid") + pl.col("_bb_half"),
    "bb_lower": pl.col("bb_mid") - pl.col("_bb_half"),
    "donchian_mid": (pl.col("donchian_high") + pl.col("donchian_low")) / 2,
    "mean": pl.col("pnl") / pl.col("_n"),
    "variance": (pl.col("_squares") - pl.col("pnl").pow(2) / pl.col("_n")) / (pl.col("_n") - 1),
}
TRADE_LAST: Expressions = {"stddev": pl.col("variance").sqrt()}

QUOTE_COLUMNS = [*QUOTE_ROWS, *QUOTE_SERIES, *QUOTE_DONE]
TRADE_COLUMNS = [
    name
    for stage in (TRADE_ROWS, TRADE_DIFFERENCES, TRADE_SERIES, TRADE_DAYS, TRADE_DONE, TRADE_LAST)
    for name in stage
    if not name.startswith("_")
]
COLUMNS = [*QUOTE_COLUMNS, *TRADE_COLUMNS]

Grouping = Callable[[Expressions], Expressions]
Engine = Literal["auto", "streaming"]


def _over(*keys: str) -> Grouping:
    return lambda stage: {name: expression.over(*keys) for name, expression in stage.items()}


def _alone(stage: Expressions) -> Expressions:
    return stage


def _quotes(frame: pl.LazyFrame, series: Grouping) -> pl.LazyFrame:
    return frame.with_columns(**QUOTE_ROWS, **series(QUOTE_SERIES)).with_columns(**QUOTE_DONE)


def _trades(frame: pl.LazyFrame, series: Grouping, days: Grouping) -> pl.LazyFrame:
    return (
        frame.with_columns(**TRADE_ROWS)
        .with_columns(**series(TRADE_DIFFERENCES))
        .with_columns(**series(TRADE_SERIES), **days(TRADE_DAYS))
        .with_columns(**TRADE_DONE)
        .with_columns(**TRADE_LAST)
    )


def _keyed(frame: pl.DataFrame) -> pl.LazyFrame:
    """Integer keys: grouping by the dictionary's codes is faster than by the category itself."""
    day = pl.col("ts").dt.epoch("d")
    code = pl.col("symbol").to_physical().cast(pl.Int64)
    return frame.lazy().with_columns(_symbol=code, _symbol_day=code * 100_000 + day)


def over(frame: pl.DataFrame, engine: Engine = "auto") -> pl.DataFrame:
    """Window expressions, one lazy query; rows without a price are filtered out and put back."""
    series, days = _over("_symbol"), _over("_symbol_day")
    if frame["price"].null_count() == 0:
        query = _trades(_quotes(_keyed(frame), series), series, days)
        return query.select(*COLUMNS).collect(engine=engine)
    every = _quotes(_keyed(frame), series).collect(engine=engine)
    traded = pl.col("price").is_not_null()
    trades = _trades(every.lazy().filter(traded), series, days)
    row = every.select(pl.when(traded).then(traded.cum_sum() - 1)).to_series()
    columns = trades.select(*TRADE_COLUMNS).collect(engine=engine).select(pl.all().gather(row))
    return every.select(*QUOTE_COLUMNS).hstack(columns)


def partitions(frame: pl.DataFrame) -> pl.DataFrame:
    """One lazy query per symbol, collected in parallel, then the caller's row order restored."""
    if frame["price"].null_count():
        raise ValueError("partitions: only for rows that all have a price; use over")
    parts = _keyed(frame).with_row_index("_row").collect().partition_by("_symbol")
    days = _over("_symbol_day")
    queries = [
        _trades(_quotes(part.lazy(), _alone), _alone, days).select("_row", *COLUMNS)
        for part in parts
    ]
    return pl.concat(pl.collect_all(queries)).sort("_row").drop("_row")


def recompute(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns of one symbol's last rows from scratch: what a stream without state has to do."""
    days = _over("_symbol_day")
    return _trades(_quotes(_keyed(rows), _alone), _alone, days).select(*COLUMNS).collect()


def forms(symbols: int, nulls: bool) -> dict[str, Callable[[pl.DataFrame], pl.DataFrame]]:
    """The forms worth timing: the fastest of them is the rival.

    Also tried and never the fastest: one struct under one ``over``, sorting by symbol first,
    ``group_by().agg()`` with explode, ``map_groups``, one stage with everything inlined.
    Partitions cost 40 times the rest at 2,000 symbols and are timed for few symbols only.
    """
    chosen: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
        "over": over,
        "over, streaming engine": lambda frame: over(frame, "streaming"),
    }
    if symbols <= 100 and not nulls:
        chosen["partitions"] = partitions
    return chosen
