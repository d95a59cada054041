"""Simulated frames: real format, consistent with a book, the same for the same seed."""

import gzip
import json
import statistics
from collections import Counter
from itertools import pairwise

import pytest

from collectors.adapter import Ack, BookUpdate, Quote, Trade
from collectors.errors import CollectorError
from collectors.exchanges.binance import BinanceSpot
from collectors.market import asset_of
from collectors.raw import RawReader
from collectors.recordings import BINANCE_DEMO
from collectors.simulator import PAIRS, START_NS, generate_frames, main


def decoded(frames):
    adapter = BinanceSpot()
    return [event for recv, frame in frames for event in adapter.decode(frame, recv)]


def check_books(events):
    """The published rules of the depth streams; returns the differences checked per symbol.

    After the snapshot's splice the ids are without gap, and after every difference the best bid
    and ask are those of the last bookTicker up to it.
    """
    quotes, last_seq, books, checked = {}, {}, {}, {}
    waiting: dict[str, list[BookUpdate]] = {}
    for event in events:
        if isinstance(event, Quote):
            quotes.setdefault(event.symbol, []).append(event)
        if not isinstance(event, BookUpdate):
            continue
        symbol = event.symbol
        if event.is_snapshot:
            books[symbol] = (dict(event.bids), dict(event.asks))
            last_seq[symbol] = event.seq
            pending = [u for u in waiting.pop(symbol, []) if u.seq > event.seq]
        elif symbol not in books:
            waiting.setdefault(symbol, []).append(event)
            continue
        else:
            pending = [event]
        for update in pending:
            if update.seq <= last_seq[symbol]:
                continue
            first = checked.get(symbol, 0) == 0
            expected = last_seq[symbol] + 1
            assert update.first_seq <= expected if first else update.first_seq == expected
            last_seq[symbol] = update.seq
            for side, levels in zip(books[symbol], (update.bids, update.asks), strict=True):
                side.update(levels)
                for price, size in levels:
                    if size == 0:
                        del side[price]
            bids, asks = books[symbol]
            bid, ask = max(bids), min(asks)
            quote = [q for q in quotes[symbol] if q.seq <= update.seq][-1]
            assert (bid, bids[bid], ask, asks[ask]) == (
                quote.bid,
                quote.bid_size,
                quote.ask,
                quote.ask_size,
            )
            assert bid < ask
            checked[symbol] = checked.get(symbol, 0) + 1
            quotes[symbol] = [q for q in quotes[symbol] if q.seq >= quote.seq]
    return checked


def test_shipped_recording_is_what_the_command_writes(tmp_path, capsys):
    path = tmp_path / "again.recv_ns.gz"
    main([str(path)])
    assert capsys.readouterr().out == f"{path}: {len(list(RawReader(path)))} frames\n"
    # The content, not the file: zlib may compress differently from one version to the next.
    assert gzip.decompress(path.read_bytes()) == gzip.decompress(BINANCE_DEMO.read_bytes())


def test_shipped_recording_is_small_and_has_every_kind_of_frame():
    events = decoded(RawReader(BINANCE_DEMO))
    assert BINANCE_DEMO.stat().st_size < 450_000
    assert 15_000 < len(events) < 25_000
    assert {type(event) for event in events} == {Ack, Trade, Quote, BookUpdate}
    assert sum(isinstance(e, BookUpdate) and e.is_snapshot for e in events) == 3
    assert 590e9 < events[-1].recv_ts - events[0].recv_ts < 600e9


def test_shipped_recording_has_trades_enough_for_a_calibrated_vpin():
    """Of each symbol: 1,000 that calibrate, and 50 buckets of 50 mean sizes."""
    trades = Counter(e.symbol for e in decoded(RawReader(BINANCE_DEMO)) if isinstance(e, Trade))
    assert set(trades) == set(PAIRS)
    assert min(trades.values()) > 4_000


def test_books_of_the_shipped_recording_agree_with_its_quotes():
    checked = check_books(decoded(RawReader(BINANCE_DEMO)))
    assert set(checked) == set(PAIRS)
    assert min(checked.values()) > 100


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_books_agree_with_quotes_in_a_busy_market(seed):
    checked = check_books(decoded(generate_frames(seconds=40, seed=seed, bursts_per_s=20)))
    assert min(checked.values()) > 50


def test_real_capture_passes_the_same_check(spot_capture):
    checked = check_books(decoded(RawReader(spot_capture)))
    assert checked["BTC/USDT"] > 3_400


def test_same_seed_same_frames_other_seed_other_frames():
    one, same, other = (list(generate_frames(seconds=30, seed=seed)) for seed in (5, 5, 6))
    assert one == same
    assert one != other


def test_length_is_given_in_seconds_or_frames():
    frames = list(generate_frames(frames=100))
    assert len(frames) == 100
    assert frames == list(generate_frames(seconds=600))[:100]
    last_recv_ns, _ = list(generate_frames(seconds=20))[-1]
    assert START_NS + 15e9 < last_recv_ns < START_NS + 20e9


def test_frames_arrive_in_order_after_their_event_times():
    events = decoded(generate_frames(seconds=60))
    stamps = [event.recv_ts for event in events]
    assert stamps == sorted(set(stamps))
    assert all(e.ts < e.recv_ts for e in events if isinstance(e, Trade))


def test_trade_ids_count_up_by_one_and_prices_lie_on_the_tick():
    events = decoded(generate_frames(seconds=120))
    for pair in PAIRS:
        asset = asset_of(pair)
        trades = [e for e in events if isinstance(e, Trade) and e.symbol == pair]
        ids = [t.trade_id for t in trades]
        assert len(ids) > 10
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert all(round(t.price * 1e8) % asset.tick == 0 for t in trades)
        assert all(round(t.size * 1e8) % asset.lot == 0 for t in trades)


def test_payloads_have_the_keys_of_the_real_streams():
    keys = {
        "trade": ["e", "E", "s", "t", "p", "q", "T", "m", "M"],
        "bookTicker": ["u", "s", "b", "B", "a", "A"],
        "depth@100ms": ["e", "E", "s", "U", "u", "b", "a"],
        "depth@snapshot": ["lastUpdateId", "bids", "asks"],
    }
    seen = {}
    for _, frame in generate_frames(seconds=30):
        message = json.loads(frame)
        if "stream" in message:
            seen[message["stream"].split("@", 1)[1]] = list(message["data"])
    assert seen == keys


def test_prices_of_different_pairs_move_together():
    events = decoded(generate_frames(seconds=600, seed=2))
    second = 10_000_000_000
    mids: dict[str, dict[int, float]] = {pair: {} for pair in PAIRS}
    for e in events:
        if isinstance(e, Quote):
            mids[e.symbol][e.recv_ts // second] = (e.bid + e.ask) / 2
    common = sorted(set.intersection(*(set(series) for series in mids.values())))
    btc, eth = ([mids[p][t] for t in common] for p in ("BTC/USDT", "ETH/USDT"))
    moves = [[b / a - 1 for a, b in pairwise(s)] for s in (btc, eth)]
    assert statistics.correlation(*moves) > 0.3


def test_unknown_pair_is_refused():
    with pytest.raises(CollectorError, match="no pair 'PEPE/USDT'; its base can be BTC, ETH"):
        next(generate_frames(["PEPE/USDT"]))
