"""The CUDA templates of ranks: a warp keeps the window of a run in order.

Its lanes hold neighbouring values, so that they read and write neighbouring words: a value goes and
another comes in one pass over what stands between them, every lane deciding for its places from
their neighbours alone. All lanes know the row; the first one computes the outputs.

Rows that leave the window are read where they came from, from the input or, if they came before
these rows, from the state, which is brought up to date when all rows are done.
"""

from __future__ import annotations

from typing import Any

from gpukern.forms import cpu
from gpukern.forms.cpu import Source
from gpukern.forms.cuda import NULL_INT, Loop, Template, scope_of, under
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel

SEARCHED = 128  # a longer window is searched first for what stands between two values
IMPORTS = "from gpukern.order import _bisect, within\n\n\n"


def template(kernel: Kernel, variant: str, layout: Layout, params: dict[str, Any]) -> Template:
    """The device code of a rank variant."""
    build = _rank_rows if variant.startswith("rank_rows") else _rank_time
    return build(kernel, variant, layout, cpu.excludes_current(kernel, params))


def _rank_rows(kernel: Kernel, variant: str, layout: Layout, excluded: bool) -> Template:
    loop = Loop(kernel, layout, sliced=True)
    kinds = {"run": loop.define("run")}
    loop.over_runs(taken_by="warp")
    s = loop.s
    loop.load()
    source = f"in_{kernel.inputs[0].name}"
    ring = f"base + {layout.size}"
    s("window = p_window", f"ring = st[{ring} : {ring} + window]")
    s(f"order = st[{ring} + window : {ring} + 2 * window]", "q = rows % window", "i = lo")
    s.block("while i < hi:")
    s(f"x = {source}[i] + 0.0")
    if excluded:
        _emit_ranked(loop)
    s("old = math.nan")
    s.block("if n + nans >= window:")
    under(s, "if i - lo >= window:", f"old = {source}[i - window] + 0.0")
    under(s, "else:", "old = ring[q]")
    under(s, "if old != old:", "nans -= 1")
    s.end()
    s("size = n", "drop = math.inf", "put = math.inf")
    under(s, "if old == old:", "drop = old", "size -= 1")
    under(s, "if x == x:", "put = x", "size += 1")
    under(s, "else:", "nans += 1")
    _exchange(s)
    s("n = size", "q += 1")
    under(s, "if q == window:", "q = 0")
    if not excluded:
        _emit_ranked(loop)
    s("i += 1").end()
    s("cuda.syncwarp()", "first = max(lo, hi - window)", "i = first + lane")
    s.block("while i < hi:")
    s(f"ring[(rows + i - lo) % window] = {source}[i] + 0.0", "i += lanes").end()
    # A chunk's row is not cleared beforehand, and a snapshot holds all of it.
    s("j = n + lane")
    under(s, "while j < window:", "order[j] = 0.0", "j += lanes")
    s("rows += hi - lo")
    _store(loop)
    return Template(kernel, variant, IMPORTS + loop.end_runs(), layout, kinds)


def _rank_time(kernel: Kernel, variant: str, layout: Layout, excluded: bool) -> Template:
    loop = Loop(kernel, layout, sliced=True)
    kinds = {"run": loop.define("run")}
    loop.over_runs(taken_by="warp")
    s = loop.s
    loop.load()
    source = f"in_{kernel.inputs[0].name}"
    s("window = p_window", "order = ar[off + 2 * cap : off + 3 * cap]", "i = lo")
    # Rows of the window are numbered on from the arena's: row tail is the run's first.
    s.block("while i < hi:")
    s(f"x = {source}[i] + 0.0", "limit = t[i] - window", "gone = 1")
    s.block("while gone == 1 and head < tail + i - lo:")
    s("old = math.nan", "gone = 0")
    s.block("if head < tail:")
    under(s, "if ari[off + head] <= limit:", "gone = 1", "old = ar[off + cap + head]")
    s.end()
    s.block("else:")
    s("row = lo + head - tail")
    under(s, "if t[row] <= limit:", "gone = 1", f"old = {source}[row] + 0.0")
    s.end()
    s.block("if gone == 1:")
    s("head += 1")
    s.block("if old == old:")
    s("size = n - 1", "drop = old", "put = math.inf")
    _exchange(s)
    s("n = size").end()
    under(s, "else:", "nans -= 1")
    s.end(2)
    if excluded:
        _emit_ranked(loop)
    s.block("if x == x:")
    s("size = n + 1", "drop = math.inf", "put = x")
    _exchange(s)
    s("n = size").end()
    under(s, "else:", "nans += 1")
    if not excluded:
        _emit_ranked(loop)
    s("i += 1").end()
    _keep_window(loop, source)
    _store(loop)
    return Template(kernel, variant, IMPORTS + loop.end_runs(), layout, kinds)


