"""One piece of rows on a device: grouped by symbol, its steps queued level by level.

Nothing here waits for the device, so its work runs behind the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.device_step import Array, Rows
from gpukern.errors import UnsortedError
from gpukern.forms import rows as prim
from gpukern.forms.cuda import RUN

if TYPE_CHECKING:
    from gpukern.device_job import DeviceJob
    from gpukern.plan import Level

TIME = (None, prim.ANY)


class DevicePiece:
    """The work on consecutive rows: uploaded, grouped, run level by level, brought back."""

    def __init__(
        self,
        job: DeviceJob,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, Any],
        *,
        resident: bool = False,
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
        self.outputs: list[Any] = [None] * len(job.plan.outputs)
        self.grouped = int(not isinstance(slots, int))
        names: list[Any] = [("column", name) for name in columns]
        arrays = list(columns.values())
        if t is not None and (job.plan.uses_time or resident):
            names.append(None)
            arrays.append(t)
        if not isinstance(slots, int):
            arrays.append(slots if resident else slots.astype(np.int32, copy=False))
        if not resident:
            self._reserve(slots)
            arrays = self.uploaded = self.device.staging.upload(arrays)
        self._group(slots, names, arrays)

    def _reserve(self, slots: np.ndarray | int) -> None:
        """Room for the rows in the arenas of duration windows, by a count on the host."""
        if isinstance(slots, int):
            counts = np.zeros(self.symbols, np.int64)
            counts[slots] = self.n
        else:
            counts = np.bincount(slots, minlength=self.symbols)
        for step in self.job.steps:
            step.reserve(counts, self.symbols)

    def reserve(self) -> None:
        """The same by the count on the device."""
        if any(step.layout.arena_fields for step in self.job.steps):
            runs = self.device.fetch(self.every.runs)[: self.symbols * RUN].reshape(-1, RUN)
            for step in self.job.steps:
                step.reserve(runs[:, 3] - runs[:, 2], self.symbols)

    def _group(self, slots: Any, names: list[Any], arrays: list[Array]) -> None:
        """Columns in grouped order, and the run of every symbol."""
        device, n = self.device, self.n
        runs, tally = device.full(self.symbols * RUN, "q", 0), device.full(2, "q", 0)
        if not self.grouped:
            owner = device.full(n, "i", slots)
            order = self.pos = owner  # not read
        else:
            codes = arrays[-1]
            order = device.argsort(codes)
            owner, self.pos = device.empty(n, "i"), device.empty(n, "i")
            self.do.take_codes(n, codes, order, owner, n)
            self.do.invert(n, order, self.pos, n)
        self.do.find_runs(self.symbols, owner, n, runs, tally, self.symbols)
        self.every = Rows(n, tally, runs, owner, None, None)
        for name, array in zip(names, arrays, strict=False):
            kind = "d" if array.dtype == np.float64 else "q"
            if self.grouped:
                grouped = device.empty(n, kind)
                take = self.do.take_floats if kind == "d" else self.do.take_ints
                take(n, array, order, grouped, n)
                array = grouped
            self.columns[name] = (array, kind)

    def check_time(self, last: np.ndarray) -> np.ndarray:
        """Raise UnsortedError if time goes backwards within a symbol; the symbols' new last times.

        For columns on the device; those of the host were checked there.
        """
        device, n = self.device, self.n
        there = ((None, prim.ANY),)
        rows = self.classes[there] = self._class(there)
        t = rows.dense[TIME] = self._dense(rows, TIME)
        before, bad = device.put(last), device.full(n, "q", 0)
        self.do.find_backward(n, rows.counts, rows.runs, rows.owner, t, before, bad, n)
        if int(device.fetch(device.running_sum(bad)[-1:])[0]):
            found = np.flatnonzero(device.fetch(bad))[0]
            slot = int(device.fetch(rows.owner)[found])
            symbol = list(self.job.symbols.slots)[slot]
            raise UnsortedError(
                f"time goes backwards: column {self.job.plan.time!r}, symbol {symbol!r}, at "
                f"{int(device.fetch(t)[found])}; sort the input first"
            )
        self.do.last_times(self.symbols, rows.runs, t, before, self.symbols)
        return device.fetch(before)[: self.symbols]

    def run(self) -> list[tuple[Array, Array]]:
        """Queue all steps; per output its values (8-byte words) and bitmap in row order."""
        for level in self.job.levels:
            self._prepare(level)
            for n in level.steps:
                self._step(n)
        return self.outputs

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

    def _step(self, n: int) -> None:
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
                self._give(n, m, rows, dense)

    def _give(self, n: int, m: int, rows: Rows, dense: Array) -> None:
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
            out, valid = device.empty(self.n, "q"), device.empty((self.n + 7) // 8, "b")
            self.do.finish(
                (self.n + 7) // 8, dense.view(np.int64), rows.masked, keep, ends, self.grouped,
                self.pos, int(floats), self.skip, null, out, valid, self.n,
            )  # fmt: skip
            self.outputs[at] = (out, valid)
