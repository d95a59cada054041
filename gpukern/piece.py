"""One piece of a batch: rows grouped per class of existing rows, kernels run level by level.

All threads work on one step, which can cut the rows of one symbol too (``split.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import split
from gpukern.forms import cpu_back
from gpukern.forms import rows as prim
from gpukern.memory import Lent
from gpukern.presence import Presence, RowClass

if TYPE_CHECKING:
    from gpukern.job import Job, Made
    from gpukern.plan import Step

NO_ARENA = np.zeros(1)
NO_TIME = np.zeros(1, np.int64)
TIME = (None, prim.ANY)
NULL_WORD = {np.int64: prim.NULL_INT, np.float64: prim.NULL_BITS}


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
        narrow: frozenset[int],
        pool: Executor | None,
    ) -> None:
        self.job = job
        self.n = n
        self.pool = pool
        self.short = n < 4 * split.LEAST  # a pass over a column is not worth waking a thread
        self.skip = job.plan.nan_policy == "skip"
        self.lent = Lent(job.rooms)
        self.targets = targets
        # Flags and signs are words while the piece is worked on, and packed at its end.
        self.narrow = [(place, targets[place][0]) for place in narrow]
        for place in narrow:
            self.targets[place] = self.lent.empty(n, np.int64), targets[place][1]
        self.nulls = [0] * len(targets)
        self.columns: dict[Any, Any] = {("column", name): c for name, c in columns.items()}
        for name, column in columns.items():
            if name not in job.integers and column.dtype != np.float64:
                self.columns["column", name] = room = self.lent.empty(n)
                room[:] = column
        self.columns[None] = t
        self.presence = Presence(job, n, slots, self.columns, pool, self.lent)
        self.classes = self.presence.classes

    def run(self) -> list[int]:
        """Run all steps; returns the nulls of each output."""
        job = self.job
        for level in job.levels:
            self.presence.prepare(level, self._over_rows)
            for n in level.steps:
                self._step(n)
        for place, packed in self.narrow:
            if packed.dtype == np.uint8:
                prim.pack_bools(self.targets[place][0], packed)
            else:
                prim.narrow(self.targets[place][0], packed)
        self.lent.close()
        return self.nulls

    def _each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> None:
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

        helpers = min(self.job.threads, len(queue)) - 1
        others = [] if self.pool is None else [self.pool.submit(drain) for _ in range(helpers)]
        drain()
        for other in others:
            other.result()

    def _over_rows(self, tasks: list[tuple[Any, ...]], work: Callable[..., None]) -> None:
        """Call ``work(lo, hi, *task)`` so that every task covers all rows, in shares if few."""
        if self.pool is None or self.short:
            for task in tasks:
                work(0, self.n, *task)
            return
        shares = 1
        if len(tasks) < 2 * self.job.threads:
            shares = max(1, min(self.job.threads, self.n // split.LEAST))
        cuts = [(self.n * s // shares) & ~7 for s in range(shares)] + [self.n]
        calls = [(lo, hi, *task) for task in tasks for lo, hi in pairwise(cuts)]
        self._each(lambda call: work(*call), calls)

    # -- one step -------------------------------------------------------------------------

    def _step(self, n: int) -> None:
        """One step on all threads: symbols are shared out, long runs of one symbol are cut."""
        if n in self.job.row_wise:
            self._row_wise_step(n)
            return
        step = self.job.plan.steps[n]
        rows = self.classes[step.present]
        t, inputs, outs = self._operands(n, step, rows)
        short = np.ones(len(rows.runs), np.bool_)
        threads = 1
        if self.pool is not None and not self.short:
            threads = self.job.threads
            least = max(rows.count / threads / 2, 2 * split.LEAST)
            short = rows.runs[:, 2] - rows.runs[:, 1] < least
            for at in np.flatnonzero(~short):
                run = rows.runs[at]
                long = split.Run(self.job.states[n], self.job.modules[n], run, t, inputs, outs)
                short[at] = not split.run_split(long, threads, self.pool)
        if short.any():
            groups = _share_out(rows.runs[short], threads)
            self._each(lambda runs: self._loop(n, runs, t, inputs, outs), groups)
        used = self.job.used[n]
        rooms = [self._room(result, step.kinds[result.at]) for result in used]
        nulls = [[0] for _ in used]

        def back(lo: int, hi: int, at: int) -> None:
            nulls[at].append(self._back(lo, hi, rows, outs[used[at].at], *rooms[at]))

        self._over_rows([(at,) for at in range(len(used))], back)
        for result, room, lost in zip(used, rooms, nulls, strict=True):
            self._close(result, *room, sum(lost), rows, outs[result.at])
        self._done(rows, outs)

    def _row_wise_step(self, n: int) -> None:
        """A step that reads the current row alone, straight from and to columns in row order."""
        step, state = self.job.plan.steps[n], self.job.states[n]
        run_rows = self.job.modules[n].run_rows
        absent = 0
        inputs = []
        for m, (_, ref) in enumerate(step.inputs):
            if ref is None:
                absent |= 1 << m
            column = np.full(self.n, np.nan) if ref is None else self.columns[ref]
            inputs.append(column if column.dtype == np.float64 else _as_floats(column))
        results = self.job.results[n]
        rooms = [self._room(result, step.kinds[result.at]) for result in results]
        outs, bits = zip(*rooms, strict=True)
        counts = []

        def work(lo: int, hi: int) -> None:
            nulls = np.zeros(len(rooms), np.int64)
            now, to, valid = inputs, outs, bits
            if hi - lo < self.n:
                now = [column[lo:hi] for column in inputs]
                to = [out[lo:hi] for out in outs]
                valid = [b[lo // 8 : (hi + 7) // 8] for b in bits]
            run_rows(state.parameters, absent, *now, *to, *valid, nulls)
            counts.append(nulls.tolist())

        self._over_rows([()], work)
        for result, room, lost in zip(results, rooms, zip(*counts, strict=True), strict=True):
            self._close(result, *room, sum(lost))

    def _loop(
        self, n: int, runs: np.ndarray, t: np.ndarray, inputs: list[np.ndarray], outs: list
    ) -> None:
        state = self.job.states[n]
        arena = state.arena if len(state.arena) else NO_ARENA
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
        for need, floats in self.job.feeds[n]:
            column = np.full(rows.count, np.nan) if need is None else rows.dense[need]
            if floats and column.dtype != np.float64:
                column = _as_floats(column)
            inputs.append(column)
        outs = []
        for m, kind in enumerate(step.kinds):
            # Where dense order is row order, the kernel writes straight into the output column.
            places = self.job.results[n][m].places
            if rows.pos is None and places:
                outs.append(self.targets[places[0]][0])
                continue
            # Elsewhere a null follows the last element, for the rows that do not exist.
            room = self.lent.empty(rows.count + 1, kind)
            room[rows.count] = self.job.null if kind is np.float64 else prim.NULL_INT
            outs.append(room)
        return (rows.dense[TIME] if step.clock else NO_TIME), inputs, outs

    # -- results --------------------------------------------------------------------------

    def _room(self, result: Made, kind: type) -> tuple[np.ndarray, np.ndarray]:
        """Where a result and its validity go in row order: the output column if there is one."""
        if result.places:
            return self.targets[result.places[0]]
        return self.lent.empty(self.n, kind), self.lent.empty((self.n + 7) // 8, np.uint8)

    def _back(
        self,
        lo: int,
        hi: int,
        rows: RowClass,
        dense: np.ndarray,
        out: np.ndarray,
        bits: np.ndarray,
    ) -> int:
        """Bring dense results to row order and note which are null; returns how many."""
        pos = rows.pos
        if hi - lo < self.n:
            out, bits = out[lo:hi], bits[lo // 8 : (hi + 7) // 8]
            pos = None if pos is None else pos[lo:hi]
        floats = dense.dtype == np.float64 and self.skip
        null: float | int = np.nan
        if not floats:
            null, dense, out = NULL_WORD[dense.dtype.type], dense.view(np.int64), out.view(np.int64)
        if pos is None:
            return cpu_back.to_rows(dense[lo:hi], None, null, False, out, bits)
        stream = cpu_back.worth_streaming(len(out), out)
        nulls = cpu_back.to_rows(dense, pos, null, stream, out, bits)
        if stream:
            cpu_back.settle()
        return nulls

    def _close(
        self,
        result: Made,
        out: np.ndarray,
        bits: np.ndarray,
        nulls: int,
        rows: RowClass | None = None,
        dense: np.ndarray | None = None,
    ) -> None:
        """Make a finished result visible to later steps and to outputs that repeat it."""
        for place in result.places:
            self.nulls[place] = nulls
            to, valid = self.targets[place]
            if to is not out:
                to[:] = out
                valid[:] = bits
        if not result.read:
            return
        self.columns[result.ref] = out
        if rows is not None and dense is not None and self.skip and self.n - nulls == rows.count:
            self.presence.keep(result.ref, rows, dense)

    def _done(self, rows: RowClass, outs: list[np.ndarray]) -> None:
        """The dense results are where they are wanted: room for others, while it is in the cache.

        Those that later steps read as they stand are kept to the end, and so are outputs.
        """
        kept = [id(dense.base) for dense in list(rows.dense.values())]
        kept += [id(self.targets[place][0].base) for place, _ in self.narrow]
        for dense in outs:
            if id(dense.base) not in kept:
                self.lent.give_back(dense)


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
