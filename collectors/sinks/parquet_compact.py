"""Small Parquet files of one partition become one, and no reader sees a row twice or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from collectors.disk import Lock, exchange, sync
from collectors.sinks.parquet_file import ParquetFile

COMPACT_FILES = 16
SMALL_BYTES = 32 << 20


class Limits(Protocol):
    """When files are merged, and into what."""

    row_group_rows: int
    compact_files: int
    small_bytes: int


def compact(root: Path, where: Path, scratch: Path, label: str, limits: Limits) -> Path | None:
    """Merge the small live files of the partition `root / where`, if it has enough of them.

    The merged file is called by the time of its first row and `label`; None if there was nothing to
    do, or another process was first. `scratch` is a directory for this alone, on the same file
    system.
    """
    inputs = _small_files(root / where, limits.small_bytes)
    if len(inputs) < limits.compact_files:
        return None
    schema = pq.read_schema(inputs[-1])
    inputs = [path for path in inputs if pq.read_schema(path).equals(schema)]
    name = f"{_first_ns(inputs[0])}-{label}.parquet"
    shutil.rmtree(scratch, ignore_errors=True)
    new = scratch / "partition"
    new.mkdir(parents=True)
    _merge(inputs, ParquetFile(new / name, schema, limits.row_group_rows))
    done = _replace(root, root / where, new, inputs)
    # The old partition stays in `scratch` until the next merge: a listing that began in it ends.
    return root / where / name if done else None


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
