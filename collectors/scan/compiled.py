"""The compiled part of `collectors.scan`: the text of many frames -> columns, or "not mine".

Frames lie one behind the other, each ended by a zero byte, which no step takes: none of the loops
leaves its frame, and none counts the bytes that are left. Texts that are compared may reach
beyond; the text is therefore padded.

All of it is in one file, since what was compiled before is compiled anew when its own file changes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from collectors.scan.steps import (
    AMOUNT,
    BOOL,
    EITHER,
    FLAG,
    ID,
    ITEM_END,
    ITEMS,
    LEVELS,
    MIX,
    N_LENGTH,
    N_STEP,
    N_SYMBOL,
    N_SYMBOL_LENGTH,
    N_TEXT,
    NAMED,
    NUMBER,
    POSITIVE,
    SIGNED,
    STAMP,
    STRING,
    SYMBOL,
    TIME,
)

_POWERS = np.array([10.0**k for k in range(19)])  # all exact
_EXACT = 2**53  # whole numbers up to here are doubles, and one division of two rounds once
_DIGITS = 18  # more may leave int64
_LATEST = 9_000_000_000_000_000  # in µs; in ns it is an int64 still
_ZERO, _QUOTE, _ESCAPE, _MINUS, _POINT, _COMMA, _OPEN, _CLOSE = 48, 34, 92, 45, 46, 44, 91, 93
_COLON, _T, _Z = 58, 84, 90
_DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334])
_BETWEEN = 0x222C22  # two strings, as three bytes
_TRUE, _FALSE, _NULL = 0x65757274, 0x736C6166, 0x6C6C756E  # as four bytes, the lowest first

_U = np.uint64
_FIRST = np.array([(1 << 8 * i) - 1 for i in range(9)], np.uint64)
"""Masks of the first bytes of eight."""
_ZEROS, _SIXES, _HIGH = (_U(0x0101010101010101 * byte) for byte in (0x30, 0x06, 0xF0))
_EIGHT_DIGITS, _PAIRS = _U(0x3333333333333333), _U(0x000000FF000000FF)
_MIX = _U(MIX)

_jit = njit(cache=True, nogil=True, error_model="numpy")


@_jit
def _eight(text, at):  # type: ignore[no-untyped-def]
    """Eight bytes, the lowest first: a single load, once compiled."""
    i = _U(at)
    low = _U(text[i]) | _U(text[i + _U(1)]) << _U(8) | _U(text[i + _U(2)]) << _U(16)
    low |= _U(text[i + _U(3)]) << _U(24) | _U(text[i + _U(4)]) << _U(32)
    high = _U(text[i + _U(5)]) << _U(40) | _U(text[i + _U(6)]) << _U(48)
    return low | high | _U(text[i + _U(7)]) << _U(56)


@_jit
def _same(text, at, known, offset, length):  # type: ignore[no-untyped-def]
    """Whether `length` bytes are the same."""
    while length > 8:
        if _eight(text, at) != _eight(known, offset):
            return False
        at += 8
        offset += 8
        length -= 8
    return (_eight(text, at) ^ _eight(known, offset)) & _FIRST[length] == 0


@_jit
def _string_end(text, at):  # type: ignore[no-untyped-def]
    """Where the closing quote is of a string of plain ASCII that begins at `at`; -1 if none."""
    place = np.uint64(at)
    byte = text[place]
    while byte != _QUOTE:
        if byte < 32 or byte > 126 or byte == _ESCAPE:
            return -1
        place += np.uint64(1)
        byte = text[place]
    return np.int64(place)


@_jit
def _digits(text, at, number):  # type: ignore[no-untyped-def]
    """`number` with the digits that follow appended, and where they end."""
    while True:
        eight = _eight(text, at)
        if (eight & _HIGH) | (((eight + _SIXES) & _HIGH) >> _U(4)) != _EIGHT_DIGITS:
            break
        # Neighbours join to numbers of two digits, those of four, those of eight.
        eight -= _ZEROS
        eight = eight * _U(10) + (eight >> _U(8))
        odd = (eight & _PAIRS) * _U(0x000F424000000064)
        even = ((eight >> _U(16)) & _PAIRS) * _U(0x0000271000000001)
        number = number * 100_000_000 + np.int64((odd + even) >> _U(32))
        at += 8
    digit = np.int64(text[at]) - _ZERO
    while digit >= 0 and digit <= 9:
        number = number * 10 + digit
        at += 1
        digit = np.int64(text[at]) - _ZERO
    return number, at


@_jit
def _whole(text, at):  # type: ignore[no-untyped-def]
    """A whole number without a sign and where it ends; -1 there if it is none, or too long."""
    number, end = _digits(text, at, 0)
    count = end - at
    if count == 0 or count > _DIGITS or (text[at] == _ZERO and count > 1):
        return 0, -1
    return number, end


@_jit
def _decimal(text, at):  # type: ignore[no-untyped-def]
    """A decimal without a sign, rounded as the text is, and where it ends; -1 if not so."""
    number, end = _digits(text, at, 0)
    count, places = end - at, 0
    if count == 0 or (text[at] == _ZERO and count > 1):
        return 0.0, -1
    if text[end] == _POINT:
        begin = end + 1
        number, end = _digits(text, begin, number)
        places = end - begin
        if places == 0:
            return 0.0, -1
    if count + places > _DIGITS or number > _EXACT:
        return 0.0, -1
    return number / _POWERS[places], end


@_jit
def _is_time(number):  # type: ignore[no-untyped-def]
    """Whether it is a time in ms or µs that an exchange could mean."""
    return 0 < number <= _LATEST


@_jit
def _flag(text, at):  # type: ignore[no-untyped-def]
    """1, 0 or -1 for true, false or null, and where it ends; -1 if it is something else."""
    four = _eight(text, at) & _FIRST[4]
    if four == _U(_TRUE):
        return 1, at + 4
    if four == _U(_FALSE) and text[at + 4] == 101:
        return 0, at + 5
    return -1, at + 4 if four == _U(_NULL) else -1


@_jit
def _levels(text, at, levels, count):  # type: ignore[no-untyped-def]
    """Add the levels of a list to those there are; how many there are then, and where it ends."""
    if text[at] != _OPEN:
        return count, -1
    at += 1
    if text[at] == _CLOSE:
        return count, at + 1
    while text[at] == _OPEN and text[at + 1] == _QUOTE:
        price, at = _decimal(text, at + 2)
        if at < 0 or price <= 0.0 or _eight(text, at) & _FIRST[3] != _U(_BETWEEN):
            break
        size, at = _decimal(text, at + 3)
        if at < 0 or text[at] != _QUOTE or text[at + 1] != _CLOSE:
            break
        levels[count, 0], levels[count, 1] = price, size
        count += 1
        at += 3
        if text[at - 1] == _CLOSE:
            return count, at
        if text[at - 1] != _COMMA:
            break
    return count, -1


@_jit
def _find(text, at, end, known, names, buckets):  # type: ignore[no-untyped-def]
    """The name that is written there, -1 if it was not learned."""
    mixed, i = _U(0), at
    while i < end:
        mixed = (mixed ^ (_eight(text, i) & _FIRST[min(end - i, 8)])) * _MIX
        mixed ^= mixed >> _U(32)
        i += 8
    last = len(buckets) - 1
    place = np.int64(mixed & _U(last))
    while buckets[place] >= 0:
        name = buckets[place]
        length = names[name, N_LENGTH]
        if length == end - at and _same(text, at, known, names[name, N_TEXT], length):
            return name
        place = (place + 1) & last
    return -1


@_jit
def _two(text, at):  # type: ignore[no-untyped-def]
    """A number of two digits; much below 0 if it is none."""
    tens, ones = np.int64(text[at]) - _ZERO, np.int64(text[at + 1]) - _ZERO
    return 10 * tens + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1_000_000


@_jit
def _stamp(text, at):  # type: ignore[no-untyped-def]
    """ns since 1970 of a time in UTC such as 2026-09-30T02:39:53.788655Z, and where it ends."""
    year = 100 * _two(text, at) + _two(text, at + 2)
    month, day, hour = _two(text, at + 5), _two(text, at + 8), _two(text, at + 11)
    minute, second = _two(text, at + 14), _two(text, at + 17)
    if not (1971 <= year <= 2200 and 1 <= month <= 12 and 0 <= hour <= 23):
        return 0, -1
    if text[at + 4] != _MINUS or text[at + 7] != _MINUS or text[at + 10] != _T:
        return 0, -1
    if text[at + 13] != _COLON or text[at + 16] != _COLON:
        return 0, -1
    is_leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    days_of_month = 28 + is_leap if month == 2 else 30 + (month + (month > 7)) % 2
    if not (1 <= day <= days_of_month and 0 <= minute <= 59 and 0 <= second <= 59):
        return 0, -1
    before = year - 1  # leap days up to its end
    days = 365 * (year - 1970) + before // 4 - before // 100 + before // 400 - 477
    days += _DAYS_BEFORE[month - 1] + (is_leap and month > 2) + day - 1
    ns = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000
    at += 19
    if text[at] == _POINT:
        fraction, end = _digits(text, at + 1, 0)
        count = end - at - 1
        if count == 0 or count > 9:
            return 0, -1
        ns += fraction * np.int64(_POWERS[9 - count])
        at = end
    return (ns, at + 1) if text[at] == _Z else (0, -1)


@_jit
def _either(text, at, known, steps, step):  # type: ignore[no-untyped-def]
    """Which of the words of two steps is the string that begins at `at`, and where it ends."""
    for word in range(2):
        offset, length = steps[step + word, 0], steps[step + word, 1]
        if _same(text, at, known, offset, length) and text[at + length] == _QUOTE:
            return word, at + length
    return 0, -1


@_jit
def _values(  # type: ignore[no-untyped-def]
    text, at, names, name, known, buckets, steps, row, ints, floats, levels, counts
):
    """Read the message of a name from `at` on into a row; where it ends, or -1.

    `counts` says how many levels and items there are; those read are added.
    """
    step, first, place = names[name, N_STEP], 0, row
    while True:
        offset, length, kind, slot = steps[step, 0], steps[step, 1], steps[step, 2], steps[step, 3]
        if not _same(text, at, known, offset, length):
            return -1
        at += length
        step += 1
        if kind in (POSITIVE, AMOUNT):
            value, at = _decimal(text, at)
            if at < 0 or (kind == POSITIVE and value <= 0.0):
                return -1
            floats[slot, place] = value
        elif kind in (ID, TIME):
            number, at = _whole(text, at)
            if at < 0 or (kind == TIME and not _is_time(number)):
                return -1
            ints[slot, place] = number
        elif kind == STAMP:
            number, at = _stamp(text, at)
            if at < 0:
                return -1
            ints[slot, place] = number
        elif kind == LEVELS:
            ints[slot, place] = counts[0]
            counts[0], at = _levels(text, at, levels, counts[0])
            if at < 0:
                return -1
            ints[slot + 1, place] = counts[0]
        elif kind == NAMED:
            end = _string_end(text, at)
            told = -1 if end < 0 else _find(text, at, end, known, names, buckets)
            if told < 0 or names[told, N_STEP] >= 0:
                return -1
            ints[slot, place], at = told, end
        elif kind == EITHER:
            told, at = _either(text, at, known, steps, step)
            if at < 0:
                return -1
            step += 2
            ints[slot, place] = told
        elif kind == SYMBOL:
            length = names[name, N_SYMBOL_LENGTH]
            if not _same(text, at, known, names[name, N_SYMBOL], length):
                return -1
            at += length
        elif kind == STRING:
            at = _string_end(text, at)
            if at < 0:
                return -1
        elif kind in (BOOL, FLAG):
            told, at = _flag(text, at)
            if at < 0 or (kind == BOOL and told < 0):
                return -1
            if kind == BOOL:
                ints[slot, place] = told
        elif kind in (SIGNED, NUMBER):
            is_negative = text[at] == _MINUS
            value, at = _decimal(text, at + is_negative)
            if at < 0:
                return -1
            if kind == SIGNED:
                floats[slot, place] = -value if is_negative else value
        elif kind == ITEMS:
            first = step
            ints[slot, row] = counts[1]
            place = counts[1]
            if place == ints.shape[1]:
                return -1
        elif kind == ITEM_END:
            place += 1
            if text[at] == _COMMA:
                if place == ints.shape[1]:
                    return -1
                at += 1
                step = first
            else:
                ints[slot, row] = counts[1] = place
                place = row
        else:
            return at


@_jit
def scan(  # type: ignore[no-untyped-def]
    text, ends, prefix, known, names, buckets, steps, found, ints, floats, levels
):
    """Read the frames that end at `ends` into a row each.

    The names with which they begin go to `found`, -1 where a frame is not read.
    """
    begin, head = 0, len(prefix)
    counts = np.zeros(2, np.int64)
    for frame in range(len(ends)):
        at, end = begin, ends[frame]
        begin = end + 1
        found[frame] = -1
        if end - at <= head or not _same(text, at, prefix, 0, head):
            continue
        at += head
        stop = _string_end(text, at)
        if stop < 0:
            continue
        name = _find(text, at, stop, known, names, buckets)
        if name < 0 or names[name, N_STEP] < 0:
            continue
        level_count, item_count = counts[0], counts[1]
        at = _values(
            text, stop, names, name, known, buckets, steps, frame, ints, floats, levels, counts
        )
        if at == end:
            found[frame] = name
        else:
            counts[0], counts[1] = level_count, item_count
