"""Is what arrived complete and right? Gaps found, duplicates dropped, books kept and proven.

`Integrity.check` takes the events of one frame after another of one connection and gives them back
with a `Gap` where something was missed, a `Recovery` where it is right again, and without what came
twice. It knows no exchange, only what events carry:

- `FrameNumber`: frames of the connection are numbered without holes. A jump spoils the books and
  quotes of all its symbols; number 0 is the beginning of a new connection.
- Trades are numbered without holes per symbol. Missed ones stay missed.
- Book updates carry a range of ids that continues the last one (`first_seq`), or name their
  predecessor (`prev_seq`); snapshots from elsewhere are spliced into the chain. Without such ids,
  snapshots come in the stream itself and count from there on.
- A `Proof` says what the book must look like afterwards. A crossed book is wrong without one.

Numbers that stay low for long are no repetition: the exchange counts anew, which is a gap, too.

A spoiled book is stale until a snapshot repairs it; every other symbol goes on undisturbed. While
a book is stale, or before its first snapshot, updates pass through and wait for the splice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from collectors.adapter import (
    BookUpdate,
    Event,
    FrameNumber,
    Funding,
    Gap,
    OffBook,
    Quote,
    Recovery,
    Trade,
)
from collectors.book import Book
from collectors.lot import FIRST_SEQ, NONE, PREV_SEQ, RECV_TS, SEQ, TS, Lot

_WAITING_UPDATES = 4096  # a snapshot takes a second or two: 10 to 15 updates
_REPEATS = 5000  # in a row of one symbol; more are no repetition, the exchange counts anew
_LATE_FRAMES = 100


class _BookState:
    """One symbol's book and its place in the chain."""

    def __init__(self) -> None:
        self.book = Book()
        self.synced = False
        self.seq: int | None = None
        """Of the chain's last update, applied or not."""
        self.book_seq: int | None = None
        """What the book is right up to, if the chain does not say: a snapshot's id."""
        self.recv_ts: int | None = None
        self.waiting: deque[BookUpdate] = deque(maxlen=_WAITING_UPDATES)


