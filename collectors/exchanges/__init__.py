"""The exchanges' protocols, one file each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from collectors.adapter import Adapter
from collectors.errors import CollectorError
from collectors.exchanges import binance_symbols, coinbase_symbols
from collectors.exchanges.binance import BinanceSpot
from collectors.exchanges.binance_futures import BinanceFutures
from collectors.exchanges.coinbase import Coinbase
from collectors.exchanges.kraken import Kraken
from collectors.symbols import SymbolTable

_ADAPTERS: dict[str, Callable[..., Adapter]] = {
    adapter.exchange: adapter for adapter in (BinanceSpot, BinanceFutures, Coinbase, Kraken)
}
_LISTS: dict[str, Callable[[Path | str], SymbolTable]] = {
    BinanceSpot.exchange: binance_symbols.load_symbols,
    BinanceFutures.exchange: binance_symbols.load_contracts,
    Coinbase.exchange: coinbase_symbols.load_symbols,
}

EXCHANGES: tuple[str, ...] = tuple(_ADAPTERS)


def make_adapter(exchange: str, symbols: Path | str | None = None) -> Adapter:
    """The adapter of `exchange`; `symbols` is a file with the exchange's own list of symbols."""
    if exchange not in _ADAPTERS:
        raise CollectorError(
            f"exchange {exchange!r} is not known; choose from {', '.join(EXCHANGES)}"
        )
    if symbols is None:
        return _ADAPTERS[exchange]()
    if exchange not in _LISTS:
        raise CollectorError(
            f"{exchange} needs no list of symbols, its names are BASE/QUOTE: leave {symbols} out"
        )
    return _ADAPTERS[exchange](_LISTS[exchange](symbols))
