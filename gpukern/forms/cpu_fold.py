"""The CPU templates of folds: windows in rows, windows in time, cumulative.

A window that ends at row i of block b is ``suffix(block b−1) ⊕ prefix(block b)``: blocks begin at
multiples of the window, so no window spans more than two. Both parts are taken about one centre,
the first row of block b, which every window ending in b contains; sums of differences from it are
exact for nearby prices, and joining the parts is plain addition. When a block closes, its suffixes
are recomputed about the next centre.

Totals are first gathered for up to ``CHUNK`` rows (a loop of dependent additions) and then turned
into outputs (a loop of independent divisions and roots, which the compiler vectorises).
"""

from __future__ import annotations

from gpukern.forms import cpu, cpu_wide
from gpukern.forms.cpu import BLOCK, CHUNK, Source, Template
from gpukern.forms.layout import Layout, invoke, wanted
from gpukern.kernel import Kernel

# The row in a chunk. A signed index could count from the end; the compiler would not see a stride.
AT = "np.uint64(j)"
SMALL = 256  # words of the rows of a window that are asked for at once
OWED = "owed"  # whether the state lacks the sums of the block before


class Fold:
    """The names a fold template works with, and the lines shared by its three variants."""

    def __init__(
        self, kernel: Kernel, emitters: tuple[str, ...], segment: tuple[str, ...] = ()
    ) -> None:
        self.kernel = kernel
        # Locals of the template that stand for kernel names carry a prefix (m_ accumulator,
        # x_ series, cx_ its centre), so that no kernel name can clash with the template's own.
        self.acc = tuple(f"m_{a}" for a in kernel.fields["acc"])
        self.base = kernel.fields.get("base", ())
        has_inner = "inner" in kernel.functions
        series = kernel.fields["series"] if has_inner else [i.name for i in kernel.inputs]
        self.inner = tuple(f"x_{x}" for x in series)
        self.sources = ("inner",) if has_inner else ("lift",)
        lifted = wanted(kernel, "lift")
        self.centred = [x for x in self.inner if "d" + x[2:] in lifted]
        self.kept = [x for x in self.inner if x[2:] in lifted or "d" + x[2:] in lifted]
        self.lags = cpu._lags(kernel, *self.sources)
        self.emitters = emitters
        names = wanted(kernel, *emitters)
        self.totals = [f"c{x}" for x in self.centred if "c" + x[2:] in names] + list(self.acc)
        self.inner_out = [x for x in self.inner if has_inner and x[2:] in names]
        self.zero = _constants(kernel, "zero", len(self.acc))
        self.uses_time = cpu._uses_time(kernel, "inner", "lift", *emitters)
        made = wanted(kernel, "inner", "lift", *segment)
        shifted = {c for _, columns in self.lags for c in columns}
        self.read = {n for i in kernel.inputs for n in [i.name] if {n, "d" + n} & made} | shifted
        self.row_time = bool({"t"} & (made | shifted))

    def rooms(self, *extra: str) -> dict[str, str]:
        """Chunk buffers for totals."""
        return {f"all_{n}": str(CHUNK) for n in [*self.totals, *self.inner_out, *extra]}

    def slices(self, at: str, length: str) -> list[str]:
        """Lines that cut out what rows are made of: plain indices compile to better loops."""
        columns = [i.name for i in self.kernel.inputs if i.name in self.read]
        lines = [f"a_{c} = part(in_{c}, {at}, {length})" for c in columns]
        if self.row_time:
            lines.append(f"a_t = part(t, {at}, {length})")
        return lines

    def scope(self, index: str) -> dict[str, str]:
        """Names of a row's raw inputs, parameters and time, from the parts."""
        scope = cpu.parameters(self.kernel)
        scope.update({c.name: f"a_{c.name}[{index}]" for c in self.kernel.inputs})
        scope["t"] = f"a_t[{index}]"
        return scope

    def row(self, index: str) -> list[str]:
        """Lines that bind the inner fields of a row to locals."""
        kernel = self.kernel
        if "inner" in kernel.functions:
            scope = self.scope(index)
            scope.update({f"{p}{c}": f"{p}{c}" for p, columns in self.lags for c in columns})
            scope["k"] = "k"
            call = invoke(kernel.functions["inner"], "inner", scope)
            return [f"{', '.join(self.inner)} = {call}"]
        needed = wanted(kernel, "lift")
        used = [x for x in self.inner if x[2:] in needed or "d" + x[2:] in needed]
        return [f"{x} = a_{x[2:]}[{index}]" for x in used]

    def centre(self) -> list[str]:
        """Lines that make the row's inner fields the centre."""
        return [f"c{x} = {x}" for x in self.centred]

    def lift(self, index: str) -> list[str]:
        """Lines that lift the row in locals to ``e_*``."""
        scope = {x[2:]: x for x in self.inner}
        scope.update(cpu.parameters(self.kernel))
        scope.update({f"d{x[2:]}": f"{x} - c{x}" for x in self.centred})
        scope.update({f"{p}{c}": f"{p}{c}" for p, columns in self.lags for c in columns})
        scope.update(k="k", t=f"a_t[{index}]")
        call = invoke(self.kernel.functions["lift"], "lift", scope)
        if len(self.acc) == 1:
            return [f"e_{self.acc[0]} = {call}"]
        return [f"{', '.join('e_' + a for a in self.acc)} = {call}"]

    def join(self, left: list[str], right: list[str], to: list[str]) -> list[str]:
        """Lines for ``to = left ⊕ right``."""
        if "join" not in self.kernel.functions:
            return [f"{o} = {a} + {b}" for o, a, b in zip(to, left, right, strict=True)]
        if len(self.acc) == 1:
            return [f"{to[0]} = join({left[0]}, {right[0]})"]
        return [f"{', '.join(to)} = join(({', '.join(left)}), ({', '.join(right)}))"]

    def prefix(self) -> list[str]:
        """Lines for ``acc = acc ⊕ e``."""
        acc = list(self.acc)
        return self.join(acc, ["e_" + a for a in acc], acc)

    def reset(self) -> list[str]:
        """Lines for ``acc = zero``."""
        return [f"{a} = {z}" for a, z in zip(self.acc, self.zero, strict=True)]

    def keep_totals(self, names: list[str], at: str, to: str = "all_") -> list[str]:
        """Lines that put the joined totals and the centre into the chunk buffers."""
        lines = [f"{to}{c}[{at}] = {c}" for c in self.totals if c not in self.acc]
        lines += [f"{to}{a}[{at}] = {n}" for a, n in zip(self.acc, names, strict=True)]
        return lines + [f"{to}{x}[{at}] = {x}" for x in self.inner_out]

    def emit_scope(self, j: str, row: str) -> dict[str, str]:
        """Names for ``value``/``total`` in the emission loop."""
        scope = cpu._scope(self.kernel, row)
        scope.update({x[2:]: f"all_{x}[{j}]" for x in self.inner_out})
        scope.update({_kernel_name(c): f"all_{c}[{j}]" for c in self.totals})
        return scope

    def shift(self, index: str) -> list[str]:
        """Lines that make the row the previous one."""
        return [
            line.replace("= in_", "= a_").replace("= t[", "= a_t[")
            for line in cpu._shift(self.lags, index)
        ]

    def skip_first_rows(self, s: Source) -> None:
        """Rows that lack previous rows do not exist for the kernel."""
        if not self.lags:
            return
        s.block(f"while lo < hi and rows < {len(self.lags)}:")
        s.block("if lo >= emit:")
        cpu._emit_null(s, self.kernel, "lo")
        s.end()
        s("rows += 1", *cpu._shift(self.lags, "lo"), "lo += 1").end()

    def absorb(
        self,
        n: str,
        bases: list[str],
        accs: list[str],
        to: str,
        centres: dict[str, str] | None = None,
    ) -> list[str]:
        """Lines for ``to = absorb(base, n, centre, acc)``."""
        scope = cpu.parameters(self.kernel)
        scope.update(dict(zip(self.base, bases, strict=True)))
        scope.update({a[2:]: value for a, value in zip(self.acc, accs, strict=True)})
        scope.update({f"c{x[2:]}": (centres or {}).get(x, f"c{x}") for x in self.centred})
        scope["n"] = n
        call = invoke(self.kernel.functions["absorb"], "absorb", scope)
        if len(self.base) == 1:
            return [f"{to}{self.base[0]} = {call}"]
        return [f"{', '.join(to + b for b in self.base)} = {call}"]


