"""Rows of whole lots: numbers in two blocks, packed into the memory of Arrow's arrays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.batch_builder import BatchBuilder
from collectors.lot import SYMBOL, Lot

_LEAST = 1024  # rows that there is room for


class LotBuilder(BatchBuilder):
    """Rows of lots go to columns at once; those of events that come in between stay in order."""

    ints: ClassVar[Mapping[str, int]]
    """The columns of whole numbers, and where in a block of them each has its own."""
    floats: ClassVar[tuple[str, ...]]
    """The columns of decimals."""

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self._parts: list[dict[str, pa.Array]] = []
        self._part_rows = 0
        self._used = 0
        """Rows of lots that are no part yet."""
        self._ints = np.empty((max(self.ints.values()) + 1, 0), np.int64)
        self._floats = np.empty((len(self.floats), 0))
        self._kinds = self._types | {"symbol": pa.int32()}
        places = [*self.ints.items(), *((name, -1 - i) for i, name in enumerate(self.floats))]
        widths = [self._kinds[name].byte_width for name, _ in places]
        self._layout = np.array([(i, w) for (_, i), w in zip(places, widths, strict=True)])
        self._packed = [
            (name, self._kinds[name], w) for (name, _), w in zip(places, widths, strict=True)
        ]
        self._row_words = (sum(widths) + len(widths) / 8) / 8

    @abstractmethod
    def _event_rows(self) -> int:
        """Those that no lot brought."""

    @abstractmethod
    def _drain_events(self) -> dict[str, Any]:
        """Their columns; forget them."""

    def __len__(self) -> int:
        return self._part_rows + self._used + self._event_rows()

    def _drain(self) -> dict[str, Any]:
        if not self._used and not self._parts:
            return self._drain_events()
        self._close_part()
        parts, self._parts, self._part_rows = self._parts, [], 0
        if len(parts) == 1:
            return parts[0]
        return {name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]}

    def _room(self, rows: int) -> None:
        """For so many rows of a lot, after all that came before."""
        if self._event_rows():
            self._close_part()
        if self._used + rows > self._ints.shape[1]:
            width = max(_LEAST, 2 * (self._used + rows))
            ints, floats = self._ints, self._floats
            self._ints = np.empty((len(ints), width), np.int64)
            self._floats = np.empty((len(floats), width))
            self._ints[:, : self._used] = ints[:, : self._used]
            self._floats[:, : self._used] = floats[:, : self._used]

    def _close_part(self) -> None:
        """The rows of lots so far, and those of events that came after them."""
        if self._used:
            rows, self._used = self._used, 0
            self._parts.append(self._pack(rows))
            self._part_rows += rows
        if rows := self._event_rows():
            columns = self._drain_events()
            arrays = {
                name: values
                if isinstance(values, pa.Array)
                else pa.array(values, self._kinds[name])
                for name, values in columns.items()
            }
            self._parts.append(arrays)
            self._part_rows += rows

    def _pack(self, rows: int) -> dict[str, pa.Array]:
        """The rows of lots, in memory of their own: a batch that waits in a queue holds no more."""
        from collectors.lot_compiled import pack

        columns = len(self._layout)
        block = np.empty(int(self._row_words * rows) + 16 * columns, np.int64)
        told = np.empty((columns, 3), np.int64)
        pack(self._ints, self._floats, rows, self._layout, block, told)
        memory = pa.py_buffer(block)
        valid_bytes = (rows + 7) // 8
        part = {}
        for (name, kind, width), (values, valid, missing) in zip(
            self._packed, told.tolist(), strict=True
        ):
            bits = memory.slice(valid, valid_bytes) if missing else None
            buffers = [bits, memory.slice(values, rows * width)]
            part[name] = pa.Array.from_buffers(kind, rows, buffers, missing)
        return part

    def _codes_of(self, lot: Lot, *kinds: int) -> NDArray[np.int32]:
        """By number of the lot's symbol; new ones in the order of their rows."""
        codes = self._codes
        if not all(map(codes.__contains__, lot.symbols)):
            own = np.isin(lot.kinds, kinds)
            for number in dict.fromkeys(lot.ints[SYMBOL, own].tolist()):
                self._code(lot.symbols[number])
        return np.array([codes.get(symbol, -1) for symbol in lot.symbols], np.int32)
