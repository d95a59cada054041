"""The dialects by exchange."""

from __future__ import annotations

from collections.abc import Mapping

from collectors.errors import CollectorError
from collectors.market import Market
from collectors.server.binance import BinanceSpotDialect
from collectors.server.binance_futures import BinanceFuturesDialect
from collectors.server.coinbase import CoinbaseDialect
from collectors.server.dialect import Dialect
from collectors.server.faults import Faults
from collectors.server.kraken import KrakenDialect
from collectors.server.tape import Tape

_DIALECTS: Mapping[str, type[Dialect]] = {
    kind.exchange: kind
    for kind in (BinanceSpotDialect, BinanceFuturesDialect, KrakenDialect, CoinbaseDialect)
}


def make_dialect(
    exchange: str, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
) -> Dialect:
    """The dialect of `exchange`, at the market's `now_ns`."""
    if exchange not in _DIALECTS:
        raise CollectorError(
            f"exchange {exchange!r} is not simulated; choose from {', '.join(_DIALECTS)}"
        )
    return _DIALECTS[exchange](market, tapes, faults, now_ns)
