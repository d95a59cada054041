"""Quotes, order flow and trade classification."""

import math

from gpukern import scalar
from gpukern.kernel import (
    NAN,
    NULL,
    Param,
    boolean,
    choice,
    composite,
    fold,
    integer,
    map_,
    min_periods,
    number,
    per_symbol,
    step,
    window,
)
from gpukern.kernels.rolling import rolling_sum

MOST_BUCKETS = 9007199254740992.0  # up to here a count is exact in float64


@map_("bid>0, ask>0", out="midprice", units="price", scale=1, source="(bid + ask) / 2")
class midprice:
    """Mid price bid + (ask − bid)/2."""

    def value(bid, ask):
        return bid + (ask - bid) / 2.0


@map_("bid>0, ask>0, bid_size>=0, ask_size>=0", out="microprice", units="price", scale=1,
      source="size-weighted mid")  # fmt: skip
class microprice:
    """Mid weighted by the opposite sizes: bid + (ask − bid)·bid_size / (bid_size + ask_size).

    Null where both sizes are 0.
    """

    def value(bid, ask, bid_size, ask_size):
        size = bid_size + ask_size
        return bid + (ask - bid) * bid_size / size if size > 0.0 else NAN


@map_("bid>0, ask>0", out="quoted_spread, quoted_spread_bps", units="price, bps", scale=(1, 0),
      source="ask − bid")  # fmt: skip
class quoted_spread:
    """Quoted spread ask − bid, and in 1e-4 of the mid. Negative where the book is crossed."""

    def value(bid, ask):
        spread = ask - bid
        return spread, 1e4 * spread / (bid + spread / 2.0)


@map_("bid_size>=0, ask_size>=0", out="l1_imbalance", units="1", scale=0,
      source="(bid_size − ask_size) / (bid_size + ask_size)")  # fmt: skip
class l1_imbalance:
    """Imbalance of the best level, from −1 (only asks) to 1 (only bids); null if both are 0."""

    def value(bid_size, ask_size):
        size = bid_size + ask_size
        return (bid_size - ask_size) / size if size > 0.0 else NAN


@map_("bid>0, ask>0, bid_size>=0, ask_size>=0", out="ofi", first="2", units="size", hidden=True)
class ofi_event:
    """What one change of the best quotes adds to the order flow imbalance."""

    def value(bid, ask, bid_size, ask_size, prev_bid, prev_ask, prev_bid_size, prev_ask_size):
        came_bid = bid_size if bid >= prev_bid else 0.0
        left_bid = prev_bid_size if bid <= prev_bid else 0.0
        came_ask = ask_size if ask <= prev_ask else 0.0
        left_ask = prev_ask_size if ask >= prev_ask else 0.0
        event = came_bid - left_bid - came_ask + left_ask
        known = bid == bid and ask == ask and prev_bid == prev_bid and prev_ask == prev_ask
        return event if known else NAN


@composite("bid>0, ask>0, bid_size>=0, ask_size>=0", out="ofi",
           params=[window(None, optional=True), min_periods()],
           first="2 if window is None else window + 1", units="size",
           source="Cont, Kukanov & Stoikov 2014")  # fmt: skip
class ofi:
    """Order flow imbalance: what the quotes' changes say of net demand, in units.

    e = [b ≥ b']·bs − [b ≤ b']·bs' − [a ≤ a']·as + [a ≥ a']·as', primes the row before; with a
    window the sum over it (of events, which exist from row 2 on).
    """

    def validate(params):
        if params["window"] is None and params["min_periods"] is not None:
            return f"min_periods={params['min_periods']!r} needs a window"
        return None

    def build(bid, ask, bid_size, ask_size, window, min_periods):
        event = ofi_event(bid, ask, bid_size, ask_size)
        if window is None:
            return event
        return rolling_sum(event, window=window, min_periods=min_periods)


# ---------------------------------------------------------------------------------------- vpin


@fold("price>0, volume>0", out="share", params=[window(100, low=2, rows_only=True),
      min_periods("2")], first="window + 1", hidden=True)  # fmt: skip
