"""Row primitives: missing rows out, rows of one symbol together, results back in row order.

A *class* of rows is the set of rows that exist for a kernel (none of its inputs missing). Its
index is ``pos``: the dense position of every row, or for rows that do not exist the position
after the last one. Dense rows of one symbol are contiguous and in row order, so a dense column is
what a kernel sees; with a null after its last element ``dense[pos]`` is a result in row order.
"""

import math

import numpy as np
from numba import njit

from gpukern.forms.scratch import announce

will_write, will_read = announce(write=True), announce(write=False)
ANY, POSITIVE, NON_NEGATIVE = 0, 1, 2
NULL_INT = -(2**63)
ONE = np.uint64(1)
INFINITY = np.uint64(0x7FF0_0000_0000_0000)  # the word of a float
# Float null of nan_policy='propagate', where NaN is a value: a quiet NaN with this payload.
NULL_BITS = 0x7FF8_6E75_6C6C_0001
# Rows by which a write is announced where it goes to one of many places in turn: with more than
# MANY symbols their lines are in the second cache at best, and writes would wait for each other.
AHEAD = 96
MANY = 256


@njit(cache=True, nogil=True, error_model="numpy")
def mark_missing(column, domain, keep):
    """keep[i] = the float column is present and in its domain; return how many are not."""
    kept = 0
    if domain == POSITIVE:
        for i in range(len(keep)):
            ok = (column[i] - column[i] == 0.0) & (column[i] > 0.0)
            keep[i] = ok
            kept += ok
    elif domain == NON_NEGATIVE:
        for i in range(len(keep)):
            ok = (column[i] - column[i] == 0.0) & (column[i] >= 0.0)
            keep[i] = ok
            kept += ok
    else:
        for i in range(len(keep)):
            ok = column[i] - column[i] == 0.0
            keep[i] = ok
            kept += ok
    return len(keep) - kept


@njit(cache=True, nogil=True, error_model="numpy")
def all_present(column, domain):
    """Whether no element is missing or outside the domain (stops at the first such block)."""
    if domain == POSITIVE:
        return _all_positive(column.view(np.uint64))
    least = -math.inf if domain == ANY else 0.0
    for begin in range(0, len(column), 1024):
        block = column[begin : begin + 1024]
        bad = 0
        for i in range(len(block)):
            bad += (not block[i] >= least) | (block[i] - block[i] != 0.0)
        if bad:
            return False
    return True


@njit(cache=True, nogil=True)
def _all_positive(words):
    """Whether the words of all floats stand between those of 0 and of infinity."""
    for begin in range(0, len(words), 1024):
        block = words[begin : begin + 1024]
        most = np.uint64(0)
        for i in range(len(block)):
            most = max(most, block[i] - ONE)
        if most >= INFINITY - ONE:
            return False
    return True


@njit(cache=True, nogil=True)
def mark_missing_int(column, keep):
    """The same for an int64 column, whose null is the smallest integer."""
    kept = 0
    for i in range(len(keep)):
        ok = column[i] != NULL_INT
        keep[i] = ok
        kept += ok
    return len(keep) - kept


@njit(cache=True, nogil=True)
def mark_codes(codes, found):
    """found[c] = True for dictionary codes that occur; are all codes the same?

    It stops where all have occurred.
    """
    differ = 0
    for begin in range(0, len(codes), 4096):
        block = codes[begin : begin + 4096]
        for i in range(len(block)):
            differ |= block[i] ^ codes[0]
        if differ:
            break
    step = max(1 << 16, len(found)) if differ else 1
    for begin in range(0, len(codes), step):
        for i in range(begin, min(begin + step, len(codes))):
            found[codes[i]] = True
        missing = 0
        for c in range(len(found)):
            missing += not found[c]
        if not (differ and missing):
            break
    return differ == 0


@njit(cache=True, nogil=True)
def is_identity(lookup):
    """Whether lookup[c] is c for all codes that occur (the others are −1)."""
    same = True
    for c in range(len(lookup)):
        same &= lookup[c] == c or lookup[c] == -1
    return same


@njit(cache=True, nogil=True)
def translate(codes, lookup, slots):
    """slots[i] = lookup[codes[i]]."""
    for i in range(len(codes)):
        slots[i] = lookup[codes[i]]


