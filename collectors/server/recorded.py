"""A simulated exchange that says what a recording says.

Market data are the recording's own messages, byte for byte but for numbers that belong to a
connection, sent to whoever subscribed them. What a client gets when it subscribes – a book, the
last trades – and what it asks for by REST is made from the recording as far as it has come. What
the recording lacks, nobody gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from collectors.adapter import BookUpdate, Event, Funding, OffBook, Quote, Trade
from collectors.errors import CollectorError, DecodeError
from collectors.exchanges import make_adapter
from collectors.market import UNIT, Asset, Book, Market, Print
from collectors.raw import RawReader
from collectors.server.dialect import Answer
from collectors.server.dialects import make_dialect
from collectors.server.faults import Fault
from collectors.server.simulation import NEVER, Simulation
from collectors.server.tape import Tape
from collectors.session import Session

_LOOKED_AT = 20_000  # frames, for the symbols and their decimals
_MISSING = Answer(404, b'{"msg":"it is not in the recording"}')
_CHANNELS: Mapping[type[Event], str] = {
    BookUpdate: "book",
    Trade: "trades",
    OffBook: "trades",
    Quote: "ticker",
    Funding: "funding",
}


class RecordedMarket(Market):
    """What a recording shows of a market so far."""

    def __init__(self, session: Session, assets: Mapping[str, Asset]) -> None:
        self._session = session
        self._assets = assets
        self._books: dict[str, Book] = {}
        self._seen: dict[str, Quote | Funding] = {}
        self.seqs: dict[str, int] = {}
        """The exchange's number of the last change in a book."""

    def asset(self, pair: str) -> Asset:
        return self._assets[pair]

    def book(self, pair: str) -> Book:
        """Empty before the recording's first snapshot."""
        book = self._books.get(pair)
        if book is None:
            book = self._books[pair] = Book(self.seqs.get(pair, 0))
            known = self._session.integrity.book(pair)
            if known is not None:
                for side, levels in zip((book.bids, book.asks), known.top(1 << 30), strict=True):
                    side.fill((_units(price), _units(size)) for price, size in levels)
        return book

    def fair(self, pair: str) -> float:
        """The index price, where one is recorded; else between bid and ask."""
        bid, _, ask, _ = self.book(pair).quote()
        return (bid + ask) / 2

    def learn(self, event: Event) -> None:
        """An event of the recording."""
        if isinstance(event, BookUpdate):
            self._books.pop(event.symbol, None)
            if event.seq is not None:
                self.seqs[event.symbol] = max(event.seq, self.seqs.get(event.symbol, 0))


