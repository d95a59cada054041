"""The table on the screen: the latest of every symbol, gaps counted, nothing piled up."""

import io

import pytest
from rich.console import Console
from rows import built, every_channel, quote, trade, trades

from collectors.sinks import make_sink


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=160, force_terminal=False)


def shown(console):
    lines = console.file.getvalue().splitlines()
    rows = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in lines if "/" in line]
    return {(row[0], row[1]): row[2:] for row in rows}


def test_every_channel_adds_what_it_knows(screen):
    sink = make_sink("table", screen)
    for channel, batch in every_channel().items():
        sink.write(channel, batch)
    sink.close()
    assert shown(screen) == {
        ("binance", "BTC/USDT"): ["101", "103", "196.08", "103", "100.5", "0.000100", "10", "0"],
        ("binance", "ETH/USDT"): ["103", "105", "192.31", "102", "", "", "4", "1"],
    }


def test_latest_quote_wins(screen):
    sink = make_sink("table", screen)
    sink.write("ticker", built("ticker", [quote(1), quote(2), quote(7)]))
    sink.write("ticker", built("ticker", [trade(8), quote(9)], exchange="kraken"))
    sink.close()
    table = shown(screen)
    assert table["binance", "BTC/USDT"][:2] == ["106", "108"]
    assert table["kraken", "BTC/USDT"][:4] == ["108", "110", "183.49", "101"]


def test_table_does_not_grow_with_the_rows(screen):
    sink = make_sink("table", screen)
    for first in range(0, 5000, 500):
        sink.write("trades", trades(first, first + 500))
        sink.flush()
    sink.close()
    assert list(shown(screen)) == [("binance", "BTC/USDT")]
    assert shown(screen)["binance", "BTC/USDT"][-2] == "5,000"


def test_terminal_is_redrawn_in_place():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    sink = make_sink("table", console)
    for first in range(3):
        sink.write("trades", trades(first, first + 1))
        sink.flush()
    sink.close()
    sink.close()
    assert console.file.getvalue().count("\x1b[1A") >= 4


def test_nothing_is_shown_of_nothing(screen):
    make_sink("table", screen).close()
    assert screen.file.getvalue() == ""