class bulk_share:
    """Buyer-initiated share of a row's volume: Φ(ΔP / σ), σ the deviation of the last changes."""

    acc = "s1 s2"
    series = "change"

    def inner(price, prev_price):
        return price - prev_price

    def lift(dchange):
        return dchange, dchange * dchange

    def value(n, change, s1, s2):
        square = s2 - s1 * s1 / n
        deviation = math.sqrt((0.0 if square < 0.0 else square) / (n - 1.0))
        return scalar.norm_cdf(0.0 if deviation == 0.0 else change / deviation)


@step("volume>0, share", out="vpin, vpin_buckets:i64", ring="n_buckets",
      params=[number("bucket_volume"), integer("n_buckets", 50, low=1), boolean("signs", True),
              integer("calibration", 1000)],
      units="1, count", hidden=True)  # fmt: skip
class bucketed_imbalance:
    """Mean imbalance of the last equal-volume buckets; bucket_volume 0 is calibrated."""

    state = "bucket fill buy closed level seen"

    def init():
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0

    def step(bucket, fill, buy, closed, level, seen, volume, share, ring, k, bucket_volume,
             n_buckets, signs, calibration, null):  # fmt: skip
        if bucket_volume > 0.0:
            bucket = bucket_volume
        elif k < calibration:
            seen += volume
            bucket = 50.0 * (seen / calibration)
            return (bucket, fill, buy, closed, level, seen), (null, NULL)
        part = 0.5 + 0.5 * scalar.sign(share) if signs == 1 else share
        left = volume
        first = closed
        while left >= bucket - fill:
            room = bucket - fill
            ring[int(closed) % n_buckets] = abs(2.0 * (buy + room * part) - bucket)
            closed += 1.0
            left -= room
            fill = 0.0
            buy = 0.0
            if left > 4096.0 * n_buckets * bucket:  # a bad print; the buckets it fills are alike
                rest = left % bucket
                for i in range(n_buckets):
                    ring[i] = abs(2.0 * (bucket * part) - bucket)
                closed = min(closed + (left - rest) / bucket, MOST_BUCKETS)
                left = rest
        fill += left
        buy += left * part
        if closed > first and closed >= n_buckets:
            imbalance = 0.0
            for i in range(n_buckets):
                imbalance += ring[i]
            level = imbalance / (n_buckets * bucket)
        known = buy == buy and fill == fill
        return (bucket, fill, buy, closed, level, seen), (
            (level if closed >= n_buckets else null) if known else NAN,
            int(closed) if known else NULL,
        )


@composite("volume>0, side?, price>0?", out="vpin, vpin_buckets:i64",
           params=[Param("bucket_volume", None, required=True, above=0, options=("calibrated",),
                         doc="the volume of a bucket, typically average daily volume / 50, a "
                         "mapping {symbol: volume}, or 'calibrated'"),
                   integer("n_buckets", 50, low=1), choice("classify", "side", "side", "bvc"),
                   integer("sigma_window", 100, low=2)],
           first="1", units="1, count",
           source="Easley, López de Prado & O'Hara 2012")  # fmt: skip
class vpin:
    """Volume-synchronised probability of informed trading over equal-volume buckets.

    Σ abs(buys − sells) of the last ``n_buckets`` closed buckets / (n_buckets·bucket_volume), and
    the number of buckets closed so far. A trade that overfills a bucket is split. Bought share of a
    row: ``classify='side'``: 1, 0, or ½ if the side is unknown; 'bvc': Φ(ΔP/σ), σ the deviation
    (ddof 1) of the last ``sigma_window`` price changes, null before there are as many.
    ``bucket_volume='calibrated'``: 50 × the mean size of the symbol's first 1,000 trades, which
    only calibrate: they fill no bucket and emit null.
    """

    def needs(params):
        return ["side"] if params["classify"] == "side" else ["price"]

    def validate(params):
        if isinstance(params["classify"], dict):
            return "classify must be one choice for all symbols, not a mapping"
        return None

    def build(volume, side, price, bucket_volume, n_buckets, classify, sigma_window):
        size = per_symbol(lambda v: 0.0 if v == "calibrated" else v, bucket_volume)
        by_side = classify == "side"
        share = side if by_side else bulk_share(price, volume, window=sigma_window)
        return bucketed_imbalance(
            volume, share, bucket_volume=size, n_buckets=n_buckets, signs=by_side
        )


# -------------------------------------------------------------------------------------- trades


