"""The latest of every symbol as a table on the screen; it shows, and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from collectors.serialisation.json import plain_column
from collectors.sinks import Sink


class _Market(msgspec.Struct):
    """What is known of one symbol at one exchange."""

    bid: float | None = None
    ask: float | None = None
    price: float | None = None
    mark_price: float | None = None
    funding_rate: float | None = None
    rows: int = 0
    gaps: int = 0


class TableSink(Sink):
    """A table redrawn on every `flush`, in place on a terminal, once at the end elsewhere."""

    name: ClassVar[str] = "table"
    flush_s: ClassVar[float] = 0.5

    def __init__(
        self, console: Console | None = None, *, caption: Callable[[], str] | None = None
    ) -> None:
        """Show on `console`, by default standard output; `caption` gives a line to put below."""
        self._console = Console() if console is None else console
        self._caption = caption
        self._markets: dict[tuple[str, str], _Market] = {}
        self._live: Live | None = None
        self._closed = False

    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        columns = {name: plain_column(batch.column(name)) for name in batch.schema.names}
        keys = pa.StructArray.from_arrays([columns["exchange"], columns["symbol"]], ["e", "s"])
        for key, count in zip(*_counts(keys), strict=True):
            market = self._markets.setdefault((key["e"], key["s"]), _Market())
            market.rows += count
            mine = pc.and_(
                pc.equal(columns["exchange"], key["e"]), pc.equal(columns["symbol"], key["s"])
            )
            self._update(market, channel, {n: c.filter(mine) for n, c in columns.items()})

    def flush(self) -> None:
        if not self._markets or not self._console.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(self.table(), refresh=True)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.flush()
        if self._live is not None:
            self._live.stop()
        elif self._markets:
            self._console.print(self.table())

    def table(self) -> Table:
        """What is known now."""
        caption = None if self._caption is None else Text(self._caption())
        table = Table("exchange", "symbol", *_NUMBERS, caption=caption)
        for column in table.columns[2:]:
            column.justify = "right"
        for (exchange, symbol), market in sorted(self._markets.items()):
            table.add_row(exchange, symbol, *(show(market) for show in _NUMBERS.values()))
        return table

    def _update(self, market: _Market, channel: str, columns: dict[str, pa.Array]) -> None:
        if channel == "ticker":
            market.bid, market.ask = columns["bid"][-1].as_py(), columns["ask"][-1].as_py()
        if channel == "gaps":
            market.gaps += columns["recovered_ts"].null_count
        for name in ("price", "mark_price", "funding_rate"):
            if channel != "book" and name in columns:
                known = columns[name].drop_null()
                if len(known):
                    setattr(market, name, known[-1].as_py())


def _counts(keys: pa.Array) -> tuple[list[Any], list[int]]:
    table = pa.table({"e": keys.field(0), "s": keys.field(1)})
    counted = table.group_by(["e", "s"], use_threads=False).aggregate([([], "count_all")])
    return counted.select(["e", "s"]).to_pylist(), counted["count_all"].to_pylist()


def _spread_bps(market: _Market) -> float | None:
    if market.bid is None or market.ask is None or market.bid + market.ask <= 0:
        return None
    return 20_000 * (market.ask - market.bid) / (market.ask + market.bid)


def _shown(value: float | None, form: str = ",.10g") -> str:
    return "" if value is None else format(value, form)


_NUMBERS = {
    "bid": lambda m: _shown(m.bid),
    "ask": lambda m: _shown(m.ask),
    "spread bps": lambda m: _shown(_spread_bps(m), ".2f"),
    "last": lambda m: _shown(m.price),
    "mark": lambda m: _shown(m.mark_price),
    "funding": lambda m: _shown(m.funding_rate, ".6f"),
    "rows": lambda m: f"{m.rows:,}",
    "gaps": lambda m: f"{m.gaps:,}",
}
