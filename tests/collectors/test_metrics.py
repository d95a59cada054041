"""Metrics: what was counted is what a scrape says."""

import socket
import urllib.request

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rows import NOON, SECOND, built, every_channel, trade, trades
from slow_sink import Slow

from collectors.errors import CollectorError
from collectors.feed_lines import FeedStatus
from collectors.metrics import LAG_BUCKETS_S, Metrics, serve
from collectors.queues import SinkQueue


def scrape(metrics):
    """Samples as a scraper reads them: (name, labels) -> value."""
    server = serve(metrics, 0, address="127.0.0.1")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.close()
    return {
        (
            sample.name.removeprefix("gpukern_collect_"),
            tuple(sorted(sample.labels.values())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_rows_and_gaps_are_counted_by_exchange_and_channel():
    metrics = Metrics()
    for channel, batch in every_channel().items():
        metrics.observe(channel, batch)
    metrics.observe("trades", built("trades", [trade(9)], exchange="kraken"))
    found = scrape(metrics)
    for channel, batch in every_channel().items():
        assert found["rows_total", ("binance", channel)] == batch.num_rows
    assert found["rows_total", ("kraken", "trades")] == 1
    assert found["gaps_total", ("binance", "book", "sequence")] == 1
    assert found["recovered_gaps_total", ("binance", "book", "sequence")] == 1
    newest = found["received_timestamp_seconds", ("kraken", "trades")]
    assert newest == pytest.approx((NOON + 9 * SECOND) / 1e9)


def test_lag_is_the_time_between_the_exchange_and_us():
    metrics = Metrics()
    lags_s = [0.0005, 0.003, 0.004, 0.3, 100.0]
    rows = [
        msgspec.structs.replace(trade(i, recv_ns=NOON), ts=NOON - int(lag_s * 1e9))
        for i, lag_s in enumerate(lags_s)
    ]
    metrics.observe("trades", built("trades", rows))
    found = scrape(metrics)
    for bound in LAG_BUCKETS_S:
        expected = sum(lag <= bound for lag in lags_s)
        assert (
            found["lag_seconds_bucket", tuple(sorted(["binance", "trades", str(bound)]))]
            == expected
        )
    assert found["lag_seconds_count", ("binance", "trades")] == 5
    assert found["lag_seconds_sum", ("binance", "trades")] == pytest.approx(sum(lags_s))


def test_rows_without_a_time_of_the_exchange_have_no_lag():
    metrics = Metrics()
    metrics.observe("gaps", every_channel()["gaps"])
    assert scrape(metrics)["lag_seconds_count", ("binance", "gaps")] == 0


def test_feeds_are_asked_at_the_scrape():
    metrics = Metrics()
    status = FeedStatus(connected=1, frames=10, bytes=2000, connections=2, lost=1, errors=3)
    metrics.add_feed("kraken", lambda: status)
    assert scrape(metrics)["messages_total", ("kraken",)] == 10
    status.frames = 11
    found = scrape(metrics)
    names = ("messages_total", "bytes_total", "connections_open", "connections_total")
    assert [found[name, ("kraken",)] for name in names] == [11, 2000, 1, 2]
    names = ("lost_connections_total", "undecoded_messages_total", "resyncs_total")
    assert [found[name, ("kraken",)] for name in names] == [1, 3, 0]


def test_queue_says_what_it_holds_and_what_it_lost():
    sink = Slow()
    queue = SinkQueue(sink, policy="drop", max_bytes=trades(0, 10).nbytes)
    metrics = Metrics()
    metrics.add_queue(queue)
    queue.write("trades", trades(0, 10))
    queue.write("trades", trades(10, 20))
    queue.write("book", every_channel()["book"])
    found = scrape(metrics)
    assert found["queue_rows_total", ("slow",)] == 20 + every_channel()["book"].num_rows
    assert found["queue_waiting_rows", ("slow",)] == 10
    assert found["queue_waiting_bytes", ("slow",)] == trades(0, 10).nbytes
    assert found["queue_dropped_rows_total", ("slow", "trades")] == 10
    assert found["queue_dropped_rows_total", ("book", "slow")] == every_channel()["book"].num_rows
    sink.open_up()
    queue.flush()
    found = scrape(metrics)
    assert found["queue_written_rows_total", ("slow",)] == 10
    assert found["sink_flushes_total", ("slow",)] >= 1
    queue.close()


def test_two_queues_need_two_names():
    metrics = Metrics()
    queues = [SinkQueue(Slow()), SinkQueue(Slow())]
    metrics.add_queue(queues[0])
    with pytest.raises(CollectorError, match="there is a queue 'slow' already; give another name"):
        metrics.add_queue(queues[1])
    metrics.add_queue(queues[1], "second")
    assert scrape(metrics)["queue_rows_total", ("second",)] == 0
    for queue in queues:
        queue.close()


def test_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CollectorError, match=f"metrics port {port}: cannot listen at"):
            serve(Metrics(), port, address="127.0.0.1")
