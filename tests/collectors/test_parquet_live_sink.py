"""The live Parquet dataset: every flushed row once, whatever happens; few files, whole files."""

import os
import random
import threading

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash import killed_after, killed_at_every_step
from crash_scenarios import SCENARIOS
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import HOUR, NOON, built, every_channel, trade, trades

from collectors.errors import SinkError
from collectors.schema import SCHEMAS
from collectors.sinks import make_sink
from collectors.sinks.parquet import ParquetSink
from collectors.sinks.parquet_file import file_schema
from collectors.sinks.parquet_journal import Journal, read_journal


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def files(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def ids(root):
    return pl.read_parquet(root / "trades", hive_partitioning=True)["trade_id"].to_list()


def crash(sink):
    """What the kernel does when the process dies: its lock is gone, its files stay."""
    for file in sink._open.values():
        file.abandon()
    sink._lock.release()


def test_closed_sink_leaves_rows_of_every_channel_and_nothing_else(tmp_path):
    sink = make_sink("parquet", tmp_path)
    for channel, batch in every_channel().items():
        sink.write(channel, batch)
    sink.close()
    for channel, batch in every_channel().items():
        table = pl.read_parquet(tmp_path / channel).select(SCHEMAS[channel].names)
        expected = pl.from_arrow(pa.table(batch))
        assert table.cast(expected.schema).equals(expected)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".parquet"}
    assert not list(tmp_path.glob(".*"))


def test_rows_lie_by_exchange_and_utc_date_of_receipt(tmp_path):
    sink = make_sink("parquet", tmp_path)
    midnight = NOON + 12 * HOUR
    late = [trade(i, recv_ns=midnight + at) for i, at in enumerate([-2, -1, 0, -1, 5])]
    sink.write("trades", built("trades", late))
    sink.write("trades", built("trades", late[:2], exchange="kraken"))
    sink.close()
    rows = pl.read_parquet(tmp_path / "trades").group_by("exchange", "date").len()
    assert {(e, str(d)): n for e, d, n in rows.iter_rows()} == {
        ("binance", "2026-01-05"): 3,
        ("binance", "2026-01-06"): 2,
        ("kraken", "2026-01-05"): 2,
    }


def test_batch_of_two_exchanges_is_taken_apart(tmp_path):
    both = pa.concat_tables(
        pa.table(built("trades", [trade(i)], exchange=name))
        for i, name in enumerate(["binance", "kraken", "binance"])
    )
    sink = make_sink("parquet", tmp_path)
    sink.write("trades", both.unify_dictionaries().combine_chunks().to_batches()[0])
    sink.close()
    rows = pl.read_parquet(tmp_path / "trades").select("exchange", "trade_id").rows()
    assert sorted(rows) == [("binance", 0), ("binance", 2), ("kraken", 1)]


def test_file_is_published_when_its_time_has_come(tmp_path):
    clock = Clock()
    sink = make_sink("parquet", tmp_path, rotate_s=60, clock=clock)
    sink.write("trades", trades(0, 5))
    clock.now = 59.9
    sink.flush()
    assert not (tmp_path / "trades").exists()
    clock.now = 60.0
    sink.flush()
    assert ids(tmp_path) == list(range(5))
    sink.close()


def test_file_is_published_at_its_rows_without_waiting(tmp_path):
    sink = make_sink("parquet", tmp_path, file_rows=100, row_group_rows=40, compact_files=0)
    sink.write("trades", trades(0, 250))
    assert [pq.read_metadata(path).num_rows for path in sink.files] == [100, 100]
    sink.close()
    assert [pq.read_metadata(path).num_rows for path in sink.files] == [100, 100, 50]
    groups = pq.read_metadata(sink.files[0])
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [40, 40, 20]


def test_file_is_published_at_its_size(tmp_path):
    sink = make_sink("parquet", tmp_path, file_bytes=3000, row_group_rows=50, compact_files=0)
    for first in range(0, 500, 50):
        sink.write("trades", trades(first, first + 50))
    sizes = [path.stat().st_size for path in sink.files]
    assert len(sizes) >= 2
    assert all(size >= 3000 for size in sizes)
    sink.close()
    assert sorted(ids(tmp_path)) == list(range(500))


def test_small_files_are_merged_in_the_order_of_their_rows(tmp_path):
    for first in range(0, 700, 10):  # seventy restarts
        sink = make_sink("parquet", tmp_path, compact_files=8, retired_s=0)
        sink.write("trades", trades(first, first + 10))
        sink.close()
        assert len(files(tmp_path)) <= 8
    whole = [path for path in tmp_path.rglob("*.parquet") if pq.read_metadata(path).num_rows > 500]
    merged = pq.read_table(whole[0], partitioning=None)["trade_id"].to_pylist()
    assert merged == list(range(len(merged)))
    assert sorted(ids(tmp_path)) == list(range(700))


