"""One piece of a batch: rows grouped per class of existing rows, kernels run level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.forms import rows as prim

if TYPE_CHECKING:
    from gpukern.job import Job

DOMAINS = {"": prim.ANY, ">0": prim.POSITIVE, ">=0": prim.NON_NEGATIVE}
NO_ARENA = np.zeros(1)
NO_TIME = np.zeros(1, np.int64)
NO_BITS = np.zeros(0, np.uint8)


class RowClass:
    """Rows that exist for some kernels: their dense positions and the runs of each symbol."""

    def __init__(self, pos: np.ndarray | None, runs: np.ndarray, count: int) -> None:
        self.pos = pos  # None: dense order is row order
        self.runs = runs
        self.count = count
        self.dense: dict[Any, np.ndarray] = {}


class Piece:
    """The work on consecutive rows; columns are slices of the batch, targets of its results."""

    def __init__(
        self,
        job: Job,
        slots: np.ndarray,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        targets: list[tuple[np.ndarray, np.ndarray]],
        pool: Executor | None,
    ) -> None:
        self.job = job
        self.plan = job.plan
        self.n = len(slots)
        self.t = t
        self.pool = pool
        self.skip = job.plan.nan_policy == "skip"
        self.targets = targets
        self.columns: dict[Any, np.ndarray] = {("column", n): c for n, c in columns.items()}
        self.wanted: dict[Any, list[int]] = {}
        for at, output in enumerate(job.plan.outputs):
            self.wanted.setdefault(output.ref, []).append(at)
        self.nulls = [0] * len(targets)
        self.missing: dict[Any, np.ndarray | None] = {}
        self.classes: dict[Any, RowClass] = {}
        self.local = np.empty(self.n, np.int32)
        touched = np.empty(min(self.n, len(job.symbols)), np.int64)
        found = prim.number_symbols(slots, job.seen, self.local, touched)
        self.touched = touched[:found]
        self.every = self._index(None)

    def run(self) -> list[int]:
        """Run all steps; returns the nulls of each output."""
        for level in self.job.levels:
            needs = [(n, self._needs(n)) for n in level]
            self._do(self._mark, dict.fromkeys(x for _, need in needs for x in need[0]))
            for _, need in needs:
                self._class(need)
            self._do(
                self._densify,
                dict.fromkeys(
                    (self._class(need), ref, domain)
                    for _, need in needs
                    for ref, domain in need[1]
                ),
            )
            self._do(self._step, needs)
        return self.nulls

    def _do(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        if self.pool is None:
            for item in items:
                work(item)
        else:
            list(self.pool.map(work, items))

    # -- which rows exist -----------------------------------------------------------------

    def _needs(self, n: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """(what must be present, what must be made dense) for a step."""
        step = self.plan.steps[n]
        present, dense = [], []
        for spec, (_, ref) in zip(step.kernel.inputs, step.inputs, strict=True):
            if ref is None:
                continue
            domain = DOMAINS[spec.domain]
            if self.skip and not step.kernel.guard:
                present.append((ref, domain))
            dense.append((ref, prim.ANY if self.skip else domain))
        if step.template.uses_time or step.kernel.needs_time:
            if not step.kernel.guard:
                present.append((None, prim.ANY))
            dense.append((None, prim.ANY))
        return tuple(dict.fromkeys(present)), tuple(dense)

    def _mark(self, item: tuple[Any, int]) -> None:
        """Find the rows where a column is missing: None if there are none."""
        if item in self.missing:
            return
        ref, domain = item
        column = self.t if ref is None else self.columns[ref]
        assert column is not None
        keep = np.ones(self.n, np.bool_)
        if column.dtype == np.int64:
            dropped = prim.mark_missing_int(column, keep)
        else:
            dropped = prim.mark_missing(column, domain, keep)
        self.missing[item] = keep if dropped else None

    def _class(self, need: tuple[tuple[Any, ...], tuple[Any, ...]]) -> RowClass:
        present = need[0]
        if present not in self.classes:
            masks = [m for m in (self.missing[x] for x in present) if m is not None]
            if not masks:
                self.classes[present] = self.every
            else:
                keep = masks[0]
                for mask in masks[1:]:
                    keep = keep & mask
                key = keep.tobytes()
                if key not in self.classes:
                    self.classes[key] = self._index(keep)
                self.classes[present] = self.classes[key]
        return self.classes[present]

    def _index(self, keep: np.ndarray | None) -> RowClass:
        runs = np.empty((len(self.touched), 4), np.int64)
        if keep is None and len(self.touched) == 1:
            runs[0] = (self.touched[0], 0, self.n, 0)
            return RowClass(None, runs, self.n)
        pos = np.empty(self.n, np.int32)
        every = keep is None
        mask = np.empty(0, np.bool_) if keep is None else keep
        found = prim.index_rows(self.local, self.touched, mask, every, pos, runs)
        runs = runs[:found]
        return RowClass(pos, runs, int(runs[-1, 2]) if found else 0)

    def _densify(self, item: tuple[RowClass, Any, int]) -> None:
        rows, ref, domain = item
        key = (ref, domain)
        if key in rows.dense:
            return
        column = self.t if ref is None else self.columns[ref]
        assert column is not None
        if self.skip or column.dtype == np.int64:
            if rows.pos is None:
                rows.dense[key] = column
                return
            dense = np.empty(rows.count, column.dtype)
            prim.to_dense(column, rows.pos, dense)
        else:
            pos = np.arange(self.n, dtype=np.int32) if rows.pos is None else rows.pos
            dense = np.empty(rows.count, column.dtype)
            prim.to_dense_nan(column, pos, domain, dense)
        rows.dense[key] = dense

    # -- one step -------------------------------------------------------------------------

    def _step(self, item: tuple[int, Any]) -> None:
        n, need = item
        step, state = self.plan.steps[n], self.job.states[n]
        rows = self._class(need)
        state.reserve(rows.runs)
        inputs = []
        at = iter(need[1])
        for spec, (_, ref) in zip(step.kernel.inputs, step.inputs, strict=True):
            if ref is None:  # an optional input that is not given
                inputs.append(np.full(rows.count, np.nan))
            else:
                inputs.append(rows.dense[next(at)])
            if spec.dtype == "f64" and inputs[-1].dtype != np.float64:
                inputs[-1] = _as_floats(inputs[-1])
        timed = step.template.uses_time or step.kernel.needs_time
        t = rows.dense[(None, prim.ANY)] if timed else NO_TIME
        kinds = [np.float64 if o.dtype == "f64" else np.int64 for o in step.kernel.outputs]
        outs = [np.empty(rows.count, kind) for kind in kinds]
        arena = state.arena if len(state.arena) else NO_ARENA
        loop = self.job.loops[n]
        assert loop is not None
        loop(rows.runs, state.parameters, state.stride, state.rows, arena, t, *inputs, *outs)
        for m, dense in enumerate(outs):
            self._back((n, m), dense, rows)

    def _back(self, ref: tuple[int, int], dense: np.ndarray, rows: RowClass) -> None:
        """Dense results to row order, straight into the output column where there is one."""
        at = self.wanted.get(ref, [])
        if at:
            out, bits = self.targets[at[0]]
        else:
            out, bits = np.empty(self.n, dense.dtype), np.empty((self.n + 7) // 8, np.uint8)
        if dense.dtype == np.float64 and self.skip:
            if rows.pos is None:
                nulls = prim.to_rows_all(dense, out, bits)
            else:
                nulls = prim.to_rows(dense, rows.pos, out, bits)
        else:
            pos = np.arange(self.n, dtype=np.int32) if rows.pos is None else rows.pos
            back = prim.to_rows_nan if dense.dtype == np.float64 else prim.to_rows_int
            nulls = back(dense, pos, out, bits)
        self.columns[ref] = out
        for other in at:
            self.nulls[other] = nulls
            if other != at[0]:
                self.targets[other][0][:] = out
                self.targets[other][1][:] = bits


def _as_floats(column: np.ndarray) -> np.ndarray:
    """Integer results as the float input of another kernel."""
    values = column.astype(np.float64)
    values[column == prim.NULL_INT] = np.nan
    return values
