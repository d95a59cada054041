"""The Binance Spot adapter: what every kind of frame means, and that nothing else gets through."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.adapter import Ack, BookUpdate, Event, Ignored, Quote, Refusal, Shutdown, Trade
from collectors.errors import CollectorError, DecodeError, SymbolError
from collectors.exchanges import EXCHANGES, make_adapter
from collectors.exchanges.binance import BinanceSpot

RECV = 1_723_161_254_087_896_568
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT",'
    b'"t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)
AGG_TRADE = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1723161255343,"s":"BTCUSDT",'
    b'"a":312,"p":"61837.63000000","q":"0.02000000","f":5,"l":7,"T":1723161255342,"m":false}}'
)
BOOK_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000",'
    b'"B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}'
)
DEPTH = (
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255308,"s":"BTCUSDT",'
    b'"U":50093239203,"u":50093239207,"b":[["55653.87000000","0.00000000"]],'
    b'"a":[["61838.04000000","0.32332000"],["61862.51000000","0.00000000"]]}}'
)
SNAPSHOT = (
    b'{"lastUpdateId":50093239218,"bids":[["61837.63000000","3.78826000"]],'
    b'"asks":[["61837.64000000","1.60520000"],["61838.04000000","0.32332000"]]}'
)
SHUTDOWN = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'
ACK = b'{"result":null,"id":1}'
REFUSAL = b'{"code":2,"msg":"Invalid request: unknown method","id":7}'

TRADE_EVENT = Trade(
    RECV, 1723161255342_000_000, "BTC/USDT", 3735683259, 3735683259, 61837.63, 0.02, -1
)
AGG_EVENT = Trade(RECV, 1723161255342_000_000, "BTC/USDT", 312, 312, 61837.63, 0.02, 1)
QUOTE_EVENT = Quote(RECV, None, "BTC/USDT", 50093239212, 61837.63, 61837.64, 3.78826, 1.54698)
DEPTH_EVENT = BookUpdate(
    RECV,
    1723161255308_000_000,
    "BTC/USDT",
    50093239207,
    50093239203,
    False,
    [(55653.87, 0.0)],
    [(61838.04, 0.32332), (61862.51, 0.0)],
)
SNAPSHOT_EVENT = BookUpdate(
    RECV,
    None,
    "BTC/USDT",
    50093239218,
    None,
    True,
    [(61837.63, 3.78826)],
    [(61837.64, 1.6052), (61838.04, 0.32332)],
)


def bare(frame: bytes) -> bytes:
    """The same message from a /ws connection, which does not wrap."""
    return json.dumps(json.loads(frame)["data"]).encode()


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (TRADE, TRADE_EVENT),
        (AGG_TRADE, AGG_EVENT),
        (BOOK_TICKER, QUOTE_EVENT),
        (DEPTH, DEPTH_EVENT),
        (SHUTDOWN, Shutdown(RECV, 1770123456789_000_000)),
    ],
)
def test_stream_payloads_decode_wrapped_and_bare(frame, event):
    assert BinanceSpot().decode(frame, RECV) == [event]
    assert BinanceSpot().decode(bare(frame), RECV) == [event]


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (ACK, Ack(RECV, 1, None)),
        (b'{"result":["btcusdt@aggTrade"],"id":3}', Ack(RECV, 3, ["btcusdt@aggTrade"])),
        (b'{"result":null,"id":"my-id"}', Ack(RECV, "my-id", None)),
        (REFUSAL, Refusal(RECV, 7, 2, "Invalid request: unknown method")),
        (
            b'{"error":{"code":3,"msg":"Invalid JSON"},"id":null}',
            Refusal(RECV, None, 3, "Invalid JSON"),
        ),
        (b'{"code":-1121,"msg":"Invalid symbol."}', Refusal(RECV, None, -1121, "Invalid symbol.")),
    ],
)
def test_replies_decode(frame, event):
    assert BinanceSpot().decode(frame, RECV) == [event]


@pytest.mark.parametrize(
    ("frame", "stream"),
    [
        (b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}', "kline_1m"),
        (b'{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":1}}', "depth20@100ms"),
        (b'{"stream":"btcusdt@blockTrade","data":{"e":"blockTrade","p":"1"}}', "blockTrade"),
        (b'{"stream":"!miniTicker@arr","data":[]}', "arr"),
        (b'{"e":"somethingNew","E":1}', "somethingNew"),
        (b'[{"e":"24hrMiniTicker"}]', "array"),
    ],
)
def test_streams_that_are_not_decoded_are_reported_not_refused(frame, stream):
    assert BinanceSpot().decode(frame, RECV) == [Ignored(RECV, stream)]


def test_unknown_keys_are_skipped():
    frame = TRADE.replace(b'"t":', b'"new":{"deep":[1,2]},"t":')
    assert BinanceSpot().decode(frame, RECV) == [TRADE_EVENT]


def test_microsecond_times_are_recognised():
    frame = TRADE.replace(b"1723161255342", b"1723161255342567")
    (event,) = BinanceSpot().decode(frame, RECV)
    assert event.ts == 1723161255342_567_000


@pytest.mark.parametrize("time", [8_999_999_999_999, 9_000_000_000_000, 9_000_000_000_000_000])
def test_every_time_that_is_taken_is_one_in_nanoseconds(time: int):
    frame = TRADE.replace(b"1723161255342", b"%d" % time)
    (event,) = BinanceSpot().decode(frame, RECV)
    assert 0 < event.ts < 2**63


def test_empty_side_of_a_quote_is_none():
    frame = BOOK_TICKER.replace(b"61837.63000000", b"0.00000000").replace(b"3.78826", b"0.00000")
    (event,) = BinanceSpot().decode(frame, RECV)
    assert (event.bid, event.bid_size) == (None, None)
    assert (event.ask, event.ask_size) == (61837.64, 1.54698)


def test_executions_told_by_both_trade_streams_are_told_once():
    adapter = BinanceSpot()
    events = [adapter.decode(frame, RECV)[0] for frame in (TRADE, AGG_TRADE, TRADE)]
    assert events == [TRADE_EVENT, Ignored(RECV, "aggTrade"), TRADE_EVENT]


def test_tape_can_be_chosen():
    adapter = BinanceSpot(tape="aggTrade")
    events = [adapter.decode(frame, RECV)[0] for frame in (TRADE, AGG_TRADE)]
    assert events == [Ignored(RECV, "trade"), AGG_EVENT]


def test_bare_snapshot_belongs_to_the_only_symbol_with_depth():
    adapter = BinanceSpot()
    adapter.decode(DEPTH, RECV)
    assert adapter.decode(SNAPSHOT, RECV) == [SNAPSHOT_EVENT]


def test_bare_snapshot_belongs_to_the_only_symbol_subscribed():
    adapter = BinanceSpot()
    adapter.subscribe(["BTC/USDT"], ["book"])
    assert adapter.decode(SNAPSHOT, RECV) == [SNAPSHOT_EVENT]


@pytest.mark.parametrize("symbols", [[], ["BTC/USDT", "ETH/USDT"]])
def test_bare_snapshot_of_an_unknown_symbol_is_an_error(symbols):
    adapter = BinanceSpot()
    adapter.subscribe(symbols, ["book"])
    seen = ", ".join(symbols) or "none"
    with pytest.raises(DecodeError, match=f"names no symbol .* so far are: {seen}; record it with"):
        adapter.decode(SNAPSHOT, RECV)


def test_wrapped_snapshot_names_its_symbol():
    adapter = BinanceSpot()
    adapter.subscribe(["BTC/USDT", "ETH/USDT"], ["book"])
    assert adapter.decode(adapter.wrap_snapshot("BTC/USDT", SNAPSHOT), RECV) == [SNAPSHOT_EVENT]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "truncated"),
        (b"hello", "malformed"),
        (TRADE[:-1], "truncated"),
        (b"5", "Expected `object`"),
        (b"[1,", "Expected `object`"),
        (b'{"foo":1}', "neither a stream, an event, a snapshot nor a reply"),
        (b'{"stream":"btcusdt@trade"}', "binance"),
        (TRADE.replace(b'"p":"61837.63000000"', b'"p":"nan"'), r"\$\.p"),
        (TRADE.replace(b'"p":"61837.63000000"', b'"p":"-1"'), r"\$\.p"),
        (TRADE.replace(b'"p":"61837.63000000",', b""), "required field `p`"),
        (TRADE.replace(b'"t":3735683259', b'"t":99999999999999999999'), r"\$\.t"),
        (TRADE.replace(b'"T":1723161255342', b'"T":9223372036854775807'), r"\$\.T"),
        (
            TRADE.replace(b'"s":"BTCUSDT"', b'"s":"FOOBAR"'),
            "cannot tell base and quote of 'FOOBAR'",
        ),
        (DEPTH.replace(b'"0.32332000"', b'"inf"'), r"\$\.a\[0\]\[1\]"),
        (DEPTH.replace(b',"0.32332000"', b""), r"length 2 - at `\$\.a\[0\]"),
    ],
)
def test_error_says_what_is_wrong_with_the_frame(frame, reason):
    with pytest.raises(DecodeError, match=reason):
        BinanceSpot().decode(frame, RECV)


def test_subscribe_names_each_stream_once():
    (request,) = BinanceSpot().subscribe(["BTC/USDT", "ETH/USDT"], ["ticker", "trades", "book"])
    assert json.loads(request.frame) == {
        "method": "SUBSCRIBE",
        "params": [
            *("btcusdt@trade", "btcusdt@bookTicker", "ethusdt@trade", "ethusdt@bookTicker"),
            *("btcusdt@depth@100ms", "ethusdt@depth@100ms"),
        ],
        "id": request.request_id,
    }


def test_unsubscribe_mirrors_subscribe_under_a_new_id():
    adapter = BinanceSpot()
    (first,) = adapter.subscribe(["BTC/USDT"], ["book"])
    (second,) = adapter.unsubscribe(["BTC/USDT"], ["book"])
    assert json.loads(second.frame) == {
        "method": "UNSUBSCRIBE",
        "params": ["btcusdt@depth@100ms"],
        "id": first.request_id + 1,
    }


def test_many_streams_are_split_over_requests():
    pairs = [f"COIN{i}/USDT" for i in range(450)]
    requests = BinanceSpot().subscribe(pairs, ["trades"])
    streams = [s for request in requests for s in json.loads(request.frame)["params"]]
    assert [len(json.loads(r.frame)["params"]) for r in requests] == [200, 200, 50]
    assert streams == [f"coin{i}usdt@trade" for i in range(450)]


def test_subscribed_pair_need_not_be_in_the_table():
    adapter = BinanceSpot()
    adapter.subscribe(["XB/TUSD"], ["trades"])
    (event,) = adapter.decode(TRADE.replace(b"BTCUSDT", b"XBTUSD"), RECV)
    assert event.symbol == "XB/TUSD"


def test_subscribe_refuses_what_it_cannot_name():
    with pytest.raises(SymbolError, match="'BTCUSDT': expected BASE/QUOTE"):
        BinanceSpot().subscribe(["BTCUSDT"], ["trades"])
    with pytest.raises(CollectorError, match="no channel 'candles'; choose from ticker, trades"):
        BinanceSpot().subscribe(["BTC/USDT"], ["candles"])


def test_adapters_are_made_by_name():
    assert [make_adapter(name).exchange for name in EXCHANGES] == list(EXCHANGES)
    with pytest.raises(CollectorError, match="exchange 'mtgox' is not known; choose from binance"):
        make_adapter("mtgox")


GOLDEN = [TRADE, AGG_TRADE, BOOK_TICKER, DEPTH, SNAPSHOT, SHUTDOWN, ACK, REFUSAL]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*"eEsStTuUaAbBpqm", "stream", "data", "result", "id", "code", "msg"])
            | st.text(max_size=4),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


@st.composite
def damaged(draw) -> bytes:
    """A real frame with a piece of it replaced, removed or doubled."""
    frame = draw(st.sampled_from(GOLDEN))
    start = draw(st.integers(0, len(frame)))
    end = draw(st.integers(start, min(len(frame), start + 40)))
    middle = draw(st.binary(max_size=6) | st.just(frame[start:end] * 2))
    return frame[:start] + middle + frame[end:]


@st.composite
def swapped_value(draw) -> bytes:
    """A real frame with one value of the payload replaced by any JSON."""
    frame = json.loads(draw(st.sampled_from(GOLDEN)))
    target = frame.get("data", frame)
    target[draw(st.sampled_from(sorted(target)))] = draw(JSON)
    return json.dumps(frame).encode()


@settings(max_examples=600)
@given(
    frames=st.lists(
        st.binary(max_size=200)
        | JSON.map(lambda value: json.dumps(value).encode())
        | damaged()
        | swapped_value(),
        min_size=1,
        max_size=4,
    )
)
def test_any_bytes_give_events_or_a_decode_error(frames):
    adapter = BinanceSpot()
    for frame in frames:
        try:
            events = adapter.decode(frame, RECV)
        except DecodeError:
            continue
        assert events
        assert all(isinstance(event, Event) for event in events)


def test_deeply_nested_frame_is_a_decode_error():
    with pytest.raises(DecodeError):
        BinanceSpot().decode(b'{"stream":"x","data":' + b"[" * 100_000, RECV)
