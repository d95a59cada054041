"""The CUDA templates: one thread per run of rows, written out as the source of a generated module.

Every module has a function ``run`` whose leading arguments are those of ``HEAD``::

    counts, at      device counters and which of them says how many runs (map: rows) there are
    owner           the local symbol of every dense row (map only)
    runs            RUN words each: slot, state row, lo, hi, emit – as on the CPU, but the state row
                    may be a scratch one, so that one symbol's rows can be shared by many threads
    par, stride     parameter rows, as on the CPU (``pari`` the same memory as integers)
    st, ss, sw      state words: word w of row r stands at ``r * ss + w * sw``
    ar, t           the arena of duration windows; time

and then the dense inputs and outputs. Arrays are plain pointers: the compiler is told nothing it
does not need, a launch costs little, and the simulator runs the same text on memory views.

What differs from the CPU templates is only what a GPU asks for: maps take a thread per row, no
chunk buffers, no slices. Every value is the same expression of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gpukern.forms import cpu, cpu_fold
from gpukern.forms.cpu import Source
from gpukern.forms.layout import Layout, invoke, wanted
from gpukern.kernel import Kernel

RUN = 5  # words of an entry of ``runs``
INFO = 3  # words about a chunk: is it the symbol's first, the number of its row lo, rows before it
NULL_INT = "-9223372036854775808"
# Argument kinds: q int64*, d float64*, i int32*, u uint32*, b uint8*, n int64; Q and D are arrays,
# which can be sliced.
HEAD = (
    ("counts", "q"), ("at", "n"), ("owner", "i"), ("runs", "q"), ("par", "d"), ("pari", "q"),
    ("stride", "n"), ("st", "d"), ("sti", "q"), ("ss", "n"), ("sw", "n"), ("ar", "d"),
    ("ari", "q"), ("t", "q"),
)  # fmt: skip


@dataclass(frozen=True)
class Template:
    """The device code of a kernel variant: its text and the argument kinds of its functions."""

    kernel: Kernel
    variant: str
    text: str
    layout: Layout
    kinds: dict[str, str] = field(default_factory=dict)


class Loop:
    """One generated device function under construction."""

    def __init__(self, kernel: Kernel, layout: Layout, *, sliced: bool = False) -> None:
        self.kernel = kernel
        self.layout = layout
        self.sliced = sliced
        self.s = Source()

    def define(self, name: str, extra: tuple[tuple[str, str], ...] = ()) -> str:
        """Write the ``def`` line; returns the argument kinds."""
        kernel = self.kernel
        head = list(HEAD)
        if self.sliced:
            arrays = {"st": "D", "sti": "Q", "ar": "D", "ari": "Q"}
            head = [(n, arrays.get(n, kind)) for n, kind in head]
        args = [*head, *((f"in_{i.name}", kind_of(i.dtype)) for i in kernel.inputs)]
        args += [(f"out_{n}", kind_of(o.dtype)) for n, o in enumerate(kernel.outputs)]
        args += extra
        self.s.block(f"def {name}({', '.join(n for n, _ in args)}):")
        return "".join(kind for _, kind in args)

    def over_runs(self) -> None:
        """Begin the loop over runs: entry, parameters."""
        s = self.s
        s("entry = cuda.grid(1)", "entries = counts[at]")
        s.block("while entry < entries:")
        s(f"slot = runs[entry * {RUN}]", f"base = runs[entry * {RUN} + 1] * ss")
        s(*(f"{n} = runs[entry * {RUN} + {w}]" for w, n in ((2, "lo"), (3, "hi"), (4, "emit"))))
        self.read_parameters("slot")
        s.block("if lo < hi:")

    def end_runs(self) -> str:
        """Close the loop; returns the text."""
        s = self.s
        s.end()
        s("entry += cuda.gridsize(1)").end(2)
        return "\n".join(s.lines) + "\n"

    def read_parameters(self, slot: str) -> None:
        """Lines that bind null and the parameters of a symbol."""
        self.s(f"p = {slot} * stride * {1 + len(self.kernel.params)}", "null = par[p]")
        for n, param in enumerate(self.kernel.params, start=1):
            self.s(f"p_{param.name} = {'par' if param.kind == 'number' else 'pari'}[p + {n}]")

    def load(self) -> None:
        """Header words into locals."""
        for w, (name, kind) in enumerate(self.layout.header):
            self.s(f"{name} = {self.word(w, kind)}")

    def store(self) -> None:
        """Locals back into the header."""
        for w, (name, kind) in enumerate(self.layout.header):
            self.s(f"{self.word(w, kind)} = {name}")

    def word(self, w: int | str, kind: str = "f") -> str:
        """A word of the run's state row."""
        return f"{'sti' if kind == 'i' else 'st'}[base + {w} * sw]"

    def emit(self, call: str, row: str = "i") -> None:
        """Write the outputs of a row."""
        if len(self.kernel.outputs) == 1:
            self.s(f"out_0[{row}] = {call}")
        else:
            self.s(f"v = {call}")
            self.s(*(f"out_{n}[{row}] = v[{n}]" for n in range(len(self.kernel.outputs))))

    def emit_null(self, row: str = "i") -> None:
        """Write nulls."""
        for n, output in enumerate(self.kernel.outputs):
            self.s(f"out_{n}[{row}] = {'null' if output.dtype == 'f64' else NULL_INT}")


