"""What Binance Spot trades: the shipped table, and the exchange's own list."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.errors import SymbolError
from collectors.symbols import SymbolTable


class _SymbolInfo(Struct):
    symbol: str
    baseAsset: str
    quoteAsset: str


class _ExchangeInfo(Struct):
    symbols: list[_SymbolInfo]


def load_symbols(path: Path | str | None = None) -> SymbolTable:
    """The shipped table, overruled by an `exchangeInfo` reply saved at `path` if given."""
    shipped = resources.files("collectors.exchanges").joinpath("binance_symbols.json").read_bytes()
    bases_by_quote = msgspec.json.decode(shipped, type=dict[str, list[str]])
    table = SymbolTable(
        "binance",
        {
            base + quote: f"{base}/{quote}"
            for quote, bases in bases_by_quote.items()
            for base in bases
        },
        bases_by_quote,
    )
    if path is None:
        return table
    try:
        info = msgspec.json.decode(Path(path).read_bytes(), type=_ExchangeInfo)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SymbolError(f"{path}: not a saved reply of /api/v3/exchangeInfo: {error}") from error
    return table.updated({s.symbol: f"{s.baseAsset}/{s.quoteAsset}" for s in info.symbols})
