"""Files appear complete under their names, or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import PipelineError
from pipelines.sinks import ParquetSink, StagedFile

BATCH = pa.record_batch({"symbol": ["a", "b"], "price": [1.0, None]})


def test_batches_become_row_groups_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with ParquetSink(path) as sink:
        sink.write(BATCH)
        sink.write(BATCH)
        assert not path.exists()
        sink.publish()
    assert pq.ParquetFile(path).num_row_groups == 2
    assert pq.read_table(path).num_rows == 4
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with ParquetSink(tmp_path / "out.parquet") as sink:
            sink.write(BATCH)
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("older")
    with ParquetSink(path) as sink:
        sink.write(BATCH)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_are_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"is a folder; give the name of a file"):
        StagedFile(tmp_path)
    with pytest.raises(PipelineError, match=r"out\.parquet: cannot be written: no folder"):
        StagedFile(tmp_path / "nowhere" / "out.parquet")
    with pytest.raises(PipelineError, match=r"cannot be written: File name too long"):
        StagedFile(tmp_path / ("x" * 300))


def test_a_disk_that_fills_up_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)

    def write() -> None:
        with ParquetSink(tmp_path / "out.parquet") as sink:
            sink.write(BATCH)
            sink.publish()

    with pytest.raises(PipelineError, match=r"out\.parquet: cannot be written: No space left"):
        write()
    assert list(tmp_path.iterdir()) == []
