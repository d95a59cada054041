"""What Coinbase trades: how a product's name is BASE/QUOTE, and the exchange's own list.

`BTC-USD` and `BTC-USDC` are one book, told as `BTC-USD`; only the assets in `coinbase_books.json`
have a book of their own in USDC. Futures need the exchange's list: their ids say no currency.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec
from msgspec import Struct

from collectors.errors import SymbolError
from collectors.symbols import SymbolTable, split_pair


class _Product(Struct):
    product_id: str
    product_type: str = "SPOT"
    base_currency_id: str = ""
    base_display_symbol: str = ""
    quote_currency_id: str = ""
    alias: str = ""


class _Products(Struct):
    products: list[_Product]


class _Books(Struct):
    usdc_books: list[str]


def load_symbols(path: Path | str | None = None) -> SymbolTable:
    """An empty table, or the products of a `market/products` reply saved at `path`."""
    table = SymbolTable("coinbase", {})
    if path is None:
        return table
    try:
        listed = msgspec.json.decode(Path(path).read_bytes(), type=_Products)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SymbolError(f"{path}: not a saved reply of market/products: {error}") from error
    for product in listed.products:
        if product.alias:
            continue  # another name of a book that is listed too
        base = product.base_currency_id or product.base_display_symbol
        if product.product_type == "SPOT":
            table.add(product.product_id, f"{base}/{product.quote_currency_id}")
        elif base and product.quote_currency_id:
            quote = product.quote_currency_id
            table.add(product.product_id, f"{base}/{quote}:{quote}-{product.product_id}")
    return table


def pair_of(table: SymbolTable, product_id: str) -> str:
    """BASE/QUOTE of a product, by the table or by its name."""
    if product_id in table:
        return table.pair(product_id)
    base, _, quote = product_id.partition("-")
    if not base or not quote or "-" in quote:
        raise SymbolError(
            f"coinbase: product {product_id!r} is not BASE-QUOTE; load the exchange's own list of "
            f"products"
        )
    table.add(product_id, f"{base}/{quote}")
    return table.pair(product_id)


def product_of(table: SymbolTable, pair: str) -> str:
    """The product whose book is that of `pair`."""
    known = table.symbol(pair)
    if known is not None:
        return known
    base, quote = split_pair(pair)
    if quote == "USDC" and base not in _usdc_books():
        raise SymbolError(
            f"coinbase: {pair} has no book of its own, it is that of {base}/USD; ask for {base}/USD"
        )
    return f"{base}-{quote}"


def _usdc_books() -> list[str]:
    shipped = resources.files("collectors.exchanges").joinpath("coinbase_books.json").read_bytes()
    return msgspec.json.decode(shipped, type=_Books).usdc_books
