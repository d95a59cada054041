"""What the streaming joins share: inputs with watermarks, rows that wait, late rows, snapshots."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError, StateError
from gpukern.frame import kind_of
from gpukern.state import pack, unpack

MIN, MAX = core.MIN_INT, core.MAX_INT
COUNTERS = ("given", "accepted", "late", "null")
POLICIES = ("drop", "side")
UNUSED_WORDS = 1 << 16  # words that a dictionary may hold beyond four per row


class Feed:
    """One input: its rows that are still needed, in order of arrival, and its watermark.

    The watermark W promises that no accepted row earlier than W follows. After each row W is at
    least its time less the lateness; a row earlier than W is late and never processed.
    """

    def __init__(
        self,
        what: str,
        name: str,
        columns: Any,
        on: str,
        *,
        lateness: str | int | dt.timedelta = 0,
        limit: int | None = None,
    ) -> None:
        self.what = what
        self.name = name
        self.on = on
        self.kind, self.schema = schema_of(columns)
        self.lateness = tables.duration_ns(f"{what}: lateness of {name}", lateness)
        if limit is not None and limit < 1:
            raise PlanError(
                f"{what}: the limit of rows of {name} must be at least 1 or None, got {limit!r}"
            )
        self.limit = limit
        self.rows = self.schema.empty_table()
        self.times = np.zeros(0, np.int64)
        self.watermark = MIN
        self.counters = dict.fromkeys(COUNTERS, 0)

    def read(self, batch: Any) -> tuple[pa.Table, np.ndarray, np.ndarray]:
        """A batch as Arrow in the declared columns, its times and which of them are missing."""
        table = tables.to_arrow(batch)
        if table.schema.names != self.schema.names or table.schema.types != self.schema.types:
            raise PlanError(
                f"{self.what}: the batch of the {self.name} side has the columns "
                f"{described(table.schema)}; the stream was declared with {described(self.schema)}"
            )
        if table.schema != self.schema:
            table = table.cast(self.schema)
        times, missing = tables.read_times(self.what, self.name, table, self.on)
        return table, times, np.zeros(len(times), np.bool_) if missing is None else missing

    def accept(self, part: pa.Table, times: np.ndarray, missing: np.ndarray) -> pa.Table:
        """Keep the rows that are not late, move the watermark, return the late rows."""
        reach = np.where(missing, MIN, times)
        # A late row is below the watermark, so it never moves it.
        ahead = np.maximum(np.maximum.accumulate(reach), MIN + self.lateness) - self.lateness
        before = np.maximum(np.concatenate(([MIN], ahead[:-1])), self.watermark)
        late = ~missing & (times < before)
        keep = ~(late | missing)
        if len(ahead):
            self.watermark = max(self.watermark, int(ahead[-1]))
        numbers = (len(times), int(keep.sum()), int(late.sum()), int(missing.sum()))
        for name, number in zip(COUNTERS, numbers, strict=True):
            self.counters[name] += number
        self.add(taken(part, np.flatnonzero(keep)), times[keep])
        return taken(part, np.flatnonzero(late))

    def add(self, rows: pa.Table, times: np.ndarray) -> None:
        """Hold these rows too, after the others."""
        if not len(times):
            return
        self.rows = rows if not len(self.times) else one_piece(pa.concat_tables([self.rows, rows]))
        self.times = np.concatenate((self.times, times))

    def until(self, horizon: int) -> np.ndarray:
        """Numbers of the held rows up to a time, in order of time and arrival."""
        found = np.flatnonzero(self.times <= horizon)
        times = self.times[found]
        if core.ascending(tables.frozen(times)):
            return found
        return found[np.argsort(times, kind="stable")]

    def take(self, rows: np.ndarray) -> pa.Table:
        """Held rows by number."""
        return taken(self.rows, rows)

    def keep(self, rows: np.ndarray) -> None:
        """Forget all rows but these, which then have this order."""
        if len(rows) == len(self.times) and (np.diff(rows) == 1).all():
            return
        self.rows = one_piece(taken(self.rows, rows))
        self.times = self.times[rows]

    def drop(self, rows: np.ndarray) -> None:
        """Forget these rows."""
        rest = np.ones(len(self.times), np.bool_)
        rest[rows] = False
        self.keep(np.flatnonzero(rest))


class Operator:
    """A join of streams: pushes take rows and return those of the result that became final.

    ``consumed`` says how many rows the last push took, ``late`` holds its late rows with
    ``late_policy='side'``, ``counters`` the rows of each input given, accepted, late and null
    (without time; given is the sum of the others), ``watermarks`` the W of each input in ns.
    """

    def __init__(
        self, what: str, feeds: Sequence[Feed], *, late_policy: str, parameters: object
    ) -> None:
        if late_policy not in POLICIES:
            raise PlanError(f"{what}: late_policy must be drop or side, got {late_policy!r}")
        self.what = what
        self.feeds = {feed.name: feed for feed in feeds}
        self.late_policy = late_policy
        self.done = MIN  # results up to this time have been returned, where that is kept
        self.extra: list[pa.Table] = []  # carried rows that are no input's
        self.ended = False
        self.consumed = 0
        self.late: Any = None
        self._nothing: pa.Table | None = None
        inputs = [(f.name, described(f.schema), f.on, f.lateness, f.limit) for f in feeds]
        self._fingerprint = repr((what, parameters, inputs, late_policy))

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Rows given, accepted, late and null, by input."""
        return {name: feed.counters for name, feed in self.feeds.items()}

    @property
    def watermarks(self) -> dict[str, int]:
        """The watermark of each input in ns."""
        return {name: feed.watermark for name, feed in self.feeds.items()}

    def flush(self) -> Any:
        """The end of all inputs: return all that still waits."""
        for feed in self.feeds.values():
            feed.watermark = MAX
        self.ended = True
        return self._out([self._settle()])

    def _push(self, name: str, batch: Any) -> Any:
        feed = self._feed(name)
        table, times, missing = feed.read(batch)
        self._check(feed, table, times, missing)
        self.consumed, found, late = 0, [], []
        while self.consumed < table.num_rows:
            room = table.num_rows if feed.limit is None else feed.limit - self._load(feed)
            if room <= 0:
                break
            rows = slice(self.consumed, min(table.num_rows, self.consumed + room))
            part = table.slice(rows.start, rows.stop - rows.start)
            late.append(feed.accept(part, times[rows], missing[rows]))
            self.consumed = rows.stop
            found.append(self._settle())
        self.late = None
        if self.late_policy == "side":
            rest = pa.concat_tables([feed.schema.empty_table(), *late])
            self.late = tables.from_arrow(feed.kind, rest)
        return self._out(found)

    def _advance(self, name: str, watermark: int | dt.datetime) -> Any:
        feed = self._feed(name)
        feed.watermark = max(feed.watermark, plans.moment_ns(f"{self.what}: watermark", watermark))
        return self._out([self._settle()])

    def _feed(self, name: str) -> Feed:
        feed = self.feeds.get(name)
        if feed is None:
            names = " or ".join(self.feeds)
            raise PlanError(f"{self.what}: side must be {names}, got {name!r}")
        return feed

    def _out(self, found: Sequence[pa.Table | None]) -> Any:
        there = [table for table in found if table is not None]
        if not there:
            if self._nothing is None:
                self._nothing = self._empty()
            there = [self._nothing]
        kind = next(iter(self.feeds.values())).kind
        out = there[0] if len(there) == 1 else one_piece(pa.concat_tables(there))
        return tables.from_arrow(kind, out)

    # -- what an operator is ----------------------------------------------------------------------

    def _settle(self) -> pa.Table | None:
        """The part of the result that has become final; rows nobody can need are forgotten."""
        raise NotImplementedError

    def _empty(self) -> pa.Table:
        """No rows of the result."""
        raise NotImplementedError

    def _check(self, feed: Feed, table: pa.Table, times: np.ndarray, missing: np.ndarray) -> None:
        """Raise for a batch that must not be taken, before any of it is."""

    def _load(self, feed: Feed) -> int:
        """The rows that count against the input's limit."""
        return feed.rows.num_rows

    # -- state ------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole carried state."""
        header = {
            "stream": self._fingerprint,
            "watermarks": self.watermarks,
            "counters": self.counters,
            "done": self.done,
            "ended": self.ended,
        }
        held = [feed.rows for feed in self.feeds.values()]
        return pack(header, [_to_bytes(table) for table in [*held, *self.extra]])

    def restore(self, blob: bytes) -> None:
        """Continue from a snapshot of a stream with the same parameters, StateError otherwise."""
        header, arrays = unpack(blob)
        if header.get("stream") != self._fingerprint:
            raise StateError(
                f"{self.what}: the snapshot belongs to a stream with other parameters or columns; "
                "restore it into one made in the same way"
            )
        held = [pa.ipc.open_stream(a.view(np.uint8).tobytes()).read_all() for a in arrays]
        for feed, table in zip(self.feeds.values(), held, strict=False):
            feed.watermark = header["watermarks"][feed.name]
            feed.counters = dict(header["counters"][feed.name])
            feed.rows = one_piece(table)
            feed.times = tables.read_times(self.what, feed.name, table, feed.on)[0]
        self.extra = held[len(self.feeds) :]
        self.done = header["done"]
        self.ended = header["ended"]


