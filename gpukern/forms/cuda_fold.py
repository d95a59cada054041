"""The CUDA templates of folds: windows in rows, windows in time, cumulative.

The arithmetic and its order are those of ``cpu_fold``; a thread walks the rows of one run and
emits each as it goes. A cumulative fold has two functions more, for runs that are cut at block
borders: ``summarise`` leaves the sum of every block, ``scan`` absorbs them in order and leaves in
every block's state row the base from which it is emitted. One with segments has a third,
``find_segments``, for what ``device_segments.py`` does with them.
"""

from __future__ import annotations

from typing import Any

from gpukern.forms import cpu
from gpukern.forms.cpu import BLOCK, Source
from gpukern.forms.cpu_fold import Fold, _constants, _kernel_name
from gpukern.forms.cuda import RUN, THREADS, Loop, Template, scope_of, shift, under
from gpukern.forms.cuda_tile import over_tiles
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel

__all__ = ["template"]

MIN_INT = "-9223372036854775808"


class _DeviceFold(Fold):
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
    raw, parts = len(fold.kept), len(fold.acc)

    def entry(j: str, n: int) -> str:
        if n < raw:
            return loop.word(f"({layout.size} + {j} * {raw} + {n})")
        return loop.word(f"({layout.size} + {raw} * span + {j} * {parts} + {n - raw})")

    with loop.apart() as begin:
        begin("span = p_window").block("if rows == 0 and lo < hi:")
        begin(*fold.reset(), "j = 0").block("while j < span:")
        begin(*(f"{entry('j', raw + n)} = {z}" for n, z in enumerate(fold.zero)), "j += 1").end(2)
        fold.skip_rows(loop)
        begin(f"k = rows - {len(fold.lags)}", "o = k % span")
    with loop.apart() as s:
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
        s(*shift(fold.lags))
    with loop.apart() as end:
        end(f"rows = max(rows, k + {len(fold.lags)})")
        loop.store()
    return Template(kernel, variant, over_tiles(loop, begin, s, end), layout, kinds)


def _time(kernel: Kernel, variant: str, layout: Layout, before: bool) -> Template:
    fold = _DeviceFold(kernel, ("value",))
    loop = Loop(kernel, layout)
    kinds = {"run": loop.define("run")}
    raw = len(fold.kept)

    def row_of(n: int, j: str) -> str:
        return f"ar[off + {n} * cap + {j}]"

    def kept(j: str) -> list[str]:
        return [row_of(n, j) for n in range(1, 1 + raw)]

    def suffix(j: str) -> list[str]:
        return [row_of(1 + raw + n, j) for n in range(len(fold.acc))]

    def set_suffix(j: str, values: list[str]) -> list[str]:
        return [f"{to} = {value}" for to, value in zip(suffix(j), values, strict=True)]

    with loop.apart() as begin:
        begin("window = p_window").block("if rows == 0 and lo < hi:")
        begin(f"cell_end = {MIN_INT}", *fold.reset(), *set_suffix("0", fold.zero))
        begin(*(f"c{x} = 0.0" for x in fold.centred)).end()
        fold.skip_rows(loop)
        begin(f"k = rows - {len(fold.lags)}")
    with loop.apart() as s:
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
        s("newer += 1", "k += 1", *shift(fold.lags))
    with loop.apart() as end:
        end(f"rows = max(rows, k + {len(fold.lags)})")
        loop.store()
    return Template(kernel, variant, over_tiles(loop, begin, s, end), layout, kinds)


