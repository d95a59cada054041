"""All sinks at once behind their queues, fed by a recording: each has every row, none twice."""

import json
import random
import sqlite3
from contextlib import closing

import polars as pl
import pyarrow as pa
import pytest
from crash import killed_after
from crash_scenarios import SCENARIOS
from rows import plain
from topics import read_topic

from collectors.builders import BUILDERS
from collectors.exchanges import make_adapter
from collectors.integrity import Integrity
from collectors.metrics import Metrics
from collectors.queue_group import SinkGroup
from collectors.queues import SinkQueue
from collectors.raw import RawReader
from collectors.recordings import BINANCE_DEMO
from collectors.sinks import make_sink

FRAMES = 3000
FRAMES_PER_BATCH = 100


@pytest.fixture(scope="module")
def batches():
    """The recording as a feed would give it: small batches of all channels."""
    adapter, integrity = make_adapter("binance", None), Integrity()
    builders = {channel: BUILDERS[channel]("binance") for channel in (*adapter.channels, "gaps")}
    made = []
    for number, (recv_ns, frame) in enumerate(RawReader(BINANCE_DEMO), 1):
        for event in integrity.check(adapter.decode(frame, recv_ns)):
            for builder in builders.values():
                if handler := builder.handlers.get(type(event)):
                    handler(event)
        if number % FRAMES_PER_BATCH == 0:
            made += [(name, b.take()) for name, b in builders.items() if len(b)]
        if number == FRAMES:
            return made
    raise AssertionError(f"the recording has less than {FRAMES} frames")


@pytest.fixture(scope="module")
def expected(batches):
    rows = {}
    for channel, batch in batches:
        rows.setdefault(channel, []).extend(plain(batch))
    return rows


@pytest.fixture(scope="module")
def written(batches, kafka, tmp_path_factory):
    """The batches through four sinks and their queues."""
    root = tmp_path_factory.mktemp("together")
    sinks = [
        make_sink("parquet", root / "parquet", row_group_rows=1000),
        make_sink("sqlite", root / "rows.db"),
        make_sink("jsonl", root / "rows.jsonl"),
        make_sink("kafka", kafka),
    ]
    group = SinkGroup(SinkQueue(sink) for sink in sinks)
    metrics = Metrics()
    for channel, batch in batches:
        metrics.observe(channel, batch)
        group.write(channel, batch)
    group.close(300)
    return root, group, metrics


def test_parquet_has_the_rows(written, expected):
    for channel, rows in expected.items():
        frame = pl.read_parquet(written[0] / "parquet" / channel).select(list(rows[0]))
        times = [name for name, kind in frame.schema.items() if kind.is_temporal()]
        frame = frame.with_columns(pl.col(times).dt.epoch("ns"), pl.col(pl.Categorical).cast(str))
        assert frame.to_dicts() == rows


def test_sqlite_has_the_rows(written, expected):
    with closing(sqlite3.connect(written[0] / "rows.db")) as connection:
        for channel, rows in expected.items():
            names = ", ".join(rows[0])
            found = connection.execute(f"SELECT {names} FROM {channel}").fetchall()
            # repr tells nulls, and sorts them
            assert sorted(map(repr, found)) == sorted(
                repr(tuple(int(v) if isinstance(v, bool) else v for v in row.values()))
                for row in rows
            )


def test_json_lines_have_the_rows_in_the_order_of_arrival(written, expected):
    found = {}
    for line in (written[0] / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row.pop("dataset"), []).append(row)
    assert found == expected


def test_kafka_has_the_rows_of_each_symbol_in_order(written, expected, kafka):
    for channel, rows in expected.items():
        found = {}
        for _, _, key, value in read_topic(kafka, f"binance-{channel}"):
            found.setdefault(key.decode(), []).append(json.loads(value))
        by_symbol = {}
        for row in rows:
            by_symbol.setdefault(row["symbol"], []).append(row)
        assert found == by_symbol


def test_counters_agree(written, batches):
    total = sum(batch.num_rows for _, batch in batches)
    _, group, metrics = written
    for queue in group.queues:
        stats = queue.stats()
        assert (stats.rows, stats.written_rows, stats.lost_rows) == (total, total, 0)
    families = {family.name: family for family in metrics.collect()}
    samples = families["gpukern_collect_rows"].samples
    assert sum(sample.value for sample in samples) == total


def test_memory_is_given_back(batches, tmp_path):
    before = pa.total_allocated_bytes()
    group = SinkGroup([SinkQueue(make_sink("parquet", tmp_path), max_bytes=1 << 20)])
    for channel, batch in batches:
        group.write(channel, batch)
    group.close(300)
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_killed_at_random_every_sink_has_what_was_flushed(tmp_path):
    chance = random.Random(13)
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        safe = killed_after(chance.randint(1, 15), "together", directory)
        for rows in SCENARIOS["together"].rows_by_sink(directory):
            assert rows == list(range(len(rows)))
            assert len(rows) >= safe
