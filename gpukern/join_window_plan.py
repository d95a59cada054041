"""What a window join was asked for: bounds, mode and aggregates, checked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern import join_window as core
from gpukern.errors import PlanError
from gpukern.join_keys import check_key_types
from gpukern.memory import empty

CLOSED = {
    "both": (True, True),
    "left": (True, False),
    "right": (False, True),
    "neither": (False, False),
}
FUNCTIONS = ("min", "max", "avg", "sum", "count", "first", "last", "vwap")


@dataclass(frozen=True)
class WindowPlan:
    """The options of a window join, checked as far as they can be without the tables."""

    what: str
    on: str
    by: tuple[str, ...]
    before: int
    after: int
    begin: str | None
    end: str | None
    prevailing: bool
    closed: tuple[bool, bool]
    aggs: tuple[tuple[str, tuple[str, ...] | str], ...]

    @classmethod
    def of(
        cls,
        what: str,
        *,
        on: str,
        aggs: Mapping[str, Sequence[str]],
        by: str | Sequence[str] = (),
        before: str | int | dt.timedelta = 0,
        after: str | int | dt.timedelta = 0,
        begin: str | None = None,
        end: str | None = None,
        mode: str = "wj1",
        closed: str = "both",
    ) -> WindowPlan:
        """Check the options."""
        if mode not in ("wj", "wj1"):
            raise PlanError(f"{what}: mode must be wj or wj1, got {mode!r}")
        if closed not in CLOSED:
            raise PlanError(f"{what}: closed must be one of {', '.join(CLOSED)}, got {closed!r}")
        if mode == "wj" and closed != "both":
            raise PlanError(
                f"{what}: mode wj is closed at both ends, got closed={closed!r}; use wj1"
            )
        if (begin is None) != (end is None):
            raise PlanError(f"{what}: give both begin and end, or neither")
        back = tables.duration_ns(f"{what}: before", before)
        ahead = tables.duration_ns(f"{what}: after", after)
        if begin is not None and (back or ahead):
            raise PlanError(f"{what}: give either before and after, or begin and end")
        specs = tuple((n, s if isinstance(s, str) else tuple(s)) for n, s in aggs.items())
        keys = tables.as_names(by)
        return cls(what, on, keys, back, ahead, begin, end, mode == "wj", CLOSED[closed], specs)

    @property
    def causal(self) -> bool:
        """Whether no row depends on right rows later than itself (with an ``end`` column nobody
        knows). What is not causal is for labels and cost analysis and no input of a strategy."""
        return self.end is None and self.after == 0

    def check(self, left: pa.Schema, right: pa.Schema) -> list[Agg]:
        """Raise unless both sides have the columns, in types that fit; the aggregates."""
        bounds = [name for name in (self.begin, self.end) if name is not None]
        tables.require(self.what, "left", [self.on, *self.by, *bounds], left.names)
        tables.require(self.what, "right", [self.on, *self.by], right.names)
        check_key_types(self.what, self.by, left, right, plans.SIDES)
        times = [("left", name, left.field(name).type) for name in [self.on, *bounds]]
        tables.same_time_kind(self.what, [*times, ("right", self.on, right.field(self.on).type)])
        return [_agg(self.what, name, spec, left, right) for name, spec in self.aggs]

    def bounds(self, near: plans.Side) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Key code (−1: empty window), begin and end of every left row's window."""
        if self.begin is None or self.end is None:
            begins, ends = (empty(len(near.times), np.int64) for _ in range(2))
            core.shifted(near.times, -self.before, begins)
            core.shifted(near.times, self.after, ends)
            return near.codes, begins, ends
        codes = near.keys.codes  # the row's own time does not matter then
        begins, no_begin = tables.read_times(self.what, "left", near.table, self.begin)
        ends, no_end = tables.read_times(self.what, "left", near.table, self.end)
        for missing in (no_begin, no_end):
            codes = codes if missing is None else np.where(missing, np.int32(-1), codes)
        return codes, begins, ends


@dataclass(frozen=True)
class Agg:
    """One output: a function of one column, or of two for vwap; '*' counts rows."""

    name: str
    function: str
    columns: tuple[str, ...]
    type: pa.DataType


def _agg(join: str, name: str, spec: Sequence[str], left: pa.Schema, right: pa.Schema) -> Agg:
    what = f"{join}: aggs[{name!r}]"
    if name in left.names:
        raise PlanError(f"{what}: the left side has a column of that name; choose another")
    if isinstance(spec, str) or not spec or spec[0] not in FUNCTIONS:
        raise PlanError(f"{what} must be (function, column), functions: {', '.join(FUNCTIONS)}")
    function, *columns = spec
    if len(columns) != (2 if function == "vwap" else 1):
        given = "a price and a size column" if function == "vwap" else "one column"
        raise PlanError(f"{what}: {function} takes {given}, got {tuple(columns)!r}")
    if columns == ["*"]:
        if function != "count":
            raise PlanError(f"{what}: only count takes '*', name a column for {function}")
        return Agg(name, function, ("*",), pa.int64())
    tables.require(what, "right", columns, right.names)
    of = pa.types
    for column in columns:
        kind = right.field(column).type
        number = of.is_integer(kind) or of.is_floating(kind)
        if function in ("avg", "sum", "vwap") and not number:
            raise tables.TypeMismatch(f"{what}: column {column!r} must be a number, it is {kind}")
        if function in ("min", "max") and not (number or of.is_temporal(kind)):
            raise tables.TypeMismatch(
                f"{what}: column {column!r} must be a number or a time, it is {kind}"
            )
    kind = right.field(columns[0]).type
    if function == "count" or (function == "sum" and of.is_integer(kind)):
        kind = pa.int64()
    elif function in ("avg", "sum", "vwap"):
        kind = pa.float64()
    return Agg(name, function, tuple(columns), kind)
