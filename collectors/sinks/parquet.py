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

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from collectors.disk import Lock, cannot_write, sync
from collectors.sinks.parquet_file import (
    FILE_ROWS,
    ROW_GROUP_ROWS,
    ParquetFile,
    by_day,
    file_schema,
    partition,
)


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
            raise cannot_write(self.root, error, "choose another directory") from error
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
        with Lock(self._sink.root):
            self._place({p: self._sink.root / p.relative_to(self._staging) for p in staged})

    def _place(self, targets: dict[Path, Path]) -> None:
        for path, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        for directory in {target.parent for target in targets.values()}:
            sync(directory)
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
        self._staging = staging
        self._channel = channel
        self._schema = file_schema(channel)
        self._paths: list[Path] = []
        self._file: ParquetFile | None = None
        self._day = -1

    def write(self, batch: pa.RecordBatch) -> None:
        for day, rows in by_day(batch.select(self._schema.names)):
            if day != self._day:
                self._end_file()
                self._day = day
            self._append(rows)

    def finish(self) -> list[Path]:
        """The staged files, complete."""
        self._end_file()
        return self._paths

    def close(self) -> None:
        if self._file is not None:
            self._file.abandon()
            self._file = None

    def _append(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if self._file is None:
                self._file = self._new_file()
            rows = batch.slice(0, self._sink.file_rows - self._file.rows)
            self._file.write(rows)
            batch = batch.slice(rows.num_rows)
            if self._file.rows >= self._sink.file_rows:
                self._end_file()

    def _new_file(self) -> ParquetFile:
        directory = self._staging / partition(self._channel, self._sink.exchange, self._day)
        path = directory / f"{self._run}-{len(self._paths):04d}.parquet"
        self._paths.append(path)
        return ParquetFile(path, self._schema, self._sink.row_group_rows)

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.finish()
            self._file = None
