"""The compiled player of tapes: classes of rows, dense columns, loops and results of a batch.

Several threads may walk together; none waits for another to come. A task may be taken when what it
waits for is done; ``tape_script.py`` has put them in an order in which long ways come first.

A long batch is cut into stretches. While the last tasks of one are done, the first of the next are
taken: a step waits for itself on the stretch before, and every other stretch has rooms of its own.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit
from numba.core import types
from numba.extending import intrinsic

from gpukern.forms import cpu_back
from gpukern.forms import rows as prim
from gpukern.forms.rows import NULL_INT

# Words of an entry's line: what there is, where (addresses), and the code to call.
RUNS, FOUND, COUNT, TIME, TIMES = range(5)
STATE, STATES, WIDTH, PAR, PARS, FIELDS, STRIDE = range(5, 12)
LOOP, ENTRY, ARENA, ARENAS = range(12, 16)
FIRST = 16  # where inputs begin, and after them outputs
ABSENT, NULLS = STRIDE, RUNS  # of a line for a loop in row order, with bitmaps after the outputs

NUMBER, MARK, CLASS, GATHER, STEP, BACK, MAP = range(7)  # tasks
FLOATS, WORDS, FLAGS, SIGNS = range(4)  # results: as they are, or packed to bits or bytes
SAME, OWN_RUNS, OWN_ROWS, MASK = range(4)  # of ``found``, for each class
SYMBOLS = 4  # of ``found`` for the class of all rows: symbols that may have rows
IN_ORDER = 1  # instead of the mask of the class of all rows: its positions count up
UNKNOWN, FULL = -1, -2  # of ``complete``; else the class on all rows of which a result is there


class Tables(NamedTuple):
    """What ``tape_script.py`` has written, and the lines of entries."""

    tasks: np.ndarray
    firsts: np.ndarray  # where the readers of each task begin
    readers: np.ndarray
    marks: np.ndarray
    classes: np.ndarray
    gathers: np.ndarray
    steps: np.ndarray
    inputs: np.ndarray
    outs: np.ndarray
    results: np.ndarray
    lines: np.ndarray


class Rooms(NamedTuple):
    """What belongs to a stretch; the first index says which of them."""

    refs: np.ndarray  # of each column in row order: address, bytes from row to row of the batch
    dense: np.ndarray  # addresses of rooms for dense columns
    local: np.ndarray  # the number of each row's symbol
    touched: np.ndarray  # the slot of each of those symbols
    lost: np.ndarray  # how many rows each mark lacks
    marked: np.ndarray  # which mask each mark has
    masks: np.ndarray  # of marks, then of classes
    found: np.ndarray  # of each class the first that has the same rows, its runs, rows, mask
    pos: np.ndarray  # dense positions of the rows of each class
    runs: np.ndarray
    at: np.ndarray  # where what is gathered stands
    complete: np.ndarray  # on which rows each column is there, if that is known
    stands: np.ndarray  # and where its dense rows are


class Walk(NamedTuple):
    """What belongs to a batch, and what threads have for themselves."""

    slots: np.ndarray
    seen: np.ndarray
    wait: np.ndarray  # for how many others each task of each stretch has to wait
    taken: np.ndarray
    left: np.ndarray  # tasks of each stretch
    parts: np.ndarray  # of each step of each stretch
    targets: np.ndarray  # of each output: address, kind, address of the bitmap
    nulls: np.ndarray
    words: np.ndarray  # of each thread: rooms for results that nobody reads
    bits: np.ndarray


def _call_entry(typing: Any, at: Any, line: Any) -> Any:
    """Call the entry at an address with the address of its line."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), [values[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _fetch_add(typing: Any, words: Any, at: Any, more: Any) -> Any:
    """Add to a word that several threads change; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(words)(context, builder, values[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), values[2], "seq_cst")

    return types.int64(words, types.intp, types.int64), generate


def _look(typing: Any, words: Any, at: Any) -> Any:
    """A word that several threads change."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(words)(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "seq_cst", 8)

    return types.int64(words, types.intp), generate


