"""Several threads on one symbol, without changing a bit.

A long run of one symbol is cut into chunks that are computed at the same time. What differs by
form is how a chunk gets the state it starts from:

* windows and lags remember finitely many rows, so the state is rebuilt from the rows before the
  chunk, beginning where the sequential evaluation begins a block;
* cumulative folds are block sums: all blocks are summed in parallel, the sums are absorbed in
  order (one short loop), and the chunks are emitted from the bases found;
* a step is speculated: the chunk starts some rows early from the initial state, and afterwards its
  start is compared bit by bit with the end of the chunk before. A chunk that does not match is run
  again from the true state, so the result is exact always and fast for machines that forget.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from gpukern.forms import rows as prim
from gpukern.forms.cpu import BLOCK
from gpukern.state import StepState

LEAST = 1 << 13  # rows of a chunk below which threads do not pay
SPECULATE = 1 << 12  # rows a step runs ahead of its chunk


@dataclass
class Chunk:
    """Rows lo…hi of the dense inputs with a state row of their own."""

    lo: int
    hi: int
    words: np.ndarray
    arena: np.ndarray
    start: int = 0  # the row from which the state is rebuilt
    before: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class Run:
    """One symbol's run of one step, with everything its loop needs."""

    def __init__(
        self,
        state: StepState,
        module: Any,
        run: np.ndarray,
        t: np.ndarray,
        inputs: list[np.ndarray],
        outs: list[np.ndarray],
    ) -> None:
        self.state = state
        self.template = state.template
        self.layout = state.template.layout
        self.module = module
        self.slot, self.lo, self.hi = int(run[0]), int(run[1]), int(run[2])
        self.par = state.parameters[self.slot * state.stride][None, :]
        self.t = t
        self.inputs = inputs
        self.outs = outs
        names = [p.name for p in state.kernel.params]
        self.values = dict(zip(names, self.par.view(np.int64)[0, 1:].tolist(), strict=True))

    def call(self, chunk: Chunk, lo: int, hi: int, emit: int) -> None:
        """Run the loop over rows lo…hi with the chunk's own state."""
        runs = np.array([(0, lo, hi, emit)], np.int64)
        self.module.run(
            runs, self.par, 0, chunk.words, chunk.arena, self.t, *self.inputs, *self.outs
        )

    def fresh(self, lo: int, hi: int, start: int) -> Chunk:
        """A chunk with an empty state and room for its rows."""
        words = np.zeros((1, self.state.words))
        fields = self.layout.arena_fields
        arena = np.zeros(max(1, (hi - start + 2) * fields))
        if fields:
            words.view(np.int64)[0, self.layout.index("cap")] = hi - start + 2
        return Chunk(lo, hi, words, arena, start)

    def set_word(self, chunk: Chunk, name: str, value: int) -> None:
        """Set an integer header word."""
        chunk.words.view(np.int64)[0, self.layout.index(name)] = value

    def set_previous(self, chunk: Chunk, row: int) -> None:
        """Fill in the previous rows of ``row`` from the inputs."""
        columns = {i.name: c for i, c in zip(self.state.kernel.inputs, self.inputs, strict=True)}
        for at, (name, kind) in enumerate(self.layout.header):
            for prefix, back in (("prev_", 1), ("prev2_", 2)):
                if name.startswith(prefix):
                    words = chunk.words.view(np.int64) if kind == "i" else chunk.words
                    source = self.t if name == prefix + "t" else columns[name[len(prefix) :]]
                    words[0, at] = source[row - back]

    def row_number(self, row: int) -> int:
        """Number of a row among the symbol's rows."""
        rows = int(self.state.rows.view(np.int64)[self.slot, self.layout.index("rows")])
        return rows + row - self.lo

    def adopt(self, chunk: Chunk) -> None:
        """The state of the last chunk becomes the symbol's."""
        mine = self.state.rows.view(np.int64)[self.slot]
        theirs = chunk.words.view(np.int64)[0]
        fields = self.layout.arena_fields
        if not fields:
            mine[:] = theirs
            return
        off, cap = (int(mine[self.layout.index(n)]) for n in ("off", "cap"))
        size = min(int(theirs[self.layout.index("cap")]), cap)
        own = int(theirs[self.layout.index("cap")])
        for f in range(fields):
            begin = off + f * cap
            self.state.arena[begin : begin + size] = chunk.arena[f * own : f * own + size]
        mine[:] = theirs
        mine[self.layout.index("off")], mine[self.layout.index("cap")] = off, cap


