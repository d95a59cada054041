"""Canonical batches as a Parquet dataset: `DIR/{channel}/exchange=.../date=.../*.parquet`.

`date` is the UTC date of `recv_ts`. The exchange is in the path and therefore not in the files:
every reader of hive-partitioned datasets gives it back as a column.

Rows come in *runs* (for a replay: one recording). A run's files are written aside, in
`DIR/.staging-{run}`, and renamed into place when the run is complete, so a reader sees finished
files only and a run that fails leaves none. File names are `{run}-{part}.parquet`. Writing a run
again replaces its files and removes those it no longer has: rows are never there twice, however
often and however far a run is repeated. The same rows give the same bytes, however they are cut
into batches. Two processes must not write the same run at the same time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.errors import SinkError
from collectors.schema import SCHEMAS

ROW_GROUP_ROWS = 131_072  # about 10 MB in memory: scans stream, statistics still skip
FILE_ROWS = 8_388_608
_DAY_NS = 86_400_000_000_000


class ParquetSink:
    """A dataset that runs are written to."""

    def __init__(
        self,
        root: Path | str,
        exchange: str,
        channels: Iterable[str],
        *,
        row_group_rows: int = ROW_GROUP_ROWS,
        file_rows: int = FILE_ROWS,
    ) -> None:
        """`channels` are those that a run owns: its earlier files of other channels stay."""
        self.root = Path(root)
        self.exchange = exchange
        self.channels = tuple(channels)
        self.row_group_rows = row_group_rows
        self.file_rows = file_rows

    @contextmanager
    def run(self, name: str) -> Iterator[ParquetRun]:
        """Write the run `name`: committed when the block ends, discarded when it raises."""
        staging = self.root / f".staging-{name}"
        try:
            shutil.rmtree(staging, ignore_errors=True)  # of a killed process
            staging.mkdir(parents=True)
        except OSError as error:
            raise SinkError(
                f"{self.root}: cannot write there: {error.strerror}; choose another directory"
            ) from error
        run = ParquetRun(self, name, staging)
        try:
            yield run
            run.commit()
        finally:
            run.close()
            shutil.rmtree(staging, ignore_errors=True)


class ParquetRun:
    """One run in the making; see `ParquetSink.run`."""

    def __init__(self, sink: ParquetSink, name: str, staging: Path) -> None:
        self.files: list[Path] = []
        """The finished files, once committed."""
        self._sink = sink
        self._name = name
        self._staging = staging
        self._channels = {
            channel: _Channel(sink, name, staging, channel) for channel in sink.channels
        }

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        """Append a canonical batch, whose `recv_ts` continues the channel's."""
        self._channels[channel].write(batch)

    def commit(self) -> None:
        """Finish the files and put them in place."""
        staged = sorted(path for c in self._channels.values() for path in c.finish())
        targets = {path: self._sink.root / path.relative_to(self._staging) for path in staged}
        for path, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        for directory in {target.parent for target in targets.values()}:
            _sync(directory)
        self.files = sorted(targets.values())
        for channel in self._sink.channels:
            partitions = self._sink.root / channel / f"exchange={self._sink.exchange}"
            for path in partitions.glob(f"date=*/{self._name}-*.parquet"):
                if path not in self.files:
                    path.unlink()

    def close(self) -> None:
        """Let go of open files."""
        for channel in self._channels.values():
            channel.close()


class _Channel:
    """The files of one channel: cuts batches by UTC date, row group and file."""

    def __init__(self, sink: ParquetSink, run: str, staging: Path, channel: str) -> None:
        self._sink = sink
        self._run = run
        self._directory = staging / channel / f"exchange={sink.exchange}"
        schema = SCHEMAS[channel]
        self._schema = schema.remove(schema.get_field_index("exchange"))
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._day = -1
        self._file_rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        batch = batch.select(self._schema.names)
        days = batch.column("recv_ts").cast(pa.int64()).to_numpy(zero_copy_only=False) // _DAY_NS
        while len(days):
            count = int(np.searchsorted(days, days[0], side="right"))
            if days[0] != self._day:
                self._end_file()
                self._day = int(days[0])
            self._append(batch.slice(0, count))
            batch, days = batch.slice(count), days[count:]

    def finish(self) -> list[Path]:
        """The staged files, complete."""
        self._end_file()
        return self._paths

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _append(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        while self._pending_rows >= self._sink.row_group_rows:
            self._write_group(self._sink.row_group_rows)
            if self._file_rows >= self._sink.file_rows:
                self._close_file()

    def _write_group(self, rows: int) -> None:
        table = pa.Table.from_batches(self._pending, self._schema)
        rest = table.slice(rows)
        self._pending = rest.to_batches()
        self._pending_rows = rest.num_rows
        group = _own_dictionaries(table.slice(0, rows))
        if self._writer is None:
            self._writer = self._new_writer()
        self._writer.write_table(group, row_group_size=rows)
        self._file_rows += rows

    def _new_writer(self) -> pq.ParquetWriter:
        date = np.datetime64(self._day, "D")
        path = self._directory / f"date={date}" / f"{self._run}-{len(self._paths):04d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._paths.append(path)
        return pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=3)

    def _end_file(self) -> None:
        if self._pending_rows:
            self._write_group(self._pending_rows)
        self._close_file()

    def _close_file(self) -> None:
        if self._writer is not None:
            self.close()
            _sync(self._paths[-1])
        self._file_rows = 0


def _own_dictionaries(table: pa.Table) -> pa.Table:
    """Dictionaries in order of appearance in this table, whatever batches it came in."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(i).cast(field.type.value_type).combine_chunks()
            table = table.set_column(i, field, plain.dictionary_encode())
    return table


def _sync(path: Path) -> None:
    """Force a file, or a directory's entries, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for a directory
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
