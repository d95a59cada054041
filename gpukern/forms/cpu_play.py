"""The compiled player of tapes: classes of rows, dense columns, loops and results of a batch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from gpukern.forms import cpu_back
from gpukern.forms import rows as prim
from gpukern.forms.rows import NULL_INT

# Words of an entry's row: where things begin, how many there are, and the code to call.
ROOM, RUNS, FOUND, COUNT, TIME, TIMES = range(6)
STATE, STATES, WIDTH, PAR, PARS, FIELDS, STRIDE = range(6, 13)
LOOP, ENTRY, ARENA, ARENAS = range(13, 17)  # the arena of windows in time: address and words
FIRST = 17  # where inputs begin, and after them outputs

RESULTS, OUTS = 5, 7  # of a step's line: its first result and how many, its rooms

SAME, OWN_RUNS, OWN_ROWS = range(3)  # of ``found``, for each class


def _call_entry(typing: Any, at: Any, row: Any, room: Any, states: Any, pars: Any) -> Any:
    """Call the entry at an address with the addresses of its arguments."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), list(values[1:]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


call_entry: Any = intrinsic(_call_entry)


def _fetch_add(typing: Any, words: Any, at: Any, more: Any) -> Any:
    """Add to a word that several threads change; returns what it was."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(words)(context, builder, values[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), values[2], "seq_cst")

    return types.int64(words, types.intp, types.int64), generate


fetch_add: Any = intrinsic(_fetch_add)
sched_yield = types.ExternalFunction("sched_yield", types.int32())
YIELDS = hasattr(os, "sched_yield")
PATIENCE = 1_000  # looks at what the others have done, some 10 ns each


@njit(cache=True, nogil=True, error_model="numpy")
def play(
    n, slots, seen, levels, marks, classes, gathers, steps, inputs, results, runs_at, rows, room,
    block, pars, found, local, touched, keep, lost, kept, pos, at, bits, nulls, values,
    taken, done, capacity, null,
):  # fmt: skip
    """Walk through the tables of ``tape_script.py`` for the n rows in the room.

    ``found``: of each class the first class that has the same rows, its runs and its rows.
    ``keep`` and ``lost``: the rows of each mark, and how many it lacks. ``kept`` and ``pos``: the
    rows of each class and their dense positions. ``at``: where what is gathered stands.

    Several threads may walk together, none waits for another to come: ``taken`` and ``done`` count
    the tasks of each stretch, and a stretch begins when all tasks of the one before are done.
    """
    for m in range(len(levels)):
        level = levels[m]
        stretch = 4 * m
        while True:
            a = level[0] + fetch_add(taken, stretch, 1)
            if a >= level[5]:
                break
            lost[a] = _mark(n, marks[a], room, keep[a * capacity :][:n])
            fetch_add(done, stretch, 1)
        _wait(done, stretch, level[5] - level[0])
        stretch += 1
        if fetch_add(taken, stretch, 1) == 0:
            _find_rows(
                n, m, level, slots, seen, classes, gathers, runs_at, room, found, local, touched,
                keep, lost, kept, pos, at, capacity,
            )  # fmt: skip
            fetch_add(done, stretch, 1)
        _wait(done, stretch, 1)
        stretch += 1
        while True:
            g = level[2] + fetch_add(taken, stretch, 1)
            if g >= level[7]:
                break
            c = found[SAME, gathers[g, 0]]
            if at[g] == gathers[g, 2]:
                _gather(n, gathers[g], found[OWN_ROWS, c], room, pos[c * capacity :][:n])
            fetch_add(done, stretch, 1)
        _wait(done, stretch, level[7] - level[2])
        stretch += 1
        while True:
            s = level[3] + fetch_add(taken, stretch, 1)
            if s >= level[8]:
                break
            c = found[SAME, steps[s, 1]]
            row = rows[steps[s, 0]]
            row[RUNS] = runs_at + 4 * capacity * c
            row[FOUND] = found[OWN_RUNS, c]
            row[COUNT] = found[OWN_ROWS, c]
            _point(steps[s], inputs[s], row, at, room, null)
            if row[COUNT]:
                call_entry(
                    row[ENTRY], row.ctypes.data, room.ctypes.data, block.ctypes.data,
                    pars.ctypes.data,
                )  # fmt: skip
            for r in range(steps[s, RESULTS], steps[s, RESULTS] + steps[s, RESULTS + 1]):
                place = results[r, 3]
                own = bits[place * (capacity // 8) :][: (n + 7) // 8]
                to = results[r, 1]
                out = values[place][:n] if to < 0 else room[to:][:n]
                nulls[place] = _back(
                    results[r], row[COUNT], room, pos[c * capacity :][:n], out, own
                )
            fetch_add(done, stretch, 1)
        _wait(done, stretch, level[8] - level[3])


@njit(cache=True, nogil=True)
def _wait(done, stretch, tasks):
    """Until all tasks of the stretch are done: others have them, so it takes no longer than one.

    Unless the other thread has lost its processor; then it may have this one's.
    """
    tries = 0
    while fetch_add(done, stretch, 0) < tasks:
        tries += 1
        if YIELDS and tries > PATIENCE:
            sched_yield()


@njit(cache=True, nogil=True)
def _find_rows(
    n, m, level, slots, seen, classes, gathers, runs_at, room, found, local, touched, keep, lost,
    kept, pos, at, capacity,
):  # fmt: skip
    """The rows of the level's classes, and where what is gathered for them will stand."""
    if m == 0:
        touched[capacity] = prim.number_symbols(slots[:n], seen, local, touched)
    symbols = touched[capacity]
    for c in range(0 if m == 0 else level[1], level[6]):
        own = kept[c * capacity :][:n]
        found[SAME, c] = _combine(c, n, capacity, classes, keep, lost, kept, own, found)
        if found[SAME, c] == c:
            runs = room[runs_at + 4 * capacity * c :][: 4 * symbols].reshape((symbols, 4))
            some = prim.index_rows(
                local[:n], touched[:symbols], own, c == 0, pos[c * capacity :][:n], runs
            )
            found[OWN_RUNS, c] = some
            found[OWN_ROWS, c] = runs[some - 1, 2] if some else 0
    for g in range(level[2], level[7]):
        at[g] = gathers[g, 2]
        before = gathers[g, 4]
        while before >= 0 and at[g] == gathers[g, 2]:
            # An earlier class with the same rows has it.
            if found[SAME, gathers[before, 0]] == found[SAME, gathers[g, 0]]:
                at[g] = at[before]
            before = gathers[before, 4]


