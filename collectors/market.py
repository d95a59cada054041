"""A seeded model of a market: correlated prices, order books, trades, bursts of volatility.

It knows no exchange. `Market.advance` says when and to which pair something happens next, and
`Market.act` lets it happen: a market order, a market maker moving its quotes, an order changed
deeper in the book. Books can be looked at in between. The same seed gives the same market.

Prices and sizes are whole numbers of 1e-8 units of the quote and base currency.

Fair values follow one common factor and a noise of their own. Volatility is calm most of the time;
now and then it jumps and decays, and activity and spreads rise with it. Takers lean towards the
side that the fair value favours, so order flow predicts price a little, as it does in life.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from collectors.errors import CollectorError

UNIT = 100_000_000
_DEPTH = 40
_HEAT_HALFLIFE_S = 20.0
_SECONDS_BETWEEN_SHOCKS = 240.0
_FACTOR_VOLATILITY = 1.3e-4  # per square root of a second: 73 % a year
_ACTIONS_PER_BURST = 5.0
_MORE_ORDERS_PER_LEVEL = 4.0


@dataclass(frozen=True)
class Asset:
    """What is traded and how it behaves."""

    price: float
    tick: int
    """Price step, in units."""
    lot: int
    """Size step, in units."""
    trade_size: float
    spread_bps: float
    beta: float
    own_volatility: float
    """Per square root of a second."""
    weight: float
    """Share of the activity."""


ASSETS: Mapping[str, Asset] = {
    "BTC": Asset(83_250.0, 1_000_000, 1_000, 0.04, 0.25, 1.0, 0.3e-4, 2.2),
    "ETH": Asset(2_665.0, 1_000_000, 10_000, 0.8, 0.5, 1.2, 0.8e-4, 2.0),
    "SOL": Asset(141.0, 1_000_000, 100_000, 12.0, 1.2, 1.5, 1.5e-4, 1.9),
    "XRP": Asset(2.12, 10_000, 10_000_000, 900.0, 1.0, 1.3, 1.4e-4, 1.5),
    "DOGE": Asset(0.146, 1_000, 100_000_000, 9_000.0, 1.4, 1.7, 1.6e-4, 1.2),
    "ADA": Asset(0.412, 10_000, 10_000_000, 3_000.0, 1.8, 1.4, 1.5e-4, 0.9),
    "LINK": Asset(13.4, 100_000, 1_000_000, 60.0, 1.6, 1.4, 1.4e-4, 0.8),
    "AVAX": Asset(13.9, 100_000, 1_000_000, 60.0, 1.8, 1.5, 1.6e-4, 0.8),
    "LTC": Asset(81.5, 1_000_000, 100_000, 8.0, 1.8, 1.1, 1.2e-4, 0.7),
    "BCH": Asset(588.0, 1_000_000, 100_000, 1.2, 1.8, 1.1, 1.3e-4, 0.6),
    "DOT": Asset(2.13, 10_000, 1_000_000, 300.0, 2.2, 1.4, 1.5e-4, 0.6),
    "XLM": Asset(0.242, 1_000, 10_000_000, 4_000.0, 2.4, 1.3, 1.6e-4, 0.5),
    "UNI": Asset(5.86, 100_000, 1_000_000, 110.0, 2.2, 1.4, 1.7e-4, 0.5),
    "ATOM": Asset(2.42, 10_000, 1_000_000, 250.0, 2.4, 1.3, 1.5e-4, 0.5),
}
"""By base currency; every quote currency is worth a dollar here."""


def asset_of(pair: str) -> Asset:
    """The asset that `pair`, BASE/QUOTE, trades."""
    base = pair.partition("/")[0]
    if base not in ASSETS:
        known = ", ".join(ASSETS)
        raise CollectorError(f"simulated market: no pair {pair!r}; its base can be {known}")
    return ASSETS[base]


class BookSide:
    """The levels of one side of a book, sorted by price."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.prices: list[int] = []
        self.sizes: dict[int, int] = {}

    @property
    def best(self) -> int:
        """Price of the best level."""
        return self.prices[-1 if self.sign > 0 else 0]

    @property
    def worst(self) -> int:
        """Price of the last level."""
        return self.prices[0 if self.sign > 0 else -1]

    def levels(self) -> list[tuple[int, int]]:
        """(price, size), best first."""
        prices = reversed(self.prices) if self.sign > 0 else self.prices
        return [(price, self.sizes[price]) for price in prices]

    def fill(self, levels: Iterable[tuple[int, int]]) -> None:
        """Take these levels, (price, size), instead of what there is."""
        self.sizes = dict(levels)
        self.prices = sorted(self.sizes)

    def put(self, price: int, size: int) -> None:
        """Set a level's size; 0 removes it."""
        if size:
            if price not in self.sizes:
                insort(self.prices, price)
            self.sizes[price] = size
        elif self.sizes.pop(price, 0):
            del self.prices[bisect_left(self.prices, price)]


