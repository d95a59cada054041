"""Which series a row belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa


@dataclass
class SeriesNames:
    """Numbers the series in order of appearance."""

    keys: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    _codes: dict[tuple[str, ...], int] = field(default_factory=dict)

    def codes(self, batch: pa.RecordBatch) -> pl.Series:
        """The number of each row's series."""
        if not self.keys:
            self._codes.setdefault((), 0)
            self.rows = [()]
            return pl.repeat(0, batch.num_rows, dtype=pl.UInt32, eager=True)
        frame = pl.DataFrame(pl.from_arrow(batch.select(list(self.keys)))).cast(pl.String)
        present = frame.unique(maintain_order=True)
        numbers = []
        for row in present.iter_rows():
            if row not in self._codes:
                self._codes[row] = len(self.rows)
                self.rows.append(row)
            numbers.append(self._codes[row])
        present = present.with_columns(pl.Series("code", numbers, dtype=pl.UInt32))
        joined = frame.join(
            present, on=list(self.keys), how="left", nulls_equal=True, maintain_order="left"
        )
        return joined["code"]

    def labels(self) -> list[str]:
        """A short name for each: parts that all series share are left out."""
        if not self.keys:
            return ["all rows"]
        parts = [i for i in range(len(self.keys)) if len({row[i] for row in self.rows}) > 1]
        parts = parts or [len(self.keys) - 1]
        return [" ".join(str(row[i]) for i in parts) for row in self.rows]
