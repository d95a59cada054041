"""Compiled loops called from compiled code, by address.

Every loop has arguments of its own. An *entry* takes the same four pointers for every loop and
reads from a row of words where the loop's arguments are, so that one compiled function can call
loop after loop (``tape.py``). Entries depend on nothing but the number and types of a loop's
inputs and outputs: many kernels share one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gpukern.forms.cpu import Source
from gpukern.kernel import Kernel

# Words of an entry's row: where things begin, how many there are, and the code to call.
ROOM, RUNS, FOUND, COUNT, TIME, TIMES = range(6)
STATE, STATES, WIDTH, PAR, PARS, FIELDS, STRIDE = range(6, 13)
LOOP, ENTRY = 13, 14
FIRST = 15  # where inputs begin, and after them outputs


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
    width = FIRST + len(kernel.inputs) + len(kernel.outputs)
    s(f"row = carray(row_at, ({width},))")
    s(f"room = carray(room_at, (row[{ROOM}],))")
    s(f"runs = room[row[{RUNS}] : row[{RUNS}] + 4 * row[{FOUND}]].reshape((row[{FOUND}], 4))")
    s(f"states = carray(states_at, (row[{STATE}] + row[{STATES}] * row[{WIDTH}],))")
    s(f"st = states[row[{STATE}] :].reshape((row[{STATES}], row[{WIDTH}]))")
    s(f"pars = carray(pars_at, (row[{PAR}] + row[{PARS}] * row[{FIELDS}],))")
    s(f"par = pars[row[{PAR}] :].reshape((row[{PARS}], row[{FIELDS}]))")
    s(f"t = room[row[{TIME}] : row[{TIME}] + row[{TIMES}]]")
    kinds = [(c.dtype != "i64", 0) for c in kernel.inputs]
    kinds += [(o.dtype == "f64", 1) for o in kernel.outputs]
    for n, (floats, more) in enumerate(kinds):
        at = f"row[{FIRST + n}]"
        view = ".view(np.float64)" if floats else ""
        s(f"a_{n} = room[{at} : {at} + row[{COUNT}] + {more}]{view}")
    columns = ", ".join(f"a_{n}" for n in range(len(kinds)))
    s(f"call_loop(row[{LOOP}], (runs, par, row[{STRIDE}], st, pars[0:0], t, {columns}))")
    return "\n".join(s.lines) + "\n"


def address(loop: Any) -> int:
    """Where the machine code of a compiled loop is; it has one version."""
    (version,) = loop.overloads.values()
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


def _call_entry(typing: Any, at: Any, row: Any, room: Any, states: Any, pars: Any) -> Any:
    """Call the entry at an address with the addresses of its arguments."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), list(values[1:]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


call_loop: Any = intrinsic(_call_loop)
call_entry: Any = intrinsic(_call_entry)
