"""Small Parquet files of one partition become one, and no reader sees a row twice or not at all."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from collectors.disk import Lock, exchange, sync
from collectors.sinks.parquet_file import ParquetFile

COMPACT_FILES = 16
SMALL_BYTES = 32 << 20
RETIRED_S = 1.0  # a listing takes microseconds, unless its process waits for a processor


class Limits(Protocol):
    """When files are merged, and into what."""

    row_group_rows: int
    compact_files: int
    small_bytes: int


class Retired:
    """Partitions that a merge has replaced.

    A listing that began in one still reads it: its files go when `retired_s` have passed.
    """

    def __init__(
        self, retired_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._retired_s = retired_s
        self._clock = clock
        self._sleep = sleep
        self._left: deque[tuple[float, Path]] = deque()

    def add(self, directory: Path) -> None:
        """`directory` was replaced now."""
        self._left.append((self._clock() + self._retired_s, directory))

    def remove_due(self) -> None:
        """Remove those whose time has come."""
        now = self._clock() if self._left else 0.0
        while self._left and self._left[0][0] <= now:
            shutil.rmtree(self._left.popleft()[1])

    def wait(self) -> None:
        """Return when the time of all has come."""
        if self._left:
            self._sleep(max(0.0, self._left[-1][0] - self._clock()))


def compact(root: Path, where: Path, scratch: Path, label: str, limits: Limits) -> Path | None:
    """Merge the small live files of the partition `root / where`, if it has enough of them.

    The merged file is called by the time of its first row and `label`; None if there was nothing to
    do, or another process was first. `scratch`, on the same file system, is made for this; after a
    merge it is the old partition, to be removed when no listing is in it any more (`Retired`).
    """
    inputs = _small_files(root / where, limits.small_bytes)
    if len(inputs) < limits.compact_files:
        return None
    schema = pq.read_schema(inputs[-1])
    inputs = [path for path in inputs if pq.read_schema(path).equals(schema)]
    name = f"{_first_ns(inputs[0])}-{label}.parquet"
    scratch.mkdir(parents=True)
    _merge(inputs, ParquetFile(scratch / name, schema, limits.row_group_rows))
    if not _replace(root, root / where, scratch, inputs):
        shutil.rmtree(scratch)
        return None
    return root / where / name


def _small_files(directory: Path, small_bytes: int) -> list[Path]:
    """In the order of their rows. Files of replays are theirs to replace, and left alone."""
    files = directory.glob("*-live*.parquet")
    return sorted(
        (path for path in files if path.stat().st_size < small_bytes),
        key=lambda path: (_first_ns(path), path.name),
    )


def _first_ns(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _merge(inputs: list[Path], merged: ParquetFile) -> None:
    for path in inputs:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                merged.write(batch)
    merged.finish()


def _replace(root: Path, directory: Path, new: Path, inputs: list[Path]) -> bool:
    """Put `new` with all other files of `directory` in its place, in one step."""
    with Lock(root):  # nobody publishes into the old directory meanwhile
        if not all(path.exists() for path in inputs):
            return False
        for entry in directory.iterdir():
            if entry not in inputs:
                os.link(entry, new / entry.name)
        sync(new)
        exchange(new, directory)
        sync(directory.parent)
    return True
