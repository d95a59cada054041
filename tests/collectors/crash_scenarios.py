"""What `crash.py` runs: each sink as it is used, writing rows numbered from 0."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.dataset as ds
from crash import Acknowledge, numbered
from rows import built, trade, trades

from collectors.queue_group import SinkGroup
from collectors.queues import SinkQueue
from collectors.raw import RawLog, RawReader
from collectors.sinks import make_sink

ROWS = 40


class Parquet:
    """Publishes on every second flush, merges every third file."""

    batches = 12

    @staticmethod
    def write(directory: Path, start: int, acknowledge: Acknowledge, batches: int) -> None:
        times = iter(range(10**9))
        options = {"rotate_s": 3, "compact_files": 3, "retired_s": 0, "clock": lambda: next(times)}
        sink = make_sink("parquet", directory, **options)
        for numbers in numbered(start, batches, ROWS):
            sink.write("trades", trades(numbers.start, numbers.stop))
            sink.flush()
            acknowledge(numbers.stop)
        sink.close()

    @staticmethod
    def visible(directory: Path) -> list[int]:
        if not any(directory.glob("trades/**/*.parquet")):
            return []
        dataset = ds.dataset(directory / "trades", partitioning="hive")
        return dataset.to_table(["trade_id"])["trade_id"].to_pylist()

    @classmethod
    def rows(cls, directory: Path) -> list[int]:
        make_sink("parquet", directory).close()
        return cls.visible(directory)


class ParquetRecovery(Parquet):
    """Two dead processes have left flushed rows of two exchanges; the next one recovers them."""

    batches = 0

    @staticmethod
    def prepare(directory: Path, log: Path) -> None:
        sinks = [make_sink("parquet", directory) for _ in range(2)]
        for run, sink in enumerate(sinks):
            for batch in range(2):
                first = (2 * run + batch) * ROWS
                exchange = ("binance", "kraken")[batch]
                rows = [trade(number) for number in range(first, first + ROWS)]
                sink.write("trades", built("trades", rows, exchange=exchange))
            sink.flush()
        log.write_text(str(4 * ROWS))
        os.kill(os.getpid(), signal.SIGKILL)


class Raw:
    """A compressed recording in parts of two or three writes."""

    batches = 12

    @staticmethod
    def write(directory: Path, start: int, acknowledge: Acknowledge, batches: int) -> None:
        log = RawLog(directory / "raw.zst", rotate_bytes=300)
        for numbers in numbered(start, batches, ROWS):
            for number in numbers:
                log.append(number, b'{"n":%d}' % number)
            log.flush()
            acknowledge(numbers.stop)
        log.close()

    @staticmethod
    def visible(directory: Path) -> list[int]:
        parts = sorted(directory.glob("raw-*.zst")) + list(directory.glob("raw.zst"))
        return [recv_ns for part in parts for recv_ns, _ in RawReader(part)]

    @classmethod
    def rows(cls, directory: Path) -> list[int]:
        return cls.visible(directory)


class Jsonl:
    """Plain JSON lines in parts of some kilobytes."""

    batches = 12

    @staticmethod
    def write(directory: Path, start: int, acknowledge: Acknowledge, batches: int) -> None:
        sink = make_sink("jsonl", directory / "rows.jsonl", rotate_bytes=20_000)
        for numbers in numbered(start, batches, ROWS):
            sink.write("trades", trades(numbers.start, numbers.stop))
            sink.flush()
            acknowledge(numbers.stop)
        sink.close()

    @staticmethod
    def visible(directory: Path) -> list[int]:
        parts = sorted(directory.glob("rows-*.jsonl")) + list(directory.glob("rows.jsonl"))
        lines = [line for part in parts for line in part.read_bytes().split(b"\n")[:-1]]
        return [json.loads(line)["trade_id"] for line in lines]

    @classmethod
    def rows(cls, directory: Path) -> list[int]:
        make_sink("jsonl", directory / "rows.jsonl").close()
        return cls.visible(directory)


class Sqlite:
    """A database that commits every batch."""

    @staticmethod
    def write(directory: Path, start: int, acknowledge: Acknowledge, batches: int) -> None:
        sink = make_sink("sqlite", directory / "rows.db")
        for numbers in numbered(start, batches, ROWS):
            sink.write("trades", trades(numbers.start, numbers.stop))
            sink.flush()
            acknowledge(numbers.stop)
        sink.close()

    @staticmethod
    def rows(directory: Path) -> list[int]:
        with closing(sqlite3.connect(directory / "rows.db")) as connection:
            if not connection.execute("SELECT * FROM sqlite_master").fetchall():
                return []
            query = "SELECT trade_id FROM trades ORDER BY trade_id"
            return [number for (number,) in connection.execute(query)]


class Together:
    """Three sinks at once, each behind its queue; a row counts when all have it."""

    @staticmethod
    def write(directory: Path, start: int, acknowledge: Acknowledge, batches: int) -> None:
        merging = {"rotate_s": 0.01, "compact_files": 3, "retired_s": 0}
        sinks = [
            make_sink("parquet", directory / "parquet", **merging),
            make_sink("sqlite", directory / "rows.db"),
            make_sink("jsonl", directory / "rows.jsonl", rotate_bytes=20_000),
        ]
        group = SinkGroup(SinkQueue(sink, flush_s=0.01) for sink in sinks)
        for numbers in numbered(start, batches, ROWS):
            group.write("trades", trades(numbers.start, numbers.stop))
            if numbers.start % (5 * ROWS) == 0:
                group.flush()
                acknowledge(numbers.stop)
        group.close(300)

    @staticmethod
    def rows(directory: Path) -> list[int]:
        """None: each attempt starts from nothing."""
        return []

    @staticmethod
    def rows_by_sink(directory: Path) -> list[list[int]]:
        parquet = sorted(Parquet.rows(directory / "parquet"))
        return [parquet, Sqlite.rows(directory), Jsonl.rows(directory)]


SCENARIOS = {
    "together": Together,
    "parquet": Parquet,
    "parquet recovery": ParquetRecovery,
    "raw": Raw,
    "jsonl": Jsonl,
    "sqlite": Sqlite,
}
