"""Statistics gathered batch by batch equal those of the whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

from pipelines.buckets import Buckets, count, double, highest, last, last_where, lowest
from pipelines.correlation import (
    RowSample,
    feature_correlation,
    pairwise_correlation,
    returns_on_clock,
)
from pipelines.statistics import COLUMNS as TABLE_COLUMNS
from pipelines.statistics import Histogram, SeriesStatistics, cell_text, gap_threshold_ns

SECOND = 1_000_000_000


def rows(n: int = 500, series: int = 3, seed: int = 3) -> pl.DataFrame:
    """Rows as the statistics take them, with nulls where a row is no trade."""
    random = np.random.default_rng(seed)
    trade = random.random(n) < 0.5
    return pl.DataFrame(
        {
            "code": random.integers(0, series, n).astype(np.uint32),
            "time": np.cumsum(random.integers(1, 9 * SECOND, n)),
            "price": np.exp(random.normal(0, 0.01, n)),
            "bid": random.normal(10, 1, n),
            "ask": random.normal(11, 1, n),
            "log_return": random.normal(1e-5, 1e-3, n),
            "spread_bps": random.exponential(2.0, n),
            "imbalance": random.uniform(-1, 1, n),
            "alarm": random.random(n) < 0.1,
            "outlier": random.random(n) < 0.05,
        }
    ).with_columns(
        pl.when(pl.lit(pl.Series(trade))).then(pl.col(name)).alias(name)
        for name in ("price", "log_return", "alarm", "outlier")
    )


def gathered(frame: pl.DataFrame, batch_rows: int, gap_ns: int = 20 * SECOND) -> pl.DataFrame:
    statistics = SeriesStatistics(gap_ns)
    for start in range(0, len(frame), batch_rows):
        statistics.update(frame[start : start + batch_rows])
    return statistics.table()


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 500])
def test_statistics_equal_those_of_pandas_over_the_whole(batch_rows: int) -> None:
    frame = rows()
    found = gathered(frame, batch_rows).to_pandas().set_index("code")
    whole = frame.to_pandas()
    groups = whole.groupby("code")
    steps = groups["time"].diff()
    returns = groups["log_return"]
    elapsed = groups["time"].agg(lambda t: (t.max() - t.min()) / 1e9)
    expected = pd.DataFrame(
        {
            "rows": groups.size(),
            "trades": groups["price"].count(),
            "mean_return_bps": 1e4 * returns.mean(),
            "volatility_bps": 1e4 * returns.std(),
            "volatility_annual": returns.std() * np.sqrt(returns.count() / elapsed * 365 * 86400),
            "spread_bps": groups["spread_bps"].mean(),
            "imbalance": groups["imbalance"].mean(),
            "alarms": groups["alarm"].sum().astype(float),
            "outliers": groups["outlier"].sum().astype(float),
            "crossed": (whole["bid"] > whole["ask"]).groupby(whole["code"]).sum(),
            "gaps": (steps > 20 * SECOND).groupby(whole["code"]).sum(),
            "longest_gap_s": steps.groupby(whole["code"]).max() / 1e9,
        }
    )
    for name in expected:
        np.testing.assert_allclose(
            found[name].astype(float), expected[name].astype(float), rtol=1e-10, err_msg=name
        )


def test_a_column_the_data_lacks_is_null_not_zero() -> None:
    table = gathered(rows().select("code", "time", "price"), 100)
    assert table["trades"].is_not_null().all()
    for name in (
        "mean_return_bps",
        "volatility_bps",
        "spread_bps",
        "imbalance",
        "alarms",
        "crossed",
    ):
        assert table[name].is_null().all(), name


def test_a_series_without_returns_has_no_mean_and_one_row_no_volatility() -> None:
    frame = pl.DataFrame(
        {
            "code": [0, 1, 1],
            "time": [1, 2, 3],
            "price": [None, 1.0, 2.0],
            "log_return": [None, None, 0.5],
        },
        schema_overrides={"code": pl.UInt32, "price": pl.Float64, "log_return": pl.Float64},
    )
    table = gathered(frame, 1)
    assert table["mean_return_bps"].to_list() == [None, 5000.0]
    assert table["volatility_bps"].to_list() == [None, None]
    assert [cell_text(TABLE_COLUMNS[2], value) for value in table["mean_return_bps"]] == [
        "–",
        "+5000.0000",
    ]


def test_a_volatility_of_tiny_returns_keeps_its_digits() -> None:
    random = np.random.default_rng(0)
    returns = 1e-3 + random.normal(0, 1e-12, 4000)
    frame = pl.DataFrame(
        {"code": np.zeros(4000, np.uint32), "time": np.arange(4000), "log_return": returns}
    )
    found = gathered(frame, 64)["volatility_bps"][0] / 1e4
    assert found == pytest.approx(np.std(returns, ddof=1), rel=1e-3)


def test_the_gap_threshold_follows_the_data() -> None:
    minute_bars = np.arange(100) * 60 * SECOND
    ticks = np.cumsum(np.random.default_rng(1).integers(1, SECOND, 1000))
    hourly_prints = np.cumsum(np.random.default_rng(1).integers(1, 7200 * SECOND, 1000))
    assert gap_threshold_ns([minute_bars]) == 90 * SECOND
    assert gap_threshold_ns([ticks]) == 60 * SECOND
    assert gap_threshold_ns([hourly_prints]) > 3600 * SECOND
    assert gap_threshold_ns([np.array([1])]) == 60 * SECOND


def test_histograms_add_up_over_batches_and_keep_what_is_outside() -> None:
    histogram = Histogram(np.array([0.0, 1.0, 2.0]))
    histogram.update(np.array([0, 0, 1]), np.array([0.5, 2.0, -1.0]))
    histogram.update(np.array([3, 0, 0]), np.array([9.0, np.nan, 1.0]))
    assert histogram.of(0).tolist() == [0, 1, 2, 0]
    assert histogram.of(1).tolist() == [1, 0, 0, 0]
    assert histogram.of(3).tolist() == [0, 0, 0, 1]
    assert histogram.of(9).tolist() == [0, 0, 0, 0]


def filled(frame: pl.DataFrame, batch_rows: int, capacity: int) -> Buckets:
    fields = [
        lowest("low", "price"),
        highest("high", "price"),
        last("close", "price"),
        count("alarms", pl.col("alarm")),
        last_where("alarm_price", "price", "alarm"),
    ]
    buckets = Buckets(fields, step_ns=SECOND, next_step=double, capacity=capacity)
    for start in range(0, len(frame), batch_rows):
        buckets.update(frame[start : start + batch_rows])
    return buckets


@pytest.mark.parametrize("batch_rows", [1, 50, 500])
def test_buckets_hold_the_extremes_of_all_rows_in_few_steps(batch_rows: int) -> None:
    frame = rows().filter(pl.col("price").is_not_null())
    buckets = filled(frame, batch_rows, capacity=64)
    found = buckets.frame()
    step = buckets.step_ns
    expected = (
        frame.group_by("code", (pl.col("time") // step).alias("bucket"), maintain_order=True)
        .agg(
            low=pl.col("price").min(),
            high=pl.col("price").max(),
            close=pl.col("price").last(),
            alarms=pl.col("alarm").sum().cast(pl.Int64),
            alarm_price=pl.col("price").filter(pl.col("alarm")).last(),
        )
        .sort("code", "bucket")
    )
    assert found.drop("time").equals(expected)
    assert found["bucket"].max() - found["bucket"].min() < 64  # type: ignore[operator]
    assert step > SECOND


def test_correlation_on_the_clock_equals_pandas() -> None:
    random = np.random.default_rng(5)
    n, common = 3000, np.cumsum(random.normal(0, 1e-3, 3000))
    frame = pl.DataFrame(
        {
            "code": random.integers(0, 3, n).astype(np.uint32),
            "time": np.cumsum(random.integers(1, SECOND // 4, n)),
            "price": np.exp(common + random.normal(0, 1e-4, n)),
        }
    )
    clock = Buckets([last("price")], step_ns=SECOND, next_step=double, capacity=4096)
    for start in range(0, n, 100):
        clock.update(frame[start : start + 100])
    found = returns_on_clock(clock, ["a", "b", "c"], at_most=10)
    assert found is not None
    assert found.step_s == 1.0
    assert found.names == ["a", "b", "c"]
    wide = (
        frame.to_pandas()
        .assign(second=lambda f: f["time"] // SECOND)
        .pivot_table(index="second", columns="code", values="price", aggfunc="last")
    )
    wide = wide.reindex(range(wide.index[0], wide.index[-1] + 1))
    ends = wide.apply(pd.Series.last_valid_index)
    wide = wide.ffill().apply(lambda column: column.where(column.index <= ends[column.name]))
    expected = np.log(wide).diff().corr()
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-9)


def test_sparse_series_are_compared_on_a_wider_clock() -> None:
    frame = pl.DataFrame(
        {
            "code": np.tile([0, 1], 500).astype(np.uint32),
            "time": np.repeat(np.arange(500), 2) * 40 * SECOND,
            "price": np.exp(np.random.default_rng(2).normal(0, 1e-3, 1000)),
        }
    )
    clock = Buckets([last("price")], step_ns=SECOND, next_step=lambda s: s * 2, capacity=1 << 20)
    clock.update(frame)
    found = returns_on_clock(clock, ["a", "b"], at_most=10)
    assert found is not None
    assert found.step_s == 30.0


def test_one_series_has_no_correlation() -> None:
    clock = Buckets([last("price")], step_ns=SECOND, next_step=double, capacity=64)
    assert returns_on_clock(clock, [], at_most=10) is None
    clock.update(rows(series=1).filter(pl.col("price").is_not_null()))
    assert returns_on_clock(clock, ["a"], at_most=10) is None


def test_pairwise_correlation_uses_the_columns_both_have() -> None:
    random = np.random.default_rng(4)
    values = random.normal(67_000, 0.01, (4, 400))
    values[1] += 2 * (values[0] - 67_000)
    values[random.random((4, 400)) < 0.3] = np.nan
    expected = pd.DataFrame(values.T).corr()
    np.testing.assert_allclose(pairwise_correlation(values), expected, atol=1e-8)
    values[3, 20:] = np.nan
    assert np.isnan(pairwise_correlation(values)[3]).all()


@pytest.mark.parametrize("batch_rows", [1, 33, 1000])
def test_the_sample_is_every_kth_row_whatever_the_batches(batch_rows: int) -> None:
    frame = pl.DataFrame({"row": range(1000)})
    sample = RowSample(capacity=100)
    for start in range(0, 1000, batch_rows):
        sample.update(frame[start : start + batch_rows])
    assert sample.stride == 16
    assert sample.frame()["row"].to_list() == list(range(0, 1000, 16))


def test_features_are_correlated_within_series() -> None:
    random = np.random.default_rng(6)
    code = np.repeat([0, 1], 300).astype(np.uint32)
    x = random.normal(0, 1, 600)
    sample = RowSample()
    sample.update(
        pl.DataFrame(
            {
                "code": code,
                "x": x + 1000 * code,
                "y": random.normal(0, 1, 600) + 1000 * code,
                "same": 2 * x,
                "constant": np.ones(600),
            }
        )
    )
    found = feature_correlation(sample)
    assert found is not None
    assert found.names == ["x", "y", "same"]
    assert abs(found.matrix[0, 1]) < 0.15
    assert found.matrix[0, 2] == pytest.approx(1.0, abs=1e-2)