def under(s: Source, head: str, *body: str) -> None:
    """Lines that belong to a head."""
    s.block(head)
    s(*body).end()


def kind_of(dtype: str) -> str:
    """Pointer kind of an input or output."""
    return "q" if dtype != "f64" else "d"


def scope_of(kernel: Kernel, row: str = "i") -> dict[str, str]:
    """Names every scalar function may use, for a row."""
    scope = cpu.parameters(kernel)
    scope.update({i.name: f"in_{i.name}[{row}]" for i in kernel.inputs})
    scope.update(t=f"t[{row}]", null="null")
    return scope


def shift(lags: Iterable[tuple[str, list[str]]], row: str = "i") -> list[str]:
    """Lines that make the current row the previous one."""
    return cpu._shift(list(lags), row)


def template(host: cpu.Template, params: dict[str, Any]) -> Template:
    """The device code that computes what the CPU template does, on the same state rows."""
    kernel, variant = host.kernel, host.variant
    if kernel.form == "map":
        return _map(kernel, variant, host.layout)
    if kernel.form == "step":
        made = _step(kernel, host.layout)
    elif kernel.form == "rank":
        build = _rank_rows if variant.startswith("rank_rows") else _rank_time
        made = build(kernel, variant, host.layout, cpu.excludes_current(kernel, params))
    else:
        from gpukern.forms import cuda_fold

        made = cuda_fold.template(kernel, variant, host.layout, params)
    text, kinds = _open(kernel, host.layout)
    return replace(made, text=f"{made.text}\n\n{text}", kinds={**made.kinds, "open": kinds})


def _open(kernel: Kernel, layout: Layout) -> tuple[str, str]:
    """Give every chunk of a run its own state row, from which ``run`` continues.

    The first chunk of a symbol takes over the symbol's state (``xs``, ``xa``); the others start
    empty at a row where the rows before no longer matter, or, for steps, as a guess.
    """
    loop = Loop(kernel, layout)
    extra = (("info", "q"), ("room", "q"), ("xs", "q"), ("xss", "n"), ("xsw", "n"), ("xa", "q"),
             ("words", "n"))  # fmt: skip
    kinds = loop.define("open", extra)
    s = loop.s
    s("entry = cuda.grid(1)", "entries = counts[at]")
    s.block("while entry < entries:")
    s(f"slot = runs[entry * {RUN}]", f"base = runs[entry * {RUN} + 1] * ss")
    s(f"lo = runs[entry * {RUN} + 2]")
    loop.read_parameters("slot")
    s.block(f"if info[entry * {INFO}] == 1:")
    s("w = 0")
    s.block("while w < words:")
    s("sti[base + w * sw] = xs[slot * xss + w * xsw]", "w += 1").end(2)
    s.block("else:")
    # Where symbols have windows of their own, some use less than the row, and a snapshot holds it.
    s.block("if stride:")
    s(f"w = {layout.size}")
    under(s, "while w < words:", "sti[base + w * sw] = 0", "w += 1")
    s.end()
    _fresh(loop)
    s.end()
    if layout.arena_fields:
        _move_region(loop)
    s("entry += cuda.gridsize(1)").end(2)
    return "\n".join(s.lines) + "\n", kinds


