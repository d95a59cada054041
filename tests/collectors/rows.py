"""Canonical rows for the tests of sinks: real builders, made-up numbers."""

from __future__ import annotations

import pyarrow as pa

from collectors.adapter import BookUpdate, Funding, Gap, Quote, Recovery, Trade
from collectors.builders import BUILDERS
from collectors.serialisation.json import plain_column

NOON = 1_767_614_400_000_000_000  # 2026-01-05T12:00:00Z
SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def built(channel, events, exchange="binance"):
    """The batch that the channel's builder makes of events."""
    builder = BUILDERS[channel](exchange)
    for event in events:
        builder.handlers[type(event)](event)
    return builder.take()


def trade(number, *, symbol="BTC/USDT", recv_ns=None):
    recv_ns = NOON + number * SECOND if recv_ns is None else recv_ns
    return Trade(recv_ns, recv_ns - 7, symbol, number, number, 100.0 + number % 7, 0.5, 1)


def trades(first, end, **options):
    """Trades numbered `first`..`end - 1`, a second apart."""
    return built("trades", [trade(number, **options) for number in range(first, end)])


def quote(number, *, symbol="BTC/USDT", recv_ns=None):
    recv_ns = NOON + number * SECOND if recv_ns is None else recv_ns
    return Quote(recv_ns, None, symbol, number, 99.0 + number, 101.0 + number, 1.0, 2.0)


def every_channel():
    """One small batch of each channel, with nulls wherever the schema has them."""
    gap = Gap(NOON + 5, None, "ETH/USDT", "book", 7, 9, NOON + 1, "sequence")
    return {
        "trades": built("trades", [trade(1), trade(2, symbol="ETH/USDT"), trade(3)]),
        "ticker": built("ticker", [trade(1), quote(2), trade(3), quote(4, symbol="ETH/USDT")]),
        "book": built(
            "book",
            [
                BookUpdate(NOON, None, "BTC/USDT", 10, None, True, [(99.0, 1.0)], [(101.0, 2.0)]),
                BookUpdate(NOON + 9, NOON, "BTC/USDT", 12, 11, False, [(99.0, 0.0)], []),
            ],
        ),
        "funding": built(
            "funding",
            [
                Funding(NOON, NOON, "BTC/USDT", 1, 100.5, 100.25, 0.0001, NOON + HOUR, None),
                Funding(NOON + 1, None, "BTC/USDT", None, open_interest=12345.678),
            ],
        ),
        "gaps": built("gaps", [gap, Recovery(NOON + SECOND, gap)]),
    }


def plain(batch):
    """Rows as plain values: times as nanoseconds, names as text."""
    table = pa.table([plain_column(column) for column in batch], batch.schema.names)
    return table.to_pylist()
