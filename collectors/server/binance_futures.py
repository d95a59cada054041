"""Binance USD-M futures' side of its protocol: see `binance_streams.py`.

Numbers of book changes are the exchange's, so that those of one symbol have holes. A connection
without a route acknowledges everything and carries only what `/public` does, as it does there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from collectors.market import UNIT, Market, Print
from collectors.server.binance_rest import MS
from collectors.server.binance_streams import BinanceStreamsDialect, Payload, Pending
from collectors.server.dialect import Answer
from collectors.server.faults import Faults
from collectors.server.talk import SECOND, Talk
from collectors.server.tape import Happening, Tape
from collectors.server.text import decimals_of, fixed, full

_FUNDING_NS = 8 * 3600 * SECOND
_FIRST_ID = 5_000_000_000_000
_AGGREGATES = 3_000_000_000


class BinanceFuturesDialect(BinanceStreamsDialect):
    """Binance USD-M perpetuals."""

    exchange = "binance-futures"
    messages_per_s = 10
    speeds: ClassVar = {"depth": 250, "depth@500ms": 500, "depth@100ms": 100}
    prefix = "/fapi/v1/"
    depths = 1000

    def __init__(
        self, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
    ) -> None:
        self._id = _FIRST_ID
        self._first_of: dict[str, int] = {}
        super().__init__(market, tapes, faults, now_ns)
        self._aggregates = dict.fromkeys(self.pairs, _AGGREGATES)
        self._marks_ns = _next(now_ns, SECOND)

    def accepts(self, path: str) -> bool:
        head, _, rest = path[1:].partition("/")
        if head in ("public", "market"):
            path = f"/{rest}"
        return path in ("/stream", "/ws") or path.startswith("/ws/")

    def _carries(self, talk: Talk, kind: str) -> bool:
        public = kind.startswith(("bookTicker", "depth"))
        return public != talk.path.startswith("/market/")

    def _text(self, pair: str) -> tuple[Callable[[int], str], Callable[[int], str]]:
        asset = self.market.asset(pair)
        price_decimals, size_decimals = decimals_of(asset.tick), decimals_of(asset.lot)
        return (lambda p: fixed(p, price_decimals)), (lambda q: fixed(q, size_decimals))

    def _first_id(self, pair: str) -> int:
        self._id += 1
        return self._id

    def _number(self, what: Happening) -> None:
        first, last = what.ids
        if last >= first:
            self._first_of[what.pair] = self._id + 1
            self._id += last - first + 1
            self._last_ids[what.pair] = self._id
            self._id += 3  # of what else the exchange trades

    def _first_number(self, what: Happening) -> int:
        return self._first_of[what.pair]

    def _trades(self, what: Happening) -> None:
        """Executions at one price by one taker are one message."""
        now_ns, pair = self.stamp(what.time_ns), what.pair
        price, size = self._text(pair)
        for prints in _by_price(what.prints):
            first, last = prints[0], prints[-1]
            self._aggregates[pair] += 1
            quantity = size(sum(one.size for one in prints))
            data = {
                "e": "aggTrade",
                "E": 0,
                "s": self._names[pair],
                "a": self._aggregates[pair],
                "p": price(first.price),
                "q": quantity,
                "nq": quantity,
                "f": first.trade_id,
                "l": last.trade_id,
                "T": 0,
                "m": first.side < 0,
                "st": 1,
            }
            self._emit(pair, "aggTrade", _timed(data, now_ns, "E", "T"))

    def _book_ticker(self, pair: str, quote: tuple[int, int, int, int], now_ns: int) -> Payload:
        price, size = self._text(pair)
        name = self._names[pair]
        data = {
            "e": "bookTicker",
            "u": self._last_ids[pair],
            "s": name,
            "ps": name,
            "b": price(quote[0]),
            "B": size(quote[1]),
            "a": price(quote[2]),
            "A": size(quote[3]),
            "T": 0,
            "E": 0,
            "st": 1,
        }
        return _timed(data, self.stamp(now_ns), "E", "T")

    def _difference(self, pair: str, pending: Pending, now_ns: int) -> Payload:
        bids, asks = self._changed(pair, pending)
        name = self._names[pair]
        data = {
            "e": "depthUpdate",
            "E": 0,
            "T": 0,
            "s": name,
            "ps": name,
            "U": pending.first,
            "u": pending.last,
            "pu": pending.published,
            "b": msgspec.Raw(bids),
            "a": msgspec.Raw(asks),
            "st": 1,
        }
        return _timed(data, self.stamp(now_ns), "E", "T")

    # -- mark prices and what REST knows ---------------------------------------------------

    def due_ns(self) -> int:
        return min(super().due_ns(), self._marks_ns)

    def tick(self, now_ns: int) -> None:
        super().tick(now_ns)
        if self._marks_ns <= now_ns:
            self._marks_ns = _next(now_ns, SECOND)
            for pair in () if self.recorded else self.pairs:
                mark = self._mark(pair, now_ns)
                self._emit(pair, "markPrice@1s", mark)
                if now_ns // SECOND % 3 == 0:
                    self._emit(pair, "markPrice", mark)

    def _mark(self, pair: str, now_ns: int) -> Payload:
        index, mark, rate = self._prices(pair)
        data = {
            "e": "markPriceUpdate",
            "E": 0,
            "s": self._names[pair],
            "p": mark,
            "ap": mark,
            "P": index,
            "i": index,
            "r": rate,
            "T": _next(self.stamp(now_ns), _FUNDING_NS) // MS,
            "st": 1,
        }
        return _timed(data, self.stamp(now_ns), "E")

    def _prices(self, pair: str) -> tuple[str, str, str]:
        """Index price, mark price and funding rate: the premium, within a basis point of 0.01 %."""
        bid, _, ask, _ = self.market.book(pair).quote()
        index, middle = self.market.fair(pair), (bid + ask) / 2
        rate = 1e-4 + max(-5e-4, min(5e-4, middle / index - 1.0))
        return full(int(index)), full(int(middle)), f"{rate:.8f}"

    def _reports(self) -> Mapping[str, Callable[[str, Mapping[str, Sequence[str]], int], Answer]]:
        return {"depth": self._depth, "openInterest": self._interest, "premiumIndex": self._premium}

    def _interest(self, pair: str, query: Mapping[str, Sequence[str]], now_ns: int) -> Answer:
        """A tide of twelve hours around a thousand times the usual trade."""
        asset = self.market.asset(pair)
        tide = math.sin(2 * math.pi * now_ns / (12 * 3600 * SECOND))
        units = int(asset.trade_size * UNIT * 1e3 * (1.0 + 0.1 * tide))
        body = {
            "symbol": self._names[pair],
            "openInterest": self._text(pair)[1](units // asset.lot * asset.lot),
            "time": self.stamp(now_ns) // MS,
        }
        return Answer(200, msgspec.json.encode(body))

    def _premium(self, pair: str, query: Mapping[str, Sequence[str]], now_ns: int) -> Answer:
        index, mark, rate = self._prices(pair)
        body = {
            "symbol": self._names[pair],
            "markPrice": mark,
            "indexPrice": index,
            "estimatedSettlePrice": index,
            "lastFundingRate": rate,
            "interestRate": "0.00010000",
            "nextFundingTime": _next(self.stamp(now_ns), _FUNDING_NS) // MS,
            "time": self.stamp(now_ns) // MS,
        }
        return Answer(200, msgspec.json.encode(body))

    def _when(self, now_ns: int) -> bytes:
        now_ms = self.stamp(now_ns) // MS
        return b'"E":%d,"T":%d,' % (now_ms, now_ms)

    def _info(self, pair: str) -> dict[str, Any]:
        known = super()._info(pair)
        name = known["symbol"]
        return known | {
            "pair": name,
            "contractType": "PERPETUAL",
            "marginAsset": known["quoteAsset"],
            "deliveryDate": 4_133_404_800_000,
        }


def _timed(data: dict[str, Any], now_ns: int, *keys: str) -> Payload:
    def payload(unit: int) -> bytes:
        return msgspec.json.encode(data | dict.fromkeys(keys, now_ns // unit))

    return payload


def _by_price(prints: Iterable[Print]) -> list[list[Print]]:
    groups: list[list[Print]] = []
    for one in prints:
        if groups and groups[-1][0].price == one.price:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _next(time_ns: int, step_ns: int) -> int:
    return (time_ns // step_ns + 1) * step_ns
