"""What the feed knows of its sockets and subscriptions, and what it wants done."""

from __future__ import annotations

from collections import deque

import msgspec

Pair = tuple[str, str]  # symbol, channel


class Open(msgspec.Struct, frozen=True):
    """Open a socket."""

    line: int
    url: str


class Send(msgspec.Struct, frozen=True):
    """Send a message."""

    line: int
    frame: bytes


class Close(msgspec.Struct, frozen=True):
    """Close a socket; `FeedCore.closed` is told as usual."""

    line: int
    reason: str


class Fetch(msgspec.Struct, frozen=True):
    """Ask by REST; `symbol` is set where the answer is a book snapshot."""

    url: str
    symbol: str | None = None


Action = Open | Send | Close | Fetch


class Message(msgspec.Struct):
    """A message to be sent, and the subscriptions that it starts."""

    frame: bytes
    starts: tuple[Pair, ...] = ()


class Subscription(msgspec.Struct):
    """One channel of one symbol. Times are ns, 0 for never."""

    asked_ns: int = 0
    """When it was last asked for; 0 while the request waits."""
    heard_ns: int = 0
    misses: int = 0
    rest_ns: int = 0
    """Until then it is left alone: it gives no data while others on its connection do."""


class Slot(msgspec.Struct):
    """One place for a socket: a route and a share of the symbols."""

    route: str
    share: int
    due_ns: int | None = 0
    """When to open a socket; None while there is one."""
    attempts: int = 0
    line: int | None = None
    successor: int | None = None
    renew_ns: int = 0
    """No successor is opened before that: the last one failed."""


class Line(msgspec.Struct):
    """One socket."""

    number: int
    slot: Slot
    opened_ns: int = 0
    """0 while it opens."""
    heard_ns: int = 0
    pinged_ns: int = 0
    carried: bool = False
    """Whether market data have come by it."""
    frames: int = 0
    """Received by it."""
    messages: int = 0
    """Sent by it."""
    closing: bool = False
    expiring: bool = False
    """The exchange has said that it will close it."""
    outbox: deque[Message] = msgspec.field(default_factory=deque)
    sent: deque[int] = msgspec.field(default_factory=deque)

    def may_send(self, now_ns: int, messages_per_s: float) -> bool:
        """Whether the limit allows another message now; one a second is left for pongs."""
        while self.sent and self.sent[0] <= now_ns - 1_000_000_000:
            self.sent.popleft()
        return len(self.sent) < max(1, int(messages_per_s) - 1)


class FeedStatus(msgspec.Struct):
    """Counters of a feed."""

    connected: int = 0
    frames: int = 0
    bytes: int = 0
    connections: int = 0
    """Opened so far."""
    failures: int = 0
    """Connections that could not be opened."""
    lost: int = 0
    """Connections that ended without a successor."""
    last_loss: str = ""
    replaced: int = 0
    """Connections that a successor took over from, without a hole."""
    snapshots: int = 0
    """Book snapshots fetched."""
    resyncs: int = 0
    """Books asked for anew because of a gap."""
    silent: int = 0
    """Subscriptions that gave no data in time, or stopped to."""
    refusals: int = 0
    last_refusal: str = ""
    errors: int = 0
    """Frames that could not be decoded."""
    gaps: int = 0
    duplicates: int = 0
    lag_ns: int = 0
    """Receive time minus the exchange's time, of the last event that has one."""
    state: str = ""
    """What the exchange says of itself: online, maintenance, ..."""
