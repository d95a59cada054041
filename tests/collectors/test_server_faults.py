"""Each fault of the simulated exchange does what it says, once, and is logged."""

from __future__ import annotations

import json

import pytest
from listening import EXCHANGES, PAIRS, SECOND, Listener, asked, of, talk_to

from collectors.adapter import Gap, Quote, Shutdown, Trade
from collectors.errors import CollectorError
from collectors.server.dialect import Answer
from collectors.server.faults import KINDS, Fault, parse_fault
from collectors.server.simulation import Simulation

BTC, ETH = PAIRS["binance"][:2]


def trades_of(listener: Listener, pair: str = BTC) -> list[int]:
    return [trade.trade_id for trade in of(listener.events, Trade, pair)]


def spoiled(fault: str, seconds: float = 30) -> tuple[Listener, Listener]:
    """A listener to a market with this fault, and one without."""
    listeners = []
    for faults in ([parse_fault(fault)], []):
        listener = Listener("binance", faults=faults)
        listener.run(seconds)
        listeners.append(listener)
    return listeners[0], listeners[1]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop", Fault("drop")),
        ("drop:book", Fault("drop", "book")),
        ("drop:book:BTC/USDT:USDT@100", Fault("drop", "book", "BTC/USDT:USDT", at=100)),
        ("corrupt:trades@0.5%", Fault("corrupt", "trades", share=0.005, times=0)),
        ("disconnect@5000x3", Fault("disconnect", at=5000, times=3)),
        ("stall::ETH/USD=30", Fault("stall", "", "ETH/USD", seconds=30.0)),
        ("drop@1%x5", Fault("drop", share=0.01, times=5)),
    ],
)
def test_faults_are_written_so(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("explode", "fault 'explode': choose from drop, duplicate"),
        ("drop:candles", "no channel 'candles'; there are ticker"),
        ("drop@0", "@ takes a number from 1"),
        ("drop@1.5", "neither a whole number nor a percentage"),
        ("drop@101%", "up to 100%"),
        ("drop book", "is not KIND"),
        ("drop:rest", "REST requests can only be refused"),
    ],
)
def test_other_wishes_are_refused_with_what_is_meant(text: str, message: str) -> None:
    with pytest.raises(CollectorError, match=message):
        parse_fault(text)


def test_drop_leaves_out_one_message() -> None:
    bad, good = spoiled(f"drop:trades:{BTC}@5")
    (struck,) = bad.simulation.log
    missed = json.loads(struck.frame)["data"]["t"]
    assert set(trades_of(good)) - set(trades_of(bad)) == {missed}
    assert trades_of(bad, ETH) == trades_of(good, ETH)
    assert (struck.kind, struck.channel, struck.symbol, struck.connection) == (
        "drop",
        "trades",
        BTC,
        1,
    )


def test_duplicate_sends_one_twice() -> None:
    bad, good = spoiled(f"duplicate:trades:{BTC}@5")
    frame = bad.simulation.log[0].frame
    assert bad.frames.count(frame) == 2
    assert len(bad.frames) == len(good.frames) + 1
    assert bad.session.integrity.duplicates == 1


def test_reorder_swaps_two_neighbours() -> None:
    bad, good = spoiled(f"reorder:trades:{BTC}@5")
    late = bad.simulation.log[0].frame
    at = [frame for frame in bad.frames if b"btcusdt@trade" in frame].index(late)
    true = [frame for frame in good.frames if b"btcusdt@trade" in frame].index(late)
    assert at == true + 1
    assert sorted(bad.frames) == sorted(good.frames)


def test_corrupt_damages_one_byte() -> None:
    bad, good = spoiled(f"corrupt:trades:{BTC}@5")
    frame = bad.simulation.log[0].frame
    assert frame in good.frames
    assert frame not in bad.frames
    (other,) = set(bad.frames) - set(good.frames)
    assert sum(a != b for a, b in zip(frame, other, strict=True)) == 1
    assert bad.errors == 1


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_alter_changes_a_digit_that_only_a_checksum_can_tell(exchange: str) -> None:
    listener = Listener(exchange, faults=[parse_fault("alter:book@20")])
    listener.run(0.7)
    listener.fetch_books()
    listener.run(20)
    assert [struck.kind for struck in listener.simulation.log] == ["alter"]
    assert listener.errors == 0
    assert listener.session.integrity.gaps == (1 if exchange == "kraken" else 0)


def test_stall_silences_one_channel_of_one_symbol_for_a_while() -> None:
    bad, good = spoiled(f"stall:trades:{BTC}@5=10")
    (struck,) = bad.simulation.log
    missed = [
        trade for trade in of(good.events, Trade, BTC) if trade.trade_id not in set(trades_of(bad))
    ]
    assert missed
    assert all(0 <= t.ts - struck.time_ns + 1_000_000 < 10 * SECOND for t in missed)
    assert trades_of(bad)[-1] == trades_of(good)[-1]
    assert of(bad.events, Quote, BTC) == of(good.events, Quote, BTC)