class Integrity:
    """The state of one connection's checks."""

    def __init__(self) -> None:
        self.gaps = 0
        self.duplicates = 0
        """Events dropped because they came before."""
        self._number: int | None = None
        self._recv_ts: int | None = None
        self._trades: dict[str, Trade | OffBook] = {}
        self._quotes: dict[str, Quote] = {}
        """The last of every symbol."""
        self._anew: set[str] = set()
        """Symbols whose quotes may be numbered anew."""
        self._funding: dict[tuple[str, bool], int] = {}
        self._books: dict[str, _BookState] = {}
        self._open: dict[tuple[str, str], list[Gap]] = {}
        self._repeats: dict[tuple[str, str], int] = {}

    @property
    def stale(self) -> list[str]:
        """Symbols whose book needs a snapshot: it is spoiled, or there has been none."""
        return [symbol for symbol, state in self._books.items() if not state.synced]

    @property
    def open_gaps(self) -> list[Gap]:
        """Gaps in books and quotes without a `Recovery` so far."""
        return [gap for gaps in self._open.values() for gap in gaps]

    def book(self, symbol: str) -> Book | None:
        """The symbol's book; None while it is stale."""
        state = self._books.get(symbol)
        return state.book if state is not None and state.synced else None

    def lose(
        self,
        recv_ns: int,
        reason: str,
        channels: Sequence[str] | None = None,
        symbols: Sequence[str] | None = None,
    ) -> list[Event]:
        """A connection ended, or a stream is no longer trusted: what it keeps up to date is stale.

        Of the named channels and symbols; None is all. Trades say themselves what was missed.
        """
        checked: list[Event] = []
        if channels is None and symbols is None:
            self._number = None
        if channels is None or "ticker" in channels:
            for symbol, quote in self._quotes.items():
                if symbols is None or symbol in symbols:
                    self._anew.add(symbol)
                    since = quote.recv_ts
                    gap = Gap(recv_ns, None, symbol, "ticker", None, None, since, reason)
                    self._gap(gap, checked)
        if channels is None or "book" in channels:
            for symbol, state in self._books.items():
                if symbols is None or symbol in symbols:
                    gap = Gap(recv_ns, None, symbol, "book", None, None, state.recv_ts, reason)
                    self._spoil(state, gap, checked)
                    state.seq = None
        return checked

    def forget(self, channels: Sequence[str], symbols: Sequence[str]) -> None:
        """These are no longer subscribed; when they come again, they begin anew."""
        for symbol in symbols:
            if "ticker" in channels:
                self._quotes.pop(symbol, None)
            if "book" in channels:
                self._books.pop(symbol, None)
            if "trades" in channels:
                self._trades.pop(symbol, None)
            for channel in channels:
                self._open.pop((symbol, channel), None)

    def know(self, symbol: str, trade_id: int, recv_ns: int) -> None:
        """This trade was the last one of an earlier run: those up to it are told again, and those
        between it and the next are missing."""
        self._trades.setdefault(symbol, OffBook(recv_ns, None, symbol, trade_id, trade_id))

    def check(self, events: Sequence[Event]) -> list[Event]:
        """The events of one frame, with what is to be said about them."""
        checked: list[Event] = []
        for event in events:
            kind = type(event)  # the most frequent first; cheaper than isinstance
            if kind is Quote:
                self._quote(event, checked)  # type: ignore[arg-type]
            elif kind is Trade or kind is OffBook:
                self._trade(event, checked)  # type: ignore[arg-type]
            elif kind is BookUpdate:
                self._update(event, checked)  # type: ignore[arg-type]
            elif kind is Funding:
                self._fund(event, checked)  # type: ignore[arg-type]
            elif isinstance(event, FrameNumber):
                if not self._sequence(event, checked):
                    self.duplicates += len(events) - 1
                    return checked
            else:
                checked.append(event)
        return checked

    def admits(self, lot: Lot) -> bool:
        """Take the trades and quotes of a lot, if `check` would give just them back; else nothing
        has changed."""
        trades, quotes = self._next_trades(lot), self._next_quotes(lot)
        if trades is None or quotes is None:
            return False
        self._trades.update(trades)
        self._quotes.update(quotes)
        if self._repeats:
            for channel, names in (("trades", trades), ("ticker", quotes)):
                for symbol in names:
                    self._repeats.pop((symbol, channel), None)
        return True

    def take_differences(self, lot: Lot) -> dict[int, list[Event]] | None:
        """Take the differences of a lot, if each is the next of a book that is known; None if not,
        then nothing has changed.

        What `check` would give for their messages is just them, but for those from the first that
        makes its book cross on: that is told, where they were taken.
        """
        names, messages, follow, _ = lot.by_book
        firsts = lot.ints[:, [of_one[0] for of_one in messages]]
        states = [self._books.get(symbol) for symbol in names]
        numbers = zip(*firsts[[SEQ, FIRST_SEQ, PREV_SEQ]].tolist(), strict=True)
        if not follow or not all(map(_continues, states, numbers)):
            return None
        crossed: dict[int, Gap] = {}
        taken: list[int] = []
        for symbol, state, own in zip(names, states, messages, strict=True):
            assert state is not None  # or it would not continue
            count = state.book.apply_all(lot, own)
            taken += (done := own[:count].tolist())
            last = done[-1]
            seq, recv_ts, ts = lot.ints[[SEQ, RECV_TS, TS], last].tolist()
            if state.book.crossed:
                since = int(lot.ints[RECV_TS, done[-2]]) if count > 1 else state.recv_ts
                crossed[last] = Gap(recv_ts, ts, symbol, "book", None, None, since, "crossed")
            state.seq, state.recv_ts = seq, recv_ts
            if self._repeats:
                self._repeats.pop((symbol, "book"), None)
        if not crossed:
            return {}
        told: dict[int, list[Event]] = {}
        at = sorted(message for message in taken if message >= min(crossed))
        for message, update in zip(at, lot.updates(at), strict=True):
            told[message] = [update]
            if message in crossed:
                self._spoil(self._books[update.symbol], crossed[message], told[message])
        return told

    def _next_trades(self, lot: Lot) -> dict[str, Trade | OffBook] | None:
        """The last trade of each symbol, if every one has the number that follows."""
        trades = lot.chains[0]
        if not trades.rises:
            return None
        for symbol, number in zip(trades.names, trades.first_seqs, strict=True):
            last = self._trades.get(symbol)
            if last is not None and number != last.trade_id + 1:
                return None
        told = zip(*lot.ints[:, trades.lasts][[RECV_TS, SEQ]].tolist(), strict=True)
        return {
            symbol: OffBook(recv_ns, None, symbol, number, number)
            for symbol, (recv_ns, number) in zip(trades.names, told, strict=True)
        }

    def _next_quotes(self, lot: Lot) -> dict[str, Quote] | None:
        """The last quote of each symbol, if the number of every one is higher than before."""
        quotes = lot.chains[1]
        if not quotes.rises:
            return None
        for symbol, number in zip(quotes.names, quotes.first_seqs, strict=True):
            last = self._quotes.get(symbol)
            if last is not None and last.seq is not None and number <= last.seq:
                return None
            if symbol in self._anew or (symbol, "ticker") in self._open:
                return None
        return lot.last_quotes

    def _sequence(self, event: FrameNumber, checked: list[Event]) -> bool:
        """Whether the frame is new."""
        number, last = event.number, self._number
        if last is not None and number != last + 1:
            if number == 0 or number <= last - _LATE_FRAMES:
                checked += self._spoil_all(event.recv_ts, None, None, "reconnect")
            elif number <= last:
                return False
            else:
                checked += self._spoil_all(event.recv_ts, last + 1, number - 1, "sequence")
        self._number = number
        self._recv_ts = event.recv_ts
        return True

    def _spoil_all(
        self, recv_ts: int, from_seq: int | None, to_seq: int | None, reason: str
    ) -> list[Event]:
        checked: list[Event] = []
        for symbol, quote in self._quotes.items():
            self._anew.add(symbol)
            start = self._recv_ts if reason == "sequence" else quote.recv_ts
            gap = Gap(recv_ts, None, symbol, "ticker", from_seq, to_seq, start, reason)
            self._gap(gap, checked)
        for symbol, state in self._books.items():
            start = self._recv_ts if reason == "sequence" else state.recv_ts
            gap = Gap(recv_ts, None, symbol, "book", from_seq, to_seq, start, reason)
            self._spoil(state, gap, checked)
            state.seq = None
        return checked

    def _gap(self, gap: Gap, checked: list[Event]) -> None:
        if gap.channel != "trades":
            self._open.setdefault((gap.symbol, gap.channel), []).append(gap)
        self.gaps += 1
        checked.append(gap)

    def _recover(self, recv_ts: int, symbol: str, channel: str, checked: list[Event]) -> None:
        for gap in self._open.pop((symbol, channel), ()):
            checked.append(Recovery(recv_ts, gap))

    def _quote(self, quote: Quote, checked: list[Event]) -> None:
        symbol, seq = quote.symbol, quote.seq
        before = self._quotes.get(symbol)
        if before is not None and seq is not None and symbol not in self._anew:
            last = before.seq
            if last is not None and seq <= last:
                again = seq < last or _same(quote, before)
                if again and self._repeated(symbol, "ticker"):
                    return
        if self._repeats:
            self._repeats.pop((symbol, "ticker"), None)
        if self._anew:
            self._anew.discard(symbol)
        self._quotes[symbol] = quote
        if self._open:
            self._recover(quote.recv_ts, symbol, "ticker", checked)
        checked.append(quote)

    def _fund(self, event: Funding, checked: list[Event]) -> None:
        """Rates and open interest come by different ways, each in the order of its time."""
        key = event.symbol, event.open_interest is None
        last = self._funding.get(key)
        if event.ts is not None:
            if last is not None and event.ts <= last:
                self.duplicates += 1
                return
            self._funding[key] = event.ts
        checked.append(event)

    def _trade(self, trade: Trade | OffBook, checked: list[Event]) -> None:
        number, symbol = trade.trade_id, trade.symbol
        last = self._trades.get(symbol)
        if last is not None and number != last.trade_id + 1:
            where = trade.recv_ts, trade.ts, symbol, "trades"
            since = last.recv_ts
            if number <= last.trade_id:
                if self._repeated(symbol, "trades"):
                    return
                self._gap(Gap(*where, None, None, since, "renumbered"), checked)
            else:
                missed = last.trade_id + 1, number - 1
                self._gap(Gap(*where, *missed, since, "trade_id"), checked)
        if self._repeats:
            self._repeats.pop((symbol, "trades"), None)
        self._trades[symbol] = trade
        checked.append(trade)

    def _repeated(self, symbol: str, channel: str) -> bool:
        """Whether a number that is not new means an event told twice: it is dropped."""
        count = self._repeats.get((symbol, channel), 0) + 1
        self._repeats[symbol, channel] = count
        if count > _REPEATS:
            return False
        self.duplicates += 1
        return True

    def _update(self, update: BookUpdate, checked: list[Event]) -> None:
        state = self._books.get(update.symbol)
        if state is None:
            state = self._books[update.symbol] = _BookState()
        if update.is_snapshot:
            self._snapshot(state, update, checked)
        else:
            self._difference(state, update, checked)
        state.recv_ts = update.recv_ts

    def _difference(self, state: _BookState, update: BookUpdate, checked: list[Event]) -> None:
        if update.first_seq is None and update.prev_seq is None:
            checked.append(update)
            if state.synced:
                self._apply(state, update, checked)
            return
        assert update.seq is not None  # an update with a range has its end
        if state.seq is not None:
            if update.seq <= state.seq:
                if self._repeated(update.symbol, "book"):
                    return
                where = update.recv_ts, update.ts, update.symbol, "book"
                gap = Gap(*where, None, None, state.recv_ts, "renumbered")
                self._spoil(state, gap, checked)
            elif not _follows(update, state.seq):
                self._spoil(state, _break(update, state.seq, state.recv_ts), checked)
        if state.synced and state.book_seq is not None and update.seq > state.book_seq:
            if _splices(update, state.book_seq):
                state.book_seq = None
            else:  # the snapshot is older than the chain's beginning
                self._spoil(state, _break(update, state.book_seq, state.recv_ts, "splice"), checked)
        if self._repeats:
            self._repeats.pop((update.symbol, "book"), None)
        state.seq = update.seq
        checked.append(update)
        if not state.synced:
            state.waiting.append(_to_keep(update))
        elif state.book_seq is None:
            self._apply(state, update, checked)

    def _snapshot(self, state: _BookState, snapshot: BookUpdate, checked: list[Event]) -> None:
        checked.append(snapshot)
        seq = snapshot.seq
        rest = [u for u in state.waiting if seq is None or u.seq is None or u.seq > seq]
        if rest and seq is not None and not _splices(rest[0], seq):
            return  # older than what waits
        if not rest and seq is not None and state.seq is not None and seq < state.seq:
            return  # the chain is ahead of it
        state.book = Book()
        state.synced = True
        state.book_seq = seq if not rest else None
        state.waiting.clear()
        self._apply(state, snapshot, checked)
        for update in rest:
            if state.synced:
                self._apply(state, update, checked)
        if state.synced:
            self._recover(snapshot.recv_ts, snapshot.symbol, "book", checked)

    def _apply(self, state: _BookState, update: BookUpdate, checked: list[Event]) -> None:
        book = state.book
        book.apply(update)
        reason = None
        if update.proof is not None and book.checksum() != update.proof.checksum:
            reason = "checksum"
        elif book.crossed:
            reason = "crossed"
        if reason is not None:
            at, symbol = state.recv_ts, update.symbol
            gap = Gap(update.recv_ts, update.ts, symbol, "book", None, None, at, reason)
            self._spoil(state, gap, checked)

    def _spoil(self, state: _BookState, gap: Gap, checked: list[Event]) -> None:
        state.synced = False
        state.book_seq = None
        state.waiting.clear()
        self._gap(gap, checked)


