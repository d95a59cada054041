"""Trades and quotes, from events or from whole lots, to rows of `trades` and `ticker`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from collectors.adapter import Quote, Trade
from collectors.batch_builder import RowValues
from collectors.lot import QUOTE, RECV_TS, SEQ, SIDE, SYMBOL, TRADE, TS, Lot
from collectors.lot_builder import LotBuilder

_SIDES = ("bid", "ask", "bid_size", "ask_size", "volume_24h")
_NO_QUOTE = (None,) * len(_SIDES)


class _TickBuilder(LotBuilder):
    """Rows of events end to end in one list, those of lots in columns."""

    ints: ClassVar = {"ts": TS, "recv_ts": RECV_TS, "symbol": SYMBOL, "seq": SEQ, "side": SIDE}

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self._values = RowValues((*self.ints, *self.floats))

    def _event_rows(self) -> int:
        return len(self._values)

    def _drain_events(self) -> dict[str, Any]:
        return self._values.drain()


class TradesBuilder(_TickBuilder):
    """Trades -> `trades`."""

    channel = "trades"
    ints: ClassVar = _TickBuilder.ints | {"trade_id": SEQ}
    floats = ("price", "size")

    def __init__(self, exchange: str) -> None:
        super().__init__(exchange)
        self.handlers = {Trade: self._trade}

    def _trade(self, t: Trade) -> None:
        self._values.extend(
            (t.ts, t.recv_ts, self._code(t.symbol), t.seq, t.side, t.trade_id, t.price, t.size)
        )

    def add(self, lot: Lot) -> None:
        from collectors.lot_compiled import add_trades

        self._room(lot.ticks)
        codes = self._codes_of(lot, TRADE)
        self._used = add_trades(
            lot.kinds, lot.ints, lot.floats, codes, self._used, self._ints, self._floats
        )


class TickerBuilder(_TickBuilder):
    """Trades and quotes -> `ticker`; the quotes in force outlive `take`."""

    channel = "ticker"
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
        self._values.extend((t.ts, t.recv_ts, code, t.seq, t.side, t.price, t.size, *quote))

    def _quote(self, q: Quote) -> None:
        self._quotes[q.symbol] = self._changed[q.symbol] = q
        code = self._code(q.symbol)
        self._values.extend((q.ts, q.recv_ts, code, q.seq, None, None, None, *_in_force(q)))

    def add(self, lot: Lot) -> None:
        from collectors.lot_compiled import add_ticks

        self._room(lot.ticks)
        codes = self._codes_of(lot, TRADE, QUOTE)
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
