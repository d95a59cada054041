"""Sinks of our own, for tests of sinks in processes of their own."""

import threading
from typing import ClassVar

from collectors.errors import SinkError
from collectors.sinks import Sink


class Failing(Sink):
    """Fails at the second batch."""

    name: ClassVar[str] = "failing"
    flush_s: ClassVar[float] = 0.5
    merge_rows: ClassVar[int] = 7

    def __init__(self) -> None:
        self._batches = 0
        print("what a library has to say")

    def write(self, channel, batch):
        self._batches += 1
        if self._batches > 1:
            self.failed_rows = batch.num_rows
            raise SinkError(f"no room for {channel}")

    def flush(self):
        """Nothing to do."""

    def close(self):
        """Nothing to do."""


class Stuck(Failing):
    """Its `flush` never returns."""

    def flush(self):
        threading.Event().wait()


class Faulty(Failing):
    """Has an error of its own."""

    def write(self, channel, batch):
        raise ZeroDivisionError(f"rows of {channel} by nothing")
