"""The compiled part of `json.py`: rows as JSON text, byte for byte what msgspec makes of them.

A number is written here if it has at most 15 digits and needs no exponent: then one decimal alone
is the shortest that is read as the same double, and one multiplication and one division find it.
Every other one – exchanges send none, sums may be such – is left to msgspec, with its whole row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

WHOLE, REAL, TRUTH, NAME = range(4)
"""Kinds of columns."""
LONGEST_NUMBER = 24  # characters
PADDING = 8  # bytes behind texts and behind the room for rows: texts are copied by eights

_U = np.uint64
_POWERS = np.array([10.0**k for k in range(21)])  # all exact
_WHOLE_POWERS = np.array([10**k for k in range(20)], np.uint64)
_PAIRS = np.frombuffer(b"".join(b"%02d" % k for k in range(100)), np.uint8)
_LEAST, _BEYOND = 1e-5, 1e15  # in between msgspec writes no exponent
_MOST_PLACES = 20
_ZERO, _MINUS, _POINT = _U(48), _U(45), _U(46)
_CONSTANTS = np.frombuffer(b"null    true    false   " + bytes(PADDING), np.uint8)
_NULL, _TRUE, _FALSE = _U(0), _U(8), _U(16)
_ONE, _TWO, _FOUR, _FIVE, _EIGHT, _TEN, _HUNDRED = map(_U, (1, 2, 4, 5, 8, 10, 100))

_OFFSET, _BUFFERS, _CHILDREN = 16, 40, 48
"""Where Arrow's C data interface has what in an array, in bytes; all are words."""

_jit = njit(cache=True, nogil=True, error_model="numpy")


