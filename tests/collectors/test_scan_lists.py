"""Lists in many messages decoded at once: the levels of books, and lists of objects."""

from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scanning import (
    CHANGES,
    DECIMALS,
    DEPTH,
    KRAKEN,
    NUMBERS,
    SPOT,
    TICKER,
    TRADES,
    ZEROS,
    assert_same,
    learned,
    one_by_one,
    read,
    read_by,
    together,
)

from collectors.exchanges import make_adapter
from collectors.scan import ready, steps
from collectors.scan.frames import Scanner
from collectors.scan.together import FEW


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    ready.load()


# -- lists of levels ---------------------------------------------------------------------


DEPTH_ROW = {
    "s": steps.SYMBOL, "T": steps.TIME, "U": steps.ID, "u": steps.ID, "pu": steps.ID,
    "b": steps.LEVELS, "a": steps.LEVELS,
}  # fmt: skip
BIDS = b'[["100.00","20.000"],["61799.90","0.000"]]'


@pytest.mark.parametrize("bids", [b"[]", b'[["7","0"]]', BIDS[:-1] + b',["8","0.5"],["9","1"]]'])
def test_lists_of_any_length_are_read(bids):
    assert read("depth@0ms", DEPTH_ROW, [DEPTH, DEPTH.replace(BIDS, bids)]) == 2


LISTS = [
    *(b"null", b"", b"[", b"[[]]", b'[""]', b"[[[]]]", b'{"100.00":"20.000"}', b'["100.00","20"]'),
    *(BIDS + b"]", BIDS[:-1], BIDS[:-1] + b",]", BIDS[:-1] + b";", b"[" + BIDS + b"]"),
    *(BIDS.replace(b",", b", "), BIDS.replace(b"[[", b"[ ["), BIDS.replace(b'"]', b'" ]')),
    *(BIDS.replace(b'"', b""), BIDS.replace(b'"20.000"', b"20.0"), BIDS.replace(b'"]', b'","1"]')),
    *(BIDS.replace(b'","', b'"'), BIDS.replace(b'","', b'":"'), BIDS.replace(b'"],', b'"]')),
]


@pytest.mark.parametrize("bids", LISTS)
def test_lists_that_are_written_otherwise_are_not_read(bids):
    assert read("depth@0ms", DEPTH_ROW, [DEPTH, DEPTH.replace(BIDS, bids)]) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_prices_of_levels_that_could_be_read_wrongly_are_not_read(number):
    frame = DEPTH.replace(b"61799.90", number)
    assert read("depth@0ms", DEPTH_ROW, [DEPTH, frame]) == 1


@pytest.mark.parametrize("number", NUMBERS[len(ZEROS) :])
def test_sizes_of_levels_that_could_be_read_wrongly_are_not_read(number):
    frame = DEPTH.replace(b"20.000", number)
    assert read("depth@0ms", DEPTH_ROW, [DEPTH, frame]) == 1


def test_lists_that_were_not_read_are_decoded_as_ever():
    frames = [DEPTH.replace(BIDS, bids) for bids in LISTS]
    assert_same("binance-futures", [*repeat(DEPTH, FEW), *frames, *repeat(DEPTH, FEW)])


def test_levels_outlive_the_next_reading():
    adapter = learned("binance-futures")
    (first,) = together(adapter, [DEPTH] * FEW)[0]
    together(adapter, [DEPTH.replace(BIDS, b'[["1","1"]]')] * FEW)
    assert first.bids == [(100.0, 20.0), (61799.9, 0.0)]


def test_a_snapshot_without_a_symbol_does_not_belong_to_depths_that_come_later():
    bitcoin, ether = SPOT[3:5]
    snapshot = b'{"lastUpdateId":9,"bids":[["1","1"]],"asks":[]}'
    alone, many = make_adapter("binance"), make_adapter("binance")
    for adapter in alone, many:
        together(adapter, [bitcoin, ether] * FEW)
        adapter.unsubscribe(["ETH/USDT"], ["book"])
    frames = [*[bitcoin] * FEW, snapshot, ether, snapshot]
    expected = list(one_by_one(alone, frames))
    assert [event.symbol for event in expected[FEW]] == ["BTC/USDT"]
    assert "names no symbol" in expected[-1]
    assert together(many, frames) == expected


@given(levels=st.lists(st.tuples(DECIMALS, DECIMALS), min_size=1, max_size=8))
def test_levels_are_what_float_makes_of_them(levels):
    text = b",".join(b'["%s","%s"]' % level for level in levels)
    assert_same("binance-futures", [DEPTH] * FEW + [DEPTH.replace(BIDS, b"[%s]" % text)])


