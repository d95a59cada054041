"""How an exchange writes a message, learned from one that was decoded.

An exchange's program writes all messages of a kind alike: the same keys in the same order with the
same spaces. So a message is a chain of steps, each a text that is always the same and a value after
it; the steps of a list's items are gone through again for every item. What is written otherwise – a
new key, a null, an escaped character – is no such chain: it is decoded as ever, and may be learned
in its turn.
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
LEVELS = 8
"""A list of lists of two strings, decimals above 0 and from 0 on: levels of a book."""
STAMP = 9
"""A string with a time in UTC as RFC 3339 has it, of the years from 1971 to 2200."""
NAMED = 10
"""A string that the scanner was told of: a symbol."""

# Values that nobody asks for; one of two words, and each of them; the beginning and end of a list's
# items, the end of the message.
STRING, NUMBER, FLAG, EITHER, WORD, ITEMS, ITEM_END, END = 11, 12, 13, 14, 15, 16, 17, 18

N_TEXT, N_LENGTH, N_STEP, N_SYMBOL, N_SYMBOL_LENGTH = range(5)
"""Columns of the names: where they and their symbols lie, and their first step; -1 if they are not
those of messages."""
MICROSECONDS = 9_000_000_000_000
"""Times from here on are in µs: in ms it is the year 2255, which in ns is an int64 just so; in µs
it is April 1970."""
MIX = 0x9E3779B97F4A7C15
"""What a name's bytes are multiplied with to find its bucket."""

ITEM_COLUMNS = 16
"""A message has fewer values that are asked for, but for those of its items."""

_DECIMALS = (POSITIVE, AMOUNT, SIGNED)
_TOKEN = re.compile(
    rb'"[\x20\x21\x23-\x5b\x5d-\x7e]*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|true|false|null'
    rb"|[][{}:,]"
)
_SPACE = re.compile(rb"[ \t\r\n]*")
LONGEST_TEXT = 192
"""Bytes between two values; no message has so many."""


class One(NamedTuple):
    """A list of one object."""

    shape: Shape


class Many(NamedTuple):
    """A list of one object or more, all alike; each is an item."""

    shape: Shape


class Either(NamedTuple):
    """A string that is one of two: 0 or 1."""

    first: bytes
    second: bytes


Shape = Mapping[str, "int | Either | Shape | One | Many"]
"""Keys of an object -> the kinds of their values. Those of the objects within it are other keys, as
far as they are asked for; a list of items has none in it."""


class Step(NamedTuple):
    """`text`, as it is, and a value of `kind` that goes to column `slot`."""

    text: bytes
    kind: int
    slot: int = 0


@dataclass(frozen=True)
class Columns:
    """Where values lie, by key: in the columns of whole numbers, and of decimals. Those of items
    are others, from `ITEM_COLUMNS` on: items follow each other, whatever message they are in.

    Levels and items are told by two whole numbers: where they begin and where they end.
    """

    ints: dict[str, int]
    floats: dict[str, int]

    @staticmethod
    def of(shape: Shape) -> Columns:
        """In the order of the keys."""
        columns = Columns({}, {})
        _add_columns(shape, 0, columns.ints, columns.floats)
        return columns

    @property
    def widths(self) -> tuple[int, int]:
        """How many columns of both there must be."""
        ints, floats = (max(slots.values(), default=0) + 1 for slots in (self.ints, self.floats))
        return ints, floats


def _add_columns(shape: Shape, first: int, ints: dict[str, int], floats: dict[str, int]) -> None:
    for key, kind in shape.items():
        if isinstance(kind, Many) or kind == LEVELS:
            _add(key, first, ints)
            _add(end_of(key), first, ints)
        if isinstance(kind, Many):
            _add_columns(kind.shape, ITEM_COLUMNS, ints, floats)
        elif isinstance(kind, One):
            _add_columns(kind.shape, first, ints, floats)
        elif isinstance(kind, Mapping):
            _add_columns(kind, first, ints, floats)
        elif kind in _DECIMALS:
            _add(key, first, floats)
        elif kind not in (LEVELS, SYMBOL, SAME):
            _add(key, first, ints)


def _add(key: str, first: int, slots: dict[str, int]) -> None:
    """The first free one from `first` on."""
    slot = first
    while slot in slots.values():
        slot += 1
    assert first == ITEM_COLUMNS or slot < ITEM_COLUMNS, f"too many values to ask for: {key}"
    slots[key] = slot


def end_of(key: str) -> str:
    """What the end of the levels or items in `key` is called."""
    return key + "]"  # no key of a message


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

    def _members(self, shape: Shape, at: int) -> int:
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

    def _value(self, key: str, kind: int | Either | Shape | One | Many | None, at: int) -> int:
        token, end = self._token(at)
        start = end - len(token)
        if token == b"{" and isinstance(kind, Mapping):
            return self._members(kind, end)
        if token == b"[" and (isinstance(kind, One | Many) or kind == LEVELS):
            return self._list(key, kind, start)
        if isinstance(kind, Either) and token[1:-1] in kind:
            self._step(EITHER, start + 1, end - 1, key)
            self.steps += [Step(word, WORD) for word in kind]
            return end
        if token in (b"{", b"[") or kind == LEVELS or not isinstance(kind, int | None):
            raise _OtherwiseError
        if kind != SAME:
            self._scalar(key, kind, token, start, end)
        return end

    def _list(self, key: str, kind: int | One | Many, start: int) -> int:
        """A list that begins at `start`; where it ends."""
        if isinstance(kind, int):
            end = self._list_end(start + 1)
            self._step(LEVELS, start, end, key)
            return end
        if isinstance(kind, Many):
            self._step(ITEMS, start + 1, start + 1, key)
        brace, at = self._token(start + 1)
        if brace != b"{":
            raise _OtherwiseError
        at = self._members(kind.shape, at)
        end = self._list_end(at)
        if isinstance(kind, Many):
            self._step(ITEM_END, at, end - 1, end_of(key))  # the other items are written alike
        elif self._token(at)[0] != b"]":
            raise _OtherwiseError
        return end

    def _list_end(self, at: int) -> int:
        """Where the list ends that begins before `at`."""
        depth = 1
        while depth:
            token, at = self._token(at)
            depth += {b"[": 1, b"]": -1}.get(token, 0)
        return at

    def _scalar(self, key: str, kind: int | None, token: bytes, start: int, end: int) -> None:
        if token.startswith(b'"'):
            self._step(STRING if kind is None else kind, start + 1, end - 1, key)
        elif token in (b"true", b"false", b"null"):
            if kind not in (None, BOOL):
                raise _OtherwiseError
            self._step(FLAG if kind is None else BOOL, start, end, key)
        elif kind in (STAMP, NAMED):
            raise _OtherwiseError
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
