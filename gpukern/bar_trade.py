"""Information bars: bars that end with a trade, by what the trades since the last one add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import bar_core as core
from gpukern.bar_fold import Found, Part, Records, key_columns, value_columns
from gpukern.bar_stream import Stream, disorder, in_order
from gpukern.bar_table import RECV, Source, Trades, read_trades, time_array, time_type
from gpukern.frame import NULL_INT
from gpukern.join_match import ascending

COUNTERS = ("given", "accepted", "null", "skipped")
OWN = (*core.FLOATS, "n_trades", "first_ts", "last_ts", "known_seq", "emit_recv_ts",
       "theta", "threshold", "expected_ticks")  # fmt: skip


class TradeBars(Stream):
    """The carried state of information bars: every symbol's unfinished bar, which is never emitted.

    ``counters``: rows given = accepted + null (no time or symbol) + skipped (no price above 0; for
    bars measured by size, no size of 0 or above).
    """

    def __init__(
        self,
        what: str,
        kind: str,
        schema: pa.Schema,
        options: Sequence[Any],
        *,
        on: str,
        by: str | Sequence[str],
        sized: bool,
        words: int = core.WORDS,
    ) -> None:
        source = Source.of(what, schema, on, by, ("price", "size"))
        source.no_clash(OWN)
        super().__init__(kind, source, options, COUNTERS)
        self.sized = sized
        self.records = Records(words)
        self.last_times = np.zeros(0, np.int64)

    def run(self, table: pa.Table, *, sort: bool) -> pa.Table:
        """The bars of a whole table."""
        trades = self._read(table)
        if not (np.all(trades.slots >= 0) and ascending(trades.times)):
            trades = in_order(self, trades, sort)
        return self._table(Found(self._fold(trades)), trades)

    def _push(self, table: pa.Table) -> pa.Table:
        trades = self._read(table)
        last = self.last_times.copy()
        row = core.first_disorder(trades.slots, trades.times, last)
        if row >= 0:
            raise disorder(
                self, trades.slots, trades.times, row, "push rows as they arrive, on='recv_ts'"
            )
        parts = self._fold(trades)
        self.last_times = last
        null = int((trades.slots < 0).sum())
        accepted = int(usable(trades, sized=self.sized).sum())
        given = len(trades.slots)
        counts = (given, accepted, null, given - accepted - null)
        for name, number in zip(COUNTERS, counts, strict=True):
            self.counters[name] += number
        return self._table(Found(parts), trades)

    def _advance(self, watermark: int) -> pa.Table:
        return self._push(self.source.schema.empty_table())

    def _flush(self) -> pa.Table:
        return self._advance(0)

    def _read(self, table: pa.Table) -> Trades:
        trades = read_trades(self.source, table, self.symbols)
        count = len(self.symbols)
        self.records.reserve(count)
        new = np.full(max(0, count - len(self.last_times)), core.NO_TIME)
        self.last_times = np.append(self.last_times, new)
        return trades

    def _fold(self, trades: Trades) -> list[Part]:
        raise NotImplementedError

    def _table(self, found: Found, trades: Trades) -> pa.Table:
        """The bars in the order of the trades that closed them."""
        if len(found.parts) > 1:
            (rows,) = found.marks([core.ROW])
            found = found.taken(np.argsort(rows, kind="stable"))
        rows, number = found.marks([core.ROW, core.KNOWN])
        columns = {
            **key_columns(self.symbols, found),
            **value_columns(self.source, found),
            "known_seq": pa.array(number),
            "emit_recv_ts": self._emitted(rows, trades),
            **self._extra(found),
        }
        return pa.table(columns)

    def _extra(self, found: Found) -> dict[str, pa.Array]:
        """Further columns of the kind of bar."""
        return {}

    def _emitted(self, rows: np.ndarray, trades: Trades) -> pa.Array:
        schema = self.source.schema
        if RECV not in schema.names:
            return pa.nulls(len(rows), self.source.time_type)
        times = trades.recv[rows] if len(rows) else np.zeros(0, np.int64)
        return time_array(times, time_type(schema.field(RECV).type), times == NULL_INT)

    # -- state ----------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        count = len(self.symbols)
        return {}, [self.records.dump(count), self.last_times[:count]]

    def _set_state(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        words, self.last_times = arrays
        self.records.load(words)


def usable(trades: Trades, *, sized: bool) -> np.ndarray:
    """Rows that take part in a bar."""
    there = (trades.slots >= 0) & (trades.price > 0.0) & (trades.price < np.inf)
    return there & (trades.size >= 0.0) & (trades.size < np.inf) if sized else there
