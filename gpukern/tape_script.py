"""What a tape says: the tables that ``forms/cpu_play.py`` walks through, level by level.

All columns stand in one room of words: inputs, results in row order, their dense rows, runs.

| table | a line |
|---|---|
| levels | where its marks, classes, gathers, steps and results begin, then where they end |
| marks | column, domain, is it of integers: rows on which it is there |
| classes | how many marks, which: rows on which all of them are there |
| gathers | class, column, room, cast to floats?, the one before of the same column or −1 |
| steps | step, class, gather of the time or −1, inputs, which outputs are integers, its results and
  how many, rooms of its outputs; the longest of a level first |
| inputs | the gather of each input of the step, or −1 |
| results | dense room, room in row order (−1: none reads it), is it of integers, its place |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpukern.job import Job
    from gpukern.plan import Level, Need, Ref

EVERY = 0  # the class of all rows
LONGEST = ("rank", "fold", "step", "map")  # steps of a level in the order in which they are taken


class Script:
    """The tables for a job and batches of at most ``capacity`` rows."""

    def __init__(self, job: Job, capacity: int) -> None:
        self.job = job
        self.capacity = capacity
        self.words = 0
        self.at: dict[Ref | None, int] = {}
        plan = job.plan
        for name in plan.value_columns:
            self.at["column", name] = self.room(capacity)
        self.at[None] = self.room(capacity)
        self.absent = self.room(capacity + 1)  # an optional input that is not given
        for own in job.results:
            for result in own:
                if result.read:
                    self.at[result.ref] = self.room(capacity)
        self.marks: dict[Need, int] = {}
        self.classes: dict[tuple[Need, ...], int] = {(): EVERY}
        self.gathers: list[tuple[int, ...]] = []
        self.steps: list[tuple[int, ...]] = []
        self.inputs: list[list[int]] = []
        self.results: list[tuple[int, ...]] = []
        self.levels: list[list[int]] = []
        self.own = 0  # results that are not outputs
        self._known: dict[Any, int] = {}
        self._latest: dict[Any, int] = {}
        for level in plan.levels():
            begin = self._sizes()
            self._level(level)
            self.levels.append([*begin, *self._sizes()])
        self.runs = self.room(4 * capacity * len(self.classes))

    def room(self, words: int) -> int:
        """Where so many words of the room begin that are given to nothing else."""
        at = self.words
        self.words += words
        return at

    def _sizes(self) -> list[int]:
        own = (self.marks, self.classes, self.gathers, self.steps, self.results)
        return [len(table) for table in own]

    def is_integer(self, ref: Ref | None) -> bool:
        """Whether a column is of int64 words: time, some inputs, results that are not floats."""
        if ref is None:
            return True
        if isinstance(ref[0], int):
            return self.job.plan.steps[ref[0]].kinds[int(ref[1])] is not np.float64
        return ref[1] in self.job.integers

    def _level(self, level: Level) -> None:
        own = [(n, self.job.plan.steps[n]) for n in level.steps]
        own.sort(key=lambda step: LONGEST.index(step[1].kernel.form))
        for _, step in own:
            for need in step.present:
                self.marks.setdefault(need, len(self.marks))
            self.classes.setdefault(step.present, len(self.classes))
        for n, step in own:
            kind = self.classes[step.present]
            time = self._gather(kind, None, False) if step.clock else -1
            self.inputs.append(
                [
                    -1
                    if need is None
                    else self._gather(kind, need[0], floats and self.is_integer(need[0]))
                    for need, floats in self.job.feeds[n]
                ]
            )
            outs = [self.room(self.capacity + 1) for _ in step.kinds]
            integers = [k is not np.float64 for k in step.kinds]
            words = sum(int(flag) << m for m, flag in enumerate(integers))
            used = self.job.used[n]
            line = (n, kind, time, len(self.inputs[-1]), words, len(self.results), len(used))
            self.steps.append((*line, *outs))
            for result in used:
                # What is no output of the plan has its validity behind those that are.
                place = result.places[0] if result.places else len(self.job.plan.outputs) + self.own
                self.own += not result.places
                # What no step reads goes straight to where it is told from.
                at = self.at[result.ref] if result.read else -1
                self.results.append((outs[result.at], at, int(integers[result.at]), place))

    def _gather(self, kind: int, ref: Ref | None, cast: bool) -> int:
        """A column's rows of a class, dense; written once for all steps that read it."""
        key = (kind, ref, cast)
        if key not in self._known:
            self._known[key] = len(self.gathers)
            # If two classes turn out to be the same rows, the earlier one's will do.
            same = self._latest.get(key[1:], -1)
            room = self.room(self.capacity + 1)
            self.gathers.append((kind, self.at[ref], room, int(cast), same))
            self._latest[key[1:]] = self._known[key]
        return self._known[key]

    def tables(self) -> tuple[np.ndarray, ...]:
        """All of it as arrays."""
        marks = [(self.at[ref], domain, int(self.is_integer(ref))) for ref, domain in self.marks]
        classes = [[len(c), *(self.marks[need] for need in c)] for c in self.classes]
        own: list[list[Any]] = [
            self.levels, marks, classes, self.gathers, self.steps, self.inputs, self.results,
        ]  # fmt: skip
        return tuple(map(_table, own))


def _table(lines: list[Any]) -> np.ndarray:
    """Lines of different lengths as rows of one array."""
    width = max([1, *map(len, lines)])
    table = np.zeros((len(lines), width), np.int64)
    for n, line in enumerate(lines):
        table[n, : len(line)] = line
    return table
