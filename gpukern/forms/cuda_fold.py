"""The CUDA templates of folds: windows in rows, windows in time, cumulative.

The arithmetic and its order are those of ``cpu_fold``; a thread walks the rows of one run and
emits each as it goes. A cumulative fold has two functions more, for runs that are cut at block
borders: ``summarise`` leaves the sum of every block, ``scan`` absorbs them in order, one thread
per symbol, and leaves in every block's state row the base from which it is emitted.
"""

from __future__ import annotations

from typing import Any

from gpukern.forms import cpu
from gpukern.forms.cpu import BLOCK, Source
from gpukern.forms.cpu_fold import _constants, _Fold, _kernel_name
from gpukern.forms.cuda import RUN, Loop, Template, scope_of, shift, under
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel

__all__ = ["template"]

MIN_INT = "-9223372036854775808"


class _DeviceFold(_Fold):
    """The lines of a fold with rows read straight from the input columns."""

    def scope(self, index: str) -> dict[str, str]:
        scope = scope_of(self.kernel, index)
        del scope["null"]
        return scope

    def row(self, index: str) -> list[str]:
        return [line.replace(" a_", " in_") for line in super().row(index)]

    def lift(self, index: str) -> list[str]:
        return [line.replace("a_t[", "t[") for line in super().lift(index)]

    def skip_rows(self, loop: Loop) -> None:
        """Rows that lack previous rows do not exist for the kernel."""
        if not self.lags:
            return
        s = loop.s
        s.block(f"while i < hi and rows < {len(self.lags)}:")
        s.block("if i >= emit:")
        loop.emit_null()
        s.end()
        s("rows += 1", *shift(self.lags), "i += 1").end()

    def value(self, loop: Loop, totals: list[str]) -> None:
        """Outputs of row i of a window with ``n`` rows and these totals."""
        s, kernel = loop.s, self.kernel
        scope = scope_of(kernel)
        scope.update({x[2:]: x for x in self.inner_out})
        scope.update({_kernel_name(c): c for c in self.totals if c not in self.acc})
        scope.update({a[2:]: total for a, total in zip(self.acc, totals, strict=True)})
        scope["n"] = "n"
        s.block("if i >= emit:")
        s.block("if n < p_min_periods:")
        loop.emit_null()
        s.end()
        s.block("else:")
        loop.emit(invoke(kernel.functions["value"], "value", scope))
        s.end(2)


def template(kernel: Kernel, variant: str, layout: Layout, params: dict[str, Any]) -> Template:
    """The device code of a fold variant."""
    before = cpu.excludes_current(kernel, params)
    if variant.startswith("fold_rows"):
        return _rows(kernel, variant, layout, before)
    if variant.startswith("fold_time"):
        return _time(kernel, variant, layout, before)
    return _cumulative(kernel, variant, layout)


def _totals(fold: _DeviceFold, own: list[str], before: bool) -> tuple[list[str], list[str]]:
    """Names of the joined totals, and the lines that take the row in and join."""
    tot = [f"tot_{a}" for a in fold.acc]
    joined = fold.join(own, list(fold.acc), tot)
    return tot, (joined + fold.prefix() if before else fold.prefix() + joined)


def _rows(kernel: Kernel, variant: str, layout: Layout, before: bool) -> Template:
    fold = _DeviceFold(kernel, ("value",))
    loop = Loop(kernel, layout)
    kinds = {"run": loop.define("run")}
    loop.over_runs()
    s = loop.s
    raw, parts = len(fold.kept), len(fold.acc)
    width = raw + parts

    def entry(j: str, n: int) -> str:
        return loop.word(f"({layout.size} + {j} * {width} + {n})")

    s("span = p_window", "i = lo")
    loop.load()
    s.block("if rows == 0:")
    s(*fold.reset(), "j = 0")
    s.block("while j < span:")
    s(*(f"{entry('j', raw + n)} = {z}" for n, z in enumerate(fold.zero)), "j += 1").end(2)
    fold.skip_rows(loop)
    s(f"k = rows - {len(fold.lags)}", "o = k % span")
    s.block("while i < hi:")
    s(*fold.row("i"))
    s.block("if o == 0:")
    s(*fold.centre())
    s.block("if k > 0:")
    s(*(f"keep_{x} = {x}" for x in fold.kept), *fold.reset(), "j = span - 1")
    s.block("while j >= 0:")
    save = [f"{entry('j', raw + n)} = {a}" for n, a in enumerate(fold.acc)]
    if not before:
        s(*save)
    s(*(f"{x} = {entry('j', n)}" for n, x in enumerate(fold.kept)), *fold.lift("i"))
    s(*fold.join(["e_" + a for a in fold.acc], list(fold.acc), list(fold.acc)))
    if before:
        s(*save)
    s("j -= 1").end()
    s(*(f"{x} = keep_{x}" for x in fold.kept)).end()
    s(*fold.reset()).end()
    s(*fold.lift("i"))
    tot, lines = _totals(fold, [entry("o", raw + n) for n in range(parts)], before)
    s(*lines, "n = min(k, span)" if before else "n = min(k + 1, span)")
    fold.value(loop, tot)
    s(*(f"{entry('o', n)} = {x}" for n, x in enumerate(fold.kept)))
    s("k += 1", "o += 1")
    under(s, "if o == span:", "o = 0")
    s(*shift(fold.lags), "i += 1").end()
    s(f"rows = max(rows, k + {len(fold.lags)})")
    loop.store()
    return Template(kernel, variant, loop.end_runs(), layout, kinds)


