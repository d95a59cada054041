"""Window joins: to every left row what the right rows of its key around its time add up to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import join_match
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern import join_window as core
from gpukern.errors import PlanError
from gpukern.join_plan import Index
from gpukern.join_window_plan import Agg, WindowPlan
from gpukern.memory import empty

WHAT = "window_join"


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
    plan = WindowPlan.of(
        WHAT,
        on=on,
        aggs=aggs,
        by=by,
        before=before,
        after=after,
        begin=begin,
        end=end,
        mode=mode,
        closed=closed,
    )
    a, b = tables.to_arrow(left), tables.to_arrow(right)
    wanted = plan.check(a.schema, b.schema)
    near = plans.read_side(WHAT, "left", a, on, plan.by)
    far = plans.read_side(WHAT, "right", b, on, plan.by)
    index, bad = Index.of(far)
    if not sort:
        plans.check_order(WHAT, "left", on, near)
        if bad >= 0:
            raise plans.unsorted(WHAT, "right", on, far, bad)
    return tables.attach(left, *window_columns(plan, wanted, near, index))


def window_columns(
    plan: WindowPlan, wanted: Sequence[Agg], near: plans.Side, index: Index
) -> tuple[list[pa.Field], list[pa.Array]]:
    """The columns that the join appends: the aggregates of every left row's window."""
    windows = _windows(index, near, plan)
    arrays = [windows.value(plan.what, agg) for agg in wanted]
    return [pa.field(agg.name, agg.type) for agg in wanted], arrays


def _windows(index: Index, near: plans.Side, plan: WindowPlan) -> Windows:
    codes, begins, ends = plan.bounds(near)
    lookup = near.keys.lookup(index.side.keys)
    lo, hi = (empty(len(codes), np.int64) for _ in range(2))

    def work(a: int, b: int) -> None:
        core.windows(
            codes[a:b],
            begins[a:b],
            ends[a:b],
            lookup,
            index.starts,
            index.times,
            plan.prevailing,
            *plan.closed,
            lo[a:b],
            hi[a:b],
        )

    tables.shared(len(codes), work)
    return Windows(index, lo, hi)


@dataclass
class Windows:
    """Row i's window: the places lo[i] to hi[i] of the index, in time order."""

    index: Index
    lo: np.ndarray
    hi: np.ndarray

    def value(self, what: str, agg: Agg) -> pa.Array:
        """The aggregate of every window."""
        if agg.columns == ("*",):
            return pa.array(self.hi - self.lo)
        right = self.index.side.table
        columns = [tables.one_array(right.column(name)) for name in agg.columns]
        valid = self._placed(_present(columns))
        if agg.function in ("min", "max"):
            rows = self._lowest(_falling(columns[0], agg.function == "max"), valid)
            return tables.Gather(rows).take(pa.chunked_array([columns[0]]))
        if agg.function in ("first", "last"):
            rows = self._ends(agg.function == "last", valid)
            return tables.Gather(rows).take(pa.chunked_array([columns[0]]))
        if agg.function == "count":
            counts = _running_counts(valid)
            return pa.array(counts[self.hi] - counts[self.lo])
        if agg.type == pa.int64():
            return pa.array(self._integers(what, agg, _comparable(columns[0]), valid))
        floats = [self._placed(_floats(c)) for c in columns]
        return self._floats(agg, floats[0], floats[-1], valid)

    def _placed(self, values: np.ndarray) -> np.ndarray:
        """Cells of the right rows in the order of the index."""
        if values.dtype == np.uint64:  # bits, which the loop must not take for numbers
            return self._placed(values.view(np.int64)).view(np.uint64)
        values, rows = tables.frozen(values), self.index.rows
        out = empty(len(rows), values.dtype.type)
        tables.shared(len(rows), lambda a, b: join_match.gather(values, rows[a:b], out[a:b]))
        return out

    def _lowest(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        column = self._placed(values)
        missing = np.inf if column.dtype == np.float64 else np.iinfo(column.dtype).max
        np.putmask(column, ~valid, missing)
        blocks = -(-len(column) // core.BLOCK)
        from_start, to_end = (empty(len(column), np.int64) for _ in range(2))
        levels = np.zeros((max(1, blocks.bit_length()), blocks), np.int64)

        def prepare(a: int, b: int) -> None:
            core.lows_of_blocks(a, b, column, from_start, to_end, levels[0])

        tables.shared(blocks, prepare)
        core.lows_of_spans(column, levels)
        out = empty(len(self.lo), np.int64)

        def work(a: int, b: int) -> None:
            core.lowest(
                self.lo[a:b],
                self.hi[a:b],
                self.index.rows,
                valid,
                column,
                column.dtype.type(missing),
                from_start,
                to_end,
                levels,
                out[a:b],
            )

        tables.shared(len(out), work)
        return out

    def _ends(self, last: bool, valid: np.ndarray) -> np.ndarray:
        counts, places = _running_counts(valid), np.flatnonzero(valid)
        out = empty(len(self.lo), np.int64)

        def work(a: int, b: int) -> None:
            lo, hi = self.lo[a:b], self.hi[a:b]
            core.ends_of(lo, hi, self.index.rows, counts, places, last, out[a:b])

        tables.shared(len(out), work)
        return out

    def _integers(self, what: str, agg: Agg, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        high, low = (empty(len(valid) + 1, np.int64) for _ in range(2))
        column = self._placed(values).view(np.int64)
        core.running_halves(valid, column, values.dtype == np.uint64, high, low)
        out = empty(len(self.lo), np.int64)

        def work(a: int, b: int) -> int:
            bad = core.int_sums(self.lo[a:b], self.hi[a:b], high, low, out[a:b])
            return -1 if bad < 0 else a + bad

        for row in tables.shared(len(out), work):
            if row >= 0:
                raise PlanError(
                    f"{what}: aggs[{agg.name!r}]: the sum of {agg.columns[0]!r} in the window of "
                    f"row {row} does not fit into int64; cast the column to float64"
                )
        return out

    def _floats(
        self, agg: Agg, values: np.ndarray, weights: np.ndarray, valid: np.ndarray
    ) -> pa.Array:
        n = len(self.lo)
        sums, totals, number = empty(n), empty(n), empty(n, np.int64)
        weighted = agg.function == "vwap"

        def work(a: int, b: int) -> None:
            core.float_sums(
                self.lo[a:b],
                self.hi[a:b],
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
        none = number == 0
        per = totals if weighted else number
        return pa.array(np.divide(sums, per, where=~none, out=np.zeros(n)), mask=none)


def _running_counts(valid: np.ndarray) -> np.ndarray:
    counts = empty(len(valid) + 1, np.int64)
    core.running_counts(valid, counts)
    return counts


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


def _falling(column: pa.Array, highest: bool) -> np.ndarray:
    """The column as numbers whose lowest is its lowest, or its highest, cell."""
    values = _comparable(column)
    if not highest:
        return values
    return -values if values.dtype == np.float64 else ~values
