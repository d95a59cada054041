"""A collector against each simulated exchange, with faults: found at once, mended, and apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from listening import EXCHANGES, PAIRS, SECOND

from collectors.collect import Collector, Progress
from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.queues import SinkQueue
from collectors.raw import RawLog, RawReader
from collectors.server.faults import Injected, parse_fault
from collectors.server.local import collect_simulated
from collectors.server.server import Server
from collectors.sinks import Sink
from collectors.venues import venue

_EVENTS = {"BookUpdate": "book", "Trade": "trades", "Quote": "ticker"}


Clean = Callable[..., "Outcome"]


class Keep(Sink):
    """Keeps all rows."""

    name = "keep"

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        self.rows.setdefault(channel, []).extend(batch.to_pylist())

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Outcome:
    """What a collector made of a run."""

    exchange: str
    rows: dict[str, list[dict[str, Any]]]
    frames: list[tuple[int, bytes]]
    progress: Progress | None = None
    log: list[Injected] = field(default_factory=list)
    books: dict[str, Any] = field(default_factory=dict)
    true_books: dict[str, Any] = field(default_factory=dict)

    @property
    def feed(self) -> Any:
        assert self.progress is not None
        return self.progress.feed

    def gaps(self, channel: str = "book") -> list[dict[str, Any]]:
        """As they were found."""
        rows = self.rows.get("gaps", [])
        return [r for r in rows if r["channel"] == channel and r["recovered_ts"] is None]

    def recoveries(self, channel: str = "book") -> list[dict[str, Any]]:
        rows = self.rows.get("gaps", [])
        return [r for r in rows if r["channel"] == channel and r["recovered_ts"] is not None]

    def next_message(self, after: Injected) -> int:
        """When the message came that followed in the same channel of the same symbol."""
        adapter = make_adapter(self.exchange)
        for recv_ns, frame in self.frames:
            try:
                events = adapter.decode(frame, recv_ns)
            except DecodeError:
                continue
            if recv_ns > after.time_ns and any(
                _EVENTS.get(type(event).__name__) == after.channel and event.symbol == after.symbol  # type: ignore[attr-defined]
                for event in events
            ):
                return recv_ns
        raise AssertionError(f"nothing of {after.channel} {after.symbol} came after")


def collected(
    exchange: str,
    folder: Path,
    faults: Sequence[str] = (),
    seconds: float = 40,
    bursts_per_s: float = 6.0,
) -> Outcome:
    """Run a collector with the simulated exchange in step."""
    keep, both = Keep(), []
    log = folder / f"{exchange}-{len(list(folder.iterdir()))}.raw"
    raw = RawLog(log)
    progress = asyncio.run(
        collect_simulated(
            exchange,
            PAIRS[exchange],
            [SinkQueue(keep)],
            seconds=seconds,
            raw=raw,
            faults=[parse_fault(text) for text in faults],
            watch=lambda *sides: both.extend(sides),
            bursts_per_s=bursts_per_s,
        )
    )
    server, collector = both
    assert isinstance(server, Server)
    assert isinstance(collector, Collector)
    assert collector._feed is not None
    checks = collector._feed.core.session.integrity
    depth = 10 if exchange == "kraken" else 9_999
    outcome = Outcome(exchange, keep.rows, list(RawReader(log)))
    outcome.progress, outcome.log = progress, server.simulation.log
    for pair in PAIRS[exchange]:
        book, true = checks.book(pair), server.simulation.book(pair)
        outcome.books[pair] = None if book is None else book.top(depth)
        outcome.true_books[pair] = tuple(
            [(price / 1e8, size / 1e8) for price, size in side.levels()[:depth]]
            for side in (true.bids, true.asks)
        )
    return outcome


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Runs without faults; each is made once."""

    @cache
    def run(exchange: str, seconds: float = 40) -> Outcome:
        return collected(exchange, tmp_path_factory.mktemp("clean"), seconds=seconds)

    return run


