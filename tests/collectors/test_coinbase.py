"""The Coinbase adapter: what every kind of frame means, and the numbers of a connection."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.adapter import (
    Ack,
    BookUpdate,
    Event,
    FrameNumber,
    Gap,
    Ignored,
    Quote,
    Recovery,
    Refusal,
    Trade,
)
from collectors.errors import CollectorError, DecodeError, SymbolError
from collectors.exchanges import make_adapter
from collectors.exchanges.coinbase import Coinbase
from collectors.integrity import Integrity

RECV = 1_790_735_993_900_000_000
SENT = 1_790_735_993_788_628_813


def frame(channel, number, *events, **more):
    head = {"channel": channel, "timestamp": "2026-09-30T02:39:53.788628813Z"}
    return json.dumps({**head, **more, "sequence_num": number, "events": events}).encode()


def change(side, price, size, time="2026-09-30T02:39:53.751818Z"):
    return {"side": side, "event_time": time, "price_level": price, "new_quantity": size}


def book(number, *changes, kind="update", product="BTC-USD", **more):
    event = {"type": kind, "product_id": product, "updates": changes}
    return frame("l2_data", number, event, **more)


def trades(number, *prints, kind="update"):
    keys = ("product_id", "trade_id", "price", "size", "time", "side")
    told = [dict(zip(keys, one, strict=True)) for one in prints]
    return frame("market_trades", number, {"type": kind, "trades": told})


TIME = "2026-09-30T02:39:53.5Z"
BOOK = book(12, change("bid", "83242.39", "0.2"), change("offer", "83243", "0"))
TRADES = trades(
    22,
    ("BTC-USD", "8", "83277.26", "0.5", TIME, "SELL"),
    ("BTC-USD", "7", "83277", "1", TIME, "BUY"),
)
TICKER = frame(
    "ticker",
    5,
    {
        "type": "update",
        "tickers": [
            {
                "type": "ticker",
                "product_id": "ETH-USD",
                "price": "2666",
                "volume_24_h": "46",
                "best_bid": "2665.9",
                "best_bid_quantity": "1.5",
                "best_ask": "2666.1",
                "best_ask_quantity": "2",
            }
        ],
    },
)


@pytest.mark.parametrize("old", [{}, {"client_id": ""}])
def test_book_update(old):
    told = book(12, change("bid", "83242.39", "0.2"), change("offer", "83243", "0"), **old)
    assert Coinbase().decode(told, RECV) == [
        FrameNumber(RECV, 12),
        BookUpdate(
            *(RECV, 1_790_735_993_751_818_000, "BTC/USD", 12, None, False),
            *([(83242.39, 0.2)], [(83243.0, 0.0)]),
        ),
    ]


def test_old_snapshot_that_says_1970_has_the_time_it_was_sent():
    told = book(0, change("bid", "9", "1", "1970-01-01T00:00:00Z"), kind="snapshot")
    _, event = Coinbase().decode(told, RECV)
    assert (event.is_snapshot, event.ts) == (True, SENT)


def test_update_without_changes_is_no_error():
    _, event = Coinbase().decode(book(0), RECV)
    assert (event.bids, event.asks, event.ts) == ([], [], SENT)


def test_trades_have_the_takers_side_and_come_oldest_first():
    ts = 1_790_735_993_500_000_000
    assert Coinbase().decode(TRADES, RECV) == [
        FrameNumber(RECV, 22),
        Trade(RECV, ts, "BTC/USD", 7, 7, 83277.0, 1.0, -1),
        Trade(RECV, ts, "BTC/USD", 8, 8, 83277.26, 0.5, 1),
    ]


def test_ticker_is_a_quote():
    assert Coinbase().decode(TICKER, RECV) == [
        FrameNumber(RECV, 5),
        Quote(RECV, SENT, "ETH/USD", 5, 2665.9, 2666.1, 1.5, 2.0, 46.0),
    ]


def test_error_has_no_number():
    told = b'{"type":"error","message":"failure to subscribe"}'
    assert Coinbase().decode(told, RECV) == [Refusal(RECV, None, 0, "failure to subscribe")]


@pytest.fixture(scope="module")
def lines(captures):
    names = ("frames_seq9-22.jsonl", "frames_seq247-249.jsonl")
    return [(captures / "coinbase" / name).read_bytes().splitlines() for name in names]


class TestRecordedFrames:
    """Two pieces of one connection: frames 9 to 22 and 247 to 249."""

    def test_counts(self, lines):
        adapter = Coinbase()
        events = [event for line in lines[0] for event in adapter.decode(line, RECV)]
        kinds = [type(event) for event in events]
        assert [e.number for e in events if isinstance(e, FrameNumber)] == list(range(9, 23))
        assert (kinds.count(Ack), kinds.count(BookUpdate)) == (2, 10)
        told = [json.loads(line) for line in lines[0]]
        expected = sum(len(e["trades"]) for t in told for e in t["events"] if "trades" in e)
        assert kinds.count(Trade) == expected > 100

    def test_consecutive_frames_have_no_gap(self, lines):
        adapter, checks = Coinbase(), Integrity()
        for line in lines[0]:
            checks.check(adapter.decode(line, RECV))
        assert (checks.gaps, checks.duplicates) == (0, 0)

    def test_hole_between_the_pieces_is_found_with_its_first_frame(self, lines):
        adapter, checks = Coinbase(), Integrity()
        for line in lines[0]:
            checks.check(adapter.decode(line, RECV))
        gaps = [e for e in checks.check(adapter.decode(lines[1][0], RECV)) if isinstance(e, Gap)]
        books = [(g.symbol, g.from_seq, g.to_seq, g.reason) for g in gaps if g.channel == "book"]
        assert books == [(pair, 23, 246, "sequence") for pair in ("BTC/USD", "ETH/USD")]
        (trades,) = (g for g in gaps if g.channel == "trades")
        assert (trades.symbol, trades.to_seq) == ("ETH/USD", 846155166)

    def test_sweep_up_is_a_buyer_and_a_sweep_down_a_seller(self, lines):
        adapter = Coinbase()
        events = [event for line in lines[0] for event in adapter.decode(line, RECV)]
        of = {e.trade_id: e for e in events if isinstance(e, Trade) and e.symbol == "ETH/USD"}
        for first, last, side in ((846155077, 846155088, -1), (846155050, 846155057, 1)):
            sweep = [of[number] for number in range(first, last + 1)]
            assert {t.side for t in sweep} == {side}
            prices = [t.price * side for t in sweep]
            assert prices == sorted(prices)
            assert prices[0] < prices[-1]

    def test_messages_of_other_years(self, captures):
        adapter = Coinbase()
        for name in ("market_trades_ccxt27606_20251231.jsonl", "heartbeats_and_error.jsonl"):
            for line in (captures / "coinbase" / name).read_bytes().splitlines():
                if b"BIP-20DEC30-CDE" in line:
                    with pytest.raises(DecodeError, match="'BIP-20DEC30-CDE' is not BASE-QUOTE"):
                        adapter.decode(line, RECV)
                    continue
                kinds = {type(event) for event in adapter.decode(line, RECV)}
                assert kinds & {Trade, Ignored, Ack, Refusal}


def test_book_is_stale_from_a_lost_frame_to_the_next_snapshot():
    adapter, checks = Coinbase(), Integrity()

    def feed(number, told):
        return checks.check(adapter.decode(told, number))

    level = change("bid", "9", "1"), change("offer", "11", "1")
    feed(0, frame("subscriptions", 0, {"subscriptions": {}}))
    feed(1, book(1, *level, kind="snapshot"))
    feed(2, frame("heartbeats", 2, {"heartbeat_counter": "5"}))
    feed(3, book(3, change("bid", "10", "3")))
    assert checks.book("BTC/USD").bids.best() == (10.0, 3.0)
    (gap, _) = feed(5, frame("heartbeats", 5, {"heartbeat_counter": 8}))
    assert (gap.symbol, gap.from_seq, gap.to_seq) == ("BTC/USD", 4, 4)
    feed(6, book(6, change("bid", "10", "0")))
    assert checks.stale == ["BTC/USD"]
    _, recovery = feed(7, book(7, *level, kind="snapshot"))
    assert recovery == Recovery(7, gap)
    assert checks.book("BTC/USD").bids.best() == (9.0, 1.0)


def test_requests_are_one_channel_each_with_heartbeats():
    requests = Coinbase().subscribe(["BTC/USD", "ETH/USD"], ["ticker", "trades", "book"])
    both = {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"]}
    assert [json.loads(request.frame) for request in requests] == [
        {"type": "subscribe", "channel": "heartbeats"},
        {**both, "channel": "market_trades"},
        {**both, "channel": "ticker"},
        {**both, "channel": "level2"},
    ]
    (request,) = Coinbase().unsubscribe(["BTC/USD"], ["book"])
    assert json.loads(request.frame) == {
        "type": "unsubscribe",
        "product_ids": ["BTC-USD"],
        "channel": "level2",
    }


def test_usdc_book_that_is_the_dollars_is_refused_and_its_own_is_not():
    with pytest.raises(SymbolError, match=r"BTC/USDC has no book of its own.*ask for BTC/USD"):
        Coinbase().subscribe(["BTC/USDC"], ["trades"])
    request = Coinbase().subscribe(["USDT/USDC"], ["trades"])[-1]
    assert json.loads(request.frame)["product_ids"] == ["USDT-USDC"]
    with pytest.raises(CollectorError, match="coinbase: no channel 'funding'"):
        Coinbase().subscribe(["BTC/USD"], ["funding"])


def test_list_of_products_names_futures_and_skips_aliases(tmp_path, captures):
    product = json.loads((captures / "coinbase" / "rest_product_BTC-USD.json").read_bytes())
    alias = {**product, "product_id": "BTC-USDC", "quote_currency_id": "USDC", "alias": "BTC-USD"}
    future = {
        "product_id": "BIP-20DEC30-CDE",
        "product_type": "FUTURE",
        "base_display_symbol": "BTC",
        "quote_currency_id": "USD",
    }
    path = tmp_path / "products.json"
    path.write_text(json.dumps({"products": [product, alias, future]}))
    adapter = make_adapter("coinbase", path)
    told = book(0, change("bid", "72575", "1"), product="BIP-20DEC30-CDE")
    assert adapter.decode(told, RECV)[1].symbol == "BTC/USD:USD-BIP-20DEC30-CDE"
    assert adapter.decode(BOOK, RECV)[1].symbol == "BTC/USD"
    with pytest.raises(SymbolError, match="no book of its own"):
        adapter.subscribe(["BTC/USDC"], ["trades"])
    path.write_text("[]")
    with pytest.raises(SymbolError, match="not a saved reply of market/products"):
        make_adapter("coinbase", path)


@pytest.mark.parametrize(
    "change",
    [
        (b"83242.39", b"nan"),
        (b"83242.39", b"0"),
        (b'"0.2"', b'"-0.2"'),
        (b'"bid"', b'"buy"'),
        (b"751818Z", b"751818"),
        (b"BTC-USD", b"BTCUSD"),
        (b'"sequence_num": 12', b'"sequence_num": -1'),
        (b'"sequence_num": 12, ', b""),
        (b'"channel"', b'"chanel"'),
        (b'"update"', b'"delta"'),
    ],
)
def test_what_the_protocol_does_not_allow_is_an_error(change):
    with pytest.raises(DecodeError, match=r"^coinbase: .*; frame: '"):
        Coinbase().decode(BOOK.replace(*change), RECV)


@given(st.sampled_from([BOOK, TRADES, TICKER]), st.data())
def test_any_bytes_give_events_or_the_documented_error(told, data):
    start = data.draw(st.integers(0, len(told)))
    stop = data.draw(st.integers(start, len(told)))
    mangled = told[:start] + data.draw(st.binary(max_size=6)) + told[stop:]
    try:
        events = Coinbase().decode(mangled, RECV)
    except DecodeError:
        return
    assert all(isinstance(event, Event) for event in events)
