"""Windows of which only the lowest few values matter, without keeping the rest in order.

The lowest values of a window are among the lowest of two stretches that meet at a multiple of the
window: the rows of the block before from some row on, and those of this block up to some row. Each
stretch grows by a row at a time, which takes a minimum and a maximum for each value kept; joining
two of them takes half a sorting network. Blocks go abreast as in ``cpu_wide``. Order statistics are
values of the window, so the bits are those of the sorted window.
"""

from __future__ import annotations

from gpukern.forms import cpu
from gpukern.forms.cpu import Source
from gpukern.forms.cpu_wide import LEAST, LONGEST, PART, SHORTEST
from gpukern.forms.lanes import LANES
from gpukern.forms.layout import invoke, wanted
from gpukern.kernel import Kernel

KEPT = LANES  # values, so that a row's are one square's side
ROWS, BEFORE, UP_TO, FROM, LOW, COUNT = 0, 1, 2, 2 + KEPT, 2 + 2 * KEPT, 2 + 3 * KEPT
VALUES = COUNT + 1  # of each output
SCRATCH = ["wide = np.empty(0)"]


def _word(part: int, at: str = "m") -> str:
    return f"wide[np.uint64({part * PART} + {at})]"


def fits(kernel: Kernel) -> bool:
    """Whether a kernel reads nothing but the lowest values, and tells floats."""
    reads = kernel.inputs[0].name in wanted(kernel, "value")
    floats = all(o.dtype == "f64" for o in kernel.outputs)
    return "reach" in kernel.functions and floats and not reads


def reach(kernel: Kernel) -> str:
    """The call that says how many of a whole window's lowest values are read."""
    scope = cpu.parameters(kernel)
    scope["n"] = "window"
    return invoke(kernel.functions["reach"], "reach", scope)


def start(s: Source, kernel: Kernel) -> None:
    """Lines before the rows: ``attempt`` is where a round may begin, −1 if nowhere."""
    s("attempt = max(lo + window, emit)")
    s.block(f"if hi - attempt < {LEAST} * window or not {SHORTEST} <= window <= {LONGEST}:")
    s("attempt = -1").end()
    s.block("if attempt >= 0:")
    s(f"most = {reach(kernel)}", f"if most >= {KEPT}:", "    attempt = -1").end()


def rows(s: Source, kernel: Kernel) -> None:
    """A round of up to LANES blocks from row ``i`` = ``attempt`` on, unless there is a NaN."""
    name = kernel.inputs[0].name
    first = ", ".join(f"from_{lane}" for lane in range(LANES))
    size = f"{LANES} * window"
    s.block("if wide.size == 0:")
    s(f"wide = np.empty({(VALUES + len(kernel.outputs)) * PART})").end()
    s(f"live = min((hi - i) // window, {LANES})")
    s(*(f"from_{lane} = i + min({lane}, live - 1) * window" for lane in range(LANES)))
    s(f"to_lanes(wide, {ROWS * PART}, in_{name}, {first}, window)")
    older = first.replace(",", " - window,") + " - window"
    s(f"to_lanes(wide, {BEFORE * PART}, in_{name}, {older}, window)")
    s("odd = 0")
    s.block(f"for m in range({size}):")
    for part in (ROWS, BEFORE):
        s(f"x = {_word(part)} + 0.0", "odd += 1 if x != x else 0", f"{_word(part)} = x")
    s.end()
    s.block(f"for m in range({LANES}):")
    s(*(f"{_word(UP_TO + r)} = np.inf" for r in range(KEPT)))
    s(*(f"{_word(FROM + r, f'{size} + m')} = np.inf" for r in range(KEPT))).end()
    s.block(f"for m in range({size}):")
    _take(s, ROWS, UP_TO, "m", f"m + {LANES}")
    s.end()
    s.block(f"for z in range({size}):")
    s(f"m = {size} - 1 - z")
    _take(s, BEFORE, FROM, f"m + {LANES}", "m")
    s.end()
    s.block(f"for m in range({size}):")
    _join(s)
    s.end()
    s.block("if odd == 0:")
    if "within" in wanted(kernel, "value"):
        _count(s, name, size)
    _values(s, kernel, size, first)
    s("i += live * window", "rows += live * window", "q = rows % window")
    s(f"again = np.sort(in_{name}[i - window : i] + 0.0)")
    s.block("for j in range(window):")
    s("work[j + 1] = again[j]")
    s(f"ring[(rows - window + j) % window] = in_{name}[i - window + j] + 0.0").end()
    s("n = window", "order[n] = np.inf", "attempt = i").end()
    s("else:", "    attempt = i + live * window")
    s(f"if hi - attempt < {LEAST} * window:", "    attempt = -1")