def rows_of(outcome: Outcome, pairs: Sequence[str], channel: str) -> list[dict[str, Any]]:
    return [row for row in outcome.rows[channel] if row["symbol"] in pairs]


@pytest.mark.parametrize("kind", ["drop", "corrupt", "reorder"])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_fault_in_a_book_is_found_at_the_next_message_and_mended(
    exchange: str, kind: str, tmp_path: Path, clean: Clean
) -> None:
    pair, *others = PAIRS[exchange]
    bad = collected(exchange, tmp_path, [f"{kind}:book:{pair}@60"])
    good = clean(exchange)
    (struck,) = bad.log
    gaps = bad.gaps()
    if exchange == "coinbase":  # numbers are the connection's: whose message is missing is unknown
        assert {gap["symbol"] for gap in gaps} == set(PAIRS[exchange])
    else:
        assert [gap["symbol"] for gap in gaps] == [pair]
        assert bad.gaps("ticker") == []
    found = next(gap for gap in gaps if gap["symbol"] == pair)
    assert struck.time_ns <= found["recv_ts"].value <= bad.next_message(struck)
    recovered = {row["symbol"]: row["recovered_ts"] for row in bad.recoveries()}
    assert set(recovered) == {gap["symbol"] for gap in gaps}
    assert all(time >= found["recv_ts"] for time in recovered.values())
    assert bad.books == bad.true_books == good.true_books
    if exchange != "coinbase":
        assert rows_of(bad, others, "book") == rows_of(good, others, "book")
    assert rows_of(bad, PAIRS[exchange], "trades") == rows_of(good, PAIRS[exchange], "trades")


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_trade_that_is_missing_is_told_by_its_number(
    exchange: str, tmp_path: Path, clean: Clean
) -> None:
    pair, *others = PAIRS[exchange]
    bad = collected(exchange, tmp_path, [f"drop:trades:{pair}@60"])
    good = clean(exchange)
    known = {row["trade_id"] for row in rows_of(bad, [pair], "trades")}
    missing = [r["trade_id"] for r in rows_of(good, [pair], "trades") if r["trade_id"] not in known]
    (gap,) = bad.gaps("trades")
    assert missing
    assert (gap["symbol"], gap["reason"]) == (pair, "trade_id")
    assert (gap["from_seq"], gap["to_seq"]) == (missing[0], missing[-1])
    assert gap["recv_ts"].value == bad.next_message(bad.log[0])
    assert rows_of(bad, others, "trades") == rows_of(good, others, "trades")


@pytest.mark.parametrize("channel", ["book", "trades", "ticker"])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_what_comes_twice_changes_nothing(
    exchange: str, channel: str, tmp_path: Path, clean: Clean
) -> None:
    bad = collected(exchange, tmp_path, [f"duplicate:{channel}:{PAIRS[exchange][0]}@30"])
    good = clean(exchange)
    assert [struck.kind for struck in bad.log] == ["duplicate"]
    assert bad.rows["trades"] == good.rows["trades"]
    assert bad.books == good.books == good.true_books
    if exchange != "kraken":  # its books are absolute and not numbered: the same again is harmless
        assert bad.rows["book"] == good.rows["book"]
    assert bad.feed.gaps == 0


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_cut_line_is_opened_again_and_every_book_mended(exchange: str, tmp_path: Path) -> None:
    outcome = collected(exchange, tmp_path, ["disconnect:book@100"], seconds=60)
    assert (outcome.feed.lost, len(outcome.log)) == (1, 1)
    assert {g["symbol"] for g in outcome.gaps()} == set(PAIRS[exchange])
    assert {g["reason"] for g in outcome.gaps()} == {"disconnect"}
    assert {g["symbol"] for g in outcome.recoveries()} == set(PAIRS[exchange])
    assert outcome.books == outcome.true_books
    if exchange == "binance-futures":  # the other socket carries trades: nothing is lost of them
        assert outcome.gaps("trades") == []


