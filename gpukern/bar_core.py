"""Loops of bars: a record per symbol to which trades are added, and the bars that it becomes.

``record[s]`` is the unfinished bar of symbol s, ``ints`` the same memory as int64. Sums are pairs
(sum, what rounding lost), added up trade by trade from the bar's first, so that a bar depends on
its own trades only. A bar is written to column ``at`` of ``floats`` and ``marks``.

Loops take rows in order, those of the symbols lo…hi only, so that every thread can have symbols of
its own without moving a column. They stop where the output is full and say where to go on.
"""

import math

import numpy as np
from numba import njit
from numba.extending import register_jitable

OPEN, HIGH, LOW, CLOSE = range(4)
VOLUME, NOTIONAL, BUY, SELL = 4, 6, 8, 10  # each followed by what rounding lost
COUNT, FIRST, LAST, MARK = 12, 13, 14, 15  # MARK: a time bar's known_at, else the trade's number
WORDS = 16

FLOATS = ("open", "high", "low", "close", "volume", "notional", "vwap", "buy_volume", "sell_volume")
SLOT, ROW, N_TRADES, FIRST_TS, LAST_TS, KNOWN = range(6)  # KNOWN: the record's MARK
MARKS = 6

SLACK = 1e-12  # share of a threshold that rounding may leave open
BLOCK = 1024  # rows of which a thread picks its own at a time
NO_TIME = -(2**63)


@register_jitable
def price_ok(p):
    """Whether the price is a finite number above 0."""
    return (p > 0.0) & (p < math.inf)


@register_jitable
def size_ok(q):
    """Whether the size is a finite number, 0 or above."""
    return (q >= 0.0) & (q < math.inf)


@register_jitable
def add_to(record, s, at, x):
    """Add x to the sum at word ``at``; the rounding error goes to the word behind (Knuth)."""
    a = record[s, at]
    y = a + x
    b = y - a
    record[s, at] = y
    record[s, at + 1] += (a - (y - b)) + (x - b)


@register_jitable
def sum_of(record, s, at):
    """The sum at word ``at``; a sum beyond the largest double has no rounding error to add."""
    lost = record[s, at + 1]
    return record[s, at] + lost if lost - lost == 0.0 else record[s, at]


@register_jitable
def add_trade(record, ints, s, t, p, q, side):
    """Add a trade to the symbol's bar, which it opens if there is none."""
    if ints[s, COUNT] == 0:
        record[s, OPEN] = record[s, HIGH] = record[s, LOW] = p
        for at in range(VOLUME, COUNT):
            record[s, at] = 0.0
        ints[s, FIRST] = t
    record[s, HIGH] = max(record[s, HIGH], p)
    record[s, LOW] = min(record[s, LOW], p)
    record[s, CLOSE] = p
    ints[s, COUNT] += 1
    ints[s, LAST] = t
    add_to(record, s, VOLUME, q)
    add_to(record, s, NOTIONAL, p * q)
    if side != 0:
        add_to(record, s, BUY if side > 0 else SELL, q)


@register_jitable
def write_bar(record, ints, s, row, floats, marks, at):
    """Write the symbol's bar and leave none open."""
    high, low = record[s, HIGH], record[s, LOW]
    volume, notional = sum_of(record, s, VOLUME), sum_of(record, s, NOTIONAL)
    floats[0, at] = record[s, OPEN]
    floats[1, at] = high
    floats[2, at] = low
    floats[3, at] = record[s, CLOSE]
    floats[4, at] = volume
    floats[5, at] = notional
    # The exact value lies between the two; a quotient of rounded sums may miss by the last bit.
    floats[6, at] = min(max(notional / volume, low), high) if volume > 0.0 else math.nan
    floats[7, at] = sum_of(record, s, BUY)
    floats[8, at] = sum_of(record, s, SELL)
    marks[SLOT, at] = s
    marks[ROW, at] = row
    marks[N_TRADES, at] = ints[s, COUNT]
    marks[FIRST_TS, at] = ints[s, FIRST]
    marks[LAST_TS, at] = ints[s, LAST]
    marks[KNOWN, at] = ints[s, MARK]
    ints[s, COUNT] = 0


@register_jitable
def pick(begin, end, slots, lo, hi, price, size, sized, mine):
    """Rows of the symbols lo…hi with a usable price (and size) to ``mine``; how many."""
    picked = 0
    for i in range(begin, end):
        mine[picked] = i
        usable = price_ok(price[i]) & (size_ok(size[i]) if sized else True)
        picked += usable & (slots[i] >= lo) & (slots[i] < hi)
    return picked


