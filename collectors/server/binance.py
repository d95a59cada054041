"""Binance Spot's side of its protocol: see `binance_streams.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from collectors.market import UNIT
from collectors.server.binance_streams import BinanceStreamsDialect, Payload, Pending
from collectors.server.tape import Happening
from collectors.server.text import full

_AMOUNT = b"%d.%08d"  # of whole units and 1e-8 units
_TRADE = b'{"e":"trade","E":%%d,"s":"%%s","t":%%d,"p":"%s","q":"%s","T":%%d,"m":%%s,"M":true}' % (
    _AMOUNT,
    _AMOUNT,
)
_BOOK_TICKER = b'{"u":%%d,"s":"%%s","b":"%s","B":"%s","a":"%s","A":"%s"}' % ((_AMOUNT,) * 4)


class BinanceSpotDialect(BinanceStreamsDialect):
    """Binance Spot."""

    exchange = "binance"
    messages_per_s = 5
    speeds: ClassVar = {"depth": 1000, "depth@100ms": 100}
    prefix = "/api/v3/"
    depths = 5000

    def accepts(self, path: str) -> bool:
        return path in ("/stream", "/ws") or path.startswith("/ws/")

    def _text(self, pair: str) -> tuple[Callable[[int], str], Callable[[int], str]]:
        return full, full

    def _first_id(self, pair: str) -> int:
        return self.market.book(pair).update_id

    def _number(self, what: Happening) -> None:
        self._last_ids[what.pair] = what.ids[1]

    def _first_number(self, what: Happening) -> int:
        return what.ids[0]

    def _trades(self, what: Happening) -> None:
        pair = what.pair
        if not self._listeners.get(self._stream(pair, "trade")[0]):
            return
        now_ns, name = self.stamp(what.time_ns), self._names[pair].encode()
        for one in what.prints:
            maker = b"true" if one.side < 0 else b"false"
            price, size = divmod(one.price, UNIT), divmod(one.size, UNIT)
            fields = one.trade_id, *price, *size

            def payload(unit: int, fields: Any = fields, maker: bytes = maker) -> bytes:
                time = now_ns // unit
                return _TRADE % (time, name, *fields, time, maker)

            self._emit(pair, "trade", payload)

    def _book_ticker(self, pair: str, quote: tuple[int, int, int, int], now_ns: int) -> Payload:
        numbers = [part for units in quote for part in divmod(units, UNIT)]
        message = _BOOK_TICKER % (self._last_ids[pair], self._names[pair].encode(), *numbers)
        return lambda unit: message

    def _difference(self, pair: str, pending: Pending, now_ns: int) -> Payload:
        bids, asks = self._changed(pair, pending)

        def payload(unit: int) -> bytes:
            return b'{"e":"depthUpdate","E":%d,"s":"%s","U":%d,"u":%d,"b":%s,"a":%s}' % (
                self.stamp(now_ns) // unit,
                self._names[pair].encode(),
                pending.published + 1,
                pending.last,
                bids,
                asks,
            )

        return payload
