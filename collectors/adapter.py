"""What an exchange adapter is: requests out, frames in, events up. No clock, no socket, no file.

An adapter knows one exchange's protocol and nothing else. The caller owns the connection and the
clock: it sends the requests that `subscribe` returns, stamps every frame it receives, hands both
to `decode`, and acts on the events. The same calls in the same order give the same events, so a
live feed and a replay of its raw log cannot differ.

Times are int nanoseconds since 1970 UTC. `ts` is the exchange's own time and None where it sends
none; `recv_ts` is the receiver's stamp. `side` is the taker's: +1 bought, -1 sold. `seq` is the
number by which the exchange counts the messages of that stream, None where it counts none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

import msgspec

from collectors.errors import CollectorError, DecodeError
from collectors.levels import Levels
from collectors.symbols import SymbolTable


class Event(msgspec.Struct, frozen=True, gc=False):
    """Anything a frame can mean."""

    recv_ts: int


class MarketEvent(Event, frozen=True, gc=False):
    """An event about one symbol's market; `symbol` is BASE/QUOTE."""

    ts: int | None
    symbol: str
    seq: int | None


class Trade(MarketEvent, frozen=True, gc=False):
    """One execution."""

    trade_id: int
    price: float
    size: float
    side: int


class OffBook(MarketEvent, frozen=True, gc=False):
    """An execution outside the order book (insurance fund, deleveraging): numbered as a trade."""

    trade_id: int


class Quote(MarketEvent, frozen=True, gc=False):
    """The best bid and ask from now on; a side without orders is None."""

    bid: float | None
    ask: float | None
    bid_size: float | None
    ask_size: float | None
    volume_24h: float | None = None
    """Base currency traded in the last 24 hours, where the exchange says so."""


class Proof(msgspec.Struct, frozen=True, gc=False):
    """What proves a book right: a CRC32 over its best levels, as the exchange wrote them.

    The tokens are those of the update's bids and asks, one each: the digits that go into the sum.
    """

    checksum: int
    depth: int
    """The exchange forgets levels beyond the best `depth` of a side, without a word."""
    bid_tokens: list[bytes]
    ask_tokens: list[bytes]


class BookUpdate(MarketEvent, frozen=True, gc=False):
    """New absolute sizes of price levels, or the whole book where `is_snapshot`.

    `first_seq`..`seq` is the range of the exchange's book changes that the message covers;
    `prev_seq` the `seq` of its predecessor, where ids have holes and messages are linked instead.
    """

    first_seq: int | None
    is_snapshot: bool
    bids: Levels
    asks: Levels
    prev_seq: int | None = None
    proof: Proof | None = None


class Funding(MarketEvent, frozen=True, gc=False):
    """A perpetual's mark and index price, the rate that settles next and when; what is known."""

    mark_price: float | None = None
    index_price: float | None = None
    funding_rate: float | None = None
    """Of one interval, as a fraction: 0.0001 is one basis point, paid by longs to shorts."""
    next_funding_ts: int | None = None
    open_interest: float | None = None
    """In units of the base currency."""


class FrameNumber(Event, frozen=True, gc=False):
    """The frame is number `number` of all that the exchange sent on this connection."""

    number: int


class Gap(Event, frozen=True, gc=False):
    """Something of `channel` of `symbol` was missed or is wrong; found when `recv_ts` arrived.

    `from_seq`..`to_seq` are the numbers missed, in the exchange's count, where it counts.
    """

    ts: int | None
    symbol: str
    channel: str
    from_seq: int | None
    to_seq: int | None
    start_ts: int | None
    """Receive time of the last message before."""
    reason: str


class Recovery(Event, frozen=True, gc=False):
    """What `gap` spoiled is right again."""

    gap: Gap


class Status(Event, frozen=True, gc=False):
    """The exchange says how it is: online, maintenance, cancel_only, post_only, ..."""

    state: str


class Ack(Event, frozen=True, gc=False):
    """The exchange accepted request `request_id`; `result` is what it answered."""

    request_id: int | str | None
    result: object


class Refusal(Event, frozen=True, gc=False):
    """The exchange refused a request, or reports an error of its own."""

    request_id: int | str | None
    code: int
    message: str


class Shutdown(Event, frozen=True, gc=False):
    """The exchange is about to close this connection: open its successor now."""

    ts: int | None


class Ignored(Event, frozen=True, gc=False):
    """A well-formed frame of a stream that is not decoded; `stream` names it for the counters."""

    stream: str


class Request(msgspec.Struct, frozen=True):
    """One message to send; `route` names the socket where a venue needs more than one."""

    frame: bytes
    request_id: int
    route: str = ""


class Adapter(ABC):
    """One exchange's protocol.

    Every adapter is built as `Adapter(symbols=None)`: a table of its own pairs, or the shipped one.
    """

    exchange: ClassVar[str]
    channels: ClassVar[tuple[str, ...]]
    symbols: SymbolTable

    @abstractmethod
    def subscribe(self, symbols: Sequence[str], channels: Sequence[str]) -> list[Request]:
        """The requests that start `channels` of `symbols` (BASE/QUOTE), in sending order.

        Raises `SymbolError` for a symbol the exchange cannot have, `CollectorError` for a channel.
        """

    @abstractmethod
    def unsubscribe(
        self, symbols: Sequence[str], channels: Sequence[str], keep: Sequence[str] = ()
    ) -> list[Request]:
        """The requests that end them, but for what the channels `keep` need too."""

    def rest_symbol(self, symbol: str) -> str:
        """The exchange's name of `symbol` in the addresses of REST requests."""
        raise CollectorError(f"{self.exchange} is asked nothing by REST")

    def wrap_snapshot(self, symbol: str, body: bytes) -> bytes:
        """The frame that stands for a REST book snapshot in a raw log and in `decode`."""
        raise CollectorError(f"{self.exchange} has no book snapshots by REST")

    @abstractmethod
    def decode(self, frame: bytes, recv_ns: int) -> list[Event]:
        """The events of one frame, in the exchange's order.

        Any bytes give events or `DecodeError`, nothing else. Unknown keys are skipped; a stream
        that is not decoded gives `Ignored`.
        """

    def decode_many(
        self, frames: Sequence[bytes], recv_ns: Sequence[int]
    ) -> Iterable[list[Event] | DecodeError]:
        """What `decode` makes of each frame, in their order; the error instead of raising it.

        Frames may be decoded when their turn comes: take them all before calling again. What is the
        same, and can be had as columns, is a `Lot`.
        """
        return singly(self.decode, frames, recv_ns)


def singly(
    decode: Callable[[bytes, int], list[Event]], frames: Sequence[bytes], recv_ns: Sequence[int]
) -> Iterator[list[Event] | DecodeError]:
    """What `decode` makes of each frame when its turn comes; the error instead of raising it."""
    for frame, at in zip(frames, recv_ns, strict=True):
        try:
            decoded: list[Event] | DecodeError = decode(frame, at)
        except DecodeError as error:
            decoded = error
        yield decoded
