"""The Binance USD-M adapter: what every kind of frame means, in the fields of 2024 and of 2026."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.adapter import Ack, BookUpdate, Event, Funding, Ignored, OffBook, Quote, Trade
from collectors.errors import CollectorError, DecodeError, SymbolError
from collectors.exchanges import make_adapter
from collectors.exchanges.binance_futures import BinanceFutures
from collectors.integrity import Integrity

RECV = 1_789_469_122_050_000_000
BTC = "BTC/USDT:USDT"
AGG_TRADE = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1789469122045,"a":309896910,'
    b'"s":"BTCUSDT","p":"76968.30","q":"1.5","nq":"1.5","f":5,"l":9,"T":1789469121938,'
    b'"m":false,"st":1}}'
)
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,'
    b'"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":true}}'
)
BOOK_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":429012276615,"s":"BTCUSDT",'
    b'"ps":"BTCUSDT","b":"76947.30","B":"0.0374","a":"76968.30","A":"22.2","T":1789469121938,'
    b'"E":1789469121959,"st":1}}'
)
DEPTH = (
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1789469121904,'
    b'"T":1789469121836,"s":"BTCUSDT","ps":"BTCUSDT","U":429012275424,"u":429012275789,'
    b'"pu":429012275360,"b":[],"a":[["77021.60","650.0043"]],"st":1}}'
)
MARK = (
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1790755199000,'
    b'"s":"BTCUSDT","p":"83259.61","ap":"83259.60","P":"83390.57","i":"83301.31",'
    b'"r":"-0.00000189","T":1790755200000,"st":1}}'
)
SNAPSHOT = (
    b'{"lastUpdateId":5123107852948,"E":1723161256501,"T":1723161256493,'
    b'"bids":[["61800.20","2.909"]],"asks":[["61800.30","1.5"]]}'
)
OPEN_INTEREST = b'{"symbol":"BTCUSDT","openInterest":"10659.509","time":1589437530011}'
MARK_EVENT = Funding(
    *(RECV, 1790755199000_000_000, BTC, None),
    *(83259.61, 83301.31, -0.00000189, 1790755200000_000_000),
)


def bare(frame: bytes) -> bytes:
    return json.dumps(json.loads(frame)["data"]).encode()


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (
            AGG_TRADE,
            Trade(RECV, 1789469121938_000_000, BTC, 309896910, 309896910, 76968.3, 1.5, 1),
        ),
        (
            TRADE,
            Trade(RECV, 1723161256322_000_000, BTC, 5266583935, 5266583935, 61800.3, 0.006, -1),
        ),
        (
            BOOK_TICKER,
            Quote(
                *(RECV, 1789469121938_000_000, BTC, 429012276615), 76947.3, 76968.3, 0.0374, 22.2
            ),
        ),
        (
            DEPTH,
            BookUpdate(
                *(RECV, 1789469121836_000_000, BTC, 429012275789, 429012275424, False),
                *([], [(77021.6, 650.0043)], 429012275360),
            ),
        ),
        (MARK, MARK_EVENT),
    ],
)
def test_stream_payloads_decode_wrapped_and_bare(frame, event):
    assert BinanceFutures().decode(frame, RECV) == [event]
    assert BinanceFutures().decode(bare(frame), RECV) == [event]


def test_rest_replies():
    adapter = BinanceFutures()
    frame = adapter.wrap_snapshot(BTC, SNAPSHOT)
    expected = BookUpdate(
        *(RECV, 1723161256493_000_000, BTC, 5123107852948, None, True),
        *([(61800.2, 2.909)], [(61800.3, 1.5)]),
    )
    assert adapter.decode(frame, RECV) == [expected]
    with pytest.raises(DecodeError, match="binance-futures: a depth snapshot names no symbol"):
        adapter.decode(SNAPSHOT, RECV)
    adapter.decode(DEPTH, RECV)
    assert adapter.decode(SNAPSHOT, RECV) == [expected]
    assert adapter.decode(OPEN_INTEREST, RECV) == [
        Funding(RECV, 1589437530011_000_000, BTC, None, open_interest=10659.509)
    ]


def test_delivery_contract_has_no_funding():
    frame = MARK.replace(b"-0.00000189", b"").replace(b'"T":1790755200000', b'"T":0')
    frame = frame.replace(b'"s":"BTCUSDT"', b'"s":"BTCUSDT_260327"')
    (event,) = BinanceFutures().decode(frame, RECV)
    assert event.symbol == "BTC/USDT:USDT-260327"
    assert (event.funding_rate, event.next_funding_ts) == (None, None)


@pytest.mark.parametrize("kind", [b"INSURANCE_FUND", b"ADL"])
def test_fill_that_is_no_market_trade_is_numbered_with_them(kind):
    adapter, checks = BinanceFutures(), Integrity()
    frames = [TRADE.replace(b"5266583935", b"%d" % number) for number in (1, 2, 3)]
    frames[1] = frames[1].replace(b"MARKET", kind)
    events = [event for frame in frames for event in checks.check(adapter.decode(frame, RECV))]
    assert [type(event) for event in events] == [Trade, OffBook, Trade]
    assert checks.gaps == 0


def test_streams_that_are_not_decoded_are_reported_not_refused():
    for kind in ("forceOrder", "depth20@100ms", "kline_1m", "rpiDepth@500ms"):
        frame = b'{"stream":"btcusdt@%s","data":{"e":"x"}}' % kind.encode()
        assert BinanceFutures().decode(frame, RECV) == [Ignored(RECV, kind)]
    assert BinanceFutures().decode(b'{"result":null,"id":1}', RECV) == [Ack(RECV, 1, None)]


def test_recorded_mark_prices_around_a_settlement(captures):
    """The message at the settlement still tells the old interval, the next one the new."""
    path = captures / "binance_usdm" / "mark_price_funding_rollover_20260930.jsonl"
    adapter = BinanceFutures()
    events = [e for line in path.read_bytes().splitlines() for e in adapter.decode(line, RECV)]
    assert {type(event) for event in events} == {Funding}
    hours = {}
    for event in events:
        due = hours.setdefault(event.symbol, [])
        if event.next_funding_ts not in due:
            due.append(event.next_funding_ts)
            if len(due) == 2:
                assert event.ts > due[0]
    assert {symbol: (b - a) // 3_600_000_000_000 for symbol, (a, b) in hours.items()} == {
        "BTC/USDT:USDT": 8,
        "ETH/USDT:USDT": 8,
        "LPT/USDT:USDT": 4,
    }


def test_recorded_messages_of_2026_decode(captures):
    adapter = BinanceFutures(tape="aggTrade")
    kinds = []
    for name in ("agg_trade", "depth_update", "book_ticker"):
        path = captures / "binance_usdm" / f"{name}_20260915.jsonl"
        kinds += [type(adapter.decode(line, RECV)[0]) for line in path.read_bytes().splitlines()]
    path = captures / "binance_usdm" / "mark_price_1s_20260930.jsonl"
    kinds += [type(adapter.decode(line, RECV)[0]) for line in path.read_bytes().splitlines()]
    assert kinds[:3] == [Trade, BookUpdate, Quote]
    assert set(kinds[3:]) == {Funding}


def test_requests_name_the_socket_that_carries_the_streams():
    requests = BinanceFutures().subscribe(
        [BTC, "BTC/USDT:USDT-260327"], ["ticker", "trades", "book", "funding"]
    )
    assert [(r.route, json.loads(r.frame)["params"], r.request_id) for r in requests] == [
        (
            "market",
            [
                *("btcusdt@aggTrade", "btcusdt_260327@aggTrade"),
                *("btcusdt@markPrice@1s", "btcusdt_260327@markPrice@1s"),
            ],
            1,
        ),
        (
            "public",
            [
                *("btcusdt@bookTicker", "btcusdt_260327@bookTicker"),
                *("btcusdt@depth@100ms", "btcusdt_260327@depth@100ms"),
            ],
            2,
        ),
    ]


def test_spot_pair_is_no_contract():
    with pytest.raises(SymbolError, match="'BTC/USDT' is no contract here; perpetuals are written"):
        BinanceFutures().subscribe(["BTC/USDT"], ["trades"])
    with pytest.raises(CollectorError, match="binance-futures: no channel 'gaps'"):
        BinanceFutures().subscribe([BTC], ["gaps"])


def test_the_exchanges_own_list_names_contracts(tmp_path):
    names = ("symbol", "baseAsset", "quoteAsset", "marginAsset")
    listed = [
        ("1000SHIBUSDC", "1000SHIB", "USDC", "USDC"),
        ("ETHUSDT_260327", "ETH", "USDT", "USDT"),
        ("ETHBTC", "ETH", "BTC", "BTC"),
    ]
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"symbols": [dict(zip(names, row, strict=True)) for row in listed]}))
    symbols = make_adapter("binance-futures", path).symbols
    assert [symbols.pair(row[0]) for row in listed] == [
        *("1000SHIB/USDC:USDC", "ETH/USDT:USDT-260327", "ETH/BTC:BTC"),
    ]
    path.write_text("{}")
    with pytest.raises(SymbolError, match="not a saved reply of /fapi/v1/exchangeInfo"):
        make_adapter("binance-futures", path)


@pytest.mark.parametrize(
    ("frame", "old", "new"),
    [
        (MARK, b"-0.00000189", b"nan"),
        (MARK, b"-0.00000189", b"abc"),
        (MARK, b"83259.61", b"-1"),
        (DEPTH, b'"pu":429012275360,', b""),
        (DEPTH, b"77021.60", b"inf"),
        (BOOK_TICKER, b'"T":1789469121938,', b""),
        (AGG_TRADE, b'"q":"1.5"', b'"q":"0"'),
        (AGG_TRADE, b"BTCUSDT", b"BTC"),
    ],
)
def test_what_the_protocol_does_not_allow_is_an_error(frame, old, new):
    with pytest.raises(DecodeError, match=r"^binance-futures: "):
        BinanceFutures().decode(frame.replace(old, new), RECV)


@given(st.sampled_from([AGG_TRADE, TRADE, BOOK_TICKER, DEPTH, MARK, OPEN_INTEREST]), st.data())
def test_any_bytes_give_events_or_the_documented_error(frame, data):
    start = data.draw(st.integers(0, len(frame)))
    stop = data.draw(st.integers(start, len(frame)))
    mangled = frame[:start] + data.draw(st.binary(max_size=6)) + frame[stop:]
    try:
        events = BinanceFutures().decode(mangled, RECV)
    except DecodeError:
        return
    assert all(isinstance(event, Event) for event in events)
