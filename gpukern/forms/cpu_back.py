"""Dense results back to row order: eight rows at a time, values and validity in one pass.

``dense[pos]`` is a result in row order (``rows.py``), or ``dense`` if that is the same. Eight
values are gathered into one vector, compared with what stands for null, and written; the comparison
is a byte of the validity bitmap.

Results of a large piece are not read again soon. Written around the caches they need no line
fetched first and leave there what is still of use, which halves the time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic, overload, register_jitable

STREAMED = 1 << 14  # rows of a call from which results are written around the caches
LINE = 64  # bytes of a cache line, which such a write has to fill


def _eight(*, streamed: bool) -> Any:
    """A function for ``out[at + j] = dense[pos[at + j]]`` with j < 8, or ``dense[at + j]`` if
    ``pos`` is None; it returns which are there, a bit for each.

    A float is missing where it is not finite, and becomes ``null``; an integer where it is
    ``null``. ``streamed``: around the caches; ``out[at]`` has to begin a cache line.
    """

    def place(typing: Any, dense: Any, pos: Any, at: Any, null: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            store, there = _move(context, builder, signature, arguments)
            if streamed:
                store.align = LINE
                one = ir.Constant(ir.IntType(32), 1)
                store.set_metadata("nontemporal", builder.module.add_metadata([one]))
            return there

        return types.uint8(dense, pos, types.intp, dense.dtype, out), generate

    return intrinsic(place)


def _fence(typing: Any) -> Any:
    """Let no later write be seen before the streamed ones, which are outside the usual order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _move(context: Any, builder: Any, signature: Any, arguments: Any) -> tuple[Any, Any]:
    """The store of eight values, and the byte that says which of them are there."""
    dense, pos, at, null, out = arguments
    of_dense, of_pos, _, _, of_out = signature.args

    def data(kind: Any, array: Any) -> Any:
        return context.make_array(kind)(context, builder, array).data

    source, target = data(of_dense, dense), data(of_out, out)
    vector = ir.VectorType(null.type, 8)
    values = nulls = ir.Constant(vector, ir.Undefined)
    if of_pos == types.none:
        values = builder.load(builder.bitcast(builder.gep(source, [at]), vector.as_pointer()))
        values.align = 8
    for n in range(8):
        if of_pos != types.none:
            row = builder.load(builder.gep(data(of_pos, pos), [builder.add(at, at.type(n))]))
            value = builder.load(builder.gep(source, [builder.zext(row, at.type)]))
            values = builder.insert_element(values, value, ir.IntType(32)(n))
        nulls = builder.insert_element(nulls, null, ir.IntType(32)(n))
    if isinstance(of_dense.dtype, types.Float):
        zeros = ir.Constant(vector, [null.type(0.0)] * 8)
        there = builder.fcmp_ordered("==", builder.fsub(values, values), zeros)
        values = builder.select(there, values, nulls)
    else:
        there = builder.icmp_signed("!=", values, nulls)
    to = builder.bitcast(builder.gep(target, [at]), vector.as_pointer())
    return builder.store(values, to, align=8), builder.bitcast(there, ir.IntType(8))


move_eight, stream_eight = _eight(streamed=False), _eight(streamed=True)
fence: Any = intrinsic(_fence)


@njit(cache=True, nogil=True)
def settle():
    """Let no later write be seen before the streamed ones."""
    fence()


def _at(dense, pos, i):
    """The value of row i."""
    return dense[i if pos is None else pos[i]]


@overload(_at)
def _at_compiled(dense, pos, i):
    if isinstance(pos, types.NoneType):
        return lambda dense, pos, i: dense[i]
    return lambda dense, pos, i: dense[pos[i]]


def _is_there(x, null):
    """Whether a value is none that is told as null."""
    return x - x == 0.0 if isinstance(x, float) else x != null


@overload(_is_there)
def _is_there_compiled(x, null):
    if isinstance(x, types.Float):
        return lambda x, null: x - x == 0.0
    return lambda x, null: x != null


@register_jitable
def worth_streaming(rows, out):
    """Whether results are to be written around the caches."""
    return rows >= STREAMED and out.ctypes.data % LINE == 0


@njit(cache=True, nogil=True, error_model="numpy")
def to_rows(dense, pos, null, stream, out, bits):
    """``out[i] = dense[pos[i]]``, or ``dense[i]`` if ``pos`` is None; the number of nulls.

    A float is missing where it is not finite, and becomes ``null``; an int64 where it is ``null``.
    ``bits`` is the Arrow validity bitmap of ``out`` (its first row is bit 0 of byte 0).
    ``stream``: write around the caches; later writes must wait (``settle``).
    """
    whole = len(out) // 8
    if stream:
        for b in range(whole):
            bits[b] = stream_eight(dense, pos, 8 * b, null, out)
    else:
        for b in range(whole):
            bits[b] = move_eight(dense, pos, 8 * b, null, out)
    byte = 0
    for i in range(8 * whole, len(out)):
        x = _at(dense, pos, i)
        ok = _is_there(x, null)
        out[i] = x if ok else null
        byte |= int(ok) << (i - 8 * whole)
    if len(bits) > whole:
        bits[whole] = byte
    return len(out) - _ones(bits)


@njit(cache=True, nogil=True)
def _ones(bits):
    """The number of ones."""
    ones = 0
    for b in range(len(bits)):
        byte = bits[b]
        byte = (byte & 0x55) + (byte >> 1 & 0x55)
        byte = (byte & 0x33) + (byte >> 2 & 0x33)
        ones += (byte & 0x0F) + (byte >> 4)
    return ones
