"""Faults on the way from the exchange: every one is told at once, and touches nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from simulated import SYMBOLS, Simulated, ids, simulated

from collectors.collect import Collector
from collectors.integrity import Integrity
from collectors.queues import SinkQueue
from collectors.raw import RawLog
from collectors.replay import replay
from collectors.sinks import Sink, make_sink

BTC, *OTHERS = SYMBOLS
AT = 600  # of the frames, where a fault happens


class Watch(Sink):
    """Keeps all rows, and calls back when every frame has come and every gap is mended."""

    name = "watch"

    def __init__(self, complete: Callable[[list[dict[str, Any]]], None]) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._complete = complete

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        self.rows.setdefault(channel, []).extend(batch.to_pylist())

    def flush(self) -> None:
        self._complete(self.rows.get("gaps", []))

    def close(self) -> None:
        pass


@dataclass
class Outcome:
    """What a collector made of a run."""

    server: Simulated
    progress: Any
    checks: Integrity
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """As they were found."""
        return [row for row in self.rows.get("gaps", []) if row["recovered_ts"] is None]

    @property
    def recoveries(self) -> list[dict[str, Any]]:
        return [row for row in self.rows.get("gaps", []) if row["recovered_ts"] is not None]

    def same_books(self, symbols: tuple[str, ...] | list[str]) -> bool:
        """Whether these books are the truth, level by level."""
        books = ((self.checks.book(s), self.server.truth.book(s)) for s in symbols)
        return all(own is not None and own.top(9999) == true.top(9999) for own, true in books)


def collected(
    faults: Callable[[Simulated], dict[int, str]] = lambda server: {}, folder: Path | None = None
) -> Outcome:
    """Run a collector against the simulated exchange until all is received and mended."""

    async def run() -> Outcome:
        async with simulated() as server:
            server.faults = faults(server)
            job = Collector("binance", SYMBOLS, endpoint=server.url, rest_endpoint=server.rest_url)
            job.venue = replace(job.venue, snapshots_per_s=1000.0)

            def complete(gaps: list[dict[str, Any]]) -> None:
                open_gaps = [g for g in gaps if g["channel"] != "trades"]
                mended = sum(g["recovered_ts"] is not None for g in open_gaps)
                received = server.sent.is_set() and job.progress().feed.frames == server.messages
                if received and 2 * mended == len(open_gaps):
                    job.stop()

            watch = Watch(complete)
            queues = [SinkQueue(watch, flush_s=0.05)]
            raw = None
            if folder is not None:
                queues.append(SinkQueue(make_sink("parquet", folder / "live")))
                raw = RawLog(folder / "raw")
            await asyncio.wait_for(job.run(queues, raw=raw), 60)
            assert job._feed is not None
            checks = job._feed.core.session.integrity
            return Outcome(server, job.progress(), checks, watch.rows)

    return asyncio.run(run())


def test_a_clean_run_has_no_gaps_and_the_markets_books() -> None:
    outcome = collected()
    assert outcome.progress.feed.gaps == 0
    assert outcome.progress.feed.duplicates == 0
    assert outcome.same_books(SYMBOLS)


@pytest.mark.parametrize("kind", ["drop", "corrupt"])
def test_a_lost_difference_is_told_by_the_next_message_of_that_book(kind: str) -> None:
    outcome = collected(lambda server: {server.find(BTC, AT): kind})
    (gap,) = outcome.gaps
    lost = outcome.server.frames[outcome.server.find(BTC, AT)]
    assert (gap["symbol"], gap["channel"], gap["reason"]) == (BTC, "book", "sequence")
    assert (gap["from_seq"], gap["to_seq"]) == ids(lost)
    following = outcome.server.frames[outcome.server.find(BTC, outcome.server.find(BTC, AT) + 1)]
    arrived = [row for row in outcome.rows["book"] if row["seq"] == ids(following)[1]]
    assert gap["end_ts"] == arrived[0]["recv_ts"]
    assert outcome.progress.feed.errors == (kind == "corrupt")


@pytest.mark.parametrize("kind", ["drop", "corrupt", "swap"])
def test_only_the_book_that_was_hit_is_mended_and_all_are_right_in_the_end(kind: str) -> None:
    outcome = collected(lambda server: {server.find(BTC, AT): kind})
    assert {gap["symbol"] for gap in outcome.gaps} == {BTC}
    assert outcome.progress.feed.resyncs == len(outcome.gaps)
    assert outcome.same_books(SYMBOLS)
    for gap in outcome.recoveries:
        assert gap["recovered_ts"] > gap["end_ts"]


def test_every_one_of_many_lost_differences_is_told() -> None:
    def faults(server: Simulated) -> dict[int, str]:
        starts = range(AT, len(server.frames) - 300, 150)
        symbols = [SYMBOLS[n % 3] for n in range(len(starts))]
        return {server.find(s, at): "drop" for s, at in zip(symbols, starts, strict=True)}

    outcome = collected(faults)
    told = {(g["symbol"], g["from_seq"], g["to_seq"]) for g in outcome.gaps}
    server = outcome.server
    injected = faults(server)
    lost = {(server._symbol(server.frames[at]), *ids(server.frames[at])) for at in injected}
    assert len(lost) >= 10
    assert told == lost
    assert outcome.same_books(SYMBOLS)


def test_what_comes_twice_is_kept_once() -> None:
    clean = collected()
    outcome = collected(lambda server: dict.fromkeys(range(AT, AT + 100), "duplicate"))
    assert outcome.gaps == []
    assert outcome.progress.feed.duplicates == 100
    for channel in ("trades", "ticker"):
        assert len(outcome.rows[channel]) == len(clean.rows[channel])
    assert outcome.same_books(SYMBOLS)


def test_a_lost_connection_is_a_gap_of_every_book_and_quote() -> None:
    outcome = collected(lambda server: {AT: "disconnect"})
    assert {(g["symbol"], g["channel"]) for g in outcome.gaps} == {
        (symbol, channel) for symbol in SYMBOLS for channel in ("book", "ticker")
    }
    assert {gap["reason"] for gap in outcome.gaps} == {"disconnect"}
    assert len(outcome.recoveries) == len(outcome.gaps)
    assert outcome.progress.feed.lost == 1
    assert outcome.same_books(SYMBOLS)


def test_the_replay_of_a_run_with_faults_has_the_same_rows(tmp_path: Path) -> None:
    collected(
        lambda server: {server.find(BTC, AT): "drop", AT + 200: "disconnect", AT + 300: "corrupt"},
        tmp_path,
    )
    replay([tmp_path / "raw"], "binance", tmp_path / "again")
    for channel in ("ticker", "trades", "book", "gaps"):
        assert rows(tmp_path / "again", channel) == rows(tmp_path / "live", channel)


def rows(folder: Path, channel: str) -> list[dict[str, Any]]:
    """A dataset's rows in the order of writing."""
    files = sorted((folder / channel).glob("*/*/*.parquet"))
    return [row for file in files for row in ds.dataset(file).to_table().to_pylist()]
