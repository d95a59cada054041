"""Bounded queues: a slow sink costs a stated amount of memory and rows, all of them counted."""

import asyncio
import threading
from collections import Counter

import pyarrow as pa
import pytest
from rows import built, every_channel, quote, trade, trades
from slow_sink import Slow

from collectors.errors import SinkError
from collectors.queue_group import SinkGroup
from collectors.queue_policies import conflate
from collectors.queues import POLICIES, SinkQueue
from collectors.sinks import make_sink

BATCH_ROWS = 500
OVERLOAD = 5


class Broken(Slow):
    name = "broken"

    def write(self, channel, batch):
        raise SinkError("disk on fire")


def overloaded(policy, count=300, **options):
    """Five batches come in the time that the sink needs for one."""
    sink = Slow()
    size = trades(0, BATCH_ROWS).nbytes
    queue = SinkQueue(sink, policy=policy, max_bytes=10 * size, **options)
    memory = []
    for number in range(count):
        queue.write("trades", trades(number * BATCH_ROWS, (number + 1) * BATCH_ROWS))
        if number % OVERLOAD == OVERLOAD - 1:
            sink.permits.release()
        memory.append(queue.stats().waiting_bytes)
    return sink, queue, memory


def balanced(stats):
    gone = sum(stats.dropped_rows.values()) + stats.conflated_rows + stats.lost_rows
    return stats.rows == stats.written_rows + stats.waiting_rows + gone


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_pass_in_order_and_the_sink_is_closed(policy):
    sink = Slow(permits=1000)
    queue = SinkQueue(sink, policy=policy)
    for number in range(20):
        queue.write("trades", trades(number * 10, number * 10 + 10))
    queue.close()
    assert sink.ids() == list(range(200))
    assert sink.closed
    stats = queue.stats()
    assert (stats.rows, stats.written_rows, stats.waiting_rows, stats.waiting_bytes) == (
        *(200, 200),
        *(0, 0),
    )


def test_drop_under_fivefold_overload_is_flat_and_exact():
    sink, queue, memory = overloaded("drop")
    stats = queue.stats()
    assert max(memory) <= stats.peak_bytes <= queue.max_bytes
    assert stats.dropped_rows["trades"] > 300 * BATCH_ROWS / 2
    assert balanced(stats)
    sink.open_up()
    queue.close()
    stats = queue.stats()
    assert stats.dropped_rows == {"trades": 300 * BATCH_ROWS - stats.written_rows}
    ids = sink.ids()
    assert len(ids) == stats.written_rows
    assert ids == sorted(set(ids))


def test_spill_under_fivefold_overload_is_flat_in_memory_and_loses_nothing(tmp_path):
    arrow_before = pa.total_allocated_bytes()
    sink, queue, memory = overloaded("spill", spill_dir=tmp_path)
    stats = queue.stats()
    assert max(memory) <= queue.max_bytes
    assert stats.spilled_rows > 300 * BATCH_ROWS / 2
    assert stats.spill_rows > 0
    written = sum(batch.nbytes for _, batch in sink.batches)
    assert pa.total_allocated_bytes() - arrow_before <= 2 * queue.max_bytes + 2 * written
    sink.open_up()
    queue.close()
    stats = queue.stats()
    assert sink.ids() == list(range(300 * BATCH_ROWS))
    assert (stats.spill_rows, stats.spill_bytes) == (0, 0)
    assert stats.written_rows == stats.rows == 300 * BATCH_ROWS
    assert list(tmp_path.iterdir()) == []


