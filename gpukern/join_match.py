"""The matcher: key codes and times in, row numbers out. Compiled scalar loops and nothing else.

The right side is held by key: ``times[starts[k]:starts[k + 1]]`` are key k's times in ascending
order and ``rows`` of the same range the row numbers, equal times in row order. A code of −1 is a
row that takes no part because its key or time is missing.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

BACKWARD, FORWARD, NEAREST = 0, 1, 2
MIN_INT = -(2**63)
MAX_INT = 2**63 - 1


@njit(cache=True, nogil=True)
def first_disorder(codes, times, count):
    """The first row that is earlier than a row of its key before it, or −1."""
    last = np.full(count, MIN_INT, np.int64)
    for i in range(len(codes)):
        k = codes[i]
        if k >= 0:
            if times[i] < last[k]:
                return i
            last[k] = times[i]
    return -1


@njit(cache=True, nogil=True)
def previous_row(codes, row):
    """The last row of the same key before ``row``."""
    for i in range(row - 1, -1, -1):
        if codes[i] == codes[row]:
            return i
    return -1


@njit(cache=True, nogil=True)
def key_starts(codes, starts):
    """starts[k] = first place of key k when rows are grouped by key."""
    starts[:] = 0
    for i in range(len(codes)):
        if codes[i] >= 0:
            starts[codes[i] + 1] += 1
    for k in range(1, len(starts)):
        starts[k] += starts[k - 1]


@njit(cache=True, nogil=True)
def place_rows(codes, times, order, starts, by_key, rows):
    """Fill ``by_key`` and ``rows``, taking rows in ``order`` (all in turn if it is empty).

    Returns the first row that is earlier than one of its key before it, or −1. One sequential
    stream is written per key, which memory likes better than a sort.
    """
    ahead = starts[:-1].copy()
    bad = -1
    ordered = len(order) > 0
    for n in range(len(codes)):
        i = order[n] if ordered else n
        k = codes[i]
        if k >= 0:
            p = ahead[k]
            t = times[i]
            if p > starts[k] and by_key[p - 1] > t and bad < 0:
                bad = i
            by_key[p] = t
            rows[p] = i
            ahead[k] = p + 1
    return bad


@register_jitable
def upper(times, lo, hi, near, t):
    """First place in lo…hi whose time is later than t; steps that double lead there from ``near``.

    Rows that come in time order find their place one or two steps away.
    """
    step = 1
    if near < hi and times[near] <= t:
        lo = near + 1
        while lo + step <= hi and times[lo + step - 1] <= t:
            lo += step
            step += step
        hi = min(hi, lo + step - 1)
    else:
        hi = near
        while hi - step >= lo and times[hi - step] > t:
            hi -= step
            step += step
        lo = max(lo, hi - step + 1)
    while lo < hi:
        mid = (lo + hi) >> 1
        if times[mid] <= t:
            lo = mid + 1
        else:
            hi = mid
    return lo


@register_jitable
def lower(times, lo, hi, near, t):
    """First place in lo…hi whose time is t or later."""
    return lo if t == MIN_INT else upper(times, lo, hi, near, t - 1)


@register_jitable
def within(late, early, tolerance):
    """Whether the two are at most the tolerance apart; −1 is no limit."""
    return tolerance < 0 or minus(late, tolerance) <= early


@register_jitable
def closer(ahead, t, back):
    """Whether t is closer to a later time than to an earlier one: whether their mean is below t.

    Times may be further apart than int64 holds, so neither distance nor sum is formed.
    """
    return (ahead & back) + ((ahead ^ back) >> 1) < t


@register_jitable
def find(times, lo, hi, near, t, direction, exact, tolerance):
    """Place of the match of time t in lo…hi, or −1, and where to start the next search."""
    back, ahead = -1, -1
    if direction != FORWARD:
        after = upper(times, lo, hi, near, t) if exact else lower(times, lo, hi, near, t)
        near = after
        if after > lo and within(t, times[after - 1], tolerance):
            back = after - 1
    if direction != BACKWARD:
        first = lower(times, lo, hi, near, t) if exact else upper(times, lo, hi, near, t)
        near = first
        if first < hi and within(times[first], t, tolerance):
            ahead = upper(times, first, hi, first, times[first]) - 1  # the last row of that time
    if ahead >= 0 and (back < 0 or closer(times[ahead], t, times[back])):
        return ahead, near
    return back, near


@njit(cache=True, nogil=True)
def match(codes, t, lookup, starts, times, rows, direction, exact, tolerance, shift, out):
    """out[i] = matching right row of left row i at time t[i] − shift, or −1.

    ``lookup`` translates left codes to right ones. Every share of rows may be done by itself.
    """
    near = starts[:-1].copy()
    for i in range(len(codes)):
        out[i] = -1
        code = codes[i]
        if code >= 0 and lookup[code] >= 0:
            k = lookup[code]
            at = minus(t[i], shift)
            place, near[k] = find(
                times, starts[k], starts[k + 1], near[k], at, direction, exact, tolerance
            )
            if place >= 0:
                out[i] = rows[place]


@njit(cache=True, nogil=True)
def last_rows(codes, lookup, starts, rows, out):
    """out[i] = the last right row of left row i's key, or −1: a lookup without time."""
    for i in range(len(codes)):
        out[i] = -1
        code = codes[i]
        if code >= 0 and lookup[code] >= 0:
            k = lookup[code]
            if starts[k + 1] > starts[k]:
                out[i] = rows[starts[k + 1] - 1]


