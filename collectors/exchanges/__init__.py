"""The exchanges' protocols, one file each."""

from __future__ import annotations

from pathlib import Path

from collectors.adapter import Adapter
from collectors.errors import CollectorError
from collectors.exchanges.binance import BinanceSpot
from collectors.exchanges.binance_symbols import load_symbols

EXCHANGES: tuple[str, ...] = (BinanceSpot.exchange,)


def make_adapter(exchange: str, symbols: Path | str | None = None) -> Adapter:
    """The adapter of `exchange`; `symbols` is a file with the exchange's own list of symbols."""
    if exchange == BinanceSpot.exchange:
        return BinanceSpot(load_symbols(symbols))
    raise CollectorError(f"exchange {exchange!r} is not known; choose from {', '.join(EXCHANGES)}")