def _continues(state: _BookState | None, numbers: tuple[int, int, int]) -> bool:
    """Whether a difference with these – its own, the first, that of the one before – is the next of
    a book that is known."""
    if state is None or not state.synced or state.seq is None or state.book_seq is not None:
        return False
    seq, first, before = numbers
    is_next = first <= state.seq + 1 if before == NONE else before == state.seq
    return is_next and seq > state.seq


def _same(a: Quote, b: Quote) -> bool:
    """Whether both say the same; one frame may hold several quotes of one number."""
    return (a.bid, a.bid_size, a.ask, a.ask_size) == (b.bid, b.bid_size, b.ask, b.ask_size)


def _to_keep(update: BookUpdate) -> BookUpdate:
    """The same, which keeps no other message's levels in memory, for it may wait for long."""
    if isinstance(update.bids, list):
        return update
    return msgspec.structs.replace(update, bids=list(update.bids), asks=list(update.asks))


def _follows(update: BookUpdate, seq: int) -> bool:
    """Whether `update` comes right after the one that ended at `seq`."""
    if update.prev_seq is not None:
        return update.prev_seq == seq
    # One that overlaps tells nothing new of what it repeats: sizes are absolute.
    return update.first_seq is not None and update.first_seq <= seq + 1


def _splices(update: BookUpdate, seq: int) -> bool:
    """Whether `update`, which ends beyond it, continues a snapshot of id `seq`."""
    if update.prev_seq is not None:
        return update.prev_seq <= seq
    return update.first_seq is not None and update.first_seq <= seq + 1


def _break(update: BookUpdate, seq: int, start_ts: int | None, reason: str = "sequence") -> Gap:
    """What lies between the message that ended at `seq` and `update`."""
    end = update.prev_seq if update.prev_seq is not None else (update.first_seq or 0) - 1
    first, last = (seq + 1, end) if end > seq else (None, None)
    return Gap(update.recv_ts, update.ts, update.symbol, "book", first, last, start_ts, reason)
