"""Row primitives on the device: grouping by symbol, missing rows out, results back in row order.

What ``rows.py`` does with one pass over rows on a CPU takes a thread per row here. *Grouped*
order is (symbol, row); ``order`` maps it to row order and ``pos`` back. The rows that exist for a
kernel are a class: ``keep`` marks them in grouped order, and ``ends``, the running count of kept
rows, gives their dense position, ``ends[g] - 1``. No count ever travels to the host: ``counts``
holds the rows and the runs of a class on the device.

The decorator names the argument kinds each function is compiled for (see ``cuda.HEAD``).
"""

import math
from collections.abc import Callable
from typing import Any

from gpukern.forms.rows import NON_NEGATIVE, NULL_BITS, NULL_INT, POSITIVE

RUN = 5  # words of a run: slot, state row, lo, hi, emit
cuda: Any = None  # the backend puts numba.cuda or its simulator here
FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {}


def device(kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Note a device function and its argument kinds."""

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS[function.__name__] = (function, kinds)
        return function

    return note


# ----------------------------------------------------------------------------------- grouping


@device("iin")
def invert(order, pos, n):
    """pos[order[g]] = g."""
    g = cuda.grid(1)
    while g < n:
        pos[order[g]] = g
        g += cuda.gridsize(1)


@device("iiin")
def take_codes(column, order, to, n):
    """to[g] = column[order[g]]."""
    g = cuda.grid(1)
    while g < n:
        to[g] = column[order[g]]
        g += cuda.gridsize(1)


@device("didn")
def take_floats(column, order, to, n):
    """The same for floats."""
    g = cuda.grid(1)
    while g < n:
        to[g] = column[order[g]]
        g += cuda.gridsize(1)


@device("qiqn")
def take_ints(column, order, to, n):
    """The same for int64."""
    g = cuda.grid(1)
    while g < n:
        to[g] = column[order[g]]
        g += cuda.gridsize(1)


@device("inqqn")
def find_runs(owner, n, runs, counts, symbols):
    """The run of every symbol in grouped order."""
    s = cuda.grid(1)
    while s < symbols:
        lo = 0
        last = n
        while lo < last:
            mid = (lo + last) >> 1
            if owner[mid] < s:
                lo = mid + 1
            else:
                last = mid
        hi = lo
        last = n
        while hi < last:
            mid = (hi + last) >> 1
            if owner[mid] <= s:
                hi = mid + 1
            else:
                last = mid
        runs[s * RUN] = s
        runs[s * RUN + 1] = s
        runs[s * RUN + 2] = lo
        runs[s * RUN + 3] = hi
        runs[s * RUN + 4] = lo
        if s == 0:
            counts[0] = n
            counts[1] = symbols
        s += cuda.gridsize(1)


@device("qqnqqn")
def find_kept_runs(every, ends, n, runs, counts, symbols):
    """The run of every symbol in the dense order of a class, from the runs of all rows."""
    s = cuda.grid(1)
    while s < symbols:
        lo = every[s * RUN + 2]
        hi = every[s * RUN + 3]
        lo = ends[lo - 1] if lo > 0 else 0
        hi = ends[hi - 1] if hi > 0 else 0
        runs[s * RUN] = s
        runs[s * RUN + 1] = s
        runs[s * RUN + 2] = lo
        runs[s * RUN + 3] = hi
        runs[s * RUN + 4] = lo
        if s == 0:
            counts[0] = ends[n - 1]
            counts[1] = symbols
        s += cuda.gridsize(1)


@device("qqiqqqn")
def find_backward(counts, runs, owner, t, last, bad, n):
    """bad[i] = 1 where dense row i is earlier than its symbol's time before it."""
    i = cuda.grid(1)
    while i < n:
        bad[i] = 0
        if i < counts[0]:
            s = owner[i]
            before = t[i - 1] if i > runs[s * RUN + 2] else last[s]
            if t[i] < before:
                bad[i] = 1
        i += cuda.gridsize(1)


@device("qqqn")
def last_times(runs, t, last, symbols):
    """last[s] = the time of the symbol's last row, if it has one."""
    s = cuda.grid(1)
    while s < symbols:
        if runs[s * RUN + 2] < runs[s * RUN + 3]:
            last[s] = t[runs[s * RUN + 3] - 1]
        s += cuda.gridsize(1)


# ------------------------------------------------------------------------------- missing rows


@device("dnbn")
def mark_floats(column, domain, keep, n):
    """Take out the rows whose float is missing or outside its domain."""
    g = cuda.grid(1)
    while g < n:
        x = column[g]
        ok = x - x == 0.0
        if domain == POSITIVE:
            ok = ok and x > 0.0
        elif domain == NON_NEGATIVE:
            ok = ok and x >= 0.0
        if not ok:
            keep[g] = 0
        g += cuda.gridsize(1)


@device("qbn")
def mark_ints(column, keep, n):
    """The same for int64, whose null is the smallest integer."""
    g = cuda.grid(1)
    while g < n:
        if column[g] == NULL_INT:
            keep[g] = 0
        g += cuda.gridsize(1)


@device("dndn")
def clean_floats(column, domain, to, n):
    """nan_policy='propagate': whatever is missing enters a kernel as the one quiet NaN."""
    g = cuda.grid(1)
    while g < n:
        x = column[g]
        ok = x - x == 0.0
        if domain == POSITIVE:
            ok = ok and x > 0.0
        elif domain == NON_NEGATIVE:
            ok = ok and x >= 0.0
        to[g] = x if ok else math.nan
        g += cuda.gridsize(1)


@device("bqddn")
def dense_floats(keep, ends, column, to, n):
    """The kept rows of a column together."""
    g = cuda.grid(1)
    while g < n:
        if keep[g] == 1:
            to[ends[g] - 1] = column[g]
        g += cuda.gridsize(1)


@device("bqqqn")
def dense_ints(keep, ends, column, to, n):
    """The same for int64."""
    g = cuda.grid(1)
    while g < n:
        if keep[g] == 1:
            to[ends[g] - 1] = column[g]
        g += cuda.gridsize(1)


@device("bqiin")
def dense_codes(keep, ends, column, to, n):
    """The same for int32."""
    g = cuda.grid(1)
    while g < n:
        if keep[g] == 1:
            to[ends[g] - 1] = column[g]
        g += cuda.gridsize(1)


@device("qdn")
def as_floats(column, to, n):
    """Integer results as the float input of another kernel."""
    g = cuda.grid(1)
    while g < n:
        x = column[g]
        to[g] = math.nan if x == NULL_INT else float(x)
        g += cuda.gridsize(1)


# ------------------------------------------------------------------------------------ results


@device("qnbqnnqn")
def spread_floats(dense, masked, keep, ends, null, skip, to, n):
    """A float result (its bits) in grouped order, as the input of another kernel."""
    g = cuda.grid(1)
    while g < n:
        bits = null
        if masked == 0:
            bits = dense[g]
        elif keep[g] == 1:
            bits = dense[ends[g] - 1]
        # Exponent all ones: NaN or infinite.
        if skip == 1 and (bits >> 52) & 0x7FF == 0x7FF:
            bits = null
        to[g] = bits
        g += cuda.gridsize(1)


@device("qnbqqn")
def spread_ints(dense, masked, keep, ends, to, n):
    """The same for integer results."""
    g = cuda.grid(1)
    while g < n:
        x = NULL_INT
        if masked == 0:
            x = dense[g]
        elif keep[g] == 1:
            x = dense[ends[g] - 1]
        to[g] = x
        g += cuda.gridsize(1)


@device("qnbqninnnqbn")
def finish(dense, masked, keep, ends, grouped, pos, floats, skip, null, out, bits, n):
    """A result (floats as their bits) in row order with its Arrow validity bitmap.

    A thread writes eight rows and the byte that says which of them are null: those whose row does
    not exist, and float results that are not finite (skip) or the null pattern (propagate).
    """
    byte = cuda.grid(1)
    while byte * 8 < n:
        valid = 0
        i = byte * 8
        last = min(i + 8, n)
        while i < last:
            g = pos[i] if grouped == 1 else i
            x = null
            if masked == 0:
                x = dense[g]
            elif keep[g] == 1:
                x = dense[ends[g] - 1]
            if floats == 1 and skip == 1:
                ok = (x >> 52) & 0x7FF != 0x7FF
            elif floats == 1:
                ok = x != NULL_BITS
            else:
                ok = x != NULL_INT
            if floats == 1 and skip == 1 and not ok:
                x = null
            out[i] = x
            if ok:
                valid |= 1 << (i & 7)
            i += 1
        bits[byte] = valid
        byte += cuda.gridsize(1)
