"""Whole blocks of a fold over a window abreast: each in a lane of the processor's vectors.

A block is a chain of dependent operations; the blocks beside it are independent of it. Rows are
copied so that row j of ``LANES`` blocks lie side by side, and every loop then runs over words in
which a row's predecessor is ``LANES`` words back: the compiler turns ``LANES`` rounds into one.
Each lane does what the ordinary loop does for its block, in its order, so the bits are the same.

All copies and sums of a loop are parts of one array at fixed distances: of arrays it knows nothing
about, the compiler would have to ask at run time whether they overlap, and gives up at a dozen. A
word is addressed by an unsigned index, as a negative one would count from the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpukern.forms import cpu
from gpukern.forms.cpu import Source
from gpukern.forms.lanes import LANES
from gpukern.forms.layout import invoke, wanted

if TYPE_CHECKING:
    from gpukern.forms.cpu_fold import Fold

SHIFT = LANES.bit_length() - 1
LEAST = 3  # blocks worth a round of lanes; those left over repeat the last
SHORTEST = LANES
LONGEST = 1024  # rows of a window whose blocks go abreast
PART = LANES * (LONGEST + 2) + 72  # words; the odd end keeps parts off each other's cache sets


def fits(fold: Fold) -> bool:
    """Whether the fold's rows can be told from inputs and row numbers alone."""
    kernel = fold.kernel
    names = wanted(kernel, "inner", "lift", "value")
    time = {"t", "prev_t", "prev2_t"} & names
    return not time and all(i.dtype == "f64" for i in kernel.inputs)


class _Lanes:
    """Writes loops over the words of ``LANES`` blocks."""

    def __init__(self, fold: Fold, s: Source) -> None:
        self.fold, self.s = fold, s
        self.kernel = fold.kernel
        self.parts: list[str] = []
        self.depth = len(fold.lags)
        asked = wanted(self.kernel, "value")
        self.columns = [
            i.name for i in self.kernel.inputs if i.name in fold.read or i.name in asked
        ]
        self.has_inner = "inner" in self.kernel.functions

    def offset(self, part: str) -> int:
        """Where a part begins."""
        if part not in self.parts:
            self.parts.append(part)
        return self.parts.index(part) * PART

    def word(self, part: str, at: str = "m") -> str:
        """The word of a part; ``at`` counts from its first row."""
        return f"wide[np.uint64({self.offset(part)} + {at})]"

    @property
    def size(self) -> str:
        return f"{len(self.parts)} * {PART}"

    def copy(self, block: str, columns: list[str], shift: int) -> None:
        """Rows of the lanes' blocks (``shift`` blocks on), and those that come before them."""
        back = f"{shift} * span - {self.depth}" if shift or self.depth else "0"
        first = ", ".join(f"from_{lane} + {back}" for lane in range(LANES))
        for c in columns:
            at = self.offset(block + c)
            self.s(f"to_lanes(wide, {at}, in_{c}, {first}, span + {self.depth})")

    def row(self, block: str, at: str, number: str) -> tuple[list[str], dict[str, str]]:
        """Lines that bind the inner fields of the row in word ``at``, and all names it has."""
        fold, kernel = self.fold, self.kernel

        def column(c: str, lag: int) -> str:
            return self.word(block + c, f"{at} + {LANES * (self.depth - lag)}")

        scope = cpu.parameters(kernel)
        scope.update({c: column(c, 0) for c in self.columns if block == "a_" or c in fold.read})
        for prefix, columns in fold.lags:
            scope.update({prefix + c: column(c, cpu.MAX_LAGS[prefix]) for c in columns})
        scope.setdefault("k", number)  # a parameter k goes before the row number
        if self.has_inner:
            call = invoke(kernel.functions["inner"], "inner", scope)
            lines = [f"{', '.join(fold.inner)} = {call}"]
            scope.update({x[2:]: x for x in fold.inner})
            return lines, scope
        here = fold.read if block == "b_" else self.columns
        used = [x for x in fold.inner if x[2:] in here]
        scope.update({x[2:]: x for x in used})
        return [f"{x} = {column(x[2:], 0)}" for x in used], scope

    def lift(self, block: str, at: str, number: str) -> list[str]:
        """Lines that lift the row in word ``at`` to ``e_*``."""
        fold = self.fold
        lines, scope = self.row(block, at, number)
        scope.update({f"d{x[2:]}": f"{x} - {self.word('c' + x)}" for x in fold.centred})
        call = invoke(self.kernel.functions["lift"], "lift", scope)
        names = ", ".join("e_" + a for a in fold.acc)
        return [*lines, f"{names} = {call}"]

    def start(self, number: str) -> None:
        """Centres, and the sum of no rows."""
        fold, s = self.fold, self.s
        lines, _ = self.row("a_", "m", number)
        s.block(f"for m in range({LANES}):")
        if fold.centred:
            s(*lines, *(f"{self.word('c' + x)} = {x}" for x in fold.centred))
        s(*(f"{self.word('p_' + a)} = {z}" for a, z in zip(fold.acc, fold.zero, strict=True)))
        s.end()
        if fold.centred:
            s.block(f"for m in range({LANES}, {LANES} * span):")
            s(
                *(
                    f"{self.word('c' + x)} = {self.word('c' + x, f'm - {LANES}')}"
                    for x in fold.centred
                )
            )
            s.end()

    def prefixes(self, number: str) -> None:
        """The sum of a block's rows up to each row (within the loop over words)."""
        fold, s = self.fold, self.s
        s(*self.lift("a_", "m", number))
        before = [self.word("p_" + a) for a in fold.acc]
        s(*fold.join(before, ["e_" + a for a in fold.acc], [f"s_{a}" for a in fold.acc]))
        s(*(f"{self.word('p_' + a, f'm + {LANES}')} = s_{a}" for a in fold.acc))

    def suffixes(self, number: str) -> None:
        """The sum of the rows of the block before from each row on."""
        fold, s = self.fold, self.s
        s.block(f"for m in range({LANES} * span, {LANES} * span + {LANES}):")
        s(*(f"{self.word('u_' + a)} = {z}" for a, z in zip(fold.acc, fold.zero, strict=True))).end()
        s.block(f"for z in range({LANES} * span):")
        s(f"m = {LANES} * span - 1 - z", *self.lift("b_", "m", number))
        after = [self.word("u_" + a, f"m + {LANES}") for a in fold.acc]
        s(*fold.join(["e_" + a for a in fold.acc], after, [f"s_{a}" for a in fold.acc]))
        s(*(f"{self.word('u_' + a)} = s_{a}" for a in fold.acc)).end()

    def outputs(self, scope: dict[str, str]) -> None:
        """The outputs of a row from the names in scope (within the loop over words)."""
        kernel, s = self.kernel, self.s
        call = invoke(kernel.functions["value"], "value", scope)
        if len(kernel.outputs) == 1:
            s(f"{self._output(0)} = {call}")
        else:
            s(f"v = {call}")
            s(*(f"{self._output(n)} = v[{n}]" for n in range(len(kernel.outputs))))

    def _output(self, n: int) -> str:
        word = self.word(f"o_{n}")
        return word if self.kernel.outputs[n].dtype == "f64" else word.replace("wide", "widi", 1)

    def put(self) -> None:
        """Outputs back to the order of rows. A lane that repeats another writes the same again."""
        first = ", ".join(f"from_{lane}" for lane in range(LANES))
        for n, output in enumerate(self.kernel.outputs):
            words = "wide" if output.dtype == "f64" else "widi"
            at = self.offset(f"o_{n}")
            self.s(f"from_lanes(out_{n}, {first}, {words}, {at}, span)")

    def begin(self) -> None:
        """The lanes' first rows, in a round of at most ``LANES`` of the ``blocks``."""
        s = self.s
        s(f"live = min(blocks, {LANES})")
        s(*(f"from_{n} = i + min({n}, live - 1) * span" for n in range(LANES)))

    def previous(self) -> list[str]:
        """Lines that set the rows before row ``i``."""
        return [
            f"{prefix}{c} = in_{c}[i - {cpu.MAX_LAGS[prefix]}]"
            for prefix, columns in self.fold.lags
            for c in columns
        ]

    def place(self, lines: list[str]) -> list[str]:
        """Lines with the size of the array, which is known once all is written."""
        return [re.sub(r"\bWIDE\b", self.size, line) for line in lines]


