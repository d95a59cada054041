"""Canonical batches of one channel, collected from events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.schema import SCHEMAS

if TYPE_CHECKING:
    from collectors.lot import Lot


def column(
    values: NDArray[Any], kind: pa.DataType, is_null: NDArray[np.bool_] | None = None
) -> pa.Array:
    """The memory of `values` as an array of `kind`, which is as wide.

    As `pa.array`, which for few rows takes several times as long.
    """
    valid = None
    if is_null is not None and is_null.any():
        valid = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])


class BatchBuilder(ABC):
    """Collects one exchange's events of one channel and gives them as a canonical batch."""

    channel: ClassVar[str]
    handlers: Mapping[type, Callable[[Any], None]]
    """Event types that make rows of this channel -> the method that takes them."""

    def __init__(self, exchange: str) -> None:
        self.schema = SCHEMAS[self.channel]
        self._types = dict(zip(self.schema.names, self.schema.types, strict=True))
        self._exchange = pa.array([exchange])
        self._zeros = pa.array([], pa.int32())
        self._codes: dict[str, int] = {}
        self._symbols = pa.array([], pa.string())

    @abstractmethod
    def __len__(self) -> int:
        """Rows collected since the last `take`."""

    @abstractmethod
    def _drain(self) -> dict[str, Any]:
        """The columns collected, `symbol` as codes and without `exchange`; forget the rows."""

    def take(self) -> pa.RecordBatch:
        """The rows collected since the last call."""
        rows = len(self)
        columns = self._drain()
        if len(self._symbols) < len(self._codes):
            self._symbols = pa.array(self._codes, pa.string())
        if len(self._zeros) < rows:
            self._zeros = pa.array(np.zeros(2 * rows, np.int32))
        codes = columns["symbol"]
        if not isinstance(codes, pa.Array):
            codes = pa.array(codes, pa.int32())
        # Not safe: that is, without looking at every code again.
        columns["symbol"] = pa.DictionaryArray.from_arrays(codes, self._symbols, safe=False)
        columns["exchange"] = pa.DictionaryArray.from_arrays(
            self._zeros[:rows], self._exchange, safe=False
        )
        arrays = [
            values if isinstance(values, pa.Array) else pa.array(values, kind, size=rows)
            for name, kind in self._types.items()
            for values in (columns[name],)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def add(self, lot: Lot) -> None:  # noqa: B027 - most channels have no rows of them
        """Take the trades and quotes of a lot."""

    def _code(self, symbol: str) -> int:
        return self._codes.setdefault(symbol, len(self._codes))


class RowValues:
    """Rows end to end in one list: the cheapest append, and no object per row to collect later."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._values: list[Any] = []
        self.extend = self._values.extend
        """Add the values of a row, or of several."""

    def __len__(self) -> int:
        return len(self._values) // len(self._columns)

    def drain(self) -> dict[str, list[Any]]:
        """The values of each column; forget them."""
        values, count = self._values[:], len(self._columns)
        self._values.clear()
        return {name: values[i::count] for i, name in enumerate(self._columns)}


class RowBuilder(BatchBuilder):
    """Rows of events alone."""

    columns: ClassVar[tuple[str, ...]]

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self._values = RowValues(self.columns)

    def __len__(self) -> int:
        return len(self._values)

    def _drain(self) -> dict[str, Any]:
        return self._values.drain()
