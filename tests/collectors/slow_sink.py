"""A sink that is as slow as a test wants it."""

from __future__ import annotations

import threading

from collectors.sinks import Sink


class Slow(Sink):
    """Writes a batch for every permit, and remembers what it was given."""

    name = "slow"
    flush_s = 3600.0

    def __init__(self, permits=0):
        self.permits = threading.Semaphore(permits)
        self.batches = []
        self.flushed = []
        self.flushing = threading.Event()
        self.writing = threading.Event()
        self.closed = False

    def write(self, channel, batch):
        self.writing.set()
        self.permits.acquire()
        self.batches.append((channel, batch))

    def flush(self):
        self.flushed.append(len(self.batches))
        self.flushing.set()

    def close(self):
        self.closed = True

    def open_up(self):
        self.permits.release(10**6)

    def ids(self, channel="trades"):
        return [n for c, b in self.batches if c == channel for n in b["trade_id"].to_pylist()]
