"""Running the loops of bars: symbols shared out to threads, output that grows, columns of bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from gpukern import bar_core as core
from gpukern import join_table as tables
from gpukern.bar_table import Source, Symbols, time_array
from gpukern.memory import empty

Step = Callable[[int, int, int, np.ndarray, np.ndarray], tuple[int, int]]


class Records:
    """The unfinished bar of every symbol, as the loops keep it."""

    def __init__(self, words: int = core.WORDS) -> None:
        self.record = np.zeros((0, words))

    @property
    def ints(self) -> np.ndarray:
        """The same memory as int64."""
        return self.record.view(np.int64)

    def reserve(self, count: int) -> None:
        """Make room for that many symbols."""
        held, words = self.record.shape
        if count > held:
            # Copied as integers: a NaN among the words must keep its bits.
            room = np.zeros((count, words))
            room.view(np.int64)[:held] = self.ints
            self.record = room

    def dump(self, count: int) -> np.ndarray:
        """The words of the first ``count`` symbols as int64."""
        return self.ints[:count].ravel()

    def load(self, words: np.ndarray) -> None:
        """Take over what ``dump`` gave."""
        width = self.record.shape[1]
        self.record = words.astype(np.int64).reshape(-1, width).view(np.float64)


Part = tuple[np.ndarray, np.ndarray]


class Found:
    """Bars as the loops write them: parts of (floats, marks), a column each; then their order."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = [part for part in parts if part[1].shape[1]]
        self.place: np.ndarray | None = None

    def __len__(self) -> int:
        return sum(marks.shape[1] for _, marks in self.parts)

    def floats(self, which: Sequence[int]) -> list[np.ndarray]:
        """Some of the float columns, in order."""
        return self._columns([[floats[n] for floats, _ in self.parts] for n in which], np.float64)

    def marks(self, which: Sequence[int]) -> list[np.ndarray]:
        """Some of the integer columns, in order."""
        return self._columns([[marks[n] for _, marks in self.parts] for n in which], np.int64)

    def put(self, place: np.ndarray) -> Found:
        """The bars with bar k (of all parts, in turn) at ``place[k]``."""
        found = Found(self.parts)
        found.place = place
        return found

    def taken(self, order: np.ndarray) -> Found:
        """The bars in the order of these numbers."""
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return self.put(place)

    def _columns(self, columns: list[list[np.ndarray]], kind: type) -> list[np.ndarray]:
        def one(n: int) -> np.ndarray:
            out, at = empty(len(self), kind), 0
            for values in columns[n]:
                end = at + len(values)
                if self.place is None:
                    out[at:end] = values
                else:
                    core.scatter(values, self.place[at:end], out)
                at = end
            return out

        if len(self) < tables.SHARE:
            return [one(n) for n in range(len(columns))]
        return tables.each(one, len(columns))


def fold(
    slots: np.ndarray, symbols: int, step: Step, *, floats: int = len(core.FLOATS)
) -> list[Part]:
    """Run ``step(begin, lo, hi, floats, marks)`` over all rows, every thread on symbols lo…hi.

    A step returns where it stopped and how many bars it wrote; it stops short of the end when its
    output, of ``floats`` float columns, is full.
    """
    borders = _borders(slots, symbols)
    done = tables.each(
        lambda n: _run(len(slots), borders[n], borders[n + 1], floats, step), len(borders) - 1
    )
    return [part for parts in done for part in parts]


def _borders(slots: np.ndarray, symbols: int) -> list[int]:
    """Symbols cut into ranges of about the same number of rows."""
    parts = min(tables.threads(), len(slots) // tables.SHARE, symbols)
    if parts <= 1:
        return [0, symbols]
    counts = np.zeros(symbols, np.int64)
    core.rows_per_slot(slots, counts)
    ends = np.cumsum(counts)
    wanted = ends[-1] * np.arange(1, parts) / parts
    return [0, *np.unique(np.searchsorted(ends, wanted) + 1).tolist(), symbols]


def _run(count: int, lo: int, hi: int, width: int, step: Step) -> list[Part]:
    room = 2 * core.BLOCK if count < tables.SHARE else max(2 * core.BLOCK, count // 16)
    parts: list[Part] = []
    begin = 0
    while begin < count:
        floats = empty(width * room).reshape(width, room)
        marks = empty(core.MARKS * room, np.int64).reshape(core.MARKS, room)
        begin, made = step(begin, lo, hi, floats, marks)
        parts.append((floats[:, :made], marks[:, :made]))
        room *= 2
    return parts


def key_columns(symbols: Symbols, found: Found) -> dict[str, pa.Array]:
    """The symbols of the bars."""
    (slots,) = found.marks([core.SLOT])
    return dict(zip(symbols.by, symbols.columns(slots.astype(np.int32)), strict=True))


def value_columns(source: Source, found: Found) -> dict[str, pa.Array]:
    """Prices, sums and times of the trades of every bar."""
    sided = "side" in source.schema.names
    values = found.floats(range(len(core.FLOATS) if sided else len(core.FLOATS) - 2))
    out = {name: pa.array(v) for name, v in zip(core.FLOATS, values, strict=False)}
    at = core.FLOATS.index("vwap")
    out["vwap"] = pa.array(values[at], from_pandas=True)
    n_trades, first, last = found.marks([core.N_TRADES, core.FIRST_TS, core.LAST_TS])
    out["n_trades"] = pa.array(n_trades)
    if not sided:
        out["buy_volume"] = out["sell_volume"] = pa.nulls(len(found), pa.float64())
    out["first_ts"] = time_array(first, source.time_type)
    out["last_ts"] = time_array(last, source.time_type)
    order = [*core.FLOATS[:7], "n_trades", *core.FLOATS[7:], "first_ts", "last_ts"]
    return {name: out[name] for name in order}
