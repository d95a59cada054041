"""Rows of eight blocks put side by side, and back: transposing in the processor's registers.

Left to itself the compiler does this with scattered stores, several times slower than the sums that
are made of the rows.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8


def to_lanes(wide, at, column, f0, f1, f2, f3, f4, f5, f6, f7, rows):
    """``wide[at + 8·j + n] = column[fn + j]`` for the eight n and j < rows (≥ 8)."""
    for j in range(rows):
        for n, first in enumerate((f0, f1, f2, f3, f4, f5, f6, f7)):
            wide[at + LANES * j + n] = column[first + j]


def from_lanes(column, f0, f1, f2, f3, f4, f5, f6, f7, wide, at, rows):
    """``column[fn + j] = wide[at + 8·j + n]`` for the eight n in order and j < rows (≥ 8)."""
    for j in range(rows):
        for n, first in enumerate((f0, f1, f2, f3, f4, f5, f6, f7)):
            column[first + j] = wide[at + LANES * j + n]


@intrinsic
def _transpose(typing_context, to, to_at, source, source_at):
    """The square ``to[to_at[k] + n] = source[source_at[n] + k]`` for k, n < 8."""
    arrays = (to, source)
    places = (to_at, source_at)
    if not all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays):
        return None
    if to.dtype != source.dtype or to.dtype.bitwidth != 64:
        return None
    if not all(isinstance(p, types.UniTuple) and p.count == LANES for p in places):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = context.get_value_type(to.dtype)
        vector = ir.VectorType(element, LANES)

        def pointers(kind: Any, value: Any, offsets: Any) -> list[Any]:
            data = context.make_array(kind)(context, builder, value).data
            return [
                builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())
                for offset in cgutils.unpack_tuple(builder, offsets, LANES)
            ]

        rows = []
        for pointer in pointers(source, arguments[2], arguments[3]):
            row = builder.load(pointer)
            row.align = 8
            rows.append(row)
        # Swap ever larger off-diagonal squares: 1 × 1, 2 × 2, 4 × 4.
        for half in (1, 2, 4):
            low = [n if not n & half else n - half + LANES for n in range(LANES)]
            high = [n + half if not n & half else n + LANES for n in range(LANES)]
            masks = [
                ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask) for mask in (low, high)
            ]
            for n in range(LANES):
                if not n & half:
                    pair = rows[n], rows[n + half]
                    rows[n], rows[n + half] = (builder.shuffle_vector(*pair, m) for m in masks)
        for row, pointer in zip(rows, pointers(to, arguments[0], arguments[1]), strict=True):
            builder.store(row, pointer, align=8)
        return context.get_dummy_value()

    return types.void(to, to_at, source, source_at), generate


@numba.njit(error_model="numpy")
def _to_lanes(wide, at, column, f0, f1, f2, f3, f4, f5, f6, f7, rows):
    for begin in range(0, rows, LANES):
        j = min(begin, rows - LANES)  # the last square overlaps the one before
        w = at + LANES * j
        places = (w, w + 8, w + 16, w + 24, w + 32, w + 40, w + 48, w + 56)
        sources = (f0 + j, f1 + j, f2 + j, f3 + j, f4 + j, f5 + j, f6 + j, f7 + j)
        _transpose(wide, places, column, sources)  # type: ignore[call-arg]


@numba.njit(error_model="numpy")
def _from_lanes(column, f0, f1, f2, f3, f4, f5, f6, f7, wide, at, rows):
    for begin in range(0, rows, LANES):
        j = min(begin, rows - LANES)
        w = at + LANES * j
        sources = (w, w + 8, w + 16, w + 24, w + 32, w + 40, w + 48, w + 56)
        places = (f0 + j, f1 + j, f2 + j, f3 + j, f4 + j, f5 + j, f6 + j, f7 + j)
        _transpose(column, places, wide, sources)  # type: ignore[call-arg]


COMPILED = {"to_lanes": _to_lanes, "from_lanes": _from_lanes}
PLAIN = {"to_lanes": to_lanes, "from_lanes": from_lanes}
