"""Deduplication of trades: the first arrival of every id, or of every print, wins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import bar_seen as core
from gpukern import join_table as tables
from gpukern.bar_stream import NEVER, Stream
from gpukern.bar_table import FURTHEST, TRADES, Source
from gpukern.errors import PlanError
from gpukern.frame import NULL_INT, floats

WHAT = "dedupe_trades"
COUNTERS = ("given", "kept", "duplicates", "conflicts", "too_old", "null")
VERDICTS = (core.KEPT, core.DUPLICATE, core.CONFLICT, core.TOO_OLD, core.UNKEYED)


class Seen:
    """A hash table of keys of some words each, with further words kept beside them."""

    def __init__(self, key: int, beside: int, slot: int, time: int) -> None:
        self.key, self.slot, self.time = key, slot, time
        self.entries = np.zeros((0, key + beside), np.int64)
        self.places = np.full(16, -1, np.int64)
        self.count = np.zeros(1, np.int64)

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the loop works on."""
        return self.places, self.entries, self.count

    def reserve(self, more: int, latest: np.ndarray, horizon: int) -> None:
        """Make room for so many new keys, first of all by forgetting old ones."""
        if int(self.count[0]) + more <= len(self.entries):
            return
        count = int(self.count[0])
        if horizon >= 0:
            count = core.keep_young(self.entries, count, self.slot, self.time, latest, horizon)
        self.load(self.entries[:count], max(16, count + max(count, more)))

    def load(self, entries: np.ndarray, room: int) -> None:
        """Take these entries over, with room for ``room`` in all."""
        self.count[0] = len(entries)
        held = np.empty((room, self.entries.shape[1]), np.int64)
        held[: len(entries)] = entries
        self.entries = held
        # At most half of the places are taken, which keeps the searches short.
        self.places = np.full(1 << (2 * room - 1).bit_length(), -1, np.int64)
        core.rehash(self.places, self.entries, len(entries), self.key)


