"""How a collector is doing, in a line: rates, lag, gaps, what waits, what was lost."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy, deepcopy

from collectors.collect import Progress
from collectors.feed_lines import FeedStatus
from collectors.queue_stats import QueueStats


class StatusLine:
    """Makes lines of every `Progress` shown to it; rates are those since the one before."""

    def __init__(self, exchange: str, symbols: int) -> None:
        self._title = f"{exchange} · {symbols} symbol{'' if symbols == 1 else 's'}"
        self._before = Progress(0.0, FeedStatus(), {}, {})
        self._told = FeedStatus()

    def line(self, now: Progress) -> str:
        """Everything at a glance; what is zero and should be is left out."""
        before, self._before = self._before, deepcopy(now)  # the feed counts on in its own
        span_s = max(now.elapsed_s - before.elapsed_s, 1e-9)
        frames = (now.feed.frames - before.feed.frames) / span_s
        rows = (sum(now.rows.values()) - sum(before.rows.values())) / span_s
        parts = [
            self._title,
            _connections(now.feed),
            f"{frames:,.0f} messages/s",
            f"{rows:,.0f} rows/s",
            f"lag {now.feed.lag_ns / 1e6:,.0f} ms",
            f"{now.feed.gaps:,} gaps",
            *_queues(now.queues),
        ]
        return " · ".join(parts)

    def news(self, feed: FeedStatus) -> list[str]:
        """What has happened since the last call, a sentence each."""
        before, self._told = self._told, copy(feed)
        told = []
        if feed.lost > before.lost or feed.failures > before.failures:
            what = "lost the connection" if feed.lost > before.lost else "could not connect"
            told.append(f"{what}: {feed.last_loss}")
        if feed.refusals > before.refusals:
            told.append(f"refused: {feed.last_refusal}")
        elif feed.errors > before.errors:
            told.append(f"not understood: {feed.last_refusal}")
        if feed.silent > before.silent:
            told.append(f"{feed.silent - before.silent} subscriptions gave no data; asked again")
        if feed.state != before.state and feed.state:
            told.append(f"the exchange says: {feed.state}")
        return told


def summary(now: Progress) -> list[str]:
    """What was collected, in the end."""
    feed = now.feed
    lines = [f"{feed.frames:,} messages in {now.elapsed_s:,.0f} s, {feed.gaps:,} gaps"]
    lines += [f"{rows:>12,} rows  {channel}" for channel, rows in now.rows.items()]
    for name, queue in now.queues.items():
        lines += [f"{name}: {told}" for told in _losses(queue)]
    return lines


def _connections(feed: FeedStatus) -> str:
    if feed.connected == 0:
        return "not connected"
    return f"{feed.connected} connection{'' if feed.connected == 1 else 's'}"


def _queues(queues: dict[str, QueueStats]) -> Iterator[str]:
    for name, queue in queues.items():
        told = [f"{queue.waiting_rows:,} waiting"] if queue.waiting_rows else []
        told += _losses(queue)
        if told:
            yield f"{name}: {', '.join(told)}"


def _losses(queue: QueueStats) -> Iterator[str]:
    dropped = sum(queue.dropped_rows.values())
    for count, word in (
        (dropped, "dropped"),
        (queue.conflated_rows, "conflated"),
        (queue.lost_rows, "lost"),
    ):
        if count:
            yield f"{count:,} rows {word}"
