"""Row primitives on the device: grouping by symbol, missing rows out, results back in row order.

What ``rows.py`` does with one pass over rows on a CPU takes a thread per row here. *Grouped*
order is (symbol, row); ``order`` maps it to row order and ``pos`` back. Columns are 8-byte words
(floats their bits), one below the other in a block, so that one launch serves all of them: what is
done with which column stands in a table.

The rows that exist for a kernel are a class. ``keep`` marks them in grouped order, a stretch of n
per class; ``ends`` is the running count of kept rows, over all classes of a level or, where
``first`` says so, of a class alone. Class 0 is all rows. No count ever travels to the host:
``counts`` holds rows and runs of each class.

The decorator names the argument kinds each function is compiled for (see ``cuda.HEAD``).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from gpukern.forms.cuda import RUN, THREADS
from gpukern.forms.rows import NON_NEGATIVE, NULL_BITS, NULL_INT, POSITIVE

cuda: Any = None  # the backend puts numba.cuda or its simulator here
FUNCTIONS: dict[str, tuple[Callable[..., Any], str]] = {}


def device(kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Note a device function and its argument kinds; a name is there once, in all modules."""

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        other, _ = FUNCTIONS.setdefault(function.__name__, (function, kinds))
        if other is not function:
            raise NameError(f"{function.__name__} is a device function of {other.__module__} too")
        return function

    return note


QUIET_NAN = 0x7FF8_0000_0000_0000
FINITE = 0x7FF  # an exponent of all ones is no finite number


@register_jitable
def finite(word):
    """Whether the float with these bits is neither NaN nor infinite."""
    return (word >> 52) & FINITE != FINITE


@register_jitable
def present(word, integer, domain):
    """Whether a word is there: not null, finite, in its domain (float bits order as integers)."""
    if integer == 1:
        return word != NULL_INT
    if not finite(word):
        return False
    if domain == POSITIVE:
        return word > 0
    # −0.0 is the smallest integer.
    return domain != NON_NEGATIVE or word >= 0 or word == NULL_INT


@register_jitable
def place(c, g, n, keep, ends, first):
    """Dense position of row g in class c, −1 if it does not exist there."""
    if c == 0:
        return g
    at = (c - 1) * n + g
    if keep[at] == 0:
        return -1
    # The count runs on over the classes of a level.
    before = 0 if first[c] == 1 else ends[(c - 1) * n - 1]
    return ends[at] - before - 1


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


@device("qiqnn")
def take_words(words, order, to, columns, n):
    """Columns in grouped order."""
    i = cuda.grid(1)
    while i < columns * n:
        g = i % n
        to[i] = words[i - g + order[g]]
        i += cuda.gridsize(1)


@device("inqqn")
def find_runs(owner, n, runs, counts, symbols):
    """The run of every symbol in grouped order; rows of no symbol stand behind them."""
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
        if s == symbols - 1:
            counts[0] = hi
            counts[1] = symbols
        s += cuda.gridsize(1)


# ------------------------------------------------------------------------------- missing rows


@device("qqqbnnn")
def mark(words, needs, spans, keep, begin, classes, n):
    """keep = the row has everything its class needs: ``needs`` (column, integer?, domain)."""
    i = cuda.grid(1)
    while i < classes * n:
        c = begin + i // n
        g = i % n
        ok = 1
        need = spans[c]
        while need < spans[c + 1]:
            word = words[needs[3 * need] * n + g]
            if not present(word, needs[3 * need + 1], needs[3 * need + 2]):
                ok = 0
            need += 1
        keep[(c - 1) * n + g] = ok
        i += cuda.gridsize(1)


@device("bqnnn")
def count_kept(keep, ends, begin, classes, n):
    """ends = the running count of kept rows of every class by itself, one block a class.

    For pieces so small that a launch and a workspace less matter more than threads.
    """
    counts = cuda.shared.array(THREADS, np.int64)
    me = cuda.threadIdx.x
    share = (n + cuda.blockDim.x - 1) // cuda.blockDim.x
    lo = min(me * share, n)
    hi = min(lo + share, n)
    c = cuda.blockIdx.x
    while c < classes:
        at = (begin - 1 + c) * n
        count = 0
        i = at + lo
        while i < at + hi:
            count += keep[i]
            i += 1
        counts[me] = count
        cuda.syncthreads()
        before = 0
        other = 0
        while other < me:
            before += counts[other]
            other += 1
        i = at + lo
        while i < at + hi:
            before += keep[i]
            ends[i] = before
            i += 1
        cuda.syncthreads()  # nobody writes the next class's counts while these are read
        c += cuda.gridDim.x


