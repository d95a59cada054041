"""Output files that are there completely or not at all."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import PipelineError, first_line

COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1


class StagedFile:
    """A path to write to under a temporary name; `publish` gives it its own.

    Leaving the `with` block removes the temporary file, if it was not published.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            if self.path.is_dir():
                raise PipelineError(f"{self.path}: is a folder; give the name of a file")
            if not self.path.parent.is_dir():
                raise PipelineError(f"{self.path}: cannot be written: no folder {self.path.parent}")
            # Creating it now finds an unwritable place before hours of work, not after.
            self.temporary.touch()
        except OSError as error:
            raise PipelineError(f"{self.path}: cannot be written: {error.strerror}") from error

    def publish(self) -> None:
        """Make the file durable and give it its name, replacing an older one."""
        with self.temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.temporary, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.temporary.unlink(missing_ok=True)


class ParquetSink(StagedFile):
    """Arrow batches into a staged Parquet file; one row group per batch.

    A batch is encoded while the next one is computed: encoding takes about as long as computing,
    and holding one batch is all it costs. An error of writing is raised by the next call.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows of `batch`; the first one gives the schema."""
        self._wait()
        self._pending = self._thread.submit(self._encode, batch)
        self.rows += batch.num_rows

    def publish(self) -> None:
        """Finish the file, make it durable and give it its name."""
        self._wait()
        self._close()
        super().publish()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        self._close()
        super().__exit__(kind, error, trace)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _encode(self, batch: pa.RecordBatch) -> None:
        try:
            if self._writer is None:
                self._writer = self._open(batch.schema)
            self._writer.write_batch(batch, row_group_size=max(1, batch.num_rows))
        except OSError as error:
            raise PipelineError(f"{self.path}: cannot be written: {first_line(error)}") from error

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        # Dictionaries pay for text; on float64 features they cost time and save nothing.
        text = [field.name for field in schema if not pa.types.is_primitive(field.type)]
        return pq.ParquetWriter(
            self.temporary,
            schema,
            compression=COMPRESSION,
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=text,
        )

    def _close(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.close()
        except OSError as error:
            raise PipelineError(f"{self.path}: cannot be written: {first_line(error)}") from error