def _kernel_name(local: str) -> str:
    """``m_s1`` → ``s1``, ``cx_price`` → ``cprice``."""
    return local[2:] if local.startswith("m_") else "c" + local[3:]


def _constants(kernel: Kernel, name: str, length: int) -> list[str]:
    """The kernel's ``zero`` or ``empty`` as source; zeros if it has none."""
    return [_literal(v) for v in kernel.constants.get(name, (0.0,) * length)]


def _literal(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "np.inf" if value > 0 else "-np.inf"
    return repr(float(value))


def _outputs(kernel: Kernel, call: str) -> list[str]:
    """Lines that put the result of a call into the output slices."""
    if len(kernel.outputs) == 1:
        return [f"to_0[{AT}] = {call}"]
    return [f"v = {call}", *(f"to_{n}[{AT}] = v[{n}]" for n in range(len(kernel.outputs)))]


def _emission(s: Source, fold: Fold, count: str) -> None:
    """Outputs of rows i…i+q−1 from the chunk buffers; ``count`` is the rows in the window."""
    kernel = fold.kernel
    s("begin = max(emit - i, 0)")
    s(*(f"to_{n} = part(out_{n}, i, q)" for n in range(len(kernel.outputs))))
    ins = [x.name for x in kernel.inputs if x.name in wanted(kernel, *fold.emitters)]
    s(*(f"now_{x} = part(in_{x}, i, q)" for x in ins))
    scope = fold.emit_scope(AT, "i + j")
    scope.update({x: f"now_{x}[{AT}]" for x in ins if "x_" + x not in fold.inner_out})
    scope["n"] = "n"
    call = invoke(kernel.functions["value"], "value", scope)

    def outputs() -> None:
        s(*_outputs(kernel, call))

    if count:  # windows in rows: rows of the warm-up one by one, then the steady loop
        s("warm = min(max(span - k, begin), q)")
        s.block("for j in range(begin, warm):")
        s(f"n = {count}")
        s.block("if n < p_min_periods:")
        for m, output in enumerate(kernel.outputs):
            s(f"to_{m}[{AT}] = {'null' if output.dtype == 'f64' else '-9223372036854775808'}")
        s.end()
        s.block("else:")
        outputs()
        s.end(2)
        s("n = span")
        s.block("for j in range(max(warm, begin), q):")
        outputs()
        s.end()
    else:
        s.block("for j in range(begin, q):")
        s(f"n = all_n[{AT}]")
        s.block("if n < p_min_periods:")
        for m, output in enumerate(kernel.outputs):
            s(f"to_{m}[{AT}] = {'null' if output.dtype == 'f64' else '-9223372036854775808'}")
        s.end()
        s.block("else:")
        outputs()
        s.end(2)


def rows(kernel: Kernel, before: bool) -> Template:
    """A window of a number of rows."""
    fold = Fold(kernel, ("value",))
    layout = Layout()
    lazy = not before
    layout.add(["rows", OWED] if lazy else ["rows"], "i")
    layout.add(fold.acc)
    layout.add(f"c{x}" for x in fold.centred)
    cpu._add_lags(layout, fold.lags)
    raw, parts = len(fold.kept), len(fold.acc)
    # Per symbol for each offset in the block: the row, once it has come; then the sum of the rows
    # after it (``before``: from it on) in the block before, the identity until a block has closed.
    layout.ring_words = lambda v: (raw + parts) * v["window"]
    wide = cpu_wide.fits(fold)
    rooms = fold.rooms() | (cpu_wide.ROOMS if wide else {}) | ({"room": "0"} if lazy else {})
    s = cpu._begin(kernel, "fold over a window in rows", rooms, _entry(fold, layout, raw, parts))
    s("span = p_window", *layout.load())
    s(f"ring = part(st, slot * words + {layout.size}, {raw} * span)")
    s(f"kept = part(st, slot * words + {layout.size} + {raw} * span, {parts} * span)")
    s.block("if rows == 0:")
    s(*fold.reset())
    s.block("for j in range(span):")
    s(*(f"kept[j * {parts} + {n}] = {z}" for n, z in enumerate(fold.zero)))
    s.end(2)
    fold.skip_first_rows(s)
    s(f"k = rows - {len(fold.lags)}", "o = k % span", "i = lo", "sums = kept")
    if lazy:
        _owed(s, fold, raw, parts)
    if wide:
        # Whole blocks whose block before is among these rows; the last row is left to the
        # ordinary loop, which leaves the state behind.
        s("blocks = 0", "abreast = lo")
        s.block(f"if hi - lo > {cpu_wide.LEAST} * span:")
        s("abreast += (span - o) % span")
        s(f"least = max(emit, lo + span + {len(fold.lags)})")
        s("abreast += max(least - abreast + span - 1, 0) // span * span")
        s("blocks = max(hi - 1 - abreast, 0) // span")
        s(f"if not {cpu_wide.SHORTEST} <= span <= {cpu_wide.LONGEST} or blocks < {cpu_wide.LEAST}:")
        s("    blocks = 0").end()
    s.block("while i < hi:")
    s("q = 0", f"size = min(hi - i, {CHUNK})")
    if wide:
        s.block("if blocks > 0 and i <= abreast:")
        s.block("if i == abreast:")
        cpu_wide.rows(s, fold, before)
        s("continue").end()
        s("size = min(size, abreast - i)").end()
    s.block("while q < size:")
    s("m = min(span - o, size - q)", *fold.slices("i + q", "m"))
    s.block("if o == 0:")
    s(*fold.row("0"), *fold.centre())
    s.block("if k + q > 0:")
    s(*fold.reset())
    s.block("for j in range(span - 1, -1, -1):")
    save = [f"sums[j * {parts} + {n}] = {a}" for n, a in enumerate(fold.acc)]
    if not before:
        s(*save)
    s(*(f"{x} = ring[j * {raw} + {n}]" for n, x in enumerate(fold.kept)))
    s(*fold.lift("0"))
    s(*fold.join(["e_" + a for a in fold.acc], list(fold.acc), list(fold.acc)))
    if before:
        s(*save)
    s.end(2)
    s(*fold.reset()).end()
    s(f"here = part(ring, o * {raw}, m * {raw})", f"past = part(sums, o * {parts}, m * {parts})")
    s(*(f"to_{n} = part(all_{n}, q, m)" for n in [*fold.totals, *fold.inner_out]))
    s.block("for j in range(m):")
    s(*fold.row("j"), *fold.lift("j"))
    tot = [f"tot_{a}" for a in fold.acc]
    own = [f"past[j * {parts} + {n}]" for n in range(parts)]
    joined = fold.join(own, list(fold.acc), tot)
    s(*(joined + fold.prefix() if before else fold.prefix() + joined))
    s(*fold.keep_totals(tot, "j", "to_"))
    s(*(f"here[j * {raw} + {n}] = {x}" for n, x in enumerate(fold.kept)))
    s(*fold.shift("j")).end()
    s("o += m", "q += m", "if o == span:", "    o = 0").end()
    _emission(s, fold, "min(k + j, span)" if before else "min(k + j + 1, span)")
    s("k += q", "i += q").end()
    s(f"rows = max(rows, k + {len(fold.lags)})")
    s(*layout.store())
    name = "fold_rows" + ("_before" if before else "")
    return Template(kernel, name, cpu._text(s), layout, fold.uses_time, "window")


def _entry(fold: Fold, layout: Layout, raw: int, parts: int) -> list[str]:
    """Lines that set ``first, last`` to words of a state row that a run of ``size`` rows will need.

    If the run makes the sums of the block before again, or a block closes in it: all rows of a
    small window. Else what stands at its first row.
    """
    begin, end = f"{layout.size} + {raw} * span", f"{layout.size} + {raw + parts} * span"
    row, own = f"{layout.size} + at * {raw}", f"{begin} + at * {parts}"
    closes = "(at == 0 or at + size > span)"
    whole = f"size > span // 2 or {closes} or {raw + parts} * span <= {SMALL // 2}"
    rows = f"({layout.size}, {begin}) if ({whole}) and {raw} * span <= {SMALL}"
    rows += f" else ({row}, {row} + min({raw} * size, 32))"
    # Of small rows all is fetched in order, which is quicker than some lines of each.
    whole = f"({closes} and {parts} * span <= {SMALL} or {raw + parts} * span <= {SMALL // 2})"
    sums = f"(0, 0) if size > span // 2 else ({begin}, {end}) if {whole} "
    sums += f"else ({own}, {own} + min({parts} * size, 32))"
    at = f"at = max(sti[slot, 0] - {len(fold.lags)}, 0) % span"
    return [at, f"first, last = {rows}", f"first, last = {sums}"]


def _owed(s: Source, fold: Fold, raw: int, parts: int) -> None:
    """Sums of the block before for this run alone, if it is long enough to be worth it.

    They are most of a state row, and with thousands of symbols the rows go through memory: the
    sums are made again from the rows of the block before, which the ring still has. The state says
    that it lacks them; a run of no rows makes them (``Job.snapshot``).
    """
    acc = [f"u_{a}" for a in fold.acc]
    s("brief = hi - lo <= span // 2")
    s.block(f"if {OWED} != 0 or not brief:")
    s(f"{OWED} = 0 if brief else 1").block("if not brief:")
    s.enlarge("room", f"{parts} * span")("sums = room").end()
    s.block("if k < span:")
    s.block("for j in range(span):")
    s(*(f"sums[j * {parts} + {n}] = {z}" for n, z in enumerate(fold.zero))).end(2)
    s.block("elif o > 0:")
    s(*(f"{a} = {z}" for a, z in zip(acc, fold.zero, strict=True)))
    s.block("for j in range(span - 1, o - 1, -1):")
    s(*(f"sums[j * {parts} + {n}] = {a}" for n, a in enumerate(acc)))
    s(*(f"{x} = ring[j * {raw} + {n}]" for n, x in enumerate(fold.kept)))
    s(*fold.lift("0"), *fold.join(["e_" + a for a in fold.acc], acc, acc)).end(3)


def _suffixes(s: Source, fold: Fold, length: str, start: str = "0") -> None:
    """Suffixes of the closed block (its rows are in ``ring_*``) about the new centre."""
    acc = list(fold.acc)
    s(*(f"{a} = {z}" for a, z in zip(acc, fold.zero, strict=True)))
    s(*(f"keep_{x} = {x}" for x in fold.kept))
    s.block(f"for j in range({length} - 1, {start} - 1, -1):")
    s(*(f"{x} = ring_{x}[j]" for x in fold.kept))
    s(*fold.lift("0"))
    s(*fold.join(["e_" + a for a in acc], acc, acc))
    s(*(f"suf_{a}[j] = {a}" for a in acc)).end()
    s(*(f"{x} = keep_{x}" for x in fold.kept))


def time(kernel: Kernel, before: bool) -> Template:
    """A window of a duration: the blocks are the cells of a grid of that duration from 1970."""
    fold = Fold(kernel, ("value",))
    layout = Layout()
    # The region holds the rows of the cell before (from ``head`` on still in the window) and of
    # this cell: 0 … older … older + newer.
    layout.add(["rows", "off", "cap", "head", "older", "newer", "cell_end"], "i")
    layout.add(fold.acc)
    layout.add(f"c{x}" for x in fold.centred)
    cpu._add_lags(layout, fold.lags)
    raw, parts = len(fold.kept), len(fold.acc)
    layout.arena_fields = 1 + raw + parts
    s = cpu._begin(kernel, "fold over a window in time", fold.rooms("n"))
    s("window = p_window", *layout.load())
    s("times = part(ari, off, cap)")
    for n, x in enumerate(fold.kept, start=1):
        s(f"ring_{x} = part(ar, off + {n} * cap, cap)")
    for n, a in enumerate(fold.acc, start=1 + raw):
        s(f"suf_{a} = part(ar, off + {n} * cap, cap)")
    s.block("if rows == 0:")
    s("cell_end = -9223372036854775808", *fold.reset())
    s(*(f"suf_{a}[0] = {z}" for a, z in zip(fold.acc, fold.zero, strict=True)))
    s(*(f"c{x} = 0.0" for x in fold.centred)).end()
    fold.skip_first_rows(s)
    s(f"k = rows - {len(fold.lags)}", "i = lo")
    s.block("while i < hi:")
    s(f"size = min(hi - i, {CHUNK})", *fold.slices("i", "size"), "clock = part(t, i, size)")
    s.block("for q in range(size):")
    s("now = clock[q]")
    s(*fold.row("q"))
    s.block("if now >= cell_end:")
    s("end = (now // window + 1) * window")
    s.block("if end == cell_end + window:")
    s.block("for j in range(newer):")
    s("times[j] = times[older + j]", *(f"ring_{x}[j] = ring_{x}[older + j]" for x in fold.kept))
    s.end()
    s("older = newer").end()
    s("else:", "    older = 0")
    s("newer = 0", "head = 0", "cell_end = end", *fold.centre())
    _suffixes(s, fold, "older")
    s(*(f"suf_{a}[older] = {z}" for a, z in zip(fold.acc, fold.zero, strict=True)))
    s(*fold.reset()).end()
    s.block("while head < older and times[head] <= now - window:")
    s("head += 1").end()
    s(*fold.lift("q"))
    tot = [f"tot_{a}" for a in fold.acc]
    s("times[older + newer] = now")
    s(*(f"ring_{x}[older + newer] = {x}" for x in fold.kept))
    if before:
        s("all_n[q] = older - head + newer")
        s(*fold.join([f"suf_{a}[head]" for a in fold.acc], list(fold.acc), tot))
        s(*fold.prefix())
    else:
        s("all_n[q] = older - head + newer + 1")
        s(*fold.prefix())
        s(*fold.join([f"suf_{a}[head]" for a in fold.acc], list(fold.acc), tot))
    s("newer += 1", *fold.keep_totals(tot, "q"))
    s(*fold.shift("q")).end()
    s("q = size")
    _emission(s, fold, "")
    s("k += size", "i += size").end()
    s(f"rows = max(rows, k + {len(fold.lags)})", *layout.store())
    name = "fold_time" + ("_before" if before else "")
    return Template(kernel, name, cpu._text(s), layout, True, "window")


def cumulative(kernel: Kernel, segmented: bool) -> Template:
    """All rows so far: base (blocks before) ⊕ partial (this block), restarted by ``segment``."""
    parts = ("segment",) if segmented else ()
    fold = Fold(kernel, ("total",), parts)
    base = fold.base
    fold.totals = list(fold.acc)
    layout = Layout()
    layout.add(["rows", "k", "o"], "i")
    if segmented:
        layout.add(["period"], "i")
    layout.add(f"b_{b}" for b in base)
    layout.add(fold.acc)
    layout.add(f"c{x}" for x in fold.centred)
    cpu._add_lags(layout, fold.lags)
    empty = _constants(kernel, "empty", len(base))
    restart = [f"b_{b} = {e}" for b, e in zip(base, empty, strict=True)]
    restart += [*fold.reset(), *(f"c{x} = 0.0" for x in fold.centred), "o = 0", "k = 0"]
    s = cpu._begin(kernel, "cumulative fold", fold.rooms())
    s(*layout.load())
    s.block("if rows == 0:")
    s(*restart).end()
    fold.skip_first_rows(s)
    s("i = lo")
    s.block("while i < hi:")
    if segmented:
        segment = kernel.functions["segment"]
        s(f"now = {invoke(segment, 'segment', cpu._scope(kernel, 'i'))}")
        s.block("if now != period or rows == 0:")
        s("period = now", *restart).end()
    s.block(f"if o == {BLOCK}:")
    own = [f"b_{b}" for b in base]
    s(*fold.absorb("o", own, list(fold.acc), "b_"), *fold.reset(), "o = 0").end()
    s(f"size = min({BLOCK} - o, hi - i)", *fold.slices("i", "size"))
    if fold.centred:
        s.block("if o == 0:")
        s(*fold.row("0"), *fold.centre()).end()
    s.block("for q in range(size):")
    if segmented:
        s.block(f"if {invoke(segment, 'segment', fold.scope('q'))} != period:")
        s("size = q", "break").end()
    s(*fold.row("q"), *fold.lift("q"), *fold.prefix())
    s("k += 1", *(f"all_{c}[q] = {c}" for c in [*fold.acc, *fold.inner_out]))
    s(*fold.shift("q")).end()
    # The base and the centre are the same for all these rows, so this loop has independent rounds.
    s(*(f"to_{n} = part(out_{n}, i, size)" for n in range(len(kernel.outputs))))
    ins = [x.name for x in kernel.inputs if x.name in wanted(kernel, "total")]
    s(*(f"now_{x} = part(in_{x}, i, size)" for x in ins))
    s.block("for j in range(max(emit - i, 0), size):")
    s(*fold.absorb("o + j + 1", own, [f"all_{a}[{AT}]" for a in fold.acc], "t_"))
    scope = cpu._scope(kernel, "i + j")
    scope.update({x: f"now_{x}[{AT}]" for x in ins})
    scope.update({b: f"t_{b}" for b in base})
    scope.update({x[2:]: f"all_{x}[{AT}]" for x in fold.inner_out})
    scope["k"] = "k - size + j"
    call = invoke(kernel.functions["total"], "total", scope)
    if len(kernel.outputs) == 1:
        s(f"to_0[{AT}] = {call}")
    else:
        s(f"v = {call}", *(f"to_{n}[{AT}] = v[{n}]" for n in range(len(kernel.outputs))))
    s.end()
    s("o += size", "rows += size", "i += size").end()
    s(*layout.store())
    uses_time = fold.uses_time or cpu._uses_time(kernel, "absorb", "total", *parts)
    text = cpu._text(s)
    if not segmented:
        text += _block_sums(fold, layout)
    name = "fold_all" + ("_segments" if segmented else "")
    return Template(kernel, name, text, layout, uses_time, "all")


def _block_sums(fold: Fold, layout: Layout) -> str:
    """Functions that sum whole blocks on their own and absorb the sums in order."""
    kernel, base = fold.kernel, fold.base
    columns = [f"c{x}" for x in fold.centred] + list(fold.acc)
    s = Source()
    s("", f"CENTRES = {[f'c{x}' for x in fold.centred]!r}")
    s(f"ZERO = ({', '.join(fold.zero)},)", "", "", "@compile_loop")
    ins = "".join(f", in_{i.name}" for i in kernel.inputs)
    s.block(f"def summarise(begin, first, last, k, par, t{ins}, sums):")
    s("pari = par.view(np.int64)", "null = par[0, 0]")
    for n, param in enumerate(kernel.params, start=1):
        s(f"p_{param.name} = {'par' if param.kind == 'number' else 'pari'}[0, {n}]")
    s(f"k += first * {BLOCK}")
    s.block("for b in range(first, last):")
    s(f"i = begin + b * {BLOCK}", *fold.slices("i", str(BLOCK)))
    for prefix, names in fold.lags:
        back = cpu.MAX_LAGS[prefix]
        s(*(f"{prefix}{c} = {cpu._column(c)}[i - {back}]" for c in names))
    s(*fold.reset())
    s.block(f"for q in range({BLOCK}):")
    s(*fold.row("q"))
    s("if q == 0:", *(f"    {line}" for line in fold.centre() or ["pass"]))
    s(*fold.lift("q"), *fold.prefix(), "k += 1", *fold.shift("q")).end()
    s(*(f"sums[b, {m}] = {c}" for m, c in enumerate(columns))).end(2)
    s("", "", "@compile_loop")
    s.block("def absorb_blocks(par, st, sums, marks, bases):")
    s("sti = st.view(np.int64)", "pari = par.view(np.int64)", "slot = 0")
    for n, param in enumerate(kernel.params, start=1):
        s(f"p_{param.name} = {'par' if param.kind == 'number' else 'pari'}[0, {n}]")
    s(*layout.load())
    own = [f"b_{b}" for b in base]
    s(*fold.absorb("o", own, list(fold.acc), "b_"))
    s("b = 0")
    s.block("for m in range(len(marks)):")
    s.block("while b < marks[m]:")
    s(*(f"{c} = sums[b, {m}]" for m, c in enumerate(columns)))
    s(*fold.absorb(str(BLOCK), own, list(fold.acc), "b_"))
    s("b += 1").end()
    s(*(f"bases[m, {n}] = b_{b}" for n, b in enumerate(base))).end(2)
    return "\n".join(s.lines) + "\n"
