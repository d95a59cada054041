"""What an as-of join was asked for: columns and options checked, names of the result decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, TypedDict

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_table as tables
from gpukern.errors import PlanError, UnsortedError
from gpukern.join_keys import Keys, check_key_types, encode, with_times
from gpukern.memory import empty

DIRECTIONS = {"backward": core.BACKWARD, "forward": core.FORWARD, "nearest": core.NEAREST}
SIDES = ("left", "right")


class AsofOptions(TypedDict, total=False):
    """The options of ``asof_join`` but ``sort``; its docstring says what they mean."""

    on: str | None
    left_on: str | None
    right_on: str | None
    by: str | Sequence[str]
    direction: str
    tolerance: str | int | dt.timedelta | None
    allow_exact_matches: bool
    suffix: str
    columns: Sequence[str] | None
    age_column: str | None


@dataclass(frozen=True)
class AsofPlan:
    """The options of an as-of join, checked as far as they can be without the tables."""

    what: str
    left_on: str | None
    right_on: str | None
    by: tuple[str, ...]
    direction: int
    tolerance: int
    exact: bool
    suffix: str
    columns: tuple[str, ...] | None
    age_column: str | None

    @classmethod
    def of(
        cls,
        what: str,
        *,
        on: str | None = None,
        left_on: str | None = None,
        right_on: str | None = None,
        by: str | Sequence[str] = (),
        direction: str = "backward",
        tolerance: str | int | dt.timedelta | None = None,
        allow_exact_matches: bool = True,
        suffix: str = "_right",
        columns: Sequence[str] | None = None,
        age_column: str | None = None,
        timeless: bool = False,
    ) -> AsofPlan:
        """Check the options; ``timeless`` allows a right side without a time column."""
        if on is not None and (left_on is not None or right_on is not None):
            raise PlanError(f"{what}: give either on={on!r} or left_on and right_on, not both")
        if on is not None:
            left_on = right_on = on
        elif not timeless and (left_on is None or right_on is None):
            raise PlanError(
                f"{what}: name the time column with on=, or with left_on= and right_on="
            )
        if direction not in DIRECTIONS:
            raise PlanError(
                f"{what}: direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}"
            )
        limit = -1 if tolerance is None else tables.duration_ns(f"{what}: tolerance", tolerance)
        if right_on is None and (limit >= 0 or age_column is not None):
            raise PlanError(f"{what}: tolerance and age_column need a right time column")
        return cls(
            what,
            left_on,
            right_on,
            tables.as_names(by),
            DIRECTIONS[direction],
            limit,
            bool(allow_exact_matches),
            suffix,
            None if columns is None else tables.as_names(columns),
            age_column,
        )

    @property
    def causal(self) -> bool:
        """Whether no row depends on right rows later than itself. What is not causal is for labels
        and cost analysis and no input of a strategy."""
        return self.direction == core.BACKWARD

    def unlimited(self) -> AsofPlan:
        """The same without a tolerance."""
        return replace(self, tolerance=-1)

    def check(self, left: pa.Schema, right: pa.Schema) -> None:
        """Raise unless both sides have the columns, in types that can be compared."""
        times = (self.left_on, self.right_on)
        for side, schema, time in zip(SIDES, (left, right), times, strict=True):
            wanted = self.by if time is None else (time, *self.by)
            tables.require(self.what, side, wanted, schema.names)
        check_key_types(self.what, self.by, left, right, SIDES)
        tables.same_time_kind(
            self.what,
            [
                (side, time, schema.field(time).type)
                for side, schema, time in zip(SIDES, (left, right), times, strict=True)
                if time is not None
            ]
            or [("left", "", pa.int64())],
        )
        self.outputs(left.names, right)

    def outputs(self, left: Sequence[str], right: pa.Schema) -> list[tuple[str | None, pa.Field]]:
        """What is appended: (right column or None for the age, field), all of it nullable."""
        own = {*self.by, self.right_on}
        if self.columns is None:
            chosen = [n for n in right.names if n not in own]
        else:
            chosen = list(self.columns)
            tables.require(self.what, "right", chosen, right.names)
            for name in chosen:
                if name in own or chosen.count(name) > 1:
                    raise PlanError(
                        f"{self.what}: columns names {name!r}, which is in the result already"
                    )
        if self.right_on is not None:
            chosen.insert(0, self.right_on)
        taken = set(left)
        found: list[tuple[str | None, pa.Field]] = []
        for name in chosen:
            new = name + self.suffix if name in left else name
            if new in taken:
                raise PlanError(
                    f"{self.what}: right column {name!r} would be {new!r}, which is there already; "
                    "give another suffix"
                )
            taken.add(new)
            found.append((name, right.field(name).with_name(new).with_nullable(True)))
        if self.age_column is not None:
            if self.age_column in taken:
                raise PlanError(f"{self.what}: age_column {self.age_column!r} is there already")
            found.append((None, pa.field(self.age_column, pa.int64())))
        return found


@dataclass
class Side:
    """One side of a join: its table, key codes (−1: takes no part) and times in ns."""

    table: pa.Table
    keys: Keys
    codes: np.ndarray
    times: np.ndarray
    gaps: bool = False  # whether a time is missing


def read_side(what: str, side: str, table: pa.Table, time: str | None, by: Sequence[str]) -> Side:
    """Code the keys and read the times of one side."""
    keys = encode(table, by)
    if time is None:
        none = tables.frozen(np.zeros(table.num_rows, np.int64))
        return Side(table, keys, with_times(keys, None), none)
    times, missing = tables.read_times(what, side, table, time)
    return Side(table, keys, with_times(keys, missing), times, missing is not None)


@dataclass
class Index:
    """The right side by key: times ascending within a key, and their row numbers."""

    side: Side
    starts: np.ndarray
    times: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, side: Side) -> tuple[Index, int]:
        """The index, and the first row out of order or −1 (the index is right in any case)."""
        starts = np.empty(side.keys.count + 1, np.int64)
        core.key_starts(side.codes, starts)
        index = cls(side, starts, *(empty(int(starts[-1]), np.int64) for _ in range(2)))
        as_is = np.zeros(0, np.int64)
        bad = core.place_rows(side.codes, side.times, as_is, starts, index.times, index.rows)
        if bad >= 0:
            order = np.argsort(side.times, kind="stable")
            core.place_rows(side.codes, side.times, order, starts, index.times, index.rows)
        return index, bad

    def match(self, left: Side, plan: AsofPlan, *, shift: int = 0) -> np.ndarray:
        """The right row of every left row, or −1; left times are taken ``shift`` ns earlier."""
        lookup = left.keys.lookup(self.side.keys)
        out = empty(len(left.codes), np.int64)

        def work(lo: int, hi: int) -> None:
            codes, times = left.codes[lo:hi], left.times[lo:hi]
            if plan.right_on is None:
                core.last_rows(codes, lookup, self.starts, self.rows, out[lo:hi])
                return
            core.match(
                codes,
                times,
                lookup,
                self.starts,
                self.times,
                self.rows,
                plan.direction,
                plan.exact,
                plan.tolerance,
                shift,
                out[lo:hi],
            )

        tables.shared(len(out), work)
        return out


def unsorted(
    what: str,
    side: str,
    column: str,
    found: Side,
    row: int,
    remedy: str = "sort it or pass sort=True",
) -> UnsortedError:
    """The error for a row that is earlier than the row of its key before it."""
    before = core.previous_row(found.codes, row)
    key = found.keys.key(int(found.codes[row]))
    return UnsortedError(
        f"{what}: {side} side is not in time order: column {column!r}, row {row}, key {key!r}: "
        f"{int(found.times[row])} follows {int(found.times[before])}; {remedy}"
    )


def check_order(
    what: str, side: str, column: str, found: Side, remedy: str = "sort it or pass sort=True"
) -> None:
    """Raise UnsortedError unless the rows of every key are in time order."""
    row = core.first_disorder(found.codes, found.times, found.keys.count)
    if row >= 0:
        raise unsorted(what, side, column, found, row, remedy)


def walked(near: Side, far: Side, plan: AsofPlan) -> np.ndarray | None:
    """The backward match by one merge if both sides are in time order over all keys, else None.

    That is how a recorder writes them, and it saves grouping the right side by key.
    """
    if plan.direction != core.BACKWARD or near.gaps or far.gaps:
        return None
    if not (core.ascending(far.times) and core.ascending(near.times)):
        return None
    count, rows = far.keys.count, len(near.codes)
    lookup = np.append(near.keys.lookup(far.keys), -1)  # code -1 reads the end
    out = empty(rows, np.int64)
    cuts = tables.cuts(rows)
    side: Literal["left", "right"] = "right" if plan.exact else "left"
    inner = np.searchsorted(far.times, near.times[[c - 1 for c in cuts[1:-1]]], side).tolist()
    ends = [0, *inner, len(far.times)]
    lasts = [np.full(count + 2, -1, np.int64) for _ in cuts[1:]]

    def before(n: int) -> None:
        core.last_of_keys(far.codes, ends[n], ends[n + 1], lasts[n + 1])

    def work(n: int) -> None:
        lo, hi = cuts[n], cuts[n + 1]
        core.walk(
            near.codes[lo:hi],
            near.times[lo:hi],
            lookup,
            far.codes,
            far.times,
            ends[n],
            ends[n + 1],
            plan.exact,
            lasts[n],
            out[lo:hi],
        )

    tables.each(before, len(lasts) - 1)
    for earlier, later in pairwise(lasts):
        np.copyto(later, earlier, where=later < 0)
    tables.each(work, len(lasts))
    if plan.tolerance >= 0:
        core.drop_older(near.times, far.times, out, plan.tolerance)
    return out


def result_columns(
    plan: AsofPlan, left: Side, right: Side, rows: np.ndarray
) -> tuple[list[pa.Field], list[pa.Array]]:
    """The columns that the join appends, gathered."""
    take = tables.Gather(rows)
    fields, arrays = [], []
    for source, field in plan.outputs(left.table.column_names, right.table.schema):
        fields.append(field)
        if source is None:
            age = empty(len(rows), np.int64)
            core.ages(left.times, right.times, rows, age)
            arrays.append(take.integers(age))
        else:
            arrays.append(take.take(right.table.column(source)))
    return fields, arrays


def moment_ns(what: str, value: Any) -> int:
    """Integer ns or a zoned datetime as ns."""
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise tables.TypeMismatch(f"{what}: {value!r} has no time zone; give it one")
        since = value - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000
        return ns + int(getattr(value, "nanosecond", 0))
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise tables.TypeMismatch(f"{what} must be integer ns or a datetime with a zone, got {value!r}")
