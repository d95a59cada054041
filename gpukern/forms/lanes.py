"""Rows of eight blocks put side by side, and back: transposing in the processor's registers. And
the lowest values of growing stretches of such rows.

Left to itself the compiler transposes with scattered stores, several times slower than the sums
that are made of the rows, and sends what grows through memory.
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


def lowest_up_to(wide, rows, kept, part, steps):
    """The eight lowest, in each lane, of the rows up to each: after row j they stand at
    ``wide[kept + part·r + 8·(j + 1)]``, r rising with the value."""
    _grow(wide, rows, kept, part, steps, range(steps), 1)


def lowest_from(wide, rows, kept, part, steps, needed):
    """The same of the rows from row j on, at ``wide[kept + part·r + 8·j]`` for j ≤ ``needed``."""
    _grow(wide, rows, kept, part, steps, range(steps - 1, -1, -1), 0)


def _grow(wide, rows, kept, part, steps, order, after):
    for lane in range(LANES):
        low = [float("inf")] * LANES
        wide[kept + LANES * (0 if after else steps) + lane :: part][:LANES] = low
        for j in order:
            low = sorted([*low, wide[rows + LANES * j + lane]])[:LANES]
            wide[kept + LANES * (j + after) + lane :: part][:LANES] = low


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


def _lowest(*, up_to: bool) -> Any:
    """``lowest_up_to`` or ``lowest_from`` with the lowest in registers."""

    def grow(typing: Any, wide: Any, rows: Any, kept: Any, part: Any, steps: Any, last: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, rows, kept, part, steps, last = arguments
            data = context.make_array(wide)(context, builder, array).data
            word, vector = rows.type, ir.VectorType(context.get_value_type(wide.dtype), LANES)
            places = range(LANES)

            def pointer(offset: Any) -> Any:
                return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

            def keep(values: list[Any], row: Any) -> None:
                at = builder.add(kept, builder.mul(row, word(LANES)))
                for r in places:
                    store = builder.store(values[r], pointer(at))
                    store.align = 8
                    at = builder.add(at, part)

            infinite = ir.Constant(vector, [vector.element(float("inf"))] * LANES)
            keep([infinite] * LANES, word(0) if up_to else steps)
            before = builder.block
            head, body, told, end = (
                builder.append_basic_block(f"lowest.{name}")
                for name in ("head", "body", "told", "end")
            )
            builder.branch(head)
            builder.position_at_end(head)
            step = builder.phi(word)
            low = [builder.phi(vector) for _ in places]
            builder.cbranch(builder.icmp_signed("<", step, steps), body, end)
            builder.position_at_end(body)
            j = step if up_to else builder.sub(builder.sub(steps, word(1)), step)
            x = builder.load(pointer(builder.add(rows, builder.mul(j, word(LANES)))))
            x.align = 8
            lower = []
            for r in places:
                less = builder.fcmp_ordered("<", low[r], x)
                lower.append(builder.select(less, low[r], x))
                x = builder.select(less, x, low[r])
            to = builder.add(j, word(1)) if up_to else j
            after = builder.add(step, word(1))
            builder.cbranch(builder.icmp_signed("<=", to, last), told, head)
            builder.position_at_end(told)
            keep(lower, to)
            builder.branch(head)
            for block, value, lows in (
                (before, word(0), [infinite] * LANES), (body, after, lower), (told, after, lower)
            ):  # fmt: skip
                step.add_incoming(value, block)
                for r in places:
                    low[r].add_incoming(lows[r], block)
            builder.position_at_end(end)
            return context.get_dummy_value()

        words = [types.int64] * 5
        return types.void(wide, *words), generate

    return intrinsic(grow)


_up_to, _from = _lowest(up_to=True), _lowest(up_to=False)


@numba.njit(error_model="numpy")
def _lowest_up_to(wide, rows, kept, part, steps):
    _up_to(wide, rows, kept, part, steps, steps)


@numba.njit(error_model="numpy")
def _lowest_from(wide, rows, kept, part, steps, needed):
    _from(wide, rows, kept, part, steps, needed)


COMPILED = {
    "to_lanes": _to_lanes, "from_lanes": _from_lanes,
    "lowest_up_to": _lowest_up_to, "lowest_from": _lowest_from,
}  # fmt: skip
PLAIN = {
    "to_lanes": to_lanes, "from_lanes": from_lanes,
    "lowest_up_to": lowest_up_to, "lowest_from": lowest_from,
}  # fmt: skip
