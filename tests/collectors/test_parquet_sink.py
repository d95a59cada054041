"""The Parquet dataset: finished files only, no row twice, the same bytes again."""

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from collectors.adapter import Trade
from collectors.errors import SinkError
from collectors.sinks.parquet import ParquetSink
from collectors.tick_builders import TradesBuilder

NOON = 1_767_614_400_000_000_000
HOUR = 3_600_000_000_000


def batch(recv_times, symbol="BTC/USDT"):
    builder = TradesBuilder("binance")
    for i, recv in enumerate(recv_times):
        builder.handlers[Trade](Trade(recv, recv, symbol, i, i, 100.0 + i % 7, 1.0, 1))
    return builder.take()


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def write(root, batches, run="run", channels=("trades",), **options):
    with ParquetSink(root, "binance", channels, **options).run(run) as out:
        for one in batches:
            out.write("trades", one)
    return out.files


def test_rows_lie_by_channel_exchange_and_utc_date_of_receipt(tmp_path):
    times = [NOON, NOON + 11 * HOUR, NOON + 12 * HOUR - 1, NOON + 12 * HOUR, NOON + 20 * HOUR]
    write(tmp_path, [batch(times)])
    assert sorted(files(tmp_path)) == [
        "trades/exchange=binance/date=2026-01-05/run-0000.parquet",
        "trades/exchange=binance/date=2026-01-06/run-0001.parquet",
    ]
    rows = pl.read_parquet(tmp_path / "trades").sort("recv_ts")
    assert rows["recv_ts"].dt.epoch("ns").to_list() == times
    assert rows["date"].to_list() == rows["recv_ts"].dt.date().to_list()


def test_every_reader_gives_the_exchange_back(tmp_path):
    write(tmp_path, [batch([NOON])])
    root = tmp_path / "trades"
    assert pl.read_parquet(root)["exchange"].to_list() == ["binance"]
    assert pq.read_table(root)["exchange"].to_pylist() == ["binance"]
    assert ds.dataset(root, partitioning="hive").to_table()["exchange"].to_pylist() == ["binance"]


def test_bytes_do_not_depend_on_the_cut_into_batches(tmp_path):
    times = [NOON + i for i in range(1000)]
    symbols = ["BTC/USDT", "ETH/USDT"]
    whole = pa.concat_tables(
        pa.table(batch(times[start : start + 100], symbols[start // 100 % 2]))
        for start in range(0, 1000, 100)
    )
    for name, size in (("a", 1000), ("b", 1), ("c", 77)):
        cut = whole.combine_chunks().to_batches(max_chunksize=size)
        write(tmp_path / name, cut, row_group_rows=128)
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_row_groups_and_files_are_cut_by_rows(tmp_path):
    written = write(tmp_path, [batch(range(NOON, NOON + 1000))], row_group_rows=100, file_rows=300)
    groups = [
        [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        for metadata in map(pq.read_metadata, written)
    ]
    assert groups == [[100, 100, 100]] * 3 + [[100]]


def test_run_again_changes_nothing(tmp_path):
    write(tmp_path, [batch(range(NOON, NOON + 50))])
    before = files(tmp_path)
    write(tmp_path, [batch(range(NOON, NOON + 50))])
    assert files(tmp_path) == before


def test_run_again_with_fewer_files_removes_the_rest(tmp_path):
    write(tmp_path, [batch(range(NOON, NOON + 50))], row_group_rows=10, file_rows=10)
    write(tmp_path, [batch(range(NOON, NOON + 50))])
    assert len(files(tmp_path)) == 1
    assert pl.read_parquet(tmp_path / "trades").height == 50


def test_runs_do_not_touch_each_other(tmp_path):
    write(tmp_path, [batch([NOON])], run="1-a")
    write(tmp_path, [batch([NOON + 1])], run="2-b")
    write(tmp_path, [batch([NOON])], run="1-a")
    assert pl.read_parquet(tmp_path / "trades").height == 2


def test_channels_that_a_run_does_not_own_stay(tmp_path):
    write(tmp_path, [batch([NOON])], channels=("trades", "book"))
    before = files(tmp_path)
    write(tmp_path, [], channels=("book",))
    assert files(tmp_path) == before


def test_failed_run_leaves_the_dataset_as_it_was(tmp_path):
    write(tmp_path, [batch([NOON])])
    before = files(tmp_path)

    def failing():
        yield batch(range(NOON, NOON + 500))
        raise RuntimeError("damaged input")

    with pytest.raises(RuntimeError, match="damaged input"):
        write(tmp_path, failing(), row_group_rows=100)
    assert files(tmp_path) == before
    assert not list(tmp_path.glob(".staging*"))


def test_nothing_is_visible_before_the_run_is_complete(tmp_path):
    with ParquetSink(tmp_path, "binance", ["trades"], row_group_rows=10).run("run") as out:
        out.write("trades", batch(range(NOON, NOON + 100)))
        assert not (tmp_path / "trades").exists()
    assert pl.read_parquet(tmp_path / "trades").height == 100


def test_leftovers_of_a_killed_run_are_cleared(tmp_path):
    left = tmp_path / ".staging-run" / "trades" / "exchange=binance" / "date=2026-01-05"
    left.mkdir(parents=True)
    (left / "run-0007.parquet").write_bytes(b"PAR1 unfinished")
    write(tmp_path, [batch([NOON])])
    assert sorted(files(tmp_path)) == ["trades/exchange=binance/date=2026-01-05/run-0000.parquet"]


def test_output_that_cannot_be_a_directory_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text("in the way")
    with pytest.raises(SinkError, match=r"file: cannot write there: .*choose another directory"):
        write(path, [batch([NOON])])
    assert path.read_text() == "in the way"