@pytest.mark.parametrize("exchange", ["binance", "binance-futures"])
def test_an_announced_shutdown_loses_nothing(exchange: str, tmp_path: Path, clean: Clean) -> None:
    bad = collected(exchange, tmp_path, ["shutdown:book@100=20"], seconds=60)
    good = clean(exchange, 60)
    assert (bad.feed.replaced, bad.feed.lost, bad.feed.gaps) == (1, 0, 0)
    for channel in ("trades", "book"):
        assert bad.rows[channel] == good.rows[channel]
    assert bad.books == good.true_books


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_stream_that_falls_silent_is_asked_for_again(exchange: str, tmp_path: Path) -> None:
    pair = PAIRS[exchange][0]
    fault = f"stall:book:{pair}@20"
    outcome = collected(exchange, tmp_path, [fault], seconds=400, bursts_per_s=2.0)
    assert venue(exchange).quiet_s["book"] == 300.0
    assert outcome.feed.silent == 1
    assert outcome.feed.lost == 0
    (gap,) = outcome.gaps()
    assert (gap["symbol"], gap["reason"]) == (pair, "stale")
    assert [row["symbol"] for row in outcome.recoveries()] == [pair]
    assert outcome.books == outcome.true_books


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_refused_connection_is_tried_again_and_not_too_soon(
    exchange: str, tmp_path: Path
) -> None:
    outcome = collected(exchange, tmp_path, ["refuse", "refuse=90"], seconds=150)
    assert (outcome.feed.failures, outcome.feed.gaps) == (2, 0)
    if exchange != "binance-futures":  # there the refusals meet two sockets
        first_ns = next(recv_ns for recv_ns, frame in outcome.frames if b"gpukern" not in frame)
        assert first_ns - outcome.log[-1].time_ns >= 90 * SECOND  # as Retry-After says
    assert outcome.books == outcome.true_books


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_refused_subscription_is_asked_for_again(exchange: str, tmp_path: Path) -> None:
    pair = PAIRS[exchange][0]
    outcome = collected(exchange, tmp_path, [f"refuse:book:{pair}"], seconds=60)
    # Kraken also says that there is nothing to unsubscribe when it is asked anew.
    assert outcome.feed.refusals == (2 if exchange == "kraken" else 1)
    assert outcome.books == outcome.true_books


@pytest.mark.parametrize("exchange", ["binance", "binance-futures"])
def test_a_refused_snapshot_is_asked_for_when_the_exchange_says(
    exchange: str, tmp_path: Path
) -> None:
    outcome = collected(exchange, tmp_path, ["refuse:rest=30"], seconds=90)
    assert outcome.feed.refusals == 1
    assert outcome.feed.last_refusal.startswith("HTTP 429")
    assert outcome.books == outcome.true_books


@pytest.mark.parametrize("exchange", ["kraken", "coinbase"])
def test_a_line_without_a_heartbeat_is_replaced(exchange: str, tmp_path: Path) -> None:
    outcome = collected(exchange, tmp_path, ["slow:book@100=30"], seconds=90)
    assert outcome.feed.lost == 1
    assert "no message for 10 s" in outcome.feed.last_loss
    assert outcome.books == outcome.true_books


@pytest.mark.parametrize("exchange", ["binance", "binance-futures"])
def test_a_slow_line_is_no_gap(exchange: str, tmp_path: Path, clean: Clean) -> None:
    bad = collected(exchange, tmp_path, ["slow:book@100=15"], seconds=60)
    good = clean(exchange, 60)
    assert (bad.feed.gaps, bad.feed.lost) == (0, 0)
    assert len(bad.rows["book"]) == len(good.rows["book"])
    assert bad.books == good.true_books


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_many_faults_at_once_are_all_found_and_nothing_else(
    exchange: str, tmp_path: Path, clean: Clean
) -> None:
    outcome = collected(exchange, tmp_path, ["drop:trades@4%"], seconds=120)
    missing = sum(gap["to_seq"] - gap["from_seq"] + 1 for gap in outcome.gaps("trades"))
    full = clean(exchange, 120)
    assert len(outcome.log) > 5
    assert missing == len(full.rows["trades"]) - len(outcome.rows["trades"])