def test_block_under_fivefold_overload_waits_and_loses_nothing():
    sink = Slow()
    size = trades(0, BATCH_ROWS).nbytes
    queue = SinkQueue(sink, policy="block", max_bytes=10 * size)
    finished = threading.Event()

    def produce():
        for number in range(100):
            queue.write("trades", trades(number * BATCH_ROWS, (number + 1) * BATCH_ROWS))
        finished.set()

    producer = threading.Thread(target=produce)
    producer.start()
    while queue.stats().waiting_bytes < 10 * size:
        assert sink.writing.wait(60)
    assert not finished.is_set()
    batches = [("trades", trades(0, 1)), ("trades", trades(1, 2))]
    assert queue.offer(batches) == batches
    sink.open_up()
    producer.join()
    queue.close()
    stats = queue.stats()
    assert stats.peak_bytes <= queue.max_bytes
    assert stats.blocked_s > 0
    assert sink.ids() == list(range(100 * BATCH_ROWS))


def test_conflate_under_fivefold_overload_keeps_executions_and_the_last_quotes():
    sink = Slow()
    symbols = [f"S{i}/USD" for i in range(10)]
    events = [
        trade(n, symbol=symbols[n % 10]) if n % 100 == 7 else quote(n, symbol=symbols[n % 10])
        for n in range(50_000)
    ]
    batches = [built("ticker", events[i : i + 250]) for i in range(0, len(events), 250)]
    queue = SinkQueue(sink, policy="conflate", max_bytes=12 * batches[0].nbytes)
    for number, batch in enumerate(batches):
        queue.write("ticker", batch)
        if number % OVERLOAD == OVERLOAD - 1:
            sink.permits.release()
    stats = queue.stats()
    assert stats.peak_bytes <= queue.max_bytes
    assert stats.conflated_rows > 25_000
    assert balanced(stats)
    sink.open_up()
    queue.close()
    stats = queue.stats()
    table = pa.concat_tables(pa.table(batch) for _, batch in sink.batches)
    rows = table.select(["symbol", "seq", "price", "recv_ts", "bid"]).to_pylist()
    assert len(rows) == stats.written_rows == 50_000 - stats.conflated_rows
    executions = [row["seq"] for row in rows if row["price"] is not None]
    assert executions == [n for n in range(50_000) if n % 100 == 7]
    received = [row["recv_ts"].value for row in rows]
    assert received == sorted(received)
    last = {row["symbol"]: row["bid"] for row in rows}
    assert last == {symbol: 99.0 + 49_990 + i for i, symbol in enumerate(symbols)}


def test_conflation_touches_no_other_channel():
    sink = Slow()
    queue = SinkQueue(sink, policy="conflate", max_bytes=every_channel()["book"].nbytes * 3)
    queue.write("book", every_channel()["book"])
    assert sink.writing.wait(60)  # in the sink's hands now
    queue.write("ticker", built("ticker", [quote(1)]))
    queue.write("trades", trades(0, 1))
    more = [("ticker", built("ticker", [quote(2)]))]
    while not queue.offer(more) and not queue.stats().conflated_rows:
        pass
    sink.open_up()
    queue.close()
    channels = Counter(channel for channel, _ in sink.batches)
    assert (channels["book"], channels["trades"]) == (1, 1)
    assert queue.stats().conflated_rows > 0


def test_conflated_rows_tell_symbols_and_exchanges_apart():
    quotes = [
        built("ticker", [quote(n, symbol=symbol)], exchange=exchange)
        for n, (symbol, exchange) in enumerate(
            [("A/USD", "x"), ("B/USD", "x"), ("A/USD", "y"), ("A/USD", "x"), ("B/USD", "y")]
        )
    ]
    assert conflate(quotes)["seq"].to_pylist() == [1, 2, 3, 4]


def test_huge_batch_passes_alone():
    sink = Slow(permits=10)
    queue = SinkQueue(sink, max_bytes=1)
    queue.write("trades", trades(0, 1000))
    queue.write("trades", trades(1000, 2000))
    queue.close()
    assert sink.ids() == list(range(2000))


