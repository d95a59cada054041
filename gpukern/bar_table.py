"""Tables of bars: trades in as arrays, symbols as slots, columns out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import bar_core as core
from gpukern import join_table as tables
from gpukern.errors import PlanError
from gpukern.frame import NULL_INT, floats
from gpukern.join_keys import check_key_types, encode, value_type
from gpukern.join_plan import moment_ns

RECV = "recv_ts"
TRADES = "trades"
FURTHEST = 2**62  # ns from 1970 within which the difference of two times is an int64


@dataclass(frozen=True)
class Source:
    """Which columns of the input mean what, checked against its schema."""

    what: str
    on: str
    by: tuple[str, ...]
    schema: pa.Schema

    @classmethod
    def of(
        cls,
        what: str,
        schema: pa.Schema,
        on: str,
        by: str | Sequence[str],
        needed: Sequence[str] = (),
    ) -> Source:
        """Raise PlanError unless the columns are there, in types that will do."""
        keys = tables.as_names(by)
        tables.require(what, TRADES, [on, *keys, *needed], schema.names)
        tables.time_kind(what, TRADES, on, schema.field(on).type)
        if RECV in schema.names:
            tables.time_kind(what, TRADES, RECV, schema.field(RECV).type)
        check_key_types(what, keys, schema, schema, (TRADES, TRADES))
        return cls(what, on, keys, schema)

    def no_clash(self, outputs: Sequence[str]) -> None:
        """Raise PlanError if an output would have the name of a key or of the time."""
        for name in (*self.by, self.on):
            if name in outputs:
                raise PlanError(
                    f"{self.what}: the result has a column {name!r} of its own; rename the input's"
                )

    @property
    def time_type(self) -> pa.DataType:
        """The type of time columns of the result: ns, in the input's zone."""
        return time_type(self.schema.field(self.on).type)

    def times(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Times in ns and where they are missing."""
        found, missing = tables.read_times(self.what, TRADES, table, self.on)
        if missing is None:
            missing = np.zeros(len(found), np.bool_)
        if len(found) and not -FURTHEST < found.min() <= found.max() < FURTHEST:
            raise PlanError(
                f"{self.what}: column {self.on!r} has times from {found.min()} to {found.max()} "
                "ns; they must lie between the years 1824 and 2116 (2^62 ns around 1970)"
            )
        return found, missing

    def moment(self, name: str, value: Any) -> int:
        """A time given as a parameter, in ns."""
        ns = moment_ns(f"{self.what}: {name}", value)
        return max(-FURTHEST, min(FURTHEST, ns))


def time_type(kind: pa.DataType) -> pa.DataType:
    """int64 for integers, ns in the same zone for timestamps."""
    return pa.timestamp("ns", kind.tz) if pa.types.is_timestamp(kind) else pa.int64()


def time_array(ns: np.ndarray, kind: pa.DataType, mask: np.ndarray | None = None) -> pa.Array:
    """Times in ns as a column of a type that ``time_type`` gave."""
    return pa.array(ns, pa.int64(), mask=mask).view(kind)


@dataclass
class Trades:
    """Rows as arrays: ``slots`` is −1 where the symbol or the time is missing."""

    times: np.ndarray
    slots: np.ndarray
    price: np.ndarray
    size: np.ndarray
    side: np.ndarray  # sign of the taker; empty if the input has no such column
    recv: np.ndarray  # ns, NULL_INT if missing; empty if the input has no such column

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """What the loops read."""
        return self.times, self.slots, self.price, self.size, self.side

    def take(self, rows: np.ndarray) -> Trades:
        """Some of the rows."""
        columns = (tables.frozen(c[rows]) if len(c) else c for c in (*self.columns, self.recv))
        return Trades(*columns)


def read_trades(source: Source, table: pa.Table, symbols: Symbols) -> Trades:
    """The columns that bars are made of."""
    times, missing = source.times(table)
    slots = symbols.slots_of(table)
    if missing.any():
        slots = np.where(missing, np.int32(-1), slots)
    price, size = (tables.frozen(floats(table.column(n), n)) for n in ("price", "size"))
    side = np.zeros(0, np.int8)
    if "side" in table.column_names:
        side = _signs(table.column("side"))
    recv = np.zeros(0, np.int64)
    if RECV in table.column_names:
        recv, unknown = tables.read_times(source.what, TRADES, table, RECV)
        recv = recv if unknown is None else np.where(unknown, NULL_INT, recv)
    return Trades(times, tables.frozen(slots), price, size, tables.frozen(side), recv)


def _signs(column: pa.ChunkedArray) -> np.ndarray:
    array = tables.one_array(column)
    if array.type != pa.int8():
        number = floats(column, "side")
        return np.sign(np.where(np.isnan(number), 0.0, number)).astype(np.int8)
    return (pc.fill_null(array, 0) if array.null_count else array).to_numpy()


class Symbols:
    """The keys seen so far, numbered by first appearance."""

    def __init__(self, source: Source) -> None:
        self.by = source.by
        self.types = [source.schema.field(name).type for name in source.by]
        self.places: dict[tuple[Hashable, ...], int] = {}
        if not self.by:
            self.places[()] = 0
        self._last: tuple[pa.Array, np.ndarray] | None = None
        self._ranks = np.zeros(0, np.int64)
        self._table: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.places)

    def forget(self, known: int) -> None:
        """Take back the slots after the first ``known``."""
        for key in self.keys[known:]:
            del self.places[key]
        self._last = self._table = None
        self._ranks = self._ranks[:0]

    @property
    def keys(self) -> list[tuple[Hashable, ...]]:
        """The keys in order of their slots."""
        return list(self.places)

    def slots_of(self, table: pa.Table) -> np.ndarray:
        """The slot of every row's key, −1 where a part of it is missing."""
        keys = encode(table, self.by)
        lookup = np.full(keys.count, -1, np.int32)
        # A stream repeats its dictionary, which saves looking its symbols up each time.
        if (
            len(keys.values) == 1
            and self._last is not None
            and keys.values[0].equals(self._last[0])
        ):
            lookup = self._last[1]
        used = np.zeros(keys.count, np.bool_)
        core.mark_used(tables.frozen(keys.codes), used)
        new = np.flatnonzero(used & (lookup < 0))
        for code, key in zip(new.tolist(), keys.keys(new), strict=True):
            lookup[code] = self.places.setdefault(key, len(self.places))
        if len(keys.values) == 1:
            self._last = (keys.values[0], lookup)
        slots = np.empty(table.num_rows, np.int32)
        core.translate(tables.frozen(keys.codes), lookup, slots)
        return slots

    def table(self) -> pa.Table:
        """The keys in order of their slots, decoded."""
        if self._table is None or self._table.num_rows != len(self):
            kinds = enumerate(self.types)
            columns = [pa.array([key[n] for key in self.places], value_type(t)) for n, t in kinds]
            self._table = pa.table(columns, names=list(self.by))
        return self._table

    def ranks(self) -> np.ndarray:
        """Each slot's place among the keys in order."""
        if len(self._ranks) != len(self):
            keys: list[Any] = self.keys
            order = sorted(range(len(keys)), key=keys.__getitem__)
            self._ranks = np.empty(len(keys), np.int64)
            self._ranks[order] = np.arange(len(keys))
        return self._ranks

    def columns(self, slots: np.ndarray) -> list[pa.Array]:
        """The key columns of these slots, of the input's types."""
        found = []
        for values, kind in zip(self.table().columns, self.types, strict=True):
            values = tables.one_array(values)
            if pa.types.is_dictionary(kind):
                indices = pa.array(slots, kind.index_type)
                values = values.cast(kind.value_type)
                found.append(pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered))
            else:
                found.append(values.take(pa.array(slots)).cast(kind))
        return found

    def per_slot(self, what: str, name: str, value: Any, check: Any) -> np.ndarray:
        """A number per slot from one for all or a mapping {symbol: number}, each checked."""
        if not isinstance(value, Mapping):
            return np.full(len(self), check(value), np.float64)
        found = np.empty(len(self), np.float64)
        for key, slot in self.places.items():
            symbol = key[0] if len(key) == 1 else key
            if symbol not in value:
                raise PlanError(
                    f"{what}: {name} has no value for symbol {symbol!r}; the mapping has "
                    f"{', '.join(map(repr, list(value)[:5]))}"
                )
            found[slot] = check(value[symbol])
        return found


def number(what: str, name: str, value: Any, least: float, *, above: bool = False) -> float:
    """A finite number of at least (or above) ``least``; raise PlanError otherwise."""
    real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not real or not (least < value if above else least <= value) or not value < math.inf:
        wanted = f"above {least}" if above else f"{least} or more"
        raise PlanError(f"{what}: {name} must be a finite number, {wanted}, got {value!r}")
    return float(value)


def to_words(table: pa.Table) -> np.ndarray:
    """A table as int64 words for a snapshot."""
    sink = pa.BufferOutputStream()
    whole = pa.table([tables.one_array(c) for c in table.columns], schema=table.schema)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(whole)
    return np.frombuffer(sink.getvalue(), np.int64)  # Arrow pads its messages to 8 bytes


def from_words(words: np.ndarray) -> pa.Table:
    """Undo ``to_words``."""
    return pa.ipc.open_stream(words.view(np.uint8).tobytes()).read_all()
