"""Many messages decoded at once: always what they are one by one, whatever they are."""

import json
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.adapter import OffBook, Trade
from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.raw import RawReader
from collectors.scan import ready, steps
from collectors.scan.frames import Scanner
from collectors.scan.together import FEW

RECV = 1_790_757_176_000_000_000
SPOT = [
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT",'
    b'"t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}',
    b'{"stream":"ethusdt@trade","data":{"e":"trade","E":1723161255343,"s":"ETHUSDT",'
    b'"t":12,"p":"2500.1","q":"3.0","T":1723161255342,"m":false,"M":true}}',
    b'{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000",'
    b'"B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}',
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255308,"s":"BTCUSDT",'
    b'"U":50093239203,"u":50093239207,"b":[["55653.87000000","0.00000000"]],"a":[]}}',
    b'{"stream":"btcusdt@kline_1m","data":{"e":"kline"}}',
    b'{"result":null,"id":1}',
]
FUTURES = [
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,'
    b'"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}',
    b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1723161256322,"s":"ETHUSDT","a":7,'
    b'"p":"2500.30","q":"0.006","f":1,"l":2,"T":1723161256322,"m":true}}',
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT",'
    b'"b":"61800.20","B":"2.507","a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256313}}',
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1790757176000,'
    b'"s":"BTCUSDT","p":"83003.10000000","ap":"83003.1","P":"83198.80343841",'
    b'"i":"83045.69043478","r":"-0.00001012","T":1790784000000,"st":1}}',
]
GOLDEN = {"binance": SPOT, "binance-futures": FUTURES}
TRADE, QUOTE = SPOT[0], SPOT[2]


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    ready.load()


def told(decoded):
    """Events, or what the error says."""
    return str(decoded) if isinstance(decoded, DecodeError) else decoded


def one_by_one(adapter, frames):
    for frame in frames:
        try:
            yield adapter.decode(frame, RECV)
        except DecodeError as error:
            yield str(error)


def together(adapter, frames):
    return [told(decoded) for decoded in adapter.decode_many(frames, [RECV] * len(frames))]


def assert_same(exchange, frames):
    """Also where an adapter has learned from the frames before: the second time."""
    alone, many = make_adapter(exchange), make_adapter(exchange)
    for _ in range(2):
        expected = list(one_by_one(alone, frames))
        assert repr(together(many, frames)) == repr(expected)  # tells 0.0 from -0.0


def learned(exchange):
    """An adapter that has learned the golden frames."""
    adapter = make_adapter(exchange)
    together(adapter, GOLDEN[exchange] * FEW)
    return adapter


# -- what was recorded ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exchange", "name"),
    [
        ("binance", "binance/spot_btcusdt_20240808.recv_ns.gz"),
        ("binance-futures", "binance_usdm/usdm_btcusdt_20240808.recv_ns.gz"),
    ],
)
@pytest.mark.parametrize("size", [FEW - 1, FEW, 1000])
def test_recorded_frames(captures, exchange, name, size):
    recorded = list(RawReader(captures / name))[:20_000]
    alone, many = make_adapter(exchange), make_adapter(exchange)
    for start in range(0, len(recorded), size):
        times, frames = zip(*recorded[start : start + size], strict=True)
        expected = list(map(alone.decode, frames, times))
        assert list(many.decode_many(frames, times)) == expected


def test_recorded_mark_prices(captures):
    frames = (captures / "binance_usdm" / "mark_price_1s_20260930.jsonl").read_bytes().splitlines()
    assert_same("binance-futures", [frame for frame in frames if frame] * FEW)


@pytest.mark.parametrize("exchange", ["coinbase", "kraken"])
def test_exchanges_without_a_scanner_decode_one_by_one(exchange):
    assert_same(exchange, [b'{"channel":"heartbeats","sequence_num":1}', b"{"] * FEW)


# -- what is read, and what is not ---------------------------------------------------------


@pytest.mark.parametrize("exchange", GOLDEN)
def test_golden_frames(exchange):
    assert_same(exchange, GOLDEN[exchange] * FEW)


def read(kind, row, frames):
    """How many of `frames` are read by who has learned from the first of them."""
    scanner = Scanner(b'{"stream":"', "data")
    scanner.learn(frames[0], kind, row, b"BTCUSDT", "BTC/USDT")
    return sum(len(rows.frames) for rows in scanner.read(frames))


TRADE_ROW = {
    "s": steps.SYMBOL, "t": steps.ID, "p": steps.POSITIVE, "q": steps.POSITIVE, "T": steps.TIME,
    "m": steps.BOOL,
}  # fmt: skip


def test_what_is_written_as_learned_is_read():
    assert read("trade", TRADE_ROW, [TRADE, TRADE.replace(b"61837.63000000", b"7")]) == 2


REWRITTEN = [
    TRADE.replace(b'"BTCUSDT"', b'"ETHUSDT"'),
    TRADE.replace(b"btcusdt@", b"ethusdt@"),
    TRADE.replace(b'"p":', b'"P":'),
    TRADE.replace(b'"p":"61837.63000000",', b""),
    TRADE.replace(b'"M":true', b'"M":null}'),
    TRADE.replace(b'"e":"trade"', b'"e":"tr\\u0061de"'),
    TRADE.replace(b'"e":"trade"', '"e":"tradé"'.encode()),
    TRADE.replace(b'"m":true', b'"m":null'),
    TRADE.replace(b",", b", "),
    TRADE + b" ",
    TRADE[:-1],
    TRADE + TRADE,
    TRADE + b"\0" + TRADE,
    b" " + TRADE,
    b"",
]
NUMBERS = [
    *(b"0", b"0.00", b"-1", b"", b"1e3", b"1.", b".5", b"00.1", b"+1", b" 1", b"nan", b"Infinity"),
    *(b"9007199254740993", b"0.12345678901234567", b"1234567890123456789", b"1_0", b"1,0"),
]


