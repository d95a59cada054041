"""The compiled part of lots: reading them off a scanner, looking for gaps, making rows of them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from collectors.lot import (
    ASKS,
    ASKS_END,
    BIDS,
    BIDS_END,
    DIFFERENCE,
    FIRST_SEQ,
    NONE,
    PREV_SEQ,
    QUOTE,
    RECV_TS,
    SEQ,
    SIDE,
    SYMBOL,
    TRADE,
    TS,
)
from collectors.scan.steps import MICROSECONDS

_jit = njit(cache=True, nogil=True, error_model="numpy")


@_jit
def place(kind, frames, found, symbol_of, recv_ns, columns, read, values, kinds, ints, floats):  # type: ignore[no-untyped-def]
    """Put messages of a kind into a lot; `columns` says where their values were `read` to: number,
    time (−1: there is none), is the buyer the maker; then those of the decimals."""
    seq, time, maker = columns[0], columns[1], columns[2]
    for at in frames:
        kinds[at] = kind
        _place(at, found, symbol_of, recv_ns, seq, time, read, ints)
        if kind == TRADE:
            ints[SIDE, at] = 1 - 2 * read[maker, at]
        for n in range(2 if kind == TRADE else 4):
            floats[n, at] = values[columns[3 + n], at]


@_jit
def place_differences(frames, found, symbol_of, recv_ns, columns, read, kinds, ints):  # type: ignore[no-untyped-def]
    """The same of differences; `columns`: number, time, first number, that of the one before (−1:
    there is none); then where levels of bids and asks begin, and behind each where they end."""
    seq, time, first, before, bids, asks = columns
    for at in frames:
        kinds[at] = DIFFERENCE
        _place(at, found, symbol_of, recv_ns, seq, time, read, ints)
        ints[FIRST_SEQ, at] = read[first, at]
        ints[PREV_SEQ, at] = read[before, at] if before >= 0 else NONE
        ints[BIDS, at], ints[BIDS_END, at] = read[bids, at], read[bids + 1, at]
        ints[ASKS, at], ints[ASKS_END, at] = read[asks, at], read[asks + 1, at]


@_jit
def _place(at, found, symbol_of, recv_ns, seq, time, read, ints):  # type: ignore[no-untyped-def]
    """What all have."""
    ints[RECV_TS, at] = recv_ns[at]
    ints[SYMBOL, at] = symbol_of[found[at]]
    ints[SEQ, at] = read[seq, at]
    ints[TS, at] = NONE
    if time >= 0:
        told = read[time, at]
        ints[TS, at] = told * (1_000_000 if told < MICROSECONDS else 1_000)


@_jit
def group(kinds, ints, order, ends):  # type: ignore[no-untyped-def]
    """Put the differences of each symbol one behind the other; they end at `ends`. Whether each is
    the next after the one before, and how many levels all have."""
    counts = np.zeros(len(ends), np.int64)
    levels = 0
    for at in range(len(kinds)):
        if kinds[at] == DIFFERENCE:
            counts[ints[SYMBOL, at]] += 1
            levels += ints[BIDS_END, at] - ints[BIDS, at] + ints[ASKS_END, at] - ints[ASKS, at]
    begin = 0
    for symbol in range(len(ends)):
        ends[symbol] = begin
        begin += counts[symbol]
    follow = True
    for at in range(len(kinds)):
        if kinds[at] == DIFFERENCE:
            symbol = ints[SYMBOL, at]
            place = ends[symbol]
            order[place] = at
            ends[symbol] += 1
            if counts[symbol] < 0:  # not the first
                seq = ints[SEQ, order[place - 1]]
                before = ints[PREV_SEQ, at]
                is_next = ints[FIRST_SEQ, at] <= seq + 1 if before == NONE else before == seq
                follow &= is_next and ints[SEQ, at] > seq
            counts[symbol] = -1
    return follow, levels


@_jit
def chain(kinds, ints, firsts, lasts):  # type: ignore[no-untyped-def]
    """Find each symbol's first and last trade and quote (−1: none so far). Whether the numbers of
    trades rise by one, and those of quotes rise."""
    trades = quotes = True
    for at in range(len(kinds)):
        kind = kinds[at]
        if kind not in (TRADE, QUOTE):
            continue
        symbol = ints[SYMBOL, at]
        before = lasts[kind - 1, symbol]
        if before < 0:
            firsts[kind - 1, symbol] = at
        elif kind == TRADE:
            trades &= ints[SEQ, at] - ints[SEQ, before] == 1
        else:
            quotes &= ints[SEQ, at] > ints[SEQ, before]
        lasts[kind - 1, symbol] = at
    return trades, quotes


@_jit
def add_trades(kinds, ints, floats, codes, row, own_ints, own_floats):  # type: ignore[no-untyped-def]
    """Rows of the trades, from `row` on; returns where they end."""
    for at in range(len(kinds)):
        if kinds[at] == TRADE:
            _common(ints, at, codes, own_ints, row)
            own_ints[SIDE, row] = ints[SIDE, at]
            own_floats[0, row] = floats[0, at]
            own_floats[1, row] = floats[1, at]
            row += 1
    return row


@_jit
def add_ticks(kinds, ints, floats, codes, in_force, row, own_ints, own_floats):  # type: ignore[no-untyped-def]
    """Rows of the trades and quotes, from `row` on, with the quotes in force, which are kept;
    returns where they end. What there is not is NaN or `NONE`."""
    for at in range(len(kinds)):
        kind = kinds[at]
        if kind not in (TRADE, QUOTE):
            continue
        _common(ints, at, codes, own_ints, row)
        quote = in_force[own_ints[SYMBOL, row]]
        if kind == QUOTE:
            for n in range(4):
                quote[n] = floats[n, at]
            quote[4] = math.nan
        is_trade = kind == TRADE
        own_ints[SIDE, row] = ints[SIDE, at] if is_trade else NONE
        own_floats[0, row] = floats[0, at] if is_trade else math.nan
        own_floats[1, row] = floats[1, at] if is_trade else math.nan
        for n in range(5):
            own_floats[2 + n, row] = quote[n]
        row += 1
    return row


@_jit
def add_differences(kinds, ints, levels, codes, row, own_ints, own_floats):  # type: ignore[no-untyped-def]
    """Rows of the levels of differences, from `row` on; returns where they end."""
    for at in range(len(kinds)):
        if kinds[at] != DIFFERENCE:
            continue
        for side in (1, -1):
            begin, end = ints[BIDS, at], ints[BIDS_END, at]
            if side < 0:
                begin, end = ints[ASKS, at], ints[ASKS_END, at]
            for level in range(begin, end):
                _common(ints, at, codes, own_ints, row)
                own_ints[FIRST_SEQ, row] = ints[FIRST_SEQ, at]
                own_ints[SIDE, row] = side
                own_floats[0, row], own_floats[1, row] = levels[level, 0], levels[level, 1]
                row += 1
    return row


@_jit
def _common(ints, at, codes, own_ints, row):  # type: ignore[no-untyped-def]
    """What every row has."""
    own_ints[RECV_TS, row] = ints[RECV_TS, at]
    own_ints[TS, row] = ints[TS, at]
    own_ints[SYMBOL, row] = codes[ints[SYMBOL, at]]
    own_ints[SEQ, row] = ints[SEQ, at]


@_jit
def pack(ints, floats, rows, layout, out, told):  # type: ignore[no-untyped-def]
    """Put the first rows of columns into memory as Arrow has it, one behind the other at every
    64th byte.

    `layout` says of each where its values are – rows of `ints`, from the front, or of `floats`: −1
    is the first – and how many bytes each shall have. What is `NONE` or NaN is missing. `told`
    says where its values begin, where the bits that say which are there, and how many are not.
    """
    real, half, byte = out.view(np.float64), out.view(np.int32), out.view(np.int8)
    at = 0
    for column in range(len(layout)):
        source, width = layout[column, 0], layout[column, 1]
        told[column, 0], missing = at, 0
        if source < 0:
            values, first = floats[-1 - source], at >> 3
            for row in range(rows):
                real[first + row] = values[row]
                missing += math.isnan(values[row])
        else:
            numbers = ints[source]
            for row in range(rows):
                missing += numbers[row] == NONE
            if width == 8:
                first = at >> 3
                for row in range(rows):
                    out[first + row] = numbers[row]
            elif width == 4:
                first = at >> 2
                for row in range(rows):
                    half[first + row] = numbers[row]
            else:
                for row in range(rows):
                    byte[at + row] = numbers[row]
        at = (at + rows * width + 63) & -64
        told[column, 1], told[column, 2] = at, missing
        if missing:
            for begin in range(0, rows, 8):
                bits = 0
                for row in range(begin, min(begin + 8, rows)):
                    if source < 0:
                        is_there = not math.isnan(floats[-1 - source, row])
                    else:
                        is_there = ints[source, row] != NONE
                    bits |= is_there << (row - begin)
                byte[at + (begin >> 3)] = np.int8(bits)
            at = (at + (rows + 7) // 8 + 63) & -64


def compile_all() -> None:
    """Compile, or load what was compiled before."""
    kinds, none = np.zeros(0, np.int8), np.zeros(0, np.int64)
    ints, floats = np.zeros((11, 0), np.int64), np.zeros((7, 0))
    codes, columns = np.zeros(0, np.int32), np.zeros(7, np.int64)
    place(TRADE, none, none, none, none, columns, ints, floats, kinds, ints, floats)
    place_differences(none, none, none, none, np.zeros(6, np.int64), ints, kinds, ints)
    chain(kinds, ints, ints, ints)
    group(kinds, ints, none, none)
    add_trades(kinds, ints, floats, codes, 0, ints, floats)
    add_ticks(kinds, ints, floats, codes, floats, 0, ints, floats)
    add_differences(kinds, ints, floats, codes, 0, ints, floats)
    layout = np.zeros((0, 3), np.int64)
    pack(ints, floats, 0, layout, none, layout)
