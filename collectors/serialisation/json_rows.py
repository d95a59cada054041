"""Many rows as JSON at once: compiled code reads them where Arrow has them and joins texts."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.serialisation.json_compiled import (
    LONGEST_NUMBER,
    NAME,
    PADDING,
    REAL,
    TRUTH,
    WHOLE,
    write_rows,
)
from collectors.serialisation.messages import Messages

_LAYOUTS = 32  # schemas that are remembered


class JsonRows:
    """The rows of a batch as text; those that were left out have none."""

    @staticmethod
    def compile() -> None:
        """Compile, or load what was compiled before."""
        JsonRows(pa.record_batch({"price": [1.0]}), b"{", b"}")

    def __init__(self, batch: pa.RecordBatch, start: bytes, end: bytes) -> None:
        """Every row begins with `start` and ends with `end`."""
        layout = _layout(batch.schema, start, end)
        texts = layout.texts([batch.column(i).dictionary for i in layout.names])
        rows = batch.num_rows
        self._ends = np.empty(rows, np.int64)
        out = np.empty(rows * texts.room + PADDING, np.uint8)
        _, array = batch.__arrow_c_array__()  # holds what lies at the address
        address = _address(array, b"arrow_array")
        self.left_out = write_rows(
            texts.joined, texts.spans, layout.kinds, layout.widths, texts.firsts, address,
            out, self._ends,
        )  # fmt: skip
        """How many rows were."""
        self.text = out[: self._ends[-1] if rows else 0].tobytes()
        """All rows."""

    def each(self) -> Messages:
        """The text of each; empty where it was left out."""
        return Messages(self.text, self._ends)


class _Texts(NamedTuple):
    """What rows are put together from: what stands around values, then names."""

    dictionaries: Sequence[pa.Array]
    firsts: NDArray[np.int64]
    """Where the names of each column begin."""
    joined: NDArray[np.uint8]
    spans: NDArray[np.uint64]
    room: int
    """Bytes of the longest row."""


class _Layout:
    """What is the same for every batch of a schema: to find it takes longer than some rows do."""

    def __init__(self, schema: pa.Schema, start: bytes, end: bytes) -> None:
        self.key = schema, start, end
        keys = [msgspec.json.encode(name) + b":" for name in schema.names]
        self._around = [start + keys[0], *(b"," + key for key in keys[1:]), end]
        self._room = sum(map(len, self._around))
        self.kinds = np.empty(len(keys), np.int64)
        self.widths = np.empty(len(keys), np.int64)
        """Bytes of a number of each column; of booleans, which are bits, none."""
        self.names: list[int] = []
        """Which columns are names."""
        for i, (name, kind) in enumerate(zip(schema.names, schema.types, strict=True)):
            bits = 0
            if pa.types.is_dictionary(kind):
                self.names.append(i)
                self.kinds[i], bits = NAME, kind.index_type.bit_width
            elif pa.types.is_boolean(kind):
                self.kinds[i] = TRUTH
                self._room += len("false")
            elif (is_real := pa.types.is_float64(kind)) or _is_whole(kind):
                self.kinds[i], bits = REAL if is_real else WHOLE, kind.bit_width
                self._room += LONGEST_NUMBER
            else:
                raise TypeError(f"column {name!r}: {kind} is no type of canonical rows; cast it")
            self.widths[i] = bits // 8
        self._last = self._join([pa.array([], pa.string())] * len(self.names))

    def texts(self, dictionaries: Sequence[pa.Array]) -> _Texts:
        """With the names of these dictionaries, which seldom change from batch to batch."""
        last = self._last  # another thread may put another there
        before = zip(dictionaries, last.dictionaries, strict=True)
        if not all(new.equals(old) for new, old in before):
            self._last = last = self._join(dictionaries)
        return last

    def _join(self, dictionaries: Sequence[pa.Array]) -> _Texts:
        texts, room, firsts = list(self._around), self._room, np.zeros_like(self.kinds)
        for i, dictionary in zip(self.names, dictionaries, strict=True):
            names = [msgspec.json.encode(name) for name in dictionary.to_pylist()]
            firsts[i] = len(texts)
            texts += names
            room += max(map(len, names), default=0)
        joined = np.frombuffer(b"".join((*texts, bytes(PADDING))), np.uint8)
        spans = np.cumsum([0, *map(len, texts)], dtype=np.uint64)
        return _Texts(dictionaries, firsts, joined, spans, room)


_layouts: deque[_Layout] = deque(maxlen=_LAYOUTS)


def _layout(schema: pa.Schema, start: bytes, end: bytes) -> _Layout:
    for known in tuple(_layouts):
        of, *around = known.key
        if around == [start, end] and of.equals(schema):
            return known
    made = _Layout(schema, start, end)
    _layouts.append(made)  # the last one may be another thread's by now
    return made


def _is_whole(kind: pa.DataType) -> bool:
    return pa.types.is_signed_integer(kind) or pa.types.is_timestamp(kind)


_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
