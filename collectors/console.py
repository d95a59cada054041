"""What a person sees of a running collector: a live line on a terminal, elsewhere a log.

On a terminal the line is kept up to date, below the table if there is one. Elsewhere it is written
to standard error every ten seconds. What happens – a connection lost, a request refused – is
written at once in both.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console as Screen
from rich.live import Live
from rich.text import Text

from collectors.progress import StatusLine, summary
from collectors.sinks.table import TableSink

if TYPE_CHECKING:
    from collectors.collect import Collector

LOOK_S = 0.5
LOG_S = 10.0
_WIDTH = 200  # of a table that is not on a terminal: nothing is cut off


class Console:
    """Shows one collector while the `async with` block runs."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._status = StatusLine(collector.adapter.exchange, len(collector.symbols))
        self._line = ""
        self._table = False
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None

    def table_sink(self) -> TableSink:
        """The table on standard output, with the line below it on a terminal."""
        screen = Screen()
        self._table = screen.is_terminal
        if not self._table:
            return TableSink(Screen(width=_WIDTH))
        return TableSink(screen, caption=lambda: self._line)

    def say(self, text: str) -> None:
        """Write a line of the log."""
        now = datetime.now(UTC)
        print(f"{now:%Y-%m-%dT%H:%M:%SZ} {text}", file=sys.stderr, flush=True)

    async def __aenter__(self) -> Console:
        screen = Screen(stderr=True)
        if screen.is_terminal and not self._table:
            self._live = Live(console=screen, auto_refresh=False, transient=True)
            self._live.start()
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._live is not None:
            self._live.stop()
        for line in summary(self._collector.progress()):
            self.say(line)

    async def _watch(self) -> None:
        logged_s = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._collector.progress()
            for told in self._status.news(now.feed):
                self.say(told)
            if self._live is not None:
                self._live.update(Text(self._status.line(now), overflow="ellipsis"), refresh=True)
            elif self._table:
                self._line = self._status.line(now)
            elif time.monotonic() - logged_s >= LOG_S:
                logged_s = time.monotonic()
                self.say(self._status.line(now))
