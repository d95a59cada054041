"""What the feed asks for by REST, and when: book snapshots and polls."""

from __future__ import annotations

import random

from collectors.adapter import Adapter
from collectors.feed_lines import Fetch, Pair
from collectors.venues import Venue

SECOND = 1_000_000_000
LIMITED = (418, 429)  # the exchange's words for too many requests
LIMITED_S = 60.0  # to stay away after them, if the answer does not say
RETRY_S = (0.5, 30.0)  # the first and the longest wait for a younger snapshot


class Fetches:
    """Requests that are due, within the exchange's limits; each snapshot is asked for once."""

    def __init__(self, adapter: Adapter, venue: Venue, chance: random.Random) -> None:
        self._adapter = adapter
        self._venue = venue
        self._chance = chance
        self._wanted: dict[str, int] = {}  # symbol -> when to ask for its snapshot
        self._asked: set[str] = set()
        self._tries: dict[str, int] = {}
        self._polls: dict[tuple[int, str], int] = {}
        self._next_ns = 0  # no snapshot before that

    def want(self, symbol: str, now: int) -> None:
        """A snapshot of the symbol's book is needed."""
        self._wanted.setdefault(symbol, now)

    def forget(self, symbol: str) -> None:
        """No longer."""
        self._wanted.pop(symbol, None)

    def poll(self, pair: Pair, now: int) -> None:
        """Ask for what belongs to this channel of the symbol, from now on."""
        symbol, channel = pair
        for at, poll in enumerate(self._venue.polls):
            if poll.channel == channel:
                self._polls[at, symbol] = now

    def stop_poll(self, pair: Pair) -> None:
        """No longer."""
        symbol, channel = pair
        for at, poll in enumerate(self._venue.polls):
            if poll.channel == channel:
                self._polls.pop((at, symbol), None)

    def due(self, now: int) -> list[Fetch]:
        """The requests to make now."""
        found = []
        for (at, symbol), due in self._polls.items():
            if due <= now:
                poll = self._venue.polls[at]
                # Spread, so that the polls of many symbols do not come all at once.
                wait_s = poll.interval_s * self._chance.uniform(0.9, 1.1)
                self._polls[at, symbol] = now + int(wait_s * SECOND)
                found.append(Fetch(self._address(poll.path, symbol)))
        for symbol, due in list(self._wanted.items()):
            if due <= now and now >= self._next_ns and symbol not in self._asked:
                del self._wanted[symbol]
                self._asked.add(symbol)
                self._next_ns = now + int(SECOND / self._venue.snapshots_per_s)
                found.append(Fetch(self._address(self._venue.snapshot, symbol), symbol))
        return found

    def answered(self, fetch: Fetch) -> None:
        """The answer is there, whatever it is."""
        if fetch.symbol is not None:
            self._asked.discard(fetch.symbol)

    def refused(self, fetch: Fetch, now: int, status: int, retry_after_s: float) -> None:
        """It is none: wait, and ask again."""
        if status in LIMITED:
            pause_ns = int(max(retry_after_s, LIMITED_S) * SECOND)
            self._next_ns = max(self._next_ns, now + pause_ns)
            self._polls = {key: max(due, self._next_ns) for key, due in self._polls.items()}
            if fetch.symbol is not None:
                self.want(fetch.symbol, now)
        elif fetch.symbol is not None:  # an error of one symbol delays no other
            self.too_old(fetch.symbol, now)

    def too_old(self, symbol: str, now: int) -> None:
        """The snapshot is of no use yet: ask for a younger one, later each time."""
        tries = self._tries[symbol] = self._tries.get(symbol, -1) + 1
        wait_s = min(RETRY_S[1], RETRY_S[0] * 2 ** min(tries, 16))
        self._wanted[symbol] = now + int(wait_s * SECOND)

    def spliced(self, symbol: str) -> None:
        """The snapshot fits."""
        self._tries.pop(symbol, None)

    def _address(self, path: str, symbol: str) -> str:
        return self._venue.rest + path.format(symbol=self._adapter.rest_symbol(symbol))
