"""A job on a device: the state stays there, rows go there and results come back.

The same plan, levels and classes of rows as on the CPU (``job.py``, ``piece.py``); what differs is
where columns live and that nothing between upload and download waits for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import backend
from gpukern.device_step import Array, DeviceStep, Functions, Rows
from gpukern.errors import DeviceError
from gpukern.forms import rows as prim
from gpukern.forms.cuda import RUN
from gpukern.frame import Result
from gpukern.job import Job
from gpukern.memory import empty

if TYPE_CHECKING:
    from gpukern.plan import Level, Plan

LEAST_ROWS = 1 << 12  # of a piece; below that, memory is short for another reason
TIME = (None, prim.ANY)


class DeviceJob(Job):
    """A job whose columns and state are on a device. Made by ``Plan.start(device=...)``."""

    def __init__(self, plan: Plan, device: str) -> None:
        super().__init__(plan, threads=1)
        self.device = backend.get(device)
        self.functions = Functions(self.device)
        with self.device.working():
            self.steps = [
                DeviceStep(self.device, self.functions, step, state)
                for step, state in zip(plan.steps, self.states, strict=True)
            ]
        self.most_rows = 0  # of a piece; 0: as many as memory allows
        self.null_bits = int(np.array([self.null]).view(np.int64)[0])
        refs = {ref for step in plan.steps for _, ref in step.inputs if ref is not None}
        self.inner = {ref for ref in refs if ref[0] != "column"}

    @property
    def repaired(self) -> dict[str, int]:
        """Per step kernel, the chunks whose guessed start was wrong and that were run again."""
        found: dict[str, int] = {}
        for step in self.steps:
            if step.template.variant == "step":
                count = int(self.device.fetch(step.repaired)[0])
                found[step.kernel.name] = found.get(step.kernel.name, 0) + count
        return found

    def snapshot(self) -> bytes:
        """The whole carried state; the same bytes as a CPU job's after the same rows."""
        with self.device.working():
            for step in self.steps:
                step.to_host()
        return super().snapshot()

    def restore(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        super().restore(header, arrays)
        with self.device.working():
            for step in self.steps:
                step.from_host()

    def _grow(self) -> None:
        known = self.capacity
        super()._grow()
        with self.device.working():
            if self.capacity > known:
                for step in self.steps:
                    step.grow(self.capacity, known)
            for step in self.steps:
                if step.state.mapped:
                    step.send_parameters()

    def compile(self, step: int) -> None:
        """Load the step's device functions."""
        for name in self.steps[step].template.kinds:
            self.steps[step].function(name)

    # -- work -----------------------------------------------------------------------------

    def _process(
        self,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        pool: Any,
    ) -> list[Result]:
        results = [
            Result(
                o.name,
                o.dtype,
                empty(n, np.float64 if o.dtype == "f64" else np.int64),
                empty((n + 7) // 8, np.uint8),
                0,
            )
            for o in self.plan.outputs
        ]
        lo = 0
        with self.device.working():
            while lo < n:
                lo += self._piece(lo, n, slots, t, columns, results)
            self.device.staging.finish()
        for result in results:
            valid = int(np.bitwise_count(result.bits).sum()) if n else 0
            result.nulls = n - valid
        return results

    def _piece(
        self,
        lo: int,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        results: list[Result],
    ) -> int:
        """Queue the work on the next rows; returns how many. Out of memory: fewer rows."""
        while True:
            size = self.most_rows or self._rows_that_fit()
            hi = min(lo + size, n)
            own = slots if isinstance(slots, int) else slots[lo:hi]
            cut = {name: c[lo:hi] for name, c in columns.items()}
            targets = [(r.values[lo:hi], r.bits[lo // 8 : (hi + 7) // 8]) for r in results]
            # A piece that fails half way has moved some steps on: begin it again from here.
            kept = [(s.rows.copy(), s.arena.copy()) for s in self.steps] if hi - lo > PUSH else None
            try:
                DevicePiece(self, hi - lo, own, None if t is None else t[lo:hi], cut).run(targets)
            except self.device.out_of_memory as error:
                self.device.staging.finish()
                if kept is None or hi - lo <= LEAST_ROWS:
                    raise DeviceError(
                        f"device {self.device.name!r} is out of memory on a piece of {hi - lo} "
                        f"rows ({error}); free memory there or use device='cpu'"
                    ) from error
                for step, (state, arena) in zip(self.steps, kept, strict=True):
                    step.rows, step.arena = state, arena
                self.most_rows = max(LEAST_ROWS, (hi - lo) // 2) & ~7
                continue
            return hi - lo

    def _rows_that_fit(self) -> int:
        """Rows of which all columns, twice, take half of the free memory."""
        columns = len(self.plan.value_columns) + 4 * len(self.plan.steps) + len(self.plan.outputs)
        fit = self.device.free_bytes() // 2 // (16 * columns)
        return int(min(max(fit, LEAST_ROWS), MOST_ROWS)) & ~7


PUSH = 1 << 14  # rows up to which a piece cannot run out of memory half way in practice
MOST_ROWS = 1 << 26


class DevicePiece:
    """The work on consecutive rows: uploaded, grouped, run level by level, brought back."""

    def __init__(
        self,
        job: DeviceJob,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
    ) -> None:
        self.job = job
        self.n = n
        self.device = job.device
        self.do = job.functions
        self.skip = int(job.plan.nan_policy == "skip")
        self.symbols = len(job.symbols)
        self.columns: dict[Any, tuple[Array, str]] = {}
        self.classes: dict[Any, Rows] = {}
        self.uploaded: list[Array] = []
        self._upload(slots, t, columns)

    def _upload(
        self, slots: np.ndarray | int, t: np.ndarray | None, columns: dict[str, np.ndarray]
    ) -> None:
        """Columns in grouped order, and the run of every symbol."""
        device, n = self.device, self.n
        names: list[Any] = [("column", name) for name in columns]
        arrays = list(columns.values())
        if t is not None and self.job.plan.uses_time:
            names.append(None)
            arrays.append(t)
        self.grouped = int(not isinstance(slots, int))
        if isinstance(slots, int):
            counts = np.zeros(self.symbols, np.int64)
            counts[slots] = n
        else:
            arrays.append(slots.astype(np.int32, copy=False))
            counts = np.bincount(slots, minlength=self.symbols)
        for step in self.job.steps:
            step.reserve(counts, self.symbols)
        self.uploaded = device.staging.upload(arrays)
        runs, tally = device.full(self.symbols * RUN, "q", 0), device.full(2, "q", 0)
        if isinstance(slots, int):
            owner = device.full(n, "i", slots)
            order = self.pos = owner  # not read
        else:
            codes = self.uploaded[-1]
            order, owner, self.pos = (
                device.argsort(codes), device.empty(n, "i"), device.empty(n, "i"),
            )  # fmt: skip
            self.do.take_codes(n, codes, order, owner, n)
            self.do.invert(n, order, self.pos, n)
        self.do.find_runs(self.symbols, owner, n, runs, tally, self.symbols)
        self.every = Rows(n, tally, runs, owner, None, None)
        for name, array in zip(names, self.uploaded, strict=False):
            kind = "d" if array.dtype == np.float64 else "q"
            if self.grouped:
                grouped = device.empty(n, kind)
                take = self.do.take_floats if kind == "d" else self.do.take_ints
                take(n, array, order, grouped, n)
                array = grouped
            self.columns[name] = (array, kind)

    def run(self, targets: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Queue all steps and the way back of their results."""
        moves: list[tuple[Array, np.ndarray]] = []
        for level in self.job.levels:
            self._prepare(level)
            for n in level.steps:
                self._step(n, targets, moves)
        staging = self.device.staging
        staging.release(self.uploaded)
        staging.download([a for a, _ in moves], [to for _, to in moves])

    # -- which rows exist -----------------------------------------------------------------

    def _prepare(self, level: Level) -> None:
        for present, need in level.dense:
            if present not in self.classes:
                self.classes[present] = self._class(present) if present else self.every
            rows = self.classes[present]
            if need not in rows.dense:
                rows.dense[need] = self._dense(rows, need)

    def _class(self, present: tuple[Any, ...]) -> Rows:
        """The rows on which all of ``present`` are there."""
        device, do, n = self.device, self.do, self.n
        keep = device.full(n, "b", 1)
        for ref, domain in present:
            column, kind = self.columns[ref]
            if kind == "d":
                do.mark_floats(n, column, domain, keep, n)
            else:
                do.mark_ints(n, column, keep, n)
        ends = device.running_sum(keep)
        runs, tally = device.full(self.symbols * RUN, "q", 0), device.full(2, "q", 0)
        do.find_kept_runs(self.symbols, self.every.runs, ends, n, runs, tally, self.symbols)
        owner = device.empty(n, "i")
        do.dense_codes(n, keep, ends, self.every.owner, owner, n)
        return Rows(n, tally, runs, owner, keep, ends)

    def _dense(self, rows: Rows, need: tuple[Any, int]) -> Array:
        """A column of the class, its rows together."""
        device, do, n = self.device, self.do, self.n
        column, kind = self.columns[need[0]]
        if kind == "d" and not self.skip:
            clean = device.empty(n, "d")
            do.clean_floats(n, column, need[1], clean, n)
            column = clean
        if not rows.masked:
            return column
        dense = device.empty(n, kind)
        gather = do.dense_floats if kind == "d" else do.dense_ints
        gather(n, rows.keep, rows.ends, column, dense, n)
        return dense

    # -- one step -------------------------------------------------------------------------

    def _step(self, n: int, targets: list[tuple[np.ndarray, np.ndarray]], moves: list[Any]) -> None:
        job, device = self.job, self.device
        step = job.plan.steps[n]
        rows = self.classes.get(step.present) or self.every
        if step.present and step.present not in self.classes:
            rows = self.classes[step.present] = self._class(step.present)
        inputs = []
        for spec, need in zip(step.kernel.inputs, step.dense, strict=True):
            if need is None:
                inputs.append(device.full(self.n, "d", np.nan))
                continue
            column = rows.dense[need]
            if spec.dtype == "f64" and column.dtype != np.float64:
                floats = device.empty(self.n, "d")
                self.do.as_floats(self.n, column, floats, self.n)
                column = floats
            inputs.append(column)
        outs = [device.empty(self.n, "d" if kind is np.float64 else "q") for kind in step.kinds]
        t = rows.dense[TIME] if step.clock else self.every.runs  # not read without a clock
        job.steps[n].run(rows, self.symbols, t, inputs, outs)
        for m, dense in enumerate(outs):
            if (n, m) in job.used:
                self._give(n, m, rows, dense, targets, moves)

    def _give(
        self,
        n: int,
        m: int,
        rows: Rows,
        dense: Array,
        targets: list[tuple[np.ndarray, np.ndarray]],
        moves: list[Any],
    ) -> None:
        """A result as an input of later steps and as output columns."""
        device, job = self.device, self.job
        floats = dense.dtype == np.float64
        null = job.null_bits if floats else prim.NULL_INT
        keep = rows.keep if rows.masked else self.every.owner.view(np.uint8)  # not read
        ends = rows.ends if rows.masked else self.every.runs
        if (n, m) in job.inner:
            to = device.empty(self.n, "d" if floats else "q")
            if floats:
                self.do.spread_floats(
                    self.n, dense.view(np.int64), rows.masked, keep, ends, null, self.skip,
                    to.view(np.int64), self.n,
                )  # fmt: skip
            else:
                self.do.spread_ints(self.n, dense, rows.masked, keep, ends, to, self.n)
            self.columns[(n, m)] = (to, "d" if floats else "q")
        for at in job.wanted.get((n, m), ()):
            values, bits = targets[at]
            out, valid = device.empty(self.n, "q"), device.empty((self.n + 7) // 8, "b")
            self.do.finish(
                (self.n + 7) // 8, dense.view(np.int64), rows.masked, keep, ends, self.grouped,
                self.pos, int(floats), self.skip, null, out, valid, self.n,
            )  # fmt: skip
            moves += [(out, values.view(np.int64)), (valid, bits)]
