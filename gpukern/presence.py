"""Which rows of a piece exist for which steps, and the columns of those rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.forms import rows as prim
from gpukern.memory import Lent

if TYPE_CHECKING:
    from gpukern.job import Job
    from gpukern.plan import Level

FEW = 1 << 14  # rows of which NumPy gives room quicker than the pool


class RowClass:
    """Rows that exist for some kernels: their dense positions and the runs of each symbol."""

    __slots__ = ("count", "dense", "keep", "pos", "runs")

    def __init__(
        self, keep: np.ndarray | None, pos: np.ndarray | None, runs: np.ndarray, count: int
    ) -> None:
        self.keep = keep  # which rows; None: all
        self.pos = pos  # None: dense order is row order
        self.runs = runs
        self.count = count
        self.dense: dict[Any, np.ndarray] = {}


OverRows = Callable[[list[tuple[Any, ...]], Callable[..., None]], None]


class Presence:
    """Columns of a piece and the classes of its rows, found level by level.

    ``prepare`` is given ``over_rows(tasks, work)``, which calls ``work(lo, hi, *task)`` so that
    each task covers all rows. It is the piece's and is not kept: the two would be garbage together.
    """

    def __init__(
        self,
        job: Job,
        n: int,
        slots: np.ndarray | int,
        columns: dict[Any, Any],
        pool: Executor | None,
        lent: Lent,
    ) -> None:
        self.n = n
        self.lent = lent
        self.columns = columns
        self.skip = job.plan.nan_policy == "skip"
        self.pool = pool
        self.masks: list[np.ndarray] = []
        self.missing: dict[Any, np.ndarray | None] = {}
        self.classes: dict[Any, RowClass] = {}
        self.complete: dict[Any, RowClass] = {}  # results that are there on all rows of a class
        self.local: np.ndarray | None = None
        if len(job.row_wise) == len(job.plan.steps):
            return
        if isinstance(slots, int):
            self.touched = np.array([slots], np.int64)
        else:
            self.local = lent.empty(n, np.int32)
            touched = np.empty(min(n, len(job.symbols)), np.int64)
            found = prim.number_symbols(slots, job.seen, self.local, touched)
            self.touched = touched[:found]
        self.every = self._index(None)

    def prepare(self, level: Level, over_rows: OverRows) -> None:
        """Find the rows that exist for the level's steps and make their columns dense."""
        masks: dict[Any, tuple[np.ndarray, list[int]]] = {}
        for need in level.present:
            if need not in self.missing:
                ref, domain = need
                if domain == prim.ANY and ref in self.complete:
                    self.missing[need] = self.complete[ref].keep
                elif self.n < FEW:
                    self.missing[need] = self._mask(ref, domain)
                else:
                    masks[need] = (self.lent.empty(self.n, np.bool_), [])
        over_rows([(*need, *room) for need, room in masks.items()], self._mark)
        for need, (mask, dropped) in masks.items():
            self.missing[need] = self._canonical(mask) if sum(dropped) else None
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
            room = self._room_of(rows, column)
            rows.dense[need] = room[: rows.count]
            tasks.append((rows, column, need[1], room))
        over_rows(tasks, self._to_dense)

    def _room_of(self, rows: RowClass, column: np.ndarray) -> np.ndarray:
        """One more than there are: rows that do not exist are written there."""
        return self.lent.empty(rows.count + 1, column.dtype.type)

    def _mask(self, ref: Any, domain: int) -> np.ndarray | None:
        """Where the column is there; None: everywhere."""
        column = self.columns[ref]
        floats = column.dtype == np.float64
        if floats and prim.all_present(column, domain):
            return None
        few = self.n < FEW
        mask = np.empty(self.n, np.bool_) if few else self.lent.empty(self.n, np.bool_)
        lost = (
            prim.mark_missing(column, domain, mask)
            if floats
            else prim.mark_missing_int(column, mask)
        )
        return self._canonical(mask) if lost else None

    def _canonical(self, mask: np.ndarray) -> np.ndarray:
        """The first mask that was seen of those that are equal; so equal ones are identical."""
        for known in self.masks:
            if np.array_equal(known, mask):
                return known
        self.masks.append(mask)
        return mask

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
        keys: dict[tuple[Any, ...], int] = {}
        masks: dict[int, np.ndarray] = {}
        for present in wanted:
            if present in self.classes:
                continue
            found = [self.missing[need] for need in present]
            partial = {id(mask): mask for mask in found if mask is not None}
            if not partial:
                self.classes[present] = self.every
                continue
            first, *others = partial.values()
            keep = self._canonical(np.logical_and.reduce([first, *others])) if others else first
            keys[present] = id(keep)
            if id(keep) not in self.classes:
                masks[id(keep)] = keep
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
            return RowClass(None, None, runs, self.n)
        pos = self.lent.empty(self.n, np.uint32)
        if self.local is None:
            self.local = np.zeros(self.n, np.int32)
        mask = np.empty(0, np.bool_) if keep is None else keep
        found = prim.index_rows(self.local, self.touched, mask, keep is None, pos, runs)
        runs = runs[:found]
        return RowClass(keep, pos, runs, int(runs[-1, 2]) if found else 0)

    def _to_dense(
        self, lo: int, hi: int, rows: RowClass, column: np.ndarray, domain: int, dense: np.ndarray
    ) -> None:
        pos = np.arange(lo, hi, dtype=np.uint32) if rows.pos is None else rows.pos[lo:hi]
        if self.skip or column.dtype == np.int64:
            prim.to_dense(column[lo:hi], pos, dense, len(rows.runs))
        else:
            prim.to_dense_nan(column[lo:hi], pos, domain, dense)

    def keep(self, ref: Any, rows: RowClass, dense: np.ndarray) -> None:
        """Let later steps on the same rows read a result without a null as it stands."""
        self.complete[ref] = rows
        rows.dense[ref, prim.ANY] = dense[: rows.count]
