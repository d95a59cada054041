"""What Binance trades, spot and USD-M futures: the shipped table, and the exchange's own lists.

A contract's name is its pair, the currency it settles in, and the expiry if it has one:
BTC/USDT:USDT is the perpetual, BTC/USDT:USDT-260327 a delivery contract. `BTCUSDT` is a symbol of
both markets; BTC/USDT is spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.errors import SymbolError
from collectors.symbols import SymbolTable, split_pair


class _SymbolInfo(Struct):
    symbol: str
    baseAsset: str
    quoteAsset: str


class _ExchangeInfo(Struct):
    symbols: list[_SymbolInfo]


class _ContractInfo(Struct):
    symbol: str
    baseAsset: str
    quoteAsset: str
    marginAsset: str


class _ContractsInfo(Struct):
    symbols: list[_ContractInfo]


class ContractTable(SymbolTable):
    """Contracts of the USD-M market; one that is not listed is named like its spot pair."""

    def __init__(self, pairs: Mapping[str, str] | None = None) -> None:
        super().__init__("binance-futures", pairs or {})
        self._spot = load_symbols()

    def pair(self, symbol: str) -> str:
        if symbol not in self:
            name, _, expiry = symbol.partition("_")
            base, quote = split_pair(self._spot.pair(name))
            self.add(symbol, _contract(base, quote, quote, expiry))
        return super().pair(symbol)

    def contract(self, pair: str) -> str:
        """The exchange's name of `pair`."""
        known = self.symbol(pair)
        if known is not None:
            return known
        base, rest = split_pair(pair)
        quote, colon, settled = rest.partition(":")
        _, _, expiry = settled.partition("-")
        symbol = f"{base}{quote}_{expiry}" if expiry else base + quote
        if not colon or pair != _contract(base, quote, quote, expiry):
            raise SymbolError(
                f"binance-futures: {pair!r} is no contract here; perpetuals are written "
                f"{base}/{quote}:{quote}, delivery contracts {base}/{quote}:{quote}-YYMMDD"
            )
        self.add(symbol, pair)
        return symbol


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


def load_contracts(path: Path | str | None = None) -> ContractTable:
    """The contracts of a `/fapi/v1/exchangeInfo` reply saved at `path`; an empty table without."""
    if path is None:
        return ContractTable()
    try:
        info = msgspec.json.decode(Path(path).read_bytes(), type=_ContractsInfo)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SymbolError(f"{path}: not a saved reply of /fapi/v1/exchangeInfo: {error}") from error
    return ContractTable(
        {
            s.symbol: _contract(
                s.baseAsset, s.quoteAsset, s.marginAsset, s.symbol.partition("_")[2]
            )
            for s in info.symbols
        }
    )


def _contract(base: str, quote: str, settled_in: str, expiry: str) -> str:
    return f"{base}/{quote}:{settled_in}" + (f"-{expiry}" if expiry else "")
