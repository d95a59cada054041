"""What a tape says: the tables that ``forms/cpu_play.py`` walks through.

| table | a line |
|---|---|
| tasks | kind, which, part of it; in an order in which long ways come first |
| marks | column, domain, is it of integers: rows on which it is there |
| classes | how many marks, which: rows on which all of them are there |
| gathers | class, column, dense room, cast to floats?, the one before of the same column or −1,
  domain, of integers? |
| steps | line of its entry, class, gather of the time or −1, inputs, parts, its first result, are
  results brought back by a task of their own? |
| inputs | the gather of each input of the step, or −1; of a loop in row order the column |
| outs | how many outputs the step has, the dense room of each, or −1: nobody reads it |
| results | of each output of a step: place among the plan's, column (−1: none), of integers? |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.forms import cpu_play
from gpukern.forms import rows as prim
from gpukern.forms.cpu_play import BACK, CLASS, GATHER, MAP, MARK, NUMBER, STEP

if TYPE_CHECKING:
    from gpukern.job import Job
    from gpukern.plan import Need, Ref

EVERY = 0  # the class of all rows
Task = tuple[int, int, int]  # kind, which, part
# What tasks take, in about ns a row: it only says in which order they are done.
COST = {NUMBER: 3.0, MARK: 0.5, CLASS: 3.0, GATHER: 1.0, BACK: 0.5}
FORM_COST = {"rank": 25.0, "fold": 5.0, "step": 5.0, "map": 2.0}
NOTHING = -1


class Script:
    """The tables for a job. Several threads may share what is a stretch's."""

    def __init__(self, job: Job) -> None:
        self.job = job
        plan = job.plan
        # With few steps, threads have work only if symbols, and what comes after, are shared out.
        self.few = len(plan.steps) < 2 * job.threads
        self.refs: dict[Ref | None, int] = {}  # columns in row order
        self.marks: dict[Need, int] = {}
        self.integers: dict[Ref | None, int] = {}  # which of the marked columns are of integers
        self.classes: dict[tuple[Need, ...], int] = {(): EVERY}
        self.gathers: list[tuple[int, ...]] = []
        self.steps: list[tuple[int, ...]] = []
        self.inputs: list[list[int]] = []
        self.outs: list[list[int]] = []
        self.results: list[tuple[int, ...]] = []
        self.lines: list[tuple[int, ...]] = []  # the steps of each
        self.dense = 0  # rooms of one column each
        self.waits: dict[Task, set[Task]] = {}
        self.costs: dict[Task, float] = {}
        self._made: dict[int, list[Task]] = {}  # the tasks after which a step's results are there
        self._known: dict[Any, int] = {}
        self._latest: dict[Any, int] = {}
        for name in plan.value_columns:
            self._ref(("column", name))
        self._ref(None)
        for own in job.results:
            for result in own:
                if result.read:
                    self._ref(result.ref)
        led = {n for members in job.groups.values() for n in members[1:]}
        if len(job.row_wise) < len(plan.steps):
            self._add((NUMBER, 0, 0), COST[NUMBER], [])
        for level in plan.levels():
            for n in level.steps:
                if n not in led:
                    self._step(job.groups.get(n, (n,)))
        self._order()
        del self.job  # it has the tape that has this: together they would be garbage that waits

    # -- columns --------------------------------------------------------------------------

    def _ref(self, ref: Ref | None) -> int:
        return self.refs.setdefault(ref, len(self.refs))

    def _room(self) -> int:
        self.dense += 1
        return self.dense - 1

    # -- tasks ----------------------------------------------------------------------------

    def _add(self, task: Task, cost: float, waits: list[Task]) -> Task:
        self.waits[task] = set(waits)
        self.costs[task] = cost
        return task

    def _makers(self, ref: Ref | None) -> list[Task]:
        """The tasks after which a column is there; none if it is an input."""
        return [] if ref is None or isinstance(ref[0], str) else self._made[ref[0]]

    def _mark(self, need: Need) -> Task:
        if need not in self.marks:
            self.marks[need] = len(self.marks)
            self.integers[need[0]] = int(self.job.is_integer(need[0]))
            self._add((MARK, self.marks[need], 0), COST[MARK], self._makers(need[0]))
        return MARK, self.marks[need], 0

    def _class(self, present: tuple[Need, ...]) -> int:
        if present not in self.classes:
            marks = [self._mark(need) for need in present]
            # One after the other: each is compared with those before.
            before = len(self.classes) - 1
            waits = [*marks, self._class_task(before)]
            self.classes[present] = before + 1
            self._add((CLASS, before + 1, 0), COST[CLASS], waits)
        return self.classes[present]

    @staticmethod
    def _class_task(c: int) -> Task:
        return (CLASS, c, 0) if c != EVERY else (NUMBER, 0, 0)

    def _gather(self, kind: int, need: Need, cast: bool) -> int:
        """A column's rows of a class, dense; written once for all steps that read it."""
        ref, domain = need
        key = (kind, need, cast)
        if key not in self._known:
            g = self._known[key] = len(self.gathers)
            # If two classes turn out to be the same rows, the earlier one's will do.
            before = self._latest.get(key[1:], NOTHING)
            integers = int(self.job.is_integer(ref))
            room = self._room()
            self.gathers.append((kind, self.refs[ref], room, int(cast), before, domain, integers))
            self._latest[key[1:]] = g
            waits = [self._class_task(kind), *self._makers(ref)]
            if before != NOTHING:
                waits.append((GATHER, before, 0))
            self._add((GATHER, g, 0), COST[GATHER], waits)
        return self._known[key]

    def _step(self, members: tuple[int, ...]) -> None:
        """A step, or several whose loop is one."""
        job = self.job
        n, s, first = members[0], len(self.steps), len(self.results)
        step, in_rows = job.plan.steps[n], job.in_rows(n)
        own = [result for k in members for result in job.results[k]]
        kinds = [kind for k in members for kind in job.plan.steps[k].kinds]
        for result, dtype in zip(own, kinds, strict=True):
            place = result.places[0] if result.places else NOTHING
            ref = self.refs[result.ref] if result.read else NOTHING
            self.results.append((place, ref, int(dtype is not np.float64)))
        cost = FORM_COST[step.kernel.form]
        clock, parts, kind, apart, lines = NOTHING, 1, EVERY, 0, 1
        if in_rows:
            refs = [ref for _, ref in step.inputs]
            inputs = [NOTHING if ref is None else self.refs[ref] for ref in refs]
            waits = [task for ref in refs for task in self._makers(ref)]
            tasks = [self._add((MAP, s, 0), cost, waits)]
            lines = 2  # several stretches may be worked on
        else:
            kind = self._class(step.present)
            if step.clock:
                clock = self._gather(kind, (None, prim.ANY), False)
            inputs = [
                NOTHING
                if need is None
                else self._gather(kind, need, floats and job.is_integer(need[0]))
                for need, floats in job.feeds[n]
            ]
            waits = [self._class_task(kind)]
            waits += [(GATHER, g, 0) for g in [clock, *inputs] if g != NOTHING]
            apart = int(self.few)
            lines = parts = job.threads if self.few or step.kernel.form == "rank" else 1
            tasks = [self._add((STEP, s, p), cost / parts, waits) for p in range(parts)]
            if apart:
                tasks = [self._add((BACK, s, 0), COST[BACK] * len(own), tasks)]
        self._made.update(dict.fromkeys(members, tasks))
        # What a step reads, or several threads use, has a room of its own.
        kept = [not in_rows and (r.read or parts > 1 or apart) for r in own]
        self.outs.append([len(own), *(self._room() if k else NOTHING for k in kept)])
        self.inputs.append(inputs)
        self.steps.append((len(self.lines), kind, clock, len(inputs), parts, first, apart))
        self.lines += [members] * lines

    def _order(self) -> None:
        """Long ways to the end first; a task comes before those that wait for it."""
        ways: dict[Task, float] = dict.fromkeys(self.waits, 0.0)
        for task in reversed(self.waits):  # they were added after those that they wait for
            ways[task] += self.costs[task]
            for other in self.waits[task]:
                ways[other] = max(ways[other], ways[task])
        self.tasks = sorted(self.waits, key=ways.__getitem__, reverse=True)
        at = {task: n for n, task in enumerate(self.tasks)}
        readers: dict[int, list[int]] = {n: [] for n in range(len(self.tasks))}
        for task, waits in self.waits.items():
            for other in waits:
                readers[at[other]].append(at[task])
        # Of a stretch, what comes for how many others; from the second on, steps wait for
        # themselves too (in ``readers`` as the complement).
        self.first_waits = np.array([len(self.waits[task]) for task in self.tasks])
        self.later_waits = self.first_waits.copy()
        for n, task in enumerate(self.tasks):
            if task[0] == NUMBER:
                readers[n].append(~n)
                self.later_waits[n] += 1
            elif task[0] == STEP:
                parts = [at[task[0], task[1], p] for p in range(self.steps[task[1]][4])]
                readers[n] += [~other for other in parts]
                self.later_waits[n] += 1
        # The parts of a step release others once, with the last of them.
        for n, task in enumerate(self.tasks):
            if task[0] == STEP and self.steps[task[1]][4] > 1:
                for reader in readers[n]:
                    if reader >= 0 and task[2]:
                        self.first_waits[reader] -= 1
                        self.later_waits[reader] -= 1
        self.firsts = np.cumsum([0, *(len(readers[n]) for n in range(len(self.tasks)))])
        self.readers = np.array([r for n in range(len(self.tasks)) for r in readers[n]], np.int64)

    # -- tables ---------------------------------------------------------------------------

    def tables(self, lines: np.ndarray) -> cpu_play.Tables:
        """All of it as arrays."""
        marks = [(self.refs[ref], domain, self.integers[ref]) for ref, domain in self.marks]
        classes = [[len(c), *(self.marks[need] for need in c)] for c in self.classes]
        return cpu_play.Tables(
            _table(self.tasks), self.firsts, self.readers, _table(marks), _table(classes),
            _table(self.gathers), _table(self.steps), _table(self.inputs), _table(self.outs),
            _table(self.results), lines,
        )  # fmt: skip


def _table(lines: list[Any]) -> np.ndarray:
    """Lines of different lengths as rows of one array."""
    width = max([1, *map(len, lines)])
    table = np.zeros((len(lines), width), np.int64)
    for n, line in enumerate(lines):
        table[n, : len(line)] = line
    return table
