"""Many threads on one symbol: runs cut into chunks, each with a state row of its own.

The same idea as ``split.py`` on CPU threads, with everything decided on the device. A chunk is an
entry of a run table (slot, state row, lo, hi, emit) whose state row is a scratch one; ``info``
says whether it is its symbol's first, the number of its row lo among the symbol's rows, how many
rows of the run stand before it and, where a fold has segments, how many of its segment. A border
from which the state cannot be rebuilt is dropped: the chunk before it goes on to the next.
"""

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gpukern.forms.cuda import INFO, RUN, THREADS
from gpukern.forms.device_rows import device

cuda: Any = None  # the backend puts numba.cuda or its simulator here
ROWS, TIME, STEP, BLOCKS = 0, 1, 2, 3  # how a chunk finds the row it starts from


@device("qnnqn")
def count_chunks(runs, length, extra, ends, symbols):
    """How many chunks each run may have."""
    s = cuda.grid(1)
    while s < symbols:
        rows = runs[s * RUN + 3] - runs[s * RUN + 2]
        ends[s] = (rows + length - 1) // length + (extra if rows > 0 else 0)
        s += cuda.gridsize(1)


@register_jitable
def run_of(c, ends, symbols):
    """The run that chunk c belongs to; ``ends`` is the running count of chunks."""
    first = 0
    last = symbols - 1
    while first < last:
        mid = (first + last) >> 1
        if ends[mid] <= c:
            first = mid + 1
        else:
            last = mid
    return first


@register_jitable
def border(lo, hi, j, length, mode, ahead, full):
    """The first row of chunk j of a run; a cumulative fold's first completes the open block."""
    if j == 0:
        return lo
    if mode == BLOCKS:
        return min(lo + ahead - full + j * length, hi)
    return min(lo + j * length, hi)


@register_jitable
def start_of(row, lo, mode, span, lags, number, t):
    """The row to start from so that ``row`` finds its exact state; −1 if it lies before the run.

    ``number`` is the number of row ``lo`` among the symbol's rows.
    """
    if mode == BLOCKS:
        return row
    if mode == STEP:
        return max(lo, row - span)
    if mode == ROWS:
        place = number + row - lo - lags
        start = row - (place - (place // span - 1) * span)
        return start if start - lags >= lo else -1
    limit = t[row] - span
    if lags >= 0:  # folds: the beginning of the cell before
        limit = (t[row] // span - 1) * span - 1
    first = lo
    last = row
    while first < last:
        mid = (first + last) >> 1
        if t[mid] <= limit:
            first = mid + 1
        else:
            last = mid
    return first if first - max(lags, 0) > lo else -1


@device("qqnnnqnnnqnnnqqn")
def find_chunks(
    runs, ends, length, mode, lags, pari, window, stride, words, sti, rows_word, full_word, ss, t,
    starts, symbols,
):  # fmt: skip
    """starts[2c] = chunk c's first row, starts[2c + 1] = where its state is built from, or −1.

    A thread per chunk that a run may have. Steps have no window: ``window`` is then a number of
    rows to run ahead, as a negative one.
    """
    total = ends[symbols - 1]
    c = cuda.grid(1)
    while c < total:
        run = run_of(c, ends, symbols)
        lo = runs[run * RUN + 2]
        hi = runs[run * RUN + 3]
        slot = runs[run * RUN]
        number = sti[slot * ss + rows_word] if rows_word >= 0 else 0
        full = sti[slot * ss + full_word] if mode == BLOCKS else 0
        span = pari[slot * stride * words + window] if window > 0 else -window
        j = c - (ends[run - 1] if run > 0 else 0)
        row = border(lo, hi, j, length, mode, max(lags - number, 0), full)
        start = lo
        if j > 0:
            start = start_of(row, lo, mode, span, lags, number, t) if row < hi else -1
        starts[2 * c] = row
        starts[2 * c + 1] = start
        c += cuda.gridsize(1)


@device("qqqn")
def thin_starts(runs, ends, starts, symbols):
    """Drop chunks whose state is built from rows before the chunk before; a block to a symbol.

    So no row is read for more than two chunks, and what all of them need together is known without
    asking. The order allows one thread only; the others bring it the rows and take them away.
    """
    rows = cuda.shared.array(THREADS, np.int64)
    froms = cuda.shared.array(THREADS, np.int64)
    me = cuda.threadIdx.x
    s = cuda.blockIdx.x
    while s < symbols:
        before = runs[s * RUN + 2]
        first = (ends[s - 1] if s > 0 else 0) + 1
        while first < ends[s]:
            c = first + me
            if c < ends[s]:
                rows[me] = starts[2 * c]
                froms[me] = starts[2 * c + 1]
            cuda.syncthreads()
            if me == 0:
                j = 0
                tile = min(ends[s] - first, cuda.blockDim.x)
                while j < tile:
                    if froms[j] >= before:
                        before = int(rows[j])
                    else:
                        froms[j] = -1
                    j += 1
            cuda.syncthreads()
            if c < ends[s]:
                starts[2 * c + 1] = froms[me]
            first += cuda.blockDim.x
        s += cuda.gridDim.x


@device("qqqqnnqqqqqn")
def cut_runs(
    runs, ends, starts, sti, ss, rows_word, chunks, info, spans, final, counts, symbols
):  # fmt: skip
    """Fill the table of chunks; a thread per chunk that a run may have."""
    total = ends[symbols - 1]
    c = cuda.grid(1)
    while c < total:
        run = run_of(c, ends, symbols)
        begin = ends[run - 1] if run > 0 else 0
        lo = runs[run * RUN + 2]
        hi = runs[run * RUN + 3]
        slot = runs[run * RUN]
        row = starts[2 * c]
        start = starts[2 * c + 1]
        stop = row
        if start >= 0:
            # On to the next border from which a chunk can start.
            stop = hi
            ahead = c + 1
            while ahead < ends[run]:
                if starts[2 * ahead + 1] >= 0:
                    stop = starts[2 * ahead]
                    ahead = ends[run]
                ahead += 1
        else:
            start = row
        chunks[c * RUN] = slot
        chunks[c * RUN + 1] = c
        chunks[c * RUN + 2] = start
        chunks[c * RUN + 3] = stop
        chunks[c * RUN + 4] = row
        info[c * INFO] = 1 if c == begin else 0
        info[c * INFO + 1] = (sti[slot * ss + rows_word] if rows_word >= 0 else 0) + start - lo
        info[c * INFO + 2] = start - lo
        if stop == hi and (row < hi or c == begin):
            final[run] = c
        if c == begin:
            spans[2 * run] = c
            spans[2 * run + 1] = ends[run]
        if c == 0:
            counts[2] = total
        c += cuda.gridsize(1)


@device("qqqqn")
def room_of_chunks(chunks, info, live, room, total):
    """Arena rows a chunk needs, from which ``room`` becomes its region by a running sum."""
    c = cuda.grid(1)
    while c < total:
        rows = chunks[c * RUN + 3] - chunks[c * RUN + 2]
        if info[c * INFO] == 1:
            rows += live[chunks[c * RUN]]
        room[c + 1] = rows + 2
        if c == 0:
            room[0] = 0
        c += cuda.gridsize(1)
