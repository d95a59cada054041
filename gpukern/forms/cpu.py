"""The CPU templates: one loop per form, written out as the source of a generated module.

Every module has one function::

    run(runs, par, stride, st, ar, t, <inputs>, <outputs>)

``runs`` holds rows (slot, lo, hi, emit): the rows lo…hi of the dense inputs belong to the symbol
with state row ``slot``, and outputs are written from ``emit`` on (earlier rows only rebuild
state). ``par`` holds the parameters, one row for all symbols (stride 0) or one per slot (stride
1); word 0 is the null of float outputs. Inputs are dense: rows that are missing for this kernel
have been taken out before (``frame.py``), so no template deals with nulls except for warm-up.

Results do not depend on how rows are cut into runs, because every value is a fixed expression of
row numbers: windows are suffix(previous block) ⊕ prefix(current block) with blocks that begin at
multiples of the window (van Herk 1992, Gil & Werman 1993), cumulative folds are base ⊕ partial
with blocks of ``BLOCK`` rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpukern.forms.layout import Layout, invoke, wanted
from gpukern.kernel import Kernel

BLOCK = 128  # rows of a block of a cumulative fold
AHEAD = 8  # symbols: so much earlier what a run will need of its state row is asked for
CHUNK = 256  # rows whose totals are held before they are turned into outputs
MAX_LAGS = {"prev_": 1, "prev2_": 2}
NULL = "-9223372036854775808"  # of outputs that are not floats
NO_ROOMS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Template:
    """A kernel variant ready to be compiled: its source text and its state layout."""

    kernel: Kernel
    variant: str
    text: str
    layout: Layout
    uses_time: bool
    lookback: str  # what rebuilds the state: 'window', 'lag', 'base' (block bases) or 'all'
    row_wise: bool = False  # has ``run_rows``, which needs no grouping (``cpu_rows.py``)
    unread: frozenset[str] = frozenset()  # outputs that the loop may leave out


class Source:
    """Lines of Python with indentation."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0
        self.rooms: list[str] = []

    def __call__(self, *lines: str) -> Source:
        self.lines.extend("    " * self.depth + line for line in lines)
        return self

    def block(self, *lines: str) -> Source:
        """Write the lines and indent what follows."""
        self(*lines)
        self.depth += 1
        return self

    def room(self, name: str, words: str = "0") -> Source:
        """Scratch memory until the end of the loop (``scratch.py``); of no words: for later."""
        self.rooms.append(name)
        return self(f"{name} = scratch({words})")

    def enlarge(self, name: str, words: str) -> Source:
        """Have a room hold so many words or more."""
        self(f"if len({name}) < {words}:")
        return self(f"    release({name})", f"    {name} = scratch({words})")

    def end(self, levels: int = 1) -> Source:
        """Leave ``levels`` blocks."""
        self.depth -= levels
        return self


def template(
    kernel: Kernel, params: dict[str, Any], unread: frozenset[str] = frozenset()
) -> Template:
    """Choose the variant that the parameters call for and write its source.

    ``unread`` are outputs that nobody reads; the loop of a rank may leave them out.
    """
    if kernel.form == "rank":
        from gpukern.forms import cpu_rank

        return cpu_rank.rank(kernel, params, unread)
    return {"map": _map, "fold": _fold, "step": _step}[kernel.form](kernel, params)


def variant_of(kernel: Kernel, params: dict[str, Any], name: str) -> str:
    """'time' if the parameter is a duration, else 'rows'; '' if the kernel has no such one."""
    kinds = {p.name for p in kernel.params}
    if name not in kinds or params[name] is None:
        return ""
    value = params[name]
    samples = list(value.values()) if isinstance(value, dict) else [value]
    return "time" if isinstance(samples[0], str) else "rows"


def excludes_current(kernel: Kernel, params: dict[str, Any]) -> bool:
    """Whether the window of a row ends before the row."""
    return bool(kernel.exclude_current) and not params[kernel.exclude_current]