@map_("exec_price>0, midprice>0", out="effective_spread, effective_spread_bps", hidden=True)
class unsigned_effective_spread:
    """2·abs(p − m), and in 1e-4 of m."""

    def value(exec_price, midprice):
        spread = 2.0 * abs(exec_price - midprice)
        return spread, 1e4 * spread / midprice


@map_("exec_price>0, midprice>0, side", out="effective_spread, effective_spread_bps", hidden=True)
class signed_effective_spread:
    """2·side·(p − m), and in 1e-4 of m."""

    def value(exec_price, midprice, side):
        spread = 2.0 * scalar.sign(side) * (exec_price - midprice)
        return spread, 1e4 * spread / midprice


@composite("exec_price>0, midprice>0, side?", out="effective_spread, effective_spread_bps",
           params=[boolean("signed", False)], units="price, bps", scale=(1, 0),
           source="Lee 1993; highfrequency getLiquidityMeasures")  # fmt: skip
class effective_spread:
    """Effective spread 2·abs(p − m) of a trade at p, mid m; also in 1e-4 of the mid.

    ``signed=True``: 2·side·(p − m), negative where the price was better than the mid.
    """

    def needs(params):
        return ["side"] if params["signed"] else []

    def validate(params):
        if isinstance(params["signed"], dict):
            return "signed must be True or False for all symbols, not a mapping"
        return None

    def build(exec_price, midprice, side, signed):
        if signed:
            return signed_effective_spread(exec_price, midprice, side)
        return unsigned_effective_spread(exec_price, midprice)


@fold("price>0, bid>0?, ask>0?", out="trade_sign:i8",
      params=[choice("method", "lee_ready", "tick", "quote", "lee_ready", "emo")],
      units="sign", scale=0, hidden=True)  # fmt: skip
class classified_trade:
    """Trade sign by quotes and by the last price change, which is what the fold carries."""

    acc = "first last tick"
    base = "p tau"

    def lift(price):
        return price, price, 0.0

    def join(a, b):
        first1, last1, tick1 = a
        first2, last2, tick2 = b
        between = 0.0 if first1 == 0.0 else scalar.sign(first2 - last1)  # 0: a has no row
        tick = tick2 if tick2 != 0.0 else (between if between != 0.0 else tick1)
        return first2 if first1 == 0.0 else first1, last2, tick

    def absorb(p, tau, first, last, tick):
        between = 0.0 if p == 0.0 else scalar.sign(first - p)
        return last, tick if tick != 0.0 else (between if between != 0.0 else tau)

    def total(tau, price, bid, ask, method):
        quote = scalar.sign(price - (bid + (ask - bid) / 2.0))
        emo = 1.0 if price == ask else (-1.0 if price == bid else tau)
        sign = tau
        if method == 1:
            sign = quote
        elif method == 2:
            sign = quote if quote != 0.0 else tau
        elif method == 3:
            sign = emo if bid == bid and ask == ask else NAN
        return int(sign) if sign == 1.0 or sign == -1.0 else NULL


@composite("price>0, bid>0?, ask>0?", out="trade_sign:i8",
           params=[choice("method", "lee_ready", "tick", "quote", "lee_ready", "emo")],
           first="2 if method == 'tick' else 1", units="sign", scale=0,
           source="Lee & Ready 1991; Ellis, Michaely & O'Hara 2000")  # fmt: skip
class trade_sign:
    """Who began a trade: +1 the buyer, −1 the seller.

    'tick': the sign of the last price change, null before the first. 'quote': sign(price − mid),
    null at the mid. 'lee_ready': quote, at the mid tick. 'emo': +1 at the ask, −1 at the bid, else
    tick. bid and ask are the quotes prevailing at the trade; 'tick' needs the price only.
    """

    def needs(params):
        return [] if params["method"] == "tick" else ["bid", "ask"]

    def validate(params):
        if isinstance(params["method"], dict):
            return "method must be one choice for all symbols, not a mapping"
        return None

    def build(price, bid, ask, method):
        if method == "tick":
            return classified_trade(price, method=method)
        return classified_trade(price, bid, ask, method=method)


@map_("side, volume>=0", out="signed_volume", units="size", source="sign(side)·volume")
class signed_volume:
    """Volume with the sign of its initiator: sign(side)·volume, 0 where the side is unknown."""

    def value(side, volume):
        return scalar.sign(side) * volume
