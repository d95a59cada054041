"""State on a grid: at every point of time the last row of each symbol."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import bar_points as core
from gpukern import join_match as match
from gpukern import join_table as tables
from gpukern.bar_core import NO_TIME, first_disorder
from gpukern.bar_stream import NEVER, Stream, Watermark, disorder
from gpukern.bar_table import FURTHEST, Source, from_words, time_array, to_words
from gpukern.errors import PlanError

WHAT = "gap_fill"
COUNTERS = ("given", "accepted", "late", "null")
MOST_POINTS = 1 << 31
ADDED = ("source_ts", "age_ns", "filled")


@dataclass
class Groups:
    """A table's rows by symbol and time: their numbers, times, and where each symbol starts."""

    rows: np.ndarray
    times: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, slots: np.ndarray, times: np.ndarray, symbols: int) -> Groups:
        """Group the rows that have a symbol; equal times keep their order."""
        slots, times = tables.frozen(slots.astype(np.int32)), tables.frozen(times)
        starts = np.empty(symbols + 1, np.int64)
        match.key_starts(slots, starts)
        count = int(starts[-1])
        found = cls(np.empty(count, np.int64), np.empty(count, np.int64), starts)
        as_is = np.zeros(0, np.int64)
        if match.place_rows(slots, times, as_is, starts, found.times, found.rows) >= 0:
            order = np.argsort(times, kind="stable")
            match.place_rows(slots, times, order, starts, found.times, found.rows)
        return found

    def last_present(self, column: pa.ChunkedArray) -> np.ndarray:
        """For every place the last one of its symbol up to it with a value, or −1."""
        last = np.empty(len(self.rows), np.int64)
        core.last_present(self.starts, present(column)[self.rows], last)
        return last