def _count(s: Source, name: str, size: str) -> None:
    """How many values of each row's window are not above the last that is read.

    Prices have ticks: it may have more equals than are kept. Those windows are counted.
    """
    top = f"wide[np.uint64(({LOW - 1} + most) * {PART} + m)]"
    s("more = 0")
    s.block(f"for m in range({size}):")
    s(f"{_word(COUNT)} = most", f"more += 1 if {_word(LOW + KEPT - 1)} <= {top} else 0").end()
    s.block(f"for z in range(most, {KEPT}):")
    s.block(f"for m in range({size}):")
    s(f"{_word(COUNT)} += 1.0 if wide[np.uint64(({LOW} + z) * {PART} + m)] <= {top} else 0.0").end(
        2
    )
    s.block("if more > 0:")
    s.block(f"for m in range({LANES} * window):")
    s.block(f"if {_word(LOW + KEPT - 1)} <= {top}:")
    s(f"row = i + min(m % {LANES}, live - 1) * window + m // {LANES}")
    s(f"near = in_{name}[row - window + 1 : row + 1]", "count, last = 0, " + top)
    s("for z in range(len(near)):", "    count += 1 if near[z] <= last else 0")
    s(f"{_word(COUNT)} = count").end(3)


def _values(s: Source, kernel: Kernel, size: str, first: str) -> None:
    """The outputs. With the number of values that are read written out, the compiler unrolls a
    kernel's loops over them and puts rows side by side."""
    s("n = window")
    outs = range(len(kernel.outputs))
    for count in range(1, KEPT):
        s.block(f"{'el' if count > 1 else ''}if most == {count}:")
        s.block(f"for m in range({size}):")
        scope = cpu.parameters(kernel)
        scope.update(
            s=f"wide[{LOW * PART} + m : {COUNT * PART} : {PART}]",
            n="n",
            reach=str(count),
            within=_word(COUNT),
            null="null",
        )
        call = invoke(kernel.functions["value"], "value", scope)
        names = ", ".join(f"v_{n}" for n in outs)
        s(f"{names} = {call}", *(f"{_word(VALUES + n)} = v_{n}" for n in outs)).end(2)
    for n in outs:
        s(f"from_lanes(out_{n}, {first}, wide, {(VALUES + n) * PART}, window)")


def _take(s: Source, rows: int, kept: int, before: str, after: str) -> None:
    """A row joins a stretch: of each value kept and the row the lower stays, the other goes on."""
    s(f"x = {_word(rows)}")
    for r in range(KEPT):
        s(f"c = {_word(kept + r, before)}")
        s(f"{_word(kept + r, after)} = c if c < x else x", "x = x if c < x else c")


def _join(s: Source) -> None:
    """The lowest of both stretches, in order."""
    for r in range(KEPT):
        s(f"x = {_word(FROM + r, f'm + {LANES}')}")
        s(f"c = {_word(UP_TO + KEPT - 1 - r, f'm + {LANES}')}")
        s(f"c_{r} = c if c < x else x")
    half = KEPT // 2
    while half:  # they rise, then fall: the rest of a bitonic sort
        for r in range(KEPT):
            if not r & half:
                s(f"x = c_{r}", f"c = c_{r + half}")
                s(f"c_{r} = c if c < x else x", f"c_{r + half} = x if c < x else c")
        half //= 2
    s(*(f"{_word(LOW + r)} = c_{r}" for r in range(KEPT)))
