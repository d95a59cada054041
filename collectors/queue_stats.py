"""The counters of a bounded queue."""

from __future__ import annotations

import msgspec


class QueueStats(msgspec.Struct):
    """The counters of a queue; rows are never lost without being in one of them."""

    rows: int = 0
    """Rows offered to the queue: the sum of those written, waiting, dropped, conflated, lost."""
    written_rows: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0
    """In memory, the batch being written included."""
    peak_bytes: int = 0
    spill_rows: int = 0
    """Of the waiting rows, those on disk."""
    spill_bytes: int = 0
    spilled_rows: int = 0
    """All rows that ever went to the disk."""
    conflated_rows: int = 0
    dropped_rows: dict[str, int] = {}
    """By channel."""
    lost_rows: int = 0
    """Not written because the sink failed, or the deadline of `close` was over."""
    flushes: int = 0
    flush_s: float = 0.0
    """How long the last flush took."""
    blocked_s: float = 0.0
    """How long `write` has waited for room, altogether."""
