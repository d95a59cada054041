"""Loops of window_join: which rows are in each window, and what they add up to."""

import math

import numpy as np
from numba import njit

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
def counts(lo, hi, rows, valid, out):
    """Present cells per window."""
    for i in range(len(lo)):
        n = 0
        for p in range(lo[i], hi[i]):
            n += valid[rows[p]]
        out[i] = n


@njit(cache=True, nogil=True)
def ends_of(lo, hi, rows, valid, last, out):
    """Row of the first (or last) present cell of each window, −1 if there is none."""
    for i in range(len(lo)):
        out[i] = -1
        for n in range(hi[i] - lo[i]):
            r = rows[hi[i] - 1 - n] if last else rows[lo[i] + n]
            if valid[r]:
                out[i] = r
                break


@njit(cache=True, nogil=True)
def extremes(lo, hi, rows, valid, column, highest, out):
    """Row of the first highest (or lowest) present cell of each window, −1 if there is none."""
    for i in range(len(lo)):
        best = -1
        for p in range(lo[i], hi[i]):
            r = rows[p]
            if valid[r] and (
                best < 0 or (column[r] > column[best] if highest else column[r] < column[best])
            ):
                best = r
        out[i] = best


@njit(cache=True, nogil=True)
def float_sums(lo, hi, rows, valid, column, weights, weighted, sums, totals, number):
    """Σ x (or Σ w·x and Σ w over w > 0) of each window in (time, row) order.

    Each window is summed by itself from its first row, with Neumaier's correction: the result
    depends on its rows only, and long windows lose no digits.
    """
    for i in range(len(lo)):
        total, lost, mass, mass_lost = 0.0, 0.0, 0.0, 0.0
        n = 0
        for p in range(lo[i], hi[i]):
            r = rows[p]
            if not valid[r]:
                continue
            x = column[r]
            if weighted:
                w = weights[r]
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
def int_sums(lo, hi, rows, valid, column, out):
    """Σ x of int64 cells per window; the first window whose sum does not fit, or −1.

    High and low halves are added apart, so that only the sum itself has to fit.
    """
    for i in range(len(lo)):
        high, low = np.int64(0), np.int64(0)
        for p in range(lo[i], hi[i]):
            r = rows[p]
            if valid[r]:
                high += column[r] >> 32
                low += column[r] & 0xFFFFFFFF
        high += low >> 32
        if high > 0x7FFFFFFF or high < -0x80000000:
            return i
        out[i] = (high << 32) | (low & 0xFFFFFFFF)
    return -1
