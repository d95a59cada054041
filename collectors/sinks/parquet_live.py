"""A live feed as a Parquet dataset: `DIR/{channel}/exchange=.../date=.../*.parquet`.

The layout is the replay's (`parquet.py`). Rows become visible in finished files of a useful size:
a file ends after `rotate_s`, at `file_rows` or `file_bytes`, and on `close`. Until then its rows
are in a journal, which every `flush` forces to the disk. Files that stay small (restarts, quiet
channels) are merged into one when a partition holds `compact_files` of them.

After a crash the next sink on the same directory finds the journals and publishes their rows: what
was flushed is there once, what was not is lost. Several processes may write into one directory.

    DIR/.live-{run}/                         locked by its process; hidden from readers of datasets
        {channel}/exchange=.../date=.../
            {name}.journal                   Arrow stream: every flushed row of the open file
            {name}.tmp                       the Parquet file in the making
            {name}.parquet                   the same complete: decides, the journal is void
        compact/{name}/                      a partition in the making, to be exchanged for its own;
                                             then the old one, until no listing is in it any more

Writing takes rows and returns: a thread encodes row groups while the next one is collected.

A merge exchanges the whole partition in one step: a reader that lists the directory finds every row
once, before and after.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from collectors.disk import Lock, cannot_write, exchange, publish
from collectors.errors import SinkError
from collectors.sinks import Sink, by_exchange
from collectors.sinks.parquet_compact import COMPACT_FILES, RETIRED_S, SMALL_BYTES, Retired, compact
from collectors.sinks.parquet_file import (
    FILE_ROWS,
    ROW_GROUP_ROWS,
    ParquetFile,
    by_day,
    file_schema,
    partition,
)
from collectors.sinks.parquet_history import last_trades
from collectors.sinks.parquet_journal import read_journal
from collectors.sinks.parquet_open import OpenFile, make_encoder

FILE_BYTES = 256 << 20
ROTATE_S = 900.0
_REMEDY = "what was flushed is safe; make room or choose another directory, then start again"


class LiveParquetSink(Sink):
    """A dataset that a live feed is written to."""

    name: ClassVar[str] = "parquet"

    def __init__(
        self,
        root: Path | str,
        *,
        rotate_s: float = ROTATE_S,
        row_group_rows: int = ROW_GROUP_ROWS,
        file_rows: int = FILE_ROWS,
        file_bytes: int = FILE_BYTES,
        compact_files: int = COMPACT_FILES,
        small_bytes: int = SMALL_BYTES,
        retired_s: float = RETIRED_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Recover what a killed process left in `root`, and begin.

        A partition that was replaced by a merge stays on the disk for `retired_s`: `close` waits
        for that after a merge of its own.
        """
        self.root = Path(root)
        self.rotate_s = rotate_s
        self.row_group_rows = row_group_rows
        self.file_rows = file_rows
        self.file_bytes = file_bytes
        self.compact_files = compact_files
        self.small_bytes = small_bytes
        self.files: list[Path] = []
        """The files published so far; some may have been merged since."""
        self.recovered_rows = 0
        """Rows that a killed process had flushed and not published."""
        self._clock = clock
        self._retired = Retired(retired_s, clock, sleep)
        self._run = uuid.uuid4().hex[:8]
        self._open: dict[Path, OpenFile] = {}
        self._encoder = make_encoder(f"parquet-{self._run}")
        self._parts = 0
        self._staging = self.root / f".live-{self._run}"
        self._lock = Lock(self._staging)
        self._failure: SinkError | None = None
        self._closed = False
        try:
            self._start()
        except OSError as error:
            raise cannot_write(self.root, error, "choose another directory") from error

    def _start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with Lock(self.root):  # nobody takes a run for dead before it has its own lock
            self._staging.mkdir()
            self._lock.acquire(wait=True)
            left = [path for path in self.root.glob(".live-*") if path != self._staging]
            dead = [lock for lock in map(Lock, left) if _is_dead(lock)]
        if self.compact_files:
            self._check_exchange()
        for lock in dead:
            self._recover(lock.path)
            lock.release()

    def _check_exchange(self) -> None:
        one, other = self._staging / "one", self._staging / "other"
        one.mkdir()
        other.mkdir()
        try:
            exchange(one, other)
        except OSError as error:
            raise cannot_write(
                self.root,
                error,
                "the file system cannot exchange directories; use a local one, or compact_files=0",
            ) from error
        one.rmdir()
        other.rmdir()

    def last_trades(self, exchange: str) -> dict[str, tuple[int, int]]:
        return last_trades(self.root / "trades" / f"exchange={exchange}")

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        with self._guarded():
            for exchange, rows in by_exchange(batch):
                rows = rows.select(file_schema(channel).names)
                for day, part in by_day(rows):
                    self._append(partition(channel, exchange, day), channel, part)

    def flush(self) -> None:
        """Force what was written to the disk, and publish the files whose time has come."""
        with self._guarded():
            self._retired.remove_due()
            for where, file in list(self._open.items()):
                if self._clock() - file.opened_s >= self.rotate_s:
                    self._publish(where)
                else:
                    file.flush()

    def close(self) -> None:
        """Publish everything; the directory is then as if nothing were ever open."""
        if self._closed:
            return
        try:
            with self._guarded():
                for where in list(self._open):
                    self._publish(where)
                self._retired.wait()
                shutil.rmtree(self._staging)
        finally:
            self._closed = True
            self._encoder.shutdown()
            for file in self._open.values():
                with contextlib.suppress(OSError):  # after a failure, which was reported
                    file.abandon()
            self._open = {}
            self._lock.release()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One operation: its failure is final, and says what to do."""
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise SinkError(f"{self.root}: the sink is closed; make a new one")
        try:
            yield
        except OSError as error:
            self._failure = cannot_write(self.root, error, _REMEDY)
            raise self._failure from error

    def _append(self, where: Path, channel: str, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if where not in self._open:
                first_ns = batch.column("recv_ts")[0].value
                name = f"{first_ns}-{self._label()}"
                ready = self._staging / where / f"{name}.parquet"
                schema = file_schema(channel)
                self._open[where] = OpenFile(
                    ready, schema, self.row_group_rows, self._encoder, self._clock()
                )
            file = self._open[where]
            rows = batch.slice(0, self.file_rows - file.rows)
            file.write(rows)
            batch = batch.slice(rows.num_rows)
            if file.rows >= self.file_rows or file.bytes_written >= self.file_bytes:
                self._publish(where)

    def _label(self) -> str:
        """The end of a file's name: no two processes, and no replay, choose the same."""
        self._parts += 1
        return f"live{self._run}-{self._parts:04d}"

    def _publish(self, where: Path) -> None:
        file = self._open[where]
        file.finish()
        del self._open[where]
        self._place(where, file.ready)

    def _place(self, where: Path, ready: Path) -> None:
        target = self.root / where / ready.name
        with Lock(self.root):
            publish(ready, target)
        self.files.append(target)
        if self.compact_files:
            label = self._label()
            scratch = self._staging / "compact" / label
            if compact(self.root, where, scratch, label, self):
                self._retired.add(scratch)

    def _recover(self, staging: Path) -> None:
        """Publish what the dead process of `staging` had flushed."""
        for temporary in staging.glob("*/*/*/*.tmp"):
            temporary.unlink()
        for ready in staging.glob("*/*/*/*.parquet"):
            ready.with_suffix(".journal").unlink(missing_ok=True)
        for journal in sorted(staging.glob("*/*/*/*.journal")):
            self._rebuild(journal, journal.relative_to(staging).parts[0])
        for ready in sorted(staging.glob("*/*/*/*.parquet")):
            self._place(ready.parent.relative_to(staging), ready)
        shutil.rmtree(staging)

    def _rebuild(self, journal: Path, channel: str) -> None:
        temporary = journal.with_suffix(".tmp")
        file = ParquetFile(temporary, file_schema(channel), self.row_group_rows)
        for batch in read_journal(journal):
            file.write(batch)
        file.finish()
        if file.rows:
            publish(temporary, journal.with_suffix(".parquet"))
        else:
            temporary.unlink()
        journal.unlink()
        self.recovered_rows += file.rows


def _is_dead(lock: Lock) -> bool:
    """Whether the run's process is gone, and nobody else recovers the run; then it is ours."""
    try:
        mine = lock.acquire(wait=False)
    except FileNotFoundError:
        return False
    if mine and not lock.path.exists():
        lock.release()
        return False
    return mine