class Book:
    """An order book that numbers its changes and remembers those not yet published."""

    def __init__(self, update_id: int) -> None:
        self.bids, self.asks = BookSide(1), BookSide(-1)
        self.update_id = update_id
        self.changes: dict[tuple[int, int], int] = {}

    def put(self, side: BookSide, price: int, size: int) -> None:
        """Set a level's size and count the change."""
        side.put(price, size)
        self.update_id += 1
        self.changes[side.sign, price] = size

    def take_changes(self) -> dict[tuple[int, int], int]:
        """Changed levels, (sign, price) -> size, since the last call."""
        changes, self.changes = self.changes, {}
        return changes

    def quote(self) -> tuple[int, int, int, int]:
        """bid, bid size, ask, ask size; 0 for what an empty side lacks."""
        if not self.bids.prices or not self.asks.prices:
            return 0, 0, 0, 0
        bid, ask = self.bids.best, self.asks.best
        return bid, self.bids.sizes[bid], ask, self.asks.sizes[ask]


@dataclass(frozen=True)
class Print:
    """One execution against one level; `side` is the taker's."""

    trade_id: int
    price: int
    size: int
    side: int


@dataclass
class _Stock:
    """A pair's changing state."""

    asset: Asset
    book: Book
    trade_id: int
    moved_ns: int
    own: float = 0.0


