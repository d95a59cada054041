"""Loops of nbbo: the quotes of a symbol's exchanges over time, and the best of them.

``quotes`` are the columns (bid, ask, bid size, ask size, flagged as stale), ``held[e]`` the row
that is exchange e's quote and ``since[e]`` its time.
"""

import numpy as np
from numba import njit

from gpukern import join_match as core

NORMAL, LOCKED, CROSSED, ONE_SIDED, EMPTY = range(5)


@njit(cache=True, nogil=True)
def counting_sides(row, quotes):
    """Which sides of a row count while it is young enough: 0 none, 1 bid, 2 ask, 3 both."""
    bid, ask, bid_size, ask_size, flagged = quotes
    if row < 0 or flagged[row]:
        return 0
    # NaN is above nothing, so a missing side is none.
    sides = 1 * (bid[row] > 0.0 and bid_size[row] > 0.0)
    sides += 2 * (ask[row] > 0.0 and ask_size[row] > 0.0)
    return 0 if sides == 3 and bid[row] >= ask[row] else sides


@njit(cache=True, nogil=True)
def best_of(held, since, now, quotes, fees, limit, at, out):
    """Write the best bid and offer at time ``now`` to place ``at`` of the outputs."""
    bid, ask, bid_size, ask_size, _ = quotes
    prices, codes, integers, head = out
    n_exchanges, oldest = 0, 0
    for e in range(len(held)):
        row = held[e]
        sides = counting_sides(row, quotes)
        if sides == 0 or not core.within(now, since[e], limit):
            continue
        n_exchanges += 1
        oldest = max(oldest, core.minus(now, since[e]))
        for s in range(2):  # bid, ask
            if not sides & (1 << s):
                continue
            price = bid[row] if s == 0 else ask[row]
            size = bid_size[row] if s == 0 else ask_size[row]
            net = price * (1.0 - fees[e]) if s == 0 else price * (1.0 + fees[e])
            best = prices[s, at]
            first = codes[s, at] < 0
            if first or (price > best if s == 0 else price < best):
                prices[s, at] = price
                prices[2 + s, at] = size
                codes[s, at] = e
                integers[s, at] = 1 << e
            elif price == best:
                prices[2 + s, at] += size
                integers[s, at] |= 1 << e
            if first or (net > prices[4 + s, at] if s == 0 else net < prices[4 + s, at]):
                prices[4 + s, at] = net
                codes[2 + s, at] = e
    integers[2, at] = n_exchanges
    integers[3, at] = oldest
    has_bid, has_ask = codes[0, at] >= 0, codes[1, at] >= 0
    if has_bid and has_ask:
        b, a = prices[0, at], prices[1, at]
        head[2, at] = NORMAL if b < a else (LOCKED if b == a else CROSSED)
    else:
        head[2, at] = ONE_SIDED if has_bid or has_ask else EMPTY


@njit(cache=True, nogil=True)
def next_expiry(held, since, now, before, quotes, limit):
    """The first time after ``now`` and before ``before`` at which a quote that counts is too old,
    or ``before``."""
    found = before
    for e in range(len(held)):
        if counting_sides(held[e], quotes) == 0:
            continue
        if since[e] < core.MAX_INT - limit:
            end = since[e] + limit + 1
            if now < end < found:
                found = end
    return found


@njit(cache=True, nogil=True)
def best_quotes(
    starts,
    times,
    rows,
    venue,
    quotes,
    fees,
    limit,
    expiries,
    until,
    prices,
    codes,
    integers,
    head,
):
    """All output rows, symbol by symbol; return how many."""
    out = (prices, codes, integers, head)
    at = 0
    for k in range(len(starts) - 1):
        held = np.full(len(fees), -1, np.int64)
        since = np.zeros(len(fees), np.int64)
        p = starts[k]
        while p < starts[k + 1]:
            now = times[p]
            while p < starts[k + 1] and times[p] == now:
                held[venue[rows[p]]] = rows[p]
                since[venue[rows[p]]] = now
                p += 1
            head[0, at], head[1, at] = k, now
            best_of(held, since, now, quotes, fees, limit, at, out)
            at += 1
            if not expiries:
                continue
            # At the time of the next row the row itself shows what has run out.
            before = times[p] if p < starts[k + 1] else min(until, core.MAX_INT - 1) + 1
            before = min(before, min(until, core.MAX_INT - 1) + 1)
            now = next_expiry(held, since, now, before, quotes, limit)
            while now < before:
                head[0, at], head[1, at], head[3, at] = k, now, 1
                best_of(held, since, now, quotes, fees, limit, at, out)
                at += 1
                now = next_expiry(held, since, now, before, quotes, limit)
    return at
