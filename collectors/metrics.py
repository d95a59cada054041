"""What a collector does, as Prometheus metrics: messages, rows, lag, gaps, queues, sinks.

`Metrics` is shown every batch on its way to the sinks, and asks feeds and queues for their counters
when it is scraped, so that being measured costs next to nothing. `serve` answers at `/metrics`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collectors.errors import CollectorError
from collectors.queues import SinkQueue
from collectors.sinks import by_exchange

LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
_PREFIX = "gpukern_collect"


class FeedCounters(Protocol):
    """What is asked of a feed: its status; all but `connected` count since its start."""

    @property
    def connected(self) -> int: ...

    @property
    def frames(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    @property
    def connections(self) -> int: ...

    @property
    def failures(self) -> int: ...

    @property
    def lost(self) -> int: ...

    @property
    def replaced(self) -> int: ...

    @property
    def snapshots(self) -> int: ...

    @property
    def resyncs(self) -> int: ...

    @property
    def silent(self) -> int: ...

    @property
    def refusals(self) -> int: ...

    @property
    def errors(self) -> int: ...

    @property
    def duplicates(self) -> int: ...


class Metrics:
    """The counters of one process; a collector in the sense of `prometheus_client`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: Counter[tuple[str, str]] = Counter()
        self._gaps: Counter[tuple[str, str, str]] = Counter()
        self._recovered: Counter[tuple[str, str, str]] = Counter()
        self._received_s: dict[tuple[str, str], float] = {}
        self._lags: dict[tuple[str, str], _Histogram] = {}
        self._feeds: dict[str, Callable[[], FeedCounters]] = {}
        self._queues: dict[str, SinkQueue] = {}

    def add_feed(self, exchange: str, status: Callable[[], FeedCounters]) -> None:
        """Report a feed; `status` is asked at every scrape."""
        self._feeds[exchange] = status

    def add_queue(self, queue: SinkQueue, name: str | None = None) -> None:
        """Report a queue and its sink, by the sink's name or another."""
        name = queue.sink.name if name is None else name
        if name in self._queues:
            raise CollectorError(f"metrics: there is a queue {name!r} already; give another name")
        self._queues[name] = queue

    def observe(self, channel: str, batch: pa.RecordBatch) -> None:
        """Count a batch of `channel`."""
        for exchange, rows in by_exchange(batch):
            lag_s = _lag_s(rows)
            received_s = pc.max(rows.column("recv_ts")).value / 1e9
            with self._lock:
                self._rows[exchange, channel] += rows.num_rows
                self._received_s[exchange, channel] = received_s
                self._lags.setdefault((exchange, channel), _Histogram()).add(lag_s)
                if channel == "gaps":
                    self._count_gaps(exchange, rows)

    def collect(self) -> Iterator[Any]:
        """The metric families, now."""
        yield from self._feed_families()
        with self._lock:
            families = [*self._row_families()]
        yield from families
        yield from self._queue_families()

    def _count_gaps(self, exchange: str, rows: pa.RecordBatch) -> None:
        names = (rows.column(name).to_pylist() for name in ("channel", "reason"))
        recovered = rows.column("recovered_ts").is_valid().to_pylist()
        for channel, reason, done in zip(*names, recovered, strict=True):
            (self._recovered if done else self._gaps)[exchange, channel, reason] += 1

    def _row_families(self) -> Iterator[Any]:
        channel = ("exchange", "channel")
        reason = ("exchange", "channel", "reason")
        yield _counter("rows", "Rows made of messages", channel, self._rows)
        yield _counter("gaps", "Gaps found", reason, self._gaps)
        yield _counter("recovered_gaps", "Gaps repaired", reason, self._recovered)
        what = "Receive time of the newest row, seconds since 1970"
        yield _gauge("received_timestamp_seconds", what, channel, self._received_s)
        yield _lag_family(self._lags)

    def _feed_families(self) -> Iterator[Any]:
        feeds = {(exchange,): status() for exchange, status in self._feeds.items()}
        for make, attribute, name, what in _FEED:
            samples = {labels: getattr(status, attribute) for labels, status in feeds.items()}
            yield make(name, what, ("exchange",), samples)

    def _queue_families(self) -> Iterator[Any]:
        queues = {(name,): queue.stats() for name, queue in self._queues.items()}
        for make, attribute, name, what in _QUEUE:
            samples = {labels: getattr(stats, attribute) for labels, stats in queues.items()}
            yield make(name, what, ("sink",), samples)
        failed = {(name,): queue.sink.failed_rows for name, queue in self._queues.items()}
        yield _counter("sink_failed_rows", "Rows that the sink took and lost", ("sink",), failed)
        dropped = {
            (name, channel): rows
            for (name,), stats in queues.items()
            for channel, rows in stats.dropped_rows.items()
        }
        what = "Rows dropped because the queue was full"
        yield _counter("queue_dropped_rows", what, ("sink", "channel"), dropped)


