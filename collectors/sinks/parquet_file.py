"""One Parquet file of canonical rows, written batch by batch in row groups of one size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.disk import sync
from collectors.schema import SCHEMAS

ROW_GROUP_ROWS = 131_072  # about 10 MB in memory: scans stream, statistics still skip
FILE_ROWS = 8_388_608
_DAY_NS = 86_400_000_000_000


def file_schema(channel: str) -> pa.Schema:
    """The columns in a file of `channel`: the exchange is in its path."""
    schema = SCHEMAS[channel]
    return schema.remove(schema.get_field_index("exchange"))


def partition(channel: str, exchange: str, day: int) -> Path:
    """Where a dataset keeps a channel's rows of a UTC day, counted since 1970."""
    return Path(channel, f"exchange={exchange}", f"date={np.datetime64(day, 'D')}")


def by_day(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batch cut where the UTC day of `recv_ts` changes."""
    days = batch.column("recv_ts").view(pa.int64()).to_numpy() // _DAY_NS
    if len(days) and days[0] == days[-1] and (days == days[0]).all():
        yield int(days[0]), batch
        return
    starts = np.flatnonzero(np.diff(days, prepend=-1)) if len(days) else days
    for start, end in zip(starts, [*starts[1:], len(days)], strict=True):
        yield int(days[start]), batch.slice(start, end - start)


class ParquetFile:
    """A file in the making; the same rows give the same bytes, however they are cut."""

    def __init__(self, path: Path, schema: pa.Schema, row_group_rows: int) -> None:
        self.path = path
        self.rows = 0
        """All rows taken, those that wait for their row group included."""
        self._schema = schema
        self._row_group_rows = row_group_rows
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)

    def write(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self.rows += batch.num_rows
        while self._pending_rows >= self._row_group_rows:
            self._write_group(self._row_group_rows)

    def bytes_written(self) -> int:
        """Size of the file so far."""
        return self.path.stat().st_size

    def finish(self) -> None:
        """Complete the file, on the disk."""
        if self._pending_rows:
            self._write_group(self._pending_rows)
        self.abandon()
        sync(self.path)

    def abandon(self) -> None:
        """Let go of the file; it is of no use unless finished."""
        self._writer.close()

    def _write_group(self, rows: int) -> None:
        table = pa.Table.from_batches(self._pending, self._schema)
        rest = table.slice(rows)
        self._pending = rest.to_batches()
        self._pending_rows = rest.num_rows
        self._writer.write_table(_own_dictionaries(table.slice(0, rows)), row_group_size=rows)


def _own_dictionaries(table: pa.Table) -> pa.Table:
    """Dictionaries in order of appearance in this table, whatever batches it came in."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(i).cast(field.type.value_type).combine_chunks()
            table = table.set_column(i, field, plain.dictionary_encode())
    return table
