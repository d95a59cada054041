"""Integrity: every loss found within one message, no false alarm, others undisturbed."""

import weakref
from bisect import bisect_right
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.adapter import (
    BookUpdate,
    FrameNumber,
    Gap,
    Ignored,
    Quote,
    Recovery,
    Trade,
)
from collectors.exchanges.binance import BinanceSpot
from collectors.exchanges.binance_futures import BinanceFutures
from collectors.integrity import Integrity
from collectors.ladder import Ladder
from collectors.levels import LevelRows
from collectors.raw import RawReader
from collectors.recordings import BINANCE_DEMO

BTC, ETH = "BTC/USDT", "ETH/USDT"


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    Ladder.compile()


def trade(number, symbol=BTC, recv=100):
    return Trade(recv + number, number, symbol, number, number, 10.0, 1.0, 1)


def quote(recv, symbol=BTC):
    return Quote(recv, None, symbol, None, 9.0, 11.0, 1.0, 1.0)


def diff(first, last, bids=(), asks=(), symbol=BTC, prev=None):
    return BookUpdate(last, None, symbol, last, first, False, list(bids), list(asks), prev)


def snapshot(seq, bids=((9.0, 1.0),), asks=((11.0, 1.0),), symbol=BTC, recv=None):
    recv = seq if recv is None else recv
    return BookUpdate(recv, None, symbol, seq, None, True, list(bids), list(asks))


def in_band(recv, bids=(), asks=(), symbol=BTC, is_snapshot=False):
    return BookUpdate(recv, None, symbol, None, None, is_snapshot, list(bids), list(asks))


def in_a_block(update):
    """The same update with its levels in an array, as the scanner makes them."""
    block, middle = np.array([*update.bids, *update.asks]), len(update.bids)
    bids, asks = LevelRows(block, 0, middle), LevelRows(block, middle, len(block))
    return msgspec.structs.replace(update, bids=bids, asks=asks)


def said(events):
    return [event for event in events if isinstance(event, Gap | Recovery)]


class TestTrades:
    def test_missed_ids_are_a_gap_from_the_first_to_the_last_of_them(self):
        checks = Integrity()
        checks.check([trade(1)])
        assert checks.check([trade(5)]) == [
            Gap(105, 5, BTC, "trades", 2, 4, 101, "trade_id"),
            trade(5),
        ]
        assert checks.check([trade(6)]) == [trade(6)]
        assert (checks.gaps, checks.duplicates) == (1, 0)

    def test_trades_told_twice_are_kept_once(self):
        checks = Integrity()
        first = [trade(n) for n in (1, 2, 3)]
        again = [trade(n, recv=200) for n in (2, 3, 4)]
        assert checks.check([*first, *again]) == [*first, again[-1]]
        assert (checks.gaps, checks.duplicates) == (0, 2)

    def test_numbers_that_stay_low_are_a_new_count_not_repetitions_for_ever(self):
        checks = Integrity()
        checks.check([trade(1_000_000)])
        kept = checks.check([trade(n) for n in range(1, 5004)])
        assert kept == [
            Gap(5101, 5001, BTC, "trades", None, None, 1_000_100, "renumbered"),
            *(trade(n) for n in (5001, 5002, 5003)),
        ]
        assert checks.duplicates == 5000

    def test_symbols_count_apart(self):
        checks = Integrity()
        events = [trade(1), trade(700, ETH), trade(2), trade(701, ETH)]
        assert checks.check(events) == events