def _time(kernel: Kernel, variant: str, layout: Layout, before: bool) -> Template:
    fold = _DeviceFold(kernel, ("value",))
    loop = Loop(kernel, layout)
    kinds = {"run": loop.define("run")}
    loop.over_runs()
    s = loop.s
    raw = len(fold.kept)

    def row_of(n: int, j: str) -> str:
        return f"ar[off + {n} * cap + {j}]"

    def kept(j: str) -> list[str]:
        return [row_of(n, j) for n in range(1, 1 + raw)]

    def suffix(j: str) -> list[str]:
        return [row_of(1 + raw + n, j) for n in range(len(fold.acc))]

    def set_suffix(j: str, values: list[str]) -> list[str]:
        return [f"{to} = {value}" for to, value in zip(suffix(j), values, strict=True)]

    s("window = p_window", "i = lo")
    loop.load()
    s.block("if rows == 0:")
    s(f"cell_end = {MIN_INT}", *fold.reset(), *set_suffix("0", fold.zero))
    s(*(f"c{x} = 0.0" for x in fold.centred)).end()
    fold.skip_rows(loop)
    s(f"k = rows - {len(fold.lags)}")
    s.block("while i < hi:")
    s("now = t[i]", *fold.row("i"))
    s.block("if now >= cell_end:")
    s("end = (now // window + 1) * window")
    s.block("if end == cell_end + window:")
    s("j = 0")
    s.block("while j < newer:")
    s("ari[off + j] = ari[off + older + j]")
    s(*(f"{a} = {b}" for a, b in zip(kept("j"), kept("(older + j)"), strict=True)))
    s("j += 1").end()
    s("older = newer").end()
    under(s, "else:", "older = 0")
    s("newer = 0", "head = 0", "cell_end = end", *fold.centre(), *fold.reset())
    s(*(f"keep_{x} = {x}" for x in fold.kept), "j = older - 1")
    s.block("while j >= 0:")
    s(*(f"{x} = {at}" for x, at in zip(fold.kept, kept("j"), strict=True)), *fold.lift("i"))
    s(*fold.join(["e_" + a for a in fold.acc], list(fold.acc), list(fold.acc)))
    s(*set_suffix("j", list(fold.acc)), "j -= 1").end()
    s(*(f"{x} = keep_{x}" for x in fold.kept), *set_suffix("older", fold.zero), *fold.reset())
    s.end()
    under(s, "while head < older and ari[off + head] <= now - window:", "head += 1")
    s(*fold.lift("i"), "ari[off + older + newer] = now")
    s(*(f"{at} = {x}" for x, at in zip(fold.kept, kept("(older + newer)"), strict=True)))
    tot, lines = _totals(fold, suffix("head"), before)
    s(*lines, "n = older - head + newer" + ("" if before else " + 1"))
    fold.value(loop, tot)
    s("newer += 1", "k += 1", *shift(fold.lags), "i += 1").end()
    s(f"rows = max(rows, k + {len(fold.lags)})")
    loop.store()
    return Template(kernel, variant, loop.end_runs(), layout, kinds)


def _cumulative(kernel: Kernel, variant: str, layout: Layout) -> Template:
    segmented = variant.endswith("segments")
    fold = _DeviceFold(kernel, ("total",), ("segment",) if segmented else ())
    loop = Loop(kernel, layout)
    kinds = {"run": loop.define("run")}
    loop.over_runs()
    s = loop.s
    s("i = lo")
    loop.load()
    s.block("if rows == 0:")
    s(*_restart(fold)).end()
    fold.skip_rows(loop)
    s.block("while i < hi:")
    if segmented:
        s(f"now = {invoke(kernel.functions['segment'], 'segment', scope_of(kernel))}")
        s.block("if now != period or rows == 0:")
        s("period = now", *_restart(fold)).end()
    own = [f"b_{b}" for b in fold.base]
    s.block(f"if o == {BLOCK}:")
    s(*_absorb(fold, "o", own, list(fold.acc), "b_"), *fold.reset(), "o = 0").end()
    s(*fold.row("i"))
    under(s, "if o == 0:", *(fold.centre() or ["pass"]))
    s(*fold.lift("i"), *fold.prefix())
    s.block("if i >= emit:")
    s(*_absorb(fold, "o + 1", own, list(fold.acc), "t_"))
    scope = scope_of(kernel)
    scope.update({b: f"t_{b}" for b in fold.base})
    scope.update({x[2:]: x for x in fold.inner_out})
    scope["k"] = "k"
    loop.emit(invoke(kernel.functions["total"], "total", scope))
    s.end()
    s("k += 1", "o += 1", "rows += 1", *shift(fold.lags), "i += 1").end()
    loop.store()
    text = loop.end_runs()
    if not segmented:
        sums = (("sums", "d"), ("full", "q"))
        for build in (_summarise, _scan):
            more = Loop(kernel, layout)
            name = build.__name__[1:]
            extra = sums if build is _summarise else (*sums, ("cs", "d"), ("csi", "q"),
                ("css", "n"), ("csw", "n"), ("spans", "q"), ("chunks", "q"))  # fmt: skip
            kinds[name] = more.define(name, extra)
            text += "\n\n" + build(fold, more)
    return Template(kernel, variant, text, layout, kinds)