def _load(kind: Any) -> Any:
    """A function that reads a number at an address."""

    def load(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            pointer = context.get_value_type(kind).as_pointer()
            return builder.load(builder.inttoptr(values[0], pointer), align=1)

        return kind(types.int64), generate

    return intrinsic(load)


_byte_at, _real_at = _load(types.uint8), _load(types.float64)
_int8_at, _int16_at, _int32_at, _int64_at = map(
    _load, (types.int8, types.int16, types.int32, types.int64)
)


@_jit
def _word(values, index, width):  # type: ignore[no-untyped-def]
    """A number of so many bytes; of none, a bit."""
    at = values + index * width
    if width == 8:
        return _int64_at(at)
    if width == 4:
        return np.int64(_int32_at(at))
    if width == 2:
        return np.int64(_int16_at(at))
    if width == 1:
        return np.int64(_int8_at(at))
    return _bit(values, index)


@_jit
def _bit(bits, index):  # type: ignore[no-untyped-def]
    return np.int64(_byte_at(bits + (index >> 3)) >> (index & 7)) & 1


@_jit
def _copy(text, begin, end, out, at):  # type: ignore[no-untyped-def]
    """Where the copy ends; what is behind it is overwritten."""
    i, j = begin, at
    while i < end:
        a, b, c, d = text[i], text[i + _ONE], text[i + _TWO], text[i + _U(3)]
        e, f, g, h = text[i + _FOUR], text[i + _FIVE], text[i + _U(6)], text[i + _U(7)]
        out[j], out[j + _ONE], out[j + _TWO], out[j + _U(3)] = a, b, c, d
        out[j + _FOUR], out[j + _FIVE], out[j + _U(6)], out[j + _U(7)] = e, f, g, h
        i += _EIGHT
        j += _EIGHT
    return at + (end - begin)


@_jit
def _digits(number, count, out, at):  # type: ignore[no-untyped-def]
    """The last `count` digits."""
    end = at + count
    i = end
    while i > at + _ONE:
        rest = number // _HUNDRED
        pair = (number - rest * _HUNDRED) * _TWO
        i -= _TWO
        out[i], out[i + _ONE] = _PAIRS[pair], _PAIRS[pair + _ONE]
        number = rest
    if i > at:
        out[at] = _ZERO + number % _TEN
    return end


@_jit
def _whole(number, out, at):  # type: ignore[no-untyped-def]
    count = _ONE
    if number >= _WHOLE_POWERS[16]:  # as times are
        count = _U(17)
    while count < _U(20) and number >= _WHOLE_POWERS[count]:
        count += _ONE
    return _digits(number, count, out, at)


@_jit
def _real(size, out, at, places):  # type: ignore[no-untyped-def]
    """Where the number ends and how many decimal places it has, first tried with those of another;
    -1 places if it is one of those left to others."""
    is_guess = places > 0
    while True:
        scaled = np.rint(size * _POWERS[places])
        if scaled < _BEYOND and scaled / _POWERS[places] == size:
            break
        if scaled < _BEYOND and places < _MOST_PLACES:
            places += 1
        elif is_guess:
            places, is_guess = 0, False
        else:
            return at, -1
    number = _U(scaled)
    while places > 0:
        rest = number // _TEN
        if number != rest * _TEN:
            break
        number = rest
        places -= 1
    if places == 0:
        at = _whole(number, out, at)
        out[at], out[at + _ONE] = _POINT, _ZERO
        return at + _TWO, 0
    power = _WHOLE_POWERS[min(places, 19)]
    if number < power or places > 19:
        out[at] = _ZERO
        at += _ONE
    else:
        before = number // power
        at = _whole(before, out, at)
        number -= before * power
    out[at] = _POINT
    return _digits(number, _U(places), out, at + _ONE), places


@_jit
def write_rows(texts, spans, kinds, widths, firsts, batch, out, ends):  # type: ignore[no-untyped-def]
    """Write rows to `out`, one behind the other, and where each of them ends to `ends`.

    Text i is `texts[spans[i]:spans[i + 1]]`: first what stands before the value of each column,
    then what ends a row, then names, those of column i from text `firsts[i]` on. `batch` is the
    address of the rows, a struct array of Arrow's C data interface; a number of column i has
    `widths[i]` bytes. Of a row that is left to others nothing is written. Returns how many are.
    """
    rows, columns = len(ends), len(kinds)
    values = np.empty(columns, np.int64)
    valid = np.empty(columns, np.int64)
    begins = np.empty(columns, np.int64)
    for i in range(columns):
        column = _int64_at(_int64_at(batch + _CHILDREN) + 8 * i)
        buffers = _int64_at(column + _BUFFERS)
        valid[i], values[i] = _int64_at(buffers), _int64_at(buffers + 8)
        begins[i] = _int64_at(column + _OFFSET) + _int64_at(batch + _OFFSET)
    places = np.zeros(columns, np.int64)
    at, others = _U(0), 0
    for row in range(rows):
        begin = at
        is_left_out = False
        for i in range(columns):
            at = _copy(texts, spans[i], spans[i + 1], out, at)
            index = begins[i] + row
            if valid[i] != 0 and _bit(valid[i], index) == 0:
                at = _copy(_CONSTANTS, _NULL, _NULL + _FOUR, out, at)
                continue
            word = _word(values[i], index, widths[i])
            if kinds[i] == WHOLE:
                if word < 0:
                    out[at] = _MINUS
                    at = _whole(_U(0) - _U(word), out, at + _ONE)
                else:
                    at = _whole(_U(word), out, at)
            elif kinds[i] == REAL:
                real = _real_at(values[i] + 8 * index)
                size = abs(real)
                if not (_LEAST <= size < _BEYOND or word == 0):
                    is_left_out = True
                    break
                if real < 0:
                    out[at] = _MINUS
                    at += _ONE
                at, found = _real(size, out, at, places[i])
                if found < 0:
                    is_left_out = True
                    break
                places[i] = found
            elif kinds[i] == NAME:
                name = firsts[i] + word
                at = _copy(texts, spans[name], spans[name + 1], out, at)
            elif word:
                at = _copy(_CONSTANTS, _TRUE, _TRUE + _FOUR, out, at)
            else:
                at = _copy(_CONSTANTS, _FALSE, _FALSE + _FIVE, out, at)
        if is_left_out:
            at = begin
            others += 1
        else:
            at = _copy(texts, spans[columns], spans[columns + 1], out, at)
        ends[row] = at
    return others
