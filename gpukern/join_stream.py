"""The as-of join of two streams: rows wait until a watermark says that nothing can change them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError, StateError, UnsortedError
from gpukern.frame import kind_of
from gpukern.join_plan import SIDES, AsofPlan, Index
from gpukern.state import pack, unpack

WHAT = "asof_join_streaming"
MIN, MAX = core.MIN_INT, core.MAX_INT
ARRIVAL, CLOCK = "arrival_seq", "recv_ts"
COUNTERS = ("given", "accepted", "late", "null")


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
    if late_policy not in ("drop", "side"):
        raise PlanError(f"{WHAT}: late_policy must be drop or side, got {late_policy!r}")
    if emit not in ("final", "arrival"):
        raise PlanError(f"{WHAT}: emit must be final or arrival, got {emit!r}")
    for name, limit in (
        ("max_pending_left", max_pending_left),
        ("max_buffer_right", max_buffer_right),
    ):
        if limit is not None and limit < 1:
            raise PlanError(f"{WHAT}: {name} must be at least 1 or None, got {limit!r}")
    lateness = (
        tables.duration_ns(f"{WHAT}: lateness_left", lateness_left),
        tables.duration_ns(f"{WHAT}: lateness_right", lateness_right),
    )
    if emit == "arrival":
        _check_arrival(options, lateness)
        options = {**options, "on": ARRIVAL, "allow_exact_matches": False}
    plan = AsofPlan.of(WHAT, **options)
    if plan.direction != core.BACKWARD and plan.tolerance < 0:
        raise PlanError(
            f"{WHAT}: direction {options['direction']!r} needs a tolerance: without one a row "
            "would wait for the end of the stream"
        )
    kinds, schemas = zip(*map(_schema, (left_columns, right_columns)), strict=True)
    plan.check(*schemas)
    if emit == "arrival" and (plan.tolerance >= 0 or plan.age_column is not None):
        for side, schema in zip(SIDES, schemas, strict=True):
            tables.require(WHAT, side, [CLOCK], schema.names)
        clocks = [
            (side, CLOCK, s.field(CLOCK).type) for side, s in zip(SIDES, schemas, strict=True)
        ]
        tables.same_time_kind(WHAT, clocks)
    limits = (max_pending_left, max_buffer_right)
    return AsofStream(plan, kinds, schemas, lateness, late_policy, limits, emit)


def _check_arrival(options: dict[str, Any], lateness: tuple[int, int]) -> None:
    fixed = {"on": ARRIVAL, "direction": "backward", "allow_exact_matches": False}
    for name, value in fixed.items():
        if options.get(name, value) != value:
            raise PlanError(f"{WHAT}: emit='arrival' has {name}={value!r}, leave {name} out")
    if "left_on" in options or "right_on" in options or any(lateness):
        raise PlanError(
            f"{WHAT}: emit='arrival' joins on {ARRIVAL!r} without lateness; leave them out"
        )


def _schema(columns: Any) -> tuple[str, pa.Schema]:
    if isinstance(columns, pa.Schema):
        return "table", columns.empty_table().schema
    return kind_of(columns), tables.to_arrow(columns).schema


class AsofStream:
    """The carried state of one streaming join; made by :func:`asof_join_streaming`.

    ``counters`` has, per side, the rows given, accepted, late and null (without time): given is
    the sum of the others. ``watermarks`` are the W of both sides in ns.
    """

    def __init__(
        self,
        plan: AsofPlan,
        kinds: tuple[str, str],
        schemas: tuple[pa.Schema, pa.Schema],
        lateness: tuple[int, int],
        late_policy: str,
        limits: tuple[int | None, int | None],
        emit: str,
    ) -> None:
        self.plan = plan
        self.kinds = kinds
        self.schemas = schemas
        self.lateness = lateness
        self.late_policy = late_policy
        self.limits = limits
        self.emit = emit
        self.watermarks = [MIN, MIN]
        self.held = [schema.empty_table() for schema in schemas]  # waiting left, kept right rows
        self.times = [np.zeros(0, np.int64) for _ in SIDES]
        self.ended = False
        self.consumed = 0
        self.late: Any = None
        self.counters = {side: dict.fromkeys(COUNTERS, 0) for side in SIDES}

    # -- the four moves -------------------------------------------------------------------------

    def push_left(self, batch: Any) -> Any:
        """Take left rows; return the rows that became final."""
        return self._push(0, batch)

    def push_right(self, batch: Any) -> Any:
        """Take right rows; return the left rows that became final."""
        return self._push(1, batch)

    def advance(self, side: str, watermark: int | dt.datetime) -> Any:
        """Promise that no row of ``side`` earlier than the watermark will follow (an idle stream);
        return the rows that became final."""
        if side not in SIDES:
            raise PlanError(f"{WHAT}: side must be left or right, got {side!r}")
        at = SIDES.index(side)
        given = plans.moment_ns(f"{WHAT}: watermark", watermark)
        self.watermarks[at] = max(self.watermarks[at], given)
        return self._out([self._settle()])

    def flush(self) -> Any:
        """The end of both inputs: return all rows that still wait."""
        self.watermarks = [MAX, MAX]
        self.ended = True
        return self._out([self._settle()])

    # -- rows in --------------------------------------------------------------------------------

    def _push(self, at: int, batch: Any) -> Any:
        table = self._conform(at, tables.to_arrow(batch))
        times, missing = self._times(at, table)
        if self.emit == "arrival":
            self._check_arrival(at, times, missing)
        taken, found, late = 0, [], []
        while taken < table.num_rows:
            limit = self.limits[at]
            room = table.num_rows if limit is None else limit - self.held[at].num_rows
            if room <= 0:
                break
            rows = slice(taken, min(table.num_rows, taken + room))
            part = table.slice(rows.start, rows.stop - rows.start)
            late.append(self._accept(at, part, times[rows], missing[rows]))
            taken = rows.stop
            found.append(self._settle())
        self.consumed = taken
        self.late = None
        if self.late_policy == "side":
            rest = pa.concat_tables([self.schemas[at].empty_table(), *late])
            self.late = tables.from_arrow(self.kinds[at], rest)
        return self._out(found)

    def _conform(self, at: int, table: pa.Table) -> pa.Table:
        wanted = self.schemas[at]
        if table.schema.names != wanted.names or table.schema.types != wanted.types:
            raise PlanError(
                f"{WHAT}: the batch of the {SIDES[at]} side has the columns "
                f"{_described(table.schema)}; the stream was declared with {_described(wanted)}"
            )
        return table.cast(wanted) if table.schema != wanted else table

    def _times(self, at: int, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        name = (self.plan.left_on, self.plan.right_on)[at]
        assert name is not None
        times, missing = tables.read_times(WHAT, SIDES[at], table, name)
        return times, np.zeros(len(times), np.bool_) if missing is None else missing

    def _check_arrival(self, at: int, times: np.ndarray, missing: np.ndarray) -> None:
        """Numbers never fall, and no right row comes after a left row that should have seen it."""
        start = max(self.watermarks) if at else self.watermarks[0]
        numbers = np.concatenate(([start], times[~missing]))
        wrong = np.flatnonzero(numbers[1:] < numbers[:-1])
        if len(wrong):
            row = int(wrong[0])
            raise UnsortedError(
                f"{WHAT}: {SIDES[at]} side is not in order of arrival: column {ARRIVAL!r}: "
                f"{int(numbers[row + 1])} follows {int(numbers[row])}; push rows as they arrive"
            )

    def _accept(self, at: int, part: pa.Table, times: np.ndarray, missing: np.ndarray) -> pa.Table:
        """Keep the rows that are not late, move the watermark, return the late rows."""
        lateness = self.lateness[at]
        reach = np.where(missing, MIN, times)
        # A late row is below the watermark, so it never moves it.
        ahead = np.maximum(np.maximum.accumulate(reach), MIN + lateness) - lateness
        before = np.maximum(np.concatenate(([MIN], ahead[:-1])), self.watermarks[at])
        late = ~missing & (times < before)
        keep = ~(late | missing)
        if len(ahead):
            self.watermarks[at] = max(self.watermarks[at], int(ahead[-1]))
        counters = self.counters[SIDES[at]]
        for name, number in (
            ("given", len(times)),
            ("accepted", int(keep.sum())),
            ("late", int(late.sum())),
            ("null", int(missing.sum())),
        ):
            counters[name] += number
        kept = part if keep.all() else part.filter(pa.array(keep))
        self.held[at] = _one_piece(pa.concat_tables([self.held[at], kept]))
        self.times[at] = np.concatenate((self.times[at], times[keep]))
        return part.filter(pa.array(late)) if late.any() else part.slice(0, 0)

    # -- rows out -------------------------------------------------------------------------------

    def _horizon(self) -> int:
        """Left rows up to this time are final."""
        if self.ended or self.emit == "arrival":
            return MAX
        left, right = self.watermarks
        if self.plan.direction != core.BACKWARD:
            return min(left, right - 1 - self.plan.tolerance)
        return min(left, right - 1 if self.plan.exact else right)

    def _settle(self) -> pa.Table | None:
        """Join and release the left rows that are final; forget right rows nobody can need."""
        out = None
        horizon = self._horizon()
        if len(self.times[0]) and horizon >= int(self.times[0].min()):
            order = np.argsort(self.times[0], kind="stable")
            count = int(np.searchsorted(self.times[0][order], horizon, "right"))
            out = self._join(self.held[0].take(pa.array(order[:count])))
            rest = np.sort(order[count:])
            self.held[0] = _one_piece(self.held[0].take(pa.array(rest)))
            self.times[0] = self.times[0][rest]
        self._forget()
        return out

    def _join(self, left: pa.Table) -> pa.Table:
        plan = self.plan
        assert plan.left_on is not None
        near = plans.read_side(WHAT, "left", left, plan.left_on, plan.by)
        far = plans.read_side(WHAT, "right", self.held[1], plan.right_on, plan.by)
        if self.emit == "final":
            rows = Index.of(far)[0].match(near, plan)
            return tables.attach(left, *plans.result_columns(plan, near, far, rows))
        return self._join_arrival(near, far)

    def _join_arrival(self, near: plans.Side, far: plans.Side) -> pa.Table:
        rows = Index.of(far)[0].match(near, self.plan.unlimited())
        if self.plan.tolerance >= 0 or self.plan.age_column is not None:
            clocks = []
            for side, found in zip(SIDES, (near, far), strict=True):
                times, missing = tables.read_times(WHAT, side, found.table, CLOCK)
                found.times = times
                clocks.append(np.zeros(len(times), np.bool_) if missing is None else missing)
            if self.plan.tolerance >= 0 and len(clocks[1]):
                rows = np.where(clocks[0] | clocks[1][np.maximum(rows, 0)], -1, rows)
                core.drop_older(near.times, far.times, rows, self.plan.tolerance)
        return tables.attach(near.table, *plans.result_columns(self.plan, near, far, rows))

    def _forget(self) -> None:
        """Keep right rows from the earliest time that a left row can still have, and per key the
        last one before; of equal times the last."""
        if not len(self.times[1]):
            return
        oldest = self.watermarks[0]
        if len(self.times[0]):
            oldest = min(oldest, int(self.times[0].min()))
        side = plans.read_side(WHAT, "right", self.held[1], self.plan.right_on, self.plan.by)
        index = Index.of(side)[0]
        codes, times = side.codes[index.rows], index.times
        ends = np.append(codes[1:] != codes[:-1], np.ones(min(1, len(codes)), np.bool_))
        later = np.append(times[1:], times[-1:])
        keep = (times >= oldest) & (ends | (later != times))
        if self.plan.direction != core.FORWARD:
            limited = self.plan.tolerance >= 0 and self.emit == "final"
            reach = max(MIN, oldest - self.plan.tolerance) if limited else MIN
            keep |= (times < oldest) & (ends | (later >= oldest)) & (times >= reach)
        if int(keep.sum()) < len(self.times[1]):
            rows = np.sort(index.rows[keep])
            self.held[1] = _one_piece(self.held[1].take(pa.array(rows)))
            self.times[1] = self.times[1][rows]

    def _out(self, found: list[pa.Table | None]) -> Any:
        there = [table for table in found if table is not None]
        if not there:
            there = [self._join(self.schemas[0].empty_table())]
        return tables.from_arrow(self.kinds[0], _one_piece(pa.concat_tables(there)))

    # -- state ----------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole carried state."""
        header = {
            "plan": self._fingerprint(),
            "watermarks": self.watermarks,
            "counters": self.counters,
            "ended": self.ended,
        }
        return pack(header, [_to_bytes(table) for table in self.held])

    def restore(self, blob: bytes) -> None:
        """Continue from a snapshot of a stream with the same parameters, StateError otherwise."""
        header, arrays = unpack(blob)
        if header.get("plan") != self._fingerprint():
            raise StateError(
                f"{WHAT}: the snapshot belongs to a stream with other parameters or columns; "
                "restore it into one made in the same way"
            )
        self.watermarks = list(header["watermarks"])
        self.counters = {side: dict(header["counters"][side]) for side in SIDES}
        self.ended = header["ended"]
        for at, array in enumerate(arrays):
            self.held[at] = pa.ipc.open_stream(array.view(np.uint8).tobytes()).read_all()
            self.times[at] = self._times(at, self.held[at])[0]

    def _fingerprint(self) -> str:
        columns = [_described(schema) for schema in self.schemas]
        return repr((self.plan, columns, self.lateness, self.late_policy, self.limits, self.emit))


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _one_piece(table: pa.Table) -> pa.Table:
    return pa.table([tables.one_array(c) for c in table.columns], schema=table.schema)


def _to_bytes(table: pa.Table) -> np.ndarray:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(_one_piece(table))
    return np.frombuffer(sink.getvalue(), np.int64)  # Arrow pads its messages to 8 bytes
