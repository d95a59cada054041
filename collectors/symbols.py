"""BASE/QUOTE names of what an exchange trades.

`BTCUSDT` does not say where the base ends, so names come from data: a table of the exchange's own
pairs. Quote currencies are never merged: USD, USDT and USDC are three currencies.

For a symbol that the table lacks (newly listed, long delisted) there is one rule: if exactly one
currency known to quote pairs ends the symbol, it is the quote. If none or several do (`XBTUSD`
ends in USD and in TUSD), the name is a guess, and a guess is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from collectors.errors import SymbolError


def split_pair(pair: str) -> tuple[str, str]:
    """`BTC/USDT` -> (`BTC`, `USDT`); anything else is a `SymbolError`."""
    base, slash, quote = pair.partition("/")
    if not slash or not base or not quote or "/" in quote or pair != pair.upper() or " " in pair:
        raise SymbolError(f"symbol {pair!r}: expected BASE/QUOTE in upper case, such as BTC/USDT")
    return base, quote


class SymbolTable:
    """One exchange's symbols and their BASE/QUOTE names."""

    def __init__(self, exchange: str, pairs: Mapping[str, str], quotes: Iterable[str] = ()) -> None:
        """`pairs` maps the exchange's symbol to BASE/QUOTE; `quotes` feeds the rule above."""
        self.exchange = exchange
        self._pairs: dict[str, str] = {}
        self._symbols: dict[str, str] = {}
        self._quotes = set(quotes)
        for symbol, pair in pairs.items():
            self.add(symbol, pair)

    def add(self, symbol: str, pair: str) -> None:
        """Record that the exchange calls `pair` by the name `symbol`."""
        known = self._pairs.get(symbol, pair)
        if known != pair:
            raise SymbolError(f"{self.exchange}: {symbol} is {known} already, it cannot be {pair}")
        self._quotes.add(split_pair(pair)[1])
        self._pairs[symbol] = pair
        self._symbols.setdefault(pair, symbol)

    def updated(self, pairs: Mapping[str, str]) -> SymbolTable:
        """A table in which `pairs` overrule this one's."""
        return SymbolTable(self.exchange, {**self._pairs, **pairs}, self._quotes)

    def pair(self, symbol: str) -> str:
        """BASE/QUOTE of the exchange's `symbol`."""
        known = self._pairs.get(symbol)
        if known is not None:
            return known
        quotes = sorted(q for q in self._quotes if symbol.endswith(q) and symbol != q)
        if len(quotes) != 1:
            why = f"ends in {' and in '.join(quotes)}" if quotes else "ends in no known quote"
            raise SymbolError(
                f"{self.exchange}: cannot tell base and quote of {symbol!r}: it is not in the "
                f"symbol table and {why}; load the exchange's own list of symbols"
            )
        pair = f"{symbol.removesuffix(quotes[0])}/{quotes[0]}"
        self.add(symbol, pair)
        return pair

    def symbol(self, pair: str) -> str | None:
        """The exchange's name of `pair`, None if the table has none."""
        split_pair(pair)
        return self._symbols.get(pair)

    def __contains__(self, symbol: str) -> bool:
        """Whether the table lists the exchange's `symbol`."""
        return symbol in self._pairs

    def __len__(self) -> int:
        return len(self._pairs)
