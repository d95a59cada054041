"""Market data taken by the lot: the rows, gaps, books and counts of messages taken one by one."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import lot_builder
from collectors.adapter import BookUpdate, Quote, Trade
from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.feed_core import FeedCore
from collectors.lot import Lot
from collectors.raw import RawReader
from collectors.scan import ready
from collectors.scan.together import FEW
from collectors.session import Forget, Lost, Session, mark
from collectors.simulator import generate_frames
from collectors.venues import venue

CHANNELS = ("ticker", "trades", "book", "gaps")
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
SENT = list(generate_frames(PAIRS, seconds=1e9, frames=1500, seed=5))
EMPTY = (
    b'{"stream":"btcusdt@bookTicker","data":{"u":%d,"s":"BTCUSDT","b":"0","B":"0","a":"9","A":"1"}}'
)


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    ready.load()


class Taken:
    """What a session makes of messages."""

    def __init__(self, exchange="binance", channels=CHANNELS, pairs=PAIRS):
        self.session = Session(make_adapter(exchange), channels)
        if pairs:
            self.session.adapter.subscribe(list(pairs), ["book"])
        self.batches = {channel: [] for channel in channels}
        self.lots = 0
        self.differences = 0
        """Taken by the lot."""
        self.errors = []

    def singly(self, messages):
        for recv_ns, frame in messages:
            try:
                self.session.frame(recv_ns, frame)
            except DecodeError as error:
                self.errors.append(str(error))

    def together(self, messages):
        times, frames = zip(*messages, strict=True) if messages else ((), ())
        messages_told = 0
        for told in self.session.many(frames, times):
            messages_told += told.in_columns if isinstance(told, Lot) else 1
            self.lots += isinstance(told, Lot)
            self.differences += told.differences if isinstance(told, Lot) else 0
            if isinstance(told, DecodeError):
                self.errors.append(str(told))
        assert messages_told == len(messages)

    def take(self):
        for channel, batch in self.session.take():
            batch.validate(full=True)
            self.batches[channel].append(batch)

    def all(self):
        """All that can be seen of it."""
        self.take()
        session, integrity = self.session, self.session.integrity
        counts = session.frames, session.errors, dict(session.events), dict(session.ignored)
        books = {pair: state.book for pair, state in integrity._books.items() if state.synced}
        kept = {pair: (book.bids.sizes, book.asks.sizes) for pair, book in books.items()}
        return self.batches, self.errors, counts, (integrity.gaps, integrity.duplicates), kept


def assert_same(messages, cuts, takes=(), exchange="binance", channels=CHANNELS, pairs=PAIRS):
    """`cuts`: where lots end; after those of `takes` rows are taken. What was taken by the lot."""
    alone, many = Taken(exchange, channels, pairs), Taken(exchange, channels, pairs)
    ends = sorted({*cuts, len(messages)})
    for begin, end in zip([0, *ends], ends, strict=False):
        alone.singly(messages[begin:end])
        many.together(messages[begin:end])
        if end in takes:
            alone.take()
            many.take()
    assert many.all() == alone.all()
    return many


def test_clean_feed_is_taken_by_the_lot():
    cuts = range(0, len(SENT), 2 * FEW)
    many = assert_same(SENT, cuts, cuts)
    assert many.lots >= len(cuts) - 3
    assert many.differences > many.session.events[BookUpdate] / 2


SPOILED = ("drop", "twice", "later", "cross", "empty", "lost", "forget", "junk")
DEPTH = b'@depth@100ms","data":'


def crossing(message):
    """The difference with a bid above every ask."""
    recv_ns, frame = message
    assert b'"b":[' in frame
    return recv_ns, frame.replace(b'"b":[', b'"b":[["9999999.00","1.0"],').replace(b",]", b"]")


def spoil(messages, draw):
    """The messages with some missing, twice, out of order, without a side, crossing a book, lost or
    forgotten."""
    messages = list(messages)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(messages) - 1))
        recv_ns, frame = messages[at]
        what = draw(st.sampled_from(SPOILED))
        if what == "drop":
            del messages[at : at + draw(st.integers(1, 4))]
        elif what == "twice":
            messages[at:at] = [messages[at]] * draw(st.integers(1, 3))
        elif what == "cross":
            changes = [i for i, (_, sent) in enumerate(messages) if DEPTH in sent]
            at = changes[at * len(changes) // len(messages)]
            messages[at] = crossing(messages[at])
        elif what == "later":
            to = min(at + draw(st.integers(1, 5)), len(messages) - 1)
            messages[at], messages[to] = (recv_ns, messages[to][1]), (messages[to][0], frame)
        else:
            told = {
                "empty": EMPTY % draw(st.sampled_from([1, 10**15])),
                "lost": mark(Lost("disconnect", draw(st.sampled_from([None, ["ticker"]])))),
                "forget": mark(Forget(["trades", "ticker"], ["ETH/USDT"])),
                "junk": b'{"stream":"btcusdt@trade","data":{"e":"trade"}}',
            }
            messages.insert(at, (recv_ns, told[what]))
    return messages


@given(st.data())
@settings(max_examples=60)
def test_spoiled_feed_in_any_lots(data):
    begin = data.draw(st.integers(0, 300))
    messages = spoil(SENT[begin : begin + 900], data.draw)
    cuts = data.draw(st.lists(st.integers(0, len(messages)), max_size=12))
    takes = data.draw(st.sets(st.sampled_from(cuts or [0])))
    channels = data.draw(st.sampled_from([CHANNELS, ("trades",), ("ticker", "gaps")]))
    assert_same(messages, cuts, takes, channels=channels)


@pytest.mark.parametrize("exchange", ["binance", "binance-futures"])
@pytest.mark.parametrize("size", [FEW, 1000])
def test_recorded_frames(captures, exchange, size):
    name = {"binance": "binance/spot", "binance-futures": "binance_usdm/usdm"}[exchange]
    recorded = list(RawReader(captures / f"{name}_btcusdt_20240808.recv_ns.gz"))[:20_000]
    channels = (*make_adapter(exchange).channels, "gaps")
    cuts = range(0, len(recorded), size)
    many = assert_same(recorded, cuts, cuts, exchange, channels, ())
    assert many.lots > len(cuts) // 2
    assert many.differences > many.session.events[BookUpdate] / 2


def test_quotes_in_force_pass_from_lots_to_messages_and_back():
    cuts = [0, 400, 405, 410, 700, 720, 1100]  # fewer than FEW are taken one by one
    assert assert_same(SENT, cuts).lots >= 3


def test_books_that_cross_within_one_lot_are_told_in_the_order_of_messages():
    changes = [i for i, (_, sent) in enumerate(SENT) if DEPTH in sent and i > 1000]
    of_pair = {pair: pair.replace("/", "").lower().encode() + DEPTH for pair in PAIRS}
    own = {pair: [i for i in changes if start in SENT[i][1]] for pair, start in of_pair.items()}
    messages = list(SENT)
    first, second = own[PAIRS[1]][2], own[PAIRS[0]][3]
    for at in (first, second):
        messages[at] = crossing(messages[at])
    many = assert_same(messages, [1000])
    gaps = [row for batch in many.batches["gaps"] for row in batch.to_pylist()]
    told = [(gap["symbol"], gap["reason"]) for gap in gaps if gap["reason"] == "crossed"]
    ordered = sorted(((first, PAIRS[1]), (second, PAIRS[0])))
    assert told == [(pair, "crossed") for _, pair in ordered]
    assert many.differences >= sum(i < min(first, second) for i in changes)


def test_feed_takes_note_of_lots_as_of_messages():
    def heard(lot):
        session = Session(make_adapter("binance"), CHANNELS)
        core = FeedCore(session.adapter, venue("binance", "", ""), session)
        core.subscribe(list(PAIRS), CHANNELS[:3], SENT[0][0])
        core.opened(1, SENT[0][0])
        for begin in range(0, len(SENT), lot):
            times, frames = zip(*SENT[begin : begin + lot], strict=True)
            core.received_many(1, times, frames)
        pairs = {pair: known.heard_ns for pair, known in core.subscriptions.items()}
        counters = core.counters
        assert 0 <= counters.lag_ns < 10**9
        counted = counters.frames, counters.gaps, counters.duplicates, counters.errors
        return pairs, core.lines[1].carried, counted

    alone, many = heard(1), heard(250)
    assert many == alone
    assert 0 not in many[0].values()


def test_batches_hold_no_more_memory_than_their_rows_take():
    taken = Taken()
    for begin in (0, 300):
        taken.together(SENT[begin : begin + 300])
        taken.take()
    before = {channel: len(batches) for channel, batches in taken.batches.items()}
    tracemalloc.start()
    try:
        for begin in range(600, 1500, 2 * FEW):
            taken.together(SENT[begin : begin + 2 * FEW])
            taken.take()
        of_builders = tracemalloc.Filter(True, lot_builder.__file__)
        told = tracemalloc.take_snapshot().filter_traces([of_builders]).statistics("filename")
    finally:
        tracemalloc.stop()
    new = [b for c in ("ticker", "trades", "book") for b in taken.batches[c][before[c] :]]
    assert len(new) > 20
    rows = sum(batch.nbytes for batch in new)
    assert rows / 2 < sum(one.size for one in told) < 2 * rows


def test_lot_is_the_events_of_its_messages():
    times, frames = zip(*SENT[:1000], strict=True)
    alone, many = make_adapter("binance"), make_adapter("binance")
    for adapter in (alone, many):
        adapter.subscribe(list(PAIRS), ["book"])
    list(many.decode_many(frames[:500], times[:500]))
    lot = many.decode_many(frames[500:], times[500:])
    assert isinstance(lot, Lot)
    events = list(map(alone.decode, frames, times))[500:]
    assert list(lot) == events
    kinds = [type(of_one[0]) for of_one in events]
    assert lot.ticks == kinds.count(Trade) + kinds.count(Quote)
    assert lot.differences == kinds.count(BookUpdate) > 10
    assert lot.in_columns == 500
    fewer = lot.without_differences(250)
    assert list(fewer) == events
    assert fewer.differences == kinds[:250].count(BookUpdate)
    assert len(lot) == 500
    last = {e.symbol: e for (e, *_) in events if type(e) is Quote}
    assert lot.last_quotes == last
