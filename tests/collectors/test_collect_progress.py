"""What is said of a running collector."""

from __future__ import annotations

from collectors.collect import Progress
from collectors.feed_lines import FeedStatus
from collectors.progress import StatusLine, summary
from collectors.queue_stats import QueueStats


def progress(elapsed_s: float = 0.0, rows: int = 0, **counters: object) -> Progress:
    return Progress(elapsed_s, FeedStatus(**counters), {"trades": rows}, {})


def test_rates_are_those_since_the_last_line() -> None:
    status = StatusLine("kraken", 14)
    status.line(progress(10.0, 500, connected=1, frames=1000))
    line = status.line(progress(12.0, 2500, connected=1, frames=5000, lag_ns=41_000_000, gaps=3))
    assert line == (
        "kraken · 14 symbols · 1 connection · 2,000 messages/s · 1,000 rows/s · lag 41 ms · 3 gaps"
    )


def test_it_says_so_when_it_is_not_connected() -> None:
    assert "1 symbol · not connected ·" in StatusLine("kraken", 1).line(progress())


def test_queues_are_told_when_rows_wait_or_are_lost() -> None:
    now = progress()
    now.queues = {
        "parquet": QueueStats(),
        "kafka": QueueStats(waiting_rows=1200, dropped_rows={"trades": 3, "book": 4}),
        "sqlite": QueueStats(conflated_rows=5),
    }
    line = StatusLine("kraken", 1).line(now)
    assert line.endswith("0 gaps · kafka: 1,200 waiting, 7 rows dropped · sqlite: 5 rows conflated")


def test_news_are_told_once() -> None:
    status = StatusLine("kraken", 1)
    feed = FeedStatus(lost=1, last_loss="no message for 10 s", state="maintenance")
    assert status.news(feed) == [
        "lost the connection: no message for 10 s",
        "the exchange says: maintenance",
    ]
    assert status.news(feed) == []
    feed.failures = 1
    feed.last_loss = "HTTP 503"
    assert status.news(feed) == ["could not connect: HTTP 503"]


def test_refusals_and_messages_not_understood_are_told_apart() -> None:
    status = StatusLine("kraken", 1)
    feed = FeedStatus(refusals=1, last_refusal="Currency pair not supported")
    assert status.news(feed) == ["refused: Currency pair not supported"]
    feed.errors, feed.last_refusal = 1, "kraken: not JSON"
    assert status.news(feed) == ["not understood: kraken: not JSON"]


def test_silent_subscriptions_are_counted() -> None:
    told = StatusLine("kraken", 1).news(FeedStatus(silent=2))
    assert told == ["2 subscriptions gave no data; asked again"]


def test_the_summary_tells_rows_by_channel_and_what_was_lost() -> None:
    now = progress(60.0, 1234, frames=5000, gaps=2)
    now.queues = {"kafka": QueueStats(lost_rows=7)}
    assert summary(now) == [
        "5,000 messages in 60 s, 2 gaps",
        "       1,234 rows  trades",
        "kafka: 7 rows lost",
    ]
