"""Many rows as JSON at once: columns become numbers, texts are joined in compiled code."""

from __future__ import annotations

from itertools import pairwise

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


class JsonRows:
    """The rows of a batch as text; those that were left out have none."""

    @staticmethod
    def compile() -> None:
        """Compile, or load what was compiled before."""
        JsonRows(pa.record_batch({"price": [1.0]}), b"{", b"}")

    def __init__(self, batch: pa.RecordBatch, start: bytes, end: bytes) -> None:
        """Every row begins with `start` and ends with `end`."""
        rows, columns = batch.num_rows, batch.num_columns
        keys = [msgspec.json.encode(name) + b":" for name in batch.schema.names]
        texts = [start + keys[0], *(b"," + key for key in keys[1:]), end]
        room = sum(map(len, texts))
        words, kinds = np.empty((rows, columns), np.int64), np.empty(columns, np.int64)
        is_null = np.zeros((rows, columns), np.bool_)
        for i, column in enumerate(batch.columns):
            if column.null_count:
                is_null[:, i] = _is_null(column)
            kind = column.type
            if pa.types.is_dictionary(kind):
                names = [msgspec.json.encode(name) for name in column.dictionary.to_pylist()]
                words[:, i] = _words(column.indices)
                words[:, i] += len(texts)
                texts += names
                kinds[i], room = NAME, room + max(map(len, names), default=0)
            elif pa.types.is_boolean(kind):
                words[:, i] = _words(column.cast(pa.int8()))
                kinds[i], room = TRUTH, room + len("false")
            elif (is_real := pa.types.is_float64(kind)) or _is_whole(kind):
                words[:, i] = _words(column)
                kinds[i], room = REAL if is_real else WHOLE, room + LONGEST_NUMBER
            else:
                name = batch.schema.names[i]
                raise TypeError(f"column {name!r}: {kind} is no type of canonical rows; cast it")
        spans = np.cumsum([0, *map(len, texts)], dtype=np.uint64)
        self._ends = np.empty(rows, np.int64)
        out = np.empty(rows * room + PADDING, np.uint8)
        joined = np.frombuffer(b"".join((*texts, bytes(PADDING))), np.uint8)
        self.left_out = write_rows(joined, spans, kinds, words, is_null, out, self._ends)
        """How many rows were."""
        self.text = out[: self._ends[-1] if rows else 0].tobytes()
        """All rows."""

    def each(self) -> list[bytes]:
        """The text of each; empty where it was left out."""
        text = self.text
        return [text[begin:end] for begin, end in pairwise([0, *self._ends.tolist()])]


def _is_whole(kind: pa.DataType) -> bool:
    return pa.types.is_signed_integer(kind) or pa.types.is_timestamp(kind)


def _words(column: pa.Array) -> NDArray[np.signedinteger]:
    """Its values, of doubles the bits; anything where null."""
    kind = np.dtype(f"i{column.type.bit_width // 8}")
    return np.frombuffer(column.buffers()[1], kind, len(column) + column.offset)[column.offset :]


def _is_null(column: pa.Array) -> NDArray[np.bool_]:
    """As Arrow's function, which takes much longer for few rows."""
    valid = np.frombuffer(column.buffers()[0], np.uint8)
    end = column.offset + len(column)
    return np.unpackbits(valid, count=end, bitorder="little")[column.offset :] == 0
