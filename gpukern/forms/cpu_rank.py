"""The CPU template of ranks: a window kept in ascending order, and outputs computed from it.

Kernels that look at the same window of the same rows share the work of keeping it in order: one
loop serves them all (``shared``). It keeps the first one's state; the states of the others hold the
same words whenever someone looks (``Job.settle``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gpukern.forms import cpu, cpu_lowest
from gpukern.forms.cpu import Source, Template
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel

USED = "SCAN, exchange, insert, put_in_order, remove, replace, within"
IMPORTS = f"from gpukern.order import {USED}\n\n"
ROWS, ROWS_BEFORE = "rank_rows", "rank_rows_before"


def rank(kernel: Kernel, params: dict[str, Any], unread: frozenset[str] = frozenset()) -> Template:
    """The loop of one kernel over a window in rows or in time; it may leave out those outputs."""
    variant = cpu.variant_of(kernel, params, "window")
    excluded = cpu.excludes_current(kernel, params)
    layout = Layout()
    if variant == "rows":
        layout.add(["rows", "n", "nans"], "i")
        layout.ring_words = lambda v: 2 * v["window"]
        s = _rows({"": (kernel, excluded)}, layout, unread)
    else:
        layout.add(["off", "cap", "head", "tail", "n", "nans"], "i")
        layout.arena_fields = 3
        s = _time(kernel, layout, excluded)
    name = f"rank_{variant}" + ("_before" if excluded else "")
    uses_time = variant == "time" or cpu._uses_time(kernel, "value")
    text = cpu._text(s)
    if "abreast(" in text:
        text = cpu_lowest.function(kernel, unread) + text
    else:
        unread = frozenset()  # this loop leaves nothing out
    return Template(kernel, name, IMPORTS + text, layout, uses_time, "window", unread=unread)


def shared(templates: Sequence[Template]) -> Template:
    """One loop for kernels over the same window in rows: the first one's arguments, then of each
    other ``par, stride`` and its outputs."""
    members = {
        str(n or ""): (template.kernel, template.variant == ROWS_BEFORE)
        for n, template in enumerate(templates)
    }
    s = _rows(members, templates[0].layout)
    kernels = {tag: kernel for tag, (kernel, _) in members.items()}
    together = replace(
        templates[0].kernel,
        name="_".join(kernel.name for kernel in kernels.values()),
        functions={
            f"{name}{tag}": kernel.functions[name]
            for tag, kernel in kernels.items()
            for name in ("value", "reach")
            if name in kernel.functions
        },
    )
    return replace(
        templates[0],
        kernel=together,
        variant="rank_rows_shared",
        text=IMPORTS + cpu._text(s),
        uses_time=any(template.uses_time for template in templates),
    )


def _rows(
    members: dict[str, tuple[Kernel, bool]], layout: Layout, unread: frozenset[str] = frozenset()
) -> Source:
    """The loop over a window in rows, for kernels by tag and whether they exclude the row.

    The first keeps the window in its state. ``unread`` are outputs that rows abreast leave out.
    """
    kernel, _ = members[""]
    others = {tag: kernel for tag, (kernel, _) in members.items() if tag}
    base = layout.size
    ring = f"{base} + span, {base} + 2 * span"
    views = [f"pari{tag} = par{tag}.view(np.int64)" for tag in others]
    lowest = not others and not members[""][1] and cpu_lowest.fits(kernel)
    if lowest:  # which needs the window in order for few rows only
        ring = f"({base}, {base} + span) if size >= {cpu_lowest.SHORTEST} else ({ring})"
    rooms = {"room": "0"} | (cpu_lowest.ROOMS if lowest else {})
    begin = views + (cpu_lowest.BEGIN if lowest else [])
    title, first_last = "rank over a window in rows", [f"first, last = {ring}"]
    s = cpu._begin(kernel, title, rooms, first_last, _arguments(others), begin)
    for tag, other in others.items():
        cpu._load_parameters(s, other, tag)
    s("window = p_window")
    if lowest:
        cpu_lowest.together(s, kernel, base, unread)
    s(*layout.load())
    s(f"ring = part(st, slot * words + {base}, window)")
    s(f"kept = part(st, slot * words + {base} + window, window)")
    # The sorted window lives between two sentinels, so that replacing a value is one pass
    # without a branch per element. It is made ready when a row needs it.
    s.enlarge("room", "window + 2")
    s("work = part(room, 0, window + 2)", "order = part(work, 1, window + 1)", "ready = False")
    s("q = rows % window", "i = lo")
    if lowest:
        cpu_lowest.start(s, kernel)
    s.block("while i < hi:")
    if lowest:
        s.block("if i == attempt:")
        cpu_lowest.rows(s, kernel, unread)
        s("continue").end()
    s.block("if not ready:")
    s("ready = True", "work[0] = -np.inf", "work[n + 1] = np.inf")
    s(f"if n > 0 and {cpu_lowest.UNSORTED}:", "    put_in_order(ring, n, kept)")
    s("for j in range(n):", "    work[j + 1] = kept[j]").end()
    _read(s, kernel)
    for tag, (member, excluded) in members.items():
        if excluded:
            _emit(s, member, tag)
    s.block("if rows >= window and nans == 0 and x == x:")
    s("if window <= SCAN:", "    replace(work, n, ring[q], x)")
    s("else:", "    exchange(order, n, ring[q], x)").end()
    s.block("else:")
    s.block("if rows >= window:")
    s("old = ring[q]", "if old == old:", "    remove(order, n, old)", "    n -= 1")
    s("else:", "    nans -= 1").end()
    _insert(s)
    s("order[n] = np.inf").end()
    s("ring[q] = x", "rows += 1", "q += 1", "if q == window:", "    q = 0")
    for tag, (member, excluded) in members.items():
        if not excluded:
            _emit(s, member, tag)
    s("i += 1").end()
    s.block("if ready:")
    s("for j in range(window):", "    kept[j] = work[j + 1] if j < n else 0.0").end()
    s(*layout.store())
    return s


def _arguments(others: dict[str, Kernel]) -> str:
    parts = []
    for tag, kernel in others.items():
        parts += [f"par{tag}", f"stride{tag}"]
        parts += [f"out{tag}_{n}" for n in range(len(kernel.outputs))]
    return "".join(f", {part}" for part in parts)


def _time(kernel: Kernel, layout: Layout, excluded: bool) -> Source:
    """The loop over a window in time."""
    s = cpu._begin(kernel, "rank over a window in time")
    s("window = p_window", *layout.load())
    cpu._compact(s, 2)
    s("ring = part(ar, off + cap, cap)", "order = part(ar, off + 2 * cap, cap)")
    s.block("for i in range(lo, hi):")
    _read(s, kernel)
    s.block("while head < tail and ari[off + head] <= t[i] - window:")
    s("old = ring[head]", "if old == old:", "    remove(order, n, old)", "    n -= 1")
    s("else:", "    nans -= 1", "head += 1").end()
    if excluded:
        _emit(s, kernel)
    s("ari[off + tail] = t[i]", "ring[tail] = x", "tail += 1")
    _insert(s)
    if not excluded:
        _emit(s, kernel)
    s.end()
    s(*layout.store())
    return s


def _read(s: Source, kernel: Kernel) -> None:
    s(f"x = in_{kernel.inputs[0].name}[i] + 0.0  # -0.0 and 0.0 are one value in an order")


def _insert(s: Source) -> None:
    s("if x == x:", "    insert(order, n, x)", "    n += 1", "else:", "    nans += 1")


def _emit(s: Source, kernel: Kernel, tag: str = "") -> None:
    """Outputs from the sorted window: null before warm-up, NaN while it holds a NaN."""
    scope = cpu._scope(kernel, "i", tag)
    scope.update({"s": "order", "n": "n", kernel.inputs[0].name: "x"})
    if "reach" in kernel.functions:
        reach = invoke(kernel.functions["reach"], f"reach{tag}", scope)
        scope.update(reach=reach, within=f"within(order, n, {reach})")
    s.block("if i >= emit:")
    s.block(f"if n + nans < p{tag}_min_periods:")
    cpu._emit_null(s, kernel, "i", tag)
    s.end()
    s.block("elif nans > 0:")
    for m, output in enumerate(kernel.outputs):
        s(f"out{tag}_{m}[i] = {'np.nan' if output.dtype == 'f64' else '-9223372036854775808'}")
    s.end()
    s.block("else:")
    cpu._emit(s, kernel, invoke(kernel.functions["value"], f"value{tag}", scope), "i", tag)
    s.end(2)
