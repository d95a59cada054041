"""The CUDA templates of maps: a thread per row, then one per run for the rows that are kept.

A row at a lag is found among the rows of its run or, before them, in the symbol's state, which
``keep`` brings up to date when all rows are done.
"""

from __future__ import annotations

from typing import Any

from gpukern.forms.cpu import Source
from gpukern.forms.cuda import RUN, Loop, Template, column_of, scope_of, under
from gpukern.forms.layout import Layout, invoke, wanted
from gpukern.kernel import Kernel


def template(kernel: Kernel, variant: str, layout: Layout, params: dict[str, Any]) -> Template:
    """The device code of a map variant."""
    names = wanted(kernel, "value")
    prefix = "prev_" if any(n.startswith("prev_") for n in names) else "lag_"
    lagged = [i.name for i in kernel.inputs if prefix + i.name in names]
    lagged += ["t"] if prefix + "t" in names else []
    loop = Loop(kernel, layout)
    kinds = {"run": loop.define("run")}
    s = loop.s
    s("i = cuda.grid(1)", "count = counts[at]")
    s.block("while i < count:")
    scope = scope_of(kernel)
    if variant == "map":
        under(s, "if stride:", f"slot = runs[owner[i] * {RUN}]")
        under(s, "else:", "slot = 0")
        loop.read_parameters("slot")
        loop.emit(invoke(kernel.functions["value"], "value", scope))
    else:
        s(f"entry = owner[i] * {RUN}", "slot = runs[entry]", "lo = runs[entry + 2]")
        s("base = runs[entry + 1] * ss")
        loop.read_parameters("slot")
        fill = _row_lag if variant == "map_rows" else _time_lag
        fill(loop, prefix, lagged, scope)
    s("i += cuda.gridsize(1)").end(2)
    text = "\n".join(s.lines) + "\n"
    if variant != "map":
        keep = _keep_rows if variant == "map_rows" else _keep_times
        more, kinds["keep"] = keep(kernel, layout, prefix, lagged)
        text += "\n\n" + more
    return Template(kernel, variant, text, layout, kinds)


def _row_lag(loop: Loop, prefix: str, lagged: list[str], scope: dict[str, str]) -> None:
    """The value at a lag of k rows: from this run's rows or from the state's ring."""
    s, kernel = loop.s, loop.kernel
    s("k = 1" if prefix == "prev_" else "k = p_k", "back = i - lo - k")
    value = kernel.functions["value"]
    s.block("if back >= 0:")
    scope.update({prefix + c: f"{column_of(c)}[lo + back]" for c in lagged})
    loop.emit(invoke(value, "value", scope))
    s.end()
    s.block("else:")
    s(f"number = {loop.word(0, 'i')} + i - lo")
    s.block("if number >= k:")
    for n, c in enumerate(lagged):
        scope[prefix + c] = loop.word(f"(1 + {n} * k + number % k)", "i" if c == "t" else "f")
    loop.emit(invoke(value, "value", scope))
    s.end()
    s.block("else:")
    loop.emit_null()
    s.end(2)


def _keep_rows(kernel: Kernel, layout: Layout, prefix: str, lagged: list[str]) -> tuple[str, str]:
    """Put the last k rows of every run into the ring."""
    loop = Loop(kernel, layout)
    kinds = loop.define("keep")
    loop.over_runs()
    s = loop.s
    s("k = 1" if prefix == "prev_" else "k = p_k", f"rows = {loop.word(0, 'i')}")
    s("i = max(lo, hi - k)")
    s.block("while i < hi:")
    for n, c in enumerate(lagged):
        word = loop.word(f"(1 + {n} * k + (rows + i - lo) % k)", "i" if c == "t" else "f")
        s(f"{word} = {column_of(c)}[i]")
    s("i += 1").end()
    s(f"{loop.word(0, 'i')} = rows + hi - lo")
    return loop.end_runs(), kinds


def _time_lag(loop: Loop, prefix: str, lagged: list[str], scope: dict[str, str]) -> None:
    """The last row at least p_k before this one: searched in this run, else in the arena."""
    s, kernel = loop.s, loop.kernel
    value = kernel.functions["value"]
    data = [c for c in lagged if c != "t"]
    loop.load()
    s("limit = t[i] - p_k")
    s.block("if t[lo] <= limit:")
    _last_at_most(s, "t[mid]", "lo", "i")
    scope.update({prefix + c: f"{column_of(c)}[first]" for c in lagged})
    loop.emit(invoke(value, "value", scope))
    s.end()
    s.block("elif head < tail and ari[off + head] <= limit:")
    _last_at_most(s, "ari[off + mid]", "head", "tail - 1")
    scope["lag_t"] = "ari[off + first]"
    for n, c in enumerate(data, start=1):
        scope[prefix + c] = f"ar[off + {n} * cap + first]"
    loop.emit(invoke(value, "value", scope))
    s.end()
    s.block("else:")
    loop.emit_null()
    s.end()


def _last_at_most(s: Source, time: str, low: str, high: str) -> None:
    """``first`` = the last place in low…high whose time is at most ``limit`` (low's is)."""
    s(f"first = {low}", f"last = {high}")
    s.block("while first < last:")
    s("mid = (first + last + 1) >> 1")
    under(s, f"if {time} <= limit:", "first = mid")
    under(s, "else:", "last = mid - 1")
    s.end()


def _keep_times(kernel: Kernel, layout: Layout, prefix: str, lagged: list[str]) -> tuple[str, str]:
    """Keep the rows that a later row may point back to."""
    loop = Loop(kernel, layout)
    kinds = loop.define("keep")
    loop.over_runs()
    s = loop.s
    data = [c for c in lagged if c != "t"]
    loop.load()
    s("limit = t[hi - 1] - p_k")
    s.block("if t[lo] <= limit:")
    _last_at_most(s, "t[mid]", "lo", "hi - 1")
    s("live = 0", "begin = first").end()
    s.block("else:")
    under(s, "while head + 1 < tail and ari[off + head + 1] <= limit:", "head += 1")
    # The last of the arena's rows stays only while no row of this run has reached the limit.
    s("live = tail - head", "begin = lo")
    s.block("if head > 0:")
    s("j = 0")
    s.block("while j < live:")
    for n in range(1 + len(data)):
        s(f"ari[off + {n} * cap + j] = ari[off + {n} * cap + head + j]")
    s("j += 1").end(3)
    s("head = 0", "i = begin")
    s.block("while i < hi:")
    s("ari[off + live] = t[i]")
    s(*(f"ar[off + {n} * cap + live] = in_{c}[i]" for n, c in enumerate(data, start=1)))
    s("live += 1", "i += 1").end()
    s("tail = live")
    loop.store()
    return loop.end_runs(), kinds