class TestSpotChain:
    """`first_seq` continues the id that came before."""

    def test_snapshot_is_spliced_into_what_waited_for_it(self):
        checks = Integrity()
        checks.check([diff(1, 3, bids=[(9.0, 7.0)]), diff(4, 6, bids=[(8.0, 2.0)])])
        assert checks.book(BTC) is None
        assert checks.stale == [BTC]
        checks.check([diff(7, 9, asks=[(11.0, 5.0)]), snapshot(5)])
        assert checks.stale == []
        assert checks.book(BTC).top(5) == ([(9.0, 1.0), (8.0, 2.0)], [(11.0, 5.0)])
        checks.check([diff(10, 10, bids=[(9.0, 0.0)])])
        assert checks.book(BTC).top(5) == ([(8.0, 2.0)], [(11.0, 5.0)])
        assert checks.gaps == 0

    def test_update_that_waits_keeps_no_other_levels_in_memory(self):
        checks, update = Integrity(), in_a_block(diff(2, 4, bids=[(8.0, 2.0)]))
        block = weakref.ref(update.bids.block)
        checks.check([update])
        del update
        assert block() is None
        checks.check([snapshot(3)])
        assert checks.book(BTC).top(5)[0] == [(9.0, 1.0), (8.0, 2.0)]

    @given(crossings=st.lists(st.tuples(st.booleans(), st.integers(6, 14)), max_size=6))
    def test_book_in_arrays_is_found_crossed_as_any_other(self, crossings):
        plain, fast = Integrity(), Integrity()
        for checks in plain, fast:
            checks.check([snapshot(3), diff(4, 4)])
        for number, (is_bid, price) in enumerate(crossings, 5):
            level = [(float(price), 1.0)]
            update = diff(number, number, level, []) if is_bid else diff(number, number, [], level)
            assert plain.check([update]) == fast.check([in_a_block(update)])
            assert plain.stale == fast.stale

    def test_snapshot_ahead_of_the_stream_is_joined_when_the_stream_arrives_there(self):
        checks = Integrity()
        checks.check([diff(1, 3), snapshot(8)])
        checks.check([diff(4, 6, bids=[(9.0, 5.0)]), diff(7, 9, bids=[(8.0, 4.0)])])
        assert checks.book(BTC).top(5)[0] == [(9.0, 1.0), (8.0, 4.0)]
        assert checks.gaps == 0

    def test_snapshot_older_than_what_waits_is_not_taken(self):
        checks = Integrity()
        checks.check([diff(5, 6), snapshot(3)])
        assert checks.stale == [BTC]
        checks.check([snapshot(5)])
        assert checks.stale == []

    def test_old_snapshot_does_not_set_a_good_book_back(self):
        checks = Integrity()
        checks.check([snapshot(3), diff(4, 6, bids=[(9.0, 5.0)]), snapshot(4)])
        assert checks.book(BTC).bids.best() == (9.0, 5.0)

    def test_stream_that_begins_after_its_snapshot_leaves_a_gap(self):
        checks = Integrity()
        checks.check([snapshot(3)])
        assert checks.check([diff(7, 8)]) == [
            Gap(8, None, BTC, "book", 4, 6, 3, "splice"),
            diff(7, 8),
        ]
        assert checks.stale == [BTC]

    def test_lost_update_makes_only_its_own_book_stale_until_a_snapshot(self):
        checks = Integrity()
        checks.check([snapshot(3), snapshot(3, symbol=ETH), diff(4, 5), diff(4, 5, symbol=ETH)])
        gap = Gap(9, None, BTC, "book", 6, 7, 5, "sequence")
        assert checks.check([diff(8, 9, bids=[(7.0, 7.0)])])[0] == gap
        assert checks.stale == [BTC]
        assert checks.open_gaps == [gap]
        assert checks.book(ETH) is not None
        assert said(checks.check([diff(10, 11)])) == []
        assert said(checks.check([snapshot(8, recv=50)])) == [Recovery(50, gap)]
        assert checks.book(BTC).top(5)[0] == [(9.0, 1.0), (7.0, 7.0)]
        assert (checks.stale, checks.open_gaps) == ([], [])

    def test_every_loss_is_told_and_one_snapshot_repairs_them_all(self):
        checks = Integrity()
        checks.check([snapshot(3), diff(4, 5)])
        events = [diff(7, 8), diff(9, 9), diff(12, 13)]
        first, second = said(checks.check(events))
        assert (first.from_seq, first.to_seq) == (6, 6)
        assert (second.from_seq, second.to_seq) == (10, 11)
        assert said(checks.check([snapshot(13, recv=50)])) == [
            Recovery(50, first),
            Recovery(50, second),
        ]

    def test_loss_is_found_without_any_snapshot(self):
        checks = Integrity()
        checks.check([diff(1, 3)])
        assert said(checks.check([diff(5, 6)])) == [Gap(6, None, BTC, "book", 4, 4, 3, "sequence")]

    def test_update_told_twice_is_kept_once(self):
        checks = Integrity()
        assert checks.check([diff(1, 3), diff(4, 5), diff(1, 3), diff(4, 5)]) == [
            diff(1, 3),
            diff(4, 5),
        ]
        assert checks.duplicates == 2

    def test_ids_that_stay_low_are_a_new_count(self):
        checks = Integrity()
        checks.check([diff(999_000, 1_000_000)])
        kept = checks.check([diff(n, n) for n in range(1, 5004)])
        assert [e.reason for e in said(kept)] == ["renumbered"]
        assert kept[1:] == [diff(n, n) for n in (5001, 5002, 5003)]
        checks.check([snapshot(5002)])
        assert checks.stale == []

    def test_crossed_book_is_wrong_though_its_numbers_are_right(self):
        checks = Integrity()
        checks.check([snapshot(3)])
        assert said(checks.check([diff(4, 4, bids=[(11.0, 1.0)])])) == [
            Gap(4, None, BTC, "book", None, None, 3, "crossed")
        ]
        assert checks.stale == [BTC]