def _begin(
    kernel: Kernel,
    title: str,
    rooms: Mapping[str, str] = NO_ROOMS,
    ring: Sequence[str] = (),
    others: str = "",
    begin: Sequence[str] = (),
) -> Source:
    """The head of a loop. ``ring``: lines that set ``first, last`` to words of a state row that a
    run of ``size`` rows will need, and others before them.

    ``rooms`` are those of the loop with their words; ``begin`` are lines before all
    runs; ``others`` are the arguments of more kernels that the loop serves.
    """
    s = Source()
    ins = "".join(f", in_{i.name}" for i in kernel.inputs)
    outs = "".join(f", out_{n}" for n in range(len(kernel.outputs)))
    s(f'"""{kernel.name}: {title}. Generated; do not edit."""', "")
    s("@compile_loop")
    s.block(f"def run(runs, par, stride, st, ar, t{ins}{outs}{others}):")
    s("sti = st.view(np.int64)", "pari = par.view(np.int64)", "ari = ar.view(np.int64)")
    for name, words in rooms.items():
        s.room(name, words)
    s("words = st.shape[1]", *begin)
    # With many symbols the state is in memory, not in a cache. To wait for it, a run after the
    # other, would be most of the time: the head of a row is asked for first, then what its run
    # will need of it.
    s.block(f"for r in range({-2 * AHEAD}, runs.shape[0]):")
    s(f"z = r + {2 * AHEAD}")
    s.block("if z < runs.shape[0]:")
    s("will_read(st, runs[z, 0] * words)", "will_read(st, runs[z, 0] * words + 8)").end()
    if ring:
        at = [p.name for p in kernel.params].index("window") + 1
        s(f"z = r + {AHEAD}")
        s.block("if 0 <= z < runs.shape[0]:")
        s("slot = runs[z, 0]")
        s(f"span = pari[slot * stride, {at}]", "size = runs[z, 2] - runs[z, 1]")
        for line in ring:
            s(line)
            if line.startswith("first, last"):
                s("for w in range(first, last, 8):", "    will_read(st, slot * words + w)")
        s.end()
    s("if r < 0:", "    continue")
    s("slot = runs[r, 0]", "lo = runs[r, 1]", "hi = runs[r, 2]", "emit = runs[r, 3]")
    _load_parameters(s, kernel)
    return s


def _load_parameters(s: Source, kernel: Kernel, tag: str = "") -> None:
    """Parameters of the symbol in state row ``slot``."""
    s(f"p{tag} = slot * stride{tag}", f"null{tag} = par{tag}[p{tag}, 0]")
    for n, param in enumerate(kernel.params, start=1):
        table = f"par{tag}" if param.kind == "number" else f"pari{tag}"
        s(f"p{tag}_{param.name} = {table}[p{tag}, {n}]")


def parameters(kernel: Kernel, tag: str = "") -> dict[str, str]:
    """Parameters by name → locals. Kernel names get a prefix so that none can clash with ours."""
    return {p.name: f"p{tag}_{p.name}" for p in kernel.params}


def _scope(kernel: Kernel, row: str, tag: str = "") -> dict[str, str]:
    """Names every scalar function may use, for the row with that index.

    ``tag`` tells apart what belongs to one of several kernels in a loop.
    """
    scope = parameters(kernel, tag)
    scope.update({i.name: f"in_{i.name}[{row}]" for i in kernel.inputs})
    scope["t"] = f"t[{row}]"
    scope["null"] = f"null{tag}"
    return scope


def _uses_time(kernel: Kernel, *functions: str) -> bool:
    return bool(wanted(kernel, *functions) & {"t", "prev_t", "prev2_t", "lag_t"})


def _emit(s: Source, kernel: Kernel, call: str, row: str, tag: str = "") -> None:
    if len(kernel.outputs) == 1:
        s(f"out{tag}_0[{row}] = {call}")
    else:
        s(f"v = {call}")
        s(*(f"out{tag}_{n}[{row}] = v[{n}]" for n in range(len(kernel.outputs))))


def _emit_null(s: Source, kernel: Kernel, row: str, tag: str = "") -> None:
    for n, output in enumerate(kernel.outputs):
        s(f"out{tag}_{n}[{row}] = {f'null{tag}' if output.dtype == 'f64' else NULL}")


def _lags(kernel: Kernel, *functions: str) -> list[tuple[str, list[str]]]:
    """[(prefix, columns)] of the previous rows that the functions use, nearest first."""
    names = wanted(kernel, *functions)
    columns = [i.name for i in kernel.inputs] + ["t"]
    depth = max((MAX_LAGS[p] for n in names for p in MAX_LAGS if n.startswith(p)), default=0)
    used = [c for c in columns if any(p + c in names for p in MAX_LAGS)]
    return [("prev_", used), ("prev2_", used)][:depth]


