"""The CUDA templates: a thread or a warp per run of rows, written as a generated module's source.

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

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from gpukern.forms import cpu, cpu_fold
from gpukern.forms.cpu import Source
from gpukern.forms.layout import Layout, invoke
from gpukern.kernel import Kernel

RUN = 5  # words of an entry of ``runs``
THREADS = 128  # of a block; fewer in the simulator
LANES = 32  # threads of a warp
INFO = 4  # words about a chunk: is it the symbol's first, the number of its row lo, rows before it
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
        self.stride = ""
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

    def over_runs(self, *, taken_by: str = "thread") -> None:
        """Begin the loop over runs: entry, parameters. A run takes a thread, a warp or a block."""
        s = self.s
        if taken_by == "warp":  # blocks of the simulator are shorter than one
            s(f"lanes = min({LANES}, cuda.blockDim.x)", "lane = cuda.threadIdx.x % lanes")
        first, self.stride = {
            "thread": ("cuda.grid(1)", "cuda.gridsize(1)"),
            "warp": ("cuda.grid(1) // lanes", "cuda.gridsize(1) // lanes"),
            "block": ("cuda.blockIdx.x", "cuda.gridDim.x"),
        }[taken_by]
        s(f"entry = {first}", "entries = counts[at]")
        s.block("while entry < entries:")
        self.read_run()
        self.read_parameters("slot")
        s.block("if lo < hi:")

    def read_run(self) -> None:
        """Lines that bind what the table says of a run."""
        s = self.s
        s(f"slot = runs[entry * {RUN}]", f"base = runs[entry * {RUN} + 1] * ss")
        s(*(f"{n} = runs[entry * {RUN} + {w}]" for w, n in ((2, "lo"), (3, "hi"), (4, "emit"))))

    @contextmanager
    def apart(self) -> Iterator[Source]:
        """Lines written in here are kept apart from the function's."""
        own, self.s = self.s, Source()
        try:
            yield self.s
        finally:
            self.s = own

    def end_runs(self) -> str:
        """Close the loop; returns the text."""
        s = self.s
        s.end()
        s(f"entry += {self.stride}").end(2)
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


def column_of(name: str) -> str:
    """The array that holds an input, or time."""
    return "t" if name == "t" else f"in_{name}"


def shift(lags: Iterable[tuple[str, list[str]]], row: str = "i") -> list[str]:
    """Lines that make the current row the previous one."""
    return cpu._shift(list(lags), row)


def template(host: cpu.Template, params: dict[str, Any]) -> Template:
    """The device code that computes what the CPU template does, on the same state rows."""
    form: Any = import_module(f"gpukern.forms.cuda_{host.kernel.form}")
    made: Template = form.template(host.kernel, host.variant, host.layout, params)
    if host.kernel.form == "map":
        return made
    text, kinds = _open(host.kernel, host.layout)
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
        elif name == "k" and "period" in at:  # of a segment
            value = f"info[entry * {INFO} + 3]"
        elif name == "k":  # a cumulative fold's own row number
            value = f"{number} - {len(cpu._lags(kernel, *kernel.functions))}"
        elif name == "period":
            _period(loop, at[name])
            continue
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


def _period(loop: Loop, w: int) -> None:
    """The segment of the row before: of this run, or the symbol's."""
    s, kernel = loop.s, loop.kernel
    now = invoke(kernel.functions["segment"], "segment", scope_of(kernel, "(lo - 1)"))
    lags = len(cpu._lags(kernel, *kernel.functions))
    # Rows that only fill the lags belong to no segment.
    there = f"info[entry * {INFO} + 2] > 0 and info[entry * {INFO} + 1] > {lags}"
    under(s, f"if {there}:", f"{loop.word(w, 'i')} = {now}")
    under(s, "else:", f"{loop.word(w, 'i')} = xs[slot * xss + {w} * xsw]")


def _previous(loop: Loop, name: str, at: dict[str, int]) -> None:
    """A previous row's word: from this run, or, near its beginning, from the symbol's state."""
    s = loop.s
    prefix = next(p for p in cpu.MAX_LAGS if name.startswith(p))
    column, back = name[len(prefix) :], cpu.MAX_LAGS[prefix]
    word = loop.word(at[name], dict(loop.layout.header)[name])
    ints = loop.word(at[name], "i")
    under(
        s, f"if info[entry * {INFO} + 2] >= {back}:", f"{word} = {column_of(column)}[lo - {back}]"
    )
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
    places = ["j"] * fields
    if "older" in at:
        s(f"live = min(xcap, 1 + {loop.word(at['older'], 'i')} + {loop.word(at['newer'], 'i')})")
    else:
        # Rows before the head stay behind. The last field is the window in order, which has none.
        head, tail = loop.word(at["head"], "i"), loop.word(at["tail"], "i")
        s(f"head = {head}", f"live = {tail} - head", f"{head} = 0", f"{tail} = live")
        places[:-1] = ["head + j"] * (fields - 1)
    s("j = 0")
    s.block("while j < live:")
    s(*(f"ari[off + {f} * cap + j] = xa[xoff + {f} * xcap + {p}]" for f, p in enumerate(places)))
    s("j += 1").end(2)
    s(f"{loop.word(at['off'], 'i')} = off", f"{loop.word(at['cap'], 'i')} = cap")