def test_a_stall_without_an_end_ends_with_the_next_subscription() -> None:
    listener = Listener("binance", faults=[parse_fault(f"stall:trades:{BTC}")])
    listener.run(10)
    assert len(trades_of(listener)) == 1
    (talk,) = listener.talks.values()
    for method in ("UNSUBSCRIBE", "SUBSCRIBE"):
        request = {"method": method, "params": ["btcusdt@trade"], "id": 1}
        listener.simulation.hear(talk, json.dumps(request).encode())
    listener.run(10)
    assert len(trades_of(listener)) > 5


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_stalled_channel_has_no_numbers_to_miss(exchange: str) -> None:
    listener = Listener(exchange, faults=[parse_fault(f"stall:ticker:{PAIRS[exchange][0]}@5")])
    listener.run(20)
    assert [struck.kind for struck in listener.simulation.log] == ["stall"]
    assert listener.session.integrity.gaps == 0


def test_slow_holds_everything_back_and_loses_nothing() -> None:
    listener = Listener("binance", faults=[parse_fault(f"slow:trades:{BTC}@3=5")])
    before = None
    for _ in range(200):
        listener.run(0.1)
        if listener.simulation.log and before is None:
            before = len(listener.frames)
            struck_ns = listener.simulation.log[0].time_ns
        if before is not None and listener.simulation.now_ns < struck_ns + 5 * SECOND:
            assert len(listener.frames) == before
    good = Listener("binance")
    good.run(20)
    assert listener.frames == good.frames


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_disconnect_cuts_the_line_and_another_can_be_opened(exchange: str) -> None:
    listener = Listener(exchange, faults=[parse_fault("disconnect:book@30")])
    listener.run(20)
    cut = [talk for talk in listener.talks.values() if talk.closing]
    assert [talk.closing for talk in cut] == [(0, "cut")]
    listener.simulation.leave(cut[0])
    assert talk_to(listener.simulation, cut[0].path).closing is None


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_shutdown_is_announced_where_the_protocol_can_and_happens(exchange: str) -> None:
    listener = Listener(exchange, faults=[parse_fault("shutdown:book@10=4")])
    listener.run(60)
    (closed,) = [talk for talk in listener.talks.values() if talk.closing]
    assert closed.closing == (1001, "going away")
    told = {"binance": Shutdown, "binance-futures": Shutdown}.get(exchange)
    if told is not None:
        assert [type(e) for e in listener.events].count(told) == 1
    elif exchange == "kraken":
        assert b'"maintenance"' in b"".join(listener.frames)


def test_refuse_answers_connections_requests_and_subscriptions_with_an_error() -> None:
    faults = [parse_fault(text) for text in ("refuse", "refuse=60", "refuse:rest=30")]
    simulation = Simulation("binance", PAIRS["binance"], faults=faults)
    answers = [simulation.connect("/stream", {}) for _ in range(2)]
    assert [(a.status, a.headers.get("Retry-After")) for a in answers] == [
        (503, None),
        (429, "60"),
    ]
    assert not isinstance(simulation.connect("/stream", {}), Answer)
    limited = asked(simulation, "/api/v3/depth?symbol=BTCUSDT")
    assert (limited.status, limited.headers["Retry-After"]) == (429, "30")
    assert asked(simulation, "/api/v3/depth?symbol=BTCUSDT").status == 200


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_refuse_of_a_channel_refuses_its_subscription(exchange: str) -> None:
    pair = PAIRS[exchange][0]
    listener = Listener(exchange, faults=[parse_fault(f"refuse:book:{pair}")])
    assert listener.kinds["Refusal"] == 1
    listener.run(5)
    symbols = {e.symbol for e in listener.events if type(e).__name__ == "BookUpdate"}
    assert pair not in symbols


def test_chance_strikes_as_often_as_asked_and_the_same_with_the_same_seed() -> None:
    logs = []
    for _ in range(2):
        listener = Listener("binance", seed=9, faults=[parse_fault("drop:trades@5%")])
        listener.run(120)
        logs.append([struck.frame for struck in listener.simulation.log])
    sent = sum(listener.talks[""].sent["trades", pair] for pair in listener.pairs)
    assert logs[0] == logs[1]
    assert 0.03 < len(logs[0]) / sent < 0.07


def test_faults_can_come_while_it_runs() -> None:
    listener = Listener("binance")
    listener.run(5)
    listener.simulation.inject(Fault("drop", "trades", BTC))
    listener.run(5)
    (struck,) = listener.simulation.log
    assert struck.symbol == BTC
    assert [type(e) for e in listener.events].count(Gap) == 1


def test_every_kind_is_described_and_tested_here() -> None:
    from pathlib import Path

    import collectors.server.faults as module

    tests = Path(__file__).read_text()
    for kind in KINDS:
        assert f"| {kind} |" in module.__doc__
        assert f"test_{kind}" in tests