def _shift(lags: list[tuple[str, list[str]]], row: str) -> list[str]:
    """Lines that make the current row the previous one."""
    lines = []
    for n in range(len(lags) - 1, -1, -1):
        prefix, columns = lags[n]
        for c in columns:
            older = f"{lags[n - 1][0]}{c}" if n else (f"t[{row}]" if c == "t" else f"in_{c}[{row}]")
            lines.append(f"{prefix}{c} = {older}")
    return lines


def _add_lags(layout: Layout, lags: list[tuple[str, list[str]]]) -> None:
    for prefix, columns in lags:
        for c in columns:
            layout.add([f"{prefix}{c}"], "i" if c == "t" else "f")


# ---------------------------------------------------------------------------------------- map


def _map(kernel: Kernel, params: dict[str, Any]) -> Template:
    names = wanted(kernel, "value")
    variant = variant_of(kernel, params, "k") or "rows"
    prefix = "prev_" if any(n.startswith("prev_") for n in names) else "lag_"
    lagged = [i.name for i in kernel.inputs if prefix + i.name in names]
    if prefix + "t" in names:
        lagged.append("t")
    if not lagged:
        return _map_plain(kernel)
    if variant == "time":
        return _map_time(kernel, prefix, lagged)
    return _map_rows(kernel, prefix, lagged)


def _map_plain(kernel: Kernel) -> Template:
    from gpukern.forms import cpu_rows

    s = _begin(kernel, "map")
    s.block("for i in range(lo, hi):")
    _emit(s, kernel, invoke(kernel.functions["value"], "value", _scope(kernel, "i")), "i")
    uses_time = _uses_time(kernel, "value")
    text, row_wise = _text(s), not uses_time and cpu_rows.fits(kernel)
    if row_wise:
        text = cpu_rows.IMPORTS + text + cpu_rows.row_order(kernel)
    return Template(kernel, "map", text, Layout(), uses_time, "lag", row_wise)


def _column(name: str) -> str:
    return "t" if name == "t" else f"in_{name}"


def _map_rows(kernel: Kernel, prefix: str, lagged: list[str]) -> Template:
    layout = Layout()
    layout.add(["rows"], "i")
    fields = len(lagged)
    layout.ring_words = lambda v: fields * (v["k"] if prefix == "lag_" else 1)
    s = _begin(kernel, "map with a lag in rows")
    s("k = 1" if prefix == "prev_" else "k = p_k", *layout.load())
    base = layout.size
    s("head = min(k, hi - lo)")
    s.block("for i in range(lo, lo + head):")
    s("q = (rows + i - lo) % k")
    s.block("if rows + i - lo >= k:")
    scope = _scope(kernel, "i")
    for n, c in enumerate(lagged):
        state = "sti" if c == "t" else "st"
        scope[prefix + c] = f"{state}[slot, {base} + {n} * k + q]"
    s.block("if i >= emit:")
    _emit(s, kernel, invoke(kernel.functions["value"], "value", scope), "i")
    s.end(2)
    s.block("elif i >= emit:")
    _emit_null(s, kernel, "i")
    s.end(2)
    # Parts rather than offsets: the compiler vectorises loops over plain indices only.
    s("first = max(lo + head, emit)")
    inputs = [i.name for i in kernel.inputs] + (["t"] if "t" in wanted(kernel, "value") else [])
    s(*(f"now_{c} = part({_column(c)}, first, hi - first)" for c in inputs))
    s(*(f"old_{c} = part({_column(c)}, first - k, hi - first)" for c in lagged))
    s(*(f"to_{n} = part(out_{n}, first, hi - first)" for n in range(len(kernel.outputs))))
    s.block("for j in range(hi - first):")
    scope = parameters(kernel)
    scope.update({c: f"now_{c}[j]" for c in inputs})
    scope.update({prefix + c: f"old_{c}[j]" for c in lagged})
    call = invoke(kernel.functions["value"], "value", scope)
    if len(kernel.outputs) == 1:
        s(f"to_0[j] = {call}")
    else:
        s(f"v = {call}", *(f"to_{n}[j] = v[{n}]" for n in range(len(kernel.outputs))))
    s.end()
    s.block("for i in range(max(lo, hi - k), hi):")
    s("q = (rows + i - lo) % k")
    for n, c in enumerate(lagged):
        state = "sti" if c == "t" else "st"
        s(f"{state}[slot, {base} + {n} * k + q] = {_column(c)}[i]")
    s.end()
    s("rows += hi - lo", *layout.store())
    return Template(kernel, "map_rows", _text(s), layout, _uses_time(kernel, "value"), "lag")