def test_large_files_are_left_alone(tmp_path):
    clock = Clock()
    options = {"rotate_s": 1, "compact_files": 2, "small_bytes": 1, "clock": clock}
    sink = make_sink("parquet", tmp_path, **options)
    for first in range(5):
        sink.write("trades", trades(first, first + 1))
        clock.now += 1
        sink.flush()
    sink.close()
    assert len(files(tmp_path)) == 5


def test_files_of_replays_are_left_alone(tmp_path):
    with ParquetSink(tmp_path, "binance", ["trades"]).run("1700-abcd1234") as run:
        run.write("trades", trades(0, 10))
    for first in (10, 20, 30):
        sink = make_sink("parquet", tmp_path, compact_files=2, retired_s=0)
        sink.write("trades", trades(first, first + 10))
        sink.close()
    names = [name.rpartition("/")[2] for name in files(tmp_path)]
    assert "1700-abcd1234-0000.parquet" in names
    assert len(names) == 2
    assert sorted(ids(tmp_path)) == list(range(40))


def test_reader_never_sees_a_merge_half_done(tmp_path):
    """Lists the partition as fast as it can while every other publication merges.

    However long the machine lets a listing wait, by the sink's clock it takes no time.
    """
    where = tmp_path / "trades" / "exchange=binance" / "date=2026-01-05"
    where.mkdir(parents=True)
    seen, done = [()], threading.Event()

    def watch():
        while not done.is_set():
            names = tuple(sorted(path.name for path in where.iterdir()))
            if names != seen[-1]:
                seen.append(names)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rows, clock = {}, Clock()
    options = {"rotate_s": 0, "compact_files": 3, "clock": clock, "sleep": clock.sleep}
    sink = make_sink("parquet", tmp_path, **options)
    for first in range(40):
        sink.write("trades", trades(first, first + 1))
        sink.flush()
        rows |= {path.name: pq.read_metadata(path).num_rows for path in where.iterdir()}
    done.set()
    watcher.join()
    sink.close()
    # A file that was merged the moment it was published is not in `rows`: it had one.
    counts = [sum(rows.get(name, 1) for name in names) for names in seen]
    assert counts == sorted(counts)
    assert counts[-1] <= 40
    assert sorted(ids(tmp_path)) == list(range(40))


def test_listing_that_a_merge_overtakes_finds_every_row(tmp_path):
    clock, waits = Clock(), []

    def wait(seconds):
        waits.append(seconds)
        clock.sleep(seconds)

    options = {"rotate_s": 0, "compact_files": 3, "retired_s": 2.0, "clock": clock, "sleep": wait}
    sink = make_sink("parquet", tmp_path, **options)

    def publish(first):
        sink.write("trades", trades(first, first + 1))
        sink.flush()

    def retired():
        return len(list(tmp_path.glob(".live-*/compact/*")))

    publish(0)
    publish(1)
    with os.scandir(sink.files[0].parent) as listing:  # opened now, read when two merges are done
        for first in range(2, 6):
            publish(first)
        assert retired() == 2
        # What was published until the first merge took the directory away.
        assert {entry.name for entry in listing} == {path.name for path in sink.files[:3]}
    assert len(files(tmp_path / "trades")) == 2
    clock.now += 1.5
    publish(6)
    assert retired() == 3
    clock.now += 0.5
    publish(7)
    assert retired() == 1
    clock.now += 0.5
    sink.close()
    assert waits == [1.0]
    assert not list(tmp_path.glob(".*"))
    assert ids(tmp_path) == list(range(8))


def test_next_sink_publishes_what_a_dead_process_had_flushed(tmp_path):
    dead = make_sink("parquet", tmp_path)
    dead.write("trades", trades(0, 30))
    dead.flush()
    dead.write("trades", trades(30, 40))
    crash(dead)
    assert not (tmp_path / "trades").exists()
    sink = make_sink("parquet", tmp_path)
    assert sink.recovered_rows == 30
    assert ids(tmp_path) == list(range(30))
    sink.close()


def test_living_process_is_not_taken_for_dead(tmp_path):
    one = make_sink("parquet", tmp_path)
    one.write("trades", trades(0, 10))
    one.flush()
    other = make_sink("parquet", tmp_path)
    assert other.recovered_rows == 0
    other.write("trades", trades(10, 20))
    other.close()
    one.write("trades", trades(20, 30))
    one.close()
    assert sorted(ids(tmp_path)) == list(range(30))