def test_full_spill_waits(tmp_path):
    sink = Slow()
    size = trades(0, BATCH_ROWS).nbytes
    options = {"policy": "spill", "spill_dir": tmp_path, "max_bytes": size}
    queue = SinkQueue(sink, max_spill_bytes=3 * size, **options)
    number = 0
    while not queue.offer([("trades", trades(number, number + BATCH_ROWS))]):
        number += BATCH_ROWS
    assert queue.stats().spill_bytes <= 3 * size
    sink.open_up()
    queue.write("trades", trades(number, number + BATCH_ROWS))
    queue.close()
    assert sink.ids() == list(range(number + BATCH_ROWS))


@pytest.mark.parametrize("policy", ["block", "spill"])
def test_flush_covers_all_that_was_written_before(policy):
    sink = Slow(permits=10**6)
    size = trades(0, BATCH_ROWS).nbytes
    queue = SinkQueue(sink, policy=policy, max_bytes=2 * size)
    for number in range(10):
        queue.write("trades", trades(number * BATCH_ROWS, (number + 1) * BATCH_ROWS))
    queue.flush()
    assert sink.flushed[-1] == 10
    queue.close()


def test_queue_flushes_by_itself():
    sink = Slow()
    queue = SinkQueue(sink, flush_s=0.001)
    assert sink.flushing.wait(60)
    queue.close()
    assert queue.stats().flushes >= 1


def test_flush_that_takes_too_long_is_an_error():
    sink = Slow()
    queue = SinkQueue(sink)
    queue.write("trades", trades(0, 1))
    with pytest.raises(SinkError, match=r"slow: not flushed within 0\.001 s"):
        queue.flush(0.001)
    sink.open_up()
    queue.close()


def test_close_that_takes_too_long_says_what_is_lost():
    sink = Slow()
    queue = SinkQueue(sink)
    for number in range(4):
        queue.write("trades", trades(number * 10, number * 10 + 10))
    with pytest.raises(SinkError, match=r"slow: 40 rows were not written at the deadline"):
        queue.close(0.001)
    stats = queue.stats()
    assert (stats.lost_rows, stats.waiting_rows) == (40, 0)
    assert balanced(stats)
    sink.open_up()
    queue._thread.join()


def test_error_of_the_sink_is_raised_by_the_next_call_and_the_rest_is_counted():
    queue = SinkQueue(Broken())
    queue.write("trades", trades(0, 10))
    queue._thread.join()
    for call in (lambda: queue.write("trades", trades(0, 1)), queue.flush, queue.close):
        with pytest.raises(SinkError, match="disk on fire"):
            call()
    stats = queue.stats()
    assert (stats.rows, stats.lost_rows) == (10, 10)
    assert queue.sink.closed


def test_failed_flush_is_raised_where_it_is_waited_for():
    class Unflushable(Slow):
        def flush(self):
            raise SinkError("no space left")

    queue = SinkQueue(Unflushable(permits=5))
    queue.write("trades", trades(0, 10))
    with pytest.raises(SinkError, match="no space left"):
        queue.flush()


def test_who_waits_for_room_is_told_that_the_sink_failed():
    class FailsLate(Slow):
        def write(self, channel, batch):
            super().write(channel, batch)
            raise SinkError("disk on fire")

    sink = FailsLate()
    queue = SinkQueue(sink, max_bytes=1)
    queue.write("trades", trades(0, 10))
    assert sink.writing.wait(60)
    threading.Timer(0, sink.open_up).start()
    with pytest.raises(SinkError, match="disk on fire"):
        queue.write("trades", trades(10, 20))


def test_closed_queue_says_so():
    queue = SinkQueue(Slow())
    queue.close()
    queue.close()
    with pytest.raises(SinkError, match="slow: the queue is closed"):
        queue.write("trades", trades(0, 1))


def test_unknown_policy_is_named():
    with pytest.raises(SinkError, match="policy 'pray' is unknown; choose from block, conflate,"):
        SinkQueue(Slow(), policy="pray")


class Greedy(Slow):
    """Likes its batches large."""

    merge_rows = 100


