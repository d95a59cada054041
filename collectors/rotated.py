"""Lines appended to a file that rotates, compressed or not, and that a crash does not spoil.

`FILE` is always the newest part; when it has grown to `rotate_bytes`, or `rotate_s` after it was
opened, it becomes `STEM-{UTC time}.EXT`, so names sort in the order of writing. With `.zst` at the
end of its name every write is one zstd frame: whatever is in the file when a process dies can be
read but for the last write. Opening a file that was cut off keeps its whole lines and removes the
rest, so every tool can read it, and appends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from collectors.disk import Lock, cannot_write, sync
from collectors.errors import SinkError

ROTATE_BYTES = 256 << 20
ROTATE_S = 3600.0
_WRITE_BYTES = 1 << 20  # compresses well, and takes a few milliseconds
_LEVEL = 3
_CHUNK = 1 << 18
_REMEDY = "what was flushed is safe; make room or choose another file, then start again"


class RotatedFile:
    """One file being written; one thread may `append` while another `flush`es."""

    def __init__(
        self,
        path: Path | str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_s: float = ROTATE_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open or create `path`, mended if a crash has cut it off."""
        self.path = Path(path)
        self.files: list[Path] = []
        """The parts finished so far."""
        self.mended_bytes = 0
        """Size of the unfinished end that an earlier crash left and that was removed."""
        self._rotate_bytes = rotate_bytes
        self._rotate_ns = int(rotate_s * 1e9)
        self._clock = clock
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._lines_lock = threading.Lock()
        self._disk_lock = threading.Lock()
        self._zstd = self.path.suffix == ".zst"
        self._failure: SinkError | None = None
        self._closed = False
        if self.path.suffix in (".gz", ".bz2", ".xz"):
            raise SinkError(f"{self.path}: cannot append to such a file; name it .zst, or plainly")
        try:
            self._open()
        except OSError as error:
            raise cannot_write(self.path, error, "choose another file") from error

    def append(self, line: bytes) -> None:
        """Take a line with its end; it is on its way to the disk, safe after `flush`."""
        with self._lines_lock:
            self._lines.append(line)
            self._waiting_bytes += len(line)
        if self._waiting_bytes >= _WRITE_BYTES:
            self._run(self._write)

    def flush(self) -> None:
        """Force all lines to the disk, and rotate if it is time."""
        self._run(self._flush)

    def close(self) -> None:
        """Flush and let go; a second call does nothing."""
        if not self._closed:
            try:
                self.flush()
            finally:
                self._closed = True
                self._file.close()
                self._lock.release()

    def _run(self, work: Callable[[], None]) -> None:
        """One step on the disk: its failure is final, and says what to do."""
        with self._disk_lock:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise SinkError(f"{self.path}: is closed; open it again")
            try:
                work()
            except OSError as error:
                self._failure = cannot_write(self.path, error, _REMEDY)
                raise self._failure from error

    def _write(self) -> None:
        with self._lines_lock:
            lines, self._lines = self._lines, []
            self._waiting_bytes = 0
        if not lines:
            return
        self._put(b"".join(lines))
        if self._size >= self._rotate_bytes:
            self._rotate()

    def _put(self, data: bytes) -> None:
        if self._zstd:
            data = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += len(data)
        self._unsafe = True

    def _flush(self) -> None:
        self._write()
        if self._unsafe:
            os.fsync(self._file.fileno())
            self._unsafe = False
        if self._size and self._clock() - self._opened_ns >= self._rotate_ns:
            self._rotate()

    def _rotate(self) -> None:
        os.fsync(self._file.fileno())
        finished = self._finished_name()
        os.rename(self.path, finished)
        self.files.append(finished)
        self._file.close()
        self._lock.release()
        self._open()

    def _finished_name(self) -> Path:
        compression = ".zst" if self._zstd else ""
        inner = Path(self.path.name.removesuffix(compression))
        now = self._clock()
        while True:
            second, fraction = divmod(now, 1_000_000_000)
            stamp = f"{datetime.fromtimestamp(second, UTC):%Y%m%dT%H%M%S}.{fraction:09d}Z"
            path = self.path.with_name(f"{inner.stem}-{stamp}{inner.suffix}{compression}")
            if not path.exists():
                return path
            now += 1

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)
        self._lock = Lock(self.path)
        try:
            if not self._lock.acquire(wait=False):
                raise SinkError(f"{self.path}: another process writes to it; choose another file")
            self._opened_ns = self._clock()
            self._size = self.path.stat().st_size
            self._unsafe = False
            if self._size:
                self._mend()
            sync(self.path.parent)
        except BaseException:
            self._file.close()
            self._lock.release()
            raise

    def _mend(self) -> None:
        """Cut off the unfinished end, and write the whole lines that it holds again."""
        whole, lines = (_whole_frames if self._zstd else _whole_lines)(self.path)
        if whole == self._size:
            return
        self.mended_bytes = self._size - whole
        os.truncate(self.path, whole)
        self._size = whole
        if lines:
            self._put(lines)


def _whole_lines(path: Path) -> tuple[int, bytes]:
    """Where the last whole line of a plain file ends."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _CHUNK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1, b""
            end = start
    return 0, b""


def _whole_frames(path: Path) -> tuple[int, bytes]:
    """Where the last whole zstd frame ends, and the whole lines of the unfinished one after it."""
    whole = read = 0
    plain: list[bytes] = []
    stream = zstandard.ZstdDecompressor().decompressobj()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            read += len(chunk)
            while chunk:
                try:
                    plain.append(stream.decompress(chunk))
                except zstandard.ZstdError as error:
                    raise _no_frame(path, whole, error) from error
                if not stream.eof:
                    break
                chunk = stream.unused_data
                whole = read - len(chunk)
                plain = []
                stream = zstandard.ZstdDecompressor().decompressobj()
    kept = b"".join(plain)
    return whole, kept[: kept.rfind(b"\n") + 1]


def _no_frame(path: Path, offset: int, error: zstandard.ZstdError) -> SinkError:
    return SinkError(
        f"{path}: is damaged after byte {offset} ({error}); "
        "move it away, what is before can be read"
    )
