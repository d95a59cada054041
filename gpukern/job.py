"""A job: a plan with its carried state.

Batches go through a tape (``tape.py``), and in pieces (``piece.py``) only where threads had better
share the rows of one symbol, and as plain Python for the tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from gpukern import codegen, frame, tape
from gpukern.errors import PlanError, StateError, UnsortedError
from gpukern.forms import cpu_entry, cpu_rank
from gpukern.forms import rows as prim
from gpukern.frame import Result
from gpukern.memory import Rooms, blocks, empty, zeros
from gpukern.piece import NO_ARENA, NO_TIME, Piece
from gpukern.presence import FEW
from gpukern.state import NULL_FLOAT, StepState, Symbols, pack
from gpukern.tape import Tape
from gpukern.tape_script import Script

if TYPE_CHECKING:
    from gpukern.kernel import Kernel
    from gpukern.plan import Plan, Ref, Step

# Rows of a piece: runs of one symbol are long enough (RUN rows) that loading state does not matter.
PIECE = 1 << 18
RUN = 96
MAX_PIECE = 1 << 19
FEW_STEPS = 4  # so few columns fit the cache in longer pieces, which threads share better
TRIAL = 1 << 16  # rows that show what steps cost, once as many have warmed the caches up
# A row: below it threads that share one symbol's rows, step by step and through memory, take longer
# than a tape does (measured for every kernel: they are level at 15 to 20).
WORTH_NS = 18.0
SAMPLE = 64  # of so many rows one says whose rows there are
SHARE = 1 << 13  # rows of a batch below which threads do not pay


class Made(NamedTuple):
    """One output of a step: which it is, where it goes, whether other steps read it."""

    at: int
    ref: tuple[int, int]
    places: tuple[int, ...]  # outputs of the plan
    read: bool


class Found:
    """What is the same for every job of a plan, and takes 10 ms to find for 40 steps."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, bool], tuple[Any, int, Any]] = {}
        """Of steps, in row order or not: entry, address of the loop, and what keeps that there."""
        self.scripts: dict[int, Script] = {}
        """By number of threads."""


# Addresses are of this process, so a plan must not carry them along.
_found: WeakKeyDictionary[Plan, Found] = WeakKeyDictionary()