@device("qqqqqnnnn")
def find_kept_runs(every, ends, first, runs, counts, begin, classes, n, symbols):
    """The run of every symbol in the dense order of every class of a level."""
    i = cuda.grid(1)
    while i < classes * symbols:
        c = begin + i // symbols
        s = i % symbols
        at = (c - 1) * n
        before = 0 if first[c] == 1 else ends[at - 1]
        lo = every[s * RUN + 2]
        hi = every[s * RUN + 3]
        rows = every[symbols * RUN - 2]  # of all symbols
        lo = ends[at + lo - 1] - before if lo > 0 else 0
        hi = ends[at + hi - 1] - before if hi > 0 else 0
        entry = (c * symbols + s) * RUN
        runs[entry] = s
        runs[entry + 1] = s
        runs[entry + 2] = lo
        runs[entry + 3] = hi
        runs[entry + 4] = lo
        if s == 0:
            counts[2 * c] = ends[at + rows - 1] - before if rows > 0 else 0
            counts[2 * c + 1] = symbols
        i += cuda.gridsize(1)


@device("ibqqnnn")
def keep_owners(owners, keep, ends, first, begin, classes, n):
    """The symbol of every dense row of every class; class 0's are there."""
    i = cuda.grid(1)
    while i < classes * n:
        c = begin + i // n
        g = i % n
        p = place(c, g, n, keep, ends, first)
        if p >= 0:
            owners[c * n + p] = owners[g]
        i += cuda.gridsize(1)


@device("qqbqqqdnnn")
def densify(words, table, keep, ends, first, dense, floats, begin, columns, n):
    """Columns of the kept rows: ``table`` (class, column, to float?, clean?, domain, integer?).

    Clean is nan_policy='propagate': whatever is missing enters a kernel as the one quiet NaN.
    ``floats`` is ``dense`` as floats.
    """
    i = cuda.grid(1)
    while i < columns * n:
        entry = (begin + i // n) * 6
        g = i % n
        p = place(table[entry], g, n, keep, ends, first)
        if p >= 0:
            word = words[table[entry + 1] * n + g]
            there = present(word, table[entry + 5], table[entry + 4])
            if not there and table[entry + 2] + table[entry + 3] > 0:
                dense[i - g + p] = QUIET_NAN
            elif table[entry + 2] == 1:
                floats[i - g + p] = float(word)
            else:
                dense[i - g + p] = word
        i += cuda.gridsize(1)


@device("iqqqqn")
def find_backward(owner, runs, t, last, bad, n):
    """bad[g] = 1 where row g is earlier than its symbol's time before it; a null is no time."""
    g = cuda.grid(1)
    while g < n:
        bad[g] = 0
        if t[g] != NULL_INT:
            s = owner[g]
            lo = runs[s * RUN + 2]
            before = g - 1
            while before >= lo and t[before] == NULL_INT:
                before -= 1
            if t[g] < (t[before] if before >= lo else last[s]):
                bad[g] = 1
        g += cuda.gridsize(1)


@device("qqqn")
def last_times(runs, t, last, symbols):
    """last[s] = the symbol's last time, if it has one."""
    s = cuda.grid(1)
    while s < symbols:
        g = runs[s * RUN + 3] - 1
        while g >= runs[s * RUN + 2] and t[g] == NULL_INT:
            g -= 1
        if g >= runs[s * RUN + 2]:
            last[s] = t[g]
        s += cuda.gridsize(1)


# ------------------------------------------------------------------------------------ results


@device("qqbqqqnnnn")
def spread(results, table, keep, ends, first, words, begin, count, skip, n):
    """Results as columns for later steps: ``table`` (result, class, column, integer?, null)."""
    i = cuda.grid(1)
    while i < count * n:
        entry = (begin + i // n) * 5
        g = i % n
        p = place(table[entry + 1], g, n, keep, ends, first)
        null = table[entry + 4]
        word = results[table[entry] * n + p] if p >= 0 else null
        if skip == 1 and table[entry + 3] == 0 and not finite(word):
            word = null
        words[table[entry + 2] * n + g] = word
        i += cuda.gridsize(1)


@device("qqbqqqinnqbnn")
def finish(results, table, keep, ends, first, counts, pos, grouped, skip, out, bits, outputs, n):
    """All output columns in row order with their Arrow validity bitmaps.

    ``table`` (result, class, integer?, null). A thread writes eight rows and the byte that says
    which of them are null: rows that do not exist, and float results that are not finite (skip) or
    the null pattern (propagate). Rows of no symbol are the last ones, and are left out.
    """
    width = (n + 7) // 8
    i = cuda.grid(1)
    while i < outputs * width:
        entry = (i // width) * 4
        result = table[entry] * n
        to = (i // width) * n
        null = table[entry + 3]
        row = (i % width) * 8
        last = min(row + 8, counts[0])
        valid = 0
        while row < last:
            g = pos[row] if grouped == 1 else row
            p = place(table[entry + 1], g, n, keep, ends, first)
            word = results[result + p] if p >= 0 else null
            if table[entry + 2] == 1:
                ok = word != NULL_INT
            elif skip == 1:
                ok = finite(word)
            else:
                ok = word != NULL_BITS
            if skip == 1 and not ok:
                word = null
            out[to + row] = word
            if ok:
                valid |= 1 << (row & 7)
            row += 1
        bits[i] = valid
        i += cuda.gridsize(1)