class Server:
    """A running HTTP server of metrics."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(metrics: Metrics, port: int, *, address: str = "0.0.0.0") -> Server:
    """Answer Prometheus at `http://address:port/metrics`; port 0 takes a free one."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise CollectorError(
            f"metrics need the extra 'metrics' ({error}): pip install 'gpukern[metrics]'"
        ) from error
    registry = CollectorRegistry()
    registry.register(metrics)  # type: ignore[arg-type]
    try:
        return Server(*start_http_server(port, address, registry))
    except OSError as error:
        raise CollectorError(
            f"metrics port {port}: cannot listen at {address}: {error.strerror}; choose another"
        ) from error


class _Histogram:
    """Counts by lag, and their sum."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(LAG_BUCKETS_S) + 1, np.int64)
        self.sum_s = 0.0

    def add(self, values_s: np.ndarray) -> None:
        buckets = np.searchsorted(LAG_BUCKETS_S, values_s)
        self.counts += np.bincount(buckets, minlength=len(self.counts))
        self.sum_s += float(values_s.sum())


def _lag_s(rows: pa.RecordBatch) -> np.ndarray:
    """How much later than the exchange says a row was received, where it says so."""
    sent, received = (rows.column(name).cast(pa.int64()) for name in ("ts", "recv_ts"))
    lags = pc.subtract(received, sent).drop_null()
    return np.asarray(lags.to_numpy(zero_copy_only=False), np.float64) / 1e9


def _lag_family(lags: dict[tuple[str, str], _Histogram]) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    what = "Receive time minus the exchange's own, of rows that have it"
    labels = ("exchange", "channel")
    family = HistogramMetricFamily(f"{_PREFIX}_lag_seconds", what, labels=labels)
    bounds = [*map(str, LAG_BUCKETS_S), "+Inf"]
    for key, histogram in lags.items():
        buckets = list(zip(bounds, np.cumsum(histogram.counts).tolist(), strict=True))
        family.add_metric(key, buckets, histogram.sum_s)
    return family


def _counter(name: str, what: str, labels: tuple[str, ...], samples: Mapping[Any, float]) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(f"{_PREFIX}_{name}", what, labels=labels), samples)


def _gauge(name: str, what: str, labels: tuple[str, ...], samples: Mapping[Any, float]) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(f"{_PREFIX}_{name}", what, labels=labels), samples)


def _filled(family: Any, samples: Mapping[Any, float]) -> Any:
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


_FEED = (
    (_counter, "frames", "messages", "Messages received"),
    (_counter, "bytes", "bytes", "Bytes received"),
    (_gauge, "connected", "connections_open", "Connections that are open"),
    (_counter, "connections", "connections", "Connections opened"),
    (_counter, "failures", "connection_failures", "Connections that could not be opened"),
    (_counter, "lost", "lost_connections", "Connections that ended without a successor"),
    (_counter, "replaced", "replaced_connections", "Connections that a successor took over from"),
    (_counter, "snapshots", "snapshots", "Book snapshots fetched"),
    (_counter, "resyncs", "resyncs", "Books asked for anew because of a gap"),
    (_counter, "silent", "silent_subscriptions", "Subscriptions that gave no data in time"),
    (_counter, "refusals", "refusals", "Requests that the exchange refused"),
    (_counter, "errors", "undecoded_messages", "Messages that could not be decoded"),
    (_counter, "duplicates", "duplicates", "Events that came twice and are kept once"),
)
_QUEUE = (
    (_counter, "rows", "queue_rows", "Rows offered to the queue"),
    (_counter, "written_rows", "queue_written_rows", "Rows that the sink has taken"),
    (_counter, "conflated_rows", "queue_conflated_rows", "Quotes dropped as superseded"),
    (_counter, "lost_rows", "queue_lost_rows", "Rows lost with a failed sink or at the end"),
    (_counter, "spilled_rows", "queue_spilled_rows", "Rows that went through the disk"),
    (_counter, "blocked_s", "queue_blocked_seconds", "Time that writers waited for room"),
    (_gauge, "waiting_rows", "queue_waiting_rows", "Rows in the queue"),
    (_gauge, "waiting_bytes", "queue_waiting_bytes", "Memory of the rows in the queue"),
    (_gauge, "peak_bytes", "queue_peak_bytes", "The most that it ever was"),
    (_gauge, "spill_rows", "queue_spill_rows", "Of the rows in the queue, those on disk"),
    (_gauge, "spill_bytes", "queue_spill_bytes", "Size of the files of those rows"),
    (_counter, "flushes", "sink_flushes", "Flushes of the sink"),
    (_gauge, "flush_s", "sink_flush_seconds", "How long the last flush took"),
)
