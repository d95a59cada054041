"""A second run into the same output goes on where the first one ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from listening import EXCHANGES, PAIRS, SECOND

from collectors.collect import Progress
from collectors.queues import SinkQueue
from collectors.raw import RawLog
from collectors.replay import replay
from collectors.server.local import collect_simulated
from collectors.sinks import make_sink
from collectors.sinks.parquet_history import last_trades

FIRST_S = 20


def run(
    exchange: str, sink: Any, seconds: float, skip_s: float = 0.0, raw: RawLog | None = None
) -> Progress:
    """Collect the market from its beginning, or from `skip_s` on."""
    return asyncio.run(
        collect_simulated(
            exchange,
            PAIRS[exchange],
            [SinkQueue(sink)],
            seconds=seconds,
            raw=raw,
            bursts_per_s=6.0,
            watch=lambda server, collector: server.simulation.advance(
                server.simulation.now_ns + int(skip_s * SECOND)
            ),
        )
    )


def table(root: Path, channel: str) -> list[dict[str, Any]]:
    if not (root / channel).exists():
        return []
    rows = ds.dataset(root / channel, partitioning="hive").to_table().to_pylist()
    return sorted(rows, key=lambda row: (row["symbol"], row["recv_ts"], row["seq"] or 0))


@pytest.mark.parametrize("exchange", ["kraken", "coinbase"])
def test_a_short_pause_is_filled_by_the_exchange_without_duplicates(
    exchange: str, tmp_path: Path
) -> None:
    run(exchange, make_sink("parquet", tmp_path / "one"), FIRST_S)
    again = run(exchange, make_sink("parquet", tmp_path / "one"), FIRST_S + 20, FIRST_S + 0.2)
    run(exchange, make_sink("parquet", tmp_path / "whole"), FIRST_S + 20)
    assert again.feed.duplicates > 50
    trades = [(row["symbol"], row["trade_id"]) for row in table(tmp_path / "one", "trades")]
    assert trades == [(r["symbol"], r["trade_id"]) for r in table(tmp_path / "whole", "trades")]
    assert [row for row in table(tmp_path / "one", "gaps") if row["channel"] == "trades"] == []


@pytest.mark.parametrize("kind", ["parquet", "sqlite"])
@pytest.mark.parametrize("exchange", ["binance", "binance-futures"])
def test_what_was_missed_in_between_is_a_gap(exchange: str, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(exchange, make_sink(kind, out), FIRST_S)
    last = make_sink(kind, out).last_trades(exchange)
    assert set(last) == set(PAIRS[exchange])
    raw = RawLog(tmp_path / "again.raw")
    run(exchange, make_sink(kind, out), FIRST_S + 40, FIRST_S + 20, raw)
    replay([tmp_path / "again.raw"], exchange, tmp_path / "replayed")
    gaps = {row["symbol"]: row for row in table(tmp_path / "replayed", "gaps")}
    first = {row["symbol"]: row for row in reversed(table(tmp_path / "replayed", "trades"))}
    for pair in PAIRS[exchange]:
        trade_id, recv_ns = last[pair]
        gap = gaps[pair]
        assert (gap["channel"], gap["reason"]) == ("trades", "trade_id")
        assert (gap["from_seq"], gap["to_seq"]) == (trade_id + 1, first[pair]["trade_id"] - 1)
        assert gap["start_ts"].value == recv_ns


def test_only_the_exchanges_own_trades_count(tmp_path: Path) -> None:
    for exchange in EXCHANGES:
        sink = make_sink("parquet", tmp_path)
        assert sink.last_trades(exchange) == {}
        run(exchange, sink, 5)
    for exchange in EXCHANGES:
        assert set(make_sink("parquet", tmp_path).last_trades(exchange)) == set(PAIRS[exchange])


def test_the_newest_files_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (5, 10, 15):
        run("kraken", make_sink("parquet", tmp_path), 5 + seconds, seconds)
    folder = tmp_path / "trades" / "exchange=kraken"
    whole = last_trades(folder)
    monkeypatch.setattr("collectors.sinks.parquet_history._ROWS", 1)
    assert last_trades(folder) == whole
    assert last_trades(tmp_path / "nothing") == {}
