"""The Kraken adapter: what every kind of frame means, and every recorded checksum."""

import gzip
import hashlib
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.adapter import (
    Ack,
    BookUpdate,
    Event,
    Gap,
    Ignored,
    Proof,
    Quote,
    Recovery,
    Refusal,
    Status,
    Trade,
)
from collectors.errors import CollectorError, DecodeError, SymbolError
from collectors.exchanges.kraken import Kraken
from collectors.integrity import Integrity

RECV = 1_785_641_750_295_158_100
BOOK = (
    b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":63378.3,'
    b'"qty":0.02997571}],"asks":[{"price":63395.20,"qty":0.00000000}],"checksum":261162761,'
    b'"timestamp":"2026-08-02T03:35:51.662823Z"}]}'
)
TRADES = (
    b'{"channel":"trade","type":"snapshot","data":[{"symbol":"XDG/USD","side":"sell","price":0.21,'
    b'"qty":1000,"ord_type":"market","trade_id":8,"timestamp":"2026-05-14T15:03:41.748964Z"},'
    b'{"symbol":"BTC/USD","side":"buy","price":81011.5,"qty":0.00123440,"ord_type":"limit",'
    b'"trade_id":7,"timestamp":"2026-05-14T15:06:09Z"}]}'
)
TICKER = (
    b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":62703.4,"bid_qty":0.03,'
    b'"ask":62710.3,"ask_qty":0.002,"last":62702.9,"volume":1947.5}]}'
)
ACK = (
    b'{"method":"subscribe","result":{"channel":"book","depth":25,"snapshot":true,'
    b'"symbol":"BTC/USD"},"success":true,"req_id":7}'
)


@pytest.fixture(scope="module")
def depth25(captures):
    with gzip.open(captures / "kraken" / "book_v2_btcusd.jsonl.gz") as file:
        return file.read().splitlines()


@pytest.fixture(scope="module")
def depth10(captures):
    path = captures / "kraken" / "book_v2_btcusd_depth10_resync.jsonl"
    return path.read_bytes().splitlines()


def play(lines):
    adapter, checks, events = Kraken(), Integrity(), []
    for number, line in enumerate(lines):
        events += checks.check(adapter.decode(line, number))
    return checks, events


def test_book_keeps_the_digits_beside_the_numbers():
    (event,) = Kraken().decode(BOOK, RECV)
    assert event == BookUpdate(
        *(RECV, 1785641751662823000, "BTC/USD", None, None, False),
        *([(63378.3, 0.02997571)], [(63395.2, 0.0)], None),
        Proof(261162761, 10, [b"6337832997571"], [b"6339520"]),
    )


def test_numbers_in_exponent_form_are_written_out_for_the_checksum():
    frame = BOOK.replace(b"0.02997571", b"5.10e-05")
    (event,) = Kraken().decode(frame, RECV)
    assert event.bids == [(63378.3, 0.000051)]
    assert event.proof.bid_tokens == [b"633783510"]


def test_trades_of_one_message_come_in_the_order_of_their_ids():
    assert Kraken().decode(TRADES, RECV) == [
        Trade(RECV, 1778771169_000_000_000, "BTC/USD", 7, 7, 81011.5, 0.0012344, 1),
        Trade(RECV, 1778771021_748_964_000, "DOGE/USD", 8, 8, 0.21, 1000.0, -1),
    ]


def test_ticker_is_a_quote():
    assert Kraken().decode(TICKER, RECV) == [
        Quote(RECV, None, "BTC/USD", None, 62703.4, 62710.3, 0.03, 0.002, 1947.5)
    ]


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (
            b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online",'
            b'"api_version":"v2","connection_id":15113583034416118705}]}',
            Status(RECV, "online"),
        ),
        (b'{"channel":"heartbeat"}', Ignored(RECV, "heartbeat")),
        (b'{"channel":"instrument","type":"snapshot","data":{}}', Ignored(RECV, "instrument")),
        (ACK, Ack(RECV, 7, json.loads(ACK)["result"])),
        (b'{"method":"pong","req_id":101,"time_in":"","time_out":""}', Ack(RECV, 101, None)),
        (
            b'{"error":"Subscription depth not supported","method":"subscribe","success":false}',
            Refusal(RECV, None, 0, "Subscription depth not supported"),
        ),
        (b'{"Error":"Exceeded msg rate"}', Refusal(RECV, None, 0, "Exceeded msg rate")),
    ],
)
def test_everything_else(frame, event):
    assert Kraken().decode(frame, RECV) == [event]


def test_recorded_tickers_and_trades(captures):
    lines = (captures / "kraken" / "ticker_trade_v2.jsonl").read_bytes().splitlines()
    events = [event for line in lines for event in Kraken().decode(line, RECV)]
    assert [type(event) for event in events] == [Quote, Quote, Quote, Trade, Trade]
    assert {event.symbol for event in events} == {"BTC/USD", "BTC/USDT", "ETH/USD"}


