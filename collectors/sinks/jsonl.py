"""Rows as JSON lines: one file for all channels, rotated, plain or zstd (`.zst`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from collectors.rotated import ROTATE_BYTES, ROTATE_S, RotatedFile
from collectors.serialisation.json import json_lines
from collectors.sinks import Sink


class JsonlSink(Sink):
    """Appends `{"dataset": "trades", "ts": ..., ...}` per row; times are int64 nanoseconds UTC.

    The file rotates, and after a crash goes on, as `collectors.rotated` says.
    """

    name: ClassVar[str] = "jsonl"

    def __init__(
        self,
        path: Path | str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_s: float = ROTATE_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._file = RotatedFile(path, rotate_bytes=rotate_bytes, rotate_s=rotate_s, clock=clock)

    @property
    def files(self) -> list[Path]:
        """The finished parts, oldest first."""
        return self._file.files

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        self._file.append(json_lines(batch, dataset=channel))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
