"""Windows of which only the lowest few values matter, without keeping the rest in order.

The lowest values of a window are among the lowest of two stretches that meet at some row: the rows
up to it that are still in the window, and those after it. Each stretch grows by a row at a time,
which takes a minimum and a maximum for each value kept; joining two of them takes half a sorting
network. A run is cut into blocks that go abreast as in ``cpu_wide``, each beside the window before
it; short runs of as many symbols go abreast whole. Order statistics are values of the window, so
the bits are those of the sorted window.

The window is not in order afterwards. NaN in the place of its lowest value says so (``UNSORTED``);
whoever needs the order makes it from the ring (``StepState.dump`` too).
"""

from __future__ import annotations

from gpukern.forms import cpu
from gpukern.forms.cpu import Source
from gpukern.forms.cpu_wide import LONGEST, PART, SHORTEST
from gpukern.forms.lanes import LANES
from gpukern.forms.layout import invoke, wanted
from gpukern.kernel import Kernel

KEPT = LANES  # values, so that a row's are one square's side
ROWS, BEFORE, UP_TO, FROM, LOW, COUNT = 0, 1, 2, 2 + KEPT, 2 + 2 * KEPT, 2 + 3 * KEPT
VALUES = COUNT + 1  # of each output
LEAST = 2 * LANES  # rows of a run; with fewer, most of the time goes into the window before it
ROOMS = {"wide": "0", "line": "0", "places": str(LANES)}
BEGIN = ["firsts = places.view(np.int64)", "past = 0"]
UNSORTED = "kept[0] != kept[0]"


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


def told(kernel: Kernel, unread: frozenset[str]) -> list[int]:
    """The outputs that somebody reads."""
    return [n for n, output in enumerate(kernel.outputs) if output.name not in unread]


def together(s: Source, kernel: Kernel, ring: int, unread: frozenset[str]) -> None:
    """Lines at the head of a run: it and the next go abreast, a symbol in each lane, if they can.

    Most of the time for a short run goes into the window before it, which then is walked through
    once instead of once for each lane. ``ring`` is where a state's window begins.
    """
    name = kernel.inputs[0].name
    s("if r < past:", "    continue")
    within = f"{SHORTEST} <= window <= {LONGEST}"
    s.block(f"if r % {LANES} == 0 and r + {LANES} <= runs.shape[0] and stride == 0 and {within}:")
    s(f"most = {reach(kernel)}", f"odd = 0 if most < {KEPT} else 1", "length = total = 0")
    s.block(f"for z in range(r, r + {LANES}):")
    s("size = runs[z, 2] - runs[z, 1]", "total += size", "length = max(length, size)")
    s("whole = sti[runs[z, 0], 0] >= window and sti[runs[z, 0], 1] == window")
    s("odd += 0 if whole and runs[z, 3] == runs[z, 1] else 1").end()
    s.block(f"if odd == 0 and {LANES * SHORTEST} <= total and length <= window:")
    _room(s, kernel)
    s(f"length = max(length, {LANES})", "width = window + length")
    # In each line of ``width`` the window before, oldest first, and the rows; the last is repeated.
    s.block(f"for z in range({LANES}):")
    s("at, size = z * width, runs[r + z, 2] - runs[r + z, 1]")
    s(f"before = part(st, runs[r + z, 0] * words + {ring}, window)")
    s("q = sti[runs[r + z, 0], 0] % window")
    s("move(line, at, before, q, window - q)", "move(line, at + window - q, before, 0, q)")
    s("at += window", "x = 0.0", f"now = part(in_{name}, runs[r + z, 1], size)")
    s("for j in range(size):", "    x = now[j] + 0.0", "    odd += 1 if x != x else 0")
    s("    line[at + j] = x", "for j in range(size, length):", "    line[at + j] = x").end()
    s.block("if odd == 0:")
    s(*(f"firsts[{lane}] = {lane} * width + window" for lane in range(LANES)))
    s(f"abreast({arguments(kernel)})")
    s.block(f"for z in range({LANES}):")
    s("slot, at, size = runs[r + z, 0], z * width + window, runs[r + z, 2] - runs[r + z, 1]")
    s("q = sti[slot, 0] % window", "first = min(size, window - q)")
    s(f"before = part(st, slot * words + {ring}, window)")
    s("move(before, q, line, at, first)", "move(before, 0, line, at + first, size - first)")
    s(f"st[slot, {ring} + window] = np.nan", "sti[slot, 0] += size").end()
    starts = ", ".join(f"{lane} * width" for lane in range(LANES))
    for n in told(kernel, unread):
        s(f"from_lanes(line, {starts}, wide, {(VALUES + n) * PART}, length)")
        s.block(f"for z in range({LANES}):")
        s("size = runs[r + z, 2] - runs[r + z, 1]")
        s(f"move(out_{n}, runs[r + z, 1], line, z * width, size)").end()
    s(f"past = r + {LANES}", "continue").end(3)


