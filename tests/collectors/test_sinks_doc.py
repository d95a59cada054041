"""docs/sinks.md says what is so."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from rows import trades

from collectors.metrics import Metrics
from collectors.queues import POLICIES, SinkQueue
from collectors.schema import SCHEMAS
from collectors.sinks import SINKS, make_sink

TEXT = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text()


def section(title):
    return TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(text):
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(code, {"batch": trades(0, 10)})
    assert pl.read_parquet("data/trades").height == 10
    with closing(sqlite3.connect("data/rows.db")) as connection:
        assert connection.execute("SELECT count(*) FROM trades").fetchone() == (10,)


def test_every_sink_is_named():
    names = first_cells(section("Sinks"))
    assert sorted(names) == sorted([*SINKS, *SCHEMAS])


def test_every_policy_is_named():
    assert tuple(first_cells(section("Queues"))) == POLICIES


def test_every_metric_is_named():
    metrics = Metrics()
    metrics.add_queue(queue := SinkQueue(make_sink("table")))
    suffix = {"counter": "_total", "gauge": "", "histogram": ""}
    families = {
        family.name.removeprefix("gpukern_collect_") + suffix[family.type]
        for family in metrics.collect()
    }
    queue.close()
    rows = re.findall(r"^\| (`.*`.*) \|", section("Metrics"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == families


@pytest.mark.parametrize("channel", list(SCHEMAS))
def test_keys_are_those_of_the_database(tmp_path, channel):
    path = tmp_path / "rows.db"
    make_sink("sqlite", path).close()
    with closing(sqlite3.connect(path)) as connection:
        indices = connection.execute(f"PRAGMA index_list({channel})").fetchall()
        (key,) = [name for _, name, unique, *_ in indices if unique]
        columns = connection.execute(f"PRAGMA index_info({key})").fetchall()
    names = ", ".join(name or "from_seq" for _, _, name in columns)  # an expression has no name
    assert f"| `{channel}` | `{names}` |" in TEXT
