"""Loops of gap_fill: the points of a grid and the rows that hold at them.

Rows are grouped: those of symbol s at ``starts[s]…starts[s + 1]``, in order of time.
"""

from numba import njit


@njit(cache=True, nogil=True)
def count_points(starts, times, every, origin, lo, hi, counts):
    """counts[s] = grid points of symbol s in lo…hi from its first row on; return their sum."""
    total = 0
    for s in range(len(starts) - 1):
        counts[s] = 0
        if starts[s] < starts[s + 1]:
            first = -((origin - max(lo, times[starts[s]])) // every)
            counts[s] = max(0, (hi - origin) // every - first + 1)
        total += counts[s]
    return total


@njit(cache=True, nogil=True)
def walk_points(starts, times, every, origin, lo, counts, slots, points, found):
    """Write every point and the place of the symbol's last row at or before it."""
    at = 0
    for s in range(len(counts)):
        p = starts[s]
        point = 0
        if counts[s]:
            point = origin - ((origin - max(lo, times[p])) // every) * every
        for _ in range(counts[s]):
            while p + 1 < starts[s + 1] and times[p + 1] <= point:
                p += 1
            slots[at], points[at], found[at] = s, point, p
            point += every
            at += 1


@njit(cache=True, nogil=True)
def last_present(starts, present, last):
    """last[p] = the last place of the same symbol at or before p with a value, or −1."""
    for s in range(len(starts) - 1):
        now = -1
        for p in range(starts[s], starts[s + 1]):
            now = p if present[p] else now
            last[p] = now
