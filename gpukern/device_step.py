"""One step of a plan on a device: its state there, its launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import codegen
from gpukern.forms import cpu, cuda, device_rows, device_split
from gpukern.forms.cuda import INFO, RUN
from gpukern.state import StepState

if TYPE_CHECKING:
    from gpukern.plan import Step

Array = Any  # of the device
ROUNDS = 3  # in which wrong guesses of a step are repaired side by side, before one by one


class Functions:
    """The device functions that all plans share, loaded when first called."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.loaded: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self.loaded:
            function, kinds = device_rows.FUNCTIONS[name]
            self.loaded[name] = self.device.load(function, codegen.text_digest(function), kinds)
        return self.loaded[name]


@dataclass(frozen=True)
class Rows:
    """A class of rows as a step sees it: at most n, in dense order."""

    n: int
    counts: Array  # rows, runs
    runs: Array
    owner: Array  # the symbol of every row


class DeviceStep:
    """State rows, parameters and arena of a step, and the functions that work on them."""

    def __init__(self, device: Any, functions: Functions, step: Step, state: StepState) -> None:
        self.device = device
        self.functions = functions
        self.kernel = step.kernel
        self.state = state
        self.layout = state.template.layout
        self.words = state.words
        self.template = cuda.template(step.template, step.params)
        self.loaded: dict[str, Any] = {}
        self.rows = device.full(self.words, "d", 0.0)
        self.parameters = device.put(state.parameters.ravel())
        self.arena = device.empty(1, "d")
        self.caps = np.zeros(0, np.int64)
        self.live = np.zeros(0, np.int64)  # at most so many rows of each symbol are in the arena
        self.repaired = device.full(1, "q", 0)  # chunks whose guess was wrong, so far
        self.sliced = "D" in self.template.kinds["run"]
        self.least = self._least_chunk(step.params)

    def function(self, name: str) -> Any:
        """A function of the step's module."""
        if name not in self.loaded:
            made = self.template
            plain = self.device.name == "cudasim"
            module = codegen.load_device(self.kernel, made.variant, made.text, plain)
            self.loaded[name] = self.device.load(
                getattr(module, name), f"{self.kernel.name}_{module.digest}", made.kinds[name]
            )
        return self.loaded[name]

    def _least_chunk(self, params: dict[str, Any]) -> int:
        """Rows of a chunk below which rebuilding its state would be most of the work."""
        if self.template.variant == "step":
            return int(self.device.speculate_rows)
        spans = params.get("window")
        each = list(spans.values()) if isinstance(spans, dict) else [spans]
        rows = [v for v in each if isinstance(v, int)]
        return max([int(self.device.chunk_rows), *(2 * r for r in rows)])

    # -- state ----------------------------------------------------------------------------

    def grow(self, capacity: int, known: int) -> None:
        """Room for more symbols; those known keep their state."""
        new = self.device.full(capacity * self.words, "d", 0.0)
        new[: known * self.words] = self.rows[: known * self.words]
        self.rows = new
        self.caps = np.concatenate([self.caps, np.zeros(capacity - len(self.caps), np.int64)])
        self.live = np.concatenate([self.live, np.zeros(capacity - len(self.live), np.int64)])

    def reserve(self, added: np.ndarray, symbols: int) -> None:
        """Room in the arena for so many more rows of each symbol."""
        if not self.layout.arena_fields:
            return
        need = self.live[:symbols] + added + 2
        if np.any(need > self.caps[:symbols]):
            self.live[:symbols] = self.device.fetch(self._live_rows(symbols))[:symbols]
            need = self.live[:symbols] + added + 2
        short = need > self.caps[:symbols]
        if np.any(short):
            caps = self.caps.copy()
            caps[:symbols][short] = need[short] + need[short] // 2
            self._move_arena(caps, symbols)
        self.live[:symbols] += added

    def _live_rows(self, symbols: int, whole: bool = False) -> Array:
        """Rows in the arena per symbol; ``whole``: with those at its front no longer needed."""
        live = self.device.full(symbols, "q", 0)
        names = [n for n, _ in self.layout.header]
        word = {n: names.index(n) if n in names else -1 for n in ("older", "newer", "head", "tail")}
        self.functions.live_rows(
            symbols, self.rows.view(np.int64), self.words, word["older"], word["newer"],
            -1 if whole else word["head"], word["tail"], live, symbols,
        )  # fmt: skip
        return live

    def _move_arena(self, caps: np.ndarray, symbols: int) -> None:
        fields = self.layout.arena_fields
        begins = np.concatenate([[0], np.cumsum(caps * fields)])
        arena = self.device.full(int(begins[-1]), "d", 0.0)
        self.functions.move_regions(
            symbols, self.arena.view(np.int64), arena.view(np.int64), self.rows.view(np.int64),
            self.words, self.layout.index("off"), self.device.put(begins[:-1]),
            self.device.put(caps), fields, symbols,
        )  # fmt: skip
        self.arena, self.caps = arena, caps

    def keep(self) -> tuple[Any, ...]:
        """A copy of the state on the device."""
        return self.rows.copy(), self.arena.copy(), self.caps.copy(), self.live.copy()

    def put_back(self, kept: tuple[Any, ...]) -> None:
        """Return to what ``keep`` gave."""
        self.rows, self.arena, self.caps, self.live = kept

    def to_host(self) -> None:
        """Bring the state to the host's StepState, for a snapshot."""
        state = self.state
        rows = self.device.fetch(self.rows)
        state.rows = rows[: len(rows) // self.words * self.words].reshape(-1, self.words)
        state.arena = self.device.fetch(self.arena)

    def from_host(self) -> None:
        """Take the state over from the host's StepState."""
        state = self.state
        self.rows = self.device.put(state.rows.ravel())
        self.arena = self.device.put(state.arena)
        if self.layout.arena_fields:
            ints = state.rows.view(np.int64)
            self.caps = ints[:, self.layout.index("cap")].copy()
            self.live = self.caps.copy()

    def send_parameters(self) -> None:
        """The parameter rows again, after new symbols have come."""
        self.parameters = self.device.put(self.state.parameters.ravel())

    # -- launches -------------------------------------------------------------------------

    def run(
        self, rows: Rows, symbols: int, t: Array, inputs: list[Array], outs: list[Array]
    ) -> None:
        """All rows of a class; outputs in dense order."""
        variant = self.template.variant
        own = (self.rows, self.words, 1, self.arena)
        if self.kernel.form == "map":
            table = (rows.counts, 0, rows.runs)
            self._call("run", rows.n, table, own, rows, t, inputs, outs)
            if "keep" in self.template.kinds:
                table = (rows.counts, 1, rows.runs)
                self._call("keep", symbols, table, own, rows, t, inputs, outs)
        elif rows.n < self.device.split_rows or variant.endswith("segments"):
            table = (rows.counts, 1, rows.runs)
            self._call("run", symbols, table, own, rows, t, inputs, outs)
        else:
            self._run_split(rows, symbols, t, inputs, outs)

    def _call(
        self, name: str, threads: int, table: tuple[Array, int, Array],
        state: tuple[Array, int, int, Array], rows: Rows, t: Array, inputs: list[Array],
        outs: list[Array], *extra: Any,
    ) -> None:  # fmt: skip
        counts, at, runs = table
        st, ss, sw, arena = state
        self.function(name)(
            threads, counts, at, rows.owner, runs, self.parameters,
            self.parameters.view(np.int64), self.state.stride, st, st.view(np.int64), ss, sw,
            arena, arena.view(np.int64), t, *inputs, *outs, *extra,
        )  # fmt: skip

    def _mode(self) -> tuple[int, int]:
        """How chunks find their start, and the previous rows the kernel looks at."""
        variant = self.template.variant
        names = [n for n, _ in self.layout.header]
        lags = any(n.startswith("prev_") for n in names) + any(
            n.startswith("prev2_") for n in names
        )
        if variant == "step":
            return device_split.STEP, lags
        if variant == "fold_all":
            return device_split.BLOCKS, lags
        if "rows" in variant:
            return device_split.ROWS, lags
        return device_split.TIME, lags if variant.startswith("fold") else -1

    def _run_split(
        self, rows: Rows, symbols: int, t: Array, inputs: list[Array], outs: list[Array]
    ) -> None:
        device, do = self.device, self.functions
        mode, lags = self._mode()
        blocks = mode == device_split.BLOCKS
        length = cpu.BLOCK if blocks else max(self.least, rows.n // device.lanes)
        most = symbols * (2 if blocks else 1) + rows.n // length + 1
        names = [n for n, _ in self.layout.header]
        window = [p.name for p in self.kernel.params].index("window") + 1 if mode <= 1 else 0
        ints = self.rows.view(np.int64)
        ends = device.full(symbols, "q", 0)
        do.count_chunks(symbols, rows.runs, length, int(blocks), ends, symbols)
        ends = device.running_sum(ends)
        chunks, info = device.full(most * RUN, "q", 0), device.full(most * INFO, "q", 0)
        spans, final = device.full(2 * symbols, "q", 0), device.full(symbols, "q", 0)
        counts = device.full(3, "q", 0)
        do.cut_runs(
            most, rows.runs, ends, length, mode, lags, window, self.state.stride,
            self.parameters.view(np.int64), 1 + len(self.kernel.params), cpu.BLOCK, ints,
            names.index("rows") if "rows" in names else -1,
            names.index("o") if blocks else -1, self.words, t, chunks, info, spans, final,
            counts, device.speculate_rows, symbols,
        )  # fmt: skip
        room, arena = self._chunk_arena(most, chunks, info, symbols)
        st = device.empty(most * self.words, "d")
        # Word after word for all chunks, so that neighbouring threads read neighbouring words;
        # where a kernel takes slices of its state, row after row.
        ss, sw = (self.words, 1) if self.sliced else (1, most)
        scratch = (st, ss, sw, arena)
        table = (counts, 2, chunks)
        work = (scratch, rows, t, inputs, outs)
        self._call(
            "open", most, table, *work, info, room, ints, self.words, 1,
            self.arena.view(np.int64), self.words,
        )  # fmt: skip
        if blocks:
            self._run_blocks(most, table, work, symbols, spans)
        elif mode == device_split.STEP:
            self._run_guesses(most, table, work, symbols, spans, final, info)
        else:
            self._call("run", most, table, *work)
        self._adopt(rows, symbols, final, scratch)

    def _chunk_arena(
        self, most: int, chunks: Array, info: Array, symbols: int
    ) -> tuple[Array, Array]:
        """Arena regions for the chunks of a duration window."""
        device = self.device
        room = device.full(most + 1, "q", 0)
        if not self.layout.arena_fields:
            return room, device.empty(1, "d")
        self.functions.room_of_chunks(
            most, chunks, info, self._live_rows(symbols, whole=True), room, most
        )
        room = device.running_sum(room)
        total = int(device.fetch(room[most : most + 1])[0])
        return room, device.empty(total * self.layout.arena_fields, "d")

    def _run_blocks(self, most: int, table: Any, work: Any, symbols: int, spans: Array) -> None:
        """A cumulative fold: sum the blocks, absorb the sums in order, emit from the bases."""
        device = self.device
        scratch, rows, *_ = work
        st, ss, sw, _ = scratch
        width = sum(n.startswith(("m_", "cx_")) for n, _ in self.layout.header)
        sums, full = device.empty(most * width, "d"), device.empty(most, "q")
        self._call("summarise", most, table, *work, sums, full)
        by_symbol = (rows.counts, 1, rows.runs)
        self._call(
            "scan", symbols, by_symbol, *work, sums, full, st, st.view(np.int64), ss, sw, spans,
            table[2],
        )  # fmt: skip
        self._call("run", most, table, *work)

    def _run_guesses(
        self, most: int, table: Any, work: Any, symbols: int, spans: Array, final: Array,
        info: Array,
    ) -> None:  # fmt: skip
        """A state machine: guess every chunk's start, compare with the true one, repair."""
        device, do = self.device, self.functions
        (st, ss, sw, _), rows, *_ = work
        ints = st.view(np.int64)
        counts, at, chunks = table
        warm, main, redo = (device.full(most * RUN, "q", 0) for _ in range(3))
        do.warm_runs(most, chunks, warm, 0, most)
        do.warm_runs(most, chunks, main, 1, most)
        self._call("run", most, (counts, at, warm), *work)
        before = device.empty(most * self.words, "q")
        do.copy_words(most * self.words, ints, before, most * self.words)
        self._call("run", most, (counts, at, main), *work)
        redone = device.full(most, "q", 0)
        state = (before, ints, ss, sw, self.words)
        for _ in range(ROUNDS):
            do.verify(most, main, info, *state, redo, redone, most)
            do.begin_again(most, redo, *state, most)
            self._call("run", most, (counts, at, redo), *work)
        rests = device.full(symbols * RUN, "q", 0)
        do.rest(symbols, rows.runs, main, spans, *state, final, rests, symbols)
        self._call("run", symbols, (rows.counts, 1, rests), *work)
        self.repaired += device.running_sum(redone)[-1:]

    def _adopt(self, rows: Rows, symbols: int, final: Array, scratch: Any) -> None:
        """The states at the ends of the runs become the symbols'."""
        st, ss, sw, arena = scratch
        word = {n: w for w, (n, _) in enumerate(self.layout.header)}
        ints, own = st.view(np.int64), self.rows.view(np.int64)
        off = word.get("off", -2)
        self.functions.adopt_words(
            symbols, rows.runs, final, ints, ss, sw, self.words, own, self.words, off, symbols
        )
        if self.layout.arena_fields:
            self.functions.adopt_regions(
                symbols, rows.runs, final, ints, ss, sw, arena.view(np.int64), own, self.words,
                off, word.get("older", -1), word.get("head", 0), word.get("tail", 0),
                word.get("n", -1), self.arena.view(np.int64), self.layout.arena_fields, symbols,
            )  # fmt: skip
