"""What the streams of bars share: the schema they were declared with, watermark, snapshots."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import bar_core as core
from gpukern import join_table as tables
from gpukern.bar_table import FURTHEST, Source, Symbols, Trades, from_words, to_words
from gpukern.errors import Error, PlanError, StateError, UnsortedError
from gpukern.frame import kind_of
from gpukern.state import pack, unpack

NEVER = -FURTHEST  # a watermark that has promised nothing


class Watermark:
    """W of a stream: no accepted row earlier than W will follow.

    After each row W = max(W, time − lateness). A row earlier than W is late.
    """

    def __init__(self, lateness: int) -> None:
        self.lateness = lateness
        self.now = NEVER
        self.latest = NEVER  # the latest time accepted

    def judge(self, times: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which rows are late, and W after each row; rows without time take no part."""
        reach = np.where(missing, NEVER, times)
        # A late row is below W, so it never moves it.
        after = np.maximum(np.maximum.accumulate(reach) - self.lateness, self.now)
        before = np.concatenate(([self.now], after[:-1])) if len(after) else after
        late = ~missing & (times < before)
        if len(after):
            self.now = int(after[-1])
            self.latest = max(self.latest, int(reach.max()))
        return late, after


def declared(columns: Any) -> tuple[str, pa.Schema]:
    """The kind of container and the schema that a stream is declared with."""
    if isinstance(columns, pa.Schema):
        return "table", columns.empty_table().schema
    return kind_of(columns), tables.to_arrow(columns).schema


class Stream:
    """A stateful operation on one stream of rows: ``push``, ``advance``, ``flush`` return what
    became final, as the kind of table that the stream was declared with.

    ``counters`` holds the rows given and what became of them.
    """

    def __init__(
        self, kind: str, source: Source, options: Sequence[Any], counters: Sequence[str]
    ) -> None:
        self.kind = kind
        self.source = source
        self.what = source.what
        self.symbols = Symbols(source)
        self.counters = dict.fromkeys(counters, 0)
        columns = [f"{f.name} {f.type}" for f in source.schema]
        self._fingerprint = repr((self.what, source.on, source.by, columns, list(options)))

    # -- moves ----------------------------------------------------------------------------------

    def push(self, batch: Any) -> Any:
        """Take rows; return what became final. An error leaves the stream as it was."""
        table, known = self._conform(tables.to_arrow(batch)), len(self.symbols)
        try:
            made = self._push(table)
        except Error:
            self.symbols.forget(known)
            raise
        return tables.from_arrow(self.kind, made)

    def advance(self, watermark: int | dt.datetime) -> Any:
        """Promise that no row earlier than the watermark will follow; return what became final."""
        moved = self._advance(self.source.moment("watermark", watermark))
        return tables.from_arrow(self.kind, moved)

    def flush(self) -> Any:
        """The end of the input: return all that the rows so far can still give."""
        return tables.from_arrow(self.kind, self._flush())

    def _push(self, table: pa.Table) -> pa.Table:
        raise NotImplementedError

    def _advance(self, watermark: int) -> pa.Table:
        raise NotImplementedError

    def _flush(self) -> pa.Table:
        raise NotImplementedError

    def _conform(self, table: pa.Table) -> pa.Table:
        wanted = self.source.schema
        if table.schema.names != wanted.names or table.schema.types != wanted.types:
            found, given = (
                ", ".join(f"{f.name} {f.type}" for f in s) for s in (table.schema, wanted)
            )
            raise PlanError(
                f"{self.what}: the batch has the columns {found}; the stream was declared with "
                f"{given}"
            )
        return table

    # -- state ----------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole carried state."""
        header, arrays = self._state()
        names = self.symbols.table()
        header |= {"plan": self._fingerprint, "counters": self.counters}
        return pack(header, [to_words(names), *arrays])

    def restore(self, blob: bytes) -> None:
        """Continue from a snapshot of a stream with the same parameters, StateError otherwise."""
        header, (names, *arrays) = unpack(blob)
        if header.get("plan") != self._fingerprint:
            raise StateError(
                f"{self.what}: the snapshot belongs to a stream with other parameters or columns; "
                "restore it into one made in the same way"
            )
        self.counters = dict(header["counters"])
        self.symbols = Symbols(self.source)
        columns = [column.to_pylist() for column in from_words(names).columns]
        for key in zip(*columns, strict=True):
            self.symbols.places[key] = len(self.symbols.places)
        self._set_state(header, arrays)

    def _state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        raise NotImplementedError

    def _set_state(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        raise NotImplementedError


def in_order(stream: Stream, trades: Trades, sort: bool) -> Trades:
    """The trades if every symbol's are in order of time, else sorted or UnsortedError."""
    last = np.full(len(stream.symbols), core.NO_TIME)
    row = core.first_disorder(trades.slots, trades.times, last)
    if row < 0:
        return trades
    if not sort:
        raise disorder(stream, trades.slots, trades.times, row, "sort them or pass sort=True")
    rows = np.flatnonzero(trades.slots >= 0)
    return trades.take(rows[np.argsort(trades.times[rows], kind="stable")])


def disorder(
    stream: Stream, slots: np.ndarray, times: np.ndarray, row: int, remedy: str
) -> UnsortedError:
    """The error for a row that is earlier than the one of its symbol before it."""
    key = stream.symbols.keys[int(slots[row])]
    before = np.flatnonzero(slots[:row] == slots[row])
    place = f"{int(times[before[-1]])}" if len(before) else "a later row of an earlier batch"
    return UnsortedError(
        f"{stream.what}: the rows are not in time order: column {stream.source.on!r}, row {row}, "
        f"key {key!r}: {int(times[row])} follows {place}; {remedy}"
    )
