"""A Parquet file that grows: its rows safe in a journal, its row groups encoded by a thread.

Encoding a row group takes a tenth of a second, which the rows that come meanwhile do not wait for;
they do if they fill the next one before. The thread gives way to whoever else needs the processor:
nobody waits for a row group, but everybody for the rows.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from collectors.disk import publish
from collectors.sinks.parquet_file import ParquetFile
from collectors.sinks.parquet_journal import Journal

_JOURNAL_ROWS = 8192  # at once: those of a whole second would take too long to wait for
_NICENESS = 10


def make_encoder(name: str) -> ThreadPoolExecutor:
    """The thread that encodes row groups of any number of files."""
    return ThreadPoolExecutor(1, name, _give_way)


def _give_way() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class OpenFile:
    """A file that is not published yet: Parquet in the making, and the journal that protects it."""

    def __init__(
        self,
        ready: Path,
        schema: pa.Schema,
        row_group_rows: int,
        encoder: ThreadPoolExecutor,
        opened_s: float,
    ) -> None:
        self.ready = ready
        self.opened_s = opened_s
        self.rows = 0
        self.bytes_written = 0
        """Size of the Parquet file so far."""
        self._group_rows = row_group_rows
        self._parquet = ParquetFile(ready.with_suffix(".tmp"), schema, row_group_rows)
        self._encoder = encoder
        self._encoding: Future[int] | None = None
        self._unencoded = _Rows()
        self._journal = Journal(ready.with_suffix(".journal"), schema)
        self._unsafe = _Rows()

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; waits only if the row group before is not encoded yet."""
        self._note_encoding()
        self.rows += batch.num_rows
        self._unsafe.add(batch)
        fills_group = self._unencoded.count + self._unsafe.count >= self._group_rows
        if fills_group or self._unsafe.count >= _JOURNAL_ROWS:
            self._append()

    def _encode(self, batches: list[pa.RecordBatch]) -> int:
        """In the encoder's thread: the size of the file afterwards."""
        for batch in batches:
            self._parquet.write(batch)
        return self._parquet.bytes_written()

    def _await_encoding(self) -> None:
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            self.bytes_written = encoding.result()

    def _note_encoding(self) -> None:
        """If a row group is done, take its size or raise what went wrong."""
        if self._encoding is not None and self._encoding.done():
            self._await_encoding()

    def flush(self) -> None:
        """Force every row to the disk."""
        self._note_encoding()
        if self._unsafe.count:
            self._append()
        self._journal.sync()

    def finish(self) -> None:
        """Complete the Parquet file; from then on it counts and not the journal."""
        self._await_encoding()
        self._encode(self._unencoded.take() + self._unsafe.take())
        self._parquet.finish()
        publish(self._parquet.path, self.ready)
        self._journal.remove()

    def abandon(self) -> None:
        """Let go of the files; nothing runs in the encoder's thread any more."""
        try:
            self._parquet.abandon()
        finally:
            self._journal.close()

    def _append(self) -> None:
        # Large batches made of the small ones: to let go of a row group's worth of these takes 15
        # ms, in which no other thread gets a turn.
        for batch in self._journal.append(self._unsafe.take()):
            self._unencoded.add(batch)
        if self._unencoded.count >= self._group_rows:
            self._await_encoding()
            self._encoding = self._encoder.submit(self._encode, self._unencoded.take())


class _Rows:
    """Batches that wait for something."""

    def __init__(self) -> None:
        self.count = 0
        self._batches: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        self.count += batch.num_rows
        self._batches.append(batch)

    def take(self) -> list[pa.RecordBatch]:
        batches, self._batches = self._batches, []
        self.count = 0
        return batches
