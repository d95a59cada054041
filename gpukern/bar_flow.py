"""Imbalance and runs bars: loops that sign trades and end a bar when one side is heavier than
expected.

Beside the bar (``bar_core``) a symbol's record holds what follows. Expectations move when a bar
ends only; the expected signed amount is kept up trade by trade and looked at then, which is the
same.
"""

import math

import numpy as np
from numba import njit
from numba.extending import register_jitable

from gpukern import bar_core as core

IMBALANCE, CUMULATIVE, CONSECUTIVE = range(3)
TICKS, VOLUME, DOLLARS = range(3)

PRICE, TICK = 16, 17  # last price; sign of its last change
UP, DOWN, RUN = 18, 20, 22  # Σ b·x (imbalance) or Σ x of the buys; Σ x of the sells; of the run
RUN_SIDE, BUYS, SELLS = 24, 25, 26
LIMIT, TRADES, SIGNED, SHARE, MEAN_BUY, MEAN_SELL = 27, 28, 29, 30, 31, 32
WORDS = 33

# Places in ``rules``, a tuple of floats.
KIND, METRIC, SIDED = 0, 1, 2
BAR_WEIGHT, TICK_WEIGHT = 3, 4  # of a bar and of a trade in the expectations
INIT, WARMUP = 5, 6  # trades expected at first; trades of a bar that has no threshold
MIN_TICKS, MAX_TICKS, LEAST, MOST = 7, 8, 9, 10  # trades of a bar; expected trades


@register_jitable
def toward(old, new, weight):
    """One step of an exponentially weighted mean; the first value is the seed."""
    return new if math.isnan(old) else old + weight * (new - old)


@register_jitable
def begin_symbol(record, s, rules):
    """The expectations before a symbol's first trade."""
    for at in range(PRICE, WORDS):
        record[s, at] = 0.0
    record[s, TRADES] = rules[INIT]
    for at in range(SIGNED, WORDS):
        record[s, at] = math.nan


@register_jitable
def tick_sign(record, s, p, first):
    """Sign of the last price change up to this trade, 0 before any."""
    if not first and p != record[s, PRICE]:
        record[s, TICK] = 1.0 if p > record[s, PRICE] else -1.0
    record[s, PRICE] = p
    return record[s, TICK]


@register_jitable
def weigh(record, s, kind, b, x, rules):
    """Add a trade of sign b and amount x."""
    if kind == IMBALANCE:
        core.add_to(record, s, UP, b * x)
        record[s, SIGNED] = toward(record[s, SIGNED], b * x, rules[TICK_WEIGHT])
        return
    core.add_to(record, s, UP if b > 0.0 else DOWN, x)
    record[s, BUYS if b > 0.0 else SELLS] += 1.0
    if b != record[s, RUN_SIDE]:
        record[s, RUN_SIDE] = b
        record[s, RUN] = record[s, RUN + 1] = 0.0
    core.add_to(record, s, RUN, x)


@register_jitable
def theta_of(record, s, kind):
    """How heavy the bar is: signed for imbalance, of one side for runs."""
    if kind == IMBALANCE:
        return core.sum_of(record, s, UP)
    if kind == CONSECUTIVE:
        return core.sum_of(record, s, RUN)
    return max(core.sum_of(record, s, UP), core.sum_of(record, s, DOWN))


@register_jitable
def expect(record, s, kind, n, rules):
    """Take the ended bar of n trades into the expectations; set the threshold of the next."""
    weight = rules[BAR_WEIGHT]
    trades = toward(record[s, TRADES], float(n), weight)
    record[s, TRADES] = min(max(trades, rules[LEAST]), rules[MOST])
    if kind == IMBALANCE:
        record[s, LIMIT] = record[s, TRADES] * abs(record[s, SIGNED])
        return
    buys, sells = record[s, BUYS], record[s, SELLS]
    if buys + sells > 0.0:
        record[s, SHARE] = toward(record[s, SHARE], buys / (buys + sells), weight)
    if buys > 0.0:
        mean = core.sum_of(record, s, UP) / buys
        record[s, MEAN_BUY] = toward(record[s, MEAN_BUY], mean, weight)
    if sells > 0.0:
        mean = core.sum_of(record, s, DOWN) / sells
        record[s, MEAN_SELL] = toward(record[s, MEAN_SELL], mean, weight)
    share, up, down = record[s, SHARE], record[s, MEAN_BUY], record[s, MEAN_SELL]
    # A side that has not been seen weighs nothing.
    up = 0.0 if math.isnan(up) else share * up
    down = 0.0 if math.isnan(down) else (1.0 - share) * down
    record[s, LIMIT] = record[s, TRADES] * max(up, down) if share == share else math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def fold_flow(begin, lo, hi, trades, rules, fixed, record, ints, floats, marks):
    """Add rows ``begin``… to imbalance or runs bars. Returns where to go on and the number of bars.

    ``fixed[s]`` is a threshold that stands for the expectations, or NaN.
    """
    times, slots, price, size, side = trades
    kind, metric = int(rules[KIND]), int(rules[METRIC])
    count = len(slots)
    mine = np.empty(core.BLOCK, np.int64)
    made = 0
    while begin < count and made + core.BLOCK <= floats.shape[1]:
        end = min(begin + core.BLOCK, count)
        for j in range(core.pick(begin, end, slots, lo, hi, price, size, metric != TICKS, mine)):
            i = mine[j]
            s, p = slots[i], price[i]
            first = ints[s, core.MARK] == 0
            if first:
                begin_symbol(record, s, rules)
                record[s, LIMIT] = fixed[s]
            if ints[s, core.COUNT] == 0:
                for at in range(UP, LIMIT):
                    record[s, at] = 0.0
            q = size[i] if core.size_ok(size[i]) else 0.0
            taker = side[i] if len(side) else 0
            core.add_trade(record, ints, s, times[i], p, q, taker)
            b = tick_sign(record, s, p, first)
            if rules[SIDED] > 0.0 and taker != 0:
                b = 1.0 if taker > 0 else -1.0
            if b != 0.0:
                x = 1.0 if metric == TICKS else (q if metric == VOLUME else p * q)
                weigh(record, s, kind, b, x, rules)
            theta, limit, n = theta_of(record, s, kind), record[s, LIMIT], ints[s, core.COUNT]
            full = abs(theta) >= limit * (1.0 - core.SLACK)
            if math.isnan(limit):
                full = n >= rules[WARMUP]
            if (full and n >= rules[MIN_TICKS]) or n >= rules[MAX_TICKS]:
                at = len(core.FLOATS)
                floats[at, made] = theta
                floats[at + 1, made] = limit
                floats[at + 2, made] = record[s, TRADES]
                if math.isnan(fixed[s]):
                    expect(record, s, kind, n, rules)
                core.write_bar(record, ints, s, i, floats, marks, made)
                made += 1
            ints[s, core.MARK] += 1
        begin = end
    return begin, made
