"""The feed's decisions, with the clock and the sockets in the test's hands."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from collectors.adapter import Gap
from collectors.errors import CollectorError
from collectors.exchanges import make_adapter
from collectors.feed_core import BACKOFF_S, OVERLAP_S, FeedCore
from collectors.feed_lines import Action, Close, Fetch, Open, Send
from collectors.scan import ready
from collectors.session import Session
from collectors.venues import VENUES

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SNAPSHOT = b'{"lastUpdateId":100,"bids":[["10.0","1"]],"asks":[["11.0","1"]]}'


class World:
    """A feed whose sockets open at once and whose time stands still until told."""

    def __init__(self, exchange: str, symbols: Iterable[str], channels: Iterable[str]) -> None:
        self.now = START
        self.raw: list[tuple[int, bytes]] = []
        self.venue = VENUES[exchange]
        self.channels = list(channels)
        self.core = FeedCore(
            make_adapter(exchange),
            self.venue,
            Session(make_adapter(exchange), [*self.channels, "gaps"]),
            on_raw=lambda *frame: self.raw.append(frame),
            chance=random.Random(7),
        )
        self.core.session.adapter = self.core.adapter
        self.opening = True
        self.log: list[Action] = []
        self.do(self.core.subscribe(list(symbols), self.channels, self.now))

    def do(self, actions: Iterable[Action]) -> list[Action]:
        """Note the actions; sockets open at once."""
        done = list(actions)
        self.log += done
        for action in list(done):
            if isinstance(action, Open) and self.opening:
                done += self.do(self.core.opened(action.line, self.now))
        return done

    def wait(self, seconds: float, step: float = 0.25) -> list[Action]:
        """Let time pass; what the feed wants done meanwhile."""
        done = []
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + int(step * SECOND))
            done += self.do(self.core.tick(self.now))
        return done

    def receive(self, message: Any, line: int = 1) -> list[Action]:
        frame = message if isinstance(message, bytes) else msgspec.json.encode(message)
        return self.do(self.core.received(line, self.now, frame))

    def receive_together(self, *messages: Any) -> list[Action]:
        frames = [m if isinstance(m, bytes) else msgspec.json.encode(m) for m in messages]
        times = [self.now + i for i in range(len(frames))]
        return self.do(self.core.received_many(1, times, frames))

    def lose(self, line: int = 1, **options: Any) -> list[Action]:
        return self.do(self.core.closed(line, self.now, "disconnect", **options))

    def gaps(self) -> list[dict[str, Any]]:
        batches = [b for c, b in self.core.session.take() if c == "gaps"]
        return [row for b in batches for row in b.to_pylist()]


def sent(actions: Iterable[Action]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(a.frame) for a in actions if isinstance(a, Send)]


def of(kind: type, actions: Iterable[Action]) -> list[Any]:
    return [a for a in actions if isinstance(a, kind)]


def diff(symbol: str, first: int, last: int, price: str = "10.0") -> dict[str, Any]:
    data = {
        "e": "depthUpdate",
        "E": 1_700_000_000_000,
        "s": symbol,
        "U": first,
        "u": last,
        "b": [[price, "2"]],
        "a": [],
    }
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": data}


def quote(symbol: str, number: int, bid: str = "10.0") -> dict[str, Any]:
    data = {"u": number, "s": symbol, "b": bid, "B": "1", "a": "11.0", "A": "1"}
    return {"stream": f"{symbol.lower()}@bookTicker", "data": data}


def level2(number: int, symbol: str, kind: str) -> dict[str, Any]:
    updates = [
        {"side": "bid", "price_level": "1", "new_quantity": "1"},
        {"side": "offer", "price_level": "2", "new_quantity": "1"},
    ]
    event = {"type": kind, "product_id": symbol.replace("/", "-"), "updates": updates}
    time = "2026-09-30T02:39:53Z"
    return {"channel": "l2_data", "timestamp": time, "sequence_num": number, "events": [event]}


# ------------------------------------------------------------------------------- subscribing


def test_each_route_gets_its_own_socket_and_its_own_streams() -> None:
    world = World("binance-futures", ["BTC/USDT:USDT"], ["ticker", "funding"])
    urls = {a.line: a.url for a in of(Open, world.log)}
    streams = {a.line: msgspec.json.decode(a.frame)["params"] for a in of(Send, world.log)}
    by_url = {urls[line].rsplit("/", 2)[1]: names for line, names in streams.items()}
    assert by_url == {
        "public": ["btcusdt@bookTicker"],
        "market": ["btcusdt@aggTrade", "btcusdt@markPrice@1s"],
    }


def test_messages_keep_below_the_limit_of_a_connection() -> None:
    symbols = [f"A{n}/USDT" for n in range(249)]
    world = World("binance", symbols, ["ticker", "book"])
    seconds = [len(sent(world.log)), *(len(sent(world.wait(1.0))) for _ in range(4))]
    assert max(seconds) <= VENUES["binance"].messages_per_s - 1
    assert len([n for m in sent(world.log) for n in m["params"]]) == 3 * 249


def test_more_symbols_than_a_socket_carries_take_several() -> None:
    world = World("binance", [f"A{n}/USDT" for n in range(251)], ["trades"])
    assert len(of(Open, world.log)) == 2


def test_an_unknown_channel_is_refused_before_anything_happens() -> None:
    with pytest.raises(CollectorError, match="no channel 'funding'"):
        World("binance", ["BTC/USDT"], ["funding"])


def test_a_subscription_at_run_time_disturbs_no_other() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker"])
    world.wait(1.0)
    done = world.do(world.core.subscribe(["ETH/USDT"], ["ticker"], world.now))
    assert [m["params"] for m in sent(done)] == [["ethusdt@trade", "ethusdt@bookTicker"]]
    assert not of(Open, done)
    assert not of(Close, done)


def test_what_is_no_longer_subscribed_is_no_gap_when_the_connection_is_lost() -> None:
    world = World("binance", ["BTC/USDT", "ETH/USDT"], ["ticker"])
    for symbol in ("BTCUSDT", "ETHUSDT"):
        world.receive(quote(symbol, 1))
    world.wait(1.0)
    done = world.do(world.core.unsubscribe(["ETH/USDT"], ["ticker"], world.now))
    assert [m["method"] for m in sent(done)] == ["UNSUBSCRIBE"]
    world.lose()
    assert [g["symbol"] for g in world.gaps()] == ["BTC/USDT"]


def test_a_stream_that_another_channel_needs_stays() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker", "trades"])
    world.wait(1.0)
    assert sent(world.do(world.core.unsubscribe(["BTC/USDT"], ["trades"], world.now))) == []


def test_a_connection_that_nobody_needs_is_closed_and_stays_closed() -> None:
    world = World("binance", ["BTC/USDT"], ["trades"])
    world.wait(1.0)
    done = world.do(world.core.unsubscribe(["BTC/USDT"], ["trades"], world.now))
    assert [c.reason for c in of(Close, done)] == ["not needed"]
    world.lose()
    assert not of(Open, world.wait(120.0))


# ------------------------------------------------------------------------------- silence


def test_a_subscription_without_data_is_asked_for_again_and_then_costs_the_connection() -> None:
    world = World("kraken", ["BTC/USD"], ["book"])
    heartbeat = {"channel": "heartbeat"}
    asked, closes = [], []
    for _ in range(45):
        world.receive(heartbeat)
        done = world.wait(1.0)
        asked += [m for m in sent(done) if m["method"] == "subscribe"]
        closes += of(Close, done)
    assert len(asked) == 2
    assert [c.reason for c in closes] == ["no book of BTC/USD"]


def test_a_symbol_without_data_does_not_cost_the_others_their_connection() -> None:
    world = World("kraken", ["BTC/USD", "NOPE/USD"], ["ticker"])
    data = {"symbol": "BTC/USD", "bid": 1.0, "bid_qty": 1.0, "ask": 2.0, "ask_qty": 1.0}
    done = []
    for _ in range(100):
        world.receive({"channel": "ticker", "type": "update", "data": [data]})
        done += world.wait(1.0)
    assert not of(Close, done)
    params = [m["params"] for m in sent(done) if m["method"] == "subscribe"]
    asked = [p["symbol"] for p in params if p["channel"] == "ticker"]
    assert asked == [["NOPE/USD"], ["NOPE/USD"]]


def test_a_silent_connection_is_closed() -> None:
    world = World("kraken", ["BTC/USD"], ["trades"])
    assert [c.reason for c in of(Close, world.wait(12.0))] == ["no message for 10 s"]


def test_a_stream_that_goes_quiet_is_a_gap_and_is_asked_for_again() -> None:
    world = World("binance", ["BTC/USDT", "ETH/USDT"], ["ticker"])
    world.receive(quote("BTCUSDT", 1))
    for second in range(601):
        world.receive(quote("ETHUSDT", second))
        world.wait(1.0, 1.0)
    assert [(g["symbol"], g["reason"]) for g in world.gaps()] == [("BTC/USDT", "stale")]
    world.receive(quote("BTCUSDT", 2))
    assert [g["recovered_ts"] is not None for g in world.gaps()] == [True]


# ------------------------------------------------------------------------------- reconnecting


def test_attempts_back_off_with_full_jitter_up_to_a_limit() -> None:
    world = World("binance", ["BTC/USDT"], ["trades"])
    world.opening = False
    waits = []
    line = 1
    for _ in range(40):
        world.lose(line)
        begun = world.now
        line = 0
        while not line:
            opened = of(Open, world.wait(0.05, 0.05))
            line = opened[0].line if opened else 0
        waits.append((world.now - begun) / SECOND)
    assert max(waits[:2]) <= 2.1
    assert max(waits) <= BACKOFF_S[1] + 0.1
    late = waits[8:]
    assert min(late) < 8 < 22 < max(late)  # spread over the whole range, not around its end


def test_a_connection_that_lasted_starts_the_back_off_anew() -> None:
    world = World("kraken", ["BTC/USD"], ["trades"])
    slot = world.core.lines[1].slot
    slot.attempts = 9
    for _ in range(61):
        world.receive({"channel": "heartbeat"})
        world.wait(1.0, 1.0)
    world.lose()
    assert slot.due_ns is not None
    assert slot.due_ns - world.now <= BACKOFF_S[0] * SECOND


def test_the_exchange_says_how_long_to_stay_away() -> None:
    world = World("binance", ["BTC/USDT"], ["trades"])
    world.lose(retry_after_s=120.0)
    assert not of(Open, world.wait(119.0))
    assert len(of(Open, world.wait(2.0))) == 1


def test_a_connection_is_replaced_before_it_expires_and_nothing_is_missed_or_doubled() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker"])
    life_s = world.venue.lifetime_s
    number = 0
    for _ in range(int(life_s // 30)):
        number += 1
        world.receive(quote("BTCUSDT", number))
        world.wait(30.0, 15.0)
    while not of(Open, world.log[1:]):
        number += 1
        world.receive(quote("BTCUSDT", number))
        world.wait(10.0, 5.0)
    closes: list[Close] = []
    for _ in range(int(OVERLAP_S) + 3):
        number += 1
        for line in (2, 1):
            if line in world.core.lines:
                world.receive(quote("BTCUSDT", number), line)
        closes += of(Close, world.wait(1.0))
    assert [(c.line, c.reason) for c in closes] == [(1, "replaced")]
    world.lose(1)
    assert world.core.counters.replaced == 1
    assert world.core.counters.lost == 0
    batches = dict(world.core.session.take())
    assert batches["ticker"]["seq"].to_pylist() == list(range(1, number + 1))
    assert "gaps" not in batches


def test_a_connection_that_dies_before_its_successor_carries_data_is_a_loss() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker"])
    world.receive(quote("BTCUSDT", 1))
    world.wait(1.0)
    world.receive({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}})
    world.lose(1)
    assert [g["reason"] for g in world.gaps()] == ["disconnect"]
    assert (world.core.counters.lost, world.core.counters.replaced) == (1, 0)


def test_a_successor_that_cannot_be_opened_is_tried_again_with_back_off() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker"])
    world.wait(1.0)
    world.opening = False
    world.receive({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}})
    attempts = 0
    for _ in range(50):
        world.receive(quote("BTCUSDT", attempts + 1))
        attempts += len(of(Open, world.wait(1.0)))
        for line in [n for n in world.core.lines if n != 1]:
            world.lose(line)
    assert 2 <= attempts <= 15
    assert world.core.counters.lost == 0


def test_numbers_that_begin_anew_with_a_connection_are_no_repetition() -> None:
    world = World("coinbase", ["BTC/USD"], ["ticker"])

    def ticker(number: int) -> dict[str, Any]:
        row = {
            "product_id": "BTC-USD",
            "best_bid": str(number + 1),
            "best_bid_quantity": "1",
            "best_ask": str(number + 2),
            "best_ask_quantity": "1",
        }
        return {
            "channel": "ticker",
            "timestamp": "2026-09-30T02:39:53Z",
            "sequence_num": number,
            "events": [{"type": "update", "tickers": [row]}],
        }

    for number in range(10):
        world.receive(ticker(number))
    world.lose()
    world.wait(5.0)
    for number in range(10):
        world.receive(ticker(number), line=2)
    assert len(dict(world.core.session.take())["ticker"]) == 20
    assert world.core.counters.duplicates == 0


def test_a_shutdown_that_is_announced_brings_the_successor_at_once() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker"])
    world.wait(1.0)
    done = world.receive({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}})
    assert len(of(Open, done)) == 1
    assert not of(Close, done)


# ------------------------------------------------------------------------------- books


def test_a_book_begins_with_a_snapshot_fetched_when_its_differences_come() -> None:
    world = World("binance", ["BTC/USDT"], ["book"])
    assert not of(Fetch, world.log)
    fetch = of(Fetch, world.receive(diff("BTCUSDT", 99, 101)))[0]
    assert fetch.url == "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000"
    world.do(world.core.fetched(fetch, world.now, 200, SNAPSHOT))
    assert world.core.session.integrity.book("BTC/USDT") is not None


def test_a_snapshot_that_is_too_old_is_fetched_again() -> None:
    world = World("binance", ["BTC/USDT"], ["book"])
    fetch = of(Fetch, world.receive(diff("BTCUSDT", 200, 201)))[0]
    world.do(world.core.fetched(fetch, world.now, 200, SNAPSHOT))
    assert len(of(Fetch, world.wait(5.0))) == 1


def test_a_gap_costs_only_the_book_it_is_in() -> None:
    world = World("binance", ["BTC/USDT", "ETH/USDT"], ["book"])
    for symbol in ("BTCUSDT", "ETHUSDT"):
        world.receive(diff(symbol, 99, 101))
    for fetch in of(Fetch, [*world.log, *world.wait(5.0)]):
        world.do(world.core.fetched(fetch, world.now, 200, SNAPSHOT))
    fetches = of(Fetch, world.receive(diff("BTCUSDT", 105, 106)) + world.wait(5.0))
    assert [f.symbol for f in fetches] == ["BTC/USDT"]
    assert world.core.session.integrity.book("ETH/USDT") is not None
    assert [(g["from_seq"], g["to_seq"]) for g in world.gaps()] == [(102, 104)]


def test_a_wrong_checksum_resubscribes_that_symbol_alone() -> None:
    world = World("kraken", ["BTC/USD", "ETH/USD"], ["book"])
    level = b'{"bids":[{"price":10.0,"qty":1.0}],"asks":[{"price":11.0,"qty":1.0}]'
    body = b'{"channel":"book","type":"snapshot","data":[%s,"symbol":"ETH/USD","checksum":1}]}'
    done = world.receive(body % level) + world.wait(2.0)
    messages = [(m["method"], m["params"]["symbol"]) for m in sent(done)]
    assert messages == [("unsubscribe", ["ETH/USD"]), ("subscribe", ["ETH/USD"])]
    assert world.core.session.events[Gap] == 1


def test_a_limit_on_requests_is_waited_for() -> None:
    world = World("binance", ["BTC/USDT"], ["book"])
    fetch = of(Fetch, world.receive(diff("BTCUSDT", 99, 101)))[0]
    world.do(world.core.fetched(fetch, world.now, 429, b"slow down", retry_after_s=90.0))
    assert not of(Fetch, world.wait(89.0))
    assert len(of(Fetch, world.wait(2.0))) == 1


def test_open_interest_is_asked_for_again_and_again() -> None:
    world = World("binance-futures", ["BTC/USDT:USDT"], ["funding"])
    fetches = [*of(Fetch, world.log)]
    mark = {"e": "markPriceUpdate", "E": 1, "s": "BTCUSDT", "p": "1", "i": "1", "r": "0", "T": 0}
    for _ in range(100):
        for line in (1, 2):
            if line in world.core.lines:
                world.receive({"stream": "btcusdt@markPrice@1s", "data": mark}, line)
        fetches += of(Fetch, world.wait(1.0))
    assert 3 <= len(fetches) <= 5
    body = b'{"symbol":"BTCUSDT","openInterest":"12.5","time":1700000000000}'
    world.do(world.core.fetched(fetches[0], world.now, 200, body))
    rows = dict(world.core.session.take())["funding"]["open_interest"].to_pylist()
    assert rows[-1] == 12.5


def test_funding_that_comes_by_two_connections_is_kept_once() -> None:
    world = World("binance-futures", ["BTC/USDT:USDT"], ["funding"])
    mark = {"e": "markPriceUpdate", "E": 5, "s": "BTCUSDT", "p": "1", "i": "1", "r": "0", "T": 0}
    for _ in range(2):
        world.receive({"stream": "btcusdt@markPrice@1s", "data": mark})
    assert len(dict(world.core.session.take())["funding"]) == 1


def test_books_spoiled_together_are_asked_for_together() -> None:
    symbols = ["BTC/USD", "ETH/USD", "SOL/USD"]
    world = World("coinbase", symbols, ["book"])
    for number, symbol in enumerate(symbols):
        world.receive(level2(number, symbol, "snapshot"))
    done = world.receive(level2(4, "BTC/USD", "update")) + world.wait(3.0)
    books = [m for m in sent(done) if m["channel"] == "level2"]
    assert [(m["type"], len(m["product_ids"])) for m in books] == [
        ("unsubscribe", 3),
        ("subscribe", 3),
    ]


def test_a_book_spoiled_and_mended_by_messages_that_came_together_is_not_asked_for() -> None:
    world = World("coinbase", ["BTC/USD"], ["book"])
    world.receive(level2(0, "BTC/USD", "snapshot"))
    mended = level2(4, "BTC/USD", "update"), level2(5, "BTC/USD", "snapshot")
    done = world.receive_together(*mended) + world.wait(3.0)
    assert [m for m in sent(done) if m["channel"] == "level2"] == []
    assert len(world.gaps()) == 2  # found, and recovered


def test_a_book_spoiled_twice_by_messages_that_came_together_is_asked_for_once() -> None:
    world = World("coinbase", ["BTC/USD"], ["book"])
    world.receive(level2(0, "BTC/USD", "snapshot"))
    spoiled = level2(4, "BTC/USD", "update"), level2(8, "BTC/USD", "update")
    done = world.receive_together(*spoiled) + world.wait(3.0)
    asked = [m["type"] for m in sent(done) if m["channel"] == "level2"]
    assert asked == ["unsubscribe", "subscribe"]


# ------------------------------------------------------------------------------- the raw log


def test_messages_that_came_together_are_logged_before_any_is_understood() -> None:
    world = World("binance", ["BTC/USDT"], ["ticker"])
    session = world.core.session
    understood: list[int] = []
    world.core._on_raw = lambda *_: understood.append(session.frames)  # type: ignore[assignment]
    before = session.frames
    world.receive_together(*(quote("BTCUSDT", number) for number in range(300)))
    assert understood == [before] * 300
    assert session.frames == before + 300


@pytest.mark.parametrize("count", [3, 300])
def test_messages_that_came_together_are_what_they_are_alone(count: int) -> None:
    ready.load()
    messages: list[Any] = [quote("BTCUSDT", number) for number in range(count)]
    messages[1] = b"\xff no frame at all"
    together, alone = (World("binance", ["BTC/USDT"], ["ticker"]) for _ in range(2))
    together.receive_together(*messages)
    for message in messages:
        alone.receive(message)
        alone.now += 1
    rows, expected = (dict(world.core.session.take())["ticker"] for world in (together, alone))
    assert pa.RecordBatch.equals(rows, expected)
    assert together.core.counters == alone.core.counters
    assert together.raw == alone.raw


def test_the_raw_log_gives_the_rows_of_the_run_with_its_losses() -> None:
    world = World("binance", ["BTC/USDT", "ETH/USDT"], ["ticker", "book"])
    world.receive(diff("BTCUSDT", 99, 101))
    for fetch in of(Fetch, world.log):
        world.do(world.core.fetched(fetch, world.now, 200, SNAPSHOT))
    world.receive(quote("ETHUSDT", 5))
    world.receive(b"\xff no frame at all")
    world.lose()
    world.wait(3.0)
    world.receive(quote("ETHUSDT", 6), line=2)
    live = dict(world.core.session.take())
    again = Session(make_adapter("binance"), [*world.channels, "gaps"])
    for recv_ns, frame in world.raw:
        try:
            again.frame(recv_ns, frame)
        except CollectorError:
            assert frame.startswith(b"\xff")
    replayed = dict(again.take())
    assert live.keys() == replayed.keys() == {"ticker", "book", "gaps"}
    for channel, batch in live.items():
        assert pa.RecordBatch.equals(batch, replayed[channel])


def test_a_pair_that_only_the_subscription_makes_known_is_known_in_the_replay() -> None:
    world = World("binance", ["FOO/QUX"], ["ticker"])
    world.receive(quote("FOOQUX", 1))
    again = Session(make_adapter("binance"), ["ticker"])
    for recv_ns, frame in world.raw:
        again.frame(recv_ns, frame)
    assert dict(again.take())["ticker"]["seq"].to_pylist() == [1]
