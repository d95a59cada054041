"""Raw recordings -> canonical Parquet datasets, through the same adapter that a live feed uses.

Each recording is one run of the sink (`sinks/parquet.py`), named by its first frame: replaying it
again, from a copy, or after it has grown replaces its rows and never doubles them. It is committed
when it has been read to the end; one that turns out damaged leaves nothing behind.

Several recordings are one connection's log in rotated files, given in the order of recording: the
quotes in force carry over from one to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from collectors.adapter import Adapter
from collectors.errors import DecodeError, RawError, ReplayError
from collectors.exchanges import make_adapter
from collectors.lot import Lot
from collectors.raw import RawReader
from collectors.session import Session
from collectors.sinks.parquet import ParquetRun, ParquetSink

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and in total, as stored on disk."""

_STEP_BACK_NS = 1_000_000_000
_FRAMES_PER_STEP = 4096
BLOCK = 1024
"""Frames decoded together; more are not faster."""
_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 65_536
_ERRORS_SHOWN = 20


class ReplayReport(msgspec.Struct):
    """What a replay read and wrote."""

    frames: int = 0
    events: dict[str, int] = {}
    """Events by kind: Trade, Quote, BookUpdate, Ack, Gap, ..."""
    rows: dict[str, int] = {}
    """Rows written by channel."""
    ignored: dict[str, int] = {}
    """Frames of streams that are not decoded, by stream."""
    gaps: int = 0
    """Found missing or wrong; the dataset `gaps` says what."""
    duplicates: int = 0
    """Events that came twice and are kept once."""
    errors: int = 0
    """Frames that could not be decoded, and are in no dataset."""
    error_examples: list[str] = []
    """The first of them: file, line and reason."""
    truncated: int = 0
    """Recordings whose last line is unfinished; that line is left out."""
    clock_steps_back: int = 0
    """Frames stamped up to a second before their predecessor, and moved to its stamp."""
    first_recv_ns: int | None = None
    last_recv_ns: int | None = None
    files: list[Path] = []


