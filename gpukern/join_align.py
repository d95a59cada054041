"""Alignment: the state of several streams at common points in time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError
from gpukern.frame import kind_of
from gpukern.join_keys import Keys, check_key_types, value_type
from gpukern.join_plan import Index, Side

WHAT = "align"


def align(
    streams: Mapping[str, Any],
    *,
    on: str = "recv_ts",
    by: str | Sequence[str] = ("symbol",),
    clock: str | int | dt.timedelta = "instants",
    origin: int | dt.datetime = 0,
    start: int | dt.datetime | None = None,
    end: int | dt.datetime | None = None,
    max_age: str | int | dt.timedelta | None = None,
    stale: str = "null",
) -> Any:
    """The last row of every stream as of each point of a clock, in one table.

    ``streams`` maps a name (an exchange, say) to its table. Clocks: ``'instants'``, each distinct
    time at which any stream has a row of the key, after all rows of that time; ``'events'``, one
    output row per input row in (time, stream, row) order, with a ``source`` column; a duration, the
    grid origin + k·step from each key's first row to the latest row of all (or to ``end``).
    ``start`` and ``end`` are inclusive limits of every clock. No key has points before its first
    row: which rows there are depends on earlier rows only.

    Columns: ``by``, ``on`` (timestamps in ns), then per stream its value columns, its time and
    ``age_ns``, all prefixed ``{name}_``. Not seen yet: nulls. Older than ``max_age``: values
    are null, time and age stay; with ``stale='flag'`` the values stay too. Rows are ordered by
    time, then key. Every stream must be in time order within a key (UnsortedError). Rows with a
    missing key or time take no part. The result is the kind of table that the first stream is.
    """
    plan = AlignPlan.of(
        WHAT, on=on, by=by, clock=clock, origin=origin, start=start, end=end, max_age=max_age,
        stale=stale,
    )  # fmt: skip
    if not streams:
        raise PlanError(f"{WHAT}: streams is empty; give at least one name and table")
    found = plan.table({name: tables.to_arrow(table) for name, table in streams.items()})
    return tables.from_arrow(kind_of(next(iter(streams.values()))), found)


@dataclass(frozen=True)
class AlignPlan:
    """The options of an alignment, checked; ``step`` is 0 for the clocks without a grid."""

    what: str
    on: str
    by: tuple[str, ...]
    events: bool
    step: int
    origin: int
    start: int | None
    end: int | None
    limit: int
    stale: str

    @classmethod
    def of(
        cls,
        what: str,
        *,
        on: str = "recv_ts",
        by: str | Sequence[str] = ("symbol",),
        clock: str | int | dt.timedelta = "instants",
        origin: int | dt.datetime = 0,
        start: int | dt.datetime | None = None,
        end: int | dt.datetime | None = None,
        max_age: str | int | dt.timedelta | None = None,
        stale: str = "null",
    ) -> AlignPlan:
        """Check the options."""
        if stale not in ("null", "flag"):
            raise PlanError(f"{what}: stale must be null or flag, got {stale!r}")
        step = 0
        if clock not in ("instants", "events"):
            step = tables.duration_ns(f"{what}: clock", clock)
            if step == 0:
                raise PlanError(f"{what}: clock must be instants, events or a step above 0")
        limit = -1 if max_age is None else tables.duration_ns(f"{what}: max_age", max_age)
        first, last = (
            None if at is None else plans.moment_ns(f"{what}: {name}", at)
            for name, at in (("start", start), ("end", end))
        )
        zero = plans.moment_ns(f"{what}: origin", origin)
        names = tables.as_names(by)
        return cls(what, on, names, clock == "events", step, zero, first, last, limit, stale)

    def table(self, streams: Mapping[str, pa.Table]) -> pa.Table:
        """The state of all streams at the points of the clock from ``start`` to ``end``."""
        sides, keys = _read(self, streams)
        numbers = None
        if self.step:
            points = _grid(list(sides.values()), self)
        else:
            points = _instants(list(sides.values()), self)
            if self.events:
                # An event is known by its place in the order of all events, not by its time.
                numbers = points.numbers
        found = [
            _by_columns(sides, self.by, keys, points.codes),
            _time_column(sides, self.on, points.times),
        ]
        columns = dict(pair for part in found for pair in part)
        if self.events:
            columns["source"] = pa.DictionaryArray.from_arrays(
                pa.array(points.sources.astype(np.int32)), pa.array(list(sides), pa.string())
            )
        for n, (name, side) in enumerate(sides.items()):
            own = side.times if numbers is None else numbers[n]
            at = points.times if numbers is None else np.arange(len(points.times))
            rows = _state(side, own, len(keys), points.codes, at)
            for column, array in _stream_columns(self, side, rows, points.times):
                new = f"{name}_{column}"
                if new in columns:
                    raise PlanError(
                        f"{self.what}: two columns would be {new!r}; rename a stream or column"
                    )
                columns[new] = array
        return pa.table(columns)


def _read(
    plan: AlignPlan, streams: Mapping[str, pa.Table]
) -> tuple[dict[str, Side], list[tuple[Hashable, ...]]]:
    """All streams with codes that mean the same key everywhere, in ascending order of keys."""
    what, on, by = plan.what, plan.on, plan.by
    first = next(iter(streams))
    for name, table in streams.items():
        tables.require(what, name, [on, *by], table.column_names)
        check_key_types(what, by, streams[first].schema, table.schema, (first, name))
    tables.same_time_kind(what, [(n, on, t.schema.field(on).type) for n, t in streams.items()])
    sides = {name: plans.read_side(what, name, table, on, by) for name, table in streams.items()}
    known: dict[tuple[Hashable, ...], int] = {}
    own_keys = []
    for name, side in sides.items():
        plans.check_order(what, name, on, side, "sort it")
        used = np.unique(side.codes[side.codes >= 0])
        own_keys.append((used, side.keys.keys(used)))
        known.update(dict.fromkeys(own_keys[-1][1], 0))
    keys = sorted(known)  # type: ignore[type-var]
    known = {key: n for n, key in enumerate(keys)}
    for side, (used, mine) in zip(sides.values(), own_keys, strict=True):
        lookup = np.full(side.keys.count + 1, -1, np.int32)
        lookup[used] = [known[key] for key in mine]
        side.codes = tables.frozen(lookup[side.codes])  # code -1 reads the last element
    return sides, keys


@dataclass
class Points:
    """Key and time of every output row; for events also where they come from."""

    codes: np.ndarray
    times: np.ndarray
    sources: np.ndarray
    numbers: list[np.ndarray]


def _instants(sides: list[Side], plan: AlignPlan) -> Points:
    start, end, every = plan.start, plan.end, plan.events
    codes = np.concatenate([s.codes for s in sides])
    times = np.concatenate([s.times for s in sides])
    sources = np.repeat(np.arange(len(sides)), [len(s.codes) for s in sides])
    there = codes >= 0
    if start is not None and not every:
        there &= times >= start
    if end is not None:
        there &= times <= end
    rows = np.flatnonzero(there)
    if every:
        order = rows[np.argsort(times[rows], kind="stable")]
        number = np.full(len(codes), core.MAX_INT)
        number[order] = np.arange(len(order))
        numbers = np.split(number, np.cumsum([len(s.codes) for s in sides])[:-1])
        # Events before the start still count as state, so they are numbered and then left out.
        shift = 0 if start is None else int(np.searchsorted(times[order], start, "left"))
        order = order[shift:]
        return Points(codes[order], times[order], sources[order], [n - shift for n in numbers])
    order = rows[np.lexsort((codes[rows], times[rows]))]
    c, t = codes[order], times[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (c[1:] != c[:-1]) | (t[1:] != t[:-1])
    return Points(c[new], t[new], sources[:0], [])


def _grid(sides: list[Side], plan: AlignPlan) -> Points:
    codes = np.concatenate([s.codes for s in sides])
    times = np.concatenate([s.times for s in sides])
    codes, times = codes[codes >= 0], times[codes >= 0]
    found_codes, found_times = [codes[:0]], [times[:0]]
    if len(times):
        step, origin, end = plan.step, plan.origin, plan.end
        last = (min(int(times.max()) if end is None else end, core.MAX_INT) - origin) // step
        first_times = np.full(int(codes.max()) + 1, core.MAX_INT)
        np.minimum.at(first_times, codes, times)
        for code in np.unique(codes).tolist():
            begin = int(first_times[code])
            begin = begin if plan.start is None else max(begin, plan.start)
            first = -((origin - begin) // step)
            count = max(0, last - first + 1)
            found_times.append(origin + first * step + step * np.arange(count))
            found_codes.append(np.full(count, code))
    c, t = np.concatenate(found_codes), np.concatenate(found_times)
    order = np.lexsort((c, t))
    return Points(c[order], t[order], codes[:0], [])


def _state(
    side: Side, times: np.ndarray, keys: int, codes: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """The stream's last row of the key at or before each point, or −1."""
    times, codes, at = (tables.frozen(a) for a in (times, codes, at))
    index = Index.of(Side(side.table, Keys(side.codes, keys, []), side.codes, times))[0]
    lookup = np.arange(keys)
    rows = np.empty(len(codes), np.int64)

    def work(a: int, b: int) -> None:
        core.match(
            codes[a:b],
            at[a:b],
            lookup,
            index.starts,
            index.times,
            index.rows,
            core.BACKWARD,
            True,
            -1,
            0,
            rows[a:b],
        )

    tables.shared(len(rows), work)
    return rows


