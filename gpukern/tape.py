"""A plan written down, to be walked through in one compiled call.

To find out what to do – classes of rows, rooms, arguments, dozens of calls – would take nearly all
the time of a small batch, and much of that of a piece small enough for the cache. A tape has all
of it written down once (``tape_script.py``), and threads walk through it together
(``forms/cpu_play.py``). It calls the loops that pieces run, on the same rows in the same order, so
the bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numba import typeof

from gpukern import frame
from gpukern.forms import cpu_entry, cpu_play
from gpukern.forms.cpu_play import FLAGS, FLOATS, SIGNS, WORDS, Rooms, Walk, play
from gpukern.frame import Result
from gpukern.memory import empty
from gpukern.piece import NO_ARENA

if TYPE_CHECKING:
    from gpukern.job import Job
    from gpukern.tape_script import Script

MOST = 1 << 14  # rows of a push; longer ones are walked through in stretches
LEAST = 1 << 6  # rows that the first tape of a job has room for
STRETCH = 1 << 16  # rows of a stretch of a long batch: a column takes half of the second cache
MAX_STRETCH = 1 << 19
RUN = 64  # rows of a symbol in a stretch, so that to fetch its states does not matter
TWICE = 1 << 17  # rows of a stretch up to which the next one has rooms of its own
FEW = 1 << 10  # rows of a column that is copied
SPAN = 1 << 21  # rows of a long batch that are walked through in one call
ARENA_SPAN = 1 << 18  # the same where windows in time need room for all of them
KINDS = {np.float64: FLOATS, np.int64: WORDS, np.uint8: FLAGS, np.int8: SIGNS}


class Tape:
    """A job's plan, written down for stretches of at most ``capacity`` rows.

    Without ``loops`` it does not say where they are, and they need not be compiled.
    """

    def __init__(self, job: Job, capacity: int, *, long: bool = False, loops: bool = True) -> None:
        self.capacity = capacity
        self.symbols = min(capacity, max(job.capacity, 1))
        self.rooms = 2 if long and capacity <= TWICE else 1
        self.script = script = job.script()
        self.tables = script.tables(self._lines(job, script, loops))
        self.growing = {k for k, s in enumerate(job.states) if s.template.layout.arena_fields}
        self.parts = self.tables.steps[:, 4].copy()
        self.data = self._rooms(script)
        self.at_home = self.data.refs.copy()
        # Input columns, and the time under None: which they are, and room for a few rows of each.
        self.columns: list[tuple[str | None, int]] = []
        self.words_at: set[int] = set()
        for ref, at in script.refs.items():
            if ref is None or ref[0] == "column":
                self.columns.append((None if ref is None else str(ref[1]), at))
                if job.is_integer(ref):
                    self.words_at.add(at)
        self.inputs = {at: self._input(at) for _, at in self.columns}
        self.places_of = {at: (a.ctypes.data, 8) for at, a in self.inputs.items()}
        # Columns that are outputs as they stand: their places.
        self.of_refs = [
            (script.refs[result.ref], result.places[0])
            for own in job.results
            for result in own
            if result.read and result.places
        ]
        self.repeated = [
            (place, result.places[0])
            for own in job.results
            for result in own
            for place in result.places[1:]
        ]
        outputs = job.plan.outputs
        self.places = np.arange(len(outputs))
        self.integers = [k for k, o in enumerate(outputs) if o.dtype != "f64"]
        self.targets = np.zeros((len(outputs), 3), np.int64)
        self.targets[self.integers, 1] = WORDS
        most = max(line[0] for line in script.outs) + 1
        width = capacity + 8
        self.words = empty(job.threads * most * width, np.int64).reshape(job.threads, most, width)
        self.bits = np.empty((job.threads, most, capacity // 8), np.uint8)
        self.block: np.ndarray | None = None
        self.given: list[np.ndarray] = []

    @staticmethod
    def fits(job: Job) -> bool:
        """Whether small pushes may go through it. A plan without symbols is quick without."""
        return len(job.row_wise) < len(job.plan.steps) or job.plan.uses_time

    def has_room(self, n: int, symbols: int) -> bool:
        """Whether it is written for stretches of so many rows of so many symbols."""
        return n <= self.capacity and min(symbols, self.capacity) <= self.symbols

    # -- rooms ----------------------------------------------------------------------------

    def _lines(self, job: Job, script: Script, loops: bool) -> np.ndarray:
        """The line of each entry, with what does not change."""
        self.absent = np.full(self.capacity + 1, np.nan)  # an optional input that is not given
        steps = job.plan.steps
        width = max(cpu_entry.width([steps[n].kernel for n in line]) for line in script.lines)
        lines = np.zeros((len(script.lines), width), np.int64)
        for line, (n, *_) in zip(lines, script.lines, strict=True):
            step = steps[n]
            if loops:
                entry, loop = job.entry(n)
                line[cpu_play.LOOP], line[cpu_play.ENTRY] = loop, entry.address
            line[cpu_play.ARENA] = NO_ARENA.ctypes.data
            line[cpu_play.FIRST :][: len(step.inputs)] = self.absent.ctypes.data
            if job.in_rows(n):
                absent = [m for m, (_, ref) in enumerate(step.inputs) if ref is None]
                line[cpu_play.ABSENT] = sum(1 << m for m in absent)
        return lines

    def _input(self, at: int) -> np.ndarray:
        room = np.zeros(min(self.capacity, FEW), np.int64)
        return room if at in self.words_at else room.view(np.float64)

    def _rooms(self, script: Script) -> Rooms:
        count, symbols, capacity = self.rooms, self.symbols, self.capacity
        refs, classes = len(script.refs), len(script.classes)
        marks = len(script.marks)
        width = capacity + 8  # whole cache lines, one more than rows
        self.dense = empty(count * max(script.dense, 1) * width, np.int64)
        self.own = empty(count * refs * width, np.int64)  # of columns that are told nowhere
        own = self.own.ctypes.data + 8 * width * np.arange(count * refs).reshape(count, refs)
        dense = self.dense.ctypes.data + 8 * width * np.arange(count * script.dense)
        return Rooms(
            refs=np.stack([own, np.zeros_like(own)], axis=-1),
            dense=dense.reshape(count, script.dense),
            local=np.zeros((count, capacity), np.int32),
            touched=np.zeros((count, symbols), np.int64),
            lost=np.zeros((count, max(marks, 1)), np.int64),
            marked=np.zeros((count, max(marks, 1)), np.int64),
            masks=_cube(count, marks + classes, capacity, np.bool_),
            found=np.zeros((count, classes, 5), np.int64),
            pos=_cube(count, classes, capacity, np.uint32),
            runs=_cube(count, classes, 4 * symbols, np.int64).reshape(count, classes, symbols, 4),
            at=np.zeros((count, max(len(script.gathers), 1)), np.int64),
            complete=np.full((count, refs), cpu_play.UNKNOWN),
            stands=np.zeros((count, refs), np.int64),
        )

    def _find_states(self, job: Job) -> None:
        """Where states and parameters are; they move when symbols come."""
        given = [state.parameters for state in job.states]
        if job.block is self.block and all(a is b for a, b in zip(given, self.given, strict=True)):
            return
        self.block, self.given = job.block, given
        for line, (n, *others) in zip(self.tables.lines, self.script.lines, strict=True):
            state = job.states[n]
            line[cpu_play.STATE] = state.rows.ctypes.data
            line[cpu_play.STATES], line[cpu_play.WIDTH] = state.rows.shape
            line[cpu_play.PAR : cpu_play.STRIDE] = _where(state.parameters)
            if not job.in_rows(n):
                line[cpu_play.STRIDE] = state.stride
            at = cpu_entry.others([job.plan.steps[k].kernel for k in (n, *others)])
            for k in others:
                line[at : at + 3] = _where(job.states[k].parameters)
                line[at + 3] = job.states[k].stride
                at += 4

    def _reserve(self, job: Job, n: int, slots: np.ndarray) -> None:
        """Room in the arenas of windows in time for all rows, should they exist for the step."""
        if not self.growing:
            return
        touched, counts = (slots, [n]) if len(slots) == 1 else np.unique_counts(slots)
        runs = np.zeros((len(touched), 4), np.int64)
        runs[:, 0], runs[:, 2] = touched, counts
        for k in self.growing:
            job.states[k].reserve(runs)
        for line, (k, *_) in zip(self.tables.lines, self.script.lines, strict=True):
            if k in self.growing:
                arena = job.states[k].arena
                line[cpu_play.ARENA], line[cpu_play.ARENAS] = arena.ctypes.data, len(arena)

    # -- walks ----------------------------------------------------------------------------

    def push(
        self,
        job: Job,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        pool: Executor | None,
    ) -> list[Result]:
        """The results of a batch of the job that the tape was written for; its states go on."""
        size = (n + 7) // 8
        outputs = len(job.plan.outputs)
        values = empty(outputs * 8 * size, np.int64).reshape(outputs, 8 * size)
        bits = np.empty((outputs, size), np.uint8)
        targets, nulls = self.targets, np.zeros(outputs, np.int64)
        targets[:, 0] = values.ctypes.data + 64 * size * self.places
        targets[:, 2] = bits.ctypes.data + size * self.places
        self._walk(job, n, slots, t, columns, targets, nulls, pool)
        lost = nulls.tolist()
        for place, first in self.repeated:
            values[place], bits[place], lost[place] = values[first], bits[first], lost[first]
        rows = list(values.view(np.float64)[:, :n])
        arrays: list[pa.Array | None] = [*frame.arrow_rows(values, bits, n)]
        for k in self.integers:
            rows[k], arrays[k] = values[k, :n], None
        return [
            Result(o.name, o.dtype, rows[k], bits[k], lost[k], arrays[k])
            for k, o in enumerate(job.plan.outputs)
        ]

    def run(
        self,
        job: Job,
        begin: int,
        end: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        results: Sequence[Result],
        pool: Executor | None,
    ) -> None:
        """Fill in the results of those rows of a long batch."""
        span = ARENA_SPAN if self.growing else SPAN
        targets, nulls = self.targets, np.zeros(len(results), np.int64)
        for lo in range(begin, end, span):
            hi = min(lo + span, end)
            for target, result in zip(targets, results, strict=True):
                values, bits = result.values[_cut(result.values, lo, hi)], result.bits[lo // 8 :]
                target[:] = values.ctypes.data, KINDS[values.dtype.type], bits.ctypes.data
            own = slots if isinstance(slots, int) else slots[lo:hi]
            cut = {name: column[lo:hi] for name, column in columns.items()}
            now = None if t is None else t[lo:hi]
            self._walk(job, hi - lo, own, now, cut, targets, nulls, pool)
        for result, lost in zip(results, nulls.tolist(), strict=True):
            result.nulls += lost
        for place, first in self.repeated:
            to, source = results[place], results[first]
            at, bytes_at = _cut(to.values, begin, end), slice(begin // 8, (end + 7) // 8)
            to.values[at], to.bits[bytes_at] = source.values[at], source.bits[bytes_at]
            to.nulls = source.nulls

    def _walk(
        self,
        job: Job,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        targets: np.ndarray,
        nulls: np.ndarray,
        pool: Executor | None,
    ) -> None:
        """Walk through the tape for n rows. Threads of the pool help as soon as they wake up."""
        given, casts = self._given(job, n, slots, t, columns, targets, nulls)
        helpers = [pool.submit(play, who, *given) for who in range(1, job.threads)] if pool else []
        play(0, *given)
        for helper in helpers:
            helper.result()
        job.behind.update(job.groups)
        del casts  # they were read until now

    def _given(
        self,
        job: Job,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        targets: np.ndarray,
        nulls: np.ndarray,
    ) -> tuple[tuple[Any, ...], list[np.ndarray | None]]:
        """What a walk over n rows is given, and what it reads besides."""
        own = self._slots(n, slots)
        self._find_states(job)
        self._reserve(job, n, own)
        casts = [
            self._place(at, t if name is None else columns[name], n) for name, at in self.columns
        ]
        for at, place in self.of_refs:
            packed = targets[place, 1] > WORDS  # its words stand in a room of their own
            self.data.refs[:, at] = self.at_home[:, at] if packed else (targets[place, 0], 8)
        stretches = max(1, -(-n // self.capacity))
        script, tasks = self.script, len(self.script.tasks)
        wait = np.empty((stretches, tasks), np.int64)
        wait[0], wait[1:] = script.first_waits, script.later_waits
        walk = Walk(
            slots=own,
            seen=job.seen,
            wait=wait.reshape(-1),
            taken=np.zeros(stretches * tasks, np.int64),
            left=np.full(stretches, tasks),
            parts=np.tile(self.parts, stretches),
            targets=targets,
            nulls=nulls,
            words=self.words,
            bits=self.bits,
        )
        skip = job.plan.nan_policy == "skip"
        return (n, self.capacity, skip, job.null, self.tables, self.data, walk), casts

    def _slots(self, n: int, slots: np.ndarray | int) -> np.ndarray:
        if isinstance(slots, int):
            return np.array([slots], np.int32)
        if n > FEW and slots.dtype == np.int32 and slots.flags.c_contiguous:
            return slots if slots.flags.writeable else slots.copy()
        return slots.astype(np.int32)

    def _place(self, at: int, column: np.ndarray | None, n: int) -> np.ndarray | None:
        """Say where an input column is. A short one is copied to a place that is known, which
        takes less time than to ask where it is; others are cast first if need be."""
        if column is None:
            return None
        kind = np.int64 if at in self.words_at else np.float64
        room = self.inputs[at]
        if n <= len(room):
            self.data.refs[:, at] = self.places_of[at]
            room[:n] = column
            return None
        if column.dtype != kind:
            given, column = column, empty(n, kind)
            np.copyto(column, given)
        self.data.refs[:, at] = column.ctypes.data, 8
        return column


def compile_walk(job: Job) -> None:
    """Compile what walks through tapes, or take it from the cache; it is the same for all plans."""
    tape = Tape(job, LEAST, loops=False)
    none = np.zeros(len(tape.targets), np.int64)
    columns = {str(name): np.zeros(0) for name, _ in tape.columns}
    slots = np.zeros(0, np.int32)
    given, _ = tape._given(job, 0, slots, None, columns, tape.targets, none)
    play.compile(tuple(map(typeof, (0, *given))))


def stretch(symbols: int) -> int:
    """Rows of a stretch of a long batch with so many symbols."""
    return min(max(STRETCH, 1 << (RUN * symbols - 1).bit_length()), MAX_STRETCH)


def _where(array: np.ndarray) -> tuple[int, ...]:
    """Address and shape."""
    return array.ctypes.data, *array.shape


def _cut(values: np.ndarray, lo: int, hi: int) -> slice:
    """Those rows of a result; of flags, which are packed, the bytes."""
    return slice(lo // 8, (hi + 7) // 8) if values.dtype == np.uint8 else slice(lo, hi)


def _cube(a: int, b: int, c: int, dtype: type) -> np.ndarray:
    """An uninitialised array of three dimensions."""
    return empty(a * max(b, 1) * c, dtype).reshape(a, max(b, 1), c)
