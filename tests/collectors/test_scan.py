"""Many messages decoded at once: always what they are one by one, whatever they are."""

import gzip
import json
from datetime import datetime
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scanning import (
    DECIMALS,
    FUTURES,
    GOLDEN,
    NUMBERS,
    QUOTE,
    SPOT,
    TRADE,
    assert_same,
    learned,
    read,
    read_by,
    together,
)

from collectors.adapter import OffBook, Trade
from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.raw import RawReader
from collectors.scan import ready, steps
from collectors.scan.frames import Scanner
from collectors.scan.together import FEW
from collectors.times import rfc3339_ns


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    ready.load()


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


@pytest.mark.parametrize(
    "name",
    [
        "frames_seq9-22.jsonl",
        "frames_seq247-249.jsonl",
        "market_trades_ccxt27606_20251231.jsonl",
        "heartbeats_and_error.jsonl",
    ],
)
def test_recorded_frames_of_coinbase(captures, name):
    frames = (captures / "coinbase" / name).read_bytes().splitlines()
    assert_same("coinbase", [frame for frame in frames if frame] * FEW)


def test_recorded_frames_of_kraken(captures):
    folder = captures / "kraken"
    books = gzip.decompress((folder / "book_v2_btcusd.jsonl.gz").read_bytes()).splitlines()
    others = (folder / "ticker_trade_v2.jsonl").read_bytes().splitlines()
    assert_same("kraken", [*(frame for frame in others if frame), *books[:FEW]] * 4)


# -- what is read, and what is not ---------------------------------------------------------


@pytest.mark.parametrize("exchange", GOLDEN)
def test_golden_frames(exchange):
    assert_same(exchange, GOLDEN[exchange] * FEW)


@pytest.mark.parametrize(
    ("exchange", "others"),
    [("binance", 2), ("binance-futures", 0), ("coinbase", 1), ("kraken", 2)],
)
def test_golden_frames_are_read_but_for_a_few(exchange, others):
    frames = GOLDEN[exchange]
    assert read_by(exchange, frames) == len(frames) - others


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


@settings(max_examples=300)
@given(texts=st.lists(DECIMALS, min_size=1, max_size=8))
def test_decimals_are_what_float_makes_of_them(texts):
    row = {"s": steps.SYMBOL, "p": steps.SIGNED}
    frames = [b'{"stream":"a@b","data":{"s":"A","p":"%s"}}' % text for text in (b"1", *texts)]
    scanner = Scanner(b'{"stream":"')
    scanner.learn(frames[0], "b", {"data": row}, b"A", "A/B")
    (rows,) = scanner.read(frames)
    expected = [float((b"1", *texts)[i]) for i in rows.frames]
    assert list(map(float.hex, rows.floats("p"))) == list(map(float.hex, expected))
    exact = [len(t.replace(b".", b"").lstrip(b"-")) <= 15 for t in texts]
    plain = [not t.lstrip(b"-").startswith(b"0") for t in texts]
    assert {i + 1 for i in range(len(texts)) if exact[i] and plain[i]} <= set(rows.frames)


TIMES = st.builds(
    lambda time, ns, digits: f"{time:%Y-%m-%dT%H:%M:%S}." + f"{ns:09}"[:digits] + "Z",
    st.datetimes(datetime(1000, 1, 1), datetime(2300, 1, 1)),
    st.integers(0, 999_999_999),
    st.integers(1, 9),
)


@settings(max_examples=300)
@given(text=TIMES | TIMES.map(lambda text: text[:19] + "Z"), damage=st.none() | st.integers(0, 19))
def test_times_are_what_decoding_one_makes_of_them(text, damage):
    text = text if damage is None else text[:damage] + "9" + text[damage + 1 :]
    learned_from = b'{"stream":"a","data":{"t":"2026-09-30T02:39:53.788655Z"}}'
    frame = learned_from.replace(b"2026-09-30T02:39:53.788655Z", text.encode())
    scanner = Scanner(b'{"stream":"')
    scanner.learn(learned_from, "a", {"data": {"t": steps.STAMP}})
    found = scanner.read([frame])
    try:
        expected = [[rfc3339_ns(text)]] if "1971" <= text[:4] <= "2200" else []
    except DecodeError:
        expected = []
    assert [rows.ints("t").tolist() for rows in found] == expected


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
    loading = ready.loading()
    monkeypatch.setattr(ready, "_loading", loading)
    assert ready.loaded([bytes(ready.WORTH_BYTES - 2), b"1"]) is None
    assert loading.thread is None
    ready.loaded([b"1"])
    loading.thread.join()
    assert ready.loaded([]) is Scanner
