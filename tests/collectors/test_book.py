"""Order books: the same as the obvious, slow way, whatever is done to them."""

import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.adapter import BookUpdate, Proof, Quote
from collectors.book import Book
from collectors.ladder import Ladder
from collectors.levels import LevelRows
from collectors.lot import ASKS, ASKS_END, BIDS, DIFFERENCE, Lot


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    Ladder.compile()


levels = st.lists(
    st.tuples(st.integers(1, 40).map(lambda n: n / 4), st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.25])),
    max_size=12,
)


def update(bids=(), asks=(), is_snapshot=False, proof=None):
    bids, asks = list(bids), list(asks)
    return BookUpdate(12, 7, "BTC/USD", 9, None, is_snapshot, bids, asks, None, proof)


def in_arrays(change, asks_first=False):
    """The same update as the scanner makes it: both sides in a block, not at its beginning."""
    sides = [change.asks, change.bids] if asks_first else [change.bids, change.asks]
    block = np.array([(7.0, 7.0), *sides[0], *sides[1], (8.0, 8.0)])
    middle = 1 + len(sides[0])
    made = [LevelRows(block, 1, middle), LevelRows(block, middle, len(block) - 1)]
    bids, asks = reversed(made) if asks_first else made
    return msgspec.structs.replace(change, bids=bids, asks=asks)


def told(bids, asks, depth=2):
    """A proof of so many levels a side, whose digits do not matter."""
    return Proof(0, depth, [b""] * bids, [b""] * asks)


messages = st.lists(
    st.tuples(st.booleans(), levels, levels, st.sampled_from(["list", "bids first", "asks first"])),
    max_size=8,
)


@given(messages, st.integers(0, 9), st.booleans())
def test_book_is_the_last_size_of_every_price(messages, count, is_proven):
    book, bids, asks = Book(), {}, {}
    for is_snapshot, new_bids, new_asks, form in messages:
        proof = told(len(new_bids), len(new_asks), 1000) if is_proven else None
        change = update(new_bids, new_asks, is_snapshot, proof)
        book.apply(change if form == "list" else in_arrays(change, form == "asks first"))
        if is_snapshot:
            bids, asks = {}, {}
        bids.update(new_bids)
        asks.update(new_asks)
    best_bids = sorted(((p, q) for p, q in bids.items() if q), reverse=True)
    best_asks = sorted((p, q) for p, q in asks.items() if q)
    assert book.top(count) == (best_bids[:count], best_asks[:count])
    assert book.top(1000) == (best_bids, best_asks)
    assert (len(book.bids), len(book.asks)) == (len(best_bids), len(best_asks))
    assert book.bids.best() == (best_bids[0] if best_bids else None)
    assert book.asks.best() == (best_asks[0] if best_asks else None)
    assert book.crossed == bool(best_bids and best_asks and best_bids[0][0] >= best_asks[0][0])


def as_they_are(change):
    return change


@pytest.mark.parametrize("form", [as_they_are, in_arrays])
def test_best_levels_of_a_deep_book_are_those_of_all_its_levels_sorted(form):
    book, bids = Book(), {}
    for number in range(200):
        changes = [
            (float(n * 7919 % 5003), float(n % 3)) for n in range(40 * number, 40 * number + 60)
        ]
        book.apply(form(update(bids=changes)))
        bids.update(changes)
        live = sorted(((p, q) for p, q in bids.items() if q), reverse=True)
        assert book.top(5) == (live[:5], [])
        assert book.bids.best() == live[0]
    assert dict(book.bids.sizes) == dict(live)


def test_levels_that_were_removed_do_not_pile_up():
    book = Book()
    book.apply(update(bids=[(1e9, 1.0)]))
    for number in range(1, 20_000):
        book.apply(update(bids=[(float(number), 1.0)]))
        book.apply(update(bids=[(float(number), 0.0)]))
    assert len(book.bids._sizes) < 2000
    assert book.top(5)[0] == [(1e9, 1.0)]


def test_a_book_in_arrays_stays_small():
    book = Book()
    book.apply(in_arrays(update(bids=[(1e9, 1.0)])))
    for number in range(1, 20_000):
        book.apply(in_arrays(update(bids=[(float(number), 1.0)])))
        book.apply(in_arrays(update(bids=[(float(number), 0.0)])))
    assert book._ladder._tables.shape == (2, 1024, 2)
    assert book.top(5)[0] == [(1e9, 1.0)]


def test_a_book_in_arrays_grows():
    levels = [(float(number), 1.0) for number in range(1, 5000)]
    book = Book()
    book.apply(in_arrays(update(bids=levels)))
    assert book.top(9999)[0] == levels[::-1]


changes = st.lists(st.tuples(levels, levels, st.booleans()), min_size=1, max_size=8)


