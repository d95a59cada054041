"""Messages of one connection, read by the hundred.

A scanner learns from messages that the adapter has decoded: the names with which they begin – of
streams – and the steps in which they are written (`steps.py`). From then on it reads the values
of such messages into columns, in compiled code (`compiled.py`), and says of every other message
that it was not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from collectors.lot_compiled import compile_all, place, place_differences
from collectors.scan.compiled import scan
from collectors.scan.steps import (
    ITEMS,
    LEVELS,
    LONGEST_TEXT,
    MIX,
    N_STEP,
    Columns,
    Shape,
    Step,
    end_of,
    learn,
)

if TYPE_CHECKING:
    from collectors.scan.together import Difference, Tick

_PADDING = bytes(LONGEST_TEXT + 64)  # texts are compared without asking where they end
_LEVEL_BYTES = len('["1","0"]')  # at least
_ITEM_BYTES = 32  # of most; more items than that makes are not read
_MOST_NAMES = 16_384  # more are no exchange's
_LONGEST_LEARNED = 1 << 16  # bytes: short ones say as much
_VARIANTS = 8  # ways to write one message that are learned, one after the other

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Values:
    """Values by key, of some of the rows that were read."""

    def __init__(self, scanner: Scanner, columns: Columns, rows: slice | Ints) -> None:
        self._scanner = scanner
        self._columns = columns
        self._rows = rows

    def ints(self, key: str) -> Ints:
        """Of a key of whole numbers, truth values or times."""
        column: Ints = self._scanner.ints[self._columns.ints[key]][self._rows]
        return column

    def floats(self, key: str) -> Floats:
        """Of a key of decimals."""
        column: Floats = self._scanner.floats[self._columns.floats[key]][self._rows]
        return column

    def pairs(self, key: str) -> list[str]:
        """BASE/QUOTE of the symbols in a key of names."""
        pairs: list[str] = self._scanner.pairs[self.ints(key)].tolist()
        return pairs


class Items(_Values):
    """Items of the lists in rows, in their order; those of row i are `begins[i]` to `ends[i]`."""

    def __init__(self, scanner: Scanner, columns: Columns, begins: Ints, ends: Ints) -> None:
        counts = ends - begins
        self.ends: Ints = np.cumsum(counts)
        self.begins: Ints = self.ends - counts
        self.of_row: Ints = np.repeat(np.arange(len(counts)), counts)
        """Of every item."""
        rows = np.arange(len(self.of_row)) + np.repeat(begins - self.begins, counts)
        super().__init__(scanner, columns, rows)


class Rows(_Values):
    """Messages of one kind among those read."""

    def __init__(self, kind: str, scanner: Scanner, frames: Ints) -> None:
        self.kind = kind
        self._frames = frames
        everything = len(frames) == len(scanner.found)
        rows = slice(0, len(frames)) if everything else frames
        super().__init__(scanner, scanner.columns[kind], rows)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def frames(self) -> list[int]:
        """Which they were, of those read."""
        frames: list[int] = self._frames.tolist()
        return frames

    def items(self, key: str) -> Items:
        """Values of a key of items."""
        return Items(self._scanner, self._columns, self.ints(key), self.ints(end_of(key)))

    @property
    def at(self) -> Ints:
        """The same."""
        return self._frames

    def symbols(self) -> list[str]:
        """BASE/QUOTE of the symbols of which the messages of their names are."""
        pairs: list[str] = self._scanner.pairs[self._scanner.found[self._rows]].tolist()
        return pairs

    def are_of(self, symbols: Container[str]) -> bool:
        """Whether all are of these."""
        everyone = all(map(symbols.__contains__, self._scanner.symbols))
        return everyone or all(map(symbols.__contains__, set(self.symbols())))

    def place(
        self, tick: Tick, recv_ns: Ints, kinds: NDArray[np.int8], ints: Ints, floats: Floats
    ) -> None:
        """Put them into the columns of a `Lot`; its symbols are those of the scanner."""
        own, scanner = self._columns, self._scanner
        whole = (own.ints[key] if key else -1 for key in (tick.seq, tick.time, tick.maker))
        columns = np.array([*whole, *(own.floats[key] for key in tick.values)])
        place(
            tick.kind, self._frames, scanner.found, scanner.symbol_of, recv_ns, columns,
            scanner.ints, scanner.floats, kinds, ints, floats,
        )  # fmt: skip

    def place_differences(
        self, difference: Difference, recv_ns: Ints, kinds: NDArray[np.int8], ints: Ints
    ) -> None:
        """The same; their levels are the scanner's."""
        own, scanner = self._columns, self._scanner
        columns = np.array([own.ints[key] if key else -1 for key in difference])
        place_differences(
            self._frames, scanner.found, scanner.symbol_of, recv_ns, columns, scanner.ints,
            kinds, ints,
        )  # fmt: skip