# -- lists of objects ----------------------------------------------------------------------


ITEM = CHANGES[CHANGES.index(b'{"side":"bid"') : CHANGES.rindex(b',{"side"')]


@pytest.mark.parametrize("times", [2, 500])
def test_lists_of_any_number_of_objects_are_read(times):
    frame = CHANGES.replace(ITEM, b",".join([ITEM] * times))
    assert read_by("coinbase", [frame]) == 1
    assert_same("coinbase", [CHANGES, frame] * FEW)


OBJECTS = [
    *(b"", b"[]", b"{}", b"null", ITEM[:-1], ITEM + ITEM, ITEM + b",", ITEM + b"," + b"{}"),
    *(ITEM.replace(b'"bid"', side) for side in (b'"BUY"', b'"BTC-USD"', b'"bi"', b'"bids"', b"1")),
    *(ITEM.replace(b"82999.51", price) for price in (b"0", b"-1", b"1e5", b"", b"9" * 20)),
    *(ITEM.replace(b":53.788Z", end) for end in (b":60Z", b":53", b":53.Z", b":53.1234567890Z")),
    *(ITEM.replace(b"2026-09-30", day) for day in (b"2026-09-31", b"1970-01-01", b"2026-9-030")),
    *(ITEM.replace(b'"}', b'","x":1}'), ITEM.replace(b":", b": "), ITEM[:-1] + b',"side":"bid"}'),
]


@pytest.mark.parametrize("item", OBJECTS)
def test_objects_that_are_written_otherwise_are_decoded_as_ever(item):
    frame = CHANGES.replace(ITEM, item)
    assert read_by("coinbase", [frame]) == 0
    assert_same("coinbase", [*repeat(CHANGES, FEW), frame, *repeat(CHANGES, FEW)])


@pytest.mark.parametrize("frame", [CHANGES, TRADES, TICKER])
@pytest.mark.parametrize("product", [b"bid", b"l2_data", b"SOL-USD", b"BTC-USD-X", b"", b"BTC-U"])
def test_names_of_products_are_learned_or_left_alone(frame, product):
    other = frame.replace(b"BTC-USD", product)
    assert read_by("coinbase", [other]) == 0
    assert_same("coinbase", [*repeat(frame, FEW), *repeat(other, FEW), *repeat(frame, FEW)])


@pytest.mark.parametrize("end", [b"]}", b"]}]", b"]},{}]}", b"]}]}}", b']},{"type":"update"}]}'])
def test_messages_of_more_than_one_list_are_decoded_as_ever(end):
    frame = CHANGES.replace(b"]}]}", end)
    assert read_by("coinbase", [frame]) == 0
    assert_same("coinbase", [*repeat(CHANGES, FEW), frame, *repeat(CHANGES, FEW)])


def test_books_with_which_a_subscription_begins_are_decoded_as_ever():
    snapshot = CHANGES.replace(b'"update"', b'"snapshot"')
    assert_same("coinbase", [snapshot, *repeat(CHANGES, FEW), snapshot])
    assert_same("coinbase", [*repeat(snapshot, FEW), CHANGES])


def test_a_side_without_orders_stays_none_in_a_list_too():
    empty = TICKER.replace(b'"83000"', b'"0"').replace(b'"0.5"', b'"0"')
    assert_same("coinbase", [TICKER, empty] * FEW)


def test_words_of_another_exchange_are_no_side():
    frame = KRAKEN[0].replace(b'"buy"', b'"BUY"')
    assert read_by("kraken", [frame]) == 0
    assert_same("kraken", [*repeat(KRAKEN[0], FEW), frame])


def test_numbers_with_an_exponent_are_decoded_as_ever():
    frame = KRAKEN[0].replace(b"0.00000001", b"1e-08")
    assert read_by("kraken", [frame]) == 0
    assert_same("kraken", [*repeat(KRAKEN[0], FEW), frame])


@pytest.mark.parametrize(("count", "is_read"), [(5, True), (1000, False)])
def test_more_items_than_there_is_room_for_are_not_read(count, is_read):
    frame = b'{"stream":"a","data":[%s]}' % b",".join([b'{"a":1}'] * count)
    other = b'{"stream":"b","data":"' + b"-" * 200 + b'"}'
    scanner = Scanner(b'{"stream":"')
    assert scanner.learn(frame, "a", {"data": steps.Many({"a": steps.ID})})
    assert [rows.frames for rows in scanner.read([other, frame])] == ([[1]] if is_read else [])


def test_hundreds_of_products():
    frames = [CHANGES.replace(b"BTC-USD", b"COIN%d-USD" % i) for i in range(500)]
    assert_same("coinbase", frames)
