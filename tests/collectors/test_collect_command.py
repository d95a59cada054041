"""`gpukern collect` as a process: signals, exit codes, what it says."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner
from collect_process import metrics_address, page, start
from kafka_broker import Broker
from scripted import quote, scripted, trade
from topics import read_topic

from collectors.command import EXCHANGES, POLICIES, collect
from collectors.exchanges import EXCHANGES as KNOWN_EXCHANGES
from collectors.queues import POLICIES as KNOWN_POLICIES

FRAMES = [frame for n in range(1, 101) for frame in (quote(n), trade(n))]


def outcome(server_frames: list[bytes], *options: object, signals: int = 1) -> tuple[int, str, str]:
    """Exit code, output and errors of a collector that is stopped when all has been sent."""

    async def run() -> tuple[int, str, str]:
        async with scripted(server_frames) as server:
            process = await start(server.url, *options)
            if signals:
                await asyncio.wait_for(server.said.wait(), 60)
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
            output, errors = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode is not None
            return process.returncode, output.decode(), errors.decode()

    return asyncio.run(run())


def test_sigterm_drains_flushes_and_closes(tmp_path: Path) -> None:
    code, output, errors = outcome(FRAMES, "-F", tmp_path / "data", "-J", tmp_path / "rows.jsonl")
    assert (code, output) == (0, "")
    kept = ds.dataset(tmp_path / "data" / "trades", partitioning="hive").to_table()
    numbers = kept["trade_id"].to_pylist()
    assert numbers == list(range(1, len(numbers) + 1))
    assert f"{len(numbers)} rows  trades" in errors
    assert not list((tmp_path / "data").glob(".live-*"))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["trade_id"] for row in lines if row["dataset"] == "trades"] == numbers


def test_without_a_sink_the_latest_is_shown_as_a_table() -> None:
    code, output, _ = outcome(FRAMES)
    assert code == 0
    assert re.search(r"binance .* BTC/USDT .* 60,000 .* 60,000\.2 ", output)


NEVER_CLOSES = """
import threading
from collectors.command import collect
from collectors.sinks.jsonl import JsonlSink

def close(self):
    print("closing", flush=True)
    threading.Event().wait()

JsonlSink.close = close
collect()
"""


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async def run() -> int:
        async with scripted(FRAMES) as server:
            process = await start(server.url, "-J", tmp_path / "rows", program=("-c", NEVER_CLOSES))
            await asyncio.wait_for(server.said.wait(), 60)
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"closing\n"
            process.send_signal(signal.SIGINT)
            return await asyncio.wait_for(process.wait(), 60)

    assert asyncio.run(run()) == 128 + signal.SIGINT


def test_kafka_has_every_row_once_and_a_symbols_rows_in_order(own_broker: Broker) -> None:
    code, _, errors = outcome(FRAMES, "-k", own_broker.bootstrap, "-X", "client.id=test")
    assert code == 0
    told = re.search(r"(\d+) rows  trades", errors)
    assert told is not None
    messages = read_topic(own_broker.bootstrap, "binance-trades")
    assert {key for _, _, key, _ in messages} == {b"BTC/USDT"}
    numbers = [json.loads(value)["trade_id"] for _, _, _, value in messages]
    assert numbers == list(range(1, int(told[1]) + 1))


def test_metrics_are_served_while_it_runs() -> None:
    async def run() -> str:
        async with scripted(FRAMES) as server:
            process = await start(server.url, "--metrics-port", 0)
            address = await metrics_address(process)
            await asyncio.wait_for(server.said.wait(), 60)
            text = await page(address)
            process.terminate()
            await asyncio.wait_for(process.communicate(), 60)
            return text

    assert re.search(r'gpukern_collect_messages_total\{exchange="binance"\} \d', asyncio.run(run()))


def test_a_sink_that_fails_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, output, errors = outcome(FRAMES, "-F", tmp_path / "file" / "data", signals=0)
    assert (code, output) == (1, "")
    assert errors.startswith(f"Error: {tmp_path}/file/data: cannot write there")
    assert errors.count("\n") == 1


def test_outputs_opened_before_one_that_fails_are_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["binance", "-F", tmp_path / "data", "-S", tmp_path / "file" / "rows.db"]
    result = CliRunner().invoke(collect, list(map(str, words)))
    assert result.exit_code == 1
    assert not list((tmp_path / "data").glob(".live-*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["binance", "BTC"], "expected BASE/QUOTE"),
        (["mtgox"], "'mtgox' is not one of 'coinbase'"),
        (["kraken", "--channels", "funding"], "choose from ticker, trades, book"),
        (["kraken", "--duration", "5 minutes"], "write 90s, 15m, 1h30m or 2d"),
        (["kraken", "--duration", "0s"], "no time at all"),
        (["kraken", "--endpoint", "localhost:80"], "must begin with ws:// or wss://"),
        (["kraken", "--queue", "forget"], "'forget' is not one of 'block'"),
        (["kraken", "-k", "localhost:1", "--format", "avro"], "needs --schema-registry"),
        (["kraken", "-k", "localhost:1", "-X", "acks"], "'acks' is not NAME=VALUE"),
        (["kraken", "-X", "acks=all"], "name its brokers with --kafka"),
        (["coinbase", "--symbols", "/none.json"], "/none.json: not a saved reply"),
    ],
)
def test_wrong_arguments_are_exit_code_2(words: list[str], told: str) -> None:
    result = CliRunner().invoke(collect, words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("2d", 172_800)])
def test_durations(text: str, seconds: float) -> None:
    from collectors.command import Duration

    assert Duration().convert(text, None, None) == seconds


def test_choices_are_those_that_there_are() -> None:
    assert set(EXCHANGES) == set(KNOWN_EXCHANGES)
    assert POLICIES == KNOWN_POLICIES


def documented_commands() -> list[str]:
    page = (Path(__file__).parents[2] / "docs" / "collect.md").read_text()
    return re.findall(r"^gpukern collect (.+?) *(?:#.*)?$", page, re.MULTILINE)


@pytest.mark.parametrize("words", documented_commands())
def test_documented_commands_are_understood(words: str) -> None:
    assert collect.make_context("collect", words.split()).params["exchange"] in EXCHANGES
