"""A job on a device: the state stays there, rows go there and results come back.

The same plan, levels and classes of rows as on the CPU (``job.py``, ``piece.py``); what differs is
where columns live and that nothing between upload and download waits for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import backend, frame_cudf
from gpukern.device_piece import DevicePiece
from gpukern.device_step import Array, DeviceStep, Functions
from gpukern.errors import DeviceError
from gpukern.frame import Result
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

    def run(self, table: Any, *, sort: bool = False) -> Any:
        """As on the CPU; a cuDF DataFrame gives one, and its columns stay on the device."""
        if frame_cudf.is_frame(table):
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
                piece = DevicePiece(self, hi - lo, own, None if t is None else t[lo:hi], cut)
                made = piece.run()
                self._bring_back(piece, made, targets)
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

    def _bring_back(
        self,
        piece: DevicePiece,
        made: list[tuple[Array, Array]],
        targets: list[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Queue the copies of a piece's results."""
        staging = self.device.staging
        staging.release(piece.uploaded)
        moves = [
            (array, target)
            for (values, bits), (to, valid) in zip(made, targets, strict=True)
            for array, target in ((values, to.view(np.int64)), (bits, valid))
        ]
        staging.download([a for a, _ in moves], [to for _, to in moves])

    def run_resident(
        self, n: int, slots: Array | int, t: Array | None, columns: dict[str, Array]
    ) -> list[tuple[Array, Array]]:
        """Push columns that are on the device; results stay there: per output values and bitmap.

        ``slots`` are int32 (the symbols are known to ``self.symbols``), time int64 ns, columns
        float64 with NaN for null or int64. Values are 8-byte words. Raises UnsortedError, with the
        state as it was before, if time goes backwards within a symbol.
        """
        self._grow()
        with self.device.working():
            piece = DevicePiece(self, n, slots, t, columns, resident=True)
            if t is not None:
                self.last[: piece.symbols] = piece.check_time(self.last[: piece.symbols])
            piece.reserve()
            return piece.run()

    def _rows_that_fit(self) -> int:
        """Rows of which all columns, twice, take half of the free memory."""
        columns = len(self.plan.value_columns) + 4 * len(self.plan.steps) + len(self.plan.outputs)
        fit = self.device.free_bytes() // 2 // (16 * columns)
        return int(min(max(fit, LEAST_ROWS), MOST_ROWS)) & ~7
