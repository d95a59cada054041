"""The as-of join of two streams: rows wait until a watermark says that nothing can change them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError, UnsortedError
from gpukern.join_feed import MAX, MIN, Feed, TwoSided, schema_of
from gpukern.join_plan import SIDES, AsofPlan, Index

WHAT = "asof_join_streaming"
ARRIVAL, CLOCK = "arrival_seq", "recv_ts"


def asof_join_streaming(
    left_columns: Any,
    right_columns: Any,
    *,
    lateness_left: str | int | dt.timedelta = 0,
    lateness_right: str | int | dt.timedelta = 0,
    late_policy: str = "drop",
    max_pending_left: int | None = None,
    max_buffer_right: int | None = None,
    emit: str = "final",
    **options: Any,
) -> AsofStream:
    """An :class:`AsofStream` for two streams; ``options`` are those of ``asof_join`` but ``sort``.

    ``left_columns`` and ``right_columns`` are Arrow schemas, or tables (empty ones will do) with
    the columns of the stream, whose kind the results then have.

    A stream's watermark W is its latest time less its lateness: no accepted row earlier than W will
    follow. A row earlier than W is late: counted, never processed, and with ``late_policy='side'``
    found in ``late`` after the push. A left row at t is emitted when W_left ≥ t and W_right > t
    (≥ with exact matches off; forward and nearest need a tolerance and wait for W_right > t +
    tolerance), ordered by time and arrival. All of it together is ``asof_join`` of the accepted
    rows, whatever the batches and their interleaving.

    At ``max_pending_left`` waiting left rows or ``max_buffer_right`` kept right rows a push stops:
    ``consumed`` says how many rows it took; send the others again when the other side has moved.

    ``emit='arrival'`` is for live decisions: both sides carry ``arrival_seq``, given once when the
    process takes a row, and a left row is joined at once to the last right row of its key with a
    smaller number; ``tolerance`` and ``age_column`` then compare ``recv_ts``. Right rows must have
    been pushed before the left rows that may see them, UnsortedError otherwise.
    """
    if emit not in ("final", "arrival"):
        raise PlanError(f"{WHAT}: emit must be final or arrival, got {emit!r}")
    if emit == "arrival":
        _check_arrival(options, lateness_left, lateness_right)
        options = {**options, "on": ARRIVAL, "allow_exact_matches": False}
    plan = AsofPlan.of(WHAT, **options)
    if plan.direction != core.BACKWARD and plan.tolerance < 0:
        raise PlanError(
            f"{WHAT}: direction {options['direction']!r} needs a tolerance: without one a row "
            "would wait for the end of the stream"
        )
    schemas = [schema_of(columns)[1] for columns in (left_columns, right_columns)]
    plan.check(*schemas)
    if emit == "arrival" and (plan.tolerance >= 0 or plan.age_column is not None):
        for side, schema in zip(SIDES, schemas, strict=True):
            tables.require(WHAT, side, [CLOCK], schema.names)
        clocks = [
            (side, CLOCK, s.field(CLOCK).type) for side, s in zip(SIDES, schemas, strict=True)
        ]
        tables.same_time_kind(WHAT, clocks)
    assert plan.left_on is not None
    assert plan.right_on is not None
    left = Feed(
        WHAT, "left", left_columns, plan.left_on, lateness=lateness_left, limit=max_pending_left
    )
    right = Feed(
        WHAT, "right", right_columns, plan.right_on, lateness=lateness_right, limit=max_buffer_right
    )
    return AsofStream(plan, left, right, late_policy=late_policy, emit=emit)


def _check_arrival(options: dict[str, Any], *lateness: object) -> None:
    fixed = {"on": ARRIVAL, "direction": "backward", "allow_exact_matches": False}
    for name, value in fixed.items():
        if options.get(name, value) != value:
            raise PlanError(f"{WHAT}: emit='arrival' has {name}={value!r}, leave {name} out")
    if "left_on" in options or "right_on" in options or any(lateness):
        raise PlanError(
            f"{WHAT}: emit='arrival' joins on {ARRIVAL!r} without lateness; leave them out"
        )


class AsofStream(TwoSided):
    """The carried state of one streaming join; made by :func:`asof_join_streaming`."""

    def __init__(
        self,
        plan: AsofPlan,
        left: Feed,
        right: Feed,
        *,
        late_policy: str,
        emit: str = "final",
        parameters: object = None,
    ) -> None:
        parameters = parameters or (plan, emit)
        super().__init__(plan.what, [left, right], late_policy=late_policy, parameters=parameters)
        self.plan = plan
        self.left = left
        self.right = right
        self.emit = emit
        self._sorted_out = (MIN, 0)  # the oldest left time, and the right rows kept for it

    def _check(self, feed: Feed, table: pa.Table, times: np.ndarray, missing: np.ndarray) -> None:
        """At arrival numbers never fall, and no right row comes after a left row that should have
        seen it."""
        if self.emit == "final":
            return
        start = self.left.watermark
        if feed is self.right:
            start = max(start, self.right.watermark)
        numbers = np.concatenate(([start], times[~missing]))
        wrong = np.flatnonzero(numbers[1:] < numbers[:-1])
        if len(wrong):
            row = int(wrong[0])
            raise UnsortedError(
                f"{WHAT}: {feed.name} side is not in order of arrival: column {ARRIVAL!r}: "
                f"{int(numbers[row + 1])} follows {int(numbers[row])}; push rows as they arrive"
            )

    def _horizon(self) -> int:
        """Left rows up to this time are final."""
        if self.ended or self.emit == "arrival":
            return MAX
        left, right = self.left.watermark, self.right.watermark
        if self.plan.direction != core.BACKWARD:
            return min(left, right - 1 - self.plan.tolerance)
        return min(left, right - 1 if self.plan.exact else right)

    def _settle(self) -> pa.Table | None:
        final = self.left.until(self._horizon())
        if not len(final) and not self._may_forget():
            return None
        far, index = self._kept()
        out = None
        if len(final):
            out = self._join(self.left.take(final), far, index)
            self.left.drop(final)
        self._forget(index)
        return out

    def _may_forget(self) -> bool:
        """Whether there may be right rows that nobody needs: not if all that happened is that rows
        came whose times are new. A push of a few quotes then costs no look at those kept."""
        (oldest, known), times = self._sorted_out, self.right.times
        if self._oldest() != oldest or self.right.limit is not None:
            return len(times) > 0
        new = times[known:]
        rising = bool((new[1:] > new[:-1]).all())
        ahead = not known or bool((new[:1] > times[:known].max()).all())
        return not (rising and ahead and bool((new[:1] >= oldest).all()))

    def _empty(self) -> pa.Table:
        return self._join(self.left.schema.empty_table(), *self._kept())

    def _kept(self) -> tuple[plans.Side, Index]:
        far = plans.read_side(self.what, "right", self.right.rows, self.plan.right_on, self.plan.by)
        return far, Index.of(far)[0]

    def _join(self, left: pa.Table, far: plans.Side, index: Index) -> pa.Table:
        near = plans.read_side(self.what, "left", left, self.plan.left_on, self.plan.by)
        if self.emit == "final":
            return self._joined(near, far, index.match(near, self.plan))
        rows = index.match(near, self.plan.unlimited())
        if self.plan.tolerance >= 0 or self.plan.age_column is not None:
            clocks = []
            for side, found in zip(SIDES, (near, far), strict=True):
                times, missing = tables.read_times(WHAT, side, found.table, CLOCK)
                found.times = times
                clocks.append(np.zeros(len(times), np.bool_) if missing is None else missing)
            if self.plan.tolerance >= 0 and len(clocks[1]):
                rows = np.where(clocks[0] | clocks[1][np.maximum(rows, 0)], -1, rows)
                core.drop_older(near.times, far.times, rows, self.plan.tolerance)
        return self._joined(near, far, rows)

    def _joined(self, near: plans.Side, far: plans.Side, rows: np.ndarray) -> pa.Table:
        return tables.attach(near.table, *plans.result_columns(self.plan, near, far, rows))

    def _oldest(self) -> int:
        """The earliest time of a left row that waits or may still come."""
        return int(np.append(self.left.times, self.left.watermark).min())

    def _forget(self, index: Index) -> None:
        """Keep right rows from the earliest time that a left row can still have, and per key the
        last one before; of equal times the last."""
        oldest = self._oldest()
        codes, times = index.side.codes[index.rows], index.times
        ends = np.append(codes[1:] != codes[:-1], np.ones(min(1, len(codes)), np.bool_))
        later = np.append(times[1:], times[-1:])
        keep = (times >= oldest) & (ends | (later != times))
        if self.plan.direction != core.FORWARD:
            limited = self.plan.tolerance >= 0 and self.emit == "final"
            reach = max(MIN, oldest - self.plan.tolerance) if limited else MIN
            keep |= (times < oldest) & (ends | (later >= oldest)) & (times >= reach)
        self.right.keep(np.sort(index.rows[keep]))
        self._sorted_out = (oldest, len(self.right.times))