def _map_time(kernel: Kernel, prefix: str, lagged: list[str]) -> Template:
    layout = Layout()
    layout.add(["off", "cap", "head", "tail"], "i")
    data = [c for c in lagged if c != "t"]
    layout.arena_fields = 1 + len(data)
    s = _begin(kernel, "map with a lag in time")
    s(*layout.load())
    _compact(s, layout.arena_fields)
    s.block("for i in range(lo, hi):")
    s("ari[off + tail] = t[i]")
    for n, c in enumerate(data, start=1):
        s(f"ar[off + {n} * cap + tail] = in_{c}[i]")
    s("tail += 1", "limit = t[i] - p_k")
    s.block("while head + 1 < tail and ari[off + head + 1] <= limit:")
    s("head += 1").end()
    s.block("if i < emit:")
    s("continue").end()
    s.block("if ari[off + head] <= limit:")
    scope = _scope(kernel, "i")
    scope["lag_t"] = "ari[off + head]"
    for n, c in enumerate(data, start=1):
        scope[prefix + c] = f"ar[off + {n} * cap + head]"
    _emit(s, kernel, invoke(kernel.functions["value"], "value", scope), "i")
    s.end()
    s.block("else:")
    _emit_null(s, kernel, "i")
    s.end(2)
    s(*layout.store())
    return Template(kernel, "map_time", _text(s), layout, True, "lag")


def _compact(s: Source, fields: int) -> None:
    """Move the live rows head…tail to the front of the region if the run does not fit behind."""
    s.block("if tail + hi - lo > cap:")
    s.block(f"for f in range({fields}):")
    s.block("for j in range(tail - head):")
    s("ari[off + f * cap + j] = ari[off + f * cap + head + j]")
    s.end(2)
    s("tail -= head", "head = 0").end()


# --------------------------------------------------------------------------------------- step


def _step(kernel: Kernel, params: dict[str, Any]) -> Template:
    layout = Layout()
    layout.add(["rows"], "i")
    fields = kernel.fields["state"]
    layout.add([f"s_{f}" for f in fields])
    lags = _lags(kernel, "step")
    _add_lags(layout, lags)
    ring = kernel.ring
    if ring:
        layout.ring_words = lambda v: v[ring]
    s = _begin(kernel, "step")
    s(*layout.load())
    if ring:
        s(f"ring = part(st, slot * words + {layout.size}, p_{ring})")
    scope = _scope(kernel, "i")
    states = ", ".join(f"s_{f}" for f in fields) + ("," if len(fields) == 1 else "")
    s.block("if rows == 0:")
    s(f"{states} = {invoke(kernel.functions['init'], 'init', scope)}").end()
    scope.update({f: f"s_{f}" for f in fields})
    scope.update({f"{prefix}{c}": f"{prefix}{c}" for prefix, columns in lags for c in columns})
    scope.setdefault("k", f"rows - {len(lags)}")  # a parameter k goes before the row number
    scope["ring"] = "ring"
    s.block("for i in range(lo, hi):")
    if lags:
        s.block(f"if rows < {len(lags)}:")
        s.block("if i >= emit:")
        _emit_null(s, kernel, "i")
        s.end()
        s("rows += 1", *_shift(lags, "i"), "continue").end()
    s(f"new, v = {invoke(kernel.functions['step'], 'step', scope)}")
    s(f"{states} = new")
    s.block("if i >= emit:")
    if len(kernel.outputs) == 1:
        s("out_0[i] = v")
    else:
        s(*(f"out_{n}[i] = v[{n}]" for n in range(len(kernel.outputs))))
    s.end()
    s("rows += 1", *_shift(lags, "i")).end()
    s(*layout.store())
    return Template(kernel, "step", _text(s), layout, _uses_time(kernel, "init", "step"), "all")


# --------------------------------------------------------------------------------------- fold


def _fold(kernel: Kernel, params: dict[str, Any]) -> Template:
    variant = variant_of(kernel, params, "window")
    from gpukern.forms import cpu_fold

    if variant == "rows":
        return cpu_fold.rows(kernel, excludes_current(kernel, params))
    if variant == "time":
        return cpu_fold.time(kernel, excludes_current(kernel, params))
    segmented = "segment" in kernel.functions
    if kernel.segment_by and params[kernel.segment_by] is None:
        segmented = False
    return cpu_fold.cumulative(kernel, segmented)


def _text(s: Source) -> str:
    """The text of a loop."""
    return "\n".join([*s.lines, *(f"    release({name})" for name in s.rooms)]) + "\n"
