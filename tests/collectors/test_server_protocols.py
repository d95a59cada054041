"""What the simulated exchanges say: the adapters understand all of it, and it is consistent."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from listening import EXCHANGES, PAIRS, SECOND, Listener, asked, of, talk_to

from collectors.adapter import Ack, Funding, Quote, Refusal, Status, Trade
from collectors.errors import CollectorError
from collectors.server.dialect import Answer
from collectors.server.simulation import Simulation
from collectors.server.talk import Talk

BTC = {exchange: pairs[0] for exchange, pairs in PAIRS.items()}


def heard(talk: Talk) -> list[dict]:
    frames, talk.out = talk.out, []
    return [json.loads(frame) for frame in frames]


def say(simulation: Simulation, talk: Talk, **message: object) -> list[dict]:
    simulation.hear(talk, json.dumps(message).encode())
    return heard(talk)


# -- all of them ---------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_all_that_is_sent_is_understood_and_proves_right(exchange: str) -> None:
    listener = Listener(exchange)
    listener.run(0.7)
    listener.fetch_books()
    listener.run(60)
    listener.to_the_second()
    integrity = listener.session.integrity
    assert (listener.errors, integrity.gaps, integrity.duplicates) == (0, 0, 0)
    assert len(listener.frames) > 500
    depth = 10 if exchange == "kraken" else 9_999
    for pair in listener.pairs:
        assert listener.book(pair, depth) == listener.true_book(pair, depth)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(exchange: str) -> None:
    runs = []
    for seed in (4, 4, 5):
        listener = Listener(exchange, seed=seed)
        listener.run(5)
        runs.append(listener.frames)
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_quotes_are_the_best_of_the_book_and_trades_happen_there(exchange: str) -> None:
    listener = Listener(exchange)
    listener.run(60)
    listener.to_the_second()
    pair = listener.pairs[0]
    (bid, bid_size), (ask, ask_size) = (side[0] for side in listener.true_book(pair))
    last = of(listener.events, Quote, pair)[-1]
    if exchange != "coinbase":  # there a quote comes with a trade, and is as old as that
        assert (last.bid, last.bid_size, last.ask, last.ask_size) == (bid, bid_size, ask, ask_size)
    trades = of(listener.events, Trade, pair)
    assert len(trades) > 50
    ids = [trade.trade_id for trade in trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert {trade.side for trade in trades} == {-1, 1}
    assert abs(trades[-1].price / bid - 1) < 0.001


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_market_does_not_notice_its_audience(exchange: str) -> None:
    alone, watched = Simulation(exchange, PAIRS[exchange]), Listener(exchange)
    watched.run(20)
    alone.advance(watched.simulation.now_ns)
    for pair in PAIRS[exchange]:
        assert alone.book(pair).quote() == watched.simulation.book(pair).quote()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_who_unsubscribes_hears_no_more(exchange: str) -> None:
    listener = Listener(exchange)
    pair = listener.pairs[0]
    for request in listener.adapter.unsubscribe([pair], listener.adapter.channels):
        listener.simulation.hear(listener.talks[request.route], request.frame)
    listener.run(1)
    before = len(listener.events)
    listener.run(20)
    later = listener.events[before:]
    assert not [e for e in later if getattr(e, "symbol", "") == pair]
    assert [e for e in later if getattr(e, "symbol", "") == listener.pairs[1]]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_second_client_gets_the_same_data_in_its_own_connection(exchange: str) -> None:
    listener = Listener(exchange)
    second = Listener(exchange)
    second.simulation = listener.simulation
    second.talks = {
        route: talk_to(listener.simulation, talk.path) for route, talk in listener.talks.items()
    }
    for request in second.adapter.subscribe(second.pairs, second.adapter.channels):
        listener.simulation.hear(second.talks[request.route], request.frame)
    before = len(second.events)
    listener.run(20)
    second.listen()
    pair = listener.pairs[0]
    first_trades, second_trades = (
        [trade.trade_id for trade in of(events, Trade, pair)]
        for events in (listener.events, second.events[before:])
    )
    assert len(second_trades) > 10
    assert first_trades[-10:] == second_trades[-10:]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_any_message_of_a_client_is_answered_or_ends_the_connection(exchange: str) -> None:
    for message in (b"", b"{}", b"[1", b"\xff\xfe", b'{"method":5}', b'{"type":"subscribe"}'):
        simulation = Simulation(exchange, PAIRS[exchange])
        talk = talk_to(simulation, "/v2" if exchange == "kraken" else _path(exchange))
        heard(talk)
        simulation.hear(talk, message)
        assert heard(talk) or talk.closing


def _path(exchange: str) -> str:
    return {"binance": "/ws", "binance-futures": "/public/ws", "coinbase": "/"}[exchange]


def test_an_unknown_base_or_exchange_is_an_error_that_names_the_choice() -> None:
    with pytest.raises(CollectorError, match="no pair 'PEPE/USD'; its base can be BTC, ETH"):
        Simulation("kraken", ["PEPE/USD"])
    with pytest.raises(CollectorError, match="'ftx' is not simulated; choose from binance"):
        Simulation("ftx", ["BTC/USD"])


def test_the_time_of_messages_can_be_another_than_the_markets() -> None:
    listener = Listener("binance", stamp=lambda time_ns: time_ns + 7 * SECOND)
    listener.run(5)
    trade = of(listener.events, Trade, "BTC/USDT")[0]
    assert 6 * SECOND < trade.ts - trade.recv_ts <= 7 * SECOND


# -- Binance -------------------------------------------------------------------------------


def test_binance_answers_requests_as_documented() -> None:
    simulation = Simulation("binance", PAIRS["binance"])
    talk = talk_to(simulation, "/stream")
    streams = ["btcusdt@trade", "btcusdt@nonsense"]
    assert say(simulation, talk, method="SUBSCRIBE", params=streams, id=7) == [
        {"result": None, "id": 7}
    ]
    assert say(simulation, talk, method="LIST_SUBSCRIPTIONS", id="x1") == [
        {"result": streams, "id": "x1"}
    ]
    simulation.advance(simulation.now_ns + 2 * SECOND)
    heard(talk)
    assert say(simulation, talk, method="UNSUBSCRIBE", params=streams[1:], id=8)[0]["id"] == 8
    assert say(simulation, talk, method="LIST_SUBSCRIPTIONS", id=9)[0]["result"] == streams[:1]
    assert say(simulation, talk, method="NONSENSE", id=10)[0]["code"] == 2
    simulation.advance(simulation.now_ns + 2 * SECOND)
    heard(talk)
    simulation.hear(talk, b"{")
    assert heard(talk)[0]["code"] == 3
    simulation.hear(talk, b'{"method":5}')
    assert heard(talk)[0]["code"] == 2


def test_binance_wraps_streams_or_not_and_takes_them_from_the_address() -> None:
    simulation = Simulation("binance", PAIRS["binance"])
    bare = talk_to(simulation, "/ws/btcusdt@trade")
    wrapped = talk_to(simulation, "/stream", streams="btcusdt@trade", timeUnit="MICROSECOND")
    simulation.advance(simulation.now_ns + 5 * SECOND)
    for one, other in zip(heard(bare), heard(wrapped), strict=True):
        assert other["stream"] == "btcusdt@trade"
        assert other["data"]["t"] == one["t"]
        assert other["data"]["T"] // 1000 == one["T"]
    assert say(simulation, bare, method="GET_PROPERTY", params=["combined"], id=1) == [
        {"result": False, "id": 1}
    ]
    say(simulation, bare, method="SET_PROPERTY", params=["combined", True], id=2)
    simulation.advance(simulation.now_ns + 5 * SECOND)
    assert {frame["stream"] for frame in heard(bare)} == {"btcusdt@trade"}


@pytest.mark.parametrize(("exchange", "limit"), [("binance", 5), ("binance-futures", 10)])
def test_binance_hangs_up_on_clients_that_say_too_much(exchange: str, limit: int) -> None:
    simulation = Simulation(exchange, PAIRS[exchange])
    talk = talk_to(simulation, _path(exchange))
    for number in range(limit):
        say(simulation, talk, method="LIST_SUBSCRIPTIONS", id=number)
    assert talk.closing is None
    say(simulation, talk, method="LIST_SUBSCRIPTIONS", id=99)
    assert talk.closing == (1008, "Too many requests")


def test_binance_rest_answers_and_errors() -> None:
    simulation = Simulation("binance", PAIRS["binance"])
    depth = json.loads(asked(simulation, "/api/v3/depth?symbol=ETHUSDT&limit=5").body)
    assert [len(depth["bids"]), len(depth["asks"])] == [5, 5]
    info = json.loads(asked(simulation, "/api/v3/exchangeInfo").body)["symbols"]
    assert next((s["symbol"], s["baseAsset"], s["quoteAsset"]) for s in info) == (
        "BTCUSDT",
        "BTC",
        "USDT",
    )
    for path, code in (("depth?symbol=NOSUCH", -1121), ("depth?symbol=BTCUSDT&limit=0", -1130)):
        answer = asked(simulation, f"/api/v3/{path}")
        assert (answer.status, json.loads(answer.body)["code"]) == (400, code)
    assert json.loads(asked(simulation, "/api/v3/time").body)["serverTime"] > 1.7e12
    assert asked(simulation, "/api/v3/nothing") is None
    assert asked(simulation, "/fapi/v1/time") is None


def test_exchange_information_is_what_the_symbol_table_loads(tmp_path: Path) -> None:
    from collectors.exchanges.binance_symbols import load_symbols

    simulation = Simulation("binance", PAIRS["binance"])
    (tmp_path / "info.json").write_bytes(asked(simulation, "/api/v3/exchangeInfo").body)
    table = load_symbols(tmp_path / "info.json")
    assert table.pair("BTCUSDT") == "BTC/USDT"


def test_futures_streams_come_by_their_route_only() -> None:
    simulation = Simulation("binance-futures", PAIRS["binance-futures"])
    names = "btcusdt@aggTrade/btcusdt@markPrice@1s/btcusdt@bookTicker/btcusdt@depth@100ms"
    seen = {}
    for route in ("/public", "/market", ""):
        talk = talk_to(simulation, f"{route}/stream", streams=names)
        seen[route] = talk
    simulation.advance(simulation.now_ns + 10 * SECOND)
    streams = {
        route: {frame["stream"].partition("@")[2] for frame in heard(talk)}
        for route, talk in seen.items()
    }
    assert streams["/public"] == streams[""] == {"bookTicker", "depth@100ms"}
    assert streams["/market"] == {"aggTrade", "markPrice@1s"}


def test_futures_tell_mark_prices_funding_and_open_interest() -> None:
    listener = Listener("binance-futures")
    listener.run(10)
    pair = listener.pairs[0]
    told = of(listener.events, Funding, pair)
    assert len(told) == 10
    assert all(0.999 < f.mark_price / f.index_price < 1.001 for f in told)
    assert all(f.next_funding_ts % (8 * 3600 * SECOND) == 0 for f in told)
    answer = asked(listener.simulation, "/fapi/v1/openInterest?symbol=BTCUSDT")
    (interest,) = listener.session.frame(listener.simulation.now_ns, answer.body)
    assert interest.open_interest > 0


def test_futures_numbers_have_holes_and_are_linked() -> None:
    listener = Listener("binance-futures")
    listener.run(20)
    differences = [
        json.loads(frame)["data"] for frame in listener.frames if b"btcusdt@depth@100ms" in frame
    ]
    assert len(differences) > 10
    for before, after in itertools.pairwise(differences):
        assert after["pu"] == before["u"] < after["U"] <= after["u"]
    assert any(b["U"] > a["u"] + 1 for a, b in itertools.pairwise(differences))


# -- Kraken --------------------------------------------------------------------------------


def kraken() -> tuple[Simulation, Talk]:
    simulation = Simulation("kraken", PAIRS["kraken"])
    talk = talk_to(simulation, "/v2")
    (status,) = heard(talk)
    assert status["data"][0]["system"] == "online"
    return simulation, talk


def test_kraken_acknowledges_every_symbol_and_refuses_one_by_one() -> None:
    simulation, talk = kraken()
    params = {"channel": "book", "symbol": ["BTC/USD", "FOO/USD"], "depth": 25}
    ack, snapshot, refusal = say(simulation, talk, method="subscribe", params=params, req_id=3)
    assert ack["result"] == {"channel": "book", "symbol": "BTC/USD", "depth": 25, "snapshot": True}
    assert ack["success"]
    assert ack["req_id"] == 3
    assert [len(snapshot["data"][0][side]) for side in ("bids", "asks")] == [25, 25]
    assert refusal["error"] == "Currency pair not supported FOO/USD"


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"channel": "book", "symbol": ["BTC/USD"], "depth": 27}, "depth not supported"),
        ({"channel": "ohlc", "symbol": ["BTC/USD"]}, "Channel not found"),
        ({"channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "no"}, "trigger"),
    ],
)
def test_kraken_refuses_what_it_does_not_offer(params: dict, error: str) -> None:
    simulation, talk = kraken()
    (refusal,) = say(simulation, talk, method="subscribe", params=params)
    assert not refusal["success"]
    assert error in refusal["error"]


def test_kraken_has_a_channel_of_a_symbol_once_and_forgets_it() -> None:
    simulation, talk = kraken()
    params = {"channel": "trade", "symbol": ["BTC/USD"]}
    assert say(simulation, talk, method="subscribe", params=params)[0]["success"]
    again = say(simulation, talk, method="subscribe", params=params)
    assert again[0]["error"] == "Already subscribed"
    assert say(simulation, talk, method="unsubscribe", params=params)[0]["success"]
    (gone,) = say(simulation, talk, method="unsubscribe", params=params)
    assert gone["error"] == "Subscription Not Found"


def test_kraken_beats_once_a_second_when_something_is_subscribed_and_answers_pings() -> None:
    simulation, talk = kraken()
    simulation.advance(simulation.now_ns + 3 * SECOND)
    assert heard(talk) == []
    params = {"channel": "ticker", "symbol": ["SOL/USD"], "snapshot": False}
    say(simulation, talk, method="subscribe", params=params)
    simulation.advance(simulation.now_ns + 3 * SECOND)
    assert sum(frame == {"channel": "heartbeat"} for frame in heard(talk)) == 3
    (pong,) = say(simulation, talk, method="ping", req_id=5)
    assert (pong["method"], pong["req_id"]) == ("pong", 5)


def test_kraken_says_when_there_are_too_many_messages_and_drops_the_idle() -> None:
    simulation, talk = kraken()
    answers = [say(simulation, talk, method="ping")[0] for _ in range(21)]
    assert answers[-1] == {"Error": "Exceeded msg rate"}
    assert "Error" not in answers[-2]
    simulation.advance(simulation.now_ns + 62 * SECOND)
    assert talk.closing == (1008, "idle")


def test_kraken_snapshots_of_trades_and_tickers() -> None:
    listener = Listener("kraken")
    kinds = listener.kinds
    assert (kinds["Status"], kinds["Ack"]) == (1, 9)
    trades = of(listener.events, Trade, "BTC/USD")
    assert len(trades) == 50
    ticker = next(json.loads(f) for f in listener.frames if b'"ticker","type":"snapshot"' in f)
    assert ticker["data"][0]["last"] == trades[-1].price
    assert isinstance(listener.events[0], Status)


# -- Coinbase ------------------------------------------------------------------------------


def test_coinbase_numbers_everything_and_lists_all_subscriptions() -> None:
    listener = Listener("coinbase")
    listener.run(5)
    frames = [json.loads(frame) for frame in listener.frames]
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    acks = [frame for frame in frames if frame["channel"] == "subscriptions"]
    assert acks[-1]["events"][0]["subscriptions"] == {
        "heartbeats": ["heartbeats"],
        "market_trades": ["BTC-USD", "ETH-USD", "SOL-USD"],
        "ticker": ["BTC-USD", "ETH-USD", "SOL-USD"],
        "level2": ["BTC-USD", "ETH-USD", "SOL-USD"],
    }
    assert sum(frame["channel"] == "heartbeats" for frame in frames) == 5
    assert listener.kinds[Ack.__name__] == 4


def test_coinbase_begins_with_the_last_hundred_trades_newest_first_and_names_the_maker() -> None:
    simulation = Simulation("coinbase", PAIRS["coinbase"])
    simulation.advance(simulation.now_ns + 120 * SECOND)
    talk = talk_to(simulation, "/")
    snapshot, _ = say(
        simulation, talk, type="subscribe", product_ids=["BTC-USD"], channel="market_trades"
    )
    trades = snapshot["events"][0]["trades"]
    ids = [int(trade["trade_id"]) for trade in trades]
    assert ids == list(range(ids[0], ids[0] - 100, -1))
    book = simulation.book("BTC/USD")
    assert {trade["side"] for trade in trades} == {"BUY", "SELL"}
    # A taker who buys lifts the ask: the maker sold, above where makers buy.
    sold = [float(trade["price"]) for trade in trades if trade["side"] == "SELL"]
    bought = [float(trade["price"]) for trade in trades if trade["side"] == "BUY"]
    assert book.quote()
    assert sorted(sold)[len(sold) // 2] > sorted(bought)[len(bought) // 2]


def test_coinbase_calls_the_usdc_product_by_its_usd_name() -> None:
    simulation = Simulation("coinbase", PAIRS["coinbase"])
    talk = talk_to(simulation, "/")
    snapshot, ack = say(
        simulation, talk, type="subscribe", product_ids=["BTC-USDC"], channel="level2"
    )
    assert snapshot["channel"] == "l2_data"
    assert snapshot["events"][0]["product_id"] == "BTC-USD"
    assert ack["events"][0]["subscriptions"] == {"level2": ["BTC-USD"]}
    sides = [change["side"] for change in snapshot["events"][0]["updates"]]
    assert sides == sorted(sides)
    assert set(sides) == {"bid", "offer"}


def test_coinbase_refuses_and_hangs_up_as_documented() -> None:
    simulation = Simulation("coinbase", PAIRS["coinbase"])
    talk = talk_to(simulation, "/")
    for channel, product in (("level3", "BTC-USD"), ("level2", "FOO-USD")):
        (error,) = say(simulation, talk, type="subscribe", product_ids=[product], channel=channel)
        assert error == {"type": "error", "message": "failure to subscribe"}
    silent = talk_to(simulation, "/")
    simulation.advance(simulation.now_ns + 7 * SECOND)
    assert silent.closing == (1008, "no subscription")
    assert talk.closing is None
    for _ in range(9):
        simulation.hear(talk, b'{"type":"subscribe","channel":"heartbeats"}')
    assert talk.closing == (1008, "rate limit exceeded")


def test_a_socket_at_another_path_does_not_exist() -> None:
    for exchange in EXCHANGES:
        answer = Simulation(exchange, PAIRS[exchange]).connect("/nowhere", {})
        assert isinstance(answer, Answer)
        assert answer.status == 404


def test_refusals_are_told_by_the_adapter() -> None:
    simulation, talk = kraken()
    simulation.hear(talk, b'{"method":"subscribe","params":{"channel":"nothing"}}')
    listener = Listener("kraken")
    (event,) = listener.session.frame(0, talk.out[0])
    assert isinstance(event, Refusal)