class Recorded(Simulation):
    """One exchange, from a recording of it."""

    def __init__(
        self,
        exchange: str,
        symbols: Sequence[str] = (),
        *,
        recording: Path | str,
        seed: int = 1,
        faults: Iterable[Fault] = (),
    ) -> None:
        """`symbols`: of the recording's, which to offer; by default all."""
        self._path = Path(recording)
        found = _look(exchange, self._path)
        missing = [symbol for symbol in symbols if symbol not in found.assets]
        if missing or not found.assets:
            has = ", ".join(found.assets) or f"none of {exchange}"
            raise CollectorError(f"{self._path}: no {', '.join(missing)}; its symbols are {has}")
        pairs = list(dict.fromkeys(symbols)) or list(found.assets)
        self._adapter = make_adapter(exchange)
        self._session = Session(self._adapter, [])
        self._recorded = RecordedMarket(self._session, found.assets)
        self._snapshots = found.snapshots
        self._interest: dict[str, bytes] = {}
        self._frames = iter(RawReader(self._path))
        self._frame = b""
        self._tapes = {pair: Tape(0) for pair in pairs}
        self._begin(faults, seed, found.start_ns)
        self.dialect = make_dialect(
            exchange, self._recorded, self._tapes, self.faults, found.start_ns
        )
        self.dialect.depths_recorded, self.dialect.recorded = found.depths, True
        self._turn()

    waits = True

    @property
    def over(self) -> bool:
        return self._next_ns == NEVER

    def book(self, pair: str) -> Book:
        return self._recorded.book(pair)

    def ask(self, path: str, query: Mapping[str, Sequence[str]]) -> Answer | None:
        """A book that is asked for before the recording has one is the first that it will have."""
        if path.endswith("/premiumIndex"):
            return _MISSING
        answer = super().ask(path, query)
        if answer is None or answer.status != 200:
            return answer
        name = "".join(query.get("symbol", []))
        pair = next((p for p in self._tapes if self._adapter.rest_symbol(p) == name), "")
        if path.endswith("/depth") and self._session.integrity.book(pair) is None:
            body = self._snapshots.get(pair)
        elif path.endswith("/openInterest"):
            body = self._interest.get(pair)
        else:
            return answer
        return (
            Answer(404, b'{"msg":"it is not in the recording"}')
            if body is None
            else Answer(200, body)
        )

    def _turn(self) -> None:
        """To the next frame."""
        recv_ns, self._frame = next(self._frames, (NEVER, b""))
        self._next_ns = recv_ns if recv_ns == NEVER else max(recv_ns, self.now_ns)

    def _happen(self) -> None:
        assert self.dialect is not None
        frame = self._frame
        try:
            events = self._session.frame(self.now_ns, frame)
        except DecodeError:
            events = []
        about: dict[tuple[str, str], None] = {}
        for event in events:
            self._recorded.learn(event)
            channel, pair = _CHANNELS.get(type(event), ""), getattr(event, "symbol", "")
            if not channel or pair not in self._tapes:
                continue
            about[channel, pair] = None
            if isinstance(event, Trade):
                price, size = _units(event.price), _units(event.size)
                one = Print(event.trade_id, price, size, event.side)
                self._tapes[pair].add(event.ts or self.now_ns, one)
            elif isinstance(event, Funding) and event.open_interest is not None:
                self._interest[pair] = frame
        for channel, pair in about:
            self.dialect.relay(channel, pair, frame)
        self._turn()


class _Found:
    """What the first frames of a recording show."""

    def __init__(self) -> None:
        self.start_ns = 0
        self.assets: dict[str, Asset] = {}
        self.depths: dict[str, int] = {}
        """Of books with checksums, by pair."""
        self.snapshots: dict[str, bytes] = {}
        """The first REST reply with a book, by pair."""


class _Bare(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()


def _look(exchange: str, path: Path) -> _Found:
    found, adapter = _Found(), make_adapter(exchange)
    digits: dict[str, list[int]] = {}
    for recv_ns, frame in islice(RawReader(path), _LOOKED_AT):
        found.start_ns = found.start_ns or recv_ns
        try:
            events = adapter.decode(frame, recv_ns)
        except DecodeError:
            continue
        for event in events:
            pair = getattr(event, "symbol", "")
            known = digits.setdefault(pair, [0, 0]) if pair else [0, 0]
            if isinstance(event, BookUpdate):
                for price, size in [*event.bids, *event.asks]:
                    _widen(known, price, size)
                if event.proof is not None:
                    found.depths[pair] = event.proof.depth
                rest = event.is_snapshot and event.proof is None and b"lastUpdateId" in frame[:200]
                if rest and pair not in found.snapshots:
                    inner = bytes(msgspec.json.decode(frame, type=_Bare).data)
                    found.snapshots[pair] = inner or frame
            elif isinstance(event, Trade):
                _widen(known, event.price, event.size)
            elif isinstance(event, Quote):
                _widen(known, event.bid or 0.0, event.bid_size or 0.0)
    for pair, (price_decimals, size_decimals) in digits.items():
        tick, lot = UNIT // 10**price_decimals, UNIT // 10**size_decimals
        found.assets[pair] = Asset(0.0, tick, lot, 0.0, 0.0, 0.0, 0.0, 0.0)
    return found


def _widen(known: list[int], price: float, size: float) -> None:
    """Remember how many decimals a price and a size had."""
    for index, value in enumerate((price, size)):
        text = f"{value:.8f}".rstrip("0")
        known[index] = max(known[index], len(text) - text.index(".") - 1)


def _units(value: float) -> int:
    """Exact for what an exchange writes with up to eight decimals."""
    return round(value * UNIT)
