"""A job on a device: the state stays there, rows go there and results come back.

The same plan, levels and classes of rows as on the CPU (``job.py``, ``piece.py``); what differs is
where columns live and that nothing between upload and download waits for the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import backend, device_resident, frame, frame_cudf
from gpukern.device_functions import Functions
from gpukern.device_piece import DevicePiece
from gpukern.device_push import Push, length
from gpukern.device_schedule import Schedule
from gpukern.device_step import Array, DeviceStep
from gpukern.errors import DeviceError, Error
from gpukern.forms.rows import NULL_INT
from gpukern.frame import Result, kind_of
from gpukern.job import Job
from gpukern.memory import empty

if TYPE_CHECKING:
    from gpukern.plan import Plan

LEAST_ROWS = 1 << 12  # of a piece; below that, memory is short for another reason
MOST_ROWS = 1 << 26
# Bytes of a piece's columns in or out: so short that copies run beside the work on other pieces.
STAGED = 1 << 29
PUSHES = 4  # lengths of small batches whose work is kept to be repeated


Kept = list[tuple[Array, ...]]  # a copy of every step's state


class DeviceJob(Job):
    """A job whose columns and state are on a device. Made by ``Plan.start(device=...)``."""

    tapes = False  # it has its own: recorded graphs
    numbers = staticmethod(frame.floats)

    def __init__(self, plan: Plan, device: str) -> None:
        super().__init__(plan, threads=1)
        self.device: Any = backend.get(device)
        self.functions = Functions(self.device)
        self.row_wise = frozenset()  # all steps work on grouped rows here
        self.most_rows = 0  # of a piece; 0: as many as memory allows
        self.pushes: dict[tuple[int, bool], Push] = {}
        self.begun: Kept | None = None  # the state before the first piece, once that has changed it
        self.schedule = Schedule(self)
        self.loaded: set[bool] = set()  # whether functions for chunks, and for none, are
        with self._memory("before the first row"), self.device.working():
            self.steps = [
                DeviceStep(self.device, self.functions, step, state)
                for step, state in zip(plan.steps, self.states, strict=True)
            ]
            self.tables: dict[str, Array] = {
                n: self.device.put(t.ravel()) for n, t in self.schedule.tables.items()
            }
            self._load(chunks=False)

    @contextmanager
    def _memory(self, when: str) -> Iterator[None]:
        """An error of the project's where memory runs short."""
        try:
            yield
        except MemoryError as error:
            raise DeviceError(
                f"device {self.device.name!r} is out of memory {when} ({error}); free memory "
                "there or use device='cpu'"
            ) from error

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
        known, last = len(self.symbols), self.last
        try:
            if kind_of(table) != "cudf":
                return super().run(table, sort=sort)
            if self.device.name != "cuda":
                raise DeviceError(f"a cuDF table needs device='cuda', not {self.device.name!r}")
            return frame_cudf.run(self, table, sort=sort)
        except (Error, MemoryError) as error:
            self._forget_symbols(known)
            self.last = np.full(self.capacity, NULL_INT, np.int64)
            self.last[: len(last)] = last
            if isinstance(error, MemoryError):
                raise DeviceError(
                    f"device {self.device.name!r} is out of memory ({error}); free memory there, "
                    "push fewer rows at a time or use device='cpu'"
                ) from error
            raise

    def snapshot(self) -> bytes:
        """The whole carried state; the same bytes as a CPU job's after the same rows."""
        with self.device.working():
            for step in self.steps:
                step.to_host()
        return super().snapshot()

    def restore(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        with self._memory("for the state"), self.device.working():
            super().restore(header, arrays)
            for step in self.steps:
                step.from_host()

    def _grow(self) -> None:
        super()._grow()
        with self.device.working():
            for step in self.steps:
                step.grow(self.capacity)
                if step.state.mapped:
                    step.send_parameters()

    def _load(self, *, chunks: bool) -> None:
        """Load what is launched, before there is work that could stop half way."""
        if chunks in self.loaded:
            return
        arena = any(step.layout.arena_fields for step in self.steps)
        self.functions.load(chunks=chunks, arena=arena)
        for step in self.steps:
            step.load(chunks=chunks)
        self.loaded.add(chunks)

    # -- work -----------------------------------------------------------------------------

    def _process(
        self,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        pool: Any,
        *,
        pack: bool,
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
        with self.device.working():
            lo = self._push(n, slots, t, columns, results)
            try:
                while lo < n:
                    lo += self._piece(lo, n, slots, t, columns, results)
            except DeviceError:
                self._put_back(self.begun)
                raise
            finally:
                self.begun = None
            self.device.staging.finish()
        for result in results:
            result.nulls = n - int(np.bitwise_count(result.bits).sum())
        return results

    def _push(
        self,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        results: list[Result],
    ) -> int:
        """Queue the work on a small batch; returns its rows, or 0 if it must go in pieces."""
        most = self.device.split_rows - 1
        if not 0 < n <= min(most, self.most_rows or most):
            return 0
        try:
            self._reserve(slots, n)
            push = self._repeated(length(n, most), not isinstance(slots, int))
            out, bits = push.piece.out, push.piece.bits
            push.fill(slots, self._words(columns, t, 0, n), n)
            self.device.staging.make_room(out, bits)
        except MemoryError as error:
            self.pushes.clear()
            if n <= LEAST_ROWS:
                raise self._out_of_memory(n, error) from error
            return 0
        push.run()
        self._download(out, bits, results, 0, n, push.rows)
        return n

    def _repeated(self, rows: int, grouped: bool) -> Push:
        """The work on a batch of that length, done before or to be recorded."""
        push = self.pushes.pop((rows, grouped), None)
        if push is None or not push.fits(self):
            push = None  # its memory can be had again
            self.pushes = {key: other for key, other in self.pushes.items() if other.fits(self)}
            if len(self.pushes) == PUSHES:
                del self.pushes[next(iter(self.pushes))]  # the one not used for the longest time
            push = Push(self, rows, grouped)
        self.pushes[(rows, grouped)] = push
        return push

    def _out_of_memory(self, rows: int, error: MemoryError) -> DeviceError:
        return DeviceError(
            f"device {self.device.name!r} is out of memory on a piece of {rows} rows ({error}); "
            "free memory there or use device='cpu'"
        )

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
            fit = n - lo if n - lo < self.device.split_rows else self._rows_that_fit()
            hi = min(lo + (self.most_rows or fit), n)
            kept = None
            try:
                if hi - lo >= self.device.split_rows:
                    self._load(chunks=True)
                # A large piece that fails has moved some steps on: it begins again from here. A
                # small one changes nothing when it fails, but the pieces before it have.
                if hi - lo >= self.device.split_rows or (lo == 0 and hi < n):
                    kept = self._keep()
                if lo == 0:
                    self.begun = kept
                # What the piece takes is given back when it fails, as nothing here holds it.
                self._queue(lo, hi, slots, t, columns, results)
            except MemoryError as error:
                self.device.staging.finish()
                self._put_back(kept)
                if hi - lo <= LEAST_ROWS:
                    raise self._out_of_memory(hi - lo, error) from error
                self.most_rows = max(LEAST_ROWS, (hi - lo) // 2) & ~7
                continue
            return hi - lo

    def _keep(self) -> Kept:
        return [step.keep() for step in self.steps]

    def _put_back(self, kept: Kept | None) -> None:
        """Return to what ``_keep`` gave; nothing has changed where nothing was kept."""
        if kept is not None:
            for step, state in zip(self.steps, kept, strict=True):
                step.put_back(state)

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
        # First the copies: they run beside the work on the piece before, for which the arenas wait.
        words = staging.upload(self._words(columns, t, lo, hi))
        codes = own if isinstance(own, int) else staging.upload([own])
        self._reserve(own, hi - lo)
        piece = DevicePiece(self, hi - lo, not isinstance(own, int))
        staging.make_room(piece.out, piece.bits)
        piece.take(codes, words)
        piece.find_runs()
        piece.run()
        staging.release([words, codes])
        self._download(piece.out, piece.bits, results, lo, hi, hi - lo)

    def _words(
        self, columns: dict[str, np.ndarray], t: np.ndarray | None, lo: int, hi: int
    ) -> list[np.ndarray]:
        """The columns a piece takes, as words."""
        words = [c[lo:hi].view(np.int64) for c in columns.values()]
        if t is not None and self.plan.uses_time:
            words.append(t[lo:hi])
        return words

    def _download(
        self, out: Array, bits: Array, results: list[Result], lo: int, hi: int, rows: int
    ) -> None:
        """Copies out of rows lo…hi, from outputs ``rows`` long."""
        staging = self.device.staging
        staging.download(out, [r.values[lo:hi].view(np.int64) for r in results], rows)
        width = (rows + 7) // 8
        staging.download(bits, [r.bits[lo // 8 : (hi + 7) // 8] for r in results], width)

    def _reserve(self, slots: np.ndarray | int, n: int) -> None:
        """Room for the rows in the arenas."""
        counts = self._rows_of_symbols(slots, n)
        for step in self.steps:
            step.reserve(counts, len(self.symbols))

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
        and their Arrow bitmaps, (n + 7) // 8 bytes each. Raises UnsortedError if time goes
        backwards within a symbol, DeviceError if memory is short; the state is as it was before.
        """
        with self.device.working():
            kept = None
            try:
                self._grow()
                self._load(chunks=n >= self.device.split_rows)
                kept = self._keep() if n >= self.device.split_rows else None
                return device_resident.run(self, n, slots, t, columns)
            except MemoryError as error:
                self._put_back(kept)
                raise DeviceError(
                    f"device {self.device.name!r} is out of memory on {n} rows that are there "
                    f"already ({error}); free memory there or pass fewer rows at a time"
                ) from error

    def _rows_that_fit(self) -> int:
        """Rows of which all columns, twice, take half of the free memory; no copy is too long."""
        plan = self.schedule
        words = 2 * len(plan.columns) + plan.dense + len(plan.results)
        row = 8 * (words + len(self.plan.outputs)) + 13 * len(plan.classes) + 64
        copied = STAGED // (8 * max(plan.inputs, len(self.plan.outputs), 1))
        fit = min(self.device.free_bytes() // (4 * row), copied, MOST_ROWS)
        return int(max(fit, LEAST_ROWS)) & ~7