def _fresh(loop: Loop) -> None:
    """An empty state row for rows from ``lo`` on."""
    kernel, layout = loop.kernel, loop.layout
    at = {name: w for w, (name, _) in enumerate(layout.header)}
    number = f"info[entry * {INFO} + 1]"
    for name, kind in layout.header:
        value = "0" if kind == "i" else "0.0"
        if name == "rows":
            value = number
        elif name == "k":  # a cumulative fold's own row number
            value = f"{number} - {len(cpu._lags(kernel, *kernel.functions))}"
        elif name == "cell_end":
            value = NULL_INT
        elif name.startswith("prev"):
            _previous(loop, name, at)
            continue
        elif name.startswith("m_"):
            zero = kernel.constants.get("zero", (0.0,) * len(kernel.fields["acc"]))
            value = cpu_fold._literal(zero[kernel.fields["acc"].index(name[2:])])
        loop.s(f"{loop.word(at[name], kind)} = {value}")
    if kernel.form == "step":
        names = [f"s_{f}" for f in kernel.fields["state"]]
        call = invoke(kernel.functions["init"], "init", scope_of(kernel))
        loop.s(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {call}")
        loop.s(*(f"{loop.word(at[n])} = {n}" for n in names))


def _previous(loop: Loop, name: str, at: dict[str, int]) -> None:
    """A previous row's word: from this run, or, near its beginning, from the symbol's state."""
    s = loop.s
    prefix = next(p for p in cpu.MAX_LAGS if name.startswith(p))
    column, back = name[len(prefix) :], cpu.MAX_LAGS[prefix]
    word = loop.word(at[name], dict(loop.layout.header)[name])
    ints = loop.word(at[name], "i")
    under(s, f"if info[entry * {INFO} + 2] >= {back}:", f"{word} = {_source(column)}[lo - {back}]")
    if back == 2:
        older = f"xs[slot * xss + {at['prev_' + column]} * xsw]"
        under(s, f"elif info[entry * {INFO} + 2] == 1:", f"{ints} = {older}")
    under(s, "else:", f"{ints} = xs[slot * xss + {at[name]} * xsw]")


def _move_region(loop: Loop) -> None:
    """Room in the chunks' arena; the first chunk brings the symbol's rows along."""
    s, layout = loop.s, loop.layout
    at = {name: w for w, (name, _) in enumerate(layout.header)}
    fields = layout.arena_fields
    s(f"off = room[entry] * {fields}", "cap = room[entry + 1] - room[entry]")
    s.block(f"if info[entry * {INFO}] == 1:")
    s(*(f"{old} = xs[slot * xss + {at[w]} * xsw]" for old, w in (("xoff", "off"), ("xcap", "cap"))))
    ends = ("older", "newer") if "older" in at else ("tail",)
    s("live = min(xcap, 1 + " + " + ".join(loop.word(at[e], "i") for e in ends) + ")")
    s("j = 0")
    s.block("while j < live:")
    s(*(f"ari[off + {f} * cap + j] = xa[xoff + {f} * xcap + j]" for f in range(fields)))
    s("j += 1").end(2)
    s(f"{loop.word(at['off'], 'i')} = off", f"{loop.word(at['cap'], 'i')} = cap")


# ---------------------------------------------------------------------------------------- map


def _map(kernel: Kernel, variant: str, layout: Layout) -> Template:
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


def _source(column: str) -> str:
    return "t" if column == "t" else f"in_{column}"


def _row_lag(loop: Loop, prefix: str, lagged: list[str], scope: dict[str, str]) -> None:
    """The value at a lag of k rows: from this run's rows or from the state's ring."""
    s, kernel = loop.s, loop.kernel
    s("k = 1" if prefix == "prev_" else "k = p_k", "back = i - lo - k")
    value = kernel.functions["value"]
    s.block("if back >= 0:")
    scope.update({prefix + c: f"{_source(c)}[lo + back]" for c in lagged})
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
        s(f"{word} = {_source(c)}[i]")
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
    scope.update({prefix + c: f"{_source(c)}[first]" for c in lagged})
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


# --------------------------------------------------------------------------------------- step


def _step(kernel: Kernel, layout: Layout) -> Template:
    fields = kernel.fields["state"]
    lags = cpu._lags(kernel, "step")
    loop = Loop(kernel, layout, sliced=bool(kernel.ring))
    kinds = {"run": loop.define("run")}
    loop.over_runs()
    s = loop.s
    loop.load()
    if kernel.ring:
        s(f"ring = st[base + {layout.size} : base + {layout.size} + p_{kernel.ring}]")
    scope = scope_of(kernel)
    states = ", ".join(f"s_{f}" for f in fields) + ("," if len(fields) == 1 else "")
    s("i = lo")
    s.block("if rows == 0:")
    s(f"{states} = {invoke(kernel.functions['init'], 'init', scope)}").end()
    scope.update({f: f"s_{f}" for f in fields})
    scope.update({f"{prefix}{c}": f"{prefix}{c}" for prefix, columns in lags for c in columns})
    scope.setdefault("k", f"rows - {len(lags)}")  # a parameter k goes before the row number
    scope["ring"] = "ring"
    s.block("while i < hi:")
    if lags:
        s.block(f"if rows < {len(lags)}:")
        s.block("if i >= emit:")
        loop.emit_null()
        s.end(2)
        s.block("else:")
    s(f"new, v = {invoke(kernel.functions['step'], 'step', scope)}", f"{states} = new")
    s.block("if i >= emit:")
    if len(kernel.outputs) == 1:
        s("out_0[i] = v")
    else:
        s(*(f"out_{n}[i] = v[{n}]" for n in range(len(kernel.outputs))))
    s.end()
    if lags:
        s.end()
    s("rows += 1", *shift(lags), "i += 1").end()
    loop.store()
    return Template(kernel, "step", loop.end_runs(), layout, kinds)


# --------------------------------------------------------------------------------------- rank


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
