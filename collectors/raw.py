"""Raw recordings: what a socket received, before anything understood it.

One frame per line: `<receive time, unix ns><space><frame>`, plain, gzip or zstd. Files are read by
their content, in bounded memory; they are written by their name (`.gz`, `.zst`): at once by
`write_frames`, as frames arrive by `RawLog`.

A recorder that was killed leaves an unfinished end: a last line without its newline, a compressed
stream that stops. What is whole is read and the unfinished line is counted in `truncated`. Damage
anywhere else is a `RawError` that names the file and the line.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import zstandard

from collectors.errors import RawError
from collectors.rotated import ROTATE_BYTES, ROTATE_S, RotatedFile

_CHUNK = 1 << 18
_LONGEST_LINE = 256 << 20  # a full-depth snapshot is 5 MB; beyond this it is no recording
_LATEST_NS = 2**63 - 1


class RawReader:
    """The frames of one recording: iterate to get (recv_ns, frame) pairs."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.line = 0
        """Number of the line read last, from 1."""
        self.bytes_read = 0
        """Bytes of the file consumed so far, as stored: for progress."""
        self.truncated = 0
        """1 if the recording stops short: an unfinished last line is left out."""
        self._stream_cut = False

    @property
    def bytes_total(self) -> int:
        """Size of the file as stored."""
        return self.path.stat().st_size

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        self.line = self.bytes_read = self.truncated = 0
        self._stream_cut = False
        rest = b""
        try:
            with self.path.open("rb") as file:
                for chunk in self._plain(file):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self.line += 1
                        yield self._frame(line)
                    if len(rest) > _LONGEST_LINE:
                        raise self._error(f"is longer than {_LONGEST_LINE >> 20} MiB", after=1)
        except OSError as error:
            raise RawError(f"{self.path}: cannot be read: {error.strerror}") from error
        yield from self._last(rest)

    def _last(self, rest: bytes) -> Iterator[tuple[int, bytes]]:
        """The end of the file after the last newline: whole, or cut off."""
        if not rest:
            self.truncated = int(self._stream_cut)
            return
        self.line += 1
        try:
            recv_ns, frame = self._frame(rest)
            msgspec.json.decode(frame, type=msgspec.Raw)
        except (RawError, msgspec.MsgspecError):
            self.truncated = 1
            return
        yield recv_ns, frame

    def _frame(self, line: bytes) -> tuple[int, bytes]:
        stamp, space, frame = line.partition(b" ")
        if stamp.isdigit() and space and len(stamp) < 20:
            recv_ns = int(stamp)
            if recv_ns <= _LATEST_NS:
                return recv_ns, frame.rstrip(b"\r")
        shown = repr(line[:60])[1:]
        raise self._error(f"is not '<recv_ns> <frame>': {shown}; the recording is damaged there")

    def _error(self, what: str, after: int = 0) -> RawError:
        return RawError(f"{self.path}: line {self.line + after} {what}")

    def _plain(self, file: IO[bytes]) -> Iterator[bytes]:
        """The file's content, decompressed, in chunks."""
        chunk = self._read(file)
        if chunk.startswith(b"\x1f\x8b"):
            yield from self._inflate(file, chunk, lambda: zlib.decompressobj(wbits=31))
        elif chunk.startswith(b"\x28\xb5\x2f\xfd"):
            yield from self._inflate(file, chunk, zstandard.ZstdDecompressor().decompressobj)
        else:
            while chunk:
                yield chunk
                chunk = self._read(file)

    def _read(self, file: IO[bytes]) -> bytes:
        chunk = file.read(_CHUNK)
        self.bytes_read += len(chunk)
        return chunk

    def _inflate(self, file: IO[bytes], chunk: bytes, new: Any) -> Iterator[bytes]:
        """Concatenated compressed streams, as appending recorders leave them."""
        stream = new()
        try:
            while chunk:
                yield stream.decompress(chunk)
                if stream.eof:
                    chunk = stream.unused_data or self._read(file)
                    if chunk:
                        stream = new()
                else:
                    chunk = self._read(file)
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._error(f"cannot be decompressed: {error}; the file is damaged", 1) from error
        self._stream_cut = not stream.eof


class RawLog:
    """A recording in the making: every frame as it came, before anything understands it.

    It rotates, and after a crash goes on, as `collectors.rotated` says. One thread may append while
    another flushes, so that no frame waits for the disk.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_s: float = ROTATE_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Append to `path`: zstd if it ends in `.zst`, else plain."""
        self.frames = 0
        self._file = RotatedFile(path, rotate_bytes=rotate_bytes, rotate_s=rotate_s, clock=clock)

    @property
    def path(self) -> Path:
        """The newest part; `files` are the finished ones."""
        return self._file.path

    @property
    def files(self) -> list[Path]:
        """The finished parts, oldest first."""
        return self._file.files

    def append(self, recv_ns: int, frame: bytes) -> None:
        """Take a frame; it is safe after the next `flush`."""
        self._file.append(b"%d %s\n" % (recv_ns, one_line(frame)))
        self.frames += 1

    def flush(self) -> None:
        """Force everything to the disk; call it every second or so."""
        self._file.flush()

    def close(self) -> None:
        """Flush and let go."""
        self._file.close()


def one_line(frame: bytes) -> bytes:
    """The frame without line breaks, which JSON allows only between tokens."""
    if b"\n" in frame or b"\r" in frame:
        return frame.replace(b"\r", b" ").replace(b"\n", b" ")
    return frame


def all_in_one_line(frames: Sequence[bytes]) -> Sequence[bytes]:
    """Each frame without line breaks."""
    joined = b"".join(frames)  # to look through one text is faster than through hundreds
    if b"\n" in joined or b"\r" in joined:
        return list(map(one_line, frames))
    return frames


def write_frames(path: Path | str, frames: Iterable[tuple[int, bytes]]) -> int:
    """Write a recording and return its number of frames; the file appears when it is complete.

    The same frames give the same bytes. A line break inside a frame, which JSON allows only
    between tokens, becomes a space.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    count = 0
    try:
        with temporary.open("wb") as file:
            with _compressed(file, path.suffix) as out:
                for recv_ns, frame in frames:
                    out.write(b"%d %s\n" % (recv_ns, one_line(frame)))
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _compressed(file: IO[bytes], suffix: str) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=9, mtime=0)
    if suffix == ".zst":
        return zstandard.ZstdCompressor(level=9).stream_writer(file, closefd=False)
    return contextlib.nullcontext(file)