@njit(cache=True, nogil=True, error_model="numpy")
def fold_times(begin, lo, hi, trades, every, origin, record, ints, floats, marks):
    """Add rows ``begin``… to their bars of time; write those that a later bar ends.

    Returns where to go on and the number of bars.
    """
    times, slots, price, size, side = trades
    count = len(slots)
    mine = np.empty(BLOCK, np.int64)
    made = 0
    while begin < count and made + BLOCK <= floats.shape[1]:
        end = min(begin + BLOCK, count)
        for j in range(pick(begin, end, slots, lo, hi, price, size, False, mine)):
            i = mine[j]
            s, t = slots[i], times[i]
            if ints[s, COUNT] > 0 and t >= ints[s, MARK]:
                write_bar(record, ints, s, i, floats, marks, made)
                made += 1
            if ints[s, COUNT] == 0:
                ints[s, MARK] = origin + ((t - origin) // every + 1) * every
            q = size[i] if size_ok(size[i]) else 0.0
            add_trade(record, ints, s, t, price[i], q, side[i] if len(side) else 0)
        begin = end
    return begin, made


@njit(cache=True, nogil=True, error_model="numpy")
def close_due(watermark, record, ints, floats, marks):
    """Write every bar of time that the watermark completes; return how many."""
    made = 0
    for s in range(len(record)):
        if ints[s, COUNT] > 0 and ints[s, MARK] <= watermark:
            write_bar(record, ints, s, -1, floats, marks, made)
            made += 1
    return made


@njit(cache=True, nogil=True)
def first_known(ints):
    """The smallest known_at of the unfinished bars of time."""
    least = 2**63 - 1
    for s in range(len(ints)):
        if ints[s, COUNT] > 0:
            least = min(least, ints[s, MARK])
    return least


@njit(cache=True, nogil=True)
def count_gaps(slots, known_at, every, until, last_known):
    """Bars of time missing between those given, by (symbol, time), and up to ``until``.

    ``last_known[s]`` is the known_at of the symbol's last bar so far, NO_TIME if it had none.
    """
    known = last_known.copy()
    total = 0
    for k in range(len(slots)):
        s = slots[k]
        if known[s] != NO_TIME:
            total += (known_at[k] - known[s]) // every - 1
        known[s] = known_at[k]
    for s in range(len(known)):
        if known[s] != NO_TIME and known[s] < until:
            total += (until - known[s]) // every
    return total


@njit(cache=True, nogil=True)
def fill_gaps(
    slots, known_at, close, every, until, last_known, last_close, to_slot, to_known, to_close
):
    """List the bars that ``count_gaps`` counts: symbol, known_at and the close before."""
    at = 0
    for k in range(len(slots)):
        s = slots[k]
        if last_known[s] != NO_TIME:
            known = last_known[s] + every
            while known < known_at[k]:
                to_slot[at], to_known[at], to_close[at] = s, known, last_close[s]
                known += every
                at += 1
        last_known[s] = known_at[k]
        last_close[s] = close[k]
    for s in range(len(last_known)):
        if last_known[s] == NO_TIME:
            continue
        while until - last_known[s] >= every:
            last_known[s] += every
            to_slot[at], to_known[at], to_close[at] = s, last_known[s], last_close[s]
            at += 1


@njit(cache=True, nogil=True)
def first_disorder(slots, times, last):
    """The first row earlier than a row of its symbol before it, or −1; ``last`` is kept up."""
    for i in range(len(slots)):
        s = slots[i]
        if s >= 0:
            if times[i] < last[s]:
                return i
            last[s] = times[i]
    return -1


@njit(cache=True, nogil=True)
def rows_per_slot(slots, counts):
    """Add the number of rows of every symbol to ``counts``."""
    for i in range(len(slots)):
        if slots[i] >= 0:
            counts[slots[i]] += 1


@njit(cache=True, nogil=True)
def mark_used(codes, used):
    """used[c] = whether code c occurs."""
    for i in range(len(codes)):
        if codes[i] >= 0:
            used[codes[i]] = True


@njit(cache=True, nogil=True)
def translate(codes, lookup, slots):
    """slots[i] = lookup[codes[i]], −1 for code −1."""
    for i in range(len(codes)):
        slots[i] = lookup[codes[i]] if codes[i] >= 0 else -1


@njit(cache=True, nogil=True)
def places_by_time(slots, known, ranks, first, every, places, symbols):
    """place[k] = where bar k stands in the order of (known_at, rank of the symbol): two counting
    sorts, over ``symbols`` ranks and ``places`` bins from the one of ``first``."""
    n = len(slots)
    bins, order = np.empty(n, np.int32), np.empty(n, np.int64)
    starts = np.zeros(symbols + 1, np.int64)
    for k in range(n):
        bins[k] = (known[k] - first) // every
        starts[ranks[slots[k]] + 1] += 1
    for j in range(1, symbols):
        starts[j] += starts[j - 1]
    for k in range(n):
        r = ranks[slots[k]]
        order[starts[r]] = k
        starts[r] += 1
    starts = np.zeros(places + 1, np.int64)
    for k in range(n):
        starts[bins[k] + 1] += 1
    for j in range(1, places):
        starts[j] += starts[j - 1]
    place = np.empty(n, np.int64)
    for j in range(n):
        k = order[j]
        place[k] = starts[bins[k]]
        starts[bins[k]] += 1
    return place


@njit(cache=True, nogil=True)
def places_dense(slots, known, ranks, first, every, places, symbols):
    """The same by a table with a cell for every bin and symbol, when most of them are taken."""
    n = len(slots)
    cells = np.full(places * symbols, -1, np.int32)
    for k in range(n):
        cells[(known[k] - first) // every * symbols + ranks[slots[k]]] = k
    place = np.empty(n, np.int64)
    at = 0
    for c in range(len(cells)):
        if cells[c] >= 0:
            place[cells[c]] = at
            at += 1
    return place


@njit(cache=True, nogil=True)
def scatter(values, place, out):
    """out[place[k]] = values[k]."""
    for k in range(len(values)):
        out[place[k]] = values[k]
