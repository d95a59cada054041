"""Window joins: to every left row what the right rows of its key around its time add up to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern import join_window as core
from gpukern.errors import PlanError
from gpukern.join_keys import check_key_types
from gpukern.join_plan import Index

WHAT = "window_join"
CLOSED = {
    "both": (True, True),
    "left": (True, False),
    "right": (False, True),
    "neither": (False, False),
}
FUNCTIONS = ("min", "max", "avg", "sum", "count", "first", "last", "vwap")


def window_join(
    left: Any,
    right: Any,
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
    sort: bool = False,
) -> Any:
    """Append aggregates of the right rows with time in [t − before, t + after] of each left row.

    ``begin`` and ``end`` name two left time columns to use as bounds instead. ``aggs`` maps an
    output name to (function, column): min max avg sum count first last, ``("count", "*")`` for
    rows, ``("vwap", price, size)`` = Σ price·size / Σ size over rows with size > 0.

    ``mode='wj1'`` takes the rows inside the window, ``closed`` saying which bounds belong to it;
    ``'wj'`` sees values as steps and starts at the last row with time ≤ begin (quotes).
    Missing cells are skipped; count and sum of nothing are 0, all others null. min, max, first and
    last keep the column's type; sums of integers are exact int64 and raise PlanError when they do
    not fit; every float sum is made from its window's rows alone. A row with a missing key or bound
    has an empty window. Order, errors and ``sort`` are those of ``asof_join``. ``after`` > 0 looks
    ahead. Semantics: kdb+ ``wj`` and ``wj1``.
    """
    if mode not in ("wj", "wj1"):
        raise PlanError(f"{WHAT}: mode must be wj or wj1, got {mode!r}")
    if closed not in CLOSED:
        raise PlanError(f"{WHAT}: closed must be one of {', '.join(CLOSED)}, got {closed!r}")
    if mode == "wj" and closed != "both":
        raise PlanError(f"{WHAT}: mode wj is closed at both ends, got closed={closed!r}; use wj1")
    if (begin is None) != (end is None):
        raise PlanError(f"{WHAT}: give both begin and end, or neither")
    back = tables.duration_ns(f"{WHAT}: before", before)
    ahead = tables.duration_ns(f"{WHAT}: after", after)
    if begin is not None and (back or ahead):
        raise PlanError(f"{WHAT}: give either before and after, or begin and end")
    keys = tables.as_names(by)
    a, b = tables.to_arrow(left), tables.to_arrow(right)
    bounds = [name for name in (begin, end) if name is not None]
    tables.require(WHAT, "left", [on, *keys, *bounds], a.column_names)
    tables.require(WHAT, "right", [on, *keys], b.column_names)
    check_key_types(WHAT, keys, a.schema, b.schema, plans.SIDES)
    times = [("left", name, a.schema.field(name).type) for name in [on, *bounds]]
    tables.same_time_kind(WHAT, [*times, ("right", on, b.schema.field(on).type)])
    wanted = [_agg(name, spec, a.schema, b.schema) for name, spec in aggs.items()]

    near = plans.read_side(WHAT, "left", a, on, keys)
    far = plans.read_side(WHAT, "right", b, on, keys)
    index, bad = Index.of(far)
    if not sort:
        plans.check_order(WHAT, "left", on, near)
        if bad >= 0:
            raise plans.unsorted(WHAT, "right", on, far, bad)
    codes = near.codes
    if begin is None or end is None:
        begins, ends = (np.empty(a.num_rows, np.int64) for _ in range(2))
        core.shifted(near.times, -back, begins)
        core.shifted(near.times, ahead, ends)
    else:
        codes = near.keys.codes  # the row's own time does not matter then
        begins, no_begin = tables.read_times(WHAT, "left", a, begin)
        ends, no_end = tables.read_times(WHAT, "left", a, end)
        for missing in (no_begin, no_end):
            codes = codes if missing is None else np.where(missing, np.int32(-1), codes)
    windows = _windows(index, near, codes, begins, ends, mode == "wj", *CLOSED[closed])
    arrays = [windows.value(agg, b) for agg in wanted]
    fields = [pa.field(agg.name, agg.type) for agg in wanted]
    return tables.attach(left, fields, arrays)


@dataclass(frozen=True)
class Agg:
    """One output: a function of one column, or of two for vwap; '*' counts rows."""

    name: str
    function: str
    columns: tuple[str, ...]
    type: pa.DataType


def _agg(name: str, spec: Sequence[str], left: pa.Schema, right: pa.Schema) -> Agg:
    what = f"{WHAT}: aggs[{name!r}]"
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


def _windows(
    index: Index,
    left: plans.Side,
    codes: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    prevailing: bool,
    left_closed: bool,
    right_closed: bool,
) -> Windows:
    lookup = left.keys.lookup(index.side.keys)
    lo, hi = (np.empty(len(codes), np.int64) for _ in range(2))

    def work(a: int, b: int) -> None:
        core.windows(
            codes[a:b],
            begins[a:b],
            ends[a:b],
            lookup,
            index.starts,
            index.times,
            prevailing,
            left_closed,
            right_closed,
            lo[a:b],
            hi[a:b],
        )

    tables.shared(len(codes), work)
    return Windows(index.rows, lo, hi)


@dataclass
class Windows:
    """Row i's window: the right rows ``rows[lo[i]:hi[i]]``, in time order."""

    rows: np.ndarray
    lo: np.ndarray
    hi: np.ndarray

    def value(self, agg: Agg, right: pa.Table) -> pa.Array:
        """The aggregate of every window."""
        if agg.columns == ("*",):
            return pa.array(self.hi - self.lo)
        columns = [tables.one_array(right.column(name)) for name in agg.columns]
        valid = _present(columns)
        if agg.function in ("first", "last", "min", "max"):
            return tables.Gather(self._row(agg.function, columns[0], valid)).take(
                pa.chunked_array([columns[0]])
            )
        if agg.type == pa.int64():
            return pa.array(self._integers(agg, columns[0], valid))
        floats = [_floats(c) for c in columns]
        return self._floats(agg, floats[0], floats[-1], valid)

    def _row(self, function: str, column: pa.Array, valid: np.ndarray) -> np.ndarray:
        out = np.empty(len(self.lo), np.int64)
        values = None if function in ("first", "last") else _comparable(column)

        def work(a: int, b: int) -> None:
            lo, hi = self.lo[a:b], self.hi[a:b]
            if values is None:
                core.ends_of(lo, hi, self.rows, valid, function == "last", out[a:b])
            else:
                core.extremes(lo, hi, self.rows, valid, values, function == "max", out[a:b])

        tables.shared(len(out), work)
        return out

    def _integers(self, agg: Agg, column: pa.Array, valid: np.ndarray) -> np.ndarray:
        out = np.empty(len(self.lo), np.int64)
        if agg.function == "count":
            tables.shared(
                len(out),
                lambda a, b: core.counts(self.lo[a:b], self.hi[a:b], self.rows, valid, out[a:b]),
            )
            return out
        values = _comparable(column)

        def work(a: int, b: int) -> int:
            bad = core.int_sums(self.lo[a:b], self.hi[a:b], self.rows, valid, values, out[a:b])
            return -1 if bad < 0 else a + bad

        for row in tables.shared(len(out), work):
            if row >= 0:
                raise PlanError(
                    f"{WHAT}: aggs[{agg.name!r}]: the sum of {agg.columns[0]!r} in the window of "
                    f"row {row} does not fit into int64; cast the column to float64"
                )
        return out

    def _floats(
        self, agg: Agg, values: np.ndarray, weights: np.ndarray, valid: np.ndarray
    ) -> pa.Array:
        n = len(self.lo)
        sums, totals, number = np.empty(n), np.empty(n), np.empty(n, np.int64)
        weighted = agg.function == "vwap"

        def work(a: int, b: int) -> None:
            core.float_sums(
                self.lo[a:b],
                self.hi[a:b],
                self.rows,
                valid,
                values,
                weights,
                weighted,
                sums[a:b],
                totals[a:b],
                number[a:b],
            )

        tables.shared(n, work)
        if agg.function == "sum":
            return pa.array(sums)
        empty = number == 0
        per = totals if weighted else number
        return pa.array(np.divide(sums, per, where=~empty, out=np.zeros(n)), mask=empty)


def _present(columns: Sequence[pa.Array]) -> np.ndarray:
    """Where all columns have a value; NaN is none."""
    valid = np.ones(len(columns[0]), np.bool_)
    for column in columns:
        if isinstance(column, pa.DictionaryArray) and column.dictionary.null_count:
            column = column.dictionary.take(column.indices)
        if column.null_count:
            valid &= pc.is_valid(column).to_numpy(zero_copy_only=False)
        if pa.types.is_floating(column.type):
            valid &= ~np.isnan(_floats(column))
    return valid


def _floats(column: pa.Array) -> np.ndarray:
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _comparable(column: pa.Array) -> np.ndarray:
    """The column as numbers in the same order: float64, or 64 bits of an integer or a time."""
    kind = column.type
    if pa.types.is_floating(kind):
        return _floats(column)
    if pa.types.is_temporal(kind):
        column = column.view(pa.int64() if kind.bit_width == 64 else pa.int32())
    if column.type != pa.uint64():
        column = column.cast(pa.int64())
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
