"""A recording served again: who collects it has what was recorded."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from listening import EXCHANGES, PAIRS, SECOND, asked, talk_to

from collectors.adapter import BookUpdate
from collectors.collect import Collector
from collectors.errors import CollectorError
from collectors.exchanges import make_adapter
from collectors.integrity import Integrity
from collectors.queues import SinkQueue
from collectors.raw import RawLog, RawReader, write_frames
from collectors.recordings import BINANCE_DEMO
from collectors.server.faults import parse_fault
from collectors.server.local import collect_simulated
from collectors.server.recorded import Recorded
from collectors.server.server import serve
from collectors.sinks import Sink


class Keep(Sink):
    """Keeps all rows, without when they came."""

    name = "keep"

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def write(self, channel: str, batch: Any) -> None:
        self.rows.setdefault(channel, []).extend(batch.to_pylist())

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def of(self, channel: str) -> list[tuple[Any, ...]]:
        """Rows without times, in the order of symbols."""
        rows = [
            tuple(value for name, value in row.items() if not name.endswith("ts"))
            for row in self.rows.get(channel, [])
        ]
        return sorted(rows, key=lambda row: str(row[:2]))


def recorded(exchange: str, folder: Path, seconds: float = 30) -> tuple[Path, Keep]:
    """A recording, and the rows that were collected while it was made."""
    path, keep = folder / f"{exchange}.raw", Keep()
    asyncio.run(
        collect_simulated(
            exchange,
            PAIRS[exchange],
            [SinkQueue(keep)],
            seconds=seconds,
            raw=RawLog(path),
            bursts_per_s=5.0,
        )
    )
    return path, keep


def collect(exchange: str, path: Path, symbols: tuple[str, ...] = (), **options: Any) -> Any:
    """Collect all of a recording from a server: rows, the collector, the server."""
    keep = Keep()

    async def run() -> Any:
        async with serve(exchange, symbols, recording=path, **options) as server:
            pairs = list(server.simulation._tapes)
            collector = Collector(
                exchange, pairs, endpoint=server.url, rest_endpoint=server.rest_url
            )

            async def stop() -> None:
                await server.ended.wait()
                while collector.traffic != server.traffic:
                    await asyncio.sleep(0)
                collector.stop()

            stopping = asyncio.ensure_future(stop())
            await asyncio.wait_for(collector.run([SinkQueue(keep)]), 60)
            await stopping
            return keep, collector, server

    return asyncio.run(run())


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_collecting_a_recording_gives_the_rows_of_the_day_it_was_made(
    exchange: str, tmp_path: Path
) -> None:
    path, original = recorded(exchange, tmp_path)
    keep, collector, _ = collect(exchange, path)
    assert collector.progress().feed.gaps == 0
    assert keep.of("trades") == original.of("trades")
    assert len(keep.of("ticker")) == len(original.of("ticker"))
    updates = [row for row in original.rows["book"] if not row["is_snapshot"]]
    assert updates
    assert len([row for row in keep.rows["book"] if not row["is_snapshot"]]) <= len(updates)
    if exchange == "binance-futures":
        marks = [row for row in keep.rows["funding"] if row["mark_price"] is not None]
        assert len(marks) == 3 * 30


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_who_comes_late_gets_the_book_as_it_is_then(exchange: str, tmp_path: Path) -> None:
    path, _ = recorded(exchange, tmp_path)
    server = Recorded(exchange, recording=path)
    adapter, checks = make_adapter(exchange), Integrity()
    server.advance(server.now_ns + 15 * SECOND)
    pair = PAIRS[exchange][0]
    route = {"binance": "/stream", "binance-futures": "/public/stream", "kraken": "/v2"}
    talk = talk_to(server, route.get(exchange, "/"))
    frames = []
    for request in adapter.subscribe([pair], ["book"]):
        server.hear(talk, request.frame)
    while not any(isinstance(e, BookUpdate) for f in talk.out for e in adapter.decode(f, 0)):
        server.advance(server.now_ns + SECOND // 10)
    if exchange.startswith("binance"):
        prefix = "/api/v3" if exchange == "binance" else "/fapi/v1"
        name = adapter.rest_symbol(pair)
        frames = [
            adapter.wrap_snapshot(
                pair, asked(server, f"{prefix}/depth?symbol={name}&limit=1000").body
            )
        ]
    frames = talk.out + frames
    talk.out = []
    server.advance(server.now_ns + 20 * SECOND)
    for frame in frames + talk.out:
        checks.check(adapter.decode(frame, 0))
    assert server.over
    assert checks.gaps == 0
    depth = 10 if exchange == "kraken" else 9_999
    assert checks.book(pair).top(depth) == server._session.integrity.book(pair).top(depth)


def test_messages_are_the_recorded_ones(tmp_path: Path) -> None:
    path, _ = recorded("kraken", tmp_path)
    server = Recorded("kraken", recording=path)
    talk = talk_to(server, "/v2")
    for request in make_adapter("kraken").subscribe(PAIRS["kraken"], ["book", "trades", "ticker"]):
        server.hear(talk, request.frame)
    server.advance(server.now_ns + 60 * SECOND)
    data = [f for _, f in RawReader(path) if b'"data":' in f and b'"status"' not in f]
    assert [f for f in talk.out if b'"data":' in f and b'"status"' not in f] == data


def test_coinbase_messages_are_numbered_anew(tmp_path: Path) -> None:
    path, _ = recorded("coinbase", tmp_path)
    server = Recorded("coinbase", recording=path)
    server.advance(server.now_ns + 10 * SECOND)
    talk = talk_to(server, "/")
    for request in make_adapter("coinbase").subscribe(["ETH/USD"], ["trades"]):
        server.hear(talk, request.frame)
    server.advance(server.now_ns + 30 * SECOND)
    numbers = [json.loads(frame)["sequence_num"] for frame in talk.out]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 20


def test_before_its_book_is_known_a_recording_answers_with_the_one_to_come() -> None:
    server = Recorded("binance", recording=BINANCE_DEMO)
    answer = asked(server, "/api/v3/depth?symbol=BTCUSDT&limit=5000")
    known = next(f for _, f in RawReader(BINANCE_DEMO) if b"btcusdt@depth@snapshot" in f)
    assert json.loads(answer.body) == json.loads(known)["data"]
    server.advance(server.now_ns + 60 * SECOND)
    later = asked(server, "/api/v3/depth?symbol=BTCUSDT&limit=5000")
    assert json.loads(later.body)["lastUpdateId"] > json.loads(answer.body)["lastUpdateId"]


def test_a_real_recording_of_kraken_verifies_when_it_is_served(
    captures: Path, tmp_path: Path
) -> None:
    folder = captures / "kraken"
    times, frames = (
        gzip.decompress((folder / f"book_v2_btcusd.{part}.gz").read_bytes()).splitlines()
        for part in ("recv_ns.txt", "jsonl")
    )
    path = tmp_path / "kraken.raw"
    write_frames(path, zip(map(int, times), frames, strict=True))
    keep, collector, _ = collect("kraken", path)
    assert collector.progress().feed.gaps == 0
    assert sum(row["is_snapshot"] for row in keep.rows["book"]) >= 50
    assert collector._feed.core.session.integrity.book("BTC/USD") is not None


def test_a_real_recording_of_binance_is_collected_whole(spot_capture: Path) -> None:
    keep, collector, _ = collect("binance", spot_capture)
    assert collector.progress().feed.gaps == 0
    assert len(keep.rows["trades"]) == 9_757
    quotes = [row for row in keep.rows["ticker"] if row["side"] is None]
    assert len(quotes) == 28_040


def test_faults_strike_recordings_too(tmp_path: Path) -> None:
    path, _ = recorded("kraken", tmp_path)
    faults = [parse_fault("drop:book:BTC/USD@20")]
    keep, collector, server = collect("kraken", path, faults=faults)
    assert [struck.kind for struck in server.simulation.log] == ["drop"]
    gaps = [row for row in keep.rows["gaps"] if row["recovered_ts"] is None]
    assert [gap["reason"] for gap in gaps] == ["checksum"]
    assert collector.progress().feed.resyncs == 1


def test_what_was_asked_by_rest_can_be_asked_again_and_nothing_else(tmp_path: Path) -> None:
    path, _ = recorded("binance-futures", tmp_path, seconds=40)
    server = Recorded("binance-futures", recording=path)
    assert asked(server, "/fapi/v1/openInterest?symbol=BTCUSDT").status == 404
    server.advance(server.now_ns + 60 * SECOND)
    interest = asked(server, "/fapi/v1/openInterest?symbol=BTCUSDT")
    assert interest.body in [frame for _, frame in RawReader(path)]
    assert asked(server, "/fapi/v1/premiumIndex?symbol=BTCUSDT").status == 404


def test_only_the_symbols_asked_for_are_offered(tmp_path: Path) -> None:
    path, _ = recorded("coinbase", tmp_path)
    keep, _, server = collect("coinbase", path, ("ETH/USD",))
    assert {row["symbol"] for row in keep.rows["trades"]} == {"ETH/USD"}
    assert list(server.simulation._tapes) == ["ETH/USD"]


def test_what_a_recording_lacks_is_an_error_that_names_what_it_has(tmp_path: Path) -> None:
    path, _ = recorded("coinbase", tmp_path)
    with pytest.raises(CollectorError, match="no DOGE/USD; its symbols are BTC/USD, ETH/USD"):
        Recorded("coinbase", ["DOGE/USD"], recording=path)
    with pytest.raises(CollectorError, match="its symbols are none of kraken"):
        Recorded("kraken", recording=path)
