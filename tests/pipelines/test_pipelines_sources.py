"""Files as streams of batches."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PipelineError
from pipelines.sources import CsvSource, ParquetSource, open_source, rechunk


def read(source: ParquetSource | CsvSource, batch_rows: int = 1000) -> pa.Table:
    return pa.Table.from_batches(list(source.batches(batch_rows)), schema=source.schema)


def test_a_parquet_file_streams_in_bounded_batches(ticker_file: Path, ticker: pa.Table) -> None:
    source = ParquetSource(ticker_file)
    assert source.rows == ticker.num_rows
    assert max(batch.num_rows for batch in source.batches(256)) <= 256
    assert read(source).equals(ticker)


def test_partition_folders_become_columns_in_path_order(tmp_path: Path) -> None:
    for day, value in (("2024-08-09", 2.0), ("2024-08-08", 1.0)):
        folder = tmp_path / "exchange=binance" / f"date={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"price": [value]}), folder / "part-0.parquet")
    table = read(ParquetSource(tmp_path))
    assert table.to_pydict() == {
        "price": [1.0, 2.0],
        "exchange": ["binance", "binance"],
        "date": ["2024-08-08", "2024-08-09"],
    }


def test_a_column_of_the_file_wins_over_the_folder_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "exchange=wrong"
    folder.mkdir()
    table = pa.table({"exchange": pa.array(["binance"]).dictionary_encode(), "price": [1.0]})
    pq.write_table(table, folder / "a.parquet")
    assert read(ParquetSource(tmp_path)).column("exchange").to_pylist() == ["binance"]


def test_a_folder_of_channels_means_its_ticker(tmp_path: Path) -> None:
    for channel, value in (("ticker", 1.0), ("trades", 2.0)):
        (tmp_path / channel).mkdir()
        pq.write_table(pa.table({"price": [value]}), tmp_path / channel / "a.parquet")
    source = ParquetSource(tmp_path)
    assert source.label == str(tmp_path / "ticker")
    assert read(source).column("price").to_pylist() == [1.0]


def test_temporary_files_of_other_writers_are_not_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"price": [1.0]}), tmp_path / "a.parquet")
    (tmp_path / ".b.parquet").write_bytes(b"half written")
    assert ParquetSource(tmp_path).rows == 1


def test_files_of_one_dataset_may_differ_in_encoding(tmp_path: Path) -> None:
    pq.write_table(pa.table({"symbol": ["a"], "price": [1.0]}), tmp_path / "1.parquet")
    other = pa.table({"symbol": pa.array(["b"]).dictionary_encode(), "price": [2]})
    pq.write_table(other, tmp_path / "2.parquet")
    assert read(ParquetSource(tmp_path)).to_pydict() == {"symbol": ["a", "b"], "price": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"price": [1.0]}, "no column 'size', which"),
        ({"price": ["x"], "size": [1.0]}, "column 'price' is string, in"),
        ({"price": [1.0], "size": [1.0], "more": [1]}, "column 'more' is missing in"),
    ],
)
def test_files_with_other_columns_are_refused(
    tmp_path: Path, second: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table({"price": [1.0], "size": [1.0]}), tmp_path / "1.parquet")
    pq.write_table(pa.table(second), tmp_path / "2.parquet")
    with pytest.raises(PipelineError, match=message):
        ParquetSource(tmp_path)


def test_missing_empty_and_corrupt_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"nowhere: no such file or folder"):
        ParquetSource(tmp_path / "nowhere")
    with pytest.raises(PipelineError, match=r"holds no \.parquet file"):
        ParquetSource(tmp_path)
    (tmp_path / "empty.parquet").touch()
    with pytest.raises(PipelineError, match=r"empty\.parquet: not a readable.*: the file is empty"):
        ParquetSource(tmp_path / "empty.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + b"\x00" * 64 + b"PAR1")
    with pytest.raises(PipelineError, match=r"bad\.parquet: not a readable Parquet file"):
        ParquetSource(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"price": pa.array([], pa.float64())}), tmp_path / "none.parquet")
    with pytest.raises(PipelineError, match=r"none\.parquet: the input holds no rows"):
        ParquetSource(tmp_path / "none.parquet")


def test_damage_inside_a_file_is_found_while_reading(ticker_file: Path) -> None:
    content = bytearray(ticker_file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    ticker_file.write_bytes(content)
    with pytest.raises(PipelineError, match=r"ticker\.parquet: the Parquet file is damaged"):
        read(ParquetSource(ticker_file))


def test_csv_numbers_stay_numbers_beyond_the_inferred_types(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("day,price,note,close\n2024-08-08,100,,7\n2024-08-09,100.5,late,7.5\n")
    source = CsvSource(path, numeric=["close"])
    assert source.schema.field("price").type == pa.float64()
    assert source.schema.field("close").type == pa.float64()
    assert read(source).column("note").to_pylist() == ["", "late"]


def test_csv_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(gzip.compress(b"price\n1\n2\n"))
    assert read(CsvSource(path)).column("price").to_pylist() == [1.0, 2.0]


def test_csv_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    with pytest.raises(PipelineError, match=r"bars\.csv: no such file"):
        CsvSource(path)
    path.write_text("")
    with pytest.raises(PipelineError, match=r"bars\.csv: the file is empty"):
        CsvSource(path)
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(PipelineError, match=r"bars\.csv: .*Expected 2 columns, got 1"):
        CsvSource(path)


def test_one_source_must_be_given() -> None:
    with pytest.raises(PipelineError, match="give either --parquet PATH or --csv PATH"):
        open_source()
    with pytest.raises(PipelineError, match="give either"):
        open_source(parquet="a", csv="b")


def test_rechunk_joins_small_batches_and_their_dictionaries() -> None:
    def batch(name: str) -> pa.RecordBatch:
        return pa.record_batch({"symbol": pa.array([name, name]).dictionary_encode()})

    joined = list(rechunk([batch("a"), batch("b"), batch("c")], 4))
    assert [part.num_rows for part in joined] == [4, 2]
    assert joined[0].column("symbol").to_pylist() == ["a", "a", "b", "b"]
