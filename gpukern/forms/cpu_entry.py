"""Compiled loops called from compiled code, by address.

Every loop has arguments of its own. An *entry* takes one pointer, to a line of words that say where
the loop's arguments are, so that one compiled function can call loop after loop (``tape.py``).
Entries depend on nothing but the number and types of a loop's
inputs and outputs: many kernels share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba import typeof
from numba.core import cgutils, types
from numba.extending import intrinsic

from gpukern import codegen
from gpukern.forms import cpu_play as word
from gpukern.forms.cpu import Source
from gpukern.kernel import Kernel


def load(kernels: Sequence[Kernel], *, in_rows: bool) -> Any:
    """The entry of a kernel's loop, or of the one that several share (``cpu_rank.shared``);
    ``in_rows``: of the loop in row order."""
    if in_rows:
        name = f"rows_{shape(kernels)}"
        return codegen.load_entry(name, text_in_row_order(kernels[0]), IN_ROWS)
    return codegen.load_entry(shape(kernels), text(kernels), LOOP)


def shape(kernels: Sequence[Kernel]) -> str:
    """The types of inputs and of each kernel's outputs: the name of the entry."""
    ins = "".join("i" if i.dtype == "i64" else "f" for i in kernels[0].inputs)
    outs = ["".join("f" if o.dtype == "f64" else "i" for o in k.outputs) for k in kernels]
    return "_".join([ins or "none", *outs])


def width(kernels: Sequence[Kernel]) -> int:
    """The words of an entry's line, in whichever order it takes the rows."""
    bitmaps = len(kernels[0].outputs)
    return max(others(kernels) + 4 * (len(kernels) - 1), others(kernels[:1]) + bitmaps)


def others(kernels: Sequence[Kernel]) -> int:
    """Where in the line parameters (address, shape) and stride of all kernels but the first are."""
    return word.FIRST + len(kernels[0].inputs) + sum(len(k.outputs) for k in kernels)


def text(kernels: Sequence[Kernel]) -> str:
    """The source of the entry of all loops with these inputs and outputs."""
    s = Source()
    s(f'"""Entry of loops {shape(kernels)}. Generated; do not edit."""', "")
    _head(s, kernels)
    s(f"found, count, width = row[{word.FOUND}], row[{word.COUNT}], row[{word.WIDTH}]")
    s(f"runs = carray(words_at(row[{word.RUNS}]), (found, 4))")
    s(f"st = carray(floats_at(row[{word.STATE}]), (row[{word.STATES}], width))")
    s(f"ar = carray(floats_at(row[{word.ARENA}]), (row[{word.ARENAS}],))")
    s(f"t = carray(words_at(row[{word.TIME}]), (row[{word.TIMES}],))")
    given = ["runs", "par", f"row[{word.STRIDE}]", "st", "ar", "t"]
    given += _columns(s, kernels[0], " + 1", word.FIRST)
    at = word.FIRST + len(kernels[0].inputs) + len(kernels[0].outputs)
    own = others(kernels)
    for n, kernel in enumerate(kernels[1:], start=1):
        s(f"par_{n} = carray(floats_at(row[{own}]), (row[{own + 1}], row[{own + 2}]))")
        given += [f"par_{n}", f"row[{own + 3}]"]
        for m, output in enumerate(kernel.outputs):
            s(_column(f"o_{n}_{m}", output.dtype, at + m, " + 1"))
            given.append(f"o_{n}_{m}")
        at += len(kernel.outputs)
        own += 4
    s(f"call_loop(row[{word.LOOP}], ({', '.join(given)}))")
    return "\n".join(s.lines) + "\n"


def text_in_row_order(kernel: Kernel) -> str:
    """The same of loops in row order (``cpu_rows.py``)."""
    s = Source()
    s(f'"""Entry of loops in row order, {shape([kernel])}. Generated; do not edit."""', "")
    _head(s, [kernel])
    s(f"count = row[{word.COUNT}]")
    given = ["par", f"row[{word.ABSENT}]", *_columns(s, kernel, "", word.FIRST)]
    at = others([kernel])
    for n in range(len(kernel.outputs)):
        s(f"b_{n} = carray(bytes_at(row[{at + n}]), ((count + 7) // 8,))")
        given.append(f"b_{n}")
    s(f"nulls = carray(words_at(row[{word.NULLS}]), ({len(kernel.outputs)},))")
    s(f"call_loop(row[{word.LOOP}], ({', '.join(given)}, nulls))")
    return "\n".join(s.lines) + "\n"


def _head(s: Source, kernels: Sequence[Kernel]) -> None:
    s("@compile_entry")
    s.block("def entry(at):")
    s(f"row = carray(at, ({width(kernels)},))")
    s(f"par = carray(floats_at(row[{word.PAR}]), (row[{word.PARS}], row[{word.FIELDS}]))")


def _columns(s: Source, kernel: Kernel, more: str, at: int) -> list[str]:
    """Inputs and outputs; an output has ``more`` elements than there are rows."""
    kinds = [(c.dtype, "") for c in kernel.inputs] + [(o.dtype, more) for o in kernel.outputs]
    for n, (dtype, rest) in enumerate(kinds):
        # Of inputs only i64 is not of floats, of outputs only f64 is.
        floats = dtype != "i64" if n < len(kernel.inputs) else dtype == "f64"
        s(_column(f"a_{n}", "f64" if floats else "i64", at + n, rest))
    return [f"a_{n}" for n in range(len(kinds))]


def _column(name: str, dtype: str, at: int, more: str) -> str:
    pointer = "floats_at" if dtype == "f64" else "words_at"
    return f"{name} = carray({pointer}(row[{at}]), (count{more},))"


def address(loop: Any, arguments: list[Any]) -> int:
    """Where the machine code is of the compiled loop for arguments of these types."""
    version = loop.overloads[tuple(map(typeof, arguments))]
    return version.library.get_pointer_to_function(version.fndesc.llvm_func_name)


def _call(typing: Any, at: Any, arguments: Any) -> Any:
    """Call the compiled loop at an address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = tuple(arguments.types)
        kind = context.call_conv.get_function_type(types.none, kinds)
        function = builder.inttoptr(values[0], kind.as_pointer())
        unpacked = cgutils.unpack_tuple(builder, values[1], len(kinds))
        context.call_conv.call_function(builder, function, types.none, kinds, unpacked)
        return context.get_dummy_value()

    return types.none(at, arguments), generate


call_loop: Any = intrinsic(_call)
LOOP = {"call_loop": call_loop, "floats_at": word.floats_at, "words_at": word.words_at}
IN_ROWS = {**LOOP, "bytes_at": word.bytes_at}