def replay(
    paths: Iterable[Path | str],
    exchange: str,
    parquet: Path | str,
    *,
    channels: Sequence[str] | None = None,
    symbols: Path | str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ReplayReport:
    """Decode the recordings `paths` of `exchange` into the Parquet dataset at `parquet`.

    `channels`: which of ticker, trades, book, funding, gaps to write; by default all that the
    exchange has. `symbols`: a file with the exchange's own list of symbols (Binance: a saved
    `exchangeInfo` reply; Coinbase: one of `market/products`). A frame that cannot be
    decoded is counted and reported; with `strict` it is an error.

    Raises `RawError` for a damaged recording, `DecodeError` if strict, `SinkError` for an output
    that cannot be written, `OSError` if it fails later (disk full), `ReplayError` or another
    `CollectorError` for arguments that make no sense.
    """
    readers = [RawReader(path) for path in paths]
    if not readers:
        raise ReplayError("no recordings to replay: name at least one file")
    adapter = make_adapter(exchange, symbols)
    wanted = _channels(adapter, channels)
    for reader in readers:
        if not reader.path.is_file():
            raise ReplayError(f"{reader.path}: no such recording")
    return _Replay(adapter, ParquetSink(parquet, exchange, wanted), strict, progress).run(readers)


def _channels(adapter: Adapter, channels: Sequence[str] | None) -> tuple[str, ...]:
    known = (*adapter.channels, "gaps")
    for channel in channels or ():
        if channel not in known:
            raise ReplayError(
                f"channel {channel!r} does not come from {adapter.exchange}; "
                f"choose from {', '.join(known)}"
            )
    return known if channels is None else tuple(dict.fromkeys(channels))


class _Block(msgspec.Struct):
    """Frames that follow each other, the first one in line `line`."""

    line: int
    frames: list[bytes] = []
    recv_ns: list[int] = []
    size: int = 0
    ends_step: bool = False


class _Replay:
    def __init__(
        self, adapter: Adapter, sink: ParquetSink, strict: bool, progress: Progress | None
    ) -> None:
        self._session = Session(adapter, sink.channels)
        self._sink = sink
        self._strict = strict
        self._progress = progress
        self._latest = 0
        self._report = ReplayReport(rows=dict.fromkeys(sink.channels, 0))

    def run(self, readers: list[RawReader]) -> ReplayReport:
        report = self._report
        total = sum(reader.bytes_total for reader in readers)
        done = 0
        for reader in readers:
            self._recording(reader, done, total)
            report.truncated += reader.truncated
            done += reader.bytes_total
        if not report.frames:
            names = ", ".join(str(reader.path) for reader in readers)
            raise ReplayError(f"{names}: no frames in it, nothing to replay")
        report.last_recv_ns = self._latest
        session = self._session
        report.events = {kind.__name__: count for kind, count in session.events.items()}
        report.ignored = dict(session.ignored)
        report.gaps = session.integrity.gaps
        report.duplicates = session.integrity.duplicates
        return report

    def _recording(self, reader: RawReader, done: int, total: int) -> None:
        frames = iter(reader)
        first = next(frames, None)
        if first is None:
            return
        if self._report.first_recv_ns is None:
            self._report.first_recv_ns = first[0]
        with self._sink.run(_run_name(*first)) as run:
            for block in self._blocks(reader, chain((first,), frames)):
                self._decode(reader, block)
                if block.ends_step:
                    self._flush(run, _BATCH_ROWS)
                    if self._progress is not None:
                        self._progress(done + reader.bytes_read, total)
            self._flush(run, 1)
        self._report.files.extend(run.files)
        if self._progress is not None:
            self._progress(done + reader.bytes_total, total)

    def _blocks(self, reader: RawReader, frames: Iterable[tuple[int, bytes]]) -> Iterator[_Block]:
        """The frames in blocks to be decoded together, in order and as far as they can be read."""
        block = _Block(reader.line)
        try:
            for recv_ns, frame in frames:
                block.recv_ns.append(self._in_order(reader, recv_ns))
                block.frames.append(frame)
                block.size += len(frame)
                block.ends_step = reader.line % _FRAMES_PER_STEP == 0
                if block.ends_step or len(block.frames) == BLOCK or block.size > _BLOCK_BYTES:
                    yield block
                    block = _Block(reader.line + 1)
        except (RawError, ReplayError):
            yield block  # an error in it comes first
            raise
        yield block

    def _in_order(self, reader: RawReader, recv_ns: int) -> int:
        if recv_ns < self._latest:
            recv_ns = self._step_back(reader, recv_ns)
        self._latest = recv_ns
        return recv_ns

    def _decode(self, reader: RawReader, block: _Block) -> None:
        self._report.frames += len(block.frames)
        line = block.line
        for told in self._session.many(block.frames, block.recv_ns):
            if isinstance(told, DecodeError):
                self._undecoded(reader, line, told)
            line += told.in_columns if isinstance(told, Lot) else 1

    def _step_back(self, reader: RawReader, recv_ns: int) -> int:
        back_ns = self._latest - recv_ns
        if back_ns > _STEP_BACK_NS:
            raise ReplayError(
                f"{reader.path}: line {reader.line} was received {back_ns / 1e9:.3f} s before the "
                f"frame that precedes it; give recordings in the order of recording, and those of "
                f"parallel connections one by one"
            )
        self._report.clock_steps_back += 1
        return self._latest

    def _undecoded(self, reader: RawReader, line: int, error: DecodeError) -> None:
        message = f"{reader.path}: line {line}: {error}"
        if self._strict:
            raise DecodeError(message) from error
        self._report.errors += 1
        if len(self._report.error_examples) < _ERRORS_SHOWN:
            self._report.error_examples.append(message)

    def _flush(self, run: ParquetRun, at_least: int) -> None:
        for channel, batch in self._session.take(at_least):
            run.write(channel, batch)
            self._report.rows[channel] += batch.num_rows


def _run_name(recv_ns: int, frame: bytes) -> str:
    """Of a recording: when its first frame came, and a digest of it."""
    return f"{recv_ns}-{hashlib.blake2b(frame, digest_size=4).hexdigest()}"