def _allocate(s: Source) -> None:
    s.enlarge("wide", "WIDE")("widi = wide.view(np.int64)")


ROOMS = {"wide": "0"}


def rows(s: Source, fold: Fold, before: bool) -> None:
    """Rounds of ``blocks`` whole blocks from row ``i`` on; the block before is among the rows."""
    first = len(s.lines)
    lanes = _Lanes(fold, s)
    acc = list(fold.acc)
    _allocate(s)
    s.block("while blocks > 0:")
    lanes.begin()
    needed = [c for c in lanes.columns if c in fold.read]
    lanes.copy("a_", lanes.columns, 0)
    lanes.copy("b_", needed, -1)
    here = f"k + min(m & {LANES - 1}, live - 1) * span + (m >> {SHIFT})"
    lanes.start(here)
    lanes.suffixes(f"{here} - span")
    s("n = span")
    s.block(f"for m in range({LANES} * span):")
    lanes.prefixes(here)
    step = 0 if before else LANES
    _, scope = lanes.row("a_", "m", here)
    older = [lanes.word("u_" + a, f"m + {step}") for a in acc]
    newer = [lanes.word("p_" + a) for a in acc] if before else [f"s_{a}" for a in acc]
    s(*fold.join(older, newer, [f"w_{a}" for a in acc]))
    scope.update({a[2:]: f"w_{a}" for a in acc}, n="n", null="null")
    scope.update({"c" + x[2:]: lanes.word("c" + x) for x in fold.centred})
    lanes.outputs(scope)
    s.end()
    lanes.put()
    s("i += live * span", "k += live * span", "blocks -= live").end()
    # The state keeps the last block's rows.
    s.block("for j in range(span):")
    raw = len(fold.kept)
    s(*_last_row(lanes), *(f"ring[j * {raw} + {n}] = {x}" for n, x in enumerate(fold.kept))).end()
    s(*lanes.previous())
    s.lines[first:] = lanes.place(s.lines[first:])


def _last_row(lanes: _Lanes) -> list[str]:
    """Lines that bind the inner fields of row ``j`` of the last block done, from the inputs."""
    fold, kernel = lanes.fold, lanes.kernel
    scope = cpu.parameters(kernel)
    scope.update({c: f"in_{c}[i - span + j]" for c in lanes.columns})
    for prefix, columns in fold.lags:
        lag = cpu.MAX_LAGS[prefix]
        scope.update({prefix + c: f"in_{c}[i - span + j - {lag}]" for c in columns})
    scope.setdefault("k", "k - span + j")
    if lanes.has_inner:
        call = invoke(kernel.functions["inner"], "inner", scope)
        return [f"{', '.join(fold.inner)} = {call}"]
    return [f"{x} = {scope[x[2:]]}" for x in fold.kept]