class TestRecordedBooks:
    @pytest.mark.parametrize(
        ("name", "updates", "digest"),
        [("depth25", 2052, "7c3f19258873a467"), ("depth10", 301, "ff7aea5ad715f9ac")],
    )
    def test_every_checksum_verifies(self, name, updates, digest, request):
        checks, events = play(request.getfixturevalue(name))
        assert sum(isinstance(event, BookUpdate) for event in events) == updates
        assert (checks.gaps, checks.duplicates, checks.stale) == (0, 0, [])
        top = checks.book("BTC/USD").top(1000)
        assert hashlib.sha256(repr(top).encode()).hexdigest()[:16] == digest

    def test_book_equals_an_independent_reading(self, depth25):
        bids, asks = {}, {}
        for line in depth25:
            message = json.loads(line, parse_float=str, parse_int=str)
            if message.get("channel") != "book":
                continue
            (data,) = message["data"]
            for side, levels, reverse in ((bids, data["bids"], True), (asks, data["asks"], False)):
                for level in levels:
                    side.pop(float(level["price"]), None)
                    if float(level["qty"]):
                        side[float(level["price"])] = (level["price"], level["qty"])
                for price in sorted(side, reverse=reverse)[25:]:
                    del side[price]
            best = [asks[p] for p in sorted(asks)[:10]]
            best += [bids[p] for p in sorted(bids, reverse=True)[:10]]
            digits = "".join(t.replace(".", "").lstrip("0") for pair in best for t in pair)
            assert zlib.crc32(digits.encode()) == int(data["checksum"])
        checks, _ = play(depth25)
        expected = [
            [(p, float(side[p][1])) for p in sorted(side, reverse=reverse)]
            for side, reverse in ((bids, True), (asks, False))
        ]
        assert list(checks.book("BTC/USD").top(1000)) == expected

    def test_lost_update_is_found_by_the_next_checksum_and_repaired_by_a_snapshot(self, depth10):
        books = [i for i, line in enumerate(depth10) if b'"book","type":"update"' in line]
        snapshots = [i for i, line in enumerate(depth10) if b'"type":"snapshot"' in line]
        kept = [line for i, line in enumerate(depth10) if i != books[2]]
        checks, events = play(kept)
        gaps = [e for e in events if isinstance(e, Gap)]
        assert [(g.recv_ts, g.symbol, g.channel, g.reason) for g in gaps] == [
            (books[3] - 1, "BTC/USD", "book", "checksum")
        ]
        repair = next(i for i in snapshots if i > books[3]) - 1
        assert [e.recv_ts for e in events if isinstance(e, Recovery)] == [repair]
        assert checks.stale == []

    def test_book_that_is_not_cut_to_the_depth_fails(self, depth25):
        """Why the depth matters: taken for a deeper one, the book keeps levels that are gone."""
        deeper = [line.replace(b'"depth":25', b'"depth":1000') for line in depth25]
        checks, _ = play(deeper)
        assert checks.stale == ["BTC/USD"]

    def test_depth_is_that_of_the_snapshot_without_an_acknowledgement(self, depth25):
        checks, _ = play([line for line in depth25 if b'"method"' not in line])
        assert checks.gaps == 0


def test_requests():
    requests = Kraken(depth=25).subscribe(["BTC/USD", "ETH/EUR"], ["ticker", "trades", "book"])
    both = {"symbol": ["BTC/USD", "ETH/EUR"]}
    assert [json.loads(r.frame) for r in requests] == [
        {
            "method": "subscribe",
            "params": {"channel": "trade", **both, "snapshot": True},
            "req_id": 1,
        },
        {
            "method": "subscribe",
            "params": {"channel": "ticker", **both, "event_trigger": "bbo"},
            "req_id": 2,
        },
        {"method": "subscribe", "params": {"channel": "book", **both, "depth": 25}, "req_id": 3},
    ]
    assert [r.request_id for r in requests] == [1, 2, 3]


def test_requests_that_make_no_sense_are_refused():
    with pytest.raises(CollectorError, match="no book depth 27; choose from 10, 25, 100"):
        Kraken(depth=27)
    with pytest.raises(CollectorError, match="kraken: no channel 'funding'; choose from ticker"):
        Kraken().subscribe(["BTC/USD"], ["funding"])
    with pytest.raises(SymbolError, match="symbol 'XBTUSD': expected BASE/QUOTE"):
        Kraken().subscribe(["XBTUSD"], ["trades"])


@pytest.mark.parametrize(
    "change",
    [
        (b"63378.3", b"-1"),
        (b"63378.3", b"0"),
        (b"63378.3", b"1e999"),
        (b"63378.3", b'"63378.3"'),
        (b"0.02997571", b"-0.1"),
        (b"0.02997571", b"true"),
        (b"261162761", b"4294967296"),
        (b"51.662823Z", b"51.662823"),
        (b"BTC/USD", b"BTCUSD"),
        (b'"bids"', b'"bid"'),
    ],
)
def test_what_the_protocol_does_not_allow_is_an_error(change):
    with pytest.raises(DecodeError, match=r"^kraken: .*; frame: '"):
        Kraken().decode(BOOK.replace(*change), RECV)


@given(st.sampled_from([BOOK, TRADES, TICKER, ACK]), st.data())
def test_any_bytes_give_events_or_the_documented_error(frame, data):
    start = data.draw(st.integers(0, len(frame)))
    stop = data.draw(st.integers(start, len(frame)))
    mangled = frame[:start] + data.draw(st.binary(max_size=6)) + frame[stop:]
    try:
        events = Kraken().decode(mangled, RECV)
    except DecodeError:
        return
    assert all(isinstance(event, Event) for event in events)
