"""Loops of window_join: which rows are in each window, and what they add up to.

``column`` and ``valid`` are in the order of the index, so that a window is a run of them.
"""

import math

import numpy as np
from numba import njit
from numba.extending import register_jitable

from gpukern.join_match import lower, minus, upper


@njit(cache=True, nogil=True)
def shifted(times, by, out):
    """out[i] = times[i] + by, held at the ends of int64 (``by`` may be negative)."""
    for i in range(len(times)):
        out[i] = minus(times[i], -by)


@njit(cache=True, nogil=True)
def windows(
    codes, begins, ends, lookup, starts, times, prevailing, left_closed, right_closed, lo, hi
):
    """Places lo[i]…hi[i] of the right rows in left row i's window; lo = hi where it is empty.

    With ``prevailing`` the window starts at the last row with time ≤ begin if there is one.
    """
    near_lo = starts[:-1].copy()
    near_hi = starts[:-1].copy()
    for i in range(len(codes)):
        lo[i] = hi[i] = 0
        code = codes[i]
        if code < 0 or lookup[code] < 0 or begins[i] > ends[i]:
            continue
        k = lookup[code]
        a, b = starts[k], starts[k + 1]
        if prevailing or not left_closed:
            first = upper(times, a, b, near_lo[k], begins[i])
        else:
            first = lower(times, a, b, near_lo[k], begins[i])
        near_lo[k] = first
        if right_closed:
            after = upper(times, a, b, near_hi[k], ends[i])
        else:
            after = lower(times, a, b, near_hi[k], ends[i])
        near_hi[k] = after
        if prevailing and first > a:
            first -= 1
        lo[i] = first
        hi[i] = max(first, after)


@njit(cache=True, nogil=True)
def running_counts(valid, out):
    """out[p] = present cells before place p."""
    n = 0
    for p in range(len(valid)):
        out[p] = n
        n += valid[p]
    out[len(valid)] = n


@njit(cache=True, nogil=True)
def ends_of(lo, hi, rows, counts, places, last, out):
    """Row of the first (or last) present cell of each window, −1 if there is none.

    ``counts`` are the running counts and ``places`` where the present cells are.
    """
    for i in range(len(lo)):
        a, b = counts[lo[i]], counts[hi[i]]
        out[i] = -1
        if b > a:
            out[i] = rows[places[b - 1 if last else a]]


BLOCK = 32


@register_jitable
def lower_of(a, b, column):
    """Of two places, a before b, the one with the lower cell; a if they are equal."""
    return b if column[b] < column[a] else a


@njit(cache=True, nogil=True)
def lows_of_blocks(lo, hi, column, from_start, to_end, lows):
    """For the blocks lo…hi: the place of the lowest cell from its start to each place, from each
    place to its end, and of the whole block."""
    for block in range(lo, hi):
        first, after = block * BLOCK, min(len(column), (block + 1) * BLOCK)
        low = first
        for p in range(first, after):
            low = lower_of(low, p, column)
            from_start[p] = low
        lows[block] = low
        low = after - 1
        for p in range(after - 1, first - 1, -1):
            low = lower_of(p, low, column)
            to_end[p] = low


@njit(cache=True, nogil=True)
def lows_of_spans(column, levels):
    """levels[j, b] = the place of the lowest cell of the 2^j blocks from b on; level 0 is given."""
    for level in range(1, len(levels)):
        half = 1 << (level - 1)
        for b in range(levels.shape[1] - 2 * half + 1):
            levels[level, b] = lower_of(levels[level - 1, b], levels[level - 1, b + half], column)


@njit(cache=True, nogil=True)
def lowest(lo, hi, rows, valid, column, missing, from_start, to_end, levels, out):
    """Row of the first lowest present cell of each window, −1 if there is none.

    A window within a block is looked at cell by cell. Any other is the end of a block, the start of
    one and, between them, two spans of whole blocks that may overlap. Missing cells hold
    ``missing``, which no cell exceeds.
    """
    for i in range(len(lo)):
        out[i] = -1
        if hi[i] <= lo[i]:
            continue
        first, last = lo[i], hi[i] - 1
        a, b = first // BLOCK, last // BLOCK
        if a == b:
            low, best = column[first], first
            for p in range(first + 1, hi[i]):
                x = column[p]
                best = p if x < low else best  # selections, not branches that nobody can predict
                low = x if x < low else low
        else:
            best = to_end[first]
            if b - a > 1:
                level = 0
                while (2 << level) <= b - a - 1:
                    level += 1
                best = lower_of(best, levels[level, a + 1], column)
                best = lower_of(best, levels[level, b - (1 << level)], column)
            best = lower_of(best, from_start[last], column)
        if column[best] == missing:
            best = first
            while best < last and not valid[best]:
                best += 1
            if not valid[best]:
                continue
        out[i] = rows[best]


@njit(cache=True, nogil=True)
def float_sums(lo, hi, valid, column, weights, weighted, sums, totals, number):
    """Σ x (or Σ w·x and Σ w over w > 0) of each window in (time, row) order.

    Each window is summed by itself from its first row, with Neumaier's correction: the result
    depends on its rows only, and long windows lose no digits.
    """
    for i in range(len(lo)):
        total, lost, mass, mass_lost = 0.0, 0.0, 0.0, 0.0
        n = 0
        for p in range(lo[i], hi[i]):
            if not valid[p]:
                continue
            x = column[p]
            if weighted:
                w = weights[p]
                if not w > 0.0:
                    continue
                x = w * x
                y = mass + w
                mass_lost += (mass - y) + w if abs(mass) >= abs(w) else (w - y) + mass
                mass = y
            y = total + x
            lost += (total - y) + x if abs(total) >= abs(x) else (x - y) + total
            total = y
            n += 1
        # An infinity among the values turns the correction into NaN; the plain sum is right then.
        sums[i] = total + lost if math.isfinite(lost) else total
        totals[i] = mass + mass_lost if math.isfinite(mass_lost) else mass
        number[i] = n


@njit(cache=True, nogil=True)
def running_halves(valid, column, unsigned, high, low):
    """high[p], low[p] = Σ of the upper and lower 32 bits of the present cells before place p.

    Of whole numbers running sums may be subtracted: neither half can overflow.
    """
    upper_sum, lower_sum = np.int64(0), np.int64(0)
    for p in range(len(valid)):
        high[p], low[p] = upper_sum, lower_sum
        if valid[p]:
            upper_half = column[p] >> 32
            upper_sum += upper_half & 0xFFFFFFFF if unsigned else upper_half
            lower_sum += column[p] & 0xFFFFFFFF
    high[len(valid)], low[len(valid)] = upper_sum, lower_sum


@njit(cache=True, nogil=True)
def int_sums(lo, hi, high, low, out):
    """Σ x of the int64 cells of each window; the first window whose sum does not fit, or −1."""
    for i in range(len(lo)):
        lower_half = low[hi[i]] - low[lo[i]]
        upper_half = high[hi[i]] - high[lo[i]] + (lower_half >> 32)
        if upper_half > 0x7FFFFFFF or upper_half < -0x80000000:
            return i
        out[i] = (upper_half << 32) | (lower_half & 0xFFFFFFFF)
    return -1
