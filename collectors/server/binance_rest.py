"""Binance's REST interface as far as books and statistics go: see `binance_streams.py`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from collectors.market import Market
from collectors.server.dialect import JSON, Answer, Dialect
from collectors.server.faults import Faults
from collectors.server.tape import Tape
from collectors.server.text import full

MS = 1_000_000


class BinanceRest(Dialect):
    """What can be asked of either market."""

    prefix: ClassVar[str]
    depths: ClassVar[int]
    """Levels of a side that a book can be asked for."""

    def __init__(
        self, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
    ) -> None:
        super().__init__(market, tapes, faults, now_ns)
        self._names = {pair: pair.partition(":")[0].replace("/", "") for pair in self.pairs}
        self._by_name = {name: pair for pair, name in self._names.items()}
        self._last_ids = {pair: self._first_id(pair) for pair in self.pairs}
        """Number of the last change in a book."""

    def ask(self, path: str, query: Mapping[str, Sequence[str]], now_ns: int) -> Answer | None:
        if not path.startswith(self.prefix):
            return None
        what = path.removeprefix(self.prefix)
        if what == "ping":
            return Answer(200, b"{}")
        if what == "time":
            return Answer(200, b'{"serverTime":%d}' % (self.stamp(now_ns) // MS))
        if what == "exchangeInfo":
            pairs = [self._info(pair) for pair in self.pairs]
            return Answer(200, msgspec.json.encode({"timezone": "UTC", "symbols": pairs}))
        if what not in self._reports():
            return None
        pair = self._by_name.get("".join(query.get("symbol", [])))
        if pair is None:
            return Answer(400, b'{"code":-1121,"msg":"Invalid symbol."}')
        return self._reports()[what](pair, query, now_ns)

    def _reports(self) -> Mapping[str, Callable[[str, Mapping[str, Sequence[str]], int], Answer]]:
        """What can be asked of one symbol."""
        return {"depth": self._depth}

    def _depth(self, pair: str, query: Mapping[str, Sequence[str]], now_ns: int) -> Answer:
        text = "".join(query.get("limit", [])) or "100"
        if not text.isdigit() or not 0 < int(text) <= self.depths:
            return Answer(
                400, b'{"code":-1130,"msg":"Data sent for parameter \'limit\' is not valid."}'
            )
        book, count = self.market.book(pair), int(text)
        bids, asks = (self._levels(pair, side.levels()[:count]) for side in (book.bids, book.asks))
        body = b'{"lastUpdateId":%d,%s"bids":%s,"asks":%s}'
        last = book.update_id if self.recorded else self._last_ids[pair]
        return Answer(200, body % (last, self._when(now_ns), bids, asks), JSON)

    def _when(self, now_ns: int) -> bytes:
        return b""

    def _info(self, pair: str) -> dict[str, Any]:
        base, _, quote = pair.partition(":")[0].partition("/")
        asset = self.market.asset(pair)
        tick, lot = full(asset.tick), full(asset.lot)
        return {
            "symbol": self._names[pair],
            "status": "TRADING",
            "baseAsset": base,
            "quoteAsset": quote,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": tick},
                {"filterType": "LOT_SIZE", "minQty": lot, "stepSize": lot},
            ],
        }

    def _levels(self, pair: str, levels: Sequence[tuple[int, int]]) -> bytes:
        price, size = self._text(pair)
        inner = ",".join(f'["{price(p)}","{size(q)}"]' for p, q in levels)
        return b"[%s]" % inner.encode()

    @abstractmethod
    def _text(self, pair: str) -> tuple[Callable[[int], str], Callable[[int], str]]:
        """How prices and sizes are written."""

    @abstractmethod
    def _first_id(self, pair: str) -> int:
        """The number of the book's last change at the start."""