class Market:
    """Several pairs that move together."""

    def __init__(
        self, pairs: Sequence[str], seed: int, start_ns: int, bursts_per_s: float = 1.6
    ) -> None:
        """`bursts_per_s`: how often something happens, over all pairs, in calm times."""
        assets = {pair: asset_of(pair) for pair in pairs}
        self._random = random.Random(seed)
        self._bursts_per_s = bursts_per_s
        self._time_ns = start_ns
        self._factor = 0.0
        self._heat = 1.0
        self._stocks: dict[str, _Stock] = {}
        for pair, asset in assets.items():
            book = Book(self._random.randrange(10**9, 10**11))
            trade_id = self._random.randrange(10**8, 10**10)
            stock = _Stock(asset, book, trade_id, start_ns)
            self._stocks[pair] = stock
            self._quote(stock, self._fair(stock), 1.0)
            self._refill(stock)
            book.take_changes()
        self._schedule = self._events()

    def asset(self, pair: str) -> Asset:
        """What the pair trades."""
        return self._stocks[pair].asset

    def book(self, pair: str) -> Book:
        """The pair's order book as of the last step."""
        return self._stocks[pair].book

    def fair(self, pair: str) -> float:
        """The pair's fair value as of its last step, in units."""
        return self._value(self._stocks[pair])

    def advance(self) -> tuple[int, str]:
        """Let time pass until something is about to happen: when (ns), and to which pair."""
        return next(self._schedule)

    def act(self, pair: str) -> list[Print]:
        """Let one thing happen to the pair's book; returns the executions."""
        stock = self._stocks[pair]
        fair = self._fair(stock)
        choice = self._random.random()
        prints: list[Print] = []
        self._quote(stock, fair, 0.6 if choice < 0.4 else 0.0)
        if choice > 0.65:
            prints = self._market_order(stock, fair)
        elif choice > 0.4:
            self._rest(stock)
        self._refill(stock)
        return prints

    def _events(self) -> Iterator[tuple[int, str]]:
        """Bursts of actions on one pair, a few ms apart; more of them when the market is hot."""
        pairs = list(self._stocks)
        weights = [stock.asset.weight for stock in self._stocks.values()]
        while True:
            self._wait(self._random.expovariate(self._bursts_per_s * (0.5 + 0.5 * self._heat)))
            pair = self._random.choices(pairs, weights)[0]
            for _ in range(1 + int(self._random.expovariate(1 / (_ACTIONS_PER_BURST - 1)) + 0.5)):
                yield self._time_ns, pair
                self._wait(self._random.expovariate(50.0))

    def _wait(self, seconds: float) -> None:
        """Let time pass: volatility decays or jumps, the common factor moves."""
        micros = 1 + int(seconds * 1e6)
        seconds = micros / 1e6
        self._time_ns += micros * 1_000
        self._heat = 1.0 + (self._heat - 1.0) * 0.5 ** (seconds / _HEAT_HALFLIFE_S)
        if self._random.random() < seconds / _SECONDS_BETWEEN_SHOCKS:
            self._heat += 2.0 + 2.0 * self._random.random()
        scale = _FACTOR_VOLATILITY * self._heat * math.sqrt(seconds)
        self._factor += scale * self._random.gauss(0.0, 1.0)

    def _fair(self, stock: _Stock) -> float:
        """The pair's fair price now, in units."""
        seconds = (self._time_ns - stock.moved_ns) / 1e9
        stock.moved_ns = self._time_ns
        scale = stock.asset.own_volatility * self._heat * math.sqrt(seconds)
        stock.own += scale * self._random.gauss(0.0, 1.0)
        return self._value(stock)

    def _value(self, stock: _Stock) -> float:
        return stock.asset.price * (1.0 + stock.asset.beta * self._factor + stock.own) * UNIT

    def _half_spread(self, stock: _Stock, fair: float) -> float:
        return fair * stock.asset.spread_bps * 0.5e-4 * (0.5 + 0.5 * self._heat)

    def _market_order(self, stock: _Stock, fair: float) -> list[Print]:
        book = stock.book
        lean = (fair - (book.bids.best + book.asks.best) / 2) / self._half_spread(stock, fair)
        buys = self._random.random() < 0.5 + 0.35 * max(-1.0, min(1.0, lean))
        taken = book.asks if buys else book.bids
        left = self._size(stock, 1.0)
        prints = []
        while left and len(taken.prices) > 1:
            price = taken.best
            size = min(left, taken.sizes[price])
            for part in self._parts(stock, size):
                stock.trade_id += 1
                prints.append(Print(stock.trade_id, price, part, 1 if buys else -1))
            book.put(taken, price, taken.sizes[price] - size)
            left -= size
        return prints

    def _parts(self, stock: _Stock, size: int) -> list[int]:
        """What each of the resting orders that make up a level sells or buys of `size`."""
        orders = 1 + int(self._random.expovariate(1 / _MORE_ORDERS_PER_LEVEL) + 0.5)
        lots = size // stock.asset.lot
        cuts = sorted({self._random.randrange(lots) for _ in range(orders - 1)} - {0})
        ends = [*cuts, lots]
        return [(b - a) * stock.asset.lot for a, b in zip([0, *cuts], ends, strict=True)]

    def _quote(self, stock: _Stock, fair: float, eagerness: float) -> None:
        """Market makers withdraw what the fair value has overtaken, and fill the gap it left.

        `eagerness` is the chance that they quote a side that is near enough already.
        """
        book, tick = stock.book, stock.asset.tick
        half = self._half_spread(stock, fair) * (0.6 + 0.8 * self._random.random())
        sides = (book.bids, book.asks)
        for side in sides:
            while side.prices and (side.best - fair) * side.sign > -0.2 * half:
                book.put(side, side.best, 0)
        # Every bid is below the fair value now and every ask above: the book cannot cross.
        prices = (int((fair - half) / tick) * tick, (int((fair + half) / tick) + 1) * tick)
        for side, price in zip(sides, prices, strict=True):
            far = not side.prices or (fair - side.best) * side.sign > 2.5 * half
            if far or self._random.random() < eagerness:
                book.put(side, price, self._size(stock, 3.0))

    def _rest(self, stock: _Stock) -> None:
        """An order deeper in the book appears, changes or goes."""
        side = self._random.choice((stock.book.bids, stock.book.asks))
        price = self._random.choice(side.prices)
        size = 0 if self._random.random() < 0.4 and len(side.prices) > 1 else 1
        stock.book.put(side, price, size * self._size(stock, 4.0))

    def _refill(self, stock: _Stock) -> None:
        """Keep a full book: add levels at the far end, drop those beyond twice the depth."""
        tick = stock.asset.tick
        for side in (stock.book.bids, stock.book.asks):
            while len(side.prices) < _DEPTH:
                gap = 1 + int(self._random.expovariate(1 / (2e-5 * side.worst)) / tick)
                stock.book.put(side, side.worst - side.sign * gap * tick, self._size(stock, 5.0))
            while len(side.prices) > 2 * _DEPTH:
                stock.book.put(side, side.worst, 0)

    def _size(self, stock: _Stock, scale: float) -> int:
        """Many small sizes, few large ones; at least one lot."""
        u = self._random.random()
        lots = int(scale * stock.asset.trade_size * (0.05 + 4.0 * u * u * u * u) * UNIT)
        return max(1, lots // stock.asset.lot) * stock.asset.lot
