"""One piece of a batch: rows grouped per class of existing rows, kernels run level by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import split
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
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        targets: list[tuple[np.ndarray, np.ndarray]],
        pool: Executor | None,
    ) -> None:
        self.job = job
        self.plan = job.plan
        self.n = n
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
        self.local: np.ndarray | None = None
        if isinstance(slots, int):
            self.touched = np.array([slots], np.int64)
        else:
            self.local = np.empty(n, np.int32)
            touched = np.empty(min(n, len(job.symbols)), np.int64)
            found = prim.number_symbols(slots, job.seen, self.local, touched)
            self.touched = touched[:found]
        self.every = self._index(None)

    def run(self) -> list[int]:
        """Run all steps; returns the nulls of each output."""
        for level in self.job.levels:
            needs = [(n, self._needs(n)) for n in level]
            self._mark(x for _, need in needs for x in need[0])
            wanted = {(self._class(need), *x): None for _, need in needs for x in need[1]}
            self._densify(wanted)
            if self.pool is not None and len(level) < 2 * self.job.threads:
                for item in needs:
                    self._shared_step(item)
            else:
                self._do(self._step, needs)
        return self.nulls

    def _do(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        if self.pool is None:
            for item in items:
                work(item)
        else:
            list(self.pool.map(work, items))

    def _over_rows(self, jobs: list[Callable[[int, int], None]]) -> None:
        """Run work(lo, hi) for every job over all rows, in shares if there are few jobs."""
        shares = 1
        if self.pool is not None and len(jobs) < 2 * self.job.threads:
            shares = max(1, min(self.job.threads, self.n // split.LEAST))
        cuts = [(self.n * s // shares) & ~7 for s in range(shares)] + [self.n]
        tasks = [(work, lo, hi) for work in jobs for lo, hi in pairwise(cuts)]
        if len(tasks) == 1:
            jobs[0](0, self.n)
        else:
            self._do(lambda task: task[0](task[1], task[2]), tasks)

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

    def _mark(self, items: Iterable[tuple[Any, int]]) -> None:
        """Find the rows where columns are missing: None if there are none."""
        new = [item for item in dict.fromkeys(items) if item not in self.missing]
        masks = [np.empty(self.n, np.bool_) for _ in new]
        dropped: list[list[int]] = [[] for _ in new]

        def work(at: int, lo: int, hi: int) -> None:
            ref, domain = new[at]
            column = self.t if ref is None else self.columns[ref]
            assert column is not None
            keep = masks[at][lo:hi]
            if column.dtype == np.int64:
                dropped[at].append(prim.mark_missing_int(column[lo:hi], keep))
            else:
                dropped[at].append(prim.mark_missing(column[lo:hi], domain, keep))

        self._over_rows([partial(work, at) for at in range(len(new))])
        for item, mask, counts in zip(new, masks, dropped, strict=True):
            self.missing[item] = mask if sum(counts) else None

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
        if self.local is None:
            self.local = np.zeros(self.n, np.int32)
        found = prim.index_rows(self.local, self.touched, mask, every, pos, runs)
        runs = runs[:found]
        return RowClass(pos, runs, int(runs[-1, 2]) if found else 0)

    def _densify(self, items: Iterable[tuple[RowClass, Any, int]]) -> None:
        """Columns of the rows that exist, rows of one symbol together."""
        jobs = []
        for rows, ref, domain in items:
            key = (ref, domain)
            column = self.t if ref is None else self.columns[ref]
            assert column is not None
            if key in rows.dense:
                continue
            if rows.pos is None and (self.skip or column.dtype == np.int64):
                rows.dense[key] = column
                continue
            rows.dense[key] = np.empty(rows.count, column.dtype)
            jobs.append(partial(self._to_dense, rows, column, domain, rows.dense[key]))
        self._over_rows(jobs)

    def _to_dense(
        self, rows: RowClass, column: np.ndarray, domain: int, dense: np.ndarray, lo: int, hi: int
    ) -> None:
        pos = np.arange(lo, hi, dtype=np.int32) if rows.pos is None else rows.pos[lo:hi]
        if self.skip or column.dtype == np.int64:
            prim.to_dense(column[lo:hi], pos, dense)
        else:
            prim.to_dense_nan(column[lo:hi], pos, domain, dense)

    # -- one step -------------------------------------------------------------------------

    def _step(self, item: tuple[int, Any]) -> None:
        """One step on one thread."""
        n, need = item
        rows, t, inputs, outs = self._operands(n, need)
        self._loop(n, rows.runs, t, inputs, outs)
        for m, dense in enumerate(outs):
            finish, work = self._back((n, m), dense, rows)
            work(0, self.n)
            finish()

    def _shared_step(self, item: tuple[int, Any]) -> None:
        """One step on all threads: symbols are shared out, long runs of one symbol are cut."""
        assert self.pool is not None
        n, need = item
        rows, t, inputs, outs = self._operands(n, need)
        threads = self.job.threads
        share = rows.count / threads
        small = []
        for run in rows.runs:
            long = run[2] - run[1] >= max(share / 2, 2 * split.LEAST)
            if not long or not self._split(n, run, t, inputs, outs):
                small.append(run)
        if small:
            groups = _share_out(np.array(small), threads)
            list(self.pool.map(lambda runs: self._loop(n, runs, t, inputs, outs), groups))
        ends = [self._back((n, m), dense, rows) for m, dense in enumerate(outs)]
        self._over_rows([work for _, work in ends])
        for finish, _ in ends:
            finish()

    def _split(
        self, n: int, run: np.ndarray, t: np.ndarray, inputs: list[np.ndarray], outs: list
    ) -> bool:
        assert self.pool is not None
        one = split.Run(self.job.states[n], self.job.modules[n], run, t, inputs, outs)
        return split.run_split(one, self.job.threads, self.pool)

    def _loop(
        self, n: int, runs: np.ndarray, t: np.ndarray, inputs: list[np.ndarray], outs: list
    ) -> None:
        state = self.job.states[n]
        arena = state.arena if len(state.arena) else NO_ARENA
        self.job.modules[n].run(
            runs, state.parameters, state.stride, state.rows, arena, t, *inputs, *outs
        )

    def _operands(
        self, n: int, need: Any
    ) -> tuple[RowClass, np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """The rows, time, dense inputs and room for the dense outputs of a step."""
        step = self.plan.steps[n]
        rows = self._class(need)
        self.job.states[n].reserve(rows.runs)
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
        outs = []
        for m, kind in enumerate(kinds):
            at = self.wanted.get((n, m))
            # Where dense order is row order, the kernel writes straight into the output column.
            direct = at is not None and rows.pos is None
            outs.append(self.targets[at[0]][0] if direct and at else np.empty(rows.count, kind))
        return rows, t, inputs, outs

    def _back(
        self, ref: tuple[int, int], dense: np.ndarray, rows: RowClass
    ) -> tuple[Callable[[], None], Callable[[int, int], None]]:
        """(finish, work): ``work(lo, hi)`` brings dense results to row order."""
        at = self.wanted.get(ref, [])
        if at:
            out, bits = self.targets[at[0]]
        else:
            out, bits = np.empty(self.n, dense.dtype), np.empty((self.n + 7) // 8, np.uint8)
        counts: list[int] = []

        def work(lo: int, hi: int) -> None:
            to, valid = out[lo:hi], bits[lo // 8 : (hi + 7) // 8]
            if rows.pos is None and dense.dtype == np.float64 and self.skip:
                if dense is not out:
                    to[:] = dense[lo:hi]
                counts.append(prim.close_rows(to, valid))
                return
            pos = np.arange(lo, hi, dtype=np.int32) if rows.pos is None else rows.pos[lo:hi]
            if dense.dtype != np.float64:
                back = prim.to_rows_int
            else:
                back = prim.to_rows if self.skip else prim.to_rows_nan
            counts.append(back(dense, pos, to, valid))

        def finish() -> None:
            self.columns[ref] = out
            for other in at:
                self.nulls[other] = sum(counts)
                if other != at[0]:
                    self.targets[other][0][:] = out
                    self.targets[other][1][:] = bits

        return finish, work


def _as_floats(column: np.ndarray) -> np.ndarray:
    """Integer results as the float input of another kernel."""
    values = column.astype(np.float64)
    values[column == prim.NULL_INT] = np.nan
    return values


def _share_out(runs: np.ndarray, parts: int) -> list[np.ndarray]:
    """The runs in at most ``parts`` consecutive groups of about equal rows."""
    ends = np.cumsum(runs[:, 2] - runs[:, 1])
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts)
    return [g for g in np.split(runs, cuts) if len(g)]
