"""A client without sockets: what a simulated exchange says, decoded, checked and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from collectors.adapter import Event
from collectors.errors import DecodeError
from collectors.exchanges import make_adapter
from collectors.server.dialect import Answer
from collectors.server.simulation import Simulation
from collectors.server.talk import Talk
from collectors.session import Session
from collectors.venues import venue

SECOND = 1_000_000_000
PAIRS = {
    "binance": ("BTC/USDT", "ETH/USDT", "SOL/USDT"),
    "binance-futures": ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT"),
    "kraken": ("BTC/USD", "ETH/USD", "SOL/USD"),
    "coinbase": ("BTC/USD", "ETH/USD", "SOL/USD"),
}
EXCHANGES = tuple(PAIRS)


def talk_to(simulation: Simulation, path: str, **query: str) -> Talk:
    """An open connection."""
    talk = simulation.connect(path, {name: [value] for name, value in query.items()})
    assert isinstance(talk, Talk), talk
    return talk


def asked(simulation: Simulation, path: str) -> Answer | None:
    """The answer to a REST request."""
    address = urlsplit(path)
    return simulation.ask(address.path, parse_qs(address.query))


class Listener:
    """Connected by every route, subscribed to everything of its pairs."""

    def __init__(self, exchange: str, pairs: Sequence[str] = (), **market: Any) -> None:
        self.pairs = list(pairs or PAIRS[exchange])
        self.simulation = Simulation(exchange, self.pairs, **market)
        self.adapter = make_adapter(exchange)
        self.venue = venue(exchange)
        self.session = Session(self.adapter, [*self.adapter.channels, "gaps"])
        self.frames: list[bytes] = []
        self.events: list[Event] = []
        self.errors = 0
        self.talks = {
            route: talk_to(self.simulation, urlsplit(url).path)
            for route, url in self.venue.sockets.items()
        }
        for request in self.adapter.subscribe(self.pairs, self.adapter.channels):
            self.simulation.hear(self.talks[request.route], request.frame)
        self.listen()

    def listen(self) -> None:
        """Take what has been sent."""
        for talk in self.talks.values():
            frames, talk.out = talk.out, []
            for frame in frames:
                self.take(frame)

    def take(self, frame: bytes) -> None:
        """Decode and check a message."""
        self.frames.append(frame)
        try:
            self.events += self.session.frame(self.simulation.now_ns, frame)
        except DecodeError:
            self.errors += 1

    def run(self, seconds: float) -> None:
        """Let time pass, listening."""
        end_ns = self.simulation.now_ns + int(seconds * SECOND)
        while self.simulation.now_ns < end_ns:
            self.simulation.advance(min(end_ns, self.simulation.now_ns + SECOND // 10))
            self.listen()

    def fetch_books(self) -> None:
        """Ask by REST for the books that begin so."""
        if self.venue.snapshot:
            for pair in self.pairs:
                path = self.venue.snapshot.format(symbol=self.adapter.rest_symbol(pair))
                answer = asked(self.simulation, path)
                assert answer is not None
                assert answer.status == 200
                self.take(self.adapter.wrap_snapshot(pair, answer.body))

    def to_the_second(self) -> None:
        """All that has happened is published then."""
        self.run(1.0 - self.simulation.now_ns % SECOND / SECOND)

    @property
    def kinds(self) -> Counter[str]:
        """How many events of which kind there were."""
        return Counter(type(event).__name__ for event in self.events)

    def book(self, pair: str, depth: int = 9_999) -> tuple[Any, Any]:
        """As it was put together from the messages."""
        book = self.session.integrity.book(pair)
        assert book is not None, pair
        return book.top(depth)

    def true_book(self, pair: str, depth: int = 9_999) -> tuple[Any, Any]:
        """As it is on the market."""
        true = self.simulation.book(pair)
        bids, asks = (
            [(price / 1e8, size / 1e8) for price, size in side.levels()[:depth]]
            for side in (true.bids, true.asks)
        )
        return bids, asks


def of(events: Iterable[Event], kind: type, pair: str) -> list[Any]:
    """The events of a kind and pair."""
    return [e for e in events if isinstance(e, kind) and getattr(e, "symbol", "") == pair]