class Job:
    """Carried state and the work on one batch. Made by ``Plan.start`` and ``Plan.resume``."""

    tapes = True  # whether small pushes may go through a tape of the CPU
    numbers = staticmethod(frame.numbers)  # how value columns are read

    def __init__(self, plan: Plan, *, threads: int | None = None) -> None:
        self.plan = plan
        if threads is not None and threads < 1:
            raise PlanError(f"threads must be at least 1, or None for all cores, got {threads}")
        self.threads = threads or os.cpu_count() or 1
        blocks()  # a setting that is wrong is told before there is state to spoil
        self.read, self.told = plan.input_columns, frozenset(plan.output_names)
        self.symbols = Symbols()
        self.capacity = 0
        self.last = np.zeros(0, np.int64)
        self.seen = np.zeros(0, np.int32)
        self.states = [StepState(s.template, s.params, plan.nan_policy) for s in plan.steps]
        self.null = NULL_FLOAT[plan.nan_policy]
        self.modules: list[Any] = [None] * len(plan.steps)
        self.row_wise = frozenset(
            n
            for n, (step, state) in enumerate(zip(plan.steps, self.states, strict=True))
            if step.template.row_wise and not state.mapped and plan.nan_policy == "skip"
        )
        self.levels = plan.levels(self.row_wise)
        self.groups = _groups(plan.steps)  # steps that run as one, by the first
        self.behind: set[int] = set()  # groups of which the first alone has kept its state
        used = plan.used()
        self.results = _results_of(plan)
        self.used = [[r for r in own if r.ref in used] for own in self.results]
        self.feeds = [
            [
                (need, spec.dtype == "f64")
                for spec, need in zip(step.kernel.inputs, step.dense, strict=True)
            ]
            for step in plan.steps
        ]
        self.integers = {
            ref[1]
            for step in plan.steps
            for spec, (_, ref) in zip(step.kernel.inputs, step.inputs, strict=True)
            if spec.dtype == "i64" and ref is not None and ref[0] == "column"
        }
        self.pool: ThreadPoolExecutor | None = None
        self.rooms = Rooms(0)
        self.block = np.zeros(0)  # of all state rows
        self.tape: Tape | None = None
        self.long: Tape | None = None
        self.found = _found.setdefault(plan, Found())
        self.taped = self.tapes
        self.jit = True

    # -- public ---------------------------------------------------------------------------

    def push(self, batch: Any) -> Any:
        """The batch with its features appended; state is carried to the next batch.

        If it raises, the state is what it was before.
        """
        return self.run(batch)

    def run(self, table: Any, *, sort: bool = False) -> Any:
        """Append the features of a table that continues what was pushed before."""
        for name in frame.column_names(table):
            if name in self.told:
                raise PlanError(
                    f"output {name!r} is already a column of the input; rename it with .alias()"
                )
        arrow = frame.select(table, self.read)
        n = arrow.num_rows
        pool = self._threads() if n >= SHARE else None
        columns, t = self._columns(arrow, pool)
        known = len(self.symbols)
        try:
            if t is None and len(self.row_wise) == len(self.plan.steps):
                # Nothing is kept per symbol, so it does not matter which rows are whose.
                frame.check_keys(arrow, self.plan.by)
                slots: np.ndarray | int = 0
            else:
                slots = frame.slots_of(arrow, self.plan.by, self.symbols)
            self._grow()
            order = None
            if sort and t is not None:
                order = np.argsort(t, kind="stable")
                slots, t = (slots if isinstance(slots, int) else slots[order]), t[order]
                columns = {n: c[order] for n, c in columns.items()}
            columns, last = self._prepare(n, slots, t, columns, order, pool)
        except (PlanError, UnsortedError, MemoryError):
            self._forget_symbols(known)
            raise
        pack = order is None and frame.kind_of(table) != "pandas"
        results = self._process(n, slots, t, columns, pool, pack=pack)
        self.last = last
        if order is not None:
            results = [_unsort(r, order) for r in results]
        return frame.attach(table, results)

    def snapshot(self) -> bytes:
        """The whole carried state as bytes that depend on the rows pushed, not on their cuts."""
        self.settle()
        count = len(self.symbols)
        for n, state in enumerate(self.states):
            self._add_up(n, state.owed(count))
        arrays = [self.last[:count]]
        parts = []
        for state in self.states:
            dumped = state.dump(count)
            parts.append(len(dumped))
            arrays += [a.ravel() for a in dumped]
        symbols = [list(s) if isinstance(s, tuple) else s for s in self.symbols.slots]
        header = {"plan": self.plan.fingerprint, "symbols": symbols, "parts": parts}
        return pack(header, arrays)

    def restore(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        """Take over a snapshot (``Plan.resume`` has checked that it fits)."""
        for symbol in header["symbols"]:
            self.symbols.slot(tuple(symbol) if isinstance(symbol, list) else symbol)
        self._grow()
        count = len(self.symbols)
        if len(arrays) != 1 + sum(header["parts"]):
            raise StateError("the snapshot does not have the parts its header names")
        self.last[:count] = arrays[0]
        at = 1
        for state, parts in zip(self.states, header["parts"], strict=True):
            own = arrays[at : at + parts]
            state.restore([own[0].reshape(count, state.words), *own[1:]], count)
            at += parts

    def settle(self) -> None:
        """Give every step of a group the state that the first has kept for all."""
        for first in self.behind:
            for n in self.groups[first][1:]:
                self.states[n].rows.view(np.int64)[:] = self.states[first].rows.view(np.int64)
        self.behind.clear()

    def _add_up(self, n: int, slots: np.ndarray) -> None:
        """Have a step's loop do what it left undone in these states: it does so without rows."""
        if not len(slots):
            return
        self.compile(n)
        state = self.states[n]
        runs = np.zeros((len(slots), 4), np.int64)
        runs[:, 0] = slots
        ((_, arguments),) = self._loop_arguments(n).items()
        arguments[:4] = runs, state.parameters, state.stride, state.rows
        self.modules[n].run(*arguments)

    # -- input ----------------------------------------------------------------------------

    def _columns(
        self, table: pa.Table, pool: ThreadPoolExecutor | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Value columns and time as arrays."""

        def read(name: str) -> np.ndarray:
            as_array = frame.integers if name in self.integers else self.numbers
            return as_array(table.column(name), name)

        names = self.plan.value_columns
        # To take columns as they are, or few rows of them, costs less than to wake a thread.
        casts = sum(not pa.types.is_float64(table.schema.field(name).type) for name in names)
        worth = pool is not None and casts > 1 and table.num_rows >= PIECE
        arrays = pool.map(read, names) if worth and pool is not None else map(read, names)
        columns = dict(zip(names, arrays, strict=True))
        time = self.plan.time
        return columns, None if time is None else frame.times(table.column(time), time)

    def _grow(self) -> None:
        """Make room for new symbols."""
        symbols = list(self.symbols.slots)
        if len(symbols) > self.capacity:
            capacity = max(len(symbols), 2 * self.capacity)
            last = np.full(capacity, prim.NULL_INT, np.int64)
            last[: len(self.last)] = self.last
            seen = np.full(capacity, -1, np.int32)
            # One block for all kernels: large blocks get large pages, and with thousands of
            # symbols most of the time for a row would go into finding small ones.
            ends = np.cumsum([capacity * state.words for state in self.states])
            self.block = zeros(int(ends[-1]))
            self.capacity, self.last, self.seen = capacity, last, seen  # there was memory
            for state, room in zip(self.states, np.split(self.block, ends[:-1]), strict=True):
                state.move(room)
        for state in self.states:
            if state.mapped:
                state.add_symbols(symbols[len(state.parameters) :])

    def _forget_symbols(self, known: int) -> None:
        self.symbols.forget(known)
        for state in self.states:
            if state.mapped:
                state.parameters = state.parameters[:known]

    def _prepare(
        self,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        order: np.ndarray | None,
        pool: ThreadPoolExecutor | None,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Columns as loops read them, and the last times; in a long batch while those are found."""
        if pool is None or t is None:
            return columns, self._last_times(slots, t, order)
        found = pool.submit(self._last_times, slots, t, order)
        try:
            if self.taped and self.jit and tape.MOST < n <= tape.SPAN:
                self._long_tape()
                columns = {
                    name: column if name in self.integers else _as_floats(column)
                    for name, column in columns.items()
                }
        finally:
            wait([found])
        return columns, found.result()

    def _last_times(
        self, slots: np.ndarray | int, t: np.ndarray | None, order: np.ndarray | None
    ) -> np.ndarray:
        """The last time of each symbol after these rows; it does not go backwards."""
        if t is None:
            return self.last
        last = self.last.copy()
        if isinstance(slots, int):
            row = prim.first_backward_one(slots, t, last)
        else:
            row = prim.first_backward(slots, t, last)
        if row < 0:
            return last
        slot = slots if isinstance(slots, int) else int(slots[row])
        symbol = list(self.symbols.slots)[slot]
        before = t[:row] if isinstance(slots, int) else t[:row][slots[:row] == slot]
        before = before[before != prim.NULL_INT]
        previous = int(before[-1]) if len(before) else int(self.last[slot])
        where = row if order is None else int(order[row])
        raise UnsortedError(
            f"time goes backwards: column {self.plan.time!r}, row {where}, symbol {symbol!r}: "
            f"{int(t[row])} follows {previous}; sort the input or pass sort=True"
        )

    # -- work -----------------------------------------------------------------------------

    def compile(self, step: int) -> None:
        """Load a step's module and compile its loop (from the cache if it is there)."""
        if self.modules[step] is None:
            template = self.plan.steps[step].template
            loops = self._empty_arguments(step) if self.jit else None
            self.modules[step] = codegen.load(
                template.kernel, template.variant, template.text, loops
            )

    def is_compiled(self, step: int) -> bool:
        """Whether a step's loop is in the cache, or on its way there."""
        template = self.plan.steps[step].template
        return codegen.is_written(template.kernel, template.variant, template.text)

    def _empty_arguments(self, step: int) -> dict[str, list[Any]]:
        """The loop of a step's module that is used, and what it is called with."""
        if step not in self.row_wise:
            return self._loop_arguments(step)
        kernel = self.plan.steps[step].kernel
        ins, outs = _empty_columns(kernel)
        bits = [np.zeros(0, np.uint8) for _ in outs]
        arguments = [np.zeros((1, 1)), 0, *ins, *outs, *bits, np.zeros(len(outs), np.int64)]
        return {"run_rows": arguments}

    def _loop_arguments(self, step: int) -> dict[str, list[Any]]:
        ins, outs = _empty_columns(self.plan.steps[step].kernel)
        runs, state = np.zeros((0, 4), np.int64), np.zeros((1, 1))
        return {"run": [runs, state, 0, state, NO_ARENA, NO_TIME[:0], *ins, *outs]}

    def in_rows(self, step: int) -> bool:
        """Whether a tape runs the step's loop in row order, which wants floats."""
        refs = [ref for _, ref in self.plan.steps[step].inputs if ref is not None]
        return step in self.row_wise and not any(map(self.is_integer, refs))

    def is_integer(self, ref: Ref | None) -> bool:
        """Whether a column is of int64 words: time, some inputs, results that are not floats."""
        if ref is None:
            return True
        if isinstance(ref[0], int):
            return self.plan.steps[ref[0]].kinds[int(ref[1])] is not np.float64
        return ref[1] in self.integers

    def entry(self, step: int) -> tuple[Any, int]:
        """The entry of a step, or of the group it leads, and the address of its loop, compiled or
        from the cache."""
        in_rows = self.in_rows(step)
        entries = self.found.entries
        if (step, in_rows) not in entries:
            members = self.groups.get(step, (step,))
            templates = [self.plan.steps[n].template for n in members]
            template = templates[0]
            loops = self._empty_arguments(step) if in_rows else self._loop_arguments(step)
            if len(members) > 1:
                template = cpu_rank.shared(templates)
                for n in members[1:]:
                    arguments = self._loop_arguments(n)["run"]
                    loops["run"] += [*arguments[1:3], *arguments[7:]]
            module = codegen.load(template.kernel, template.variant, template.text, loops)
            entry = cpu_entry.load([t.kernel for t in templates], in_rows=in_rows)
            ((name, arguments),) = loops.items()
            loop = getattr(module, name)
            entries[step, in_rows] = entry, cpu_entry.address(loop, arguments), loop
        return entries[step, in_rows][:2]

    def script(self) -> Script:
        """What a tape of this job says."""
        scripts = self.found.scripts
        if self.threads not in scripts:
            scripts[self.threads] = Script(self)
        return scripts[self.threads]

    def _tape(self, n: int) -> Tape:
        """The tape for a batch of n rows."""
        if self.tape is None or not self.tape.has_room(n, len(self.symbols)):
            self.tape = Tape(self, max(tape.LEAST, 1 << (n - 1).bit_length()))
        return self.tape

    def _long_tape(self) -> Tape:
        """The tape for batches that are walked through in stretches."""
        stretch = tape.stretch(len(self.symbols))
        if self.long is None or not self.long.has_room(stretch, len(self.symbols)):
            self.long = Tape(self, stretch, long=True)
        return self.long

    def _process(
        self,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        pool: ThreadPoolExecutor | None,
        *,
        pack: bool,
    ) -> list[Result]:
        """``pack``: flags and signs are told as Arrow has them, and take no more room than that."""
        if 0 < n <= tape.MOST and self.taped and self.jit and Tape.fits(self):
            return self._tape(n).push(self, n, slots, t, columns, pool)
        results, narrow = self._results(n, pack=pack)
        done = self._walk(n, slots, t, columns, results, pool)
        self._pieces(done, n, slots, t, columns, results, narrow, pool)
        return results

    def _walk(
        self,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        results: list[Result],
        pool: ThreadPoolExecutor | None,
    ) -> int:
        """How many of the rows a tape has done: none if there is none, and only some if threads
        had better share the rows of one symbol, which pieces do."""
        if not (n and self.taped and self.jit):
            return 0
        long, done = self._long_tape(), 0
        if pool is not None and n > 4 * TRIAL and self._has_one_long_run(n, slots):
            long.run(self, 0, TRIAL, slots, t, columns, results, pool)
            begin = perf_counter_ns()
            long.run(self, TRIAL, 2 * TRIAL, slots, t, columns, results, pool)
            done = 2 * TRIAL
            if perf_counter_ns() - begin > WORTH_NS * TRIAL:
                return done
        long.run(self, done, n, slots, t, columns, results, pool)
        return n

    def _has_one_long_run(self, n: int, slots: np.ndarray | int) -> bool:
        """Whether there are few steps, and rows of one symbol that keep a thread busy alone."""
        if len(self.plan.steps) >= 2 * self.threads:
            return False
        most = n if isinstance(slots, int) else SAMPLE * int(np.bincount(slots[::SAMPLE]).max())
        return most * self.threads > 1.5 * n

    def _pieces(
        self,
        begin: int,
        n: int,
        slots: np.ndarray | int,
        t: np.ndarray | None,
        columns: dict[str, np.ndarray],
        results: list[Result],
        narrow: frozenset[int],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        """The rows from ``begin`` on, piece by piece and step by step."""
        if begin == n:
            return
        self.settle()
        for step in range(len(self.modules)):
            self.compile(step)
        few = len(self.modules) <= FEW_STEPS
        size = min(max(PIECE, RUN * len(self.symbols)), MAX_PIECE) if not few else MAX_PIECE

        most = min(size, n) + 1
        if most > self.rooms.elements:
            self.rooms = Rooms(most)

        def prepare(lo: int) -> Piece:
            hi = min(lo + size, n)
            cut = {name: c[lo:hi] for name, c in columns.items()}
            targets = [
                (
                    _rows(r.values, lo, hi),
                    r.bits[lo // 8 : (hi + 7) // 8],
                )
                for r in results
            ]
            now = None if t is None else t[lo:hi]
            own = slots if isinstance(slots, int) else slots[lo:hi]
            return Piece(self, hi - lo, own, now, cut, targets, narrow, pool)

        # The next piece's rows are numbered while this one's kernels run.
        piece = prepare(begin)
        for lo in range(begin, n, size):
            ahead = lo + size
            later = pool.submit(prepare, ahead) if pool is not None and ahead < n else None
            for result, nulls in zip(results, piece.run(), strict=True):
                result.nulls += nulls
            if ahead < n:
                piece = later.result() if later is not None else prepare(ahead)

    def _results(self, n: int, *, pack: bool) -> tuple[list[Result], frozenset[int]]:
        """Room for the outputs on n rows, and which of them are packed."""
        kinds = [np.float64 if o.dtype == "f64" else np.int64 for o in self.plan.outputs]
        size = (n + 7) // 8
        narrow = frozenset[int]()
        if n < FEW:  # a piece of two arrays for each costs less than two arrays
            values = list(empty(len(kinds) * n).reshape(len(kinds), n))
            for at, kind in enumerate(kinds):
                if kind is np.int64:
                    values[at] = values[at].view(np.int64)
            bits = list(np.empty((len(kinds), size), np.uint8))
        else:
            rooms = {"b": (size, np.uint8), "i8": (n, np.int8)} if pack else {}
            dtypes = [o.dtype for o in self.plan.outputs]
            narrow = frozenset(at for at, dtype in enumerate(dtypes) if dtype in rooms)
            values = [
                empty(*rooms.get(dtype, (n, kind)))
                for dtype, kind in zip(dtypes, kinds, strict=True)
            ]
            bits = [empty(size, np.uint8) for _ in kinds]
        results = [
            Result(o.name, o.dtype, own, valid, 0)
            for o, own, valid in zip(self.plan.outputs, values, bits, strict=True)
        ]
        return results, narrow

    def _threads(self) -> ThreadPoolExecutor | None:
        if self.threads > 1 and self.pool is None:
            self.pool = ThreadPoolExecutor(self.threads, "gpukern")
        return self.pool


def _as_floats(column: np.ndarray) -> np.ndarray:
    """The column as float64."""
    if column.dtype == np.float64:
        return column
    floats = empty(len(column))
    np.copyto(floats, column)
    return floats


def _rows(values: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """Those rows of a result; of flags, which are packed, the bytes."""
    return values[lo // 8 : (hi + 7) // 8] if values.dtype == np.uint8 else values[lo:hi]


def _empty_columns(kernel: Kernel) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and outputs of no rows."""
    ins = [np.zeros(0, np.int64 if i.dtype == "i64" else np.float64) for i in kernel.inputs]
    outs = [np.zeros(0, np.float64 if o.dtype == "f64" else np.int64) for o in kernel.outputs]
    return ins, outs


def _results_of(plan: Plan) -> list[list[Made]]:
    """The outputs of every step."""
    read = {ref for step in plan.steps for _, ref in step.inputs}
    places: dict[Any, tuple[int, ...]] = {}
    for at, output in enumerate(plan.outputs):
        places[output.ref] = (*places.get(output.ref, ()), at)
    return [
        [Made(m, (n, m), places.get((n, m), ()), (n, m) in read) for m in range(len(step.kinds))]
        for n, step in enumerate(plan.steps)
    ]


def _groups(steps: Sequence[Step]) -> dict[int, tuple[int, ...]]:
    """Ranks of the same window over the same rows, two or more, by the first of them."""
    alike: dict[Any, list[int]] = {}
    for n, step in enumerate(steps):
        if step.template.variant in (cpu_rank.ROWS, cpu_rank.ROWS_BEFORE):
            key = (step.present, step.dense, repr(step.params["window"]))
            alike.setdefault(key, []).append(n)
    return {members[0]: tuple(members) for members in alike.values() if len(members) > 1}


def _unsort(result: Result, order: np.ndarray) -> Result:
    values = np.empty_like(result.values)
    values[order] = result.values
    valid = np.unpackbits(result.bits, count=len(order), bitorder="little")
    back = np.empty_like(valid)
    back[order] = valid
    bits = np.packbits(back, bitorder="little")
    return Result(result.name, result.dtype, values, bits, result.nulls)