def start(s: Source, kernel: Kernel) -> None:
    """Lines before the rows: ``attempt`` is the row from which on they go abreast, −1 if none."""
    s("attempt = -1")
    s.block(f"if {SHORTEST} <= window <= {LONGEST}:")
    s(f"most = {reach(kernel)}", "first = max(lo + max(window - 1 - rows, 0), emit)")
    s(f"if most < {KEPT} and hi - first >= {LEAST}:", "    attempt = first").end()
    # Rows of a window that is not full need no order if they are told as null.
    s.block("if nans == 0 and rows == n and rows < window - 1 and p_min_periods >= window:")
    s("kept[0] = np.nan").block("while i < hi and rows < window - 1:")
    s(f"x = in_{kernel.inputs[0].name}[i] + 0.0", "if x != x:", "    break")
    s("ring[rows] = x", "rows += 1", "n += 1").block("if i >= emit:")
    cpu._emit_null(s, kernel, "i")
    s.end()
    s("i += 1").end()
    s("q = rows").end()


def rows(s: Source, kernel: Kernel, unread: frozenset[str]) -> None:
    """The rows from ``i`` = ``attempt`` on, up to a NaN if there is one."""
    name = kernel.inputs[0].name
    firsts = [f"min({lane} * length, size - length)" for lane in range(LANES)]
    s("attempt = -1")
    # Of the window before, its oldest row is in no other row's window: it may as well be missing.
    s.block("if n == window or rows == n == window - 1:")
    _room(s, kernel)
    # A line: the window before, oldest first, and the rows.
    s("move(line, 0, ring, q, window - q)", "move(line, window - q, ring, 0, q)")
    s(f"rounds = (hi - i + {LANES} * window - 1) // ({LANES} * window)", "odd = 0")
    s.block("while i < hi and odd == 0:")
    s("size = (hi - i + rounds - 1) // rounds", f"now = part(in_{name}, i, size)")
    s.block("for j in range(size):")
    s("x = now[j] + 0.0", "odd += 1 if x != x else 0", "line[window + j] = x").end()
    s.block("if odd == 0:")
    s(f"length = max((size + {LANES - 1}) // {LANES}, {LANES})")
    s(*(f"firsts[{lane}] = window + {first}" for lane, first in enumerate(firsts)))
    s(f"abreast({arguments(kernel)})")
    to = ", ".join(f"firsts[{lane}] - window + i" for lane in range(LANES))
    for n in told(kernel, unread):
        s(f"from_lanes(out_{n}, {to}, wide, {(VALUES + n) * PART}, length)")
    s("i += size", "rows += size", "n = window", "rounds -= 1")
    s("move(line, 0, line, size, window)").end(2)
    s("q = rows % window")
    s("move(ring, q, line, 0, window - q)", "move(ring, 0, line, window - q, q)")
    s("kept[0] = np.nan", "ready = False").end()


def _room(s: Source, kernel: Kernel) -> None:
    s.enlarge("wide", str((VALUES + len(kernel.outputs)) * PART))
    s.enlarge("line", str(2 * LANES * LONGEST))


def arguments(kernel: Kernel) -> str:
    """Of the function ``abreast``."""
    own = "".join(f", p_{p.name}" for p in kernel.params if p.name != "window")
    return f"wide, line, firsts, length, window, most, null{own}"


