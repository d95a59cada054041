"""How an exchange writes a message, learned from one that was decoded.

An exchange's program writes all messages of a kind alike: the same keys in the same order with the
same spaces. So a message is a chain of steps, each a text that is always the same and a value after
it. What is written otherwise – a new key, a null, an escaped character – is no such chain: it
is decoded as ever, and may be learned in its turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

# Values: what a row is made of. Numbers may come as strings; the text before them has the quote.
ID = 0
"""A whole number of up to 18 digits."""
TIME = 1
"""A time in ms or µs, not 0."""
POSITIVE = 2
"""A decimal above 0 whose digits, without the point, are at most 2^53."""
AMOUNT = 3
"""The same, or 0."""
SIGNED = 4
"""The same, of either sign."""
BOOL = 5
SYMBOL = 6
"""The symbol of which all messages of that name are; the name is that of a stream."""
SAME = 7
"""What it is in the message learned from, or absent as there: all others are left alone."""

# Values that nobody asks for, and the end of the message.
STRING, NUMBER, FLAG, END = 8, 9, 10, 11

N_TEXT, N_LENGTH, N_STEP, N_SYMBOL, N_SYMBOL_LENGTH = range(5)
"""Columns of the names: where they and their symbols lie, and their first step."""
MICROSECONDS = 9_000_000_000_000
"""Times from here on are in µs: in ms it is the year 2255, which in ns is an int64 just so; in µs
it is April 1970."""
MIX = 0x9E3779B97F4A7C15
"""What a name's bytes are multiplied with to find its bucket."""

_DECIMALS = (POSITIVE, AMOUNT, SIGNED)
_TOKEN = re.compile(
    rb'"[\x20\x21\x23-\x5b\x5d-\x7e]*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|true|false|null'
    rb"|[][{}:,]"
)
_SPACE = re.compile(rb"[ \t\r\n]*")
LONGEST_TEXT = 192
"""Bytes between two values; no message has so many."""

Row = Mapping[str, int]
"""Keys of an object -> the kinds of their values."""
Shape = Mapping[str, int | Row]
"""The same of a message; an object within it is its row."""


class Step(NamedTuple):
    """`text`, as it is, and a value of `kind` that goes to column `slot`."""

    text: bytes
    kind: int
    slot: int = 0


@dataclass(frozen=True)
class Columns:
    """Where the values of a row lie, by key: in the columns of whole numbers, and of decimals."""

    ints: Mapping[str, int]
    floats: Mapping[str, int]

    @staticmethod
    def of(row: Row) -> Columns:
        """In the order of the keys."""
        ints: dict[str, int] = {}
        floats: dict[str, int] = {}
        for key, kind in row.items():
            if kind in _DECIMALS:
                floats[key] = len(floats)
            elif kind not in (SYMBOL, SAME):
                ints[key] = len(ints)
        return Columns(ints, floats)


class _OtherwiseError(Exception):
    """The message is written in a way that steps cannot tell."""


def learn(frame: bytes, start: int, shape: Shape, columns: Columns) -> tuple[Step, ...] | None:
    """The steps by which `frame` is written from `start` on, the end of a string that is a value of
    its outermost object; None if there are none. Only of a frame that was decoded."""
    learner = _Learner(frame, start, columns)
    try:
        learner.told(shape, start)
    except _OtherwiseError:
        return None
    if any(len(step.text) > LONGEST_TEXT for step in learner.steps):
        return None
    return tuple(learner.steps)


class _Learner:
    def __init__(self, frame: bytes, start: int, columns: Columns) -> None:
        self.steps: list[Step] = []
        self._frame = frame
        self._begin = start
        """Of the text that no step tells yet."""
        self._columns = columns

    def told(self, shape: Shape, start: int) -> None:
        """The whole frame."""
        comma, at = self._token(start + 1)
        if comma != b",":
            raise _OtherwiseError
        self._members(shape, at)
        end = len(self._frame)
        self._step(END, end, end)

    def _members(self, shape: Shape | Row, at: int) -> int:
        """Keys and values from the key at `at` on; where the object ends."""
        missing = {key for key, kind in shape.items() if kind != SAME}
        seen: set[bytes] = set()
        mark = b","
        while mark == b",":
            key, at = self._token(at)
            colon, at = self._token(at)
            if not key.startswith(b'"') or colon != b":" or key in seen:
                raise _OtherwiseError
            seen.add(key)
            name = key[1:-1].decode()
            missing.discard(name)
            at = self._value(name, shape.get(name), at)
            mark, at = self._token(at)
        if mark != b"}" or missing:
            raise _OtherwiseError
        return at

    def _value(self, key: str, kind: int | Row | None, at: int) -> int:
        token, end = self._token(at)
        start = end - len(token)
        if isinstance(kind, Mapping) and token == b"{":
            return self._members(kind, end)
        if isinstance(kind, Mapping) or token in (b"{", b"["):
            raise _OtherwiseError
        if kind != SAME:
            self._scalar(key, kind, token, start, end)
        return end

    def _scalar(self, key: str, kind: int | None, token: bytes, start: int, end: int) -> None:
        if token.startswith(b'"'):
            self._step(STRING if kind is None else kind, start + 1, end - 1, key)
        elif token in (b"true", b"false", b"null"):
            if kind not in (None, BOOL):
                raise _OtherwiseError
            self._step(FLAG if kind is None else BOOL, start, end, key)
        else:
            self._step(NUMBER if kind is None else kind, start, end, key)

    def _step(self, kind: int, start: int, end: int, key: str = "") -> None:
        """A value from `start` to `end`."""
        slot = self._columns.ints.get(key, self._columns.floats.get(key, 0))
        self.steps.append(Step(self._frame[self._begin : start], kind, slot))
        self._begin = end

    def _token(self, at: int) -> tuple[bytes, int]:
        """The next one, and where it ends."""
        space = _SPACE.match(self._frame, at)
        token = None if space is None else _TOKEN.match(self._frame, space.end())
        if token is None:
            raise _OtherwiseError
        return token.group(), token.end()