def _cumulative(kernel: Kernel, variant: str, layout: Layout) -> Template:
    segmented = variant.endswith("segments")
    fold = _DeviceFold(kernel, ("total",), ("segment",) if segmented else ())
    loop = Loop(kernel, layout)
    kinds = {"run": loop.define("run")}
    own = [f"b_{b}" for b in fold.base]
    with loop.apart() as begin:
        under(begin, "if rows == 0:", *_restart(fold))
        fold.skip_rows(loop)
    with loop.apart() as s:
        if segmented:
            s(f"now = {_segment(fold, 'i')}")
            under(s, "if now != period or rows == 0:", "period = now", *_restart(fold))
        close = fold.absorb("o", own, list(fold.acc), "b_")
        under(s, f"if o == {BLOCK}:", *close, *fold.reset(), "o = 0")
        s(*fold.row("i"))
        under(s, "if o == 0:", *(fold.centre() or ["pass"]))
        s(*fold.lift("i"), *fold.prefix())
        s.block("if i >= emit:")
        s(*fold.absorb("o + 1", own, list(fold.acc), "t_"))
        scope = scope_of(kernel)
        scope.update({b: f"t_{b}" for b in fold.base})
        scope.update({x[2:]: x for x in fold.inner_out})
        scope["k"] = "k"
        loop.emit(invoke(kernel.functions["total"], "total", scope))
        s.end()
        s("k += 1", "o += 1", "rows += 1", *shift(fold.lags))
    with loop.apart() as end:
        loop.store()
    text = over_tiles(loop, begin, s, end)
    sums = (("sums", "d"), ("full", "q"))
    chunks = (
        ("cs", "d"),
        ("csi", "q"),
        ("css", "n"),
        ("csw", "n"),
        ("spans", "q"),
        ("chunks", "q"),
    )
    builders: list[tuple[Any, Any]] = [(_summarise, sums), (_scan, (*sums, *chunks))]
    if segmented:
        builders.append((_find_segments, (("firsts", "q"), ("lasts", "q"))))
    for build, extra in builders:
        more = Loop(kernel, layout)
        name = build.__name__[1:]
        kinds[name] = more.define(name, extra)
        text += "\n\n" + build(fold, more, segmented)
    return Template(kernel, variant, text, layout, kinds)


def _restart(fold: _DeviceFold) -> list[str]:
    empty = _constants(fold.kernel, "empty", len(fold.base))
    lines = [f"b_{b} = {e}" for b, e in zip(fold.base, empty, strict=True)]
    return [*lines, *fold.reset(), *(f"c{x} = 0.0" for x in fold.centred), "o = 0", "k = 0"]


def _segment(fold: _DeviceFold, row: str) -> str:
    kernel = fold.kernel
    return invoke(kernel.functions["segment"], "segment", scope_of(kernel, row))


def _summarise(fold: _DeviceFold, loop: Loop, segmented: bool) -> str:
    """The sum of every chunk (a block, or what completes the symbol's open block).

    With segments, the sum of its last one; ``full`` is then twice the rows, odd where one begins.
    """
    width = len(fold.centred) + len(fold.acc)
    begun = ["begun = 0"] if segmented else []
    with loop.apart() as begin:
        under(begin, "if rows == 0:", *_restart(fold))
        _skip_silently(begin, fold)
        begin(*begun)
    with loop.apart() as s:
        if segmented:
            s(f"now = {_segment(fold, 'i')}")
            anew = ["period = now", "begun = 1", *_restart(fold)]
            under(s, "if now != period or rows == 0:", *anew)
        s(*fold.row("i"))
        under(s, "if o == 0:", *(fold.centre() or ["pass"]))
        s(*fold.lift("i"), *fold.prefix())
        s("k += 1", "o += 1", "rows += 1", *shift(fold.lags))
    with loop.apart() as end:
        end("full[entry] = 2 * o + begun" if segmented else "full[entry] = o")
        columns = [*(f"c{x}" for x in fold.centred), *fold.acc]
        end(*(f"sums[entry * {width} + {m}] = {c}" for m, c in enumerate(columns)))
    return over_tiles(loop, begin, s, end)


def _skip_silently(s: Source, fold: _DeviceFold) -> None:
    if fold.lags:
        s.block(f"while i < hi and rows < {len(fold.lags)}:")
        s("rows += 1", *shift(fold.lags), "i += 1").end()