class TwoSided(Operator):
    """A join of a left and a right stream; results are left rows with columns appended."""

    def push_left(self, batch: Any) -> Any:
        """Take left rows; return the left rows that became final."""
        return self._push("left", batch)

    def push_right(self, batch: Any) -> Any:
        """Take right rows; return the left rows that became final."""
        return self._push("right", batch)

    def advance(self, side: str, watermark: int | dt.datetime) -> Any:
        """Promise that no row of ``side`` earlier than the watermark will follow (an idle stream);
        return the rows that became final."""
        return self._advance(side, watermark)


def schema_of(columns: Any) -> tuple[str, pa.Schema]:
    """The container kind and the Arrow schema that a schema or a table stands for."""
    if isinstance(columns, pa.Schema):
        return "table", columns.empty_table().schema
    return kind_of(columns), tables.to_arrow(columns).schema


def described(schema: pa.Schema) -> str:
    """Names and types in words."""
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows by number; a run of rows is not copied."""
    if not len(rows):
        return table.slice(0, 0)
    if rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all():
        return table.slice(int(rows[0]), len(rows))
    return tables.take_rows(table, rows)


def one_piece(table: pa.Table) -> pa.Table:
    """Every column in one chunk, without the words of a dictionary that no row uses any more."""
    return pa.table([_compact(tables.one_array(c)) for c in table.columns], schema=table.schema)


def _compact(array: pa.Array) -> pa.Array:
    if not isinstance(array, pa.DictionaryArray):
        return array
    if len(array.dictionary) <= UNUSED_WORDS + 4 * len(array):
        return array
    return tables.recoded(array.dictionary_decode(), array.type)


def _to_bytes(table: pa.Table) -> np.ndarray:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(one_piece(table))
    return np.frombuffer(sink.getvalue(), np.int64)  # Arrow pads its messages to 8 bytes