def _keep_window(loop: Loop, source: str) -> None:
    """The run's rows that are in the window go behind the arena's, which make room if need be."""
    s = loop.s
    s("cuda.syncwarp()", "first = lo + max(head - tail, 0)", "to = max(head, tail)")
    s.block("if tail + hi - lo > cap:")
    s("live = max(tail - head, 0)", "j = lane")
    s.block("while j - lane < live:")
    s("moment = 0", "old = 0.0")
    under(s, "if j < live:", "moment = ari[off + head + j]", "old = ar[off + cap + head + j]")
    s("cuda.syncwarp()")
    under(s, "if j < live:", "ari[off + j] = moment", "ar[off + cap + j] = old")
    s("j += lanes").end()
    s("head = 0", "to = live").end()
    s("j = lane")
    s.block("while first + j < hi:")
    s("ari[off + to + j] = t[first + j]", f"ar[off + cap + to + j] = {source}[first + j] + 0.0")
    s("j += lanes").end()
    s("tail = to + hi - first")


def _exchange(s: Source) -> None:
    """``drop`` leaves the window of n values in order and ``put`` enters it; infinity is no value.

    Lanes read their places before any writes, and take the next ones in the direction from which
    values move, so that none is read after it was written.
    """
    s("begin = 0", "end = max(n, size)")
    s.block("if put > drop:")
    search = ["begin = _bisect(order, n, drop)", "end = _bisect(order, n, put)"]
    under(s, f"if end > {SEARCHED}:", *search)
    s("j = begin + lane")
    s.block("while j - lane < end:")
    s("new = 0.0", "moved = 0")
    s.block("if j < end:")
    s("here = order[j]")
    s.block("if here >= drop:")
    s("after = math.inf", "moved = 1")
    under(s, "if j + 1 < n:", "after = order[j + 1]")
    s("new = here if here > put else put")
    under(s, "if after < new:", "new = after")
    s.end(2)
    s("cuda.syncwarp()")
    under(s, "if moved == 1:", "order[j] = new")
    s("j += lanes").end(2)
    s.block("elif put < drop:")
    search = ["begin = _bisect(order, n, put)", "end = min(_bisect(order, n, drop) + 1, end)"]
    under(s, f"if end > {SEARCHED}:", *search)
    s("j = end - 1 - lane")
    s.block("while j + lane >= begin:")
    s("new = 0.0", "moved = 0")
    s.block("if j >= begin:")
    s("here = math.inf")
    under(s, "if j < n:", "here = order[j]")
    s.block("if here <= drop:")
    s("before = -math.inf", "moved = 1")
    under(s, "if j > 0:", "before = order[j - 1]")
    s("new = here if here < put else put")
    under(s, "if before > new:", "new = before")
    s.end(2)
    s("cuda.syncwarp()")
    under(s, "if moved == 1:", "order[j] = new")
    s("j -= lanes").end(2)
    s("cuda.syncwarp()")


def _store(loop: Loop) -> None:
    """One lane writes the header when all have read it."""
    loop.s("cuda.syncwarp()").block("if lane == 0:")
    loop.store()
    loop.s.end()


def _emit_ranked(loop: Loop) -> None:
    """Outputs from the sorted window: null before warm-up, NaN while it holds a NaN."""
    s, kernel = loop.s, loop.kernel
    scope = scope_of(kernel)
    scope.update({"s": "order", "n": "n", kernel.inputs[0].name: "x"})
    if "reach" in kernel.functions:
        reach = invoke(kernel.functions["reach"], "reach", scope)
        scope.update(reach=reach, within=f"within(order, n, {reach})")
    s.block("if lane == 0 and i >= emit:")
    s.block("if n + nans < p_min_periods:")
    loop.emit_null()
    s.end()
    s.block("elif nans > 0:")
    for m, output in enumerate(kernel.outputs):
        s(f"out_{m}[i] = {'math.nan' if output.dtype == 'f64' else NULL_INT}")
    s.end()
    s.block("else:")
    loop.emit(invoke(kernel.functions["value"], "value", scope))
    s.end(2)
