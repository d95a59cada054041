"""Rows in a SQLite database: one table per channel, an event once however often it is written.

Columns are those of `collectors.schema`, with times as INTEGER nanoseconds since 1970 UTC, names as
TEXT and `is_snapshot` as 0 or 1. What makes two rows the same event, so that the later one replaces
the earlier:

- trades: `exchange, symbol, trade_id`.
- ticker, book, funding: `exchange, symbol, recv_ts, nth`; `nth` is an additional column that
  numbers the symbol's rows of one receive time from 0.
- gaps: `exchange, symbol, channel, end_ts, reason, from_seq`. A repaired gap is one row: `recv_ts`
  says when it was found, `recovered_ts` when it was repaired.

Tables are clustered by these keys, so a symbol's rows of a time span are read quickly; trades have
an index on `exchange, symbol, recv_ts` for that. The database is in WAL mode: readers never wait,
and a killed process loses what it had not flushed, nothing else. `PRAGMA user_version` is 1.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from collectors.errors import SinkError
from collectors.schema import SCHEMAS
from collectors.serialisation.json import plain_column
from collectors.sinks import Sink

VERSION = 1
_COMMIT_ROWS = 50_000  # bounds the journal and what readers wait for
_BUSY_S = 30.0
_KEYS = {
    "trades": ("exchange", "symbol", "trade_id"),
    "gaps": ("exchange", "symbol", "channel", "end_ts", "reason", "from_seq"),
}
_NUMBERED = ("exchange", "symbol", "recv_ts", "nth")


class SqliteSink(Sink):
    """A database that a feed is written to; other processes may write to it, too."""

    name: ClassVar[str] = "sqlite"

    def __init__(self, path: Path | str) -> None:
        """Open `path`, and create what it lacks."""
        self.path = Path(path)
        self._uncommitted = 0
        self._failure: SinkError | None = None
        self._numbering = {channel: _Numbering() for channel in SCHEMAS if channel not in _KEYS}
        self._inserts = {channel: _upsert(channel) for channel in SCHEMAS}
        self._connection: sqlite3.Connection | None = None
        try:
            # Made in one thread, used in another: the queue's, never by two at once.
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare(self._connection)
        except (sqlite3.Error, SinkError) as error:
            self._release()
            if isinstance(error, SinkError):
                raise
            raise SinkError(
                f"{self.path}: cannot be used as a SQLite database: {error}; choose another file"
            ) from error

    def last_trades(self, exchange: str) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        query = (
            "SELECT symbol, max(trade_id), recv_ts FROM trades WHERE exchange = ? GROUP BY symbol"
        )

        def read(connection: sqlite3.Connection) -> None:
            for symbol, trade_id, recv_ns in connection.execute(query, (exchange,)):
                found[symbol] = trade_id, recv_ns

        self._run(read)
        return found

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        rows: Iterator[tuple[Any, ...]] = zip(
            *(plain_column(batch.column(name)).to_pylist() for name in SCHEMAS[channel].names),
            strict=True,
        )
        if channel in self._numbering:
            rows = self._numbering[channel](rows)
        self._run(lambda connection: self._insert(connection, channel, rows, batch.num_rows))

    def flush(self) -> None:
        if self._uncommitted or self._failure is not None:
            self._run(self._commit)

    def close(self) -> None:
        if self._connection is not None:
            try:
                self.flush()
            finally:
                self._release()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != VERSION and (version or tables):
            raise SinkError(
                f"{self.path}: holds tables of another kind (user_version {version}, expected "
                f"{VERSION}); choose another file"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        for channel in SCHEMAS:
            for statement in _create(channel):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _insert(
        self,
        connection: sqlite3.Connection,
        channel: str,
        rows: Iterator[tuple[Any, ...]],
        count: int,
    ) -> None:
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        connection.executemany(self._inserts[channel], rows)
        self._uncommitted += count
        if self._uncommitted >= _COMMIT_ROWS:
            self._commit(connection)

    def _commit(self, connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")
        self._uncommitted = 0

    def _run(self, work: Callable[[sqlite3.Connection], None]) -> None:
        if self._failure is not None:
            raise self._failure
        if self._connection is None:
            raise SinkError(f"{self.path}: the sink is closed; make a new one")
        try:
            work(self._connection)
        except sqlite3.Error as error:
            self._failure = SinkError(
                f"{self.path}: cannot be written: {error}; what was flushed is safe, and rows may "
                f"be written again without harm"
            )
            raise self._failure from error

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Numbering:
    """Appends `nth` to rows: 0, 1, 2, ... within a symbol's receive time."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, int]] = {}

    def __call__(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        last = self._last
        for row in rows:
            recv_ts, exchange, symbol = row[1:4]
            before, nth = last.get((exchange, symbol), (-1, 0))
            nth = nth + 1 if recv_ts == before else 0
            last[exchange, symbol] = recv_ts, nth
            yield (*row, nth)


def _columns(channel: str) -> list[str]:
    return [*SCHEMAS[channel].names, *(() if channel in _KEYS else ("nth",))]


def _create(channel: str) -> Iterator[str]:
    """The statements that make a channel's table."""
    key = _KEYS.get(channel, _NUMBERED)
    columns = [
        f"{field.name} {_type(field.type)}{' NOT NULL' if field.name in key[:-1] else ''}"
        for field in SCHEMAS[channel]
    ]
    if channel == "gaps":  # `from_seq` may be null, and nulls are never equal in a key
        yield f"CREATE TABLE IF NOT EXISTS gaps ({', '.join(columns)}) STRICT"
        yield f"CREATE UNIQUE INDEX IF NOT EXISTS gaps_identity ON gaps ({_conflict(key)})"
        return
    if channel not in _KEYS:
        columns.append("nth INTEGER NOT NULL")
    columns.append(f"PRIMARY KEY ({', '.join(key)})")
    yield f"CREATE TABLE IF NOT EXISTS {channel} ({', '.join(columns)}) STRICT, WITHOUT ROWID"
    if channel == "trades":
        yield "CREATE INDEX IF NOT EXISTS trades_time ON trades (exchange, symbol, recv_ts)"


def _upsert(channel: str) -> str:
    columns = _columns(channel)
    key = _KEYS.get(channel, _NUMBERED)
    places = ", ".join("?" * len(columns))
    insert = f"INSERT INTO {channel} ({', '.join(columns)}) VALUES ({places})"
    if channel == "gaps":
        repaired = "recovered_ts = coalesce(excluded.recovered_ts, recovered_ts)"
        return f"{insert} ON CONFLICT ({_conflict(key)}) DO UPDATE SET {repaired}"
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"


def _conflict(key: Sequence[str]) -> str:
    return ", ".join([*key[:-1], f"ifnull({key[-1]}, -1)"])


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "TEXT"
    return "REAL" if pa.types.is_floating(kind) else "INTEGER"