@njit(cache=True, nogil=True)
def _mark(n, mark, room, keep):
    """The rows on which a column is there and in its domain; returns how many are not."""
    column = room[mark[0] :][:n]
    if mark[2]:
        return prim.mark_missing_int(column, keep)
    return prim.mark_missing(column.view(np.float64), mark[1], keep)


@njit(cache=True, nogil=True)
def _combine(c, n, capacity, classes, keep, lost, kept, own, found):
    """The rows of class c: all, those of an earlier class, or new ones, put into ``own``."""
    partial = False
    for k in range(classes[c, 0]):
        mark = classes[c, 1 + k]
        if lost[mark] == 0:
            continue
        mask = keep[mark * capacity :][:n]
        for i in range(n):
            own[i] = (own[i] | (not partial)) & mask[i]
        partial = True
    if not partial:
        return 0
    for e in range(1, c):
        if found[SAME, e] == e:
            other = kept[e * capacity :][:n]
            differ = 0
            for i in range(n):
                differ += other[i] != own[i]
            if differ == 0:
                return e
    return c


@njit(cache=True, nogil=True)
def _gather(n, gather, rows, room, pos):
    """Make a column dense."""
    column = room[gather[1] :][:n]
    dense = room[gather[2] :][: rows + 1]
    if gather[3]:
        floats = dense.view(np.float64)
        for i in range(n):
            floats[pos[i]] = column[i] if column[i] != NULL_INT else np.nan
    else:
        prim.to_dense(column, pos, dense)


@njit(cache=True, nogil=True)
def _point(step, inputs, row, at, room, null):
    """Tell an entry where the step's columns are, and end its outputs with a null: that is where
    the rows that do not exist point to."""
    row[TIMES] = 0
    if step[2] >= 0:
        row[TIME] = at[step[2]]
        row[TIMES] = row[COUNT]
    for k in range(step[3]):
        if inputs[k] >= 0:
            row[FIRST + k] = at[inputs[k]]
    floats = room.view(np.float64)
    for k in range(step.size - OUTS):
        if step[OUTS + k] > 0:
            end = step[OUTS + k] + row[COUNT]
            if (step[4] >> k) & 1:
                room[end] = NULL_INT
            else:
                floats[end] = null


@njit(cache=True, nogil=True)
def _back(result, rows, room, pos, out, bits):
    """Bring a dense result to row order; returns its nulls."""
    dense = room[result[0] :][: rows + 1]
    if result[2]:
        return cpu_back.to_rows_words(dense, pos, NULL_INT, out, bits)
    return cpu_back.to_rows(dense.view(np.float64), pos, out.view(np.float64), bits)
