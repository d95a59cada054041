"""The collector: a feed over a real socket into several sinks at once."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from scripted import quote, scripted, trade
from slow_sink import Slow

from collectors.collect import Collector
from collectors.errors import CollectorError, SinkError, SymbolError
from collectors.exchanges import EXCHANGES, make_adapter
from collectors.queues import SinkQueue
from collectors.raw import RawLog
from collectors.replay import replay
from collectors.sinks import Sink, make_sink
from collectors.venues import majors

TRADES = 300
FRAMES = [frame for n in range(1, TRADES + 1) for frame in (quote(n), trade(n))]


class Until(Sink):
    """Calls back once it has seen so many rows; an error of the callback is the sink's own."""

    name = "until"

    def __init__(self, rows: int, reached: Callable[[], object]) -> None:
        self.rows = rows
        self._reached = reached

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        before, self.rows = self.rows, self.rows - batch.num_rows
        if self.rows <= 0 < before:
            self._reached()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def collector(url: str, channels: tuple[str, ...] = ("ticker", "trades")) -> Collector:
    return Collector("binance", ["BTC/USDT"], channels, endpoint=url, rest_endpoint="http://x")


def rows(folder: Path, channel: str) -> list[dict[str, object]]:
    """A dataset's rows in order of arrival."""
    table = ds.dataset(folder / channel, partitioning="hive").to_table()
    return [{**row, "date": str(row["date"])} for row in table.sort_by("seq").to_pylist()]


def test_every_sink_has_every_row(tmp_path: Path) -> None:
    async def run() -> None:
        async with scripted(FRAMES) as server:
            job = collector(server.url)
            raw = RawLog(tmp_path / "raw.zst")
            sinks = [
                make_sink("parquet", tmp_path / "data"),
                make_sink("sqlite", tmp_path / "rows.db"),
                make_sink("jsonl", tmp_path / "rows.jsonl"),
                Until(3 * TRADES, job.stop),  # a trade is a row of trades and one of ticker
            ]
            await job.run([SinkQueue(sink) for sink in sinks], raw=raw)
            assert job.progress().rows == {"ticker": 2 * TRADES, "trades": TRADES}
            assert raw.frames == 2 * TRADES + 1  # and what was subscribed

    asyncio.run(run())
    numbers = list(range(1, TRADES + 1))
    assert [row["trade_id"] for row in rows(tmp_path / "data", "trades")] == numbers
    assert len(rows(tmp_path / "data", "ticker")) == 2 * TRADES
    with closing(sqlite3.connect(tmp_path / "rows.db")) as database:
        ids = database.execute("SELECT trade_id FROM trades ORDER BY trade_id").fetchall()
    assert [number for (number,) in ids] == numbers
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["trade_id"] for line in lines if line["dataset"] == "trades"] == numbers


def test_the_replay_of_the_raw_log_gives_the_same_rows(tmp_path: Path) -> None:
    async def run() -> None:
        async with scripted(FRAMES) as server:
            job = collector(server.url)
            sinks = [make_sink("parquet", tmp_path / "live"), Until(3 * TRADES, job.stop)]
            await job.run([SinkQueue(s) for s in sinks], raw=RawLog(tmp_path / "raw.zst"))

    asyncio.run(run())
    replay([tmp_path / "raw.zst"], "binance", tmp_path / "again")
    for channel in ("ticker", "trades"):
        assert rows(tmp_path / "again", channel) == rows(tmp_path / "live", channel)


def test_a_sink_that_fails_ends_the_run_and_the_others_keep_what_they_have(tmp_path: Path) -> None:
    def fail() -> None:
        raise SinkError("broken: no room; make some")

    async def run() -> None:
        async with scripted(FRAMES) as server:
            job = collector(server.url)
            sinks = [make_sink("parquet", tmp_path), Until(1, fail)]
            server.frames += [trade(n) for n in range(TRADES + 1, TRADES + 2000)]
            await job.run([SinkQueue(sink) for sink in sinks])

    with pytest.raises(SinkError, match=r"broken: no room; make some$"):
        asyncio.run(asyncio.wait_for(run(), 30))
    kept = rows(tmp_path, "trades")
    assert [row["trade_id"] for row in kept] == list(range(1, len(kept) + 1))
    assert kept


def test_a_raw_log_that_cannot_be_written_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = RawLog(tmp_path / "raw")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def run() -> None:
        async with scripted(FRAMES) as server:
            await collector(server.url).run([], raw=raw)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SinkError, match=r"raw: .*No space left on device"):
        asyncio.run(asyncio.wait_for(run(), 30))


def test_it_stops_by_itself_after_its_duration() -> None:
    async def run() -> None:
        async with scripted([]) as server:
            job = collector(server.url)
            await asyncio.wait_for(job.run([], duration_s=0.01), 30)
            assert job.progress().rows == {}

    asyncio.run(run())


def test_what_a_sink_does_not_take_within_the_deadline_is_counted() -> None:
    sink = Slow()

    async def run() -> None:
        async with scripted(FRAMES) as server:
            job = collector(server.url, ("trades",))
            done = asyncio.ensure_future(job.run([SinkQueue(sink)], drain_s=0.2))
            await asyncio.to_thread(sink.writing.wait, 30)
            job.stop()
            await done

    try:
        with pytest.raises(SinkError, match=r"slow: \d+ rows were not written at the deadline"):
            asyncio.run(run())
    finally:
        sink.open_up()


def test_a_collector_that_was_stopped_before_it_ran_returns_at_once() -> None:
    async def run() -> None:
        async with scripted([]) as server:
            job = collector(server.url)
            job.stop()
            await asyncio.wait_for(job.run([]), 30)

    asyncio.run(run())


def test_a_collector_runs_once() -> None:
    async def run() -> None:
        async with scripted([]) as server:
            job = collector(server.url)
            await job.run([], duration_s=0.01)
            await job.run([], duration_s=0.01)

    with pytest.raises(CollectorError, match="runs once"):
        asyncio.run(run())


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_fourteen_majors_are_the_default(exchange: str) -> None:
    symbols = majors(exchange)
    assert len(set(symbols)) == 14
    assert make_adapter(exchange).subscribe(symbols, ["trades"])
    assert Collector(exchange).symbols == symbols


def test_every_channel_of_the_exchange_is_the_default() -> None:
    assert Collector("binance-futures").channels == ["ticker", "trades", "book", "funding"]


def test_symbols_may_be_written_in_lower_case() -> None:
    assert Collector("kraken", ["btc/usd"]).symbols == ["BTC/USD"]


def test_a_symbol_without_a_quote_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(SymbolError, match="'BTC': expected BASE/QUOTE"):
        Collector("kraken", ["BTC"])


def test_a_channel_that_the_exchange_lacks_is_refused() -> None:
    with pytest.raises(CollectorError, match="no channel 'funding'; choose from ticker"):
        Collector("kraken", [], ["funding"])
