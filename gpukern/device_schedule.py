"""What a plan asks of a device, as tables: made once, so that a level takes a few launches.

Columns (inputs, time, results that later steps read) have places in one block of words, results of
steps in another; classes of rows are numbered from 1, class 0 being all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.forms import rows as prim

if TYPE_CHECKING:
    from gpukern.job import Job
    from gpukern.plan import Need

TIME: Any = (None, prim.ANY)


@dataclass(frozen=True)
class Operand:
    """Where a step reads an input: a dense column, a column as it is, or nowhere (not given)."""

    dense: int = -1
    column: int = -1


@dataclass(frozen=True)
class Stage:
    """One level: the ranges of the tables that belong to it."""

    steps: tuple[int, ...]
    classes: range
    dense: range
    spread: range


class Schedule:
    """Places and tables of a job's plan; ``host`` arrays, to be put on the device."""

    def __init__(self, job: Job) -> None:
        plan = job.plan
        self.skip = int(plan.nan_policy == "skip")
        self.null = int(np.array([job.null]).view(np.int64)[0])
        self.columns: dict[Any, int] = {}
        self.integer: dict[Any, int] = {}
        for name in plan.value_columns:
            self._column(("column", name), int(name in job.integers))
        if plan.uses_time:
            self._column(None, 1)
        self.inputs = len(self.columns)
        self.results: dict[Any, int] = {}
        kinds: dict[Any, int] = {}
        for n, step in enumerate(plan.steps):
            for m, kind in enumerate(step.kinds):
                self.results[(n, m)] = len(self.results)
                kinds[(n, m)] = int(kind is not np.float64)
        inner = {ref for step in plan.steps for _, ref in step.inputs if ref is not None}
        self.classes: dict[tuple[Need, ...], int] = {(): 0}
        self.operands: list[tuple[list[Operand], Operand]] = []
        self.step_class = [0] * len(plan.steps)
        needs: list[tuple[int, int, int]] = []
        spans, first = [0, 0], [0]
        dense: dict[tuple[int, ...], int] = {}
        spreads: list[tuple[int, ...]] = []
        self.stages: list[Stage] = []
        for level in plan.levels():
            begin, made, moved = len(self.classes), len(dense), len(spreads)
            for n in level.steps:
                step = plan.steps[n]
                if step.present not in self.classes:
                    first.append(int(len(self.classes) == begin))
                    self.classes[step.present] = len(self.classes)
                    needs += [
                        (self.columns[ref], self.integer[ref], domain)
                        for ref, domain in step.present
                    ]
                    spans.append(len(needs))
                rows = self.step_class[n] = self.classes[step.present]
                operands = [
                    self._operand(rows, need, int(spec.dtype == "f64"), dense)
                    for spec, need in zip(step.kernel.inputs, step.dense, strict=True)
                ]
                clock = self._operand(rows, TIME, 0, dense) if step.clock else Operand()
                self.operands.append((operands, clock))
            for n in level.steps:
                for m in range(len(plan.steps[n].kinds)):
                    if (n, m) in inner:
                        self._column((n, m), kinds[(n, m)])
                        null = prim.NULL_INT if kinds[(n, m)] else self.null
                        spreads.append(
                            (self.results[(n, m)], self.step_class[n], self.columns[(n, m)],
                             kinds[(n, m)], null)
                        )  # fmt: skip
            self.stages.append(
                Stage(
                    level.steps,
                    range(begin, len(self.classes)),
                    range(made, len(dense)),
                    range(moved, len(spreads)),
                )
            )
        # Steps of a level are in plan order, levels are not: put the operands at their steps.
        order = [n for level in plan.levels() for n in level.steps]
        self.operands = [o for _, o in sorted(zip(order, self.operands, strict=True), key=_step)]
        self.dense = len(dense)
        self.absent = any(
            operand == Operand() for operands, _ in self.operands for operand in operands
        )
        self.tables = {
            "needs": _table(needs, 3),
            "spans": np.array(spans, np.int64),
            "first": np.array(first, np.int64),
            "alone": np.ones(len(first), np.int64),
            "dense": _table(list(dense), 6),
            "spreads": _table(spreads, 5),
            "outputs": _table(
                [
                    (self.results[o.ref], self.step_class[int(o.ref[0])], kinds[o.ref],
                     prim.NULL_INT if kinds[o.ref] else self.null)
                    for o in plan.outputs
                ],
                4,
            ),
        }  # fmt: skip

    def _column(self, ref: Any, integer: int) -> None:
        self.columns[ref] = len(self.columns)
        self.integer[ref] = integer

    def _operand(
        self, rows: int, need: Need | None, floats: int, dense: dict[tuple[int, ...], int]
    ) -> Operand:
        """A place among the dense columns, or the column itself where it is that already."""
        if need is None:
            return Operand()
        ref, domain = need
        integer = self.integer[ref]
        convert = int(floats and integer)
        clean = int(not self.skip and not integer)
        if rows == 0 and not convert and not clean:
            return Operand(column=self.columns[ref])
        entry = (rows, self.columns[ref], convert, clean, domain, integer)
        return Operand(dense=dense.setdefault(entry, len(dense)))


def _step(item: tuple[int, Any]) -> int:
    return item[0]


def _table(rows: Sequence[tuple[int, ...]], width: int) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, width)
