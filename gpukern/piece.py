"""One piece of a batch: rows grouped per class of existing rows, kernels run level by level."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import split
from gpukern.forms import rows as prim
from gpukern.memory import empty

if TYPE_CHECKING:
    from gpukern.job import Job
    from gpukern.plan import Level, Step

NO_ARENA = np.zeros(1)
NO_TIME = np.zeros(1, np.int64)
TIME = (None, prim.ANY)


class RowClass:
    """Rows that exist for some kernels: their dense positions and the runs of each symbol."""

    __slots__ = ("count", "dense", "pos", "runs", "there")

    def __init__(self, pos: np.ndarray | None, runs: np.ndarray, count: int) -> None:
        self.pos = pos  # None: dense order is row order
        self.runs = runs
        self.count = count
        self.dense: dict[Any, np.ndarray] = {}
        self.there: np.ndarray | None = None  # validity bitmap of the rows that exist

    def bits(self, n: int) -> np.ndarray:
        """The validity bitmap of a result that is never null where its row exists."""
        if self.there is None:
            bits = np.empty((n + 7) // 8, np.uint8)
            if self.pos is None or self.count == n:
                bits.fill(255)
            else:
                prim.there_bits(self.pos, self.count, bits)
            self.there = bits
        return self.there


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
        self.n = n
        self.pool = pool
        self.skip = job.plan.nan_policy == "skip"
        self.targets = targets
        self.nulls = [0] * len(targets)
        self.columns: dict[Any, Any] = {("column", name): c for name, c in columns.items()}
        self.columns[None] = t
        self.missing: dict[Any, np.ndarray | None] = {}
        self.classes: dict[Any, RowClass] = {}
        self.local: np.ndarray | None = None
        if len(job.row_wise) == len(job.plan.steps):
            return
        if isinstance(slots, int):
            self.touched = np.array([slots], np.int64)
        else:
            self.local = empty(n, np.int32)
            touched = np.empty(min(n, len(job.symbols)), np.int64)
            found = prim.number_symbols(slots, job.seen, self.local, touched)
            self.touched = touched[:found]
        self.every = self._index(None)

    def run(self) -> list[int]:
        """Run all steps; returns the nulls of each output."""
        for level in self.job.levels:
            self._prepare(level)
            if self.pool is None:
                for n in level.steps:
                    self._step(n)
            elif len(level.steps) < 2 * self.job.threads:
                for n in level.steps:
                    self._shared_step(n)
            else:
                # The longest first, so that no thread is left with one at the end.
                cost = self.job.cost
                self._share(self._step, sorted(level.steps, key=lambda n: -cost[n]))
        return self.nulls

    def _share(self, work: Callable[[Any], Any], items: Iterable[Any]) -> None:
        """Call ``work`` for every item on all threads, this one among them.

        The threads take items from one queue: a future for each item would cost as much as the
        item.
        """
        queue = deque(items)

        def drain() -> None:
            while queue:
                try:
                    item = queue.popleft()
                except IndexError:  # another thread took the last one
                    return
                work(item)

        assert self.pool is not None
        others = [self.pool.submit(drain) for _ in range(min(self.job.threads, len(queue)) - 1)]
        drain()
        for other in others:
            other.result()

    def _over_rows(self, tasks: list[tuple[Any, ...]], work: Callable[..., None]) -> None:
        """Call ``work(lo, hi, *task)`` so that every task covers all rows, in shares if few."""
        if self.pool is None:
            for task in tasks:
                work(0, self.n, *task)
            return
        shares = 1
        if len(tasks) < 2 * self.job.threads:
            shares = max(1, min(self.job.threads, self.n // split.LEAST))
        cuts = [(self.n * s // shares) & ~7 for s in range(shares)] + [self.n]
        calls = [(lo, hi, *task) for task in tasks for lo, hi in pairwise(cuts)]
        self._share(lambda call: work(*call), calls)

    # -- which rows exist -----------------------------------------------------------------

    def _prepare(self, level: Level) -> None:
        """Find the rows that exist for the level's steps and make their columns dense."""
        masks: dict[Any, tuple[np.ndarray, list[int]]] = {}
        for need in level.present:
            if need not in self.missing:
                masks[need] = (empty(self.n, np.bool_), [])
        self._over_rows([(*need, *room) for need, room in masks.items()], self._mark)
        for need, (mask, dropped) in masks.items():
            self.missing[need] = mask if sum(dropped) else None
        self._classify(dict.fromkeys(present for present, _ in level.dense))
        tasks = []
        for present, need in level.dense:
            rows = self.classes[present]
            if need in rows.dense:
                continue
            column = self.columns[need[0]]
            if rows.pos is None and (self.skip or column.dtype == np.int64):
                rows.dense[need] = column
                continue
            # One more than there are: rows that do not exist are written there.
            room = empty(rows.count + 1, column.dtype.type)
            rows.dense[need] = room[: rows.count]
            tasks.append((rows, column, need[1], room))
        self._over_rows(tasks, self._to_dense)

    def _mark(
        self, lo: int, hi: int, ref: Any, domain: int, mask: np.ndarray, dropped: list[int]
    ) -> None:
        column = self.columns[ref][lo:hi]
        if column.dtype == np.int64:
            dropped.append(prim.mark_missing_int(column, mask[lo:hi]))
        elif prim.all_present(column, domain):
            mask[lo:hi] = True
            dropped.append(0)
        else:
            dropped.append(prim.mark_missing(column, domain, mask[lo:hi]))

    def _classify(self, wanted: Iterable[tuple[Any, ...]]) -> None:
        """Index the rows on which all of ``present`` are there; equal sets share one index."""
        keys: dict[tuple[Any, ...], Any] = {}
        masks: dict[Any, np.ndarray] = {}
        for present in wanted:
            if present in self.classes:
                continue
            partial = [m for m in (self.missing[x] for x in present) if m is not None]
            if not partial:
                self.classes[present] = self.every
                continue
            keep = partial[0]
            for mask in partial[1:]:
                keep = keep & mask
            keys[present] = key = keep.tobytes()
            if key not in self.classes:
                masks[key] = keep
        if self.pool is None or len(masks) < 2:
            indexed: Iterable[RowClass] = map(self._index, masks.values())
        else:
            indexed = self.pool.map(self._index, masks.values())
        self.classes.update(zip(masks, indexed, strict=True))
        for present, key in keys.items():
            self.classes[present] = self.classes[key]

    def _index(self, keep: np.ndarray | None) -> RowClass:
        runs = np.empty((len(self.touched), 4), np.int64)
        if keep is None and len(self.touched) == 1:
            runs[0] = (self.touched[0], 0, self.n, 0)
            return RowClass(None, runs, self.n)
        pos = empty(self.n, np.uint32)
        if self.local is None:
            self.local = np.zeros(self.n, np.int32)
        mask = np.empty(0, np.bool_) if keep is None else keep
        found = prim.index_rows(self.local, self.touched, mask, keep is None, pos, runs)
        runs = runs[:found]
        return RowClass(pos, runs, int(runs[-1, 2]) if found else 0)

    def _to_dense(
        self, lo: int, hi: int, rows: RowClass, column: np.ndarray, domain: int, dense: np.ndarray
    ) -> None:
        pos = np.arange(lo, hi, dtype=np.uint32) if rows.pos is None else rows.pos[lo:hi]
        if self.skip or column.dtype == np.int64:
            prim.to_dense(column[lo:hi], pos, dense)
        else:
            prim.to_dense_nan(column[lo:hi], pos, domain, dense)

    # -- one step -------------------------------------------------------------------------

    def _step(self, n: int) -> None:
        """One step on one thread."""
        begin = perf_counter_ns()
        if n in self.job.row_wise:
            self._row_wise_step(n, shared=False)
            self.job.cost[n] = perf_counter_ns() - begin
            return
        step = self.job.plan.steps[n]
        rows = self.classes[step.present]
        t, inputs, outs = self._operands(n, step, rows)
        self._loop(n, rows.runs, t, inputs, outs)
        for m, dense in enumerate(outs):
            if (n, m) in self.job.used:
                out, bits, counts = self._room((n, m), dense.dtype.type)
                self._back(0, self.n, rows, dense, out, bits, counts)
                self._close((n, m), out, bits, counts)
        self.job.cost[n] = perf_counter_ns() - begin

    def _shared_step(self, n: int) -> None:
        """One step on all threads: symbols are shared out, long runs of one symbol are cut."""
        assert self.pool is not None
        if n in self.job.row_wise:
            self._row_wise_step(n, shared=True)
            return
        step = self.job.plan.steps[n]
        rows = self.classes[step.present]
        t, inputs, outs = self._operands(n, step, rows)
        threads = self.job.threads
        least = max(rows.count / threads / 2, 2 * split.LEAST)
        small = []
        for run in rows.runs:
            if run[2] - run[1] >= least:
                long = split.Run(self.job.states[n], self.job.modules[n], run, t, inputs, outs)
                if split.run_split(long, threads, self.pool):
                    continue
            small.append(run)
        if small:
            groups = _share_out(np.array(small), threads)
            list(self.pool.map(lambda runs: self._loop(n, runs, t, inputs, outs), groups))
        used = [m for m in range(len(outs)) if (n, m) in self.job.used]
        rooms = [self._room((n, m), step.kinds[m]) for m in used]
        tasks = [(rows, outs[m], *room) for m, room in zip(used, rooms, strict=True)]
        self._over_rows(tasks, self._back)
        for m, room in zip(used, rooms, strict=True):
            self._close((n, m), *room)

    def _row_wise_step(self, n: int, *, shared: bool) -> None:
        """A step that reads the current row alone, straight from and to columns in row order."""
        step, state = self.job.plan.steps[n], self.job.states[n]
        module = self.job.modules[n]
        absent = 0
        inputs = []
        for m, (_, ref) in enumerate(step.inputs):
            if ref is None:
                absent |= 1 << m
            column = np.full(self.n, np.nan) if ref is None else self.columns[ref]
            inputs.append(column if column.dtype == np.float64 else _as_floats(column))
        rooms = [self._room((n, m), kind) for m, kind in enumerate(step.kinds)]

        def work(lo: int, hi: int) -> None:
            nulls = np.zeros(len(rooms), np.int64)
            now = [column[lo:hi] for column in inputs]
            outs = [out[lo:hi] for out, _, _ in rooms]
            bits = [valid[lo // 8 : (hi + 7) // 8] for _, valid, _ in rooms]
            module.run_rows(state.parameters, absent, *now, *outs, *bits, nulls)
            for (_, _, counts), lost in zip(rooms, nulls.tolist(), strict=True):
                counts.append(lost)

        if shared:
            self._over_rows([()], work)
        else:
            work(0, self.n)
        for m, room in enumerate(rooms):
            self._close((n, m), *room)

    def _loop(
        self, n: int, runs: np.ndarray, t: np.ndarray, inputs: list[np.ndarray], outs: list
    ) -> None:
        state = self.job.states[n]
        arena = state.arena if len(state.arena) else NO_ARENA
        # An output may be one longer than the rows: the loop writes as far as the runs say.
        self.job.modules[n].run(
            runs, state.parameters, state.stride, state.rows, arena, t, *inputs, *outs
        )

    def _operands(
        self, n: int, step: Step, rows: RowClass
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Time, dense inputs, and room for the dense outputs of a step."""
        if step.template.layout.arena_fields:
            self.job.states[n].reserve(rows.runs)
        inputs = []
        for spec, need in zip(step.kernel.inputs, step.dense, strict=True):
            column = np.full(rows.count, np.nan) if need is None else rows.dense[need]
            if spec.dtype == "f64" and column.dtype != np.float64:
                column = _as_floats(column)
            inputs.append(column)
        outs = []
        for m, kind in enumerate(step.kinds):
            at = self.job.wanted.get((n, m)) if rows.pos is None else None
            # Where dense order is row order, the kernel writes straight into the output column.
            # Elsewhere a null follows the last element, for the rows that do not exist.
            if at is not None:
                outs.append(self.targets[at[0]][0])
                continue
            room = empty(rows.count + 1, kind)
            room[rows.count] = self.job.null if kind is np.float64 else prim.NULL_INT
            outs.append(room)
        return (rows.dense[TIME] if step.clock else NO_TIME), inputs, outs

    # -- results --------------------------------------------------------------------------

    def _room(self, ref: tuple[int, int], kind: type) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Where a result goes in row order: the output column if there is one."""
        at = self.job.wanted.get(ref)
        if at is not None:
            return (*self.targets[at[0]], [])
        return empty(self.n, kind), empty((self.n + 7) // 8, np.uint8), []

    def _back(
        self,
        lo: int,
        hi: int,
        rows: RowClass,
        dense: np.ndarray,
        out: np.ndarray,
        bits: np.ndarray,
        counts: list[int],
    ) -> None:
        """Bring dense results to row order and note which are null."""
        to, valid = out[lo:hi], bits[lo // 8 : (hi + 7) // 8]
        if rows.pos is None and dense.dtype == np.float64 and self.skip:
            if dense is not out:
                to[:] = dense[lo:hi]
            counts.append(prim.close_rows(to, valid))
            return
        pos = np.arange(lo, hi, dtype=np.uint32) if rows.pos is None else rows.pos[lo:hi]
        if lo == 0 and hi == self.n and rows.pos is not None and self._complete(dense, rows.count):
            prim.gather(dense, pos, to)
            valid[:] = rows.bits(self.n)
            counts.append(self.n - rows.count)
            return
        if dense.dtype != np.float64:
            back = prim.to_rows_int
        else:
            back = prim.to_rows if self.skip else prim.to_rows_nan
        counts.append(back(dense, pos, to, valid))

    def _complete(self, dense: np.ndarray, count: int) -> bool:
        """Whether no row that exists has a null result, so that only the others are null."""
        if dense.dtype == np.int64:
            return prim.none_null(dense[:count])
        return self.skip and prim.all_finite(dense[:count])

    def _close(
        self, ref: tuple[int, int], out: np.ndarray, bits: np.ndarray, counts: list[int]
    ) -> None:
        """Make a finished result visible to later steps and to outputs that repeat it."""
        self.columns[ref] = out
        for other in self.job.wanted.get(ref, ()):
            self.nulls[other] = sum(counts)
            to, valid = self.targets[other]
            if to is not out:
                to[:] = out
                valid[:] = bits


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
