"""Bars of time: bins, labels, the watermark, missing bins, against plain Python and pandas."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from bar_oracle import Row, assert_close, streams, table, time_bars, trades
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import gpukern as gk
from gpukern import bars

EXAMPLE = trades([0, 5, 10, 10, 25], [1, 3, 2, 5, 4], [1, 1, 2, 1, 1])


def cells(out: Any, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(out[n].to_pylist() for n in names), strict=True))


def test_the_bar_in_progress_is_not_returned() -> None:
    out = bars.resample_ohlc(EXAMPLE, 10)
    assert cells(out, "ts", "open", "high", "close", "volume", "n_trades", "known_at") == [
        (0, 1.0, 3.0, 3.0, 2.0, 2, 10),
        (10, 2.0, 5.0, 5.0, 3.0, 2, 20),
    ]


def test_closed_and_labelled_on_the_right() -> None:
    out = bars.resample_ohlc(EXAMPLE, 10, closed="right", label="right", partial=True)
    assert cells(out, "ts", "open", "close", "n_trades", "known_at") == [
        (0, 1.0, 1.0, 1, 1),
        (10, 3.0, 5.0, 3, 11),
        (30, 4.0, 4.0, 1, 31),
    ]
    assert cells(out, "bar_start", "bar_end") == [(-10, 0), (0, 10), (20, 30)]


def test_bins_without_trades_are_filled_from_the_first_bar_on() -> None:
    filled = bars.resample_ohlc(EXAMPLE, 5, empty="ffill", partial=True)
    assert cells(filled, "ts", "close", "volume", "vwap", "first_ts", "filled") == [
        (0, 1.0, 1.0, 1.0, 0, False),
        (5, 3.0, 1.0, 3.0, 5, False),
        (10, 5.0, 3.0, 3.0, 10, False),
        (15, 5.0, 0.0, None, None, True),
        (20, 5.0, 0.0, None, None, True),
        (25, 4.0, 1.0, 4.0, 25, False),
    ]
    nulls = bars.resample_ohlc(EXAMPLE, 5, empty="null")
    assert nulls["open"].to_pylist() == [1.0, 3.0, 2.0, None, None]
    assert nulls["n_trades"].to_pylist() == [1, 1, 2, 0, 0]


def test_a_quiet_symbol_does_not_wait_for_its_next_trade() -> None:
    rows = pa.concat_tables([trades([1], [7], symbol="quiet"), trades([2, 11], [1, 1])])
    out = bars.resample_ohlc(rows, 10)
    assert cells(out, "symbol", "bar_start") == [("a", 0), ("quiet", 0)]


def test_the_row_that_completes_a_bar_gives_its_emission_time() -> None:
    rows = trades([1, 12, 13, 35], [1, 2, 3, 4], recv_ts=pa.array([5, 15, 16, 40]))
    out = bars.resample_ohlc(rows, 10, partial=True)
    assert cells(out, "bar_end", "emit_recv_ts") == [(10, 15), (20, 40), (40, None)]
    late = bars.resample_ohlc(rows, 10, lateness=3)
    assert cells(late, "bar_end", "emit_recv_ts") == [(10, 16), (20, 40)]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_days_are_utc_days_in_every_zone(zone: str) -> None:
    # On 31 March 2024 Berlin loses an hour; UTC does not.
    hours = pd.date_range("2024-03-30", "2024-04-01 01:00", freq="h", tz="UTC")
    frame = pd.DataFrame({"ts": hours.tz_convert(zone), "symbol": "a", "price": 1.0, "size": 1.0})
    out = bars.resample_ohlc(frame, "1d")
    starts = out["bar_start"].dt.tz_convert("UTC").dt.strftime("%d %H").tolist()
    assert (starts, out["n_trades"].tolist()) == (["30 00", "31 00"], [24, 24])
    assert str(out["ts"].dt.tz) == zone


def test_an_origin_moves_the_bins() -> None:
    rows = trades([1, 4, 9, 14], [1, 2, 3, 4])
    assert bars.resample_ohlc(rows, 5, origin=3)["ts"].to_pylist() == [-2, 3, 8]
    assert bars.resample_ohlc(rows, 5, origin=-1_000_002)["ts"].to_pylist() == [-2, 3, 8]
    day = bars.resample_ohlc(rows, "1d", origin=dt.datetime(1970, 1, 1, 8, tzinfo=dt.UTC))
    assert day.num_rows == 0


def test_vwap_lies_between_low_and_high() -> None:
    rows = trades(range(200), [67_000.01] * 200, [0.1 * k for k in range(200)])
    out = bars.resample_ohlc(rows, 1)
    assert out["vwap"].to_pylist()[1:] == [67_000.01] * 198


def test_a_sum_leaves_no_trace_in_the_next_bar_and_loses_no_digits() -> None:
    rows = trades([0, *range(10, 20), 30], [1] * 12, [1e17, *[0.1] * 10, 1])
    assert bars.resample_ohlc(rows, 10)["volume"].to_pylist() == [1e17, 1.0]
    many = trades([0] * 100_000 + [1], [1] * 100_001, [0.1] * 100_001)
    assert bars.resample_ohlc(many, 1)["volume"].to_pylist() == [10_000.0]


@settings(max_examples=150)
@given(
    streams(),
    st.integers(1, 13),
    st.integers(-20, 20),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["skip", "ffill", "null"]),
    st.booleans(),
    st.integers(0, 7),
)
def test_equals_the_definition(
    rows: list[Row],
    every: int,
    origin: int,
    closed: str,
    label: str,
    empty: str,
    partial: bool,
    lateness: int,
) -> None:
    options: dict[str, Any] = {
        "origin": origin, "closed": closed, "label": label, "empty": empty, "partial": partial,
        "lateness": lateness,
    }  # fmt: skip
    assert_close(
        bars.resample_ohlc(table(rows), every, **options), time_bars(rows, every, **options)
    )


@pytest.mark.parametrize("closed", ["left", "right"])
@pytest.mark.parametrize("label", ["left", "right"])
def test_equals_pandas_resample(closed: Any, label: Any) -> None:
    rng = np.random.default_rng(3)
    ts = np.cumsum(rng.integers(0, 40, 5_000)) * 10**8
    frame = pd.DataFrame(
        {
            "ts": pd.to_datetime(ts, utc=True),
            "symbol": rng.choice(["x", "y", "z"], 5_000),
            "price": np.round(rng.uniform(90, 110, 5_000), 2),
            "size": np.round(rng.exponential(1.0, 5_000), 3),
        }
    )
    got = bars.resample_ohlc(frame, "90s", origin=7 * 10**9, closed=closed, label=label,
                             partial=True)  # fmt: skip
    grouped = frame.set_index("ts").groupby("symbol").resample(
        "90s", closed=closed, label=label, origin=pd.Timestamp(7, unit="s", tz="UTC")
    )  # fmt: skip
    want = grouped["price"].ohlc()
    want["volume"], want["n_trades"] = grouped["size"].sum(), grouped["size"].count()
    want = want[want["n_trades"] > 0].reset_index()
    got = got.sort_values(["symbol", "ts"], ignore_index=True)
    assert got["ts"].tolist() == want["ts"].tolist()
    for name in ("open", "high", "low", "close"):
        assert got[name].tolist() == want[name].tolist()
    np.testing.assert_allclose(got["volume"].to_numpy(), want["volume"].to_numpy(), rtol=1e-12)
    assert got["n_trades"].tolist() == want["n_trades"].tolist()


def test_equals_polars_group_by_dynamic() -> None:
    rng = np.random.default_rng(4)
    frame = pl.DataFrame(
        {
            "ts": np.cumsum(rng.integers(0, 40, 5_000)) * 10**8,
            "symbol": rng.choice(["x", "y", "z"], 5_000),
            "price": np.round(rng.uniform(90, 110, 5_000), 2),
            "size": np.round(rng.exponential(1.0, 5_000), 3),
        }
    ).with_columns(pl.from_epoch("ts", time_unit="ns").dt.replace_time_zone("UTC"))
    got = bars.resample_ohlc(frame, "1m", partial=True)
    price, size = pl.col("price"), pl.col("size")
    want = (
        frame.group_by_dynamic("ts", every="1m", group_by="symbol")
        .agg(
            open=price.first(), high=price.max(), low=price.min(), close=price.last(),
            volume=size.sum(), notional=(price * size).sum(),
            n_trades=pl.len().cast(pl.Int64),
        )
        .sort("ts", "symbol")
    )  # fmt: skip
    assert_frame_equal(got.select(want.columns), want, rel_tol=1e-12)


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(5)
    n = 200_000
    rows = pa.table(
        {
            "ts": np.cumsum(rng.integers(0, 20, n)),
            "symbol": rng.choice([f"s{k}" for k in range(40)], n),
            "price": rng.uniform(1, 2, n),
            "size": rng.uniform(0, 1, n),
        }
    )
    whole = bars.resample_ohlc(rows, 1_000, partial=True)
    stream = bars.streaming("resample_ohlc", rows.schema, every=1_000)
    parts = [stream.push(rows.slice(at, 20_000)) for at in range(0, n, 20_000)]
    assert pa.concat_tables([*parts, stream.flush()]).equals(whole)


@pytest.mark.parametrize("kind", ["table", "batch", "polars", "pandas"])
def test_the_same_kind_of_table_comes_back(kind: str) -> None:
    given_: Any = {
        "table": EXAMPLE.set_column(0, "ts", EXAMPLE["ts"].cast(pa.timestamp("ns", "UTC")))
    }
    given_["batch"] = given_["table"].combine_chunks().to_batches()[0]
    given_["polars"] = pl.from_arrow(given_["table"])
    given_["pandas"] = given_["table"].to_pandas()
    out = bars.resample_ohlc(given_[kind], 10)
    assert type(out) is type(given_[kind])
    assert len(out) == 2


def test_empty_input_has_the_same_schema() -> None:
    symbols = pa.array(["a"] * 5).dictionary_encode()
    for rows in (EXAMPLE, EXAMPLE.set_column(1, "symbol", symbols)):
        for empty in ("skip", "ffill"):
            full, none = (bars.resample_ohlc(t, 10, empty=empty) for t in (rows, rows.slice(0, 0)))
            assert none.num_rows == 0
            assert none.schema == full.schema
    assert full.schema.field("symbol").type == symbols.type


def test_without_a_key_all_rows_are_one_stream() -> None:
    out = bars.resample_ohlc(EXAMPLE.drop_columns("symbol"), 10, by=())
    assert out.column_names[:3] == ["ts", "bar_start", "bar_end"]
    assert out["n_trades"].to_pylist() == [2, 2]


def test_several_key_columns() -> None:
    venues = pa.array(["y", "x", "x", "y", "x"])
    out = bars.resample_ohlc(EXAMPLE.append_column("venue", venues), 10, by=("venue", "symbol"))
    assert cells(out, "bar_start", "venue", "symbol", "n_trades") == [
        (0, "x", "a", 1), (0, "y", "a", 1), (10, "x", "a", 1), (10, "y", "a", 1),
    ]  # fmt: skip


def test_disorder_within_a_symbol_is_an_error_or_sorted() -> None:
    rows = EXAMPLE.take([1, 0, 2, 3, 4])
    message = r"column 'ts', row 1, key \('a',\): 0 follows 5; sort them or pass sort=True"
    with pytest.raises(gk.UnsortedError, match=message):
        bars.resample_ohlc(rows, 10)
    assert bars.resample_ohlc(rows, 10, sort=True).equals(bars.resample_ohlc(EXAMPLE, 10))


def test_symbols_may_follow_one_another_whole() -> None:
    rows = pa.concat_tables([trades([1, 50], [1, 2], symbol="b"), trades([2, 14], [3, 4])])
    out = bars.resample_ohlc(rows, 10)
    assert cells(out, "bar_start", "symbol") == [(0, "a"), (0, "b"), (10, "a")]


def test_naive_times_and_floats_are_type_errors() -> None:
    naive = EXAMPLE.set_column(0, "ts", EXAMPLE["ts"].cast(pa.timestamp("ns")))
    with pytest.raises(TypeError, match="no time zone"):
        bars.resample_ohlc(naive, 10)
    with pytest.raises(TypeError, match="must be a timestamp with a zone or an integer"):
        bars.resample_ohlc(EXAMPLE.set_column(0, "ts", EXAMPLE["ts"].cast(pa.float64())), 10)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"every": 0}, "every must be above 0"),
        ({"every": -5}, "must not be negative"),
        ({"every": "1.5s"}, "must be an integer and one of"),
        ({"every": "1month"}, "must be an integer and one of"),
        ({"every": 1.0}, "whole nanoseconds"),
        ({"closed": "both"}, "closed must be left or right"),
        ({"label": "end"}, "label must be left or right"),
        ({"empty": "zero"}, "empty must be skip or ffill or null"),
        ({"by": "venue"}, "no column 'venue'"),
        ({"on": "time"}, "no column 'time'"),
        ({"origin": dt.datetime(2024, 1, 1)}, "has no time zone"),
        ({"by": "price"}, "must be a string or an integer"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        bars.resample_ohlc(EXAMPLE, **{"every": 10, **options})


def test_a_key_must_not_have_the_name_of_an_output() -> None:
    rows = EXAMPLE.append_column("volume", pa.array([1] * 5))
    with pytest.raises(gk.PlanError, match="a column 'volume' of its own"):
        bars.resample_ohlc(rows, 10, by="volume")


def test_more_filled_bars_than_memory_holds_are_refused() -> None:
    rows = trades([0, 2**61], [1, 1])
    assert bars.resample_ohlc(rows, 10).num_rows == 1
    with pytest.raises(gk.PlanError, match="check the times, or use longer bars"):
        bars.resample_ohlc(rows, 10, empty="ffill")
    with pytest.raises(gk.PlanError, match="between the years 1824 and 2116"):
        bars.resample_ohlc(trades([2**62], [1]), 10)