class GridFill(Stream):
    """The carried state of ``gap_fill``.

    ``counters``: rows given = accepted + late + null (no time or symbol). With
    ``late_policy='side'`` the late rows of the last push are in ``late``.
    """

    def __init__(
        self,
        kind: str,
        schema: pa.Schema,
        every: str | int | dt.timedelta,
        *,
        on: str,
        by: str | Sequence[str] = "symbol",
        origin: int | dt.datetime = 0,
        start: int | dt.datetime | None = None,
        end: int | dt.datetime | None = None,
        max_age: str | int | dt.timedelta | None = None,
        fill: str = "row",
        lateness: str | int | dt.timedelta = 0,
        late_policy: str = "drop",
    ) -> None:
        step = tables.duration_ns(f"{WHAT}: every", every)
        if not 0 < step < FURTHEST:
            raise PlanError(f"{WHAT}: every must be above 0 and below 146 years, got {every!r}")
        if fill not in ("row", "column"):
            raise PlanError(f"{WHAT}: fill must be row or column, got {fill!r}")
        if late_policy not in ("drop", "side"):
            raise PlanError(f"{WHAT}: late_policy must be drop or side, got {late_policy!r}")
        source = Source.of(WHAT, schema, on, by)
        for name in ADDED:
            if name in schema.names:
                raise PlanError(f"{WHAT}: the input has a column {name!r} already; rename it")
        late = min(tables.duration_ns(f"{WHAT}: lateness", lateness), FURTHEST)
        self.every = step
        self.origin = source.moment("origin", origin) % step
        self.start = NEVER if start is None else source.moment("start", start)
        self.end = None if end is None else source.moment("end", end)
        limit = None if max_age is None else tables.duration_ns(f"{WHAT}: max_age", max_age)
        self.max_age = limit
        self.fill = fill
        self.late_policy = late_policy
        options = (step, self.origin, self.start, self.end, limit, fill, late, late_policy)
        super().__init__(kind, source, options, COUNTERS)
        self.late: Any = None
        self.clock = Watermark(late)
        self.next = self.start  # points before it have been returned
        self.held = source.schema.empty_table()
        self.trimmed = 0
        self.spare = 1 << 12  # rows held beyond those needed before they are sorted out

    # -- moves ----------------------------------------------------------------------------------

    def run(self, table: pa.Table, *, sort: bool) -> pa.Table:
        """The grid of a whole table."""
        times, missing = self.source.times(table)
        slots = np.where(missing, np.int32(-1), self.symbols.slots_of(table))
        row = first_disorder(tables.frozen(slots), times, np.full(len(self.symbols), NO_TIME))
        if row >= 0 and not sort:
            raise disorder(self, slots, times, row, "sort them or pass sort=True")
        there = slots >= 0
        if there.any():
            self.clock.latest = int(times[there].max())
        self.clock.now = self._end()
        return self._points(table, Groups.of(slots, times, len(self.symbols)))

    def _push(self, table: pa.Table) -> pa.Table:
        times, missing = self.source.times(table)
        slots = self.symbols.slots_of(table)
        missing = missing | (slots < 0)
        before = self.clock.now, self.clock.latest
        late, _ = self.clock.judge(times, missing)
        keep = ~(missing | late)
        held = pa.concat_tables([self.held, table.filter(pa.array(keep))]).unify_dictionaries()
        made = self._settle(held, before)
        counts = (len(keep), keep.sum(), late.sum(), missing.sum())
        for name, number in zip(COUNTERS, counts, strict=True):
            self.counters[name] += int(number)
        if self.late_policy == "side":
            self.late = tables.from_arrow(self.kind, table.filter(pa.array(late)))
        return made

    def _advance(self, watermark: int) -> pa.Table:
        before = self.clock.now, self.clock.latest
        self.clock.now = max(self.clock.now, watermark)
        return self._settle(self.held, before)

    def _flush(self) -> pa.Table:
        return self._advance(max(self.clock.now, self._end()))

    def _end(self) -> int:
        """The watermark after which no point is left."""
        if self.clock.latest == NEVER:
            return NEVER
        return (self.clock.latest if self.end is None else self.end) + 1

    def _settle(self, held: pa.Table, before: tuple[int, int]) -> pa.Table:
        """Return the points before W; keep the rows that later points can need."""
        times, _ = self.source.times(held)
        groups = Groups.of(self.symbols.slots_of(held), times, len(self.symbols))
        try:
            made = self._points(held, groups)
        except PlanError:
            self.clock.now, self.clock.latest = before
            raise
        self.next = max(self.next, self.clock.now)
        self.held = held
        if held.num_rows > 2 * self.trimmed + self.spare:
            self._trim(groups)
        return made

    def _trim(self, groups: Groups) -> None:
        """Forget the rows that no later point can need: those before W but for each symbol's last
        (in column mode its last with a value, of every column)."""
        needed = groups.times >= self.clock.now
        # The last place of each symbol before W, −1 if it has none.
        last = np.empty(len(groups.rows), np.int64)
        core.last_present(groups.starts, ~needed, last)
        ends = groups.starts[1:][np.diff(groups.starts) > 0] - 1
        last = last[ends]
        last = last[last >= 0]
        needed[last] = True
        if self.fill == "column":
            for name in self._values():
                places = groups.last_present(self.held.column(name))[last]
                needed[places[places >= 0]] = True
        self.held = self.held.take(pa.array(np.sort(groups.rows[needed]))).combine_chunks()
        self.trimmed = self.held.num_rows

    # -- points ---------------------------------------------------------------------------------

    def _values(self) -> list[str]:
        own = {*self.source.by, self.source.on}
        return [name for name in self.source.schema.names if name not in own]

    def _points(self, table: pa.Table, groups: Groups) -> pa.Table:
        """The points from ``next`` to before W, by (time, symbol)."""
        hi = self.clock.now - 1 if self.end is None else min(self.clock.now - 1, self.end)
        symbols, grid = len(self.symbols), (self.every, self.origin, self.next)
        counts = np.empty(symbols, np.int64)
        total = core.count_points(groups.starts, groups.times, *grid, hi, counts)
        if total > MOST_POINTS:
            raise PlanError(
                f"{WHAT}: the grid would have {total} points; check the times, or use a longer step"
            )
        slot, point, place = (np.empty(total, np.int64) for _ in range(3))
        core.walk_points(groups.starts, groups.times, *grid, counts, slot, point, place)
        if total:
            order = np.lexsort((self.symbols.ranks()[slot], point))
            slot, point, place = slot[order], point[order], place[order]
        since = groups.times[place]
        kind = self.source.time_type
        keys = self.symbols.columns(slot.astype(np.int32))
        columns = dict(zip(self.source.by, keys, strict=True))
        columns[self.source.on] = time_array(point, kind)
        whole = self._gather(groups, point, place)
        for name in self._values():
            column, take = table.column(name), whole
            if self.fill == "column":
                take = self._gather(groups, point, groups.last_present(column)[place])
            columns[name] = take.take(column)
        columns["source_ts"] = time_array(since, kind)
        columns["age_ns"] = pa.array(point - since)
        columns["filled"] = pa.array(since <= point - self.every)
        return pa.table(columns)

    def _gather(self, groups: Groups, point: np.ndarray, place: np.ndarray) -> tables.Gather:
        """The rows at these places (−1: none) that are not too old at their points."""
        there = place >= 0
        if self.max_age is not None:
            there = there & (point - groups.times[place] <= self.max_age)
        return tables.Gather(np.where(there, groups.rows[place], -1))

    # -- state ----------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        clock = {"now": self.clock.now, "latest": self.clock.latest}
        return clock | {"next": self.next, "trimmed": self.trimmed}, [to_words(self.held)]

    def _set_state(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        self.clock.now, self.clock.latest = header["now"], header["latest"]
        self.next, self.trimmed = header["next"], header["trimmed"]
        self.held = from_words(arrays[0])


def present(column: pa.ChunkedArray) -> np.ndarray:
    """Where the column has a value; NaN is none."""
    found = pc.is_valid(column)
    if pa.types.is_dictionary(column.type):
        found = pc.is_valid(column.cast(column.type.value_type))
    elif pa.types.is_floating(column.type):
        found = pc.fill_null(pc.invert(pc.is_nan(column)), False)
    return found.to_numpy()
