"""What a simulated exchange does wrong when asked to, and the log of what it did.

A fault is written `KIND[:CHANNEL[:SYMBOL]][@WHEN][xTIMES][=SECONDS]`:

    drop:book:BTC/USDT@1000      the 1,000th message of that book is not sent
    corrupt:trades@0.1%          every message of trades is spoiled with this probability
    disconnect@5000x3            after 5,000 messages, and three times so
    stall:book:ETH/USD=30        from now on, for 30 s, nothing of that book
    refuse=60                    the next connection is answered 503, Retry-After: 60

CHANNEL and SYMBOL are the collector's names; without them all messages count. TIMES is 1, and
unlimited where WHEN is a probability.

| kind | what happens |
|---|---|
| drop | the message is not sent |
| duplicate | it is sent twice |
| reorder | it is sent after its successor of the same channel and symbol |
| corrupt | one of its bytes is damaged: it is no JSON any more |
| alter | one digit of a size is another: only a checksum can tell |
| stall | after it, this channel of this symbol is silent for SECONDS, or until subscribed anew |
| slow | the connection delivers nothing for SECONDS (1), then everything |
| disconnect | the connection is cut instead |
| shutdown | the exchange announces that it will close the connection, and does after SECONDS (10) |
| refuse | a connection is answered 503 or, with SECONDS, 429; with a channel, the subscription is
refused; with the channel `rest`, a REST request is answered so |
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from collectors.errors import CollectorError

KINDS = (
    "drop",
    "duplicate",
    "reorder",
    "corrupt",
    "alter",
    "stall",
    "slow",
    "disconnect",
    "shutdown",
    "refuse",
)
_CHANNELS = ("ticker", "trades", "book", "funding", "rest")
_FORM = re.compile(
    r"(?P<kind>[a-z]+)(:(?P<channel>[a-z]*)(:(?P<symbol>[^@]+?))?)?"
    r"(@(?P<at>\d+(\.\d+)?%?))?(x(?P<times>\d+))?(=(?P<seconds>\d+(\.\d+)?))?"
)


@dataclass(frozen=True)
class Fault:
    """One wish."""

    kind: str
    channel: str = ""
    symbol: str = ""
    at: int = 1
    """The first message that it strikes, counting those of its channel and symbol from now on."""
    share: float = 0.0
    """Instead: the probability with which it strikes any of them."""
    times: int = 1
    """How often at most; 0: without limit."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise CollectorError(f"fault {self.kind!r}: choose from {', '.join(KINDS)}")
        if self.channel and self.channel not in _CHANNELS:
            known = ", ".join(_CHANNELS)
            raise CollectorError(
                f"fault {self.kind}: no channel {self.channel!r}; there are {known}"
            )
        if self.channel == "rest" and self.kind != "refuse":
            raise CollectorError(f"fault {self.kind}: REST requests can only be refused")
        if self.at < 1 or not 0.0 <= self.share <= 1.0:
            raise CollectorError(f"fault {self.kind}: @ takes a number from 1, or up to 100%")


def parse_fault(text: str) -> Fault:
    """The fault that `text` describes, as the module's description has it."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise CollectorError(
            f"fault {text!r} is not KIND[:CHANNEL[:SYMBOL]][@WHEN][xTIMES][=SECONDS]; "
            "for example drop:book:BTC/USDT@1000 or corrupt:trades@0.1%"
        )
    at = match["at"] or "1"
    share = float(at[:-1]) / 100 if at.endswith("%") else 0.0
    if not share and not at.isdigit():
        raise CollectorError(f"fault {text!r}: @{at} is neither a whole number nor a percentage")
    return Fault(
        match["kind"],
        match["channel"] or "",
        match["symbol"] or "",
        at=1 if share else int(at),
        share=share,
        times=int(match["times"] or (0 if share else 1)),
        seconds=float(match["seconds"] or 0.0),
    )


class Injected(msgspec.Struct, frozen=True):
    """One thing that was done wrong."""

    kind: str
    channel: str
    symbol: str
    connection: int
    time_ns: int
    """Of the market."""
    frame: bytes
    """What would have been sent."""


@dataclass
class _Armed:
    """A fault and how far it has come."""

    fault: Fault
    seen: int = 0
    struck: int = 0

    @property
    def spent(self) -> bool:
        return bool(self.fault.times) and self.struck >= self.fault.times


@dataclass
class Faults:
    """The wishes that are still open, and what has been done."""

    wishes: Iterable[Fault] = ()
    seed: int = 1
    log: list[Injected] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(f"faults {self.seed}")
        self._armed: list[_Armed] = []
        for fault in self.wishes:
            self.inject(fault)

    def inject(self, fault: Fault) -> None:
        """From now on."""
        self._armed.append(_Armed(fault))

    def message(self, channel: str, symbol: str) -> Fault | None:
        """The fault that strikes this message, if any."""
        if not self._armed:
            return None
        return self._strike(channel, symbol, refusal=False)

    def refusal(self, channel: str = "", symbol: str = "") -> Fault | None:
        """The fault that refuses a connection, a subscription or a request, if any."""
        return self._strike(channel, symbol, refusal=True)

    def _strike(self, channel: str, symbol: str, *, refusal: bool) -> Fault | None:
        for armed in self._armed:
            fault = armed.fault
            if (fault.kind == "refuse") != refusal:
                continue
            if refusal and fault.channel != channel:
                continue
            if fault.channel and fault.channel != channel:
                continue
            if fault.symbol and fault.symbol != symbol:
                continue
            armed.seen += 1
            hit = self._random.random() < fault.share if fault.share else armed.seen >= fault.at
            if hit:
                armed.struck += 1
                if armed.spent:
                    self._armed.remove(armed)
                return fault
        return None

    def corrupt(self, frame: bytes) -> bytes:
        """`frame` with one byte of its syntax damaged."""
        marks = [i for i in range(1, len(frame)) if frame[i - 1 : i + 1] in (b'":', b'",')]
        at = self._random.choice(marks)
        return frame[:at] + b";" + frame[at + 1 :]
