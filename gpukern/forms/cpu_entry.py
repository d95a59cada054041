"""Compiled loops called from compiled code, by address.

Every loop has arguments of its own. An *entry* takes the same four pointers for every loop and
reads from a row of words where the loop's arguments are, so that one compiled function can call
loop after loop (``tape.py``). Entries depend on nothing but the number and types of a loop's
inputs and outputs: many kernels share one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types
from numba.extending import intrinsic

from gpukern.forms import cpu_play as word
from gpukern.forms.cpu import Source
from gpukern.kernel import Kernel


def shape(kernel: Kernel) -> str:
    """The types of a kernel's inputs and outputs: the name of its entry."""
    ins = "".join("i" if i.dtype == "i64" else "f" for i in kernel.inputs)
    outs = "".join("f" if o.dtype == "f64" else "i" for o in kernel.outputs)
    return f"{ins or 'none'}_{outs}"


def text(kernel: Kernel) -> str:
    """The source of the entry of all loops with the kernel's inputs and outputs.

    ``room`` has what belongs to the rows, ``states`` the state rows, ``pars`` the parameters.
    """
    s = Source()
    s(f'"""Entry of loops {shape(kernel)}. Generated; do not edit."""', "")
    s("@compile_entry")
    s.block("def entry(row_at, room_at, states_at, pars_at):")
    width = word.FIRST + len(kernel.inputs) + len(kernel.outputs)
    s(f"row = carray(row_at, ({width},))")
    s(f"room = carray(room_at, (row[{word.ROOM}],))")
    s(f"found, runs_at = row[{word.FOUND}], row[{word.RUNS}]")
    s("runs = room[runs_at : runs_at + 4 * found].reshape((found, 4))")
    s(f"states = carray(states_at, (row[{word.STATE}] + row[{word.STATES}] * row[{word.WIDTH}],))")
    s(f"st = states[row[{word.STATE}] :].reshape((row[{word.STATES}], row[{word.WIDTH}]))")
    s(f"pars = carray(pars_at, (row[{word.PAR}] + row[{word.PARS}] * row[{word.FIELDS}],))")
    s(f"par = pars[row[{word.PAR}] :].reshape((row[{word.PARS}], row[{word.FIELDS}]))")
    s(f"ar = carray(floats_at(row[{word.ARENA}]), (row[{word.ARENAS}],))")
    s(f"t = room[row[{word.TIME}] : row[{word.TIME}] + row[{word.TIMES}]]")
    kinds = [(c.dtype != "i64", 0) for c in kernel.inputs]
    kinds += [(o.dtype == "f64", 1) for o in kernel.outputs]
    for n, (floats, more) in enumerate(kinds):
        at = f"row[{word.FIRST + n}]"
        view = ".view(np.float64)" if floats else ""
        s(f"a_{n} = room[{at} : {at} + row[{word.COUNT}] + {more}]{view}")
    columns = ", ".join(f"a_{n}" for n in range(len(kinds)))
    s(f"call_loop(row[{word.LOOP}], (runs, par, row[{word.STRIDE}], st, ar, t, {columns}))")
    return "\n".join(s.lines) + "\n"


def address(loop: Any, arguments: list[Any]) -> int:
    """Where the machine code is of the compiled loop for arguments of these types."""
    version = loop.overloads[tuple(map(typeof, arguments))]
    return version.library.get_pointer_to_function(version.fndesc.llvm_func_name)


def _call_loop(typing: Any, at: Any, arguments: Any) -> Any:
    """Call the compiled loop at an address: its result only keeps reads in it alive."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = tuple(arguments.types)
        kind = context.call_conv.get_function_type(types.float64, kinds)
        function = builder.inttoptr(values[0], kind.as_pointer())
        unpacked = cgutils.unpack_tuple(builder, values[1], len(kinds))
        _, result = context.call_conv.call_function(
            builder, function, types.float64, kinds, unpacked
        )
        return result

    return types.float64(at, arguments), generate


def _floats_at(typing: Any, at: Any) -> Any:
    """An address as a pointer to floats."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(at), generate


floats_at: Any = intrinsic(_floats_at)
call_loop: Any = intrinsic(_call_loop)
USES = {"call_loop": call_loop, "floats_at": floats_at}  # in the text of an entry
