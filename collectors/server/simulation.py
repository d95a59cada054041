"""A simulated exchange without its sockets: a market, a dialect, connections, faults, time.

    simulation = Simulation("binance", ["BTC/USDT"], seed=7)
    talk = simulation.connect("/ws/btcusdt@trade", {})
    simulation.advance(simulation.now_ns + 1_000_000_000)
    talk.out  # the trades of that second

The same seed, requests and times give the same bytes. The market does not notice its audience.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from collectors.market import Book, Market
from collectors.server.dialect import JSON, Answer, Dialect, Stamp, market_time
from collectors.server.dialects import make_dialect
from collectors.server.faults import Fault, Faults, Injected
from collectors.server.talk import SECOND, Talk
from collectors.server.tape import Happening, Tape
from collectors.simulator import START_NS
from collectors.venues import majors

NEVER = 2**63 - 1
_BURSTS_PER_PAIR = 0.5  # a second, in calm times
_BEFORE_S = 60  # of market time pass before the first client: books and tapes have a past


class Simulation:
    """One exchange."""

    waits: ClassVar[bool] = False
    """Whether nothing is to happen before the first client listens, whatever the pace."""
    dialect: Dialect | None = None

    def __init__(
        self,
        exchange: str,
        symbols: Sequence[str] = (),
        *,
        seed: int = 1,
        start_ns: int = START_NS,
        bursts_per_s: float = 0.0,
        faults: Iterable[Fault] = (),
        stamp: Stamp = market_time,
    ) -> None:
        """By default the exchange's majors; `bursts_per_s` (0: so many per symbol as is usual) is
        how often something happens on the market. `stamp` says which time is written into a message
        that is made at a market time: another one measures how long messages take to arrive."""
        pairs = list(dict.fromkeys(symbols)) or majors(exchange)
        before_ns = start_ns - _BEFORE_S * SECOND
        rate = bursts_per_s or _BURSTS_PER_PAIR * len(pairs)
        self._market = Market(pairs, seed, before_ns, rate)
        self._ids = {pair: self._market.book(pair).update_id for pair in pairs}
        self._tapes = {pair: Tape(self._market.book(pair).asks.best) for pair in pairs}
        self._begin(faults, seed, before_ns)
        self._next_ns, self._next_pair = self._market.advance()
        self.advance(start_ns)
        self.dialect = make_dialect(exchange, self._market, self._tapes, self.faults, start_ns)
        self.dialect.stamp = stamp

    def _begin(self, faults: Iterable[Fault], seed: int, now_ns: int) -> None:
        self.faults = Faults(faults, seed)
        self.talks: list[Talk] = []
        self.connections = 0
        """Since the start."""
        self.now_ns = now_ns
        self._next_ns = NEVER

    @property
    def over(self) -> bool:
        """Whether nothing more will ever happen."""
        return False

    @property
    def log(self) -> list[Injected]:
        """The faults so far."""
        return self.faults.log

    def book(self, pair: str) -> Book:
        """The market's order book."""
        return self._market.book(pair)

    def inject(self, fault: Fault) -> None:
        """From now on."""
        self.faults.inject(fault)

    def connect(self, path: str, query: dict[str, list[str]]) -> Talk | Answer:
        """A client opens a web socket: the connection, or why not."""
        assert self.dialect is not None
        if not self.dialect.accepts(path):
            return Answer(404, b"there is no web socket here\n", {})
        refusal = self._refusal("")
        if refusal is not None:
            return refusal
        self.connections += 1
        talk = Talk(self.connections, path, dict(query), self.faults, self.dialect.announce)
        talk.opened_ns = self.now_ns
        talk.pass_time(self.now_ns)
        self.talks.append(talk)
        self.dialect.greet(talk, self.now_ns)
        return talk

    def hear(self, talk: Talk, message: bytes) -> None:
        """A client says something."""
        if talk.closing is None and self.dialect is not None:
            self.dialect.hear(talk, message, self.now_ns)

    def leave(self, talk: Talk) -> None:
        """A connection is gone."""
        assert self.dialect is not None
        self.talks.remove(talk)
        self.dialect.leave(talk)

    def ask(self, path: str, query: Mapping[str, Sequence[str]]) -> Answer | None:
        """A REST request; None if there is nothing at this path."""
        assert self.dialect is not None
        answer = self.dialect.ask(path, query, self.now_ns)
        return None if answer is None else self._refusal("rest") or answer

    def _refusal(self, channel: str) -> Answer | None:
        fault = self.faults.refusal(channel)
        if fault is None:
            return None
        self.log.append(Injected("refuse", channel, "", 0, self.now_ns, b""))
        if not fault.seconds:
            return Answer(503, b'{"msg":"service unavailable"}', JSON)
        limited = {**JSON, "Retry-After": f"{fault.seconds:.0f}"}
        return Answer(429, b'{"code":-1003,"msg":"Too many requests."}', limited)

    @property
    def listened(self) -> bool:
        """Whether anybody is subscribed to anything."""
        return any(talk.subscriptions for talk in self.talks)

    def due_ns(self) -> int:
        """When something happens next."""
        times = [self._next_ns]
        if self.dialect is not None:
            times.append(self.dialect.due_ns())
        for talk in self.talks:
            due = talk.due_ns()
            if due is not None:
                times.append(due)
        return min(times)

    def advance(self, until_ns: int) -> None:
        """Let everything happen that is due by then, in its order."""
        while (due := self.due_ns()) <= until_ns:
            self._pass(due)
            if self.dialect is not None and self.dialect.due_ns() <= due:
                self.dialect.tick(due)
            elif self._next_ns <= due:
                self._happen()
        self._pass(max(until_ns, self.now_ns))

    def _pass(self, now_ns: int) -> None:
        self.now_ns = now_ns
        for talk in self.talks:
            talk.pass_time(now_ns)

    def _happen(self) -> None:
        pair = self._next_pair
        prints = self._market.act(pair)
        book = self._market.book(pair)
        first = self._ids[pair] + 1
        self._ids[pair] = book.update_id
        for one in prints:
            self._tapes[pair].add(self.now_ns, one)
        changes = book.take_changes()
        if self.dialect is not None:
            ids = first, book.update_id
            self.dialect.publish(Happening(self.now_ns, pair, prints, changes, ids))
        self._next_ns, self._next_pair = self._market.advance()
