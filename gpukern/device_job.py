"""A job on a device: the state stays there, rows go there and results come back.

The same plan, levels and classes of rows as on the CPU (``job.py``, ``piece.py``); what differs is
where columns live and that nothing between upload and download waits for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import backend, frame_cudf
from gpukern.device_piece import DevicePiece
from gpukern.device_schedule import Schedule
from gpukern.device_step import Array, DeviceStep, Functions
from gpukern.errors import DeviceError
from gpukern.frame import Result, kind_of
from gpukern.job import Job
from gpukern.memory import empty

if TYPE_CHECKING:
    from gpukern.plan import Plan

LEAST_ROWS = 1 << 12  # of a piece; below that, memory is short for another reason
PUSH = 1 << 14  # rows up to which a piece is too small to run out of memory half way
MOST_ROWS = 1 << 26


class DeviceJob(Job):
    """A job whose columns and state are on a device. Made by ``Plan.start(device=...)``."""

    def __init__(self, plan: Plan, device: str) -> None:
        super().__init__(plan, threads=1)
        self.device: Any = backend.get(device)
        self.functions = Functions(self.device)
        with self.device.working():
            self.steps = [
                DeviceStep(self.device, self.functions, step, state)
                for step, state in zip(plan.steps, self.states, strict=True)
            ]
        self.row_wise = frozenset()  # all steps work on grouped rows here
        self.most_rows = 0  # of a piece; 0: as many as memory allows
        self.schedule = Schedule(self)
        with self.device.working():
            self.tables: dict[str, Array] = {
                n: self.device.put(t.ravel()) for n, t in self.schedule.tables.items()
            }

    @property
    def repaired(self) -> dict[str, int]:
        """Per step kernel, the chunks whose guessed start was wrong and that were run again."""
        found: dict[str, int] = {}
        for step in self.steps:
            if step.template.variant == "step":
                count = int(self.device.fetch(step.repaired)[0])
                found[step.kernel.name] = found.get(step.kernel.name, 0) + count
        return found

    def run(self, table: Any, *, sort: bool = False) -> Any:
        """As on the CPU; a cuDF DataFrame gives one, and its columns stay on the device."""
        if kind_of(table) == "cudf":
            if self.device.name != "cuda":
                raise DeviceError(f"a cuDF table needs device='cuda', not {self.device.name!r}")
            return frame_cudf.run(self, table, sort=sort)
        return super().run(table, sort=sort)

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
            result.nulls = n - int(np.bitwise_count(result.bits).sum())
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
            # A small batch fits; asking how much memory is free would take longer than its work.
            fit = n - lo if n - lo <= PUSH else self._rows_that_fit()
            hi = min(lo + (self.most_rows or fit), n)
            kept = None
            try:
                # A piece that fails half way has moved some steps on: begin it again from here.
                kept = [step.keep() for step in self.steps] if hi - lo > PUSH else None
                # What the piece takes is given back when it fails, as nothing here holds it.
                self._queue(lo, hi, slots, t, columns, results)
            except self.device.out_of_memory as error:
                self.device.staging.finish()
                if kept is None or hi - lo <= LEAST_ROWS:
                    raise DeviceError(
                        f"device {self.device.name!r} is out of memory on a piece of {hi - lo} "
                        f"rows ({error}); free memory there or use device='cpu'"
                    ) from error
                for step, state in zip(self.steps, kept, strict=True):
                    step.put_back(state)
                self.most_rows = max(LEAST_ROWS, (hi - lo) // 2) & ~7
                continue
            return hi - lo

    def _queue(
        self,
        lo: int,
        hi: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        results: list[Result],
    ) -> None:
        """Copies in, work and copies out of rows lo…hi."""
        staging = self.device.staging
        own = slots if isinstance(slots, int) else slots[lo:hi]
        counts = self._rows_of_symbols(own, hi - lo)
        for step in self.steps:
            step.reserve(counts, len(self.symbols))
        columns_in = [c[lo:hi].view(np.int64) for c in columns.values()]
        if t is not None and self.plan.uses_time:
            columns_in.append(t[lo:hi])
        words = staging.upload(columns_in)
        codes = own if isinstance(own, int) else staging.upload([own])
        out, bits = DevicePiece(self, hi - lo, codes, words).run()
        staging.release([words, codes])
        staging.download(out, [r.values[lo:hi].view(np.int64) for r in results])
        staging.download(bits, [r.bits[lo // 8 : (hi + 7) // 8] for r in results])

    def _rows_of_symbols(self, slots: np.ndarray | int, n: int) -> np.ndarray:
        if isinstance(slots, int):
            counts = np.zeros(len(self.symbols), np.int64)
            counts[slots] = n
            return counts
        if not any(step.layout.arena_fields for step in self.steps):
            return np.zeros(len(self.symbols), np.int64)  # nobody asks
        return np.bincount(slots, minlength=len(self.symbols))

    def run_resident(
        self, n: int, slots: Array | int, t: Array | None, columns: dict[str, Array]
    ) -> tuple[Array, Array]:
        """Push columns that are on the device; results stay there.

        ``slots`` are int32 (of symbols known to ``self.symbols``), time int64 ns, columns float64
        with NaN for null or int64. Returns the outputs one below the other, n 8-byte words each,
        and their Arrow bitmaps, (n + 7) // 8 bytes each. Raises UnsortedError, with the state as
        it was before, if time goes backwards within a symbol.
        """
        self._grow()
        device, plan = self.device, self.schedule
        with device.working():
            own = [columns[name].view(np.int64) for name in self.plan.value_columns]
            if t is not None and self.plan.uses_time:
                own.append(t)
            words = device.empty(max(plan.inputs, 1) * n, "q")
            for at, column in enumerate(own):
                words[at * n : (at + 1) * n] = column
            piece = DevicePiece(self, n, slots, words)
            if t is not None:
                symbols = len(self.symbols)
                grouped = piece.grouped_column(t)
                self.last[:symbols] = piece.check_time(grouped, self.last[:symbols])
            counts = piece.symbol_rows()
            for step in self.steps:
                step.reserve(counts, len(self.symbols))
            return piece.run()

    def _rows_that_fit(self) -> int:
        """Rows of which all columns, twice, take half of the free memory."""
        plan = self.schedule
        words = 2 * len(plan.columns) + plan.dense + len(plan.results)
        row = 8 * (words + len(self.plan.outputs)) + 13 * len(plan.classes) + 64
        return int(min(max(self.device.free_bytes() // (4 * row), LEAST_ROWS), MOST_ROWS)) & ~7