class TestLinkedChain:
    """`prev_seq` names the predecessor; ids have holes."""

    def test_holes_between_linked_updates_are_no_gap(self):
        checks = Integrity()
        checks.check([diff(10, 20, prev=8), snapshot(15), diff(31, 40, prev=20)])
        assert checks.stale == []
        assert checks.gaps == 0

    def test_broken_link_is_a_gap(self):
        checks = Integrity()
        checks.check([snapshot(15), diff(10, 20, prev=8)])
        assert said(checks.check([diff(31, 40, prev=28)])) == [
            Gap(40, None, BTC, "book", 21, 28, 20, "sequence")
        ]


class TestNumberedConnection:
    def start(self):
        checks = Integrity()
        checks.check([FrameNumber(1, 0), in_band(1, [(9.0, 1.0)], [(11.0, 1.0)], BTC, True)])
        checks.check([FrameNumber(2, 1), in_band(2, [(5.0, 1.0)], [(6.0, 1.0)], ETH, True)])
        checks.check([FrameNumber(3, 2), quote(3)])
        return checks

    def test_every_kind_of_frame_counts(self):
        checks = self.start()
        events = checks.check([FrameNumber(4, 3), Ignored(4, "heartbeats")])
        assert events == [Ignored(4, "heartbeats")]
        assert checks.gaps == 0

    def test_jump_spoils_the_books_and_quotes_of_all_symbols(self):
        checks = self.start()
        checks.check([FrameNumber(4, 6), Ignored(4, "heartbeats")])
        assert checks.stale == [BTC, ETH]
        missed = (3, 5, 3, "sequence")
        quotes, btc, eth = (
            Gap(4, None, symbol, channel, *missed)
            for symbol, channel in ((BTC, "ticker"), (BTC, "book"), (ETH, "book"))
        )
        assert checks.open_gaps == [quotes, btc, eth]
        assert checks.check([FrameNumber(5, 7), quote(5)]) == [Recovery(5, quotes), quote(5)]
        repair = in_band(6, [(9.0, 1.0)], [(11.0, 1.0)], BTC, True)
        assert checks.check([FrameNumber(6, 8), repair]) == [repair, Recovery(6, btc)]
        assert checks.stale == [ETH]

    def test_frame_told_twice_is_dropped_whole(self):
        checks = self.start()
        assert checks.check([FrameNumber(4, 1), quote(4), quote(4)]) == []
        assert (checks.gaps, checks.duplicates) == (0, 2)

    def test_numbers_far_below_are_a_new_connection_whose_beginning_is_missing(self):
        checks = self.start()
        checks.check([FrameNumber(4, 3)])
        checks.check([FrameNumber(5, 900)])
        assert checks.check([FrameNumber(6, 12), Ignored(6, "heartbeats")])[-1:] == [
            Ignored(6, "heartbeats")
        ]
        assert checks.check([FrameNumber(7, 13), quote(7)])[-1] == quote(7)

    @pytest.mark.parametrize("how", ["numbers begin again", "the caller says so"])
    def test_new_connection_makes_everything_stale(self, how):
        checks = self.start()
        if how == "numbers begin again":
            events, reason = checks.check([FrameNumber(9, 0)]), "reconnect"
        else:
            events, reason = checks.lose(9, "disconnect"), "disconnect"
        assert [(g.symbol, g.channel, g.start_ts, g.reason) for g in events] == [
            (BTC, "ticker", 3, reason),
            (BTC, "book", 1, reason),
            (ETH, "book", 2, reason),
        ]
        assert checks.stale == [BTC, ETH]
        assert said(checks.check([FrameNumber(10, 1)])) == []


def compared_tops(path, adapter):
    """Differences at which the book's best levels are those of the last quote up to their id.

    All of them must be. A quote may arrive after the difference that covers it, so the comparison
    goes by ids, which quotes and differences share.
    """
    checks = Integrity()
    tops: dict[str, list[Quote]] = {}
    quotes: dict[str, list[Quote]] = {}
    for recv, frame in RawReader(path):
        for event in checks.check(adapter.decode(frame, recv)):
            assert not isinstance(event, Gap), event
            if isinstance(event, Quote):
                quotes.setdefault(event.symbol, []).append(event)
            elif isinstance(event, BookUpdate) and not event.is_snapshot:
                book = checks.book(event.symbol)
                if book is not None:
                    tops.setdefault(event.symbol, []).append(book.quote(event))
    assert (checks.stale, checks.duplicates) == ([], 0)
    compared = 0
    for symbol, books in tops.items():
        told = quotes[symbol]
        ids = [quote.seq for quote in told]
        assert ids == sorted(ids)
        for top in books:
            last = told[bisect_right(ids, top.seq) - 1]
            assert (top.bid, top.bid_size, top.ask, top.ask_size) == (
                *(last.bid, last.bid_size, last.ask, last.ask_size),
            )
            compared += 1
    return compared