@njit(cache=True, nogil=True)
def number_symbols(slots, seen, local, touched):
    """Number the batch's symbols in the order of their slots: local[i], touched[local] = slot.

    Their states stand in that order, so that loops walk forward through memory. ``seen`` is −1
    for all slots before and after. Returns the number of symbols.
    """
    found = 0
    for i in range(len(slots)):
        s = slots[i]
        if seen[s] < 0:
            seen[s] = found
            touched[found] = s
            found += 1
    if len(seen) > 8 * found:
        touched[:found].sort()
        for j in range(found):
            seen[touched[j]] = j
    else:
        found = 0
        for s in range(len(seen)):
            if seen[s] >= 0:
                seen[s] = found
                touched[found] = s
                found += 1
    for i in range(len(slots)):
        local[i] = seen[slots[i]]
    for j in range(found):
        seen[touched[j]] = -1
    return found


@njit(cache=True, nogil=True)
def index_rows(local, touched, keep, every, pos, runs):
    """Number the kept rows by (symbol, row); fill ``pos`` and ``runs``; return the runs."""
    n = len(local)
    next_row = np.zeros(len(touched), np.int64)
    for i in range(n):
        next_row[local[i]] += 1 if every else keep[i]
    total = 0
    found = 0
    for s in range(len(touched)):
        c = next_row[s]
        if c:
            runs[found, 0] = touched[s]
            runs[found, 1] = total
            runs[found, 2] = total + c
            runs[found, 3] = total
            found += 1
        next_row[s] = total
        total += c
    for i in range(n):
        if every or keep[i]:
            s = local[i]
            pos[i] = next_row[s]
            next_row[s] += 1
        else:
            pos[i] = total
    return found


@njit(cache=True, nogil=True)
def fetch(dense, symbols):
    """Have dense words in the second cache before they are read in row order.

    Lines of many symbols are read in turn, and the next one of none can be foreseen. In order they
    come several times as fast.
    """
    if symbols > MANY:
        for at in range(0, len(dense), 8):
            will_read(dense, at)


@njit(cache=True, nogil=True)
def to_dense(column, pos, dense, symbols):
    """dense[pos[i]] = column[i]; rows that do not exist end up after the last element."""
    early = max(0, len(pos) - AHEAD) if symbols > MANY else 0
    for i in range(early):
        will_write(dense, pos[i + AHEAD])
        dense[pos[i]] = column[i]
    for i in range(early, len(pos)):
        dense[pos[i]] = column[i]


@njit(cache=True, nogil=True)
def to_dense_nan(column, pos, domain, dense):
    """The same under nan_policy='propagate': whatever is missing enters as the one quiet NaN."""
    for i in range(len(pos)):
        x = column[i]
        ok = x - x == 0.0
        if domain == POSITIVE:
            ok = ok and x > 0.0
        elif domain == NON_NEGATIVE:
            ok = ok and x >= 0.0
        dense[pos[i]] = x if ok else math.nan


@njit(cache=True, nogil=True)
def pack_bools(values, bits):
    """Arrow bit-packed booleans of int64 0/1 (nulls become 0)."""
    n = len(values)
    for b in range(len(bits)):
        byte = 0
        for j in range(min(8, n - 8 * b)):
            byte |= int(values[8 * b + j] == 1) << j
        bits[b] = byte


@njit(cache=True, nogil=True)
def narrow(values, out):
    """int64 → int8 (nulls become 0)."""
    for i in range(len(out)):
        out[i] = values[i] if values[i] != NULL_INT else 0


@njit(cache=True, nogil=True)
def first_backward(slots, t, last):
    """First row whose time is before its symbol's previous time, or −1; updates ``last``."""
    for i in range(len(slots)):
        now = t[i]
        if now == NULL_INT:
            continue
        s = slots[i]
        if now < last[s]:
            return i
        last[s] = now
    return -1


@njit(cache=True, nogil=True)
def first_backward_one(slot, t, last):
    """The same where all rows belong to one symbol."""
    before = last[slot]
    for i in range(len(t)):
        if t[i] != NULL_INT:
            if t[i] < before:
                return i
            before = t[i]
    last[slot] = before
    return -1


@njit(cache=True, nogil=True)
def move_arena(old, new, st, off_word, cap_word, caps, fields):
    """Copy every slot's region to ``new`` with the capacities ``caps``; update the header words."""
    sti = st.view(np.int64)
    at = 0
    for s in range(len(caps)):
        off = sti[s, off_word]
        cap = sti[s, cap_word]
        for f in range(fields):
            for j in range(min(cap, caps[s])):
                new[at + f * caps[s] + j] = old[off + f * cap + j]
        sti[s, off_word] = at
        sti[s, cap_word] = caps[s]
        at += fields * caps[s]