@settings(max_examples=60)
@given(cut=st.floats(0, 1))
def test_journal_cut_anywhere_keeps_whole_batches(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "one.journal"
    journal = Journal(path, file_schema("trades"))
    ends = [path.stat().st_size]
    for first in (0, 10, 20):
        batch = trades(first, first + 10, symbol=f"S{first}/USD")
        journal.append([batch.select(file_schema("trades").names)])
        ends.append(path.stat().st_size)
    journal.close()
    data = path.read_bytes()
    kept = int(cut * len(data))
    path.write_bytes(data[:kept])
    whole = sum(end <= kept for end in ends[1:])
    rows = [row for batch in read_journal(path) for row in batch.to_pylist()]
    assert [row["trade_id"] for row in rows] == list(range(10 * whole))
    assert [row["symbol"] for row in rows] == [f"S{i // 10 * 10}/USD" for i in range(10 * whole)]


def test_killed_at_any_step_nothing_flushed_is_lost_and_no_row_is_double(tmp_path):
    crashes = killed_at_every_step("parquet", tmp_path)
    assert len(crashes) > 50
    for found in crashes:
        rows = found["rows"]
        assert sorted(rows) == list(range(len(rows)))
        assert len(rows) >= found["acked"]
        assert len(set(found["visible"])) == len(found["visible"])
        assert set(found["visible"]) <= set(rows)


def test_recovery_killed_at_any_step_is_recovered_in_turn(tmp_path):
    crashes = killed_at_every_step("parquet recovery", tmp_path)
    assert len(crashes) > 30
    for found in crashes:
        assert sorted(found["rows"]) == list(range(160))
        assert len(set(found["visible"])) == len(found["visible"])


def test_killed_at_random_again_and_again(tmp_path):
    chance = random.Random(7)
    safe = 0
    for _ in range(6):
        safe = killed_after(chance.randint(1, 25), "parquet", tmp_path)
        rows = SCENARIOS["parquet"].rows(tmp_path)
        assert sorted(rows) == list(range(len(rows)))
        assert len(rows) >= safe
    assert len(files(tmp_path)) < 30


def test_output_that_cannot_be_a_directory_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text("in the way")
    with pytest.raises(SinkError, match=r"file: cannot write there: .*choose another directory"):
        make_sink("parquet", path)


def test_full_disk_is_a_clear_and_lasting_error(tmp_path, monkeypatch):
    sink = make_sink("parquet", tmp_path)
    sink.write("trades", trades(0, 10))
    sink.flush()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("collectors.sinks.parquet_journal.os.fsync", full)
    sink.write("trades", trades(10, 20))
    for call in (sink.flush, sink.flush, sink.close):
        with pytest.raises(SinkError, match=r"No space left on device; what was flushed is safe"):
            call()
    monkeypatch.undo()
    make_sink("parquet", tmp_path).close()
    assert ids(tmp_path)[:10] == list(range(10))


def test_last_trades_are_found_though_row_groups_know_different_symbols(tmp_path):
    sink = make_sink("parquet", tmp_path, row_group_rows=10)
    sink.write("trades", trades(0, 10, symbol="BTC/USDT"))
    sink.write("trades", trades(5, 15, symbol="ETH/USDT"))
    sink.close()
    again = make_sink("parquet", tmp_path)
    last = again.last_trades("binance")
    again.close()
    assert {symbol: number for symbol, (number, _) in last.items()} == {
        "BTC/USDT": 9,
        "ETH/USDT": 14,
    }


def test_rows_do_not_wait_for_the_row_group_before_them_and_are_safe_meanwhile(tmp_path):
    sink = make_sink("parquet", tmp_path, row_group_rows=100)
    busy, go_on = threading.Event(), threading.Event()
    sink._encoder.submit(lambda: (busy.set(), go_on.wait(120)))
    assert busy.wait(60)
    sink.write("trades", trades(0, 150))
    sink.write("trades", trades(150, 170))
    sink.flush()
    (journal,) = tmp_path.rglob("*.journal")
    assert sum(batch.num_rows for batch in read_journal(journal)) == 170
    go_on.set()
    sink.write("trades", trades(170, 500))
    sink.close()
    assert ids(tmp_path) == list(range(500))
    (file,) = tmp_path.rglob("*.parquet")
    groups = pq.read_metadata(file)
    sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert sizes == [100, 100, 100, 100, 100]


def test_row_group_that_cannot_be_written_is_a_lasting_error(tmp_path, monkeypatch):
    sink = make_sink("parquet", tmp_path, row_group_rows=100)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    go_on = threading.Event()
    sink._encoder.submit(go_on.wait, 30)
    sink.write("trades", trades(0, 150))
    sink.flush()
    go_on.set()
    sink._encoder.submit(int).result()  # what was given to the thread before is done
    for call in (sink.flush, sink.flush, sink.close):
        with pytest.raises(SinkError, match=r"No space left on device; what was flushed is safe"):
            call()
    monkeypatch.undo()
    make_sink("parquet", tmp_path).close()
    assert ids(tmp_path) == list(range(150))


def test_file_system_that_cannot_swap_directories_is_named_at_the_start(tmp_path, monkeypatch):
    def refuse(one, other):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("collectors.sinks.parquet_live.exchange", refuse)
    with pytest.raises(SinkError, match=r"cannot exchange directories; .* compact_files=0"):
        make_sink("parquet", tmp_path / "a")
    make_sink("parquet", tmp_path / "b", compact_files=0).close()


def test_closed_sink_says_so(tmp_path):
    sink = make_sink("parquet", tmp_path)
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="is closed"):
        sink.write("trades", trades(0, 1))


def test_unknown_sink_is_named():
    with pytest.raises(SinkError, match=r"sink 'parket' is unknown; choose from parquet"):
        make_sink("parket")