class Dedupe(Stream):
    """The carried state of ``dedupe_trades``.

    ``counters``: rows given = kept + duplicates + conflicts + too_old + null (no key or time; they
    pass). ``conflicts`` are the last push's rows whose id came before with other content.
    """

    def __init__(
        self,
        kind: str,
        schema: pa.Schema,
        *,
        by: str | Sequence[str] = ("exchange", "symbol"),
        trade_id: str | None = "trade_id",
        on: str = "ts",
        content: Sequence[str] = ("price", "size", "side"),
        connection: str = "conn_id",
        fallback: str = "pass",
        horizon: Any = None,
    ) -> None:
        if fallback not in ("pass", "content"):
            raise PlanError(f"{WHAT}: fallback must be pass or content, got {fallback!r}")
        limit = -1 if horizon is None else tables.duration_ns(f"{WHAT}: horizon", horizon)
        names = tables.as_names(content)
        needed = [*names, *([trade_id] if trade_id is not None else [])]
        source = Source.of(WHAT, schema, on, by, needed)
        if fallback == "content" and connection not in schema.names:
            raise PlanError(
                f"{WHAT}: fallback='content' tells a repeated print from an honest one by its "
                f"connection; there is no column {connection!r}, name it with connection="
            )
        options = (trade_id, names, connection, fallback, limit)
        super().__init__(kind, source, options, COUNTERS)
        self.trade_id = trade_id
        self.content = names
        self.connection = connection if fallback == "content" else None
        self.horizon = min(limit, FURTHEST)
        self.latest = np.zeros(0, np.int64)
        self.conflicts: Any = None
        self.width = sum(words_of(schema.field(n).type) for n in names)
        self.by_id = Seen(3, 1 + self.width, 0, 3)
        self.by_print = Seen(2 + self.width, 1, 0, 1)
        self.by_feed = Seen(4 + self.width, 1, 0, 1)

    def run(self, table: pa.Table) -> pa.Table:
        """The rows of a whole table that are no copies."""
        return self._push(table)

    def _push(self, table: pa.Table) -> pa.Table:
        rows = table.num_rows
        times, missing = self.source.times(table)
        slots = self.symbols.slots_of(table)
        slots = np.where(missing, np.int32(-1), slots)
        new = len(self.symbols) - len(self.latest)
        self.latest = np.append(self.latest, np.full(max(0, new), NEVER))
        head = [slots.astype(np.int64), times]
        content = [w for name in self.content for w in column_words(table.column(name))]
        has_id = np.zeros(rows, np.bool_)
        ids, prints = np.empty((rows, 4 + self.width), np.int64), np.empty((0, 4), np.int64)
        if self.trade_id is not None:
            column = table.column(self.trade_id)
            has_id = pc.is_valid(column).to_numpy()
            *first, last = column_words(column)
            ids = matrix([head[0], *(first or [np.zeros_like(last)]), last, times, *content])
            self.by_id.reserve(int(has_id.sum()), self.latest, self.horizon)
        if self.connection is not None:
            feed = column_words(table.column(self.connection))
            prints = matrix([*head, *content, feed[0], feed[-1]])
            for seen in (self.by_print, self.by_feed):
                seen.reserve(int((~has_id).sum()), self.latest, self.horizon)
        verdict = np.empty(rows, np.int8)
        core.judge(
            (tables.frozen(slots), times), ids, prints, has_id, self.connection is not None,
            self.horizon, self.latest, self.by_id.parts, self.by_print.parts, self.by_feed.parts,
            verdict,
        )  # fmt: skip
        self.counters["given"] += rows
        for name, value in zip(COUNTERS[1:], VERDICTS, strict=True):
            self.counters[name] += int((verdict == value).sum())
        conflicts = table.filter(pa.array(verdict == core.CONFLICT))
        self.conflicts = tables.from_arrow(self.kind, conflicts)
        return table.filter(pa.array((verdict == core.KEPT) | (verdict == core.UNKEYED)))

    def _advance(self, watermark: int) -> pa.Table:
        return self.source.schema.empty_table()

    def _flush(self) -> pa.Table:
        return self.source.schema.empty_table()

    # -- state ----------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        held = [seen.entries[: seen.count[0]].ravel() for seen in self._tables()]
        return {}, [self.latest[: len(self.symbols)], *held]

    def _set_state(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        self.latest = arrays[0]
        for seen, words in zip(self._tables(), arrays[1:], strict=True):
            entries = words.reshape(-1, seen.entries.shape[1])
            seen.load(entries, max(16, 2 * len(entries)))

    def _tables(self) -> tuple[Seen, Seen, Seen]:
        return self.by_id, self.by_print, self.by_feed


def words_of(kind: pa.DataType) -> int:
    """How many words a value of the type takes: numbers and times one, all else two."""
    of = pa.types
    plain = (of.is_integer, of.is_floating, of.is_boolean, of.is_timestamp, of.is_null)
    return 1 if any(test(kind) for test in plain) else 2


def column_words(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The column as words that are equal where its values are; null, NaN and NaN are equal."""
    kind, array = column.type, tables.one_array(column)
    if words_of(kind) == 2:
        return _text_words(array)
    if pa.types.is_floating(kind) or pa.types.is_null(kind):
        values = floats(column, TRADES) + 0.0  # −0.0 becomes 0.0
        return [np.where(np.isnan(values), np.float64(np.nan), values).view(np.int64)]
    if pa.types.is_timestamp(kind) or kind == pa.uint64():
        array = array.view(pa.int64())
    array = pc.fill_null(array.cast(pa.int64()), NULL_INT)
    return [array.to_numpy(zero_copy_only=False)]


def _text_words(array: pa.Array) -> list[np.ndarray]:
    """128 bits of every distinct value's digest: two values that share them are not to be found."""
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    values = [repr(v).encode() for v in array.dictionary.to_pylist()]
    digests = b"".join(hashlib.blake2b(v, digest_size=16).digest() for v in values)
    both = np.frombuffer(digests + bytes(16), "<i8").reshape(-1, 2)  # the last one: null
    codes = pc.fill_null(array.indices.cast(pa.int64()), len(values)).to_numpy()
    return [both[codes, 0], both[codes, 1]]


def matrix(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The columns side by side, a row's words next to each other."""
    return np.ascontiguousarray(np.stack(columns, axis=1))
