"""Bars of a stream: the rows of the batch, whatever the cuts, the disorder and the restarts."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from bar_oracle import SCHEMA, Row, accepted, streams, table, trades
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk
from gpukern import bars

OPERATIONS: dict[str, dict[str, Any]] = {
    "tick_bars": {"n": 3},
    "volume_bars": {"threshold": 2.5},
    "volume_bars split": {"threshold": 0.3, "overshoot": "split"},
    "dollar_bars": {"threshold": {"a": 5.0, "b": 6.0, "c": 1.0}},
    "dollar_bars split": {"threshold": 3.0, "overshoot": "split"},
    "imbalance_bars": {"expected_ticks_init": 2, "span_bars": 2, "span_ticks": 3},
    "imbalance_bars volume": {
        "metric": "volume", "sign": "side", "expected_ticks_init": 2, "min_ticks": 2,
    },
    "runs_bars": {"metric": "dollar", "expected_ticks_init": 3, "span_bars": 3, "max_ticks": 6},
    "runs_bars consecutive": {"runs": "consecutive", "fixed_threshold": 2.0, "sign": "side"},
}  # fmt: skip


def cut(rows: pa.Table, data: st.DataObject) -> list[pa.Table]:
    """The rows in pieces of drawn lengths, after an empty one."""
    parts, at = [rows.slice(0, 0)], 0
    while at < rows.num_rows:
        size = data.draw(st.integers(1, 9))
        parts.append(rows.slice(at, size))
        at += size
    return parts


def restarted(stream: Any, make: Any) -> Any:
    blob = stream.snapshot()
    again = make()
    again.restore(blob)
    assert again.snapshot() == blob
    return again


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=50)
@given(streams(), st.booleans(), st.data())
def test_information_bars_equal_the_batch(
    name: str, rows: list[Row], restart: bool, data: st.DataObject
) -> None:
    options, operation = OPERATIONS[name], name.split()[0]
    whole = table(rows)

    def make() -> Any:
        return bars.streaming(operation, SCHEMA, **options)

    stream, out = make(), []
    for part in cut(whole, data):
        out.append(stream.push(part))
        if restart:
            stream = restarted(stream, make)
    out.append(stream.flush())
    batch = dict(options)
    first = batch.pop("n", None) or batch.pop("threshold", None)
    function = getattr(bars, operation)
    want = function(whole, **batch) if first is None else function(whole, first, **batch)
    assert pa.concat_tables(out).equals(want)
    counters = stream.counters
    assert counters["given"] == whole.num_rows
    assert counters["given"] == sum(counters[n] for n in ("accepted", "null", "skipped"))


@settings(max_examples=200)
@given(
    streams(disorder=12),
    st.sampled_from([0, 0, 3, 9, 40]),
    st.integers(1, 11),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["skip", "ffill", "null"]),
    st.booleans(),
    st.data(),
)
def test_time_bars_equal_the_batch_of_the_accepted_rows(
    rows: list[Row],
    lateness: int,
    every: int,
    closed: str,
    empty: str,
    restart: bool,
    data: st.DataObject,
) -> None:
    options = {"every": every, "closed": closed, "empty": empty, "lateness": lateness}

    def make() -> Any:
        return bars.streaming("resample_ohlc", SCHEMA, late_policy="side", **options)

    stream, out, late = make(), [], []
    for part in cut(table(rows), data):
        out.append(stream.push(part))
        late.extend(stream.late["recv_ts"].to_pylist())
        if restart:
            stream = restarted(stream, make)
    kept, number = accepted(rows, lateness)
    whole = table(kept)
    # What has come out so far is the batch form; flush adds the bars in progress.
    so_far = pa.concat_tables([make().push(table([])), *out])
    want = bars.resample_ohlc(whole, sort=True, **options)
    final = pa.concat_tables([so_far, stream.flush()])
    complete = bars.resample_ohlc(whole, sort=True, partial=True, **options)
    if lateness:  # the row that completed a bar depends on the order in which rows came
        so_far, want, final, complete = (
            t.drop_columns("emit_recv_ts") for t in (so_far, want, final, complete)
        )
    assert so_far.equals(want)
    assert final.equals(complete)
    counters = stream.counters
    assert (counters["late"], len(late)) == (number, number)
    assert counters["given"] == len(rows)
    assert counters["given"] == sum(counters[n] for n in ("accepted", "late", "null", "skipped"))


@settings(max_examples=60)
@given(streams(), st.sampled_from(sorted(OPERATIONS)), st.randoms(use_true_random=False))
def test_a_symbol_alone_has_the_bars_that_it_has_in_the_mixture(
    rows: list[Row], name: str, random: Any
) -> None:
    operation, options = name.split()[0], OPERATIONS[name]

    def of(part: list[Row], symbol: str) -> list[Any]:
        found = bars.streaming(operation, SCHEMA, **options).push(table(part))
        return [bar for bar in found.to_pylist() if bar["symbol"] == symbol]

    # Another interleaving: the symbols' rows in turn, at random, each in its own order.
    queues = {s: [r for r in rows if r["symbol"] == s] for s in ("a", "b", "c")}
    other = []
    while any(queues.values()):
        other.append(queues[random.choice([s for s in queues if queues[s]])].pop(0))
    for symbol in ("a", "b", "c"):
        alone = [r for r in rows if r["symbol"] == symbol]
        assert of(alone, symbol) == of(rows, symbol) == of(other, symbol)


@settings(max_examples=60)
@given(streams(), st.integers(1, 9), st.integers(0, 40))
def test_bars_up_to_a_watermark_do_not_change_when_more_rows_follow(
    rows: list[Row], every: int, count: int
) -> None:
    before = bars.streaming("ohlc", SCHEMA, every=every, empty="ffill").push(table(rows[:count]))
    after = bars.resample_ohlc(table(rows), every, empty="ffill")
    assert after.slice(0, before.num_rows).equals(before)


def test_a_bar_waits_for_its_end_and_for_nothing_else() -> None:
    stream = bars.streaming("resample_ohlc", trades([], []).schema, every=10)
    assert stream.push(trades([1, 9], [1, 2])).num_rows == 0
    assert stream.push(trades([10], [3], symbol="b"))["bar_start"].to_pylist() == [0]
    assert stream.advance(19).num_rows == 0
    assert stream.advance(20)["symbol"].to_pylist() == ["b"]
    assert stream.push(trades([19], [3])).num_rows == 0
    assert stream.counters == {"given": 4, "accepted": 3, "late": 1, "null": 0, "skipped": 0}


def test_with_lateness_the_row_that_moves_the_watermark_emits_the_bar() -> None:
    rows = trades([1, 14, 9, 13, 15, 20], [1, 2, 3, 4, 5, 6], recv_ts=pa.array(range(50, 56)))
    stream = bars.streaming("resample_ohlc", rows.schema, every=10, lateness=5)
    out = stream.push(rows)
    assert out.select(["open", "close", "n_trades", "emit_recv_ts"]).to_pylist() == [
        {"open": 1.0, "close": 3.0, "n_trades": 2, "emit_recv_ts": 54}
    ]
    assert stream.flush()["open"].to_pylist() == [4.0, 6.0]


def test_flush_moves_the_watermark_to_the_end_of_the_last_bin() -> None:
    stream = bars.streaming("resample_ohlc", trades([], []).schema, every=10, empty="ffill")
    assert stream.flush().num_rows == 0
    stream.push(trades([1], [1]))
    stream.push(trades([33], [1], symbol="b"))
    out = stream.flush()
    assert out["bar_end"].to_pylist() == [40, 40]
    assert out["symbol"].to_pylist() == ["a", "b"]
    assert out["filled"].to_pylist() == [True, False]


def test_a_row_without_price_moves_the_watermark() -> None:
    stream = bars.streaming("resample_ohlc", trades([], []).schema, every=10)
    stream.push(trades([1], [1]))
    assert stream.push(trades([12], [None]))["bar_start"].to_pylist() == [0]
    assert stream.counters["skipped"] == 1


def test_disorder_in_information_bars_changes_nothing() -> None:
    stream = bars.streaming("tick_bars", trades([], []).schema, n=2)
    stream.push(trades([5], [1]))
    blob = stream.snapshot()
    with pytest.raises(gk.UnsortedError, match=r"4 follows .*push rows as they arrive"):
        stream.push(pa.concat_tables([trades([6], [1], symbol="new"), trades([4], [1])]))
    assert stream.snapshot() == blob
    assert stream.push(trades([5], [2]))["n_trades"].to_pylist() == [2]


def test_an_unknown_symbol_of_a_mapping_changes_nothing() -> None:
    stream = bars.streaming("volume_bars", trades([], []).schema, threshold={"a": 2.0})
    with pytest.raises(gk.PlanError, match="no value for symbol 'b'"):
        stream.push(trades([1], [1], symbol="b"))
    assert stream.push(trades([1, 2], [1, 1]))["volume"].to_pylist() == [2.0]


def test_a_symbol_of_a_refused_batch_leaves_nothing_behind() -> None:
    stream = bars.streaming("resample_ohlc", trades([], []).schema, every=1, empty="ffill")
    stream.push(trades([1], [1], symbol="m"))
    stream.advance(2)
    with pytest.raises(gk.PlanError, match="check the times"):
        stream.push(pa.concat_tables([trades([2], [1], symbol="a"), trades([2**60], [1])]))
    out = stream.push(pa.concat_tables([trades([2], [1], symbol="z"), trades([3], [1])]))
    assert out["symbol"].to_pylist() == ["m", "z"]


def test_a_fill_that_is_too_large_changes_nothing() -> None:
    stream = bars.streaming("resample_ohlc", trades([], []).schema, every=1, empty="ffill")
    stream.push(trades([1], [1]))
    blob = stream.snapshot()
    for move in (lambda: stream.push(trades([2**60], [1])), lambda: stream.advance(2**60)):
        with pytest.raises(gk.PlanError, match="check the times"):
            move()
        assert stream.snapshot() == blob


def test_dictionaries_may_differ_from_batch_to_batch() -> None:
    def coded(ts: int, symbols: list[str], code: int) -> pa.Table:
        column = pa.DictionaryArray.from_arrays(pa.array([code], pa.int8()), symbols)
        return trades([ts], [1]).set_column(1, "symbol", column)

    stream = bars.streaming("tick_bars", coded(0, ["a"], 0), n=2)
    stream.push(coded(1, ["a", "b"], 0))
    stream.push(coded(2, ["b", "a"], 0))
    out = pa.concat_tables([stream.push(coded(3, ["b", "a"], 1)), stream.push(coded(4, ["b"], 0))])
    assert out["symbol"].to_pylist() == ["a", "b"]
    assert out.schema.field("symbol").type == pa.dictionary(pa.int8(), pa.string())


def test_polars_in_polars_out() -> None:
    frame = pl.DataFrame({"ts": [1, 2], "symbol": "a", "price": [1.0, 2.0], "size": 1.0})
    stream = bars.streaming("tick_bars", frame.clear(), n=2)
    assert stream.push(frame)["close"].to_list() == [2.0]
    assert isinstance(stream.flush(), pl.DataFrame)


def test_other_columns_and_foreign_snapshots_are_refused() -> None:
    stream = bars.streaming("tick_bars", trades([], []).schema, n=2)
    with pytest.raises(gk.PlanError, match="the stream was declared with ts int64, symbol string"):
        stream.push(trades([1], [1]).drop_columns("size"))
    with pytest.raises(gk.StateError, match="other parameters or columns"):
        stream.restore(bars.streaming("tick_bars", trades([], []).schema, n=3).snapshot())
    with pytest.raises(gk.StateError, match="not a gpukern snapshot"):
        stream.restore(b"")
    with pytest.raises(gk.PlanError, match="operation must be one of"):
        bars.streaming("range_bars", SCHEMA)
    with pytest.raises(gk.PlanError, match="late_policy must be drop or side"):
        bars.streaming("ohlc", SCHEMA, every=1, late_policy="keep")