def bounds(lo: int, hi: int, parts: int) -> list[int]:
    """Chunk borders, or just the ends if the run is too short to share."""
    parts = min(parts, (hi - lo) // LEAST)
    return [lo + (hi - lo) * p // parts for p in range(parts + 1)] if parts > 1 else [lo, hi]


def run_split(run: Run, parts: int, pool: Executor) -> bool:
    """Compute the run in chunks; False (and nothing done) if it cannot be shared."""
    cuts = bounds(run.lo, run.hi, parts)
    if len(cuts) == 2:
        return False
    variant = run.template.variant
    if variant == "fold_all_segments":
        return False  # segments restart where the data says, not at block borders
    if variant == "fold_all":
        return _fold_all(run, cuts, pool)
    if variant == "step":
        return _speculate(run, cuts, pool)
    return _rebuild(run, cuts, pool)


def _first_chunk(run: Run, hi: int) -> Chunk:
    """The chunk that continues the symbol's own state."""
    rows = run.state.rows[run.slot : run.slot + 1].copy()
    return Chunk(run.lo, hi, rows, run.state.arena, run.lo)


def _rebuild(run: Run, cuts: list[int], pool: Executor) -> bool:
    chunks = [_first_chunk(run, cuts[1])]
    for lo, hi in pairwise(cuts[1:]):
        start = _rebuild_from(run, lo)
        if start is None:
            return False
        chunk = run.fresh(lo, hi, start)
        variant = run.template.variant
        if variant.startswith("fold"):
            run.set_word(chunk, "rows", run.row_number(start))
            run.set_previous(chunk, start)
            if "cell_end" in [n for n, _ in run.layout.header]:
                run.set_word(chunk, "cell_end", prim.NULL_INT)
        chunks.append(chunk)
    list(pool.map(lambda c: run.call(c, c.start, c.hi, c.lo), chunks))
    last = chunks[-1]
    if run.template.variant in ("map_rows", "rank_rows", "rank_rows_before"):
        words, at = last.words.view(np.int64), run.layout.index("rows")
        words[0, at] += run.row_number(last.start)
    if run.layout.size:
        run.adopt(last)
    return True


def _rebuild_from(run: Run, lo: int) -> int | None:
    """The row to start from so that row ``lo`` finds its exact state, or None if not here."""
    variant, values, lags = run.template.variant, run.values, run.layout.lags
    if variant == "map":
        return lo
    if variant in ("map_time", "rank_time", "rank_time_before"):
        back = values["k"] if variant == "map_time" else values["window"]
        first = int(np.searchsorted(run.t[run.lo : run.hi], run.t[lo] - back, "right")) + run.lo - 1
        return first if first >= run.lo else None
    if variant.startswith("fold_time"):
        span = values["window"]
        begin = (int(run.t[lo]) // span - 1) * span
        first = int(np.searchsorted(run.t[run.lo : run.hi], begin, "left")) + run.lo
        return first if first - lags > run.lo else None
    if variant == "map_rows":
        span = values.get("k", 1)
        if span == 0:
            return lo
        number = run.row_number(lo)
        first = lo - (number - (number // span - 1) * span)
        return first if first >= run.lo else None
    span = values["window"]
    number = run.row_number(lo) - lags
    first = lo - (number - (number // span - 1) * span)
    return first if first - lags >= run.lo else None


def _fold_all(run: Run, cuts: list[int], pool: Executor) -> bool:
    module, layout = run.module, run.layout
    ints = run.state.rows.view(np.int64)[run.slot]
    done = int(ints[layout.index("o")])
    number = int(ints[layout.index("rows")])
    if number < run.layout.lags or number == 0:
        return False  # the first rows of a symbol are few; the next piece is shared
    # Move the borders to where a block begins.
    full = [cuts[0], *(c + (BLOCK - (done + c - cuts[0]) % BLOCK) % BLOCK for c in cuts[1:-1])]
    full.append(cuts[-1])
    if any(a >= b for a, b in pairwise(full)):
        return False
    head = _first_chunk(run, full[1])
    begin = cuts[0] + BLOCK - done  # the first whole block after the one in progress
    blocks = (full[-2] - begin) // BLOCK
    width = len(run.state.kernel.fields["acc"]) + len(module.CENTRES)
    sums = np.empty((max(blocks, 1), width))
    shares = np.linspace(0, blocks, len(cuts)).astype(np.int64)
    first = int(ints[layout.index("k")]) + (begin - cuts[0])
    tasks = [(int(a), int(b)) for a, b in pairwise(shares) if b > a]
    list(
        pool.map(
            lambda s: module.summarise(begin, s[0], s[1], first, run.par, run.t, *run.inputs, sums),
            tasks,
        )
    )
    run_pieces = [head]
    bases = np.empty((len(full) - 2, len(run.state.kernel.fields["base"])))
    marks = np.array([(c - begin) // BLOCK for c in full[1:-1]], np.int64)
    opening = head.words.copy()
    block = Chunk(cuts[0], begin, opening, head.arena)
    run.call(block, cuts[0], min(begin, run.hi), run.hi)
    module.absorb_blocks(run.par, opening, sums, marks, bases)
    for n, (lo, hi) in enumerate(pairwise(full[1:])):
        chunk = run.fresh(lo, hi, lo)
        run.set_word(chunk, "rows", run.row_number(lo))
        run.set_word(chunk, "k", int(ints[layout.index("k")]) + lo - cuts[0])
        run.set_word(chunk, "o", 0)
        for m, name in enumerate(run.state.kernel.fields["base"]):
            chunk.words[0, layout.index(f"b_{name}")] = bases[n, m]
        for m, zero in enumerate(module.ZERO):
            name = run.state.kernel.fields["acc"][m]
            chunk.words[0, layout.index(f"m_{name}")] = zero
        run.set_previous(chunk, lo)
        run_pieces.append(chunk)
    list(pool.map(lambda c: run.call(c, c.lo, c.hi, c.lo), run_pieces))
    run.adopt(run_pieces[-1])
    return True


def _speculate(run: Run, cuts: list[int], pool: Executor) -> bool:
    state, at = run.state, run.layout.index("rows")
    if state.mispredicted:
        return False
    chunks = [_first_chunk(run, cuts[1])]
    for lo, hi in pairwise(cuts[1:]):
        chunks.append(run.fresh(lo, hi, max(run.lo, lo - SPECULATE)))

    def work(chunk: Chunk) -> None:
        if chunk is not chunks[0]:
            run.call(chunk, chunk.start, chunk.lo, chunk.lo)
            chunk.words.view(np.int64)[0, at] = run.row_number(chunk.lo)
            chunk.before = chunk.words.view(np.int64)[0].copy()
        run.call(chunk, chunk.lo, chunk.hi, chunk.lo)

    list(pool.map(work, chunks))
    for earlier, chunk in pairwise(chunks):
        true = earlier.words.view(np.int64)[0]
        if not np.array_equal(true, chunk.before):
            state.mispredicted += 1
            chunk.words.view(np.int64)[0] = true
            run.call(chunk, chunk.lo, chunk.hi, chunk.lo)
    run.adopt(chunks[-1])
    return True
