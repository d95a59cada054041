"""Trades and quotes, from events or from whole lots, to rows of `trades` and `ticker`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collectors.adapter import Quote, Trade
from collectors.batch_builder import RowBuilder, column
from collectors.lot import NO_TIME, QUOTE, RECV_TS, SEQ, SIDE, SYMBOL, TRADE, TS, Lot
from collectors.schema import TIME

_SIDES = ("bid", "ask", "bid_size", "ask_size", "volume_24h")
_NO_QUOTE = (None,) * len(_SIDES)
_LEAST = 1024  # rows that there is room for


class _TickBuilder(RowBuilder):
    """Rows of lots go to columns at once; those of events that come in between stay in order."""

    floats: ClassVar[tuple[str, ...]]
    """The columns of decimals."""

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self._parts: list[dict[str, pa.Array]] = []
        self._part_rows = 0
        self._used = 0
        """Rows of lots that are no part yet."""
        self._ints = np.empty((5, 0), np.int64)
        self._floats = np.empty((len(self.floats), 0))

    def __len__(self) -> int:
        return self._part_rows + self._used + super().__len__()

    def _drain(self) -> dict[str, Any]:
        if not self._used and not self._parts:
            return super()._drain()
        self._close_part()
        parts, self._parts, self._part_rows = self._parts, [], 0
        if len(parts) == 1:
            return parts[0]
        return {name: pa.concat_arrays([part[name] for part in parts]) for name in self.columns}

    def _room(self, rows: int) -> None:
        """For so many rows of a lot, after all that came before."""
        if self._values:
            self._close_part()
        if self._used + rows > self._ints.shape[1]:
            width = max(_LEAST, 2 * (self._used + rows))
            ints, floats = self._ints, self._floats
            self._ints = np.empty((len(ints), width), np.int64)
            self._floats = np.empty((len(floats), width))
            self._ints[:, : self._used] = ints[:, : self._used]
            self._floats[:, : self._used] = floats[:, : self._used]

    def _close_part(self) -> None:
        """The rows of lots so far, and those of events that came after them."""
        if self._used:
            rows, self._used = self._used, 0
            # Copies: a batch that waits in a queue holds no more memory than its rows take.
            ints, floats = self._ints[:, :rows].copy(), self._floats[:, :rows].copy()
            part = {
                "ts": column(ints[TS], TIME, ints[TS] == NO_TIME),
                "recv_ts": column(ints[RECV_TS], TIME),
                "symbol": column(ints[SYMBOL].astype(np.int32), pa.int32()),
                "seq": column(ints[SEQ], pa.int64()),
                "trade_id": column(ints[SEQ], pa.int64()),
                "side": column(ints[SIDE].astype(np.int8), pa.int8(), ints[SIDE] == 0),
            }
            for name, values, missing in zip(self.floats, floats, np.isnan(floats), strict=True):
                part[name] = column(values, pa.float64(), missing)
            self._parts.append({name: part[name] for name in self.columns})
            self._part_rows += rows
        if self._values:
            kinds = self._types | {"symbol": pa.int32()}
            rows = super().__len__()
            columns = super()._drain()
            self._parts.append({name: pa.array(columns[name], kinds[name]) for name in columns})
            self._part_rows += rows

    def _codes_of(self, lot: Lot, kinds: Sequence[int]) -> NDArray[np.int32]:
        """By number of the lot's symbol; new ones in the order of their rows."""
        codes = self._codes
        if not all(map(codes.__contains__, lot.symbols)):
            own = np.isin(lot.kinds, kinds)
            for number in dict.fromkeys(lot.ints[SYMBOL, own].tolist()):
                self._code(lot.symbols[number])
        return np.array([codes.get(symbol, -1) for symbol in lot.symbols], np.int32)


class TradesBuilder(_TickBuilder):
    """Trades -> `trades`."""

    channel = "trades"
    columns = ("ts", "recv_ts", "symbol", "seq", "trade_id", "price", "size", "side")
    floats = ("price", "size")

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Trade: self._trade}

    def _trade(self, t: Trade) -> None:
        self._values.extend(
            (t.ts, t.recv_ts, self._code(t.symbol), t.seq, t.trade_id, t.price, t.size, t.side)
        )

    def add(self, lot: Lot) -> None:
        from collectors.lot_compiled import add_trades

        self._room(lot.ticks)
        codes = self._codes_of(lot, (TRADE,))
        self._used = add_trades(
            lot.kinds, lot.ints, lot.floats, codes, self._used, self._ints, self._floats
        )


class TickerBuilder(_TickBuilder):
    """Trades and quotes -> `ticker`; the quotes in force outlive `take`."""

    channel = "ticker"
    columns = ("ts", "recv_ts", "symbol", "seq", "price", "size", "side", *_SIDES)
    floats = ("price", "size", *_SIDES)

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Trade: self._trade, Quote: self._quote}
        self._quotes: dict[str, Quote] = {}
        self._in_force = np.empty((0, len(_SIDES)))
        """The same by code, NaN where there is none, but for those of `_changed`."""
        self._changed: dict[str, Quote] = {}

    def _trade(self, t: Trade) -> None:
        q = self._quotes.get(t.symbol)
        quote = _NO_QUOTE if q is None else _in_force(q)
        code = self._code(t.symbol)
        self._values.extend((t.ts, t.recv_ts, code, t.seq, t.price, t.size, t.side, *quote))

    def _quote(self, q: Quote) -> None:
        self._quotes[q.symbol] = self._changed[q.symbol] = q
        code = self._code(q.symbol)
        self._values.extend((q.ts, q.recv_ts, code, q.seq, None, None, None, *_in_force(q)))

    def add(self, lot: Lot) -> None:
        from collectors.lot_compiled import add_ticks

        self._room(lot.ticks)
        codes = self._codes_of(lot, (TRADE, QUOTE))
        if len(self._in_force) < len(self._codes):
            new = np.full((2 * len(self._codes), len(_SIDES)), np.nan)
            new[: len(self._in_force)] = self._in_force
            self._in_force = new
        for symbol, quote in self._changed.items():
            self._in_force[self._code(symbol)] = _in_force(quote)
        self._changed.clear()
        self._used = add_ticks(
            lot.kinds, lot.ints, lot.floats, codes, self._in_force,
            self._used, self._ints, self._floats,
        )  # fmt: skip
        self._quotes.update(lot.last_quotes)


def _in_force(q: Quote) -> tuple[float | None, ...]:
    return q.bid, q.ask, q.bid_size, q.ask_size, q.volume_24h
