"""What a queue does with batches that wait: merged, quotes conflated, or spilled to disk."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

_SEGMENT_BYTES = 32 << 20
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


def merge(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """All rows as one batch."""
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]


def conflate(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Ticker batches as one, without the quotes that a later row of their symbol supersedes.

    Executions all stay, and rows stay in order: a ticker row says the quote in force, so what is
    known after the last row is the same.
    """
    batch = merge(batches)
    exchange, symbol = batch.column("exchange"), batch.column("symbol")
    codes = exchange.indices.to_numpy() * len(symbol.dictionary) + symbol.indices.to_numpy()
    keep = batch.column("price").is_valid().to_numpy(zero_copy_only=False)
    _, last = np.unique(codes[::-1], return_index=True)
    keep[len(codes) - 1 - last] = True
    return batch.filter(pa.array(keep))


class Spill:
    """Batches in temporary files, first in first out; the files vanish with the process."""

    def __init__(self, directory: Path | None, max_bytes: int) -> None:
        self.rows = 0
        """Rows waiting on disk."""
        self.bytes = 0
        """Size of the files."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._segments: deque[_Segment] = deque()

    def __len__(self) -> int:
        """Batches waiting on disk."""
        return sum(len(segment.waiting) for segment in self._segments)

    def put(self, channel: str, batch: pa.RecordBatch) -> bool:
        """Whether there was room for the batch."""
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, batch.schema, options=_OPTIONS) as stream:
            stream.write_batch(batch)
        data = buffer.getvalue()
        if self.bytes + data.size > self._max_bytes:
            return False
        if not self._segments or self._segments[-1].size >= _SEGMENT_BYTES:
            self._segments.append(_Segment(self._directory))
        self._segments[-1].append(channel, data, batch.num_rows)
        self.bytes += data.size
        self.rows += batch.num_rows
        return True

    def get(self) -> tuple[str, pa.RecordBatch]:
        """The oldest batch."""
        segment = self._segments[0]
        channel, batch = segment.pop()
        self.rows -= batch.num_rows
        if not segment.waiting:
            self._segments.popleft()
            self.bytes -= segment.size
            segment.file.close()
        return channel, batch

    def close(self) -> None:
        """Forget what is left."""
        for segment in self._segments:
            segment.file.close()
        self._segments.clear()
        self.rows = self.bytes = 0


class _Segment:
    """One temporary file of batches."""

    def __init__(self, directory: Path | None) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        self.size = 0
        self.waiting: deque[tuple[str, int, int]] = deque()

    def append(self, channel: str, data: pa.Buffer, rows: int) -> None:
        self.file.seek(self.size)
        self.file.write(data)
        self.waiting.append((channel, self.size, data.size))
        self.size += data.size

    def pop(self) -> tuple[str, pa.RecordBatch]:
        channel, start, size = self.waiting.popleft()
        self.file.seek(start)
        with pa.ipc.open_stream(self.file.read(size)) as stream:
            return channel, stream.read_next_batch()
