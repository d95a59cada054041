"""A collector in a process of its own, for tests of what a process can do to it."""

from __future__ import annotations

import asyncio
import re
import sys
import urllib.request
from typing import Any

SINK_ROWS = re.compile(r'gpukern_collect_queue_written_rows_total\{sink="(\w+)"\} ([\d.]+)')
SINK_FLUSHES = re.compile(r'gpukern_collect_sink_flushes_total\{sink="(\w+)"\} ([\d.]+)')


async def start(
    url: str, *options: object, program: tuple[str, ...] = ("-m", "collectors")
) -> asyncio.subprocess.Process:
    """A collector of Binance's trades and quotes of BTC/USDT from the server at `url`."""
    words = [sys.executable, *program, "binance", "BTC/USDT", "--endpoint", url]
    words += ["--channels", "ticker,trades", *map(str, options)]
    pipes: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    return await asyncio.create_subprocess_exec(*words, **pipes)


async def metrics_address(process: asyncio.subprocess.Process) -> str:
    """Where it answers, as it says first when started with `--metrics-port 0`."""
    assert process.stderr is not None
    told = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    address = re.search(r"http://\S+", told)
    assert address is not None, told
    return address[0]


async def page(address: str) -> str:
    """The metrics now."""
    with await asyncio.to_thread(urllib.request.urlopen, address) as answer:
        return answer.read().decode()


async def flushed(address: str, rows: int) -> None:
    """Wait until every sink has written so many rows and flushed once more after that."""
    async with asyncio.timeout(60):
        while min(_values(SINK_ROWS, await page(address)).values(), default=0) < rows:
            pass
        before = _values(SINK_FLUSHES, await page(address))
        while any(n <= before[s] for s, n in _values(SINK_FLUSHES, await page(address)).items()):
            pass


def _values(pattern: re.Pattern[str], text: str) -> dict[str, float]:
    return {name: float(value) for name, value in pattern.findall(text)}