def _restart(fold: _DeviceFold) -> list[str]:
    empty = _constants(fold.kernel, "empty", len(fold.base))
    lines = [f"b_{b} = {e}" for b, e in zip(fold.base, empty, strict=True)]
    return [*lines, *fold.reset(), *(f"c{x} = 0.0" for x in fold.centred), "o = 0", "k = 0"]


def _absorb(fold: _DeviceFold, n: str, bases: list[str], accs: list[str], to: str) -> list[str]:
    from gpukern.forms.cpu_fold import _absorb as absorb

    return absorb(fold, fold.kernel.functions["absorb"], n, bases, accs, to)


def _summarise(fold: _DeviceFold, loop: Loop) -> str:
    """The sum of every chunk (a block, or what completes the symbol's open block)."""
    s = loop.s
    width = len(fold.centred) + len(fold.acc)
    loop.over_runs()
    s("i = lo")
    loop.load()
    s.block("if rows == 0:")
    s(*_restart(fold)).end()
    _skip_silently(s, fold)
    s.block("while i < hi:")
    s(*fold.row("i"))
    under(s, "if o == 0:", *(fold.centre() or ["pass"]))
    s(*fold.lift("i"), *fold.prefix())
    s("k += 1", "o += 1", "rows += 1", *shift(fold.lags), "i += 1").end()
    s("full[entry] = o")
    columns = [*(f"c{x}" for x in fold.centred), *fold.acc]
    s(*(f"sums[entry * {width} + {m}] = {c}" for m, c in enumerate(columns)))
    return loop.end_runs()


def _skip_silently(s: Source, fold: _DeviceFold) -> None:
    if fold.lags:
        s.block(f"while i < hi and rows < {len(fold.lags)}:")
        s("rows += 1", *shift(fold.lags), "i += 1").end()


def _scan(fold: _DeviceFold, loop: Loop) -> str:
    """Absorb a symbol's sums in order; ``cs`` are the chunks' state rows.

    ``spans`` holds per run its first chunk and the one after its last.
    """
    s, layout = loop.s, loop.layout
    width = len(fold.centred) + len(fold.acc)
    loop.over_runs()
    s("first = spans[2 * entry]", "last = spans[2 * entry + 1]")
    word = {name: w for w, (name, _) in enumerate(layout.header)}

    def chunk_word(c: str, name: str, ints: bool = False) -> str:
        return f"{'csi' if ints else 'cs'}[{c} * css + {word[name]} * csw]"

    empty = _constants(fold.kernel, "empty", len(fold.base))
    s.block(f"if {chunk_word('first', 'rows', True)} == 0:")
    s(*(f"b_{b} = {e}" for b, e in zip(fold.base, empty, strict=True))).end()
    s.block("else:")
    s(*(f"b_{b} = {chunk_word('first', f'b_{b}')}" for b in fold.base)).end()
    s("c = first")
    s.block("while c + 1 < last:")
    s(f"from_row = chunks[{RUN} * c + 2]", f"to_row = chunks[{RUN} * c + 3]")
    # The first chunk may have no rows when the symbol's open block is full already.
    s.block("if from_row < to_row:")
    s("o = full[c]")
    columns = [*(f"c{x}" for x in fold.centred), *fold.acc]
    s(*(f"{name} = sums[c * {width} + {m}]" for m, name in enumerate(columns))).end()
    s.block("else:")
    s(f"o = {chunk_word('c', 'o', True)}")
    s(*(f"{name} = {chunk_word('c', name)}" for name in columns)).end()
    own = [f"b_{b}" for b in fold.base]
    s(*_absorb(fold, "o", own, list(fold.acc), "b_"), "c += 1")
    s(*(f"{chunk_word('c', f'b_{b}')} = b_{b}" for b in fold.base)).end()
    return loop.end_runs()