def test_real_spot_book_equals_the_quotes_at_every_difference(spot_capture):
    assert compared_tops(spot_capture, BinanceSpot()) > 3_440


def test_real_futures_book_equals_the_quotes_at_every_difference(usdm_capture):
    assert compared_tops(usdm_capture, BinanceFutures()) > 6_500


def test_simulated_books_equal_the_quotes_at_every_difference():
    assert compared_tops(BINANCE_DEMO, BinanceSpot()) > 1_900


def test_every_dropped_frame_is_found_at_the_symbols_next_one():
    """Fault injection: one frame of the recording left out at a time, by kind and symbol."""
    frames = list(RawReader(BINANCE_DEMO))[:1200]
    events = [BinanceSpot().decode(frame, recv)[0] for recv, frame in frames]
    streams: dict[tuple[type, str], list[int]] = {}
    for i, event in enumerate(events):
        if isinstance(event, Trade) or (isinstance(event, BookUpdate) and not event.is_snapshot):
            streams.setdefault((type(event), event.symbol), []).append(i)
    found = 0
    for indices in streams.values():
        for _, (dropped, following) in list(zip(indices, pairwise(indices[1:]), strict=False))[::9]:
            checks, gaps = Integrity(), {}
            for i, event in enumerate(events[: following + 1]):
                if i != dropped:
                    for gap in said(checks.check([event])):
                        gaps[i] = gap
            next_one = next(i for i in indices if i > dropped)
            assert list(gaps) == [next_one]
            assert gaps[next_one].symbol == events[dropped].symbol
            found += 1
    assert found > 50


def test_other_symbols_books_do_not_notice_a_loss():
    frames = list(RawReader(BINANCE_DEMO))[:3000]
    events = [BinanceSpot().decode(frame, recv)[0] for recv, frame in frames]
    clean, faulty = Integrity(), Integrity()
    lost = [
        i
        for i, e in enumerate(events)
        if isinstance(e, BookUpdate) and e.symbol == BTC and not e.is_snapshot
    ][20]
    for i, event in enumerate(events):
        clean.check([event])
        if i != lost:
            faulty.check([event])
    assert faulty.stale == [BTC]
    for symbol in (ETH, "SOL/USDT"):
        assert faulty.book(symbol).top(1000) == clean.book(symbol).top(1000)


@st.composite
def disturbed_streams(draw):
    """A true history of a book, and what arrives of it: lost, doubled, late; snapshots too."""
    linked = draw(st.booleans())
    bids: dict[float, float] = {}
    seq, history, messages = 0, {0: {}}, []
    for _ in range(draw(st.integers(1, 25))):
        first = seq + 1 + (draw(st.integers(0, 3)) if linked else 0)
        prev, seq = seq, first + draw(st.integers(0, 2))
        price = float(draw(st.integers(1, 6)))
        size = 0.0 if price in bids and draw(st.booleans()) else float(seq)  # tells states apart
        bids = {**bids, price: size} if size else {p: q for p, q in bids.items() if p != price}
        history[seq] = bids
        messages.append(diff(first, seq, [(price, size)], prev=prev if linked else None))
    arrived = []
    for i, message in enumerate(messages):
        arrived += [message] * draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2]))
        if draw(st.integers(0, 4)) == 0:
            at = sorted(history)[draw(st.integers(max(0, i - 3), min(i + 3, len(messages))))]
            arrived.append(snapshot(at, bids=history[at].items(), asks=()))
        if draw(st.integers(0, 6)) == 0 and arrived:
            arrived.append(draw(st.sampled_from(arrived)))
    return history, arrived


@settings(max_examples=300)
@given(disturbed_streams())
def test_book_is_either_stale_or_true(stream):
    history, arrived = stream
    checks, latest = Integrity(), 0
    for event in arrived:
        kept = checks.check([event])
        if event in kept and not event.is_snapshot:
            latest = event.seq
        book = checks.book(BTC)
        if book is not None:
            states = [seq for seq, bids in history.items() if bids == book.bids.sizes]
            assert states
            assert max(states) >= latest
