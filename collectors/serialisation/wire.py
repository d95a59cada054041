"""Messages of many rows at once: columns become bytes in NumPy, and rows are cut from the whole.

A message is the concatenation of its pieces, one per column or tag. Each piece knows how many bytes
it takes in every row (0 where it is left out) and writes them all at once; this is 10 to 20 times
faster than an encoder that sees one row at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.serialisation.messages import Messages

Lengths = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
_Put = Callable[[Bytes, Positions], None]


class Pieces:
    """Collects those of `rows` messages, in order."""

    def __init__(self, rows: int, prefix: bytes = b"") -> None:
        """Every message begins with `prefix`."""
        self._rows = rows
        self._pieces: list[tuple[Lengths, _Put]] = []
        if prefix:
            self.constant(prefix, np.ones(rows, bool))

    def constant(self, data: bytes, where: Mask) -> None:
        """The same bytes in every row of `where`."""
        raw = np.frombuffer(data, np.uint8)

        def put(out: Bytes, starts: Positions) -> None:
            out[starts[where][:, None] + np.arange(len(raw))] = raw

        self._pieces.append((where * np.int64(len(raw)), put))

    def byte(self, values: npt.NDArray[np.uint8]) -> None:
        """One byte per row."""

        def put(out: Bytes, starts: Positions) -> None:
            out[starts] = values

        self._pieces.append((np.ones(self._rows, np.int64), put))

    def varint(self, values: npt.NDArray[np.uint64], where: Mask) -> None:
        """Seven bits per byte, lowest first."""
        lengths = np.ones(self._rows, np.int64)
        for k in range(1, 10):
            lengths += values >= np.uint64(1 << 7 * k)
        lengths[~where] = 0

        def put(out: Bytes, starts: Positions) -> None:
            for k in range(int(lengths.max(initial=0))):
                rows = np.flatnonzero(lengths > k)
                bits = (values[rows] >> np.uint64(7 * k)) & np.uint64(127)
                more = np.where(lengths[rows] > k + 1, np.uint64(128), np.uint64(0))
                out[starts[rows] + k] = (bits | more).astype(np.uint8)

        self._pieces.append((lengths, put))

    def double(self, values: npt.NDArray[np.float64], where: Mask) -> None:
        """Eight bytes, lowest first."""
        raw = values.astype("<f8", copy=False)[where].view(np.uint8).reshape(-1, 8)

        def put(out: Bytes, starts: Positions) -> None:
            out[starts[where][:, None] + np.arange(8)] = raw

        self._pieces.append((where * np.int64(8), put))

    def text(self, column: pa.DictionaryArray, where: Mask, length: Callable[[int], bytes]) -> None:
        """A name with its length before it, in the coding that `length` gives."""
        names = [name.encode() for name in column.dictionary.to_pylist()]
        coded = [np.frombuffer(length(len(name)) + name, np.uint8) for name in names]
        codes = np.where(where, column.indices.fill_null(0).to_numpy(zero_copy_only=False), -1)
        lengths = np.array([*map(len, coded), 0], np.int64)[codes]

        def put(out: Bytes, starts: Positions) -> None:
            for code in np.unique(codes[where]):
                places = starts[codes == code][:, None]
                out[places + np.arange(len(coded[code]))] = coded[code]

        self._pieces.append((lengths, put))

    def messages(self) -> Messages:
        """They, put together."""
        sizes = sum((lengths for lengths, _ in self._pieces), np.zeros(self._rows, np.int64))
        ends = np.cumsum(sizes)
        starts = ends - sizes
        out = np.empty(int(ends[-1]) if self._rows else 0, np.uint8)
        cursor = starts.copy()
        for lengths, put in self._pieces:
            put(out, cursor)
            cursor += lengths
        return Messages(out.tobytes(), ends)


def whole_numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    """Integers, times and booleans as int64; 0 where null."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)


def doubles(column: pa.Array) -> npt.NDArray[np.float64]:
    """0 where null."""
    return column.fill_null(0.0).to_numpy(zero_copy_only=False)


def present(column: pa.Array) -> Mask:
    """Where the column is not null."""
    return column.is_valid().to_numpy(zero_copy_only=False)


def varint(value: int) -> bytes:
    """One number, seven bits per byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