def pile_up(queue, sink, rows):
    """So many trades, all but the first ten of which wait with a quote for every ten."""
    queue.write("trades", trades(0, 10))
    assert sink.writing.wait(60)
    for start in range(10, rows, 10):
        queue.write("trades", trades(start, start + 10))
        queue.write("ticker", built("ticker", [trade(start)]))
    sink.open_up()


def test_waiting_batches_of_a_channel_are_one_for_a_sink_that_likes_them_large():
    sink = Greedy()
    queue = SinkQueue(sink)
    pile_up(queue, sink, 200)
    queue.flush()
    assert sink.ids() == list(range(200))
    sizes = [batch.num_rows for channel, batch in sink.batches if channel == "trades"]
    assert sizes == [10, 100, 90]
    assert queue.stats().written_rows == queue.stats().rows == 219
    queue.close()


class Together(Greedy):
    """Remembers what it was given by one call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def write_all(self, batches):
        self.calls.append([(channel, batch.num_rows) for channel, batch in batches])
        super().write_all(batches)


def test_batches_of_all_channels_that_wait_are_one_call_fewest_rows_first():
    sink = Together()
    queue = SinkQueue(sink)
    pile_up(queue, sink, 140)
    queue.close()
    assert sink.calls == [
        [("trades", 10)],
        [("ticker", 13), ("trades", 100)],
        [("trades", 30)],
    ]


class TestGroup:
    def test_slow_sink_slows_nobody_else(self):
        slow, fast = Slow(), Slow(permits=10**6)
        group = SinkGroup([SinkQueue(slow, policy="drop", max_bytes=1), SinkQueue(fast)])
        for number in range(50):
            group.write("trades", trades(number, number + 1))
        group.queues[1].flush()
        assert fast.ids() == list(range(50))
        assert slow.ids() == []
        slow.open_up()
        group.close()
        dropped = group.queues[0].stats().dropped_rows["trades"]
        assert len(slow.ids()) == 50 - dropped

    def test_real_sinks_get_the_same_rows(self, tmp_path):
        sinks = [
            make_sink("parquet", tmp_path / "parquet"),
            make_sink("sqlite", tmp_path / "rows.db"),
            make_sink("jsonl", tmp_path / "rows.jsonl.zst"),
        ]
        group = SinkGroup(SinkQueue(sink) for sink in sinks)
        for channel, batch in every_channel().items():
            group.write(channel, batch)
        group.flush()
        group.close()
        rows = sum(batch.num_rows for batch in every_channel().values())
        assert [queue.stats().written_rows for queue in group.queues] == [rows] * 3

    @pytest.mark.parametrize("room", [1, 2], ids=["one batch", "two batches"])
    def test_event_loop_goes_on_while_a_queue_is_full(self, room):
        sink = Slow()
        group = SinkGroup([SinkQueue(sink, max_bytes=room * trades(0, 10).nbytes)])
        batches = [("trades", trades(10 * i, 10 * i + 10)) for i in range(5)]

        async def feed():
            waiting = asyncio.create_task(group.put(batches))
            await asyncio.to_thread(sink.writing.wait, 10)
            assert not waiting.done()
            sink.open_up()
            await waiting

        asyncio.run(feed())
        group.close()
        assert sink.ids() == list(range(50))

    def test_failure_is_noticed_though_nothing_more_is_written(self):
        async def feed():
            group = SinkGroup([SinkQueue(Slow(permits=9)), SinkQueue(Broken())])
            await group.put([("trades", trades(0, 1))])
            await asyncio.wait_for(group.watch(), 10)

        with pytest.raises(SinkError, match="disk on fire"):
            asyncio.run(feed())

    def test_every_failure_is_told(self):
        group = SinkGroup([SinkQueue(Broken()), SinkQueue(Slow(permits=9)), SinkQueue(Broken())])
        for queue in group.queues:
            queue.write("trades", trades(0, 1))
        with pytest.raises(SinkError, match="disk on fire; disk on fire"):
            group.close()
        assert group.queues[1].sink.ids() == [0]
