"""The journal of an open Parquet file: an Arrow stream whose end may be missing after a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Journal:
    """Rows appended and forced to the disk, until the file they belong to is complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        # Arrow's own file: one of Python's would wait for the interpreter's lock at every buffer.
        self._file = pa.OSFile(str(path), "wb")
        self._descriptor = os.open(path, os.O_RDONLY)
        self._writer = pa.ipc.new_stream(self._file, schema, options=_OPTIONS)
        self._schema = schema
        self._synced = False

    def append(self, batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Add rows; small batches together are one, with one dictionary per column. Returns it."""
        table = pa.Table.from_batches(batches, self._schema).unify_dictionaries().combine_chunks()
        self._writer.write_table(table)
        self._synced = False
        return table.to_batches()

    def sync(self) -> None:
        """Force what was appended to the disk."""
        if not self._synced:
            os.fsync(self._descriptor)
            self._synced = True

    def remove(self) -> None:
        """The rows are elsewhere now."""
        self.close()
        self.path.unlink()

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            self._writer.close()
        finally:
            os.close(self._descriptor)
            self._file.close()


def read_journal(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a journal up to where a crash has cut it."""
    with pa.OSFile(str(path)) as file:
        try:
            stream = pa.ipc.open_stream(file)
        except pa.ArrowInvalid:
            return  # not even its schema was written
        while True:
            try:
                batch = stream.read_next_batch()
                batch.validate(full=True)
            except StopIteration:
                return
            except (pa.ArrowInvalid, OSError) as error:
                if getattr(error, "errno", None):
                    raise  # the disk fails, which is another matter
                return
            yield batch
