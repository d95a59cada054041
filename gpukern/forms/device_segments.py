"""Many threads on a cumulative fold that starts anew: chunks of whole blocks for any segments.

A segment's blocks are counted from its first row, so where they begin depends on the rows. Windows
of a block's length are searched for segments that begin in them, the beginnings are carried from
window to window, and a chunk goes from the first block that begins in a window to the first that
begins in the next: every window has one. A chunk so holds at most one block of the segment that it
begins in and one of the segment that it ends in, and what it does to the base of the next chunk is
one absorption, of an empty base if a segment begins in it.

The first chunk of a run is what completes the symbol's open block; the chunk after it belongs to
the run's first window.
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gpukern.forms.cuda import INFO, RUN, THREADS
from gpukern.forms.device_cut import run_of
from gpukern.forms.device_rows import device

cuda: Any = None  # the backend puts numba.cuda or its simulator here
SEGMENTS = 4  # beside the ways in which other chunks find the row they start from


@device("qqnqqn")
def cut_windows(runs, ends, length, windows, counts, symbols):
    """The window of every chunk as a run whose emit is the symbol's lo; empty for the first."""
    total = ends[symbols - 1]
    c = cuda.grid(1)
    while c < total:
        run = run_of(c, ends, symbols)
        lo = runs[run * RUN + 2]
        hi = runs[run * RUN + 3]
        w = c - 1 - (ends[run - 1] if run > 0 else 0)
        windows[c * RUN] = runs[run * RUN]
        windows[c * RUN + 1] = runs[run * RUN + 1]
        windows[c * RUN + 2] = min(lo + w * length, hi) if w >= 0 else lo
        windows[c * RUN + 3] = min(lo + (w + 1) * length, hi) if w >= 0 else lo
        windows[c * RUN + 4] = lo
        if c == 0:
            counts[2] = total
        c += cuda.gridsize(1)


@device("qqqnnnnqqn")
def carry_starts(runs, ends, sti, ss, rows_word, k_word, lags, lasts, starts, symbols):
    """starts[c] = the row at which the segment before window c began; a block of threads a symbol.

    ``lasts`` holds the last beginning in every window, −1 if there is none. A segment that began
    before these rows began at a row before the run's first.
    """
    latest = cuda.shared.array(THREADS, np.int64)
    me = cuda.threadIdx.x
    s = cuda.blockIdx.x
    while s < symbols:
        begin = ends[s - 1] if s > 0 else 0
        windows = ends[s] - begin
        share = (windows + cuda.blockDim.x - 1) // cuda.blockDim.x
        first = begin + min(me * share, windows)
        last = begin + min((me + 1) * share, windows)
        found = -1
        c = last - 1
        while c >= first and found < 0:
            found = lasts[c]
            c -= 1
        latest[me] = found
        cuda.syncthreads()
        row = runs[s * RUN] * ss
        start = runs[s * RUN + 2] + max(lags - sti[row + rows_word], 0) - sti[row + k_word]
        other = 0
        while other < me:
            if latest[other] >= 0:
                start = latest[other]
            other += 1
        c = first
        while c < last:
            starts[c] = start
            if lasts[c] >= 0:
                start = lasts[c]
            c += 1
        cuda.syncthreads()  # nobody writes the next symbol's while these are read
        s += cuda.gridDim.x


@register_jitable
def block_begin(c, windows, firsts, starts, block, hi):
    """The first row in chunk c's window at which a block begins."""
    row = windows[c * RUN + 2]
    row += (starts[c] - row) % block
    if firsts[c] >= 0:
        row = min(row, firsts[c])
    return min(row, hi)


@device("qqqqqnqnnqqqqn")
def cut_segments(
    runs, ends, windows, firsts, starts, block, sti, ss, rows_word, chunks, info, spans, final,
    symbols,
):  # fmt: skip
    """Fill the table of chunks as ``cut_runs`` does; a thread per chunk."""
    total = ends[symbols - 1]
    c = cuda.grid(1)
    while c < total:
        run = run_of(c, ends, symbols)
        begin = ends[run - 1] if run > 0 else 0
        slot = runs[run * RUN]
        lo = runs[run * RUN + 2]
        hi = runs[run * RUN + 3]
        row = block_begin(c, windows, firsts, starts, block, hi) if c > begin else lo
        stop = hi
        if c + 1 < ends[run]:
            stop = block_begin(c + 1, windows, firsts, starts, block, hi)
        chunks[c * RUN] = slot
        chunks[c * RUN + 1] = c
        chunks[c * RUN + 2] = row
        chunks[c * RUN + 3] = stop
        chunks[c * RUN + 4] = row
        info[c * INFO] = 1 if c == begin else 0
        info[c * INFO + 1] = sti[slot * ss + rows_word] + row - lo
        info[c * INFO + 2] = row - lo
        info[c * INFO + 3] = row - starts[c]
        if stop == hi and (row < hi or c == begin):
            final[run] = c
        if c == begin:
            spans[2 * run] = c
            spans[2 * run + 1] = ends[run]
        c += cuda.gridsize(1)
