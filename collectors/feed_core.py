"""The feed without its sockets: told what happened and what time it is, it says what to do.

It opens the sockets that the subscriptions need, subscribes within the exchange's limits, watches
every subscription for data, fetches book snapshots, asks anew for what is spoiled – and only for
that –, replaces connections before they expire and backs off when they fail. Clock, sockets and
randomness belong to the caller, so that a test can drive hours of it by hand.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate

from collectors.adapter import (
    Adapter,
    BookUpdate,
    Event,
    Funding,
    Gap,
    Quote,
    Refusal,
    Shutdown,
    Status,
    Trade,
)
from collectors.errors import DecodeError
from collectors.feed_fetch import SECOND, Fetches
from collectors.feed_lines import (
    Action,
    Close,
    FeedStatus,
    Fetch,
    Line,
    Message,
    Open,
    Pair,
    Send,
    Slot,
    Subscription,
)
from collectors.lot import NONE, RECV_TS, Lot
from collectors.raw import all_in_one_line, one_line
from collectors.scan.together import FEW
from collectors.session import Forget, Known, Lost, Session, Subscribed, mark
from collectors.venues import Venue

BACKOFF_S = (1.0, 30.0)  # the first and the longest limit of the wait before another attempt
HEALTHY_S = 60.0  # a connection that lasted so long was no failure
OVERLAP_S = 10.0  # both connections run for so long when one takes over from the other
REST_S = 300.0  # a subscription that gives no data while others do is left alone for so long
MISSES = 3  # silent subscriptions are asked for so often before the connection is given up

_CHANNEL_OF: dict[type, str] = {
    Quote: "ticker", BookUpdate: "book", Trade: "trades", Funding: "funding",
}  # fmt: skip


class FeedCore:
    """The state of one exchange's feed."""

    def __init__(
        self,
        adapter: Adapter,
        venue: Venue,
        session: Session,
        *,
        on_raw: Callable[[int, bytes], object] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.adapter = adapter
        self.venue = venue
        self.session = session
        self.counters = FeedStatus()
        self.subscriptions: dict[Pair, Subscription] = {}
        self.lines: dict[int, Line] = {}
        self._slots: dict[tuple[str, int], Slot] = {}
        self._shares: dict[str, int] = {}
        self._on_raw = on_raw
        self._chance = chance or random.Random()
        self._latest_ns = 0
        self._numbers = 0
        self._fetches = Fetches(adapter, venue, self._chance)
        self._stopped = False

    # -- what the caller wants -------------------------------------------------------------

    def know(self, trades: Mapping[str, tuple[int, int]], now: int) -> None:
        """By symbol, the id and receive time of the last trade that was collected before."""
        if trades:
            ids, times = zip(*trades.values(), strict=True)
            self._frame(self._stamp(now), mark(Known(list(trades), list(ids), list(times))))

    def subscribe(self, symbols: Sequence[str], channels: Sequence[str], now: int) -> list[Action]:
        """Also these; subscriptions that run are not disturbed. Do what it says, as always."""
        self.adapter.subscribe(symbols, channels)  # raises if the exchange has no such thing
        self._frame(self._stamp(now), mark(Subscribed(list(channels), list(symbols))))
        new = [(s, c) for s in symbols for c in channels if (s, c) not in self.subscriptions]
        for symbol, channel in new:
            self.subscriptions[symbol, channel] = Subscription()
            share = len(self._shares) // self.venue.symbols_per_socket
            self._shares.setdefault(symbol, share)
            self._fetches.poll((symbol, channel), now)
            for route in self.venue.sockets:
                if self._requests([(symbol, channel)], route):
                    slot = (route, self._shares[symbol])
                    self._slots.setdefault(slot, Slot(*slot, due_ns=now))
        for line in self.lines.values():
            if line.opened_ns:
                self._ask(line, [pair for pair in new if self._shares[pair[0]] == line.slot.share])
        return self.tick(now)

    def unsubscribe(
        self, symbols: Sequence[str], channels: Sequence[str], now: int
    ) -> list[Action]:
        """No longer these."""
        gone = [(s, c) for s in symbols for c in channels if (s, c) in self.subscriptions]
        for pair in gone:
            del self.subscriptions[pair]
            self._fetches.stop_poll(pair)
            if pair[1] == "book":
                self._fetches.forget(pair[0])
        for line in self.lines.values():
            if line.opened_ns:
                own = [pair for pair in gone if self._shares[pair[0]] == line.slot.share]
                self._take_leave(line, own)
        for names, kinds in _grouped(gone):
            self._frame(self._stamp(now), mark(Forget(list(kinds), list(names))))
        return [*self._empty_slots(), *self.tick(now)]

    def _take_leave(self, line: Line, pairs: Iterable[Pair]) -> None:
        """End these on a socket, but for what other channels of the same symbols need."""
        by_rest: dict[tuple[str, ...], list[Pair]] = {}
        pairs = list(pairs)
        for pair in pairs:
            rest = tuple(c for s, c in self.subscriptions if s == pair[0] and (s, c) not in pairs)
            by_rest.setdefault(rest, []).append(pair)
        for rest, own in by_rest.items():
            for names, kinds in _grouped(own):
                for request in self.adapter.unsubscribe(names, kinds, rest):
                    if request.route == line.slot.route:
                        line.outbox.append(Message(request.frame))

    def _empty_slots(self) -> list[Action]:
        """Close the sockets that nobody needs any more."""
        closes: list[Action] = []
        for key, slot in list(self._slots.items()):
            left = [p for p in self.subscriptions if self._shares[p[0]] == slot.share]
            if not self._requests(left, slot.route):
                del self._slots[key]
                for number in (slot.line, slot.successor):
                    if number is not None and not self.lines[number].closing:
                        closes.append(self._close(self.lines[number], "not needed"))
        return closes

    def stop(self) -> list[Action]:
        """Close everything and open nothing more."""
        self._stopped = True
        return [self._close(line, "stopped") for line in self.lines.values() if not line.closing]

    # -- what happened ---------------------------------------------------------------------

    def opened(self, number: int, now: int) -> list[Action]:
        """The socket is open."""
        line = self.lines[number]
        line.opened_ns = line.heard_ns = line.pinged_ns = now
        self.counters.connections += 1
        self._ask(line, [p for p in self.subscriptions if self._shares[p[0]] == line.slot.share])
        return self.tick(now)

    def received(self, number: int, now: int, frame: bytes) -> list[Action]:
        """A message came by the socket."""
        return self.received_many(number, (now,), (frame,))

    def received_many(
        self, number: int, times: Sequence[int], frames: Sequence[bytes]
    ) -> list[Action]:
        """Messages came by the socket, at these times."""
        line = self.lines.get(number)
        if line is None:
            return []
        now = line.heard_ns = times[-1]
        line.frames += len(frames)
        counters = self.counters
        counters.frames += len(frames)
        counters.bytes += sum(map(len, frames))
        # Receive times never go back, whatever the clock does.
        stamps = list(accumulate(times, max, initial=self._latest_ns))[1:]
        self._latest_ns = stamps[-1]
        urgent = False
        spoiled: list[str] = []
        understand = self._frames if len(frames) >= FEW else partial(map, self._frame)
        for told in understand(stamps, frames):
            if isinstance(told, Lot):
                urgent |= self._heed_lot(line, told)
            else:
                urgent |= self._heed(line, told, spoiled)
        if spoiled:  # and not mended by what came after
            integrity = self.session.integrity
            lost = [s for s in dict.fromkeys(spoiled) if integrity.book(s) is None]
            self._resync(lost, stamps[-1])
        return self.tick(now) if urgent or spoiled else []

    def _heed_lot(self, line: Line, lot: Lot) -> bool:
        """The same of what a lot has in columns."""
        line.carried, urgent = True, False
        trades, quotes = lot.chains
        books = lot.by_book
        heard = (
            ("trades", trades.names, trades.lasts),
            ("ticker", quotes.names, quotes.lasts),
            ("book", books.names, [int(of_one[-1]) for of_one in books.messages]),
        )
        for channel, names, lasts in heard:
            received = lot.ints[RECV_TS, lasts].tolist()
            for symbol, recv_ns in zip(names, received, strict=True):
                known = self.subscriptions.get((symbol, channel))
                if known is not None:
                    urgent |= self._heard(known, symbol, channel, recv_ns)
            if lasts:
                recv_ts, ts, *_ = lot.ints[:, max(lasts)].tolist()
                if ts != NONE:
                    self.counters.lag_ns = recv_ts - ts
        return urgent

    def _heard(self, known: Subscription, symbol: str, channel: str, recv_ns: int) -> bool:
        """Market data came; whether the book's first snapshot is to be asked for now."""
        urgent = channel == "book" and not known.heard_ns and bool(self.venue.snapshot)
        if urgent:
            self._fetches.want(symbol, recv_ns)
        known.heard_ns, known.misses = recv_ns, 0
        return urgent

    def _heed(self, line: Line, events: Sequence[Event], spoiled: list[str]) -> bool:
        """Take note of what a message told; whether something is to be done now."""
        counters, urgent = self.counters, False
        for event in events:
            recv_ns = event.recv_ts
            channel = _CHANNEL_OF.get(type(event))
            if channel is None:
                if isinstance(event, Gap):
                    if event.channel == "book" and (event.symbol, "book") in self.subscriptions:
                        spoiled.append(event.symbol)
                else:
                    urgent |= self._control(line, event)
                continue
            line.carried = True
            if event.ts is not None:  # type: ignore[attr-defined]
                counters.lag_ns = recv_ns - event.ts  # type: ignore[attr-defined]
            known = self.subscriptions.get((event.symbol, channel))  # type: ignore[attr-defined]
            if known is not None:
                urgent |= self._heard(known, event.symbol, channel, recv_ns)  # type: ignore[attr-defined]
        return urgent

    def closed(
        self, number: int, now: int, reason: str, retry_after_s: float = 0.0
    ) -> list[Action]:
        """The socket closed, or could not be opened."""
        line = self.lines.pop(number)
        if self._stopped:
            return []  # as wanted: nothing was lost
        slot = line.slot
        if slot.successor == number:  # it never took over; the old one goes on for a while
            slot.successor = None
            slot.renew_ns = self._after_backoff(slot, now, retry_after_s)
            self.counters.failures += not line.opened_ns
        elif slot.line == number and slot.successor is not None:
            successor = self.lines[slot.successor]
            slot.line, slot.successor = slot.successor, None
            if successor.carried and not successor.outbox:
                self.counters.replaced += 1
            else:  # there was nobody to take over yet
                self._lost(line, now, reason)
        elif slot.line == number:
            slot.line = None
            self._lost(line, now, reason)
            if line.opened_ns and now - line.opened_ns >= HEALTHY_S * SECOND:
                slot.attempts = 0
            slot.due_ns = self._after_backoff(slot, now, retry_after_s)
        return self.tick(now)

    def _after_backoff(self, slot: Slot, now: int, retry_after_s: float) -> int:
        """When to try again: full jitter, the limit doubling from attempt to attempt."""
        limit = min(BACKOFF_S[1], BACKOFF_S[0] * 2**slot.attempts)
        slot.attempts = min(slot.attempts + 1, 16)
        return now + int(max(self._chance.uniform(0.0, limit), retry_after_s) * SECOND)

    def fetched(
        self, fetch: Fetch, now: int, status: int, body: bytes, retry_after_s: float = 0.0
    ) -> list[Action]:
        """The answer to a `Fetch`; status 0 if there was none."""
        symbol = fetch.symbol
        self._fetches.answered(fetch)
        if symbol is not None and (symbol, "book") not in self.subscriptions:
            return []
        if status != 200:
            self._fetches.refused(fetch, now, status, retry_after_s)
            if status:
                self.counters.refusals += 1
                self.counters.last_refusal = f"HTTP {status}: {body[:120].decode(errors='replace')}"
            return []
        recv_ns = self._stamp(now)
        if symbol is None:
            self._frame(recv_ns, body)
            return []
        self.counters.snapshots += 1
        self._frame(recv_ns, self.adapter.wrap_snapshot(symbol, body))
        if self.session.integrity.book(symbol) is None:
            self._fetches.too_old(symbol, now)
        else:
            self._fetches.spliced(symbol)
        return self.tick(now)

    # -- the clock -------------------------------------------------------------------------

    def tick(self, now: int) -> list[Action]:
        """What is due; call it a few times a second."""
        if self._stopped:
            return []
        actions: list[Action] = []
        for slot in self._slots.values():
            if slot.due_ns is not None and slot.due_ns <= now:
                slot.due_ns = None
                slot.line = self._open(slot, actions)
        for line in list(self.lines.values()):
            if line.opened_ns and not line.closing:
                self._tend(line, now, actions)
        self._watch(now, actions)
        return [*actions, *self._fetches.due(now)]

    def _open(self, slot: Slot, actions: list[Action]) -> int:
        self._numbers += 1
        self.lines[self._numbers] = Line(self._numbers, slot)
        actions.append(Open(self._numbers, self.venue.sockets[slot.route]))
        return self._numbers

    def _close(self, line: Line, reason: str) -> Close:
        line.closing = True
        return Close(line.number, reason)

    def _tend(self, line: Line, now: int, actions: list[Action]) -> None:
        """One open socket: messages to send, pings, silence, age."""
        venue, slot = self.venue, line.slot
        if now - line.heard_ns > venue.idle_s * SECOND:
            actions.append(self._close(line, f"no message for {venue.idle_s:g} s"))
            return
        if venue.ping and now - line.pinged_ns > venue.ping_s * SECOND:
            line.pinged_ns = now
            line.outbox.appendleft(Message(venue.ping))
        while line.outbox and line.may_send(now, venue.messages_per_s):
            message = line.outbox.popleft()
            line.sent.append(now)
            actions.append(Send(line.number, message.frame))
            for pair in message.starts:
                if pair in self.subscriptions:
                    self.subscriptions[pair].asked_ns = now
        if venue.lifetime_s and now - line.opened_ns > venue.lifetime_s * SECOND:
            line.expiring = True
        alone = slot.line == line.number and slot.successor is None
        if line.expiring and alone and now >= slot.renew_ns:
            slot.successor = self._open(slot, actions)
        if slot.successor == line.number and line.carried and not line.outbox:
            old = self.lines.get(slot.line or 0)
            if old is not None and now - line.opened_ns > OVERLAP_S * SECOND and not old.closing:
                actions.append(self._close(old, "replaced"))

    def _watch(self, now: int, actions: list[Action]) -> None:
        """Subscriptions without data: asked for again, and in the end by another connection."""
        venue = self.venue
        for pair, known in self.subscriptions.items():
            symbol, channel = pair
            if known.rest_ns:
                if now >= known.rest_ns:
                    known.rest_ns = 0
                    for line in self._lines_of(pair):
                        self._ask(line, [pair])
                continue
            if known.heard_ns >= known.asked_ns and known.heard_ns:
                limit = venue.quiet_s.get(channel)
                if limit is None or now - known.heard_ns <= limit * SECOND:
                    continue
                self._frame(self._stamp(now), mark(Lost("stale", [channel], [symbol])))
            else:
                limit = venue.first_data_s.get(channel)
                if limit is None or not known.asked_ns or now - known.asked_ns <= limit * SECOND:
                    continue
            self.counters.silent += 1
            known.heard_ns = known.asked_ns = 0
            known.misses += 1
            for line in self._lines_of(pair):
                if known.misses < MISSES:
                    self._take_leave(line, [pair])
                    self._ask(line, [pair])
                elif self._others_heard(line, pair):
                    known.rest_ns = now + int(REST_S * SECOND)
                else:
                    actions.append(self._close(line, f"no {channel} of {symbol}"))
            if known.misses >= MISSES:
                known.misses = 0

    def _others_heard(self, line: Line, pair: Pair) -> bool:
        """Whether the socket gives data of other subscriptions: then it is not at fault."""
        share = line.slot.share
        return any(
            known.heard_ns
            for other, known in self.subscriptions.items()
            if other != pair and self._shares[other[0]] == share and line in self._lines_of(other)
        )

    # -- inside ----------------------------------------------------------------------------

    def _stamp(self, now: int) -> int:
        """Receive times never go back, whatever the clock does."""
        self._latest_ns = max(self._latest_ns, now)
        return self._latest_ns

    def _frame(self, recv_ns: int, frame: bytes) -> list[Event]:
        """Log it as it came, then understand it."""
        frame = one_line(frame)  # as the log has it
        if self._on_raw is not None:
            self._on_raw(recv_ns, frame)
        try:
            return self._understood(self.session.frame(recv_ns, frame))
        except DecodeError as error:
            return self._understood(error)

    def _frames(
        self, recv_ns: Sequence[int], frames: Sequence[bytes]
    ) -> Iterator[list[Event] | Lot]:
        """Many of them: log all, then understand them together."""
        frames = all_in_one_line(frames)
        if self._on_raw is not None:
            for at, frame in zip(recv_ns, frames, strict=True):
                self._on_raw(at, frame)
        for told in self.session.many(frames, recv_ns):
            yield told if isinstance(told, Lot) else self._understood(told)

    def _understood(self, told: list[Event] | DecodeError) -> list[Event]:
        counters, integrity = self.counters, self.session.integrity
        if isinstance(told, DecodeError):
            counters.errors += 1
            counters.last_refusal = str(told)
            return []
        counters.gaps = integrity.gaps
        counters.duplicates = integrity.duplicates
        return told

    def _control(self, line: Line, event: Event) -> bool:
        """What is no market data; whether something is to be done now."""
        counters = self.counters
        if isinstance(event, Shutdown):
            line.expiring = True
            return True
        if isinstance(event, Refusal):
            counters.refusals += 1
            counters.last_refusal = (
                f"{event.code}: {event.message}" if event.code else event.message
            )
        elif isinstance(event, Status):
            counters.state = event.state
        return False

    def _resync(self, symbols: list[str], now: int) -> None:
        """Ask anew for the books that are spoiled, and for nothing else."""
        self.counters.resyncs += len(symbols)
        if self.venue.snapshot:
            for symbol in symbols:
                self._fetches.want(symbol, now)
            return
        pairs = [(symbol, "book") for symbol in symbols]
        for pair in pairs:
            self.subscriptions[pair].heard_ns = self.subscriptions[pair].asked_ns = 0
        for line in self.lines.values():
            if line.opened_ns and not line.closing:
                own = [pair for pair in pairs if line in self._lines_of(pair)]
                self._take_leave(line, own)
                self._ask(line, own)

    def _lines_of(self, pair: Pair) -> list[Line]:
        """The open sockets that carry a channel of a symbol."""
        symbol, channel = pair
        routes = self.venue.channels
        return [
            line
            for line in self.lines.values()
            if line.opened_ns
            and not line.closing
            and line.slot.share == self._shares[symbol]
            and (line.slot.route not in routes or channel in routes[line.slot.route])
        ]

    def _requests(self, pairs: Iterable[Pair], route: str) -> list[Message]:
        messages = []
        for symbols, channels in _grouped(pairs):
            starts = tuple((s, c) for s in symbols for c in channels)
            for request in self.adapter.subscribe(symbols, channels):
                if request.route == route:
                    messages.append(Message(request.frame, starts))
        return messages

    def _ask(self, line: Line, pairs: Iterable[Pair]) -> None:
        line.outbox.extend(self._requests(pairs, line.slot.route))

    def _lost(self, line: Line, now: int, reason: str) -> None:
        """Nothing of what the socket carried is known from here on."""
        if line.opened_ns:
            self.counters.lost += 1
        else:
            self.counters.failures += 1
        self.counters.last_loss = reason
        slot = line.slot
        channels = self.venue.channels.get(slot.route)
        symbols = [s for s, share in self._shares.items() if share == slot.share]
        if line.carried:
            of = None if channels is None else list(channels)
            everything = of is None and len(symbols) == len(self._shares)
            lost = Lost("disconnect", of, None if everything else symbols)
            self._frame(self._stamp(now), mark(lost))
        for (symbol, channel), known in self.subscriptions.items():
            if symbol in symbols and (channels is None or channel in channels):
                known.asked_ns = known.heard_ns = known.rest_ns = 0
                if channel == "book":
                    self._fetches.forget(symbol)


def _grouped(pairs: Iterable[Pair]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(symbols, channels) such that every symbol of a group has the same channels."""
    channels: dict[str, list[str]] = {}
    for symbol, channel in pairs:
        channels.setdefault(symbol, []).append(channel)
    groups: dict[tuple[str, ...], list[str]] = {}
    for symbol, own in channels.items():
        groups.setdefault(tuple(own), []).append(symbol)
    return [(tuple(symbols), own) for own, symbols in groups.items()]
