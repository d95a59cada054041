"""SQLite: an event once, however often it is written; nothing flushed is lost."""

import random
import sqlite3
from contextlib import closing

import pyarrow as pa
import pytest
from crash import killed_after
from crash_scenarios import SCENARIOS
from rows import NOON, SECOND, built, every_channel, plain, quote, trade, trades

from collectors.adapter import Gap, Recovery
from collectors.errors import SinkError
from collectors.schema import SCHEMAS
from collectors.sinks import make_sink


def query(path, statement):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def write(path, *batches):
    sink = make_sink("sqlite", path)
    for channel, batch in batches:
        sink.write(channel, batch)
    sink.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.db"


@pytest.mark.parametrize("channel", ["trades", "ticker", "book", "funding"])
def test_rows_come_back_exactly(path, channel):
    batch = every_channel()[channel]
    write(path, (channel, batch))
    found = query(path, f"SELECT {', '.join(batch.schema.names)} FROM {channel}")
    assert sorted(map(repr, found)) == sorted(
        repr(tuple(int(v) if v is True or v is False else v for v in row.values()))
        for row in plain(batch)
    )


@pytest.mark.parametrize("channel", list(SCHEMAS))
def test_writing_again_changes_nothing(path, channel):
    batch = every_channel()[channel]
    write(path, (channel, batch))
    before = query(path, f"SELECT * FROM {channel}")
    write(path, (channel, batch))
    assert query(path, f"SELECT * FROM {channel}") == before


def test_later_row_of_an_event_replaces_the_earlier(path):
    changed = trade(3, recv_ns=NOON + 99 * SECOND)
    write(path, ("trades", trades(0, 5)), ("trades", built("trades", [changed])))
    rows = query(path, "SELECT trade_id, recv_ts FROM trades ORDER BY trade_id")
    assert len(rows) == 5
    assert rows[3] == (3, NOON + 99 * SECOND)


def test_same_number_at_another_exchange_or_symbol_is_another_event(path):
    write(
        path,
        ("trades", trades(0, 3)),
        ("trades", trades(0, 3, symbol="BTC/USD")),
        ("trades", built("trades", [trade(0)], exchange="kraken")),
    )
    assert query(path, "SELECT count(*) FROM trades") == [(7,)]


def test_rows_of_one_message_are_numbered_across_batches(path):
    rows = [quote(1, recv_ns=NOON), quote(2, recv_ns=NOON), quote(3, recv_ns=NOON + 1)]
    write(path, *(("ticker", built("ticker", [row])) for row in rows))
    found = query(path, "SELECT recv_ts, nth, seq FROM ticker ORDER BY recv_ts, nth")
    assert found == [(NOON, 0, 1), (NOON, 1, 2), (NOON + 1, 0, 3)]


def test_repaired_gap_is_one_row(path):
    gap = Gap(NOON, None, "BTC/USD", "book", None, None, NOON - 5, "checksum")
    other = Gap(NOON, None, "BTC/USD", "trades", 5, 6, NOON - 5, "trade id")
    later = Recovery(NOON + SECOND, gap)
    write(path, ("gaps", built("gaps", [gap, other])), ("gaps", built("gaps", [later])))
    columns = "channel, recv_ts, from_seq, recovered_ts"
    assert query(path, f"SELECT {columns} FROM gaps ORDER BY channel") == [
        ("book", NOON, None, NOON + SECOND),
        ("trades", NOON, 5, None),
    ]


def test_two_gaps_of_one_message_stay_two(path):
    gaps = [
        Gap(NOON, None, "BTC/USD", "trades", first, first, NOON - 5, "trade id") for first in (5, 8)
    ]
    write(path, ("gaps", built("gaps", gaps)))
    assert query(path, "SELECT from_seq FROM gaps ORDER BY 1") == [(5,), (8,)]


def test_readers_do_not_wait_for_the_writer(path):
    sink = make_sink("sqlite", path)
    sink.write("trades", trades(0, 10))
    sink.flush()
    sink.write("trades", trades(10, 20))
    assert query(path, "SELECT count(*) FROM trades") == [(10,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    sink.close()
    assert query(path, "SELECT count(*) FROM trades") == [(20,)]


def test_time_span_of_a_symbol_is_found_by_an_index(path):
    write(path)
    for channel in ("trades", "ticker", "book", "funding"):
        condition = "exchange = 'a' AND symbol = 'b' AND recv_ts BETWEEN 1 AND 2"
        plan = query(path, f"EXPLAIN QUERY PLAN SELECT * FROM {channel} WHERE {condition}")
        assert "SEARCH" in plan[0][3]
        assert "recv_ts>" in plan[0][3]


def test_killed_at_random_again_and_again(tmp_path):
    chance = random.Random(5)
    for _ in range(6):
        safe = killed_after(chance.randint(1, 60), "sqlite", tmp_path)
        rows = SCENARIOS["sqlite"].rows(tmp_path)
        assert rows == list(range(len(rows)))
        assert len(rows) >= safe


def test_file_that_is_no_database_is_named_and_kept(path):
    path.write_bytes(b"holiday pictures " * 100)
    with pytest.raises(SinkError, match=r"rows\.db: cannot be used as a SQLite database: .*not a"):
        make_sink("sqlite", path)
    assert path.read_bytes() == b"holiday pictures " * 100


def test_database_of_something_else_is_refused(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE trades (what TEXT)")
    with pytest.raises(SinkError, match=r"tables of another kind \(user_version 0, expected 1\)"):
        make_sink("sqlite", path)


def test_error_of_the_database_is_clear_and_lasting(path):
    sink = make_sink("sqlite", path)
    batch = trades(0, 1)
    index = batch.schema.get_field_index("trade_id")
    batch = batch.set_column(index, batch.schema.field(index), pa.nulls(1, pa.int64()))
    with pytest.raises(SinkError, match=r"rows\.db: cannot be written: NOT NULL constraint failed"):
        sink.write("trades", batch)
    with pytest.raises(SinkError, match="NOT NULL constraint failed"):
        sink.write("trades", trades(0, 1))
    with pytest.raises(SinkError, match="NOT NULL constraint failed"):
        sink.flush()
    with pytest.raises(SinkError, match="NOT NULL constraint failed"):
        sink.close()


def test_closed_sink_says_so(path):
    sink = make_sink("sqlite", path)
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="is closed"):
        sink.write("trades", trades(0, 1))
