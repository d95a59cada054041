"""What one exchange says and understands: the reverse of an `Adapter`.

A dialect turns what happens on the market into the exchange's messages, and answers requests. It
has no clock and no socket: it is told the time, and speaks to `Talk`s. Messages are made only if
somebody is subscribed to them, and once for all who get the same bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from collectors.market import Market
from collectors.server.faults import Faults
from collectors.server.talk import Talk
from collectors.server.tape import Happening, Tape

JSON = {"Content-Type": "application/json"}
Stamp = Callable[[int], int]
POLICY = 1008  # close code: the client does not keep to the rules


def market_time(time_ns: int) -> int:
    """The time in a message is the market's."""
    return time_ns


@dataclass(frozen=True)
class Answer:
    """A reply to a REST request."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON))


class Dialect(ABC):
    """One exchange's protocol, from the exchange's side."""

    exchange: ClassVar[str]

    def __init__(
        self, market: Market, tapes: Mapping[str, Tape], faults: Faults, now_ns: int
    ) -> None:
        """The pairs are those of `tapes`; the market is at `now_ns`."""
        self.market = market
        self.tapes = tapes
        self.faults = faults
        self.pairs: Sequence[str] = list(tapes)
        self.stamp: Stamp = market_time
        self.depths_recorded: Mapping[str, int] = {}
        """Levels of a side in the books of a recording, by pair: no other depth can be had."""
        self.recorded = False
        """Whether market data come from a recording, by `relay`."""
        self._listeners: dict[str, dict[Talk, None]] = {}

    # -- the client's doings ---------------------------------------------------------------

    @abstractmethod
    def accepts(self, path: str) -> bool:
        """Whether the exchange has a socket at this path."""

    def greet(self, talk: Talk, now_ns: int) -> None:  # noqa: B027 - most say nothing
        """A connection is open."""

    @abstractmethod
    def hear(self, talk: Talk, message: bytes, now_ns: int) -> None:
        """The client says something."""

    def leave(self, talk: Talk) -> None:
        """The connection is gone."""
        for stream in talk.subscriptions:
            self._listeners.get(stream, {}).pop(talk, None)
        talk.subscriptions.clear()

    def ask(self, path: str, query: Mapping[str, Sequence[str]], now_ns: int) -> Answer | None:
        """A REST request; None if there is nothing at this path."""
        return None

    @abstractmethod
    def announce(self, talk: Talk) -> None:
        """Say that the connection will be closed."""

    # -- the market's ----------------------------------------------------------------------

    @abstractmethod
    def publish(self, what: Happening) -> None:
        """Something happened."""

    @abstractmethod
    def relay(self, channel: str, pair: str, frame: bytes) -> None:
        """Send a recorded message about the pair to whoever subscribed what it belongs to."""

    @abstractmethod
    def due_ns(self) -> int:
        """When there is something to say even if nothing happens."""

    @abstractmethod
    def tick(self, now_ns: int) -> None:
        """Say what was due by now."""

    # -- for subclasses --------------------------------------------------------------------

    def _subscribe(self, talk: Talk, stream: str) -> bool:
        """Whether it is new."""
        if stream in talk.subscriptions:
            return False
        talk.subscriptions[stream] = None
        self._listeners.setdefault(stream, {})[talk] = None
        return True

    def _unsubscribe(self, talk: Talk, stream: str) -> bool:
        """Whether it was subscribed."""
        if stream not in talk.subscriptions:
            return False
        del talk.subscriptions[stream]
        del self._listeners[stream][talk]
        return True

    def _listening_to(self, streams: Iterable[str]) -> list[Talk]:
        """Those who have subscribed any of them, once each."""
        return list(dict.fromkeys(talk for s in streams for talk in self._listeners.get(s, ())))

    def _listening(self, stream: str) -> Sequence[Talk]:
        return list(self._listeners.get(stream, ()))