def function(kernel: Kernel, unread: frozenset[str]) -> str:
    """The text of ``abreast``: the outputs of rows in lanes, side by side in parts of ``wide``.

    The rows of each lane begin at ``firsts`` in ``line``, where the window is before them.
    """
    s = Source()
    s("@compile_loop")
    s.block(f"def abreast({arguments(kernel)}):")
    s("p_window = window")
    rows = ", ".join(f"firsts[{lane}]" for lane in range(LANES))
    older = ", ".join(f"firsts[{lane}] - window" for lane in range(LANES))
    s(f"to_lanes(wide, {ROWS * PART}, line, {rows}, length)")
    s(f"to_lanes(wide, {BEFORE * PART}, line, {older}, window)")
    s(f"lowest_from(wide, {BEFORE * PART}, {FROM * PART}, {PART}, window, length)")
    counts = not unread.issuperset(kernel.counting)
    joined = f"{FROM * PART}, {LOW * PART}, {UP_TO * PART if counts else -1}, {PART}"
    s(f"lowest_joined(wide, {ROWS * PART}, {joined}, length)")
    if counts:
        _count(s)
    _values(s, kernel, told(kernel, unread))
    return "\n".join([*s.lines, "", "", ""])


def _count(s: Source) -> None:
    """How many values of each row's window are not above the last that is read.

    Prices have ticks: it may have more equals than are kept. They are among the lowest of both
    stretches, unless one has that many itself; then the window is counted.
    """
    top = f"wide[np.uint64(({LOW - 1} + most) * {PART} + m)]"
    after = f"m + {LANES}"
    stretches = [_word(part + r, after) for part in (FROM, UP_TO) for r in range(KEPT)]
    full = [f"({_word(part + KEPT - 1, after)} <= last)" for part in (FROM, UP_TO)]
    s("more = 0")
    s.block(f"for m in range({LANES} * length):")
    s(f"last = {top}", "count = 0.0")
    s(*(f"count += 1.0 if {value} <= last else 0.0" for value in stretches))
    s(f"odd = {' | '.join(full)}")
    s(f"{_word(COUNT)} = -1.0 if odd else count", "more += 1 if odd else 0").end()
    # Such rows follow each other; then the row that comes and the one that goes are enough.
    s.block("if more > 0:")
    s(f"before, own = scratch({LANES}), scratch({2 * LANES})", "integers = own.view(np.int64)")
    s(f"counted, found = part(integers, 0, {LANES}), part(integers, {LANES}, {LANES})")
    s(f"for lane in range({LANES}):", "    counted[lane] = -1")
    s.block(f"for m in range({LANES} * length):")
    s.block(f"if {_word(COUNT)} < 0.0:")
    s(f"last, lane = {top}, m % {LANES}", f"first = firsts[lane] - window + m // {LANES} + 1")
    s.block(f"if m >= {LANES} and counted[lane] == m - {LANES} and last == before[lane]:")
    s("found[lane] += 1 if line[first + window - 1] <= last else 0")
    s("found[lane] -= 1 if line[first - 1] <= last else 0").end()
    s.block("else:")
    s("near = part(line, first, window)", "many = 0")
    s("for z in range(len(near)):", "    many += 1 if near[z] <= last else 0")
    s("found[lane] = many").end()
    s("counted[lane], before[lane] = m, last", f"{_word(COUNT)} = found[lane]").end(2)
    s("release(before)", "release(own)").end()


def _values(s: Source, kernel: Kernel, read: list[int]) -> None:
    """The outputs that are read. With the number of values that are read written out, the compiler
    unrolls a kernel's loops over them, finds each value's place and puts rows side by side."""
    outs = range(len(kernel.outputs))
    for count in range(1, KEPT):
        s.block(f"{'el' if count > 1 else ''}if most == {count}:")
        s.block(f"for m in range({LANES} * length):")
        scope = cpu.parameters(kernel)
        low = f"({', '.join(_word(LOW + r) for r in range(KEPT))})"
        scope.update(s=low, n="window", reach=str(count), within=_word(COUNT), null="null")
        call = invoke(kernel.functions["value"], "value", scope)
        names = ", ".join(f"v_{n}" for n in outs)
        s(f"{names} = {call}", *(f"{_word(VALUES + n)} = v_{n}" for n in read)).end(2)