@pytest.mark.parametrize("frame", REWRITTEN)
def test_what_is_written_otherwise_is_not_read(frame):
    assert read("trade", TRADE_ROW, [TRADE, frame]) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_prices_that_could_be_read_wrongly_are_not_read(number):
    frame = TRADE.replace(b"61837.63000000", number)
    assert read("trade", TRADE_ROW, [TRADE, frame]) == 1


@pytest.mark.parametrize("number", [b"1.5", b"01", b"-1", b"1e3", b"9" * 19, b'"1"', b"null", b""])
def test_ids_that_could_be_read_wrongly_are_not_read(number):
    frame = TRADE.replace(b"3735683259", number)
    assert read("trade", TRADE_ROW, [TRADE, frame]) == 1


@pytest.mark.parametrize("time", [b"0", b"9000000000000001", b"99999999999999999"])
def test_times_that_are_none_are_not_read(time):
    frame = TRADE.replace(b"1723161255342", time)
    assert read("trade", TRADE_ROW, [TRADE, frame]) == 1


def test_what_was_not_read_is_decoded_as_ever():
    frames = [*REWRITTEN, *(TRADE.replace(b"61837.63000000", number) for number in NUMBERS)]
    assert_same("binance", [*repeat(TRADE, FEW), *frames, *repeat(TRADE, FEW)])


def test_a_new_way_of_writing_is_learned():
    spaced = json.dumps(json.loads(TRADE)).encode()
    assert_same("binance", [*repeat(TRADE, FEW), *repeat(spaced.replace(b'": "b', b'":"b'), FEW)])


def test_keys_may_come_in_any_order():
    turned = json.loads(TRADE)
    turned["data"] = dict(reversed(turned["data"].items()))
    assert_same("binance", [json.dumps(turned, separators=(",", ":")).encode()] * FEW)


def test_a_key_told_twice_is_not_learned():
    frames = [TRADE.replace(b'"t":', b'"t":1,"t":')] * 2
    assert read("trade", TRADE_ROW, frames) == 0


def test_fills_outside_the_book_stay_outside():
    fill = FUTURES[0].replace(b"MARKET", b"INSURANCE_FUND")
    adapter = learned("binance-futures")
    events = [event for events in together(adapter, [FUTURES[0], fill] * FEW) for event in events]
    assert [type(event) for event in events] == [Trade, OffBook] * FEW


def test_a_side_without_orders_stays_none():
    empty = QUOTE.replace(b"61837.63000000", b"0.00000000").replace(b"3.78826", b"0.00000")
    assert_same("binance", [QUOTE, empty] * FEW)


def test_the_other_tape_is_ignored():
    agg = TRADE.replace(b"@trade", b"@aggTrade").replace(b'"t":', b'"a":')
    assert_same("binance", [TRADE, agg] * FEW)
    assert_same("binance", [agg, TRADE] * FEW)


def test_thousands_of_streams():
    frames = [
        TRADE.replace(b"btcusdt", b"coin%dusdt" % i).replace(b"BTCUSDT", b"COIN%dUSDT" % i)
        for i in range(2000)
    ]
    assert_same("binance", frames)


# -- whatever comes ------------------------------------------------------------------------

DECIMALS = st.from_regex(rb"-?[0-9]{1,19}(\.[0-9]{1,19})?", fullmatch=True)


@settings(max_examples=300)
@given(texts=st.lists(DECIMALS, min_size=1, max_size=8))
def test_decimals_are_what_float_makes_of_them(texts):
    row = {"s": steps.SYMBOL, "p": steps.SIGNED}
    frames = [b'{"stream":"a@b","data":{"s":"A","p":"%s"}}' % text for text in (b"1", *texts)]
    scanner = Scanner(b'{"stream":"', "data")
    scanner.learn(frames[0], "b", row, b"A", "A/B")
    (rows,) = scanner.read(frames)
    expected = [float((b"1", *texts)[i]) for i in rows.frames]
    assert list(map(float.hex, rows.floats("p"))) == list(map(float.hex, expected))
    exact = [len(t.replace(b".", b"").lstrip(b"-")) <= 15 for t in texts]
    plain = [not t.lstrip(b"-").startswith(b"0") for t in texts]
    assert {i + 1 for i in range(len(texts)) if exact[i] and plain[i]} <= set(rows.frames)


@pytest.mark.parametrize("exchange", GOLDEN)
@settings(max_examples=200)
@given(data=st.data())
def test_damaged_frames(exchange, data):
    golden = GOLDEN[exchange]
    frames = []
    for _ in range(data.draw(st.integers(1, 8))):
        frame = bytearray(data.draw(st.sampled_from(golden)))
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(frame) - 1))
            end = at + data.draw(st.integers(0, 3))
            frame[at:end] = data.draw(st.binary(max_size=3) | st.sampled_from([b"0", b'"', b" "]))
        frames.append(bytes(frame))
    assert_same(exchange, [*golden * (FEW // len(golden)), *frames, *golden])


@settings(max_examples=100)
@given(frames=st.lists(st.binary(max_size=60), max_size=20))
def test_any_bytes(frames):
    assert_same("binance", [*SPOT * (FEW // 4), *frames])


# -- when it is loaded ---------------------------------------------------------------------


def test_the_scanner_is_loaded_when_it_is_worth_it(monkeypatch):
    loading = type(ready._loading)()
    monkeypatch.setattr(ready, "_loading", loading)
    assert ready.loaded(ready.WORTH_FRAMES - 1) is None
    assert loading.thread is None
    ready.loaded(1)
    loading.thread.join()
    assert ready.loaded(0) is Scanner
