"""Memory of a loop's own, in loops that count no references.

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
}  # fmt: skip
PLAIN = {"scratch": scratch, "release": release, "move": move}
