"""JSON lines: every row, exactly, in files that any tool can read."""

import json
import random

import polars as pl
import pyarrow as pa
import pytest
import zstandard
from crash import killed_after, killed_at_every_step
from crash_scenarios import SCENARIOS
from rows import every_channel, plain, trades

from collectors.schema import SCHEMAS
from collectors.sinks import make_sink


def content(path):
    data = path.read_bytes()
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        data = reader.read()
    return data


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.zst"])
def test_every_channel_comes_back_exactly(tmp_path, name):
    sink = make_sink("jsonl", tmp_path / name)
    for channel, batch in every_channel().items():
        sink.write(channel, batch)
        sink.flush()
    sink.close()
    rows = [json.loads(line) for line in content(tmp_path / name).splitlines()]
    for channel, batch in every_channel().items():
        mine = [row for row in rows if row["dataset"] == channel]
        assert [list(row) for row in mine] == [["dataset", *SCHEMAS[channel].names]] * len(mine)
        assert [{k: row[k] for k in row if k != "dataset"} for row in mine] == plain(batch)


def test_prices_keep_every_bit(tmp_path):
    prices = [0.1, 1e-9, 123456789.12345679, 1e22, 5e-324, 1.7976931348623157e308]
    batch = trades(0, len(prices))
    index = batch.schema.get_field_index("price")
    batch = batch.set_column(index, batch.schema.field(index), pa.array(prices))
    sink = make_sink("jsonl", tmp_path / "rows.jsonl")
    sink.write("trades", batch)
    sink.close()
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["price"] for line in lines] == prices


def test_other_tools_read_a_part(tmp_path):
    sink = make_sink("jsonl", tmp_path / "rows.jsonl", rotate_bytes=1000)
    for first in range(0, 100, 10):
        sink.write("trades", trades(first, first + 10))
        sink.flush()
    sink.close()
    assert len(sink.files) > 2
    frames = [pl.read_ndjson(path) for path in sink.files]
    assert pl.concat(frames)["trade_id"].to_list() == list(range(100))


def test_line_that_a_crash_cut_off_is_removed(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"trade_id":0}\n{"trade_id"')
    sink = make_sink("jsonl", path)
    sink.write("trades", trades(1, 2))
    sink.close()
    assert [json.loads(line)["trade_id"] for line in path.read_text().splitlines()] == [0, 1]


def test_killed_at_any_step_every_flushed_row_is_there_once(tmp_path):
    for found in killed_at_every_step("jsonl", tmp_path):
        assert found["rows"] == list(range(len(found["rows"])))
        assert len(found["rows"]) >= found["acked"]


def test_killed_at_random_again_and_again(tmp_path):
    chance = random.Random(3)
    for _ in range(4):
        safe = killed_after(chance.randint(1, 40), "jsonl", tmp_path)
        rows = SCENARIOS["jsonl"].rows(tmp_path)
        assert rows == list(range(len(rows)))
        assert len(rows) >= safe