def _pointer(dtype: Any) -> Any:
    """A function that makes an address a pointer to elements of a type."""

    def at(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(dtype)(types.int64), generate

    return intrinsic(at)


call_entry: Any = intrinsic(_call_entry)
fetch_add: Any = intrinsic(_fetch_add)
look: Any = intrinsic(_look)
floats_at: Any = _pointer(types.float64)
words_at: Any = _pointer(types.int64)
bytes_at: Any = _pointer(types.uint8)
signs_at: Any = _pointer(types.int8)
sched_yield = types.ExternalFunction("sched_yield", types.int32())
YIELDS = hasattr(os, "sched_yield")
PATIENCE = 100  # looks for a task, some 0.1 µs each


@njit(cache=True, nogil=True, error_model="numpy")
def play(who, n, stretch, skip, null, tables, rooms, walk):
    """Walk through the tables for the n rows of a batch, in stretches of so many rows.

    ``who`` is the number of the thread; ``skip`` whether rows with missing values do not exist.
    Returns when everything is done, whoever did it.
    """
    stretches = -(-n // stretch)
    tries = k = now = ahead = 0
    while k < stretches:
        if look(walk.left, k) == 0:
            k += 1
            now, ahead = ahead, 0
            continue
        at = k
        task, now = _take(k, now, tables, walk)
        if task < 0 and k + 1 < stretches and len(rooms.refs) > 1:
            at = k + 1
            task, ahead = _take(at, ahead, tables, walk)
        if task < 0:
            # Others have what is left, so it takes no longer than a task, unless the other thread
            # has lost its processor; then it may have this one's.
            tries += 1
            if YIELDS and tries > PATIENCE:
                sched_yield()
            continue
        tries = 0
        lo = at * stretch
        if _do(who, task, at, lo, min(stretch, n - lo), skip, null, tables, rooms, walk):
            _release(task, at, stretches, tables, walk)
        fetch_add(walk.left, at, -1)


@njit(cache=True, nogil=True, error_model="numpy")
def _take(k, begin, tables, walk):
    """The first task of a stretch that waits for nothing, or −1; all before ``begin`` are taken."""
    tasks = len(tables.tasks)
    base = k * tasks
    while begin < tasks and look(walk.taken, base + begin):
        begin += 1
    for task in range(begin, tasks):
        free = look(walk.wait, base + task) == 0 and look(walk.taken, base + task) == 0
        if free and fetch_add(walk.taken, base + task, 1) == 0:
            return task, begin
    return -1, begin


@njit(cache=True, nogil=True, error_model="numpy")
def _release(task, k, stretches, tables, walk):
    """The tasks that wait for this one wait for one less."""
    tasks = len(tables.tasks)
    for i in range(tables.firsts[task], tables.firsts[task + 1]):
        reader = tables.readers[i]
        if reader >= 0:
            fetch_add(walk.wait, k * tasks + reader, -1)
        elif k + 1 < stretches:
            fetch_add(walk.wait, (k + 1) * tasks + ~reader, -1)


@njit(cache=True, nogil=True, error_model="numpy")
def _do(who, task, k, lo, n, skip, null, tables, rooms, walk):
    """Do a task on the n rows from ``lo``; returns whether others need not wait any more."""
    kind, index, part = tables.tasks[task, 0], tables.tasks[task, 1], tables.tasks[task, 2]
    room = k % len(rooms.refs)
    if kind == NUMBER:
        _number(room, lo, n, rooms, walk)
    elif kind == MARK:
        _mark(index, room, lo, n, tables, rooms)
    elif kind == CLASS:
        _class(index, room, lo, n, tables, rooms, walk)
    elif kind == GATHER:
        _gather(index, room, lo, n, skip, tables, rooms)
    elif kind == MAP:
        _map(who, index, room, lo, n, tables, rooms, walk)
    elif kind == BACK:
        _back(who, index, room, lo, n, skip, null, tables, rooms, walk)
    else:
        parts, apart = tables.steps[index, 4], tables.steps[index, 6]
        _step(who, index, part, room, tables, rooms, walk)
        if parts > 1 and fetch_add(walk.parts, k * len(tables.steps) + index, -1) > 1:
            return False  # who does the last part
        if not apart:
            _back(who, index, room, lo, n, skip, null, tables, rooms, walk)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _address(ref, room, lo, rooms):
    """Where the rows from ``lo`` of a column stand in row order."""
    return rooms.refs[room, ref, 0] + rooms.refs[room, ref, 1] * lo


@njit(cache=True, nogil=True, error_model="numpy")
def _number(room, lo, n, rooms, walk):
    """Number the symbols; index all rows. One slot alone is that of all rows."""
    found, touched, runs = rooms.found[room, 0], rooms.touched[room], rooms.runs[room, 0]
    pos = rooms.pos[room, 0]
    found[SAME], found[OWN_ROWS] = 0, n
    if len(walk.slots) == 1:
        touched[0] = walk.slots[0]
        found[OWN_RUNS] = found[SYMBOLS] = 1
        runs[0, 0], runs[0, 1], runs[0, 2], runs[0, 3] = touched[0], 0, n, 0
        if found[MASK] != IN_ORDER:  # else they are as they were on the stretch before
            found[MASK] = IN_ORDER
            for i in range(len(pos)):
                pos[i] = i
                rooms.local[room, i] = 0
        return
    found[MASK] = 0
    symbols = _by_slot(n, walk)
    if symbols:
        for slot in range(symbols):
            touched[slot] = slot
    else:
        local = rooms.local[room, :n]
        symbols = prim.number_symbols(walk.slots[lo : lo + n], walk.seen, local, touched)
    found[SYMBOLS] = symbols
    local = _local(room, lo, n, rooms, walk)
    every = np.empty(0, np.bool_)
    found[OWN_RUNS] = prim.index_rows(local, touched[:symbols], every, True, pos[:n], runs)


@njit(cache=True, nogil=True, error_model="numpy")
def _by_slot(n, walk):
    """How many symbols there are, should so many rows be counted by slot rather than numbered."""
    return len(walk.seen) if len(walk.seen) <= n else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _local(room, lo, n, rooms, walk):
    """The number of each row's symbol among those of the stretch."""
    if len(walk.slots) > 1 and _by_slot(n, walk):
        return walk.slots[lo : lo + n]
    return rooms.local[room, :n]


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(m, room, lo, n, tables, rooms):
    """Find the rows on which a column is there and in its domain."""
    ref, domain, integers = tables.marks[m, 0], tables.marks[m, 1], tables.marks[m, 2]
    rooms.lost[room, m] = 0
    rooms.marked[room, m] = m
    known = rooms.complete[room, ref]
    if domain == prim.ANY and known == FULL:
        return
    if domain == prim.ANY and known != UNKNOWN:
        rooms.lost[room, m] = n - rooms.found[room, known, OWN_ROWS]
        rooms.marked[room, m] = rooms.found[room, known, MASK]
        return
    mask = rooms.masks[room, m, :n]
    at = _address(ref, room, lo, rooms)
    if integers:
        rooms.lost[room, m] = prim.mark_missing_int(carray(words_at(at), (n,)), mask)
        return
    column = carray(floats_at(at), (n,))
    if not prim.all_present(column, domain):
        rooms.lost[room, m] = prim.mark_missing(column, domain, mask)


@njit(cache=True, nogil=True, error_model="numpy")
def _class(c, room, lo, n, tables, rooms, walk):
    """The rows of a class: all, those of an earlier class, or others, which are numbered."""
    found = rooms.found[room, c]
    found[SAME] = 0
    partial = 0
    own = rooms.masks[room, len(tables.marks) + c, :n]
    for i in range(tables.classes[c, 0]):
        m = tables.classes[c, 1 + i]
        if rooms.lost[room, m] == 0:
            continue
        mask = rooms.masks[room, rooms.marked[room, m], :n]
        partial += 1
        if partial == 1:
            found[MASK] = rooms.marked[room, m]
        else:
            before = rooms.masks[room, found[MASK], :n]
            for j in range(n):
                own[j] = before[j] & mask[j]
            found[MASK] = len(tables.marks) + c
    if not partial:
        return
    mask = rooms.masks[room, found[MASK], :n]
    for e in range(1, c):
        if rooms.found[room, e, SAME] == e:
            if rooms.found[room, e, MASK] == found[MASK]:
                found[SAME] = e
                return
            other = rooms.masks[room, rooms.found[room, e, MASK], :n]
            differ = 0
            for j in range(n):
                differ += other[j] != mask[j]
            if differ == 0:
                found[SAME] = e
                return
    found[SAME] = c
    touched, runs = rooms.touched[room], rooms.runs[room, c]
    local, symbols = _local(room, lo, n, rooms, walk), rooms.found[room, 0, SYMBOLS]
    some = prim.index_rows(local, touched[:symbols], mask, False, rooms.pos[room, c, :n], runs)
    found[OWN_RUNS] = some
    found[OWN_ROWS] = runs[some - 1, 2] if some else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(g, room, lo, n, skip, tables, rooms):
    """Make a column dense, unless it is already."""
    gather = tables.gathers[g]
    ref, own, cast, before = gather[1], gather[2], gather[3], gather[4]
    c = rooms.found[room, gather[0], SAME]
    if not cast and rooms.complete[room, ref] == c:
        rooms.at[room, g] = rooms.stands[room, ref]
        return
    while before >= 0:
        # An earlier class with the same rows has it.
        if rooms.found[room, tables.gathers[before, 0], SAME] == c:
            rooms.at[room, g] = rooms.at[room, before]
            return
        before = tables.gathers[before, 4]
    at = _address(ref, room, lo, rooms)
    rows = rooms.found[room, c, OWN_ROWS]
    as_it_is = skip or gather[6]
    if _in_order(room, rows, n, rooms) and as_it_is and not cast:
        rooms.at[room, g] = at
        return
    to = rooms.dense[room, own]
    rooms.at[room, g] = to
    pos = rooms.pos[room, c, :n]
    column = carray(words_at(at), (n,))
    if cast:
        floats = carray(floats_at(to), (rows + 1,))
        for i in range(n):
            floats[pos[i]] = column[i] if column[i] != NULL_INT else np.nan
    elif as_it_is:
        dense = carray(words_at(to), (rows + 1,))
        prim.to_dense(column, pos, dense, rooms.found[room, c, OWN_RUNS])
    else:
        values, own_dense = carray(floats_at(at), (n,)), carray(floats_at(to), (rows + 1,))
        prim.to_dense_nan(values, pos, gather[5], own_dense)


@njit(cache=True, nogil=True, error_model="numpy")
def _in_order(room, rows, n, rooms):
    """Whether dense order is row order: all rows are there and belong to one symbol."""
    return rows == n and rooms.found[room, 0, OWN_RUNS] == 1


@njit(cache=True, nogil=True, error_model="numpy")
def _step(who, s, part, room, tables, rooms, walk):
    """Run a loop on the rows of a class, or on some of their symbols."""
    step = tables.steps[s]
    clock, ins, parts = step[2], step[3], step[4]
    c = rooms.found[room, step[1], SAME]
    found, rows = rooms.found[room, c, OWN_RUNS], rooms.found[room, c, OWN_ROWS]
    runs = rooms.runs[room, c]
    begin, end = _cut(runs, found, rows, part, parts), _cut(runs, found, rows, part + 1, parts)
    if begin == end:
        return
    line = tables.lines[step[0] + part]
    line[RUNS] = runs.ctypes.data + 32 * begin
    line[FOUND] = end - begin
    line[COUNT] = rows
    line[TIMES] = 0
    if clock >= 0:
        line[TIME], line[TIMES] = rooms.at[room, clock], rows
    for i in range(ins):
        if tables.inputs[s, i] >= 0:
            line[FIRST + i] = rooms.at[room, tables.inputs[s, i]]
    for i in range(tables.outs[s, 0]):
        line[FIRST + ins + i] = _out(who, s, i, room, tables, rooms, walk)
    call_entry(line[ENTRY], line.ctypes.data)


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(runs, found, rows, part, parts):
    """The first run of a part, when rows are shared out."""
    if part == 0:
        return 0
    if part == parts:
        return found
    first = rows * part // parts
    lo, hi = 0, found
    while lo < hi:
        middle = (lo + hi) // 2
        if runs[middle, 1] < first:
            lo = middle + 1
        else:
            hi = middle
    return lo


@njit(cache=True, nogil=True, error_model="numpy")
def _out(who, s, i, room, tables, rooms, walk):
    """Where an output of a step stands dense."""
    own = tables.outs[s, 1 + i]
    return rooms.dense[room, own] if own >= 0 else walk.words[who, i].ctypes.data


@njit(cache=True, nogil=True, error_model="numpy")
def _rows_of(who, r, i, room, lo, tables, rooms, walk):
    """Where a result goes in row order, and its bitmap; packed ones are words before."""
    place, ref = tables.results[r, 0], tables.results[r, 1]
    bits = walk.bits[who, i].ctypes.data
    if place >= 0:
        bits = walk.targets[place, 2] + lo // 8
        if walk.targets[place, 1] <= WORDS:
            return walk.targets[place, 0] + 8 * lo, bits
    if ref >= 0:
        return _address(ref, room, lo, rooms), bits
    return walk.words[who, i].ctypes.data, bits


@njit(cache=True, nogil=True, error_model="numpy")
def _back(who, s, room, lo, n, skip, null, tables, rooms, walk):
    """Bring a step's dense results to row order."""
    c = rooms.found[room, tables.steps[s, 1], SAME]
    rows, pos = rooms.found[room, c, OWN_ROWS], rooms.pos[room, c, :n]
    scratch = len(walk.words[who]) - 1
    for i in range(tables.outs[s, 0]):
        r = tables.steps[s, 5] + i
        place, ref, integers = tables.results[r, 0], tables.results[r, 1], tables.results[r, 2]
        if place < 0 and ref < 0:
            continue
        dense_at = _out(who, s, i, room, tables, rooms, walk)
        out_at, bits_at = _rows_of(who, r, scratch, room, lo, tables, rooms, walk)
        bits = carray(bytes_at(bits_at), ((n + 7) // 8,))
        floats = carray(floats_at(dense_at), (rows + 1,))
        words = carray(words_at(dense_at), (rows + 1,))
        # A null follows the last element: the rows that do not exist point there.
        out, to = carray(words_at(out_at), (n,)), carray(floats_at(out_at), (n,))
        stream = cpu_back.worth_streaming(n, out)
        prim.fetch(words, rooms.found[room, c, OWN_RUNS])
        if integers:
            words[rows] = NULL_INT
            lost = cpu_back.to_rows(words, pos, NULL_INT, stream, out, bits)
        elif not skip:
            floats[rows] = null
            lost = cpu_back.to_rows(words, pos, prim.NULL_BITS, stream, out, bits)
        elif _in_order(room, rows, n, rooms):
            lost = cpu_back.to_rows(floats, None, np.nan, stream, to, bits)
        else:
            floats[rows] = null
            lost = cpu_back.to_rows(floats, pos, np.nan, stream, to, bits)
        if stream:
            cpu_back.settle()
        if ref >= 0 and skip:
            rooms.complete[room, ref] = c if n - lost == rows else FULL if lost == 0 else UNKNOWN
            rooms.stands[room, ref] = dense_at
        _tell(place, out_at, lost, lo, n, walk)


@njit(cache=True, nogil=True, error_model="numpy")
def _tell(place, out_at, lost, lo, n, walk):
    """Count an output's nulls; pack it."""
    if place < 0:
        return
    if lost:
        fetch_add(walk.nulls, place, lost)
    to, kind = walk.targets[place, 0], walk.targets[place, 1]
    if kind == FLAGS:
        packed = carray(bytes_at(to + lo // 8), ((n + 7) // 8,))
        prim.pack_bools(carray(words_at(out_at), (n,)), packed)
    elif kind == SIGNS:
        prim.narrow(carray(words_at(out_at), (n,)), carray(signs_at(to + lo), (n,)))


@njit(cache=True, nogil=True, error_model="numpy")
def _map(who, s, room, lo, n, tables, rooms, walk):
    """Run a loop that reads the current row alone, from and to columns in row order."""
    ins, results, outs = tables.steps[s, 3], tables.steps[s, 5], tables.outs[s, 0]
    line = tables.lines[tables.steps[s, 0] + room]
    line[COUNT] = n
    lost = np.zeros(outs, np.int64)
    line[NULLS] = lost.ctypes.data
    for i in range(ins):
        if tables.inputs[s, i] >= 0:
            line[FIRST + i] = _address(tables.inputs[s, i], room, lo, rooms)
    for i in range(outs):
        out, bits = _rows_of(who, results + i, i, room, lo, tables, rooms, walk)
        line[FIRST + ins + i] = out
        line[FIRST + ins + outs + i] = bits
    call_entry(line[ENTRY], line.ctypes.data)
    for i in range(outs):
        place, ref = tables.results[results + i, 0], tables.results[results + i, 1]
        if ref >= 0:
            rooms.complete[room, ref] = UNKNOWN if lost[i] else FULL
        _tell(place, line[FIRST + ins + i], lost[i], lo, n, walk)
