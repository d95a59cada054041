"""Rows of eight blocks put side by side, and back: transposing in the processor's registers. And
the lowest values of growing stretches of such rows.

Left to itself the compiler transposes with scattered stores, several times slower than the sums
that are made of the rows, and sends what grows through memory.
"""

from __future__ import annotations

from collections.abc import Callable
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


def lowest_from(wide, rows, kept, part, steps, needed):
    """The eight lowest, in each lane, of the rows from row j on: they stand at
    ``wide[kept + part·r + 8·j]`` for j ≤ ``needed``, r rising with the value."""
    for lane in range(LANES):
        low = [float("inf")] * LANES
        wide[kept + LANES * steps + lane :: part][:LANES] = low
        for j in range(steps - 1, -1, -1):
            low = sorted([*low, wide[rows + LANES * j + lane]])[:LANES]
            wide[kept + LANES * j + lane :: part][:LANES] = low


def lowest_joined(wide, rows, older, joined, kept, part, steps):
    """The eight lowest, in each lane, of the rows up to row j and of those that stand at
    ``wide[older + part·r + 8·(j + 1)]``, at ``wide[joined + part·r + 8·j]``. Those of the rows up
    to row j alone are kept as by ``lowest_from``, at 8·(j + 1), unless ``kept`` is negative."""
    for lane in range(LANES):
        low = [float("inf")] * LANES
        for j in range(steps):
            low = sorted([*low, wide[rows + LANES * j + lane]])[:LANES]
            others = wide[older + LANES * (j + 1) + lane :: part][:LANES]
            wide[joined + LANES * j + lane :: part][:LANES] = sorted([*low, *others])[:LANES]
            if kept >= 0:
                wide[kept + LANES * (j + 1) + lane :: part][:LANES] = low


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


class _Low:
    """Writes loops that hold the lowest values of eight lanes in registers, ``LANES`` of each."""

    def __init__(self, context: Any, builder: Any, wide: Any, array: Any, part: Any) -> None:
        self.builder, self.part, self.word = builder, part, part.type
        self.data = context.make_array(wide)(context, builder, array).data
        self.vector = ir.VectorType(context.get_value_type(wide.dtype), LANES)
        self.infinite = ir.Constant(self.vector, [self.vector.element(float("inf"))] * LANES)

    def _pointer(self, offset: Any) -> Any:
        at = self.builder.gep(self.data, [offset])
        return self.builder.bitcast(at, self.vector.as_pointer())

    def _at(self, first: Any, row: Any) -> Any:
        return self.builder.add(first, self.builder.mul(row, self.word(LANES)))

    def row(self, first: Any, row: Any) -> Any:
        """A row of the lanes."""
        value = self.builder.load(self._pointer(self._at(first, row)))
        value.align = 8
        return value

    def rows(self, first: Any, row: Any) -> list[Any]:
        """The same row of all parts."""
        found, at = [], self._at(first, row)
        for _ in range(LANES):
            found.append(self.builder.load(self._pointer(at)))
            found[-1].align = 8
            at = self.builder.add(at, self.part)
        return found

    def keep(self, values: list[Any], first: Any, row: Any) -> None:
        """Store a row of all parts."""
        at = self._at(first, row)
        for value in values:
            store = self.builder.store(value, self._pointer(at))
            store.align = 8
            at = self.builder.add(at, self.part)

    def order(self, a: Any, b: Any) -> tuple[Any, Any]:
        """The lower of two in each lane, and the other."""
        less = self.builder.fcmp_ordered("<", a, b)
        return self.builder.select(less, a, b), self.builder.select(less, b, a)

    def insert(self, low: list[Any], x: Any) -> list[Any]:
        """The lowest, in order, when a row comes."""
        lower = []
        for value in low:
            least, x = self.order(value, x)
            lower.append(least)
        return lower

    def join(self, older: list[Any], newer: list[Any]) -> list[Any]:
        """The lowest of both, in order: half a sorting network."""
        c = [self.order(n, o)[0] for o, n in zip(older, reversed(newer), strict=True)]
        half = LANES // 2
        while half:  # they rise, then fall: the rest of a bitonic sort
            for r in range(LANES):
                if not r & half:
                    c[r], c[r + half] = self.order(c[r + half], c[r])
            half //= 2
        return c

    def loop(self, steps: Any, body: Callable[[Any, list[Any]], list[Any]]) -> None:
        """``low = body(step, low)`` for each step, from infinity on."""
        builder, before = self.builder, self.builder.block
        head, work, end = (builder.append_basic_block(f"low.{n}") for n in ("head", "work", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        step = builder.phi(self.word)
        low = [builder.phi(self.vector) for _ in range(LANES)]
        builder.cbranch(builder.icmp_signed("<", step, steps), work, end)
        builder.position_at_end(work)
        lower = body(step, low)
        after = builder.add(step, self.word(1))
        for value, new in zip(low, lower, strict=True):
            value.add_incoming(self.infinite, before)
            value.add_incoming(new, builder.block)
        step.add_incoming(self.word(0), before)
        step.add_incoming(after, builder.block)
        builder.branch(head)
        builder.position_at_end(end)


@intrinsic
def _from(typing, wide, rows, kept, part, steps, needed):  # type: ignore[no-untyped-def]
    """``lowest_from``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, rows, kept, part, steps, needed = arguments
        lanes, one = _Low(context, builder, wide, array, part), part.type(1)
        lanes.keep([lanes.infinite] * LANES, kept, steps)

        def grow(step: Any, low: list[Any]) -> list[Any]:
            j = builder.sub(builder.sub(steps, one), step)
            lower = lanes.insert(low, lanes.row(rows, j))
            with builder.if_then(builder.icmp_signed("<=", j, needed)):
                lanes.keep(lower, kept, j)
            return lower

        lanes.loop(steps, grow)
        return context.get_dummy_value()

    return types.void(wide, *[types.int64] * 5), generate


@intrinsic
def _joined(typing, wide, rows, older, joined, kept, part, steps):  # type: ignore[no-untyped-def]
    """``lowest_joined``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, rows, older, joined, kept, part, steps = arguments
        lanes, one = _Low(context, builder, wide, array, part), part.type(1)
        wanted = builder.icmp_signed(">=", kept, part.type(0))

        def grow(step: Any, low: list[Any]) -> list[Any]:
            lower, after = lanes.insert(low, lanes.row(rows, step)), builder.add(step, one)
            with builder.if_then(wanted):
                lanes.keep(lower, kept, after)
            lanes.keep(lanes.join(lanes.rows(older, after), lower), joined, step)
            return lower

        lanes.loop(steps, grow)
        return context.get_dummy_value()

    return types.void(wide, *[types.int64] * 6), generate


@numba.njit(error_model="numpy")
def _lowest_from(wide, rows, kept, part, steps, needed):
    _from(wide, rows, kept, part, steps, needed)  # type: ignore[call-arg]


@numba.njit(error_model="numpy")
def _lowest_joined(wide, rows, older, joined, kept, part, steps):
    _joined(wide, rows, older, joined, kept, part, steps)  # type: ignore[call-arg]


COMPILED = {
    "to_lanes": _to_lanes, "from_lanes": _from_lanes,
    "lowest_from": _lowest_from, "lowest_joined": _lowest_joined,
}  # fmt: skip
PLAIN = {
    "to_lanes": to_lanes, "from_lanes": from_lanes,
    "lowest_from": lowest_from, "lowest_joined": lowest_joined,
}  # fmt: skip