@register_jitable
def minus(a, b):
    """a − b, held at the ends of int64."""
    # Tested before subtracting: the compiler takes it that signed integers never wrap.
    if b >= 0:
        return MIN_INT if a < MIN_INT + b else a - b
    return MAX_INT if a > MAX_INT + b else a - b


@njit(cache=True, nogil=True)
def ages(left, right, rows, out):
    """out[i] = left[i] − right[rows[i]], saturated; 0 where nothing matched."""
    for i in range(len(rows)):
        out[i] = minus(left[i], right[rows[i]]) if rows[i] >= 0 else 0


@njit(cache=True, nogil=True)
def drop_older(left, right, rows, tolerance):
    """rows[i] = −1 where left and right are more than the tolerance apart."""
    for i in range(len(rows)):
        if rows[i] >= 0:
            a, b = left[i], right[rows[i]]
            if not within(max(a, b), min(a, b), tolerance):
                rows[i] = -1


@njit(cache=True, nogil=True)
def gather(source, rows, out):
    """out[i] = source[rows[i]], 0 for row −1."""
    for i in range(len(rows)):
        r = rows[i]
        out[i] = source[r] if r >= 0 else 0


@njit(cache=True, nogil=True)
def valid_bits(rows, bits):
    """The Arrow validity bitmap of rows ≥ 0; return how many are."""
    total = 0
    for byte in range(len(bits)):
        word = 0
        for bit in range(min(8, len(rows) - 8 * byte)):
            there = rows[8 * byte + bit] >= 0
            word |= there << bit
            total += there
        bits[byte] = word
    return total


@njit(cache=True, nogil=True)
def ascending(times):
    """Whether no time is earlier than the one before."""
    falls = 0
    for i in range(1, len(times)):
        falls += times[i] < times[i - 1]
    return falls == 0


@njit(cache=True, nogil=True)
def last_of_keys(codes, lo, hi, last):
    """last[k] = the last of the rows lo…hi that has key k; the last element takes rows without."""
    for j in range(lo, hi):
        last[codes[j]] = j


@njit(cache=True, nogil=True)
def walk(codes, t, lookup, right_codes, right_times, lo, hi, exact, last, out):
    """Backward match of two sides that are in time order over all keys: one merge, no index.

    ``last`` is each key's last right row before ``lo``, and two elements more: right rows without
    key go to the last one, left rows that match nothing read the one before it, which stays −1.
    """
    none = len(last) - 2
    j = lo
    for i in range(len(codes)):
        now = t[i]
        while j < hi and (right_times[j] < now or (exact and right_times[j] == now)):
            last[right_codes[j]] = j
            j += 1
        k = lookup[codes[i]]
        out[i] = last[k if k >= 0 else none]
