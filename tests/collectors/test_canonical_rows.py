"""Events -> canonical rows."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from collectors.adapter import BookUpdate, Funding, Gap, Quote, Recovery, Trade
from collectors.builders import BUILDERS
from collectors.levels import LevelRows
from collectors.schema import SCHEMAS

BTC, ETH = "BTC/USDT", "ETH/USDT"


def build(channel, events):
    (batch,) = build_in_parts(channel, [events])
    return batch


def build_in_parts(channel, parts):
    builder = BUILDERS[channel]("binance")
    batches = []
    for part in parts:
        for event in part:
            if type(event) in builder.handlers:
                builder.handlers[type(event)](event)
        batches.append(builder.take())
    return batches


def trade(recv, symbol, number, side=1):
    return Trade(recv, recv - 5, symbol, number, number, 100.0 + number, 2.0, side)


def quote(recv, symbol, seq, bid, ask):
    return Quote(recv, None, symbol, seq, bid, ask, 1.0, None if ask is None else 3.0)


@pytest.mark.parametrize("channel", SCHEMAS)
def test_every_channel_starts_with_the_same_columns(channel):
    assert [(f.name, str(f.type)) for f in SCHEMAS[channel]][:5] == [
        ("ts", "timestamp[ns, tz=UTC]"),
        ("recv_ts", "timestamp[ns, tz=UTC]"),
        ("exchange", "dictionary<values=string, indices=int32, ordered=0>"),
        ("symbol", "dictionary<values=string, indices=int32, ordered=0>"),
        ("seq", "int64"),
    ]


@pytest.mark.parametrize("channel", BUILDERS)
def test_batches_have_the_channels_schema_even_when_empty(channel):
    events = [
        quote(10, BTC, 1, 99.0, 101.0),
        trade(11, BTC, 1),
        BookUpdate(12, 7, BTC, 9, 8, False, [(99.0, 1.0)], []),
        Funding(13, 8, BTC, None, 100.0, 100.1, 1e-4, 20),
        Gap(14, 9, BTC, "trades", 2, 3, 11, "trade_id"),
    ]
    builder = BUILDERS[channel]("binance")
    assert builder.take().schema == SCHEMAS[channel]
    batch = build(channel, events)
    assert batch.schema == SCHEMAS[channel]
    assert batch.num_rows > 0
    batch.validate(full=True)


def test_trades_row():
    (row,) = build("trades", [trade(11, BTC, 4, side=-1)]).to_pylist()
    assert row.pop("ts").value == 6
    assert row.pop("recv_ts").value == 11
    assert row == {
        "exchange": "binance",
        "symbol": BTC,
        "seq": 4,
        "trade_id": 4,
        "price": 104.0,
        "size": 2.0,
        "side": -1,
    }


def test_ticker_carries_the_prevailing_quote_of_the_symbol_on_every_row():
    batch = build(
        "ticker",
        [
            trade(10, BTC, 1),
            quote(11, BTC, 7, 99.0, 101.0),
            trade(12, ETH, 2),
            trade(13, BTC, 3, side=-1),
            quote(14, BTC, 8, 100.0, None),
            trade(15, BTC, 4),
        ],
    )
    columns = batch.to_pydict()
    assert columns["symbol"] == [BTC, BTC, ETH, BTC, BTC, BTC]
    assert columns["bid"] == [None, 99.0, None, 99.0, 100.0, 100.0]
    assert columns["ask"] == [None, 101.0, None, 101.0, None, None]
    assert columns["ask_size"] == [None, 3.0, None, 3.0, None, None]
    assert columns["price"] == [101.0, None, 102.0, 103.0, None, 104.0]
    assert columns["side"] == [1, None, 1, -1, None, 1]
    assert columns["seq"] == [1, 7, 2, 3, 8, 4]
    assert columns["volume_24h"] == [None] * 6
    assert [t is None for t in columns["ts"]] == [False, True, False, False, True, False]


def test_quotes_in_force_and_symbols_survive_the_cut_between_batches():
    events = [quote(11, BTC, 7, 99.0, 101.0), trade(12, ETH, 2), trade(13, BTC, 3)]
    whole = build("ticker", events)
    parts = build_in_parts("ticker", [[event] for event in events])
    assert [part.num_rows for part in parts] == [1, 1, 1]
    assert pa.Table.from_batches(parts).to_pylist() == whole.to_pylist()


def test_book_has_one_row_per_level_bids_first():
    update = BookUpdate(12, 7, BTC, 9, 8, False, [(99.0, 1.0), (98.0, 0.0)], [(101.0, 2.0)])
    snapshot = BookUpdate(13, None, BTC, 10, None, True, [(99.0, 4.0)], [])
    columns = build("book", [update, snapshot]).to_pydict()
    assert columns["side"] == [1, 1, -1, 1]
    assert columns["price"] == [99.0, 98.0, 101.0, 99.0]
    assert columns["size"] == [1.0, 0.0, 2.0, 4.0]
    assert columns["seq"] == [9, 9, 9, 10]
    assert columns["first_seq"] == [8, 8, 8, None]
    assert columns["is_snapshot"] == [False, False, False, True]


def test_levels_in_arrays_make_the_same_rows():
    block = np.array([(99.0, 1.0), (98.0, 0.0), (101.0, 2.0)])
    bids, asks = LevelRows(block, 0, 2), LevelRows(block, 2, 3)
    events = [
        BookUpdate(12, 7, BTC, 9, 8, False, [(99.0, 1.0)], []),
        BookUpdate(13, None, ETH, 10, 9, False, [], []),
        BookUpdate(14, 7, ETH, 11, 10, False, bids, asks),
        BookUpdate(15, 7, BTC, 12, None, True, [(95.0, 1.0)], [(96.0, 1.0)]),
        BookUpdate(16, 7, BTC, 13, 13, False, LevelRows(block, 0, 0), asks),
    ]
    listed = [msgspec.structs.replace(e, bids=list(e.bids), asks=list(e.asks)) for e in events]
    assert build("book", events).equals(build("book", listed))


def test_updates_without_levels_do_not_pile_up():
    builder = BUILDERS["book"]("binance")
    builder.handlers[BookUpdate](BookUpdate(13, None, ETH, 10, 9, False, [], []))
    assert (len(builder), builder._told, builder._levels) == (0, [], [])


def test_volume_of_the_day_is_carried_like_the_quote_it_came_with():
    events = [Quote(11, None, BTC, 7, 99.0, 101.0, 1.0, 1.0, 5e4), trade(12, BTC, 1)]
    assert build("ticker", events).to_pydict()["volume_24h"] == [5e4, 5e4]


def test_funding_row_holds_what_the_message_told():
    columns = build(
        "funding",
        [
            Funding(13, 8, BTC, None, 100.0, 100.1, -1e-4, 20),
            Funding(14, 9, BTC, None, open_interest=3.5),
        ],
    ).to_pydict()
    assert columns["funding_rate"] == [-1e-4, None]
    assert [t and t.value for t in columns["next_funding_ts"]] == [20, None]
    assert columns["open_interest"] == [None, 3.5]


def test_gap_is_told_when_found_and_again_when_repaired():
    gap = Gap(14, 9, BTC, "book", 2, 3, 11, "sequence")
    columns = build("gaps", [gap, Recovery(20, gap)]).to_pydict()
    for name, value in {
        "channel": "book",
        "from_seq": 2,
        "to_seq": 3,
        "reason": "sequence",
    }.items():
        assert columns[name] == [value, value]
    times = {name: [t and t.value for t in columns[name]] for name in columns if name[-3:] == "_ts"}
    assert times == {
        "recv_ts": [14, 20],
        "start_ts": [11, 11],
        "end_ts": [14, 14],
        "recovered_ts": [None, 20],
    }
