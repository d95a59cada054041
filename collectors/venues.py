"""What the feed loop has to know of each exchange beside its messages: addresses, limits, habits.

Data, so that the loop knows no exchange by name. Every figure is the exchange's documented one or,
where it documents none, a careful one (2026-09); addresses can be given anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources

import msgspec

from collectors.errors import CollectorError


@dataclass(frozen=True)
class Poll:
    """Something that is only to be had by asking, again and again."""

    path: str  # `{symbol}` is the exchange's name of a symbol
    channel: str
    interval_s: float


@dataclass(frozen=True)
class Venue:
    """An exchange's addresses and limits."""

    sockets: Mapping[str, str]
    """Route -> URL; an exchange with one socket has the route ''."""
    rest: str = ""
    channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Route -> the channels whose data come by it, where there are several routes."""
    snapshot: str = ""
    """Path of a book snapshot; '' where books begin with one on the socket."""
    polls: tuple[Poll, ...] = ()
    messages_per_s: float = 5.0
    """Client messages on one connection; one less is sent, for the answers to pings."""
    symbols_per_socket: int = 10_000
    lifetime_s: float = 0.0
    """After this a connection is replaced, by one that is open before it closes; 0: never."""
    idle_s: float = 60.0
    """Without any message for so long a connection is dead."""
    ping: bytes = b""
    """An application's ping, sent every `ping_s`."""
    ping_s: float = 30.0
    first_data_s: Mapping[str, float] = field(default_factory=dict)
    """By channel: without data for so long after subscribing, the subscription failed silently."""
    quiet_s: Mapping[str, float] = field(default_factory=dict)
    """By channel: data that stop for so long are stale."""
    snapshots_per_s: float = 4.0
    """REST snapshots asked for, of all symbols together."""


_BINANCE_FIRST = {"ticker": 60.0, "book": 20.0, "funding": 15.0}
_IN_BAND = {"ticker": 10.0, "book": 10.0, "trades": 10.0}

VENUES: Mapping[str, Venue] = {
    "binance": Venue(
        sockets={"": "wss://stream.binance.com:9443/stream"},
        rest="https://api.binance.com",
        snapshot="/api/v3/depth?symbol={symbol}&limit=5000",
        messages_per_s=5.0,
        symbols_per_socket=250,  # of 1,024 streams, up to four for a symbol
        lifetime_s=23.5 * 3600,
        idle_s=60.0,
        first_data_s=_BINANCE_FIRST,
        quiet_s={"book": 300.0, "ticker": 600.0},
        snapshots_per_s=0.4,  # each weighs 250 of 6,000 a minute
    ),
    "binance-futures": Venue(
        sockets={
            "public": "wss://fstream.binance.com/public/stream",
            "market": "wss://fstream.binance.com/market/stream",
        },
        rest="https://fapi.binance.com",
        channels={"public": ("ticker", "book"), "market": ("trades", "funding")},
        snapshot="/fapi/v1/depth?symbol={symbol}&limit=1000",
        polls=(Poll("/fapi/v1/openInterest?symbol={symbol}", "funding", 30.0),),
        messages_per_s=10.0,
        symbols_per_socket=250,
        lifetime_s=23.5 * 3600,
        idle_s=60.0,
        first_data_s=_BINANCE_FIRST,
        quiet_s={"book": 300.0, "ticker": 600.0, "funding": 30.0},
        snapshots_per_s=1.5,  # each weighs 20 of 2,400 a minute
    ),
    "kraken": Venue(
        sockets={"": "wss://ws.kraken.com/v2"},
        messages_per_s=5.0,
        idle_s=10.0,  # a heartbeat comes every second
        ping=b'{"method":"ping"}',
        first_data_s=_IN_BAND,
        quiet_s={"book": 300.0, "ticker": 600.0},
    ),
    "coinbase": Venue(
        sockets={"": "wss://advanced-trade-ws.coinbase.com"},
        messages_per_s=8.0,
        idle_s=10.0,  # a heartbeat comes every second
        first_data_s=_IN_BAND,
        quiet_s={"book": 300.0, "ticker": 600.0},
    ),
}


def venue(exchange: str, socket: str = "", rest: str = "") -> Venue:
    """The exchange's venue; `socket` and `rest` replace scheme, host and port of its addresses."""
    if exchange not in VENUES:
        raise CollectorError(f"exchange {exchange!r} is not known; choose from {', '.join(VENUES)}")
    known = VENUES[exchange]
    if socket:
        if not socket.startswith(("ws://", "wss://")):
            raise CollectorError(f"endpoint {socket!r} must begin with ws:// or wss://")
        moved = {route: _moved(url, socket) for route, url in known.sockets.items()}
        known = replace(known, sockets=moved)
    if rest:
        if not rest.startswith(("http://", "https://")):
            raise CollectorError(f"endpoint {rest!r} must begin with http:// or https://")
        known = replace(known, rest=rest.rstrip("/"))
    return known


def majors(exchange: str) -> list[str]:
    """What is collected of an exchange unless symbols are named."""
    shipped = resources.files("collectors").joinpath("majors.json").read_bytes()
    known: dict[str, list[str]] = msgspec.json.decode(shipped)
    return known[exchange]


def _moved(url: str, to: str) -> str:
    """The path of `url` at another place."""
    host = url.split("/", 3)
    return to.rstrip("/") + ("/" + host[3] if len(host) > 3 else "")
