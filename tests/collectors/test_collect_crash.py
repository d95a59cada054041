"""A collector killed with SIGKILL and started again on the same outputs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pyarrow.dataset as ds
from collect_process import flushed, metrics_address, start
from scripted import scripted, trade

from collectors.raw import RawReader

FIRST, SECOND = range(1, 2001), range(2001, 2501)


def test_what_was_flushed_is_there_once(tmp_path: Path) -> None:
    outputs = ("-F", tmp_path / "data", "-S", tmp_path / "rows.db", "-J", tmp_path / "rows.jsonl")
    raw = tmp_path / "raw.zst"
    options = (*outputs, "--raw", raw, "--metrics-port", 0)

    async def run(numbers: range, *, kill: bool) -> int | None:
        async with scripted(map(trade, numbers)) as server:
            process = await start(server.url, *options)
            await flushed(await metrics_address(process), 2 * len(numbers))
            await asyncio.to_thread(recorded, raw, numbers[-1])
            if kill:
                process.kill()
            else:
                process.terminate()
            await asyncio.wait_for(process.communicate(), 60)
            return process.returncode

    assert asyncio.run(run(FIRST, kill=True)) == -9
    assert asyncio.run(run(SECOND, kill=False)) == 0

    numbers = [*FIRST, *SECOND]
    parquet = ds.dataset(tmp_path / "data" / "trades", partitioning="hive").to_table()
    assert sorted(parquet["trade_id"].to_pylist()) == numbers
    with closing(sqlite3.connect(tmp_path / "rows.db")) as database:
        rows = database.execute("SELECT trade_id FROM trades ORDER BY trade_id").fetchall()
    assert [number for (number,) in rows] == numbers
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["trade_id"] for line in lines if line["dataset"] == "trades"] == numbers
    frames = [frame for _, frame in RawReader(raw) if b'"t":' in frame]
    assert frames == [trade(number) for number in numbers]


def recorded(raw: Path, number: int) -> None:
    """Wait until a trade is in the log."""
    deadline_s = time.monotonic() + 300
    while trade(number) not in [frame for _, frame in RawReader(raw)]:
        assert time.monotonic() < deadline_s, f"trade {number} is not in {raw}"
