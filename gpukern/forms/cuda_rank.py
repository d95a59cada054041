"""The CUDA templates of ranks: every thread keeps the window of its run in order."""

from __future__ import annotations

from typing import Any

from gpukern.forms import cpu
from gpukern.forms.cuda import NULL_INT, Loop, Template, scope_of, under
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel


def template(kernel: Kernel, variant: str, layout: Layout, params: dict[str, Any]) -> Template:
    """The device code of a rank variant."""
    build = _rank_rows if variant.startswith("rank_rows") else _rank_time
    return build(kernel, variant, layout, cpu.excludes_current(kernel, params))


def _rank_rows(kernel: Kernel, variant: str, layout: Layout, excluded: bool) -> Template:
    loop = Loop(kernel, layout, sliced=True)
    kinds = {"run": loop.define("run")}
    loop.over_runs()
    s = loop.s
    loop.load()
    ring = f"base + {layout.size}"
    s("window = p_window", f"ring = st[{ring} : {ring} + window]")
    s(f"kept = st[{ring} + window : {ring} + 2 * window]", "q = rows % window", "i = lo")
    s.block("while i < hi:")
    s(f"x = in_{kernel.inputs[0].name}[i] + 0.0")
    if excluded:
        _emit_ranked(loop, "kept")
    s("full = n + nans >= window", "old = ring[q]")
    under(s, "if full and old == old and x == x:", "exchange(kept, n, old, x)")
    s.block("else:")
    s.block("if full:")
    under(s, "if old == old:", "remove(kept, n, old)", "n -= 1")
    under(s, "else:", "nans -= 1")
    s.end()
    under(s, "if x == x:", "insert(kept, n, x)", "n += 1")
    under(s, "else:", "nans += 1")
    s.end()
    s("ring[q] = x", "rows += 1", "q += 1")
    under(s, "if q == window:", "q = 0")
    if not excluded:
        _emit_ranked(loop, "kept")
    s("i += 1").end()
    # A chunk's row is not cleared beforehand, and a snapshot holds all of it.
    s("j = n")
    under(s, "while j < window:", "kept[j] = 0.0", "j += 1")
    loop.store()
    text = "from gpukern.order import exchange, insert, remove\n\n\n" + loop.end_runs()
    return Template(kernel, variant, text, layout, kinds)


def _rank_time(kernel: Kernel, variant: str, layout: Layout, excluded: bool) -> Template:
    loop = Loop(kernel, layout, sliced=True)
    kinds = {"run": loop.define("run")}
    loop.over_runs()
    s = loop.s
    loop.load()
    s("window = p_window")
    s.block("if tail + hi - lo > cap:")
    s("j = 0")
    s.block("while j < tail - head:")
    s(*(f"ari[off + {f} * cap + j] = ari[off + {f} * cap + head + j]" for f in range(2)))
    s("j += 1").end()
    s("tail -= head", "head = 0").end()
    s("ring = ar[off + cap : off + 2 * cap]", "order = ar[off + 2 * cap : off + 3 * cap]", "i = lo")
    s.block("while i < hi:")
    s(f"x = in_{kernel.inputs[0].name}[i] + 0.0")
    s.block("while head < tail and ari[off + head] <= t[i] - window:")
    s("old = ring[head]")
    under(s, "if old == old:", "remove(order, n, old)", "n -= 1")
    under(s, "else:", "nans -= 1")
    s("head += 1").end()
    if excluded:
        _emit_ranked(loop, "order")
    s("ari[off + tail] = t[i]", "ring[tail] = x", "tail += 1")
    under(s, "if x == x:", "insert(order, n, x)", "n += 1")
    under(s, "else:", "nans += 1")
    if not excluded:
        _emit_ranked(loop, "order")
    s("i += 1").end()
    loop.store()
    text = "from gpukern.order import insert, remove\n\n\n" + loop.end_runs()
    return Template(kernel, variant, text, layout, kinds)


def _emit_ranked(loop: Loop, window: str) -> None:
    """Outputs from the sorted window: null before warm-up, NaN while it holds a NaN."""
    s, kernel = loop.s, loop.kernel
    scope = scope_of(kernel)
    scope.update({"s": window, "n": "n", kernel.inputs[0].name: "x"})
    s.block("if i >= emit:")
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