class Scanner:
    """What is known of the messages of one connection, and what was read of the last ones."""

    @staticmethod
    def compile() -> None:
        """Compile, or load what was compiled before."""
        Scanner(b"-").read([b"-"])
        compile_all()

    def __init__(self, prefix: bytes) -> None:
        """`prefix`: how every message begins, up to its name."""
        self._start = prefix
        self._prefix = np.frombuffer(prefix + _PADDING, np.uint8)[: len(prefix)]
        self._texts = bytearray()
        self._known = np.frombuffer(_PADDING, np.uint8)
        self._programs: dict[tuple[Step, ...], int] = {}
        self._steps = np.zeros((0, 4), np.int64)
        self._variants: Counter[bytes] = Counter()
        self._numbers: dict[bytes, int] = {}
        self._names = np.zeros((0, 5), np.int64)
        self._buckets = np.full(64, -1, np.int64)
        self._kinds: list[str] = []
        self._kind_of = np.array([-1])
        """By number of the name; the last one is that of frames not read."""
        self.pairs = np.zeros(0, object)
        """The same, BASE/QUOTE."""
        self.symbols: list[str] = []
        """BASE/QUOTE of each symbol, of which there may be several names."""
        self.symbol_of = np.zeros(0, np.int64)
        """By number of the name, that of its symbol."""
        self.columns: dict[str, Columns] = {}
        self.found = np.zeros(0, np.int64)
        self.ints = np.zeros((1, 0), np.int64)
        self.floats = np.zeros((1, 0))
        self._has_levels = self._has_items = False
        self.levels = np.zeros((0, 2))
        """A block of its own for every read: who has levels of it keeps it."""

    # -- learning --------------------------------------------------------------------------

    def tell(self, name: bytes, pair: str) -> bool:
        """Tell it a name that is the value of a key, of symbol `pair`. Whether it is new."""
        if name in self._numbers or len(self._numbers) >= 2 * _MOST_NAMES:
            return False
        number = self._number(name)
        self._names[number] = (*self._text(name), -1, 0, 0)
        self._is_of(number, pair)
        return True

    def learn(
        self, frame: bytes, kind: str, shape: Shape, symbol: bytes = b"", pair: str = ""
    ) -> bool:
        """Learn how `frame` is written, of which `shape` is to be read as `kind`. All that begin
        with its name are about `symbol`, if given. Whether it could be learned."""
        if len(frame) > _LONGEST_LEARNED:
            return False
        start = frame.find(b'"', len(self._start))
        name = frame[len(self._start) : start]
        if name not in self._variants and len(self._variants) == _MOST_NAMES:
            return False
        self._variants[name] += 1
        if self._variants[name] > _VARIANTS:
            return False
        columns = self.columns.setdefault(kind, Columns.of(shape))
        steps = learn(frame, start, shape, columns)
        if steps is None:
            return False
        number = self._numbers.get(name)
        if number is None:
            number = self._number(name)
        elif self._names[number, N_STEP] < 0:
            return False  # it was told as a value
        self._has_levels |= any(step.kind == LEVELS for step in steps)
        self._has_items |= any(step.kind == ITEMS for step in steps)
        if kind not in self._kinds:
            self._kinds.append(kind)
        self._names[number] = (*self._text(name), self._program(steps), *self._text(symbol))
        self._kind_of[number] = self._kinds.index(kind)
        self._is_of(number, pair)
        return True

    def _is_of(self, number: int, pair: str) -> None:
        """The symbol of a name."""
        if pair not in self.symbols:
            self.symbols.append(pair)
        self.pairs[number] = pair
        self.symbol_of[number] = self.symbols.index(pair)

    def _program(self, steps: tuple[Step, ...]) -> int:
        """Where the steps begin."""
        first = self._programs.get(steps)
        if first is None:
            first = self._programs[steps] = len(self._steps)
            rows = [[*self._text(step.text), step.kind, step.slot] for step in steps]
            self._steps = np.concatenate([self._steps, np.array(rows, np.int64)])
        return first

    def _text(self, text: bytes) -> tuple[int, int]:
        """Where it lies from now on, and its length."""
        at = self._texts.find(text)
        if at < 0:
            at = len(self._texts)
            self._texts += text
            self._known = np.frombuffer(bytes(self._texts) + _PADDING, np.uint8)
        return at, len(text)

    def _number(self, name: bytes) -> int:
        """Of a new name."""
        number = self._numbers[name] = len(self._numbers)
        self._names = np.concatenate([self._names, np.zeros((1, 5), np.int64)])
        self._kind_of = np.append(self._kind_of, -1)
        self.pairs = np.append(self.pairs, np.array([""], object))
        self.symbol_of = np.append(self.symbol_of, -1)
        if 3 * len(self._numbers) > len(self._buckets):
            self._buckets = np.full(4 * len(self._buckets), -1, np.int64)
            for known, n in self._numbers.items():
                self._put(known, n)
        else:
            self._put(name, number)
        return number

    def _put(self, name: bytes, number: int) -> None:
        """Where `compiled.py` looks for it."""
        mixed = 0
        for i in range(0, len(name), 8):
            mixed = (mixed ^ int.from_bytes(name[i : i + 8], "little")) * MIX & 2**64 - 1
            mixed ^= mixed >> 32
        last = len(self._buckets) - 1
        place = mixed & last
        while self._buckets[place] >= 0:
            place = (place + 1) & last
        self._buckets[place] = number

    # -- reading ---------------------------------------------------------------------------

    def read(self, frames: Sequence[bytes]) -> list[Rows]:
        """What those of `frames` say that are written as those learned, kind by kind."""
        count = len(frames)
        text = np.frombuffer(b"\0".join((*frames, _PADDING)), np.uint8)
        ends = np.fromiter(map(len, frames), np.int64, count)
        ends += 1
        np.cumsum(ends, out=ends)
        ends -= 1
        self._make_room(max(count, len(text) // _ITEM_BYTES if self._has_items else 0))
        if self._has_levels:
            self.levels = np.empty((len(text) // _LEVEL_BYTES, 2))  # of memory, what is written to
        self.found = np.empty(count, np.int64)
        scan(
            text, ends, self._prefix, self._known, self._names, self._buckets, self._steps,
            self.found, self.ints, self.floats, self.levels,
        )  # fmt: skip
        kinds = self._kind_of[self.found]
        groups = ((kind, np.flatnonzero(kinds == i)) for i, kind in enumerate(self._kinds))
        return [Rows(kind, self, found) for kind, found in groups if len(found)]

    def _make_room(self, rows: int) -> None:
        widths = [columns.widths for columns in self.columns.values()] or [(1, 1)]
        ints, floats = map(max, zip(*widths, strict=True))
        room = max(rows, self.ints.shape[1])
        if self.ints.shape != (ints, room) or len(self.floats) < floats:
            self.ints = np.empty((ints, room), np.int64)
            self.floats = np.empty((floats, room))
