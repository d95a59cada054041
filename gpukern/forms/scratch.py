"""Memory of a loop's own, and parts of arrays, in loops that count no references.

Every slice of an array would count one up and one down again. A run of 65 rows needs a dozen
slices for each step, and a tenth of its time went into counting. Loops are therefore compiled
without (``UNCOUNTED``). They cannot make arrays with NumPy, nor assign slices to slices, which may
copy them first: they ask for scratch memory, give it back themselves, and move words. Nothing in a
loop raises, so nothing is left behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

UNCOUNTED: dict[str, Any] = {"_nrt": False}
MAY_ALLOCATE: dict[str, Any] = {"_nrt": True}
"""Options of numba. Without counting, slices must not outlive what they are cut from. Functions
that a loop calls inherit its option unless they say their own."""

WORD = 8  # bytes


def scratch(words):
    """A float64 array of so many words, uninitialised."""
    return np.empty(words)


def release(array):
    """Give memory back that ``scratch`` has lent; nobody may use it any more."""


def move(to, begin, source, first, words):
    """``to[begin + j] = source[first + j]`` for j < words in order: they may overlap if the source
    comes after."""
    for j in range(words):
        to[begin + j] = source[first + j]


def part(array, begin, words):
    """So many words of an array from one on, all of which it has. An array's rows follow each
    other. A slice would ask first whether its ends count from the array's end or lie outside."""
    return (array if array.ndim == 1 else array.reshape(-1))[begin : begin + words]


def will_read(array, at):
    """Have the line of a word fetched, without waiting for it; it need not be in the array."""


def _part(typing: Any, array: Any, begin: Any, words: Any) -> Any:
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None
    made = array.copy(ndim=1)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = context.make_array(array)(context, builder, arguments[0])
        own = context.make_array(made)(context, builder)
        populate_array(
            own,
            data=builder.gep(whole.data, [arguments[1]]),
            shape=[arguments[2]],
            strides=[context.get_constant(types.intp, WORD)],
            itemsize=context.get_constant(types.intp, WORD),
            meminfo=None,
        )
        return own._getvalue()

    return made(array, types.intp, types.intp), generate


def announce(*, write: bool) -> Any:
    """A function that fetches the line of ``array[at]``, which will be read or written soon."""

    def told(typing: Any, array: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(array)(context, builder, arguments[0]).data
            word, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            line = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
            near, of_data = word(3), word(1)
            builder.call(prefetch, [line, word(int(write)), near, of_data])
            return context.get_dummy_value()

        return types.void(array, types.int64), generate

    return intrinsic(told)


def _scratch(typing: Any, words: Any) -> Any:
    array = types.Array(types.float64, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_value_type(types.intp)
        kind = ir.FunctionType(ir.IntType(8).as_pointer(), [size])
        allocate = cgutils.get_or_insert_function(builder.module, kind, "NRT_Allocate")
        data = builder.call(allocate, [builder.mul(arguments[0], size(WORD))])
        made = context.make_array(array)(context, builder)
        populate_array(
            made,
            data=builder.bitcast(data, made.data.type),
            shape=[arguments[0]],
            strides=[size(WORD)],
            itemsize=size(WORD),
            meminfo=None,
        )
        return made._getvalue()

    return array(types.intp), generate


def _release(typing: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte])
        free = cgutils.get_or_insert_function(builder.module, kind, "NRT_Free")
        data = context.make_array(array)(context, builder, arguments[0]).data
        builder.call(free, [builder.bitcast(data, byte)])
        return context.get_dummy_value()

    return types.void(array), generate


COMPILED = {
    "scratch": intrinsic(_scratch), "release": intrinsic(_release),
    "move": njit(error_model="numpy")(move),
    "part": intrinsic(_part), "will_read": announce(write=False),
}  # fmt: skip
PLAIN = {
    "scratch": scratch, "release": release, "move": move, "part": part, "will_read": will_read,
}  # fmt: skip