def _find_segments(fold: _DeviceFold, loop: Loop, segmented: bool) -> str:
    """The first and the last row of every window at which a segment begins."""
    s = loop.s
    loop.over_runs()
    names = [name for name, _ in loop.layout.header]
    s("first = -1", "last = -1", f"rows = {loop.word(names.index('rows'), 'i')}")
    s(f"i = max(lo, emit + max({len(fold.lags)} - rows, 0))")
    s.block("if i < hi:")
    under(
        s,
        f"if rows + i - emit > max(rows, {len(fold.lags)}):",
        f"period = {_segment(fold, '(i - 1)')}",
    )
    under(s, "else:", f"period = {loop.word(names.index('period'), 'i')}")
    s.block("while i < hi:")
    s(f"now = {_segment(fold, 'i')}")
    s.block("if now != period or rows + i - emit == 0:")
    s("period = now", "last = i")
    under(s, "if first < 0:", "first = i")
    s.end()
    s("i += 1").end(2)
    s("firsts[entry] = first", "lasts[entry] = last")
    return loop.end_runs()


def _scan(fold: _DeviceFold, loop: Loop, segmented: bool) -> str:
    """Absorb a symbol's sums in order; ``cs`` are the chunks' state rows. A block to a symbol.

    ``spans`` holds per run its first chunk and the one after its last. The order allows one thread
    only; the others bring it a tile of sums at a time and take the bases away.
    """
    s, layout = loop.s, loop.layout
    width = len(fold.centred) + len(fold.acc)
    word = {name: w for w, (name, _) in enumerate(layout.header)}
    columns = [*(f"c{x}" for x in fold.centred), *fold.acc]
    own = [f"b_{b}" for b in fold.base]

    def chunk_word(c: str, name: str, ints: bool = False) -> str:
        return f"{'csi' if ints else 'cs'}[{c} * css + {word[name]} * csw]"

    empty = [
        f"b_{b} = {e}"
        for b, e in zip(fold.base, _constants(fold.kernel, "empty", len(fold.base)), strict=True)
    ]
    s(f"tile_o = cuda.shared.array({THREADS}, np.int64)")
    s(*(f"tile_{name} = cuda.shared.array({THREADS}, np.float64)" for name in [*columns, *own]))
    s("me = cuda.threadIdx.x")
    loop.over_runs(taken_by="block")
    s("first = spans[2 * entry]", "last = spans[2 * entry + 1] - 1")
    s.block(f"if {chunk_word('first', 'rows', True)} == 0:")
    s(*empty).end()
    s.block("else:")
    s(*(f"{b} = {chunk_word('first', b)}" for b in own)).end()
    s.block("while first < last:")
    s("c = first + me")
    s.block("if c < last:")
    # The first chunk may have no rows when the symbol's open block is full already.
    s.block(f"if chunks[{RUN} * c + 2] < chunks[{RUN} * c + 3]:")
    s("tile_o[me] = full[c]")
    s(*(f"tile_{name}[me] = sums[c * {width} + {m}]" for m, name in enumerate(columns))).end()
    s.block("else:")
    s(f"tile_o[me] = {'2 * ' if segmented else ''}{chunk_word('c', 'o', True)}")
    s(*(f"tile_{name}[me] = {chunk_word('c', name)}" for name in columns)).end(2)
    s("cuda.syncthreads()")
    s.block("if me == 0:")
    s("j = 0", "tile = min(last - first, cuda.blockDim.x)")
    s.block("while j < tile:")
    s("o = int(tile_o[j])")
    if segmented:
        under(s, "if o & 1 == 1:", *empty)
        s("o >>= 1")
    s(*(f"{name} = float(tile_{name}[j])" for name in columns))
    # A chunk may have no rows, and a kernel may divide by their number.
    under(s, "if o > 0:", *fold.absorb("o", own, list(fold.acc), "b_"))
    s(*(f"tile_{b}[j] = {b}" for b in own), "j += 1").end(2)
    s("cuda.syncthreads()")
    s.block("if c < last:")
    s(*(f"{chunk_word('(c + 1)', b)} = tile_{b}[me]" for b in own)).end()
    s("first += cuda.blockDim.x").end()
    return loop.end_runs()
