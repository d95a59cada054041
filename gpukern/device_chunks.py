"""A step on long series: every symbol's rows shared by many threads, each with a chunk of them.

Everything is decided on the device: how the rows are cut (``device_cut.py``), from which state a
chunk begins, and what is run again because a guess was wrong (``device_split.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.forms import cpu, device_cut, device_segments
from gpukern.forms.cuda import INFO, RUN, THREADS

if TYPE_CHECKING:
    from gpukern.device_step import Array, DeviceStep, Rows

ROUNDS = 3  # in which wrong guesses of a step are repaired side by side, before one by one


class Chunks:
    """The chunks of a class's rows and their state rows. ``columns``: time, inputs, outputs."""

    def __init__(self, step: DeviceStep, rows: Rows, symbols: int, *columns: Any) -> None:
        self.step = step
        self.device = device = step.device
        self.do = step.functions
        self.rows = rows
        self.symbols = symbols
        self.columns = columns
        self.words = step.words
        self.names = [name for name, _ in step.layout.header]
        self.mode, self.lags = self._mode()
        self.blocks = self.mode in (device_cut.BLOCKS, device_segments.SEGMENTS)
        self.length = cpu.BLOCK if self.blocks else max(step.least, rows.n // device.lanes)
        self.most = symbols * (2 if self.blocks else 1) + rows.n // self.length + 1
        self.ends = device.full(symbols, "q", 0)
        self.table = device.full(self.most * RUN, "q", 0)
        self.info = device.full(self.most * INFO, "q", 0)
        self.spans, self.final = device.full(2 * symbols, "q", 0), device.full(symbols, "q", 0)
        self.counts = device.full(3, "q", 0)

    def run(self) -> None:
        """Queue all that is to be done with them."""
        step, device, most = self.step, self.device, self.most
        self.do.count_chunks(
            self.symbols, self.rows.runs, self.length, int(self.blocks), self.ends, self.symbols
        )
        self.ends = device.running_sum(self.ends)
        if self.mode == device_segments.SEGMENTS:
            self._cut_segments()
        else:
            self._cut()
        room, arena = self._arena()
        states = device.empty(most * self.words, "d")
        # Word after word for all chunks, so that neighbouring threads read neighbouring words;
        # where a kernel takes slices of its state, row after row.
        strides = (self.words, 1) if step.sliced else (1, most)
        self.scratch = (states, *strides, arena)
        self._call(
            "open", most, self._whole(self.table), self.info, room, step.rows.view(np.int64),
            self.words, 1, step.arena.view(np.int64), self.words,
        )  # fmt: skip
        if self.blocks:
            self._run_blocks()
        elif self.mode == device_cut.STEP:
            self._run_guesses()
        else:
            self._call("run", most, self._whole(self.table))
        self._adopt()

    def _whole(self, table: Array) -> tuple[Array, int, Array]:
        """A table with an entry for every chunk, as functions take it."""
        return self.counts, 2, table

    def _call(self, name: str, threads: int, table: tuple[Array, int, Array], *extra: Any) -> None:
        self.step.call(name, threads, table, self.scratch, self.rows, *self.columns, *extra)

    def _mode(self) -> tuple[int, int]:
        """How chunks find their start, and the previous rows the kernel looks at."""
        variant = self.step.template.variant
        lags = sum(
            any(name.startswith(prefix) for name in self.names) for prefix in ("prev_", "prev2_")
        )
        if variant == "step":
            return device_cut.STEP, lags
        if variant == "fold_all":
            return device_cut.BLOCKS, lags
        if variant == "fold_all_segments":
            return device_segments.SEGMENTS, lags
        if "rows" in variant:
            return device_cut.ROWS, lags
        return device_cut.TIME, lags if variant.startswith("fold") else -1

    # -- where they begin ------------------------------------------------------------------

    def _cut(self) -> None:
        """Chunks of a length, which begin where their state can be found."""
        step, names, runs, ends = self.step, self.names, self.rows.runs, self.ends
        params = [p.name for p in step.kernel.params]
        pari, ints = step.parameters.view(np.int64), step.rows.view(np.int64)
        rows_word = names.index("rows") if "rows" in names else -1
        window = 0
        if self.mode == device_cut.STEP:
            window = -self.device.speculate_rows
        elif not self.blocks:
            window = params.index("window") + 1
        starts = self.device.empty(2 * self.most, "q")
        self.do.find_chunks(
            self.most, runs, ends, self.length, self.mode, self.lags, pari, window,
            step.state.stride, 1 + len(params), ints, rows_word,
            names.index("o") if self.blocks else -1, self.words, self.columns[0], starts,
            self.symbols,
        )  # fmt: skip
        if step.layout.arena_fields:
            self.do.thin_starts(self.symbols * THREADS, runs, ends, starts, self.symbols)
        self.do.cut_runs(
            self.most, runs, ends, starts, ints, self.words, rows_word, self.table, self.info,
            self.spans, self.final, self.counts, self.symbols,
        )  # fmt: skip

    def _cut_segments(self) -> None:
        """Chunks of whole blocks, which begin where the rows say."""
        device, do, most, symbols = self.device, self.do, self.most, self.symbols
        runs, ends, word = self.rows.runs, self.ends, self.names.index
        ints = self.step.rows.view(np.int64)
        windows = device.full(most * RUN, "q", 0)
        firsts, lasts = device.full(most, "q", -1), device.full(most, "q", -1)
        starts = device.empty(most, "q")
        do.cut_windows(most, runs, ends, cpu.BLOCK, windows, self.counts, symbols)
        self.step.call(
            "find_segments", most, self._whole(windows), self.step.own(), self.rows,
            *self.columns, firsts, lasts,
        )  # fmt: skip
        do.carry_starts(
            symbols * THREADS, runs, ends, ints, self.words, word("rows"), word("k"), self.lags,
            lasts, starts, symbols,
        )  # fmt: skip
        do.cut_segments(
            most, runs, ends, windows, firsts, starts, cpu.BLOCK, ints, self.words,
            word("rows"), self.table, self.info, self.spans, self.final, symbols,
        )  # fmt: skip

    def _arena(self) -> tuple[Array, Array]:
        """Regions for the chunks of a duration window: their rooms summed, and the memory.

        No row is in more than two of them, so the host need not ask how many there are.
        """
        device, most, fields = self.device, self.most, self.step.layout.arena_fields
        room = device.full(most + 1, "q", 0)
        if not fields:
            return room, device.empty(1, "d")
        live = self.step.live_rows(self.symbols)
        self.do.room_of_chunks(most, self.table, self.info, live, room, most)
        room = device.running_sum(room)
        total = 2 * self.rows.n + self.step.carried + 2 * most
        return room, device.empty(total * fields, "d")

    # -- what is done ----------------------------------------------------------------------

    def _run_blocks(self) -> None:
        """A cumulative fold: sum the blocks, absorb the sums in order, emit from the bases."""
        device, most, symbols = self.device, self.most, self.symbols
        states, across, along, _ = self.scratch
        width = sum(name.startswith(("m_", "cx_")) for name in self.names)
        sums, full = device.empty(most * width, "d"), device.empty(most, "q")
        self._call("summarise", most, self._whole(self.table), sums, full)
        self._call(
            "scan", symbols * THREADS, (self.rows.counts, 1, self.rows.runs), sums, full, states,
            states.view(np.int64), across, along, self.spans, self.table,
        )  # fmt: skip
        self._call("run", most, self._whole(self.table))

    def _run_guesses(self) -> None:
        """A state machine: guess every chunk's start, compare with the true one, repair."""
        device, do, most, symbols = self.device, self.do, self.most, self.symbols
        states, across, along, _ = self.scratch
        ints = states.view(np.int64)
        warm, main, redo = (device.full(most * RUN, "q", 0) for _ in range(3))
        do.warm_runs(most, self.table, warm, 0, most)
        do.warm_runs(most, self.table, main, 1, most)
        self._call("run", most, self._whole(warm))
        before = device.empty(most * self.words, "q")
        do.copy_words(most * self.words, ints, before, most * self.words)
        self._call("run", most, self._whole(main))
        redone = device.full(most, "q", 0)
        state = (before, ints, across, along, self.words)
        for _ in range(ROUNDS):
            do.verify(most, main, self.info, *state, redo, redone, most)
            do.begin_again(most, redo, *state, most)
            self._call("run", most, self._whole(redo))
        rests = device.full(symbols * RUN, "q", 0)
        do.rest(symbols, self.rows.runs, main, self.spans, *state, self.final, rests, symbols)
        self._call("run", symbols, (self.rows.counts, 1, rests))
        self.step.repaired += device.running_sum(redone)[-1:]

    def _adopt(self) -> None:
        """The states at the ends of the runs become the symbols'."""
        step, runs, symbols, words = self.step, self.rows.runs, self.symbols, self.words
        states, across, along, arena = self.scratch
        word = {name: w for w, name in enumerate(self.names)}
        ints, own = states.view(np.int64), step.rows.view(np.int64)
        off = word.get("off", -2)
        self.do.adopt_words(
            symbols, runs, self.final, ints, across, along, words, own, words, off, symbols
        )
        if step.layout.arena_fields:
            self.do.adopt_regions(
                symbols, runs, self.final, ints, across, along, arena.view(np.int64), own, words,
                off, word.get("older", -1), word.get("head", 0), word.get("tail", 0),
                word.get("n", -1), step.arena.view(np.int64), step.layout.arena_fields, symbols,
            )  # fmt: skip