def as_lot(changes):
    """Differences of one book, with messages of others between them, and which are its own."""
    block, ints = [(7.0, 7.0)], np.zeros((ASKS_END + 1, 2 * len(changes)), np.int64)
    for i, (bids, asks, asks_first) in enumerate(changes):
        sides = [(BIDS, bids), (ASKS, asks)]
        for begin, side in reversed(sides) if asks_first else sides:
            ints[begin, 2 * i] = len(block)
            block += side
            ints[begin + 1, 2 * i] = len(block)
    kinds = np.tile(np.array([DIFFERENCE, 0], np.int8), len(changes))
    levels = np.array(block)
    lot = Lot(["BTC/USD"], kinds, ints, np.empty((4, len(kinds))), levels, {}, 0, len(changes))
    return lot, np.arange(0, len(kinds), 2)


@given(messages, changes)
def test_differences_of_a_lot_up_to_one_that_crosses_are_those_one_by_one(before, changes):
    alone, many = Book(), Book()
    for is_snapshot, bids, asks, _ in before:
        for book in (alone, many):
            book.apply(update(bids, asks, is_snapshot))
    lot, own = as_lot(changes)
    taken, count = many.apply_all(lot, own), 0
    for bids, asks, _ in changes:
        alone.apply(update(bids, asks))
        count += 1
        if alone.crossed:
            break
    assert taken == count
    assert many.crossed == alone.crossed
    assert many.top(1000) == alone.top(1000)


def test_differences_of_a_lot_find_room():
    deep = [(float(number), 1.0) for number in range(1, 5000)]
    changes = [(deep[begin : begin + 700], [], False) for begin in range(0, 5000, 700)]
    book = Book()
    lot, own = as_lot(changes)
    assert book.apply_all(lot, own) == len(changes)
    assert book.top(9999)[0] == deep[::-1]


def test_a_book_goes_on_in_arrays_when_some_come():
    book = Book()
    book.apply(update([(9.0, 1.0), (8.0, 1.0), (7.0, 1.0)], [(10.0, 1.0)], True))
    book.apply(in_arrays(update([(9.0, 0.0)], [(11.0, 2.0)])))
    book.apply(update([(7.0, 0.0)]))
    assert book.top(5) == ([(8.0, 1.0)], [(10.0, 1.0), (11.0, 2.0)])
    assert book.asks.sizes == {10.0: 1.0, 11.0: 2.0}


def test_levels_in_an_array_are_the_list_of_them():
    change = update([(9.0, 1.0), (8.0, 0.0)], [])
    made = in_arrays(change)
    assert made == change
    assert repr(made) == repr(change)
    assert (made.bids[-1], len(made.bids), bool(made.asks)) == ((8.0, 0.0), 2, False)
    assert made.bids != [(9.0, 1.0)]
    assert made.bids != "levels"


def test_book_without_proofs_has_no_checksum():
    book = Book()
    book.apply(update([(99.0, 1.0)], [(100.0, 1.0)], True))
    with pytest.raises(ValueError, match="carry no proofs"):
        book.checksum()


def test_quote_is_the_top_with_the_numbers_of_the_update():
    book, change = Book(), update([(99.0, 1.0), (98.0, 2.0)], [])
    book.apply(change)
    assert book.quote(change) == Quote(12, 7, "BTC/USD", 9, 99.0, None, 1.0, None)


def test_levels_beyond_the_depth_are_forgotten_and_do_not_come_back():
    book = Book()
    snapshot = update([(9.0, 1.0), (8.0, 1.0)], [(10.0, 1.0), (11.0, 1.0)], True, told(2, 2))
    book.apply(snapshot)
    book.apply(update(asks=[(9.5, 2.0)], proof=told(0, 1)))
    assert book.top(5) == ([(9.0, 1.0), (8.0, 1.0)], [(9.5, 2.0), (10.0, 1.0)])
    book.apply(update(asks=[(9.5, 0.0)], proof=told(0, 1)))
    assert book.top(5) == ([(9.0, 1.0), (8.0, 1.0)], [(10.0, 1.0)])


def test_checksum_is_over_ten_asks_then_ten_bids_best_first():
    book = Book()
    prices = [float(n) for n in range(1, 13)]
    asks = [(20.0 + p, 1.0) for p in reversed(prices)]
    bids = [(20.0 - p, 1.0) for p in prices]
    digits = [b"%d," % price for price, _ in bids], [b"%d," % price for price, _ in asks]
    book.apply(update(bids, asks, True, Proof(0, 25, *digits)))
    text = b"21,22,23,24,25,26,27,28,29,30," + b"19,18,17,16,15,14,13,12,11,10,"
    assert book.checksum() == zlib.crc32(text)
    book.apply(update([(18.5, 1.0), (19.0, 0.0)], [], False, Proof(0, 25, [b"185,", b""], [])))
    text = b"21,22,23,24,25,26,27,28,29,30," + b"185,18,17,16,15,14,13,12,11,10,"
    assert book.checksum() == zlib.crc32(text)


def test_digits_of_levels_that_left_do_not_pile_up():
    book = Book()
    for number in range(1, 2000):
        book.apply(update([(float(number), 1.0)], proof=Proof(0, 10, [b"1"], [])))
    assert len(book.bids) == 10
    assert len(book.bids._tokens) <= 100
    assert book.bids.proof_digits() == b"1" * 10