def _by_columns(
    sides: dict[str, Side], by: tuple[str, ...], keys: list[tuple[Hashable, ...]], codes: np.ndarray
) -> list[tuple[str, pa.Array]]:
    schema = next(iter(sides.values())).table.schema
    found = []
    for n, name in enumerate(by):
        kind = schema.field(name).type
        values = pa.array([key[n] for key in keys], value_type(kind))
        if pa.types.is_dictionary(kind):
            places = pa.array(codes.astype(np.int32))
            array = pa.DictionaryArray.from_arrays(places, values.cast(kind.value_type))
        else:
            array = values.cast(kind).take(pa.array(codes))
        found.append((name, array))
    return found


def _time_column(sides: dict[str, Side], on: str, times: np.ndarray) -> list[tuple[str, pa.Array]]:
    kind = next(iter(sides.values())).table.schema.field(on).type
    array = pa.array(times.astype(np.int64))
    return [(on, array.cast(pa.timestamp("ns", kind.tz)) if pa.types.is_timestamp(kind) else array)]


def _stream_columns(
    plan: AlignPlan, side: Side, rows: np.ndarray, times: np.ndarray
) -> list[tuple[str, pa.Array]]:
    on = plan.on
    seen = tables.Gather(rows)
    values = seen
    if plan.limit >= 0 and plan.stale == "null":
        fresh = rows.copy()
        core.drop_older(times, side.times, fresh, plan.limit)
        values = tables.Gather(fresh)
    age = np.empty(len(rows), np.int64)
    core.ages(times, side.times, rows, age)
    found = [
        (name, values.take(side.table.column(name)))
        for name in side.table.column_names
        if name != on and name not in plan.by
    ]
    return [*found, (on, seen.take(side.table.column(on))), ("age_ns", seen.integers(age))]
