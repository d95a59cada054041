"""As-of joins: to every left row the right row of its key that is nearest in time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Unpack

import numpy as np
import pyarrow as pa

from gpukern import backend
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError
from gpukern.frame import kind_of
from gpukern.join_plan import AsofOptions, AsofPlan, Index

Duration = str | int | dt.timedelta


def asof_join(
    left: Any,
    right: Any,
    *,
    on: str | None = None,
    left_on: str | None = None,
    right_on: str | None = None,
    by: str | Sequence[str] = (),
    direction: str = "backward",
    tolerance: Duration | None = None,
    allow_exact_matches: bool = True,
    suffix: str = "_right",
    columns: Sequence[str] | None = None,
    age_column: str | None = None,
    sort: bool = False,
    device: str = "cpu",
) -> Any:
    """Append to every left row the right row of the same key at the last time ≤ its own.

    ``direction='forward'`` takes the first time ≥, ``'nearest'`` the closest (the earlier of two
    as close); ``allow_exact_matches=False`` excludes equal times; ``tolerance`` limits the distance
    and is inclusive. Of right rows of equal key and time the last one counts, whole, its nulls
    included. A row with a missing key or time matches nothing. One output row per left row, in
    left order, as the kind of table that ``left`` is.

    Appended are the right time column, then its other columns (or ``columns``); names that the left
    has get ``suffix``. ``age_column`` adds t_left − t_right in ns. Types never depend on the data.

    Within a key both sides must be in time order; otherwise UnsortedError, or with ``sort=True``
    a stable sort (the output order stays). PlanError for wrong columns and options, and where
    types do not fit (naive timestamps, integers against timestamps) one that is a TypeError too.
    Forward and nearest look ahead: labels and cost analysis only. With ``device='cuda'`` a GPU
    finds the rows, and the columns are gathered where they are. Semantics: kdb+ ``aj``.
    """
    plan = AsofPlan.of(
        "asof_join",
        on=on,
        left_on=left_on,
        right_on=right_on,
        by=by,
        direction=direction,
        tolerance=tolerance,
        allow_exact_matches=allow_exact_matches,
        suffix=suffix,
        columns=columns,
        age_column=age_column,
    )
    if kind_of(left) == "cudf":
        from gpukern import join_cudf

        return join_cudf.joined(plan, left, right, sort=sort)
    assert plan.left_on is not None
    assert plan.right_on is not None
    a, b = tables.to_arrow(left), tables.to_arrow(right)
    plan.check(a.schema, b.schema)
    near = plans.read_side(plan.what, "left", a, plan.left_on, plan.by)
    far = plans.read_side(plan.what, "right", b, plan.right_on, plan.by)
    rows = _matched(plan, near, far, sort=sort, device=backend.choose(device))
    return tables.attach(left, *plans.result_columns(plan, near, far, rows))


def _matched(
    plan: AsofPlan, near: plans.Side, far: plans.Side, *, sort: bool, device: str
) -> np.ndarray:
    """The right row of every left row, or −1."""
    if device == "cpu":
        rows = plans.walked(near, far, plan)
        if rows is not None:
            return rows
    if not sort:
        assert plan.left_on is not None
        plans.check_order(plan.what, "left", plan.left_on, near)
    if device != "cpu":
        from gpukern import join_device

        rows = join_device.match(device, near, far, plan)
        if rows is None and sort:
            order = np.argsort(far.times, kind="stable")
            ordered = plans.Side(far.table, far.keys, far.codes[order], far.times[order])
            rows = join_device.match(device, near, ordered, plan)
            assert rows is not None
            rows = np.append(order, -1)[rows]  # −1 reads the end
        if rows is not None:
            return rows
    index, bad = Index.of(far)
    if bad >= 0 and not sort:
        assert plan.right_on is not None
        raise plans.unsorted(plan.what, "right", plan.right_on, far, bad)
    return index.match(near, plan)


class AsofTable:
    """A right side that stays: indexed once, then joined to any number of left tables.

    Rows of ``right`` may be in any order (they are sorted stably by time); so may left rows, since
    each is joined for itself: any cut of a left table gives ``asof_join(left, right, sort=True)``.
    Without a time column it is a lookup by key, and the last row of a key wins.

    ``versions=[(effective_from, table), …]`` instead of ``right``: a left row at time t
    (``left_on``) uses the last version with effective_from ≤ t and gets nulls before the first, so
    that the result does not depend on when a table was replaced. ``options`` are those of
    ``asof_join`` but ``sort``.
    """

    def __init__(
        self,
        right: Any = None,
        *,
        versions: Sequence[tuple[int | dt.datetime, Any]] | None = None,
        **options: Unpack[AsofOptions],
    ) -> None:
        what = "asof_join_table"
        if (right is None) == (versions is None):
            raise PlanError(f"{what}: give either a right table or versions")
        self.plan = AsofPlan.of(what, timeless=True, **options)
        self._check_times(versioned=versions is not None)
        self.effective: np.ndarray | None = None
        parts = [tables.to_arrow(right)] if versions is None else self._read_versions(versions)
        # One table for gathering; each version is indexed by itself.
        self.table = pa.concat_tables(parts).combine_chunks()
        tables.require(what, "right", self.plan.by, self.table.column_names)
        if self.plan.right_on is not None:
            tables.require(what, "right", [self.plan.right_on], self.table.column_names)
            kind = self.table.schema.field(self.plan.right_on).type
            tables.time_kind(what, "right", self.plan.right_on, kind)
        self.side = plans.read_side(what, "right", self.table, self.plan.right_on, self.plan.by)
        self.indices = []
        row = 0
        for part in parts:
            mine = np.zeros(self.table.num_rows, np.bool_)
            mine[row : row + part.num_rows] = True
            row += part.num_rows
            codes = (
                self.side.codes
                if len(parts) == 1
                else np.where(mine, self.side.codes, np.int32(-1))
            )
            side = plans.Side(self.table, self.side.keys, tables.frozen(codes), self.side.times)
            self.indices.append(Index.of(side)[0])

    def _check_times(self, *, versioned: bool) -> None:
        plan = self.plan
        if plan.right_on is not None and plan.left_on is None:
            raise PlanError(f"{plan.what}: right_on={plan.right_on!r} needs left_on= too")
        if versioned and plan.left_on is None:
            raise PlanError(f"{plan.what}: versions need the left time column, left_on=")
        if not versioned and plan.left_on is not None and plan.right_on is None:
            raise PlanError(f"{plan.what}: left_on={plan.left_on!r} needs right_on= too")
        if plan.right_on is None and not plan.by:
            raise PlanError(f"{plan.what}: a lookup without time needs by=")

    def _read_versions(self, versions: Sequence[tuple[int | dt.datetime, Any]]) -> list[pa.Table]:
        what = self.plan.what
        if not versions:
            raise PlanError(f"{what}: versions is empty; its first table gives the columns")
        since = [plans.moment_ns(f"{what}: effective_from", at) for at, _ in versions]
        if any(a >= b for a, b in pairwise(since)):
            raise PlanError(f"{what}: effective_from of the versions must increase, got {since}")
        parts = [tables.to_arrow(table) for _, table in versions]
        for at, part in zip(since, parts, strict=True):
            if not part.schema.equals(parts[0].schema):
                raise PlanError(
                    f"{what}: the version effective from {at} has other columns or types than the "
                    f"first: {part.schema.names} after {parts[0].schema.names}"
                )
        self.effective = np.array(since, np.int64)
        return parts

    def join(self, left: Any) -> Any:
        """The left table with the right columns appended, as the same kind of table."""
        a, plan = tables.to_arrow(left), self.plan
        plan.check(a.schema, self.table.schema)
        near = plans.read_side(plan.what, "left", a, plan.left_on, plan.by)
        if self.effective is None:
            rows = self.indices[0].match(near, plan)
        else:
            version = np.searchsorted(self.effective, near.times, "right") - 1
            rows = np.full(a.num_rows, -1)
            for v in np.unique(version[version >= 0]).tolist():
                rows = np.where(version == v, self.indices[v].match(near, plan), rows)
        return tables.attach(left, *plans.result_columns(plan, near, self.side, rows))


def asof_join_table(
    left: Any,
    right: Any = None,
    *,
    versions: Sequence[tuple[int | dt.datetime, Any]] | None = None,
    **options: Unpack[AsofOptions],
) -> Any:
    """``AsofTable(right, versions=versions, **options).join(left)``, for one left table."""
    return AsofTable(right, versions=versions, **options).join(left)
