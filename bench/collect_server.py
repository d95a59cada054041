"""A simulated Binance Spot that only talks: frames made beforehand, as fast as asked for.

``python -m bench.collect_server --frames N --per-s R`` prints its address and waits. To whoever
connects and subscribes it sends N messages of 14 symbols, R a second (0: as fast as they are read).
Trades carry the time of sending, in µs. Whoever asks for a symbol's depth gets its book as it was
before the first message, from which the differences continue.
"""

from __future__ import annotations

import argparse
import re
import socketserver
import time
from collections.abc import Iterator
from itertools import islice
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from collectors.market import Market
from collectors.simulator import START_NS, BinanceFrames
from collectors.venues import majors

SLICE_S = 0.001
_MOST = 256  # frames sent at once
_TRADE_TIME = re.compile(rb'"T":(\d{13}),')
_LATER = b"0" * 16  # a time in µs has sixteen digits
_OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
_TIME = np.dtype((np.void, len(_LATER)))


class Wire:
    """Frames of the protocol, end to end, into which the time of sending is written."""

    def __init__(self, frames: int) -> None:
        pairs = majors("binance")
        stream = BinanceFrames(Market(pairs, 1, START_NS), pairs, 1, START_NS)
        self.depths = {pair.replace("/", ""): stream.depth(pair) for pair in pairs}
        """By the symbol's name, before the first frame."""
        sent, holes = [], []
        for frame in islice(_told(stream), frames):
            stamped = _TRADE_TIME.sub(b'"T":%s,' % _LATER, frame) if b"@trade" in frame else frame
            data = Frame(Opcode.TEXT, stamped).serialize(mask=False)
            holes.append(data.find(_LATER) if stamped is not frame else -1)
            sent.append(data)
        self._bytes = bytearray().join(sent)
        self._times = np.ndarray(len(self._bytes) - len(_LATER), _TIME, self._bytes, strides=(1,))
        """What stands at each place."""
        self._begins = np.concatenate([[0], np.cumsum([*map(len, sent)])])
        found = np.array(holes)
        self._holes: NDArray[np.int64] = (self._begins[:-1] + found)[found >= 0]
        self._holes_before = np.concatenate([[0], np.cumsum(found >= 0)])

    def __len__(self) -> int:
        return len(self._begins) - 1

    def part(self, begin: int, end: int) -> bytes:
        """These frames, sent now."""
        holes = self._holes[self._holes_before[begin] : self._holes_before[end]]
        self._times[holes] = np.void(b"%d" % (time.time_ns() // 1000))
        return bytes(memoryview(self._bytes)[self._begins[begin] : self._begins[end]])


def _told(stream: BinanceFrames) -> Iterator[bytes]:
    """What a socket tells of it, beginning with the first message: neither the answer to a
    subscription nor a book, which are in a recording, too."""
    for _, frame in stream:
        if b'"result"' not in frame and b'"lastUpdateId"' not in frame:
            yield frame


class Talk(socketserver.StreamRequestHandler):
    """One connection, in a thread of its own."""

    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            if self._shake_hands():
                self.request.recv(2)  # the subscription has begun to arrive
                for data in self._slices(self.server.wire, self.server.per_s):
                    self.request.sendall(data)
                while self.request.recv(1 << 16):
                    pass
        except ConnectionError:
            return

    def _slices(self, wire: Wire, per_s: float) -> Iterator[bytes]:
        """What is to be sent next, some frames at a time, when it is due."""
        sent, started_s = 0, time.perf_counter()
        while sent < len(wire):
            due = len(wire)
            if per_s:
                due = int((time.perf_counter() - started_s) * per_s) + 1
            end = min(len(wire), due, sent + _MOST)
            yield wire.part(sent, end)
            sent = end
            if per_s:
                ahead_s = sent / per_s - (time.perf_counter() - started_s)
                if ahead_s > 0:
                    time.sleep(max(ahead_s, SLICE_S))

    def _shake_hands(self) -> bool:
        """Whether it is a web socket; any other request is answered here."""
        protocol, asked = ServerProtocol(), b""
        while not asked.endswith(b"\r\n\r\n"):
            more = self.request.recv(1 << 16)
            if not more:
                return False
            asked += more
        protocol.receive_data(asked)
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        depth = self._depth(request.path)
        if depth is not None:
            self.request.sendall(_OK % (len(depth), depth))
            return False
        response = protocol.accept(request)
        protocol.send_response(response)
        self.request.sendall(b"".join(protocol.data_to_send()))
        return response.status_code == 101

    def _depth(self, path: str) -> bytes | None:
        """The book that a request asks for, if it is one for a book."""
        asked = urlsplit(path)
        if not asked.path.endswith("/depth"):
            return None
        return self.server.wire.depths[parse_qs(asked.query)["symbol"][0]]


class Server(socketserver.ThreadingTCPServer):
    """One set of frames for every connection."""

    daemon_threads = True

    def __init__(self, frames: int, per_s: float) -> None:
        self.wire, self.per_s = Wire(frames), per_s
        super().__init__(("127.0.0.1", 0), Talk)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.collect_server", description=__doc__)
    parser.add_argument("--frames", type=int, default=250_000)
    parser.add_argument("--per-s", type=float, default=0.0)
    options = parser.parse_args()
    with Server(options.frames, options.per_s) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
