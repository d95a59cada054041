"""Small pushes in one compiled call.

For a few rows nearly all time would go into finding out what to do: classes of rows, rooms,
arguments, dozens of calls. A tape has all that written down once for a plan (``tape_script.py``),
and one compiled function walks through it (``forms/cpu_play.py``). It calls the loops that large
batches run, on the same rows in the same order, so the bits are the same.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gpukern import frame
from gpukern.forms import cpu_play
from gpukern.forms.cpu_play import play
from gpukern.frame import Result
from gpukern.piece import NO_ARENA
from gpukern.tape_script import Script

if TYPE_CHECKING:
    from gpukern.job import Job

MOST = 1 << 14  # rows; with more, what pieces do pays: fewer rooms, shared windows
LEAST = 1 << 6  # rows that the first tape of a job has room for


class Tape:
    """A job's plan, written down for batches of at most ``capacity`` rows."""

    def __init__(self, job: Job, capacity: int) -> None:
        self.capacity = capacity
        script = Script(job, capacity)
        self.runs = script.runs
        self.tables = script.tables()
        self.room = np.zeros(script.words, np.int64)
        self.room[script.absent :][: capacity + 1].view(np.float64)[:] = np.nan
        self.columns = {
            ref[1]: self._column(at, script.is_integer(ref))
            for ref, at in script.at.items()
            if ref is not None and ref[0] == "column"
        }
        self.time = self._column(script.at[None], True)
        self.slots = np.zeros(capacity, np.int32)
        outputs = len(job.plan.outputs)
        self.integers = [k for k, o in enumerate(job.plan.outputs) if o.dtype != "f64"]
        self.read = [  # by other steps: place and room
            (result.places[0], self.room[script.at[result.ref] :][:capacity])
            for own in job.results
            for result in own
            if result.places and result.read
        ]
        self.repeated = [
            (place, result.places[0])
            for own in job.results
            for result in own
            for place in result.places[1:]
        ]
        self.bits = np.zeros((outputs + script.own) * (capacity // 8), np.uint8)
        self.nulls = np.zeros(outputs + script.own, np.int64)
        self.counts = np.zeros((2, 4 * len(script.levels)), np.int64)
        classes = len(script.classes)
        self.found = np.zeros((3, classes), np.int64)
        self.scratch = (
            np.zeros(capacity, np.int32),
            np.zeros(capacity + 1, np.int64),
            np.zeros(len(script.marks) * capacity, np.bool_),
            np.zeros(max(1, len(script.marks)), np.int64),
            np.zeros(classes * capacity, np.bool_),
            np.zeros(classes * capacity, np.uint32),
            np.zeros(max(1, len(script.gathers)), np.int64),
        )
        self.rows = self._rows(job, script)
        self.block: np.ndarray | None = None
        self.given: list[np.ndarray] = []
        self.pars = np.zeros(0)

    @staticmethod
    def fits(job: Job) -> bool:
        """Whether a tape can do the plan. One that needs no symbols is quick without."""
        plan = job.plan
        grouped = len(job.row_wise) < len(plan.steps) or plan.uses_time
        return plan.nan_policy == "skip" and grouped

    def _column(self, at: int, integers: bool) -> np.ndarray:
        words = self.room[at : at + self.capacity]
        return words if integers else words.view(np.float64)

    def _rows(self, job: Job, script: Script) -> np.ndarray:
        """The row of words for the entry of each step."""
        widest = max(len(line) - cpu_play.OUTS + line[3] for line in script.steps)
        rows = np.zeros((len(script.steps), cpu_play.FIRST + widest), np.int64)
        for n, kind, _, ins, _, _, _, *outs in script.steps:
            entry, loop = job.entry(n)
            rows[n, cpu_play.ROOM] = len(self.room)
            rows[n, cpu_play.RUNS] = script.runs + 4 * self.capacity * kind
            rows[n, cpu_play.LOOP] = loop
            rows[n, cpu_play.ENTRY] = entry.address
            rows[n, cpu_play.ARENA] = NO_ARENA.ctypes.data
            rows[n, cpu_play.FIRST :][:ins] = script.absent
            rows[n, cpu_play.FIRST + ins :][: len(outs)] = outs
        return rows

    def _find_states(self, job: Job) -> None:
        """Where states and parameters are; they move when symbols come."""
        given = [state.parameters for state in job.states]
        if job.block is self.block and all(a is b for a, b in zip(given, self.given, strict=True)):
            return
        self.block, self.given = job.block, given
        self.pars = np.concatenate([words.ravel() for words in given])
        at = par = 0
        for row, state in zip(self.rows, job.states, strict=True):
            row[cpu_play.STATE] = at
            row[cpu_play.STATES], row[cpu_play.WIDTH] = state.rows.shape
            row[cpu_play.PAR] = par
            row[cpu_play.PARS], row[cpu_play.FIELDS] = state.parameters.shape
            row[cpu_play.STRIDE] = state.stride
            at += state.rows.size
            par += state.parameters.size

    def _reserve(self, job: Job, n: int, slots: np.ndarray | int) -> None:
        """Room in the arenas of windows in time for all rows, should they exist for the step."""
        growing = [(k, s) for k, s in enumerate(job.states) if s.template.layout.arena_fields]
        if not growing:
            return
        touched, counts = ([slots], [n]) if isinstance(slots, int) else np.unique_counts(slots)
        runs = np.zeros((len(touched), 4), np.int64)
        runs[:, 0], runs[:, 2] = touched, counts
        for k, state in growing:
            state.reserve(runs)
            self.rows[k, cpu_play.ARENA] = state.arena.ctypes.data
            self.rows[k, cpu_play.ARENAS] = len(state.arena)

    def play(
        self,
        job: Job,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        pool: Executor | None = None,
    ) -> list[Result]:
        """Run the plan on n rows of the job that the tape was written for; its states go on.

        Threads of the pool help as soon as they wake up.
        """
        self._find_states(job)
        self._reserve(job, n, slots)
        for name, column in columns.items():
            self.columns[name][:n] = column
        if t is not None:
            self.time[:n] = t
        self.slots[:n] = slots
        self.counts[:] = 0
        size = (n + 7) // 8
        values = np.empty((len(job.plan.outputs), 8 * size), np.int64)
        rooms = (self.room, job.block, self.pars, self.found, *self.scratch)
        given = (
            n, self.slots, job.seen, *self.tables, self.runs, self.rows, *rooms, self.bits,
            self.nulls, values, *self.counts, self.capacity, job.null,
        )  # fmt: skip
        helpers = (
            [] if pool is None else [pool.submit(play, *given) for _ in range(job.threads - 1)]
        )
        play(*given)  # type: ignore[call-arg]
        for helper in helpers:
            helper.result()
        for place, column in self.read:
            values[place] = column[: 8 * size]
        bits = self.bits.reshape(len(self.nulls), -1)[: len(values), :size].copy()
        for place, first in self.repeated:
            values[place], bits[place] = values[first], bits[first]
            self.nulls[place] = self.nulls[first]
        rows, nulls = list(values.view(np.float64)[:, :n]), self.nulls.tolist()
        arrays: list[pa.Array | None] = [*frame.arrow_rows(values, bits, n)]
        for k in self.integers:
            rows[k], arrays[k] = values[k, :n], None
        return [
            Result(o.name, o.dtype, rows[k], bits[k], nulls[k], arrays[k])
            for k, o in enumerate(job.plan.outputs)
        ]
