"""One piece of rows on a device: grouped by symbol, its steps queued level by level.

Nothing here waits for the device, so its work runs behind the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpukern.device_step import Array, Rows
from gpukern.forms.cuda import RUN, THREADS

if TYPE_CHECKING:
    from gpukern.device_job import DeviceJob
    from gpukern.device_schedule import Operand, Stage

MOST_COUNTED = (1 << 31) - 1  # CUB numbers what it sums with 32 bits, and CuPy does not ask


class DevicePiece:
    """The work on n consecutive rows, in their order if they are not ``grouped`` first.

    A small piece asks for all its memory here: when it runs short, no state has been written.
    """

    def __init__(self, job: DeviceJob, n: int, grouped: bool) -> None:
        self.job = job
        self.n = n
        self.device = job.device
        self.do = job.functions
        self.plan = job.schedule
        self.tables = job.tables
        self.symbols = len(job.symbols)
        self.grouped = int(grouped)
        device, plan, symbols = self.device, self.plan, self.symbols
        classes = len(plan.classes)
        # Blocks for the whole piece, so that a launch serves all columns or classes of a level.
        self.words = device.empty(len(plan.columns) * n, "q")
        self.keep = device.empty((classes - 1) * n, "b")
        self.ends = device.empty((classes - 1) * n, "q")
        self.owners = device.empty(classes * n, "i")
        self.runs = device.empty(classes * symbols * RUN, "q")
        self.counts = device.empty(classes * 2, "q")
        self.dense = device.empty(plan.dense * n, "q")
        self.results = device.empty(len(plan.results) * n, "q")
        self.small = n < device.split_rows
        # Rows are counted over all classes of a level, or class by class.
        level = max((len(stage.classes) for stage in plan.stages), default=0)
        self.alone = self.small or level * n > MOST_COUNTED
        self.first = self.tables["alone" if self.alone else "first"]
        self.none = device.full(n if plan.absent else 1, "d", np.nan)  # an input that is not given
        outputs = len(job.plan.outputs)
        self.out = device.empty(outputs * n, "q")
        self.bits = device.empty(outputs * ((n + 7) // 8), "b")
        self.pos = device.empty(n if grouped else 1, "i")

    def take(self, slots: Array | int, words: Array, order: Array | None = None) -> None:
        """Rows of symbols known by their slots; ``words``: the columns, one below the other.

        ``order`` is that of the slots where it is known.
        """
        if isinstance(slots, int):
            inputs = self.plan.inputs * self.n
            self.owners[: self.n] = slots
            self.words[:inputs] = words[:inputs]
        else:
            self.group(slots, self.device.argsort(slots) if order is None else order, words)

    def group(self, slots: Array, order: Array, words: Array) -> None:
        """Columns in grouped order."""
        do, n, inputs = self.do, self.n, self.plan.inputs
        do.take_codes(n, slots, order, self.owners, n)
        do.invert(n, order, self.pos, n)
        do.take_words(inputs * n, words, order, self.words, inputs, n)

    def find_runs(self) -> None:
        """The run of every symbol."""
        self.do.find_runs(self.symbols, self.owners, self.n, self.runs, self.counts, self.symbols)

    # -- work -----------------------------------------------------------------------------

    def run(self) -> None:
        """Queue all steps: outputs in row order (8-byte words) to ``out``, bitmaps to ``bits``."""
        for stage in self.plan.stages:
            self._find_rows(stage)
            for n in stage.steps:
                self._step(n)
            if stage.spread:
                self.do.spread(
                    len(stage.spread) * self.n, self.results, self.tables["spreads"], self.keep,
                    self.ends, self.first, self.words, stage.spread.start,
                    len(stage.spread), self.plan.skip, self.n,
                )  # fmt: skip
        self._finish()

    def _find_rows(self, stage: Stage) -> None:
        """Which rows exist for the level's steps, and their columns made dense."""
        do, n, symbols, first = self.do, self.n, self.symbols, self.first
        count, begin = len(stage.classes), stage.classes.start
        if count:
            do.mark(
                count * n, self.words, self.tables["needs"], self.tables["spans"], self.keep,
                begin, count, n,
            )  # fmt: skip
            if self.small:
                do.count_kept(count * THREADS, self.keep, self.ends, begin, count, n)
            else:
                part = 1 if self.alone else count
                for c in range(begin - 1, begin - 1 + count, part):
                    own = slice(c * n, (c + part) * n)
                    self.device.running_sum(self.keep[own], self.ends[own])
            do.find_kept_runs(
                count * symbols, self.runs, self.ends, first, self.runs, self.counts, begin,
                count, n, symbols,
            )  # fmt: skip
            do.keep_owners(
                count * n, self.owners, self.keep, self.ends, first, begin, count, n
            )  # fmt: skip
        if stage.dense:
            part = self.dense[stage.dense.start * n : stage.dense.stop * n]
            do.densify(
                len(stage.dense) * n, self.words, self.tables["dense"], self.keep, self.ends,
                first, part, part.view(np.float64), stage.dense.start, len(stage.dense), n,
            )  # fmt: skip

    def _step(self, at: int) -> None:
        job, n, symbols = self.job, self.n, self.symbols
        step = job.plan.steps[at]
        c = self.plan.step_class[at]
        rows = Rows(
            n,
            self.counts[2 * c : 2 * c + 2],
            self.runs[c * symbols * RUN : (c + 1) * symbols * RUN],
            self.owners[c * n : (c + 1) * n],
        )
        operands, clock = self.plan.operands[at]
        inputs = [
            self._operand(o, spec.dtype == "f64")
            for spec, o in zip(step.kernel.inputs, operands, strict=True)
        ]
        t = self._operand(clock, False) if step.clock else self.counts  # not read without a clock
        outs = []
        for m, kind in enumerate(step.kinds):
            r = self.plan.results[(at, m)]
            words = self.results[r * n : (r + 1) * n]
            outs.append(words.view(np.float64) if kind is np.float64 else words)
        job.steps[at].run(rows, symbols, t, inputs, outs)

    def _operand(self, operand: Operand, floats: bool) -> Array:
        n = self.n
        if operand.dense >= 0:
            words = self.dense[operand.dense * n : (operand.dense + 1) * n]
        elif operand.column >= 0:
            words = self.words[operand.column * n : (operand.column + 1) * n]
        else:
            return self.none
        return words.view(np.float64) if floats else words

    def _finish(self) -> None:
        outputs = len(self.job.plan.outputs)
        width = (self.n + 7) // 8
        self.do.finish(
            outputs * width, self.results, self.tables["outputs"], self.keep, self.ends,
            self.first, self.counts, self.pos, self.grouped, self.plan.skip, self.out, self.bits,
            outputs, self.n,
        )  # fmt: skip
