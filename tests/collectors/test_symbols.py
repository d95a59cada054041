"""BASE/QUOTE names: from data; by rule only where there is nothing to guess."""

import json

import pytest

from collectors.errors import SymbolError
from collectors.exchanges.binance_symbols import load_symbols
from collectors.symbols import SymbolTable, split_pair


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("BTCUSDT", "BTC/USDT"),
        ("BTCUSDC", "BTC/USDC"),
        ("BTCFDUSD", "BTC/FDUSD"),
        ("BTCTUSD", "BTC/TUSD"),
        ("ETHBTC", "ETH/BTC"),
        ("WBTCETH", "WBTC/ETH"),
        ("USDCUSDT", "USDC/USDT"),
        ("USDTTRY", "USDT/TRY"),
        ("1INCHUSDT", "1INCH/USDT"),
    ],
)
def test_shipped_table_names_binance_symbols(symbol, pair):
    table = load_symbols()
    assert table.pair(symbol) == pair
    assert table.symbol(pair) == symbol


def test_dollar_currencies_are_never_merged():
    table = load_symbols()
    assert len({table.pair(s) for s in ("BTCUSDT", "BTCUSDC", "BTCFDUSD", "BTCTUSD")}) == 4


def test_unlisted_symbol_with_one_possible_quote_is_named_by_it():
    assert load_symbols().pair("NEWCOINUSDT") == "NEWCOIN/USDT"


@pytest.mark.parametrize("symbol", ["XBTUSD", "NEWFDUSD"])
def test_symbol_that_can_be_split_in_two_ways_is_an_error(symbol):
    table = SymbolTable("venue", {}, quotes=["USD", "TUSD", "FDUSD"])
    with pytest.raises(SymbolError, match=rf"venue.*'{symbol}'.*ends in .* and in USD.*load"):
        table.pair(symbol)


@pytest.mark.parametrize("symbol", ["FOOBAR", "USDT", "", "btcusdt"])
def test_symbol_without_a_known_quote_is_an_error(symbol):
    with pytest.raises(SymbolError, match="ends in no known quote; load the exchange's own list"):
        load_symbols().pair(symbol)


def test_exchange_info_overrules_the_rule_and_the_shipped_table(tmp_path):
    path = tmp_path / "exchangeInfo.json"
    rows = [("XBTUSD", "XBT", "USD"), ("ODDUSDT", "OD", "DUSDT")]
    symbols = [{"symbol": s, "baseAsset": b, "quoteAsset": q, "filters": []} for s, b, q in rows]
    path.write_text(json.dumps({"timezone": "UTC", "symbols": symbols}))
    table = load_symbols(path)
    assert table.pair("XBTUSD") == "XBT/USD"
    assert table.pair("ODDUSDT") == "OD/DUSDT"
    assert table.pair("BTCUSDT") == "BTC/USDT"


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"symbols": [{"symbol": 1}]}'])
def test_file_that_is_no_exchange_info_is_named(tmp_path, content):
    path = tmp_path / "symbols.json"
    path.write_bytes(content)
    with pytest.raises(SymbolError, match=r"symbols\.json: not a saved reply of /api/v3/exchange"):
        load_symbols(path)


def test_missing_symbol_file_is_named(tmp_path):
    with pytest.raises(SymbolError, match=r"absent\.json.*No such file"):
        load_symbols(tmp_path / "absent.json")


@pytest.mark.parametrize("pair", ["BTCUSDT", "BTC/", "/USDT", "btc/usdt", "A/B/C", "BTC /USDT"])
def test_pair_must_be_base_slash_quote(pair):
    with pytest.raises(SymbolError, match="expected BASE/QUOTE in upper case, such as BTC/USDT"):
        split_pair(pair)


def test_one_symbol_cannot_mean_two_pairs():
    table = SymbolTable("venue", {"XBTUSD": "XBT/USD"})
    with pytest.raises(SymbolError, match="XBTUSD is XBT/USD already, it cannot be XB/TUSD"):
        table.add("XBTUSD", "XB/TUSD")
