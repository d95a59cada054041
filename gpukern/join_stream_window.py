"""The window join of two streams: a left row waits until its window is complete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern import join_window as windows
from gpukern.errors import PlanError
from gpukern.join_feed import MAX, Feed, TwoSided, schema_of
from gpukern.join_plan import Index
from gpukern.join_window_plan import Agg, WindowPlan
from gpukern.window import window_columns

WHAT = "window_join_streaming"


def window_join_streaming(
    left_columns: Any,
    right_columns: Any,
    *,
    lateness_left: str | int | dt.timedelta = 0,
    lateness_right: str | int | dt.timedelta = 0,
    late_policy: str = "drop",
    max_pending_left: int | None = None,
    max_buffer_right: int | None = None,
    reach: str | int | dt.timedelta | None = None,
    **options: Any,
) -> WindowStream:
    """A :class:`WindowStream` for two streams; ``options`` are those of ``window_join`` but
    ``sort``.

    Columns, watermarks, late rows and limits are those of ``asof_join_streaming``. A left row at t
    is emitted when W_left ≥ t and W_right > the end of its window (≥ where the end is open), in
    order of time and arrival, so that a row never overtakes an earlier one. All of it together is
    ``window_join`` of the accepted rows. Rows without time are counted and not emitted.

    Kept are the right rows from the earliest begin that a left row can still have (``mode='wj'``:
    and per key the last before). With ``begin=`` and ``end=`` columns nobody knows that begin, so
    ``reach`` states how long before its own time a row's window may begin; a row that begins
    earlier raises PlanError. ``max_buffer_right`` must leave room for the rows of a window.
    """
    plan = WindowPlan.of(WHAT, **options)
    if (plan.begin is None) != (reach is None):
        raise PlanError(
            f"{WHAT}: reach= says how long before its own time a row's window may begin: give it "
            "with begin= and end=, and leave it out otherwise"
        )
    schemas = [schema_of(columns)[1] for columns in (left_columns, right_columns)]
    wanted = plan.check(*schemas)
    back = plan.before if reach is None else tables.duration_ns(f"{WHAT}: reach", reach)
    left = Feed(WHAT, "left", left_columns, plan.on, lateness=lateness_left, limit=max_pending_left)
    right = Feed(
        WHAT, "right", right_columns, plan.on, lateness=lateness_right, limit=max_buffer_right
    )
    return WindowStream(plan, wanted, back, left, right, late_policy=late_policy)


class WindowStream(TwoSided):
    """The carried state of one streaming window join; made by :func:`window_join_streaming`."""

    def __init__(
        self,
        plan: WindowPlan,
        wanted: Sequence[Agg],
        back: int,
        left: Feed,
        right: Feed,
        *,
        late_policy: str,
    ) -> None:
        super().__init__(WHAT, [left, right], late_policy=late_policy, parameters=(plan, back))
        self.plan = plan
        self.wanted = list(wanted)
        self.back = back
        self.left = left
        self.right = right

    def _check(self, feed: Feed, table: pa.Table, times: np.ndarray, missing: np.ndarray) -> None:
        """With bounds of their own, no window begins before what is kept for it."""
        if self.plan.begin is None or feed is self.right:
            return
        near = plans.read_side(WHAT, "left", table, self.plan.on, self.plan.by)
        codes, begins, ends = self.plan.bounds(near)
        allowed = np.empty(len(times), np.int64)
        windows.shifted(times, -self.back, allowed)
        wrong = np.flatnonzero((codes >= 0) & (begins <= ends) & ~missing & (begins < allowed))
        if len(wrong):
            row = int(wrong[0])
            raise PlanError(
                f"{WHAT}: left side: column {self.plan.begin!r}, row {row}: the window begins at "
                f"{int(begins[row])}, more than reach = {self.back} ns before the row's own time "
                f"{int(times[row])}; give a longer reach"
            )

    def _settle(self) -> pa.Table | None:
        if not len(self.left.times):
            self._forget(self.left.times)
            return None
        near = plans.read_side(WHAT, "left", self.left.rows, self.plan.on, self.plan.by)
        codes, begins, ends = self.plan.bounds(near)
        there = (codes >= 0) & (begins <= ends)
        waiting = self.left.until(MAX if self.ended else self.left.watermark)
        if not self.ended:
            mark = self.right.watermark
            complete = ends < mark if self.plan.closed[1] else ends <= mark
            blocked = np.flatnonzero((there & ~complete)[waiting])
            waiting = waiting[: blocked[0]] if len(blocked) else waiting
        out = None
        if len(waiting):
            out = self._join(self.left.take(waiting))
            there[waiting] = False
            self.left.drop(waiting)
        self._forget(begins[there])
        return out

    def _empty(self) -> pa.Table:
        return self._join(self.left.schema.empty_table())

    def _join(self, left: pa.Table) -> pa.Table:
        near = plans.read_side(WHAT, "left", left, self.plan.on, self.plan.by)
        columns = window_columns(self.plan, self.wanted, near, self._index())
        return tables.attach(left, *columns)

    def _index(self) -> Index:
        side = plans.read_side(WHAT, "right", self.right.rows, self.plan.on, self.plan.by)
        return Index.of(side)[0]

    def _forget(self, begins: np.ndarray) -> None:
        """Keep right rows from the earliest begin of a window that waits or may still come, and
        with prevailing rows the last of each key before it."""
        oldest = core.minus(self.left.watermark, self.back)
        oldest = min(oldest, int(begins.min())) if len(begins) else oldest
        keep = self.right.times >= oldest
        if keep.all():
            return
        if self.plan.prevailing:
            index = self._index()
            codes, times = index.side.codes[index.rows], index.times
            last = np.append((codes[1:] != codes[:-1]) | (times[1:] >= oldest), True)
            keep[index.rows[last[: len(codes)]]] = True
        self.right.keep(np.flatnonzero(keep))
