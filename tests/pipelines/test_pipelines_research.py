"""The research job: files in; features, statistics and a report out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpukern as gk
from collectors.replay import replay
from pipelines.demo import demo
from pipelines.errors import PipelineError
from pipelines.research import Research, default_keys, research
from pipelines.sources import CsvSource, ParquetSource


def run(path: Path, **options: object) -> Research:
    output = path.parent / "out.parquet"
    return research(ParquetSource(path), output, **options)  # type: ignore[arg-type]


def left_over(folder: Path) -> set[str]:
    """Files in a folder besides the test's own input."""
    return {file.name for file in folder.iterdir()} - {"ticker.parquet", "plan.toml"}


def test_the_output_is_the_input_and_the_features(ticker_file: Path, ticker: pa.Table) -> None:
    result = run(ticker_file, features="default")
    table = pq.read_table(result.output)
    assert table.select(ticker.column_names).equals(ticker)
    assert table.column_names == [*ticker.column_names, *result.features]
    plan = gk.Plan(gk.default_features(), by="symbol", time="recv_ts")
    assert result.features == plan.output_names
    expected = plan.run(ticker)
    for name in result.features:
        assert table.column(name).equals(expected.column(name)), name


@pytest.mark.parametrize("batch_rows", [1, 333, 10_000])
def test_batches_change_no_bit(ticker_file: Path, batch_rows: int) -> None:
    small = ticker_file.with_name("small.parquet")
    pq.write_table(pq.read_table(ticker_file).slice(0, 400), small)
    whole = pq.read_table(run(small).output)
    cut = pq.read_table(run(small, batch_rows=batch_rows).output)
    assert cut.equals(whole)


def test_statistics_equal_those_computed_from_the_output(ticker_file: Path) -> None:
    result = run(ticker_file, features="default", batch_rows=256)
    rows = pl.read_parquet(result.output)
    expected = (
        rows.cast({"symbol": pl.String})
        .group_by("symbol")
        .agg(
            rows=pl.len(),
            trades=pl.col("price").count(),
            mean_return_bps=1e4 * pl.col("log_return").mean(),
            volatility_bps=1e4 * pl.col("log_return").std(),
            spread_bps=pl.col("quoted_spread_bps").mean(),
            imbalance=pl.col("l1_imbalance").mean(),
            alarms=pl.col("cusum_alarm").sum(),
            outliers=pl.col("outlier_flag").sum(),
        )
        .sort("symbol")
    )
    found = result.summary.table.sort("symbol").select(expected.columns)
    for name in expected.columns[1:]:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    assert result.summary.correlation is not None
    assert sorted(result.summary.correlation.names) == ["BTC/USDT", "ETH/USDT", "SOL/USDT"]


def test_nulls_are_counted_for_every_column(ticker_file: Path) -> None:
    result = run(ticker_file, batch_rows=300)
    table = pq.read_table(result.output)
    counted = {item.column: item.nulls for item in result.summary.quality}
    assert counted == {name: table.column(name).null_count for name in table.column_names}


def test_where_keeps_a_subset_with_the_features_of_that_subset(ticker_file: Path) -> None:
    result = run(ticker_file, where="symbol = 'ETH/USDT'")
    alone = pq.read_table(result.output)
    assert set(alone.column("symbol").to_pylist()) == {"ETH/USDT"}
    everything = pl.read_parquet(run(ticker_file).output)
    own = everything.filter(pl.col("symbol").cast(pl.String) == "ETH/USDT")
    assert own["ewma"].to_list() == alone.column("ewma").to_pylist()


def test_series_are_keyed_by_exchange_only_where_there_are_several(
    tmp_path: Path, ticker: pa.Table
) -> None:
    path = tmp_path / "one.parquet"
    pq.write_table(ticker, path)
    assert default_keys(ParquetSource(path)) == ("symbol",)
    half = ticker.num_rows // 2
    names = pa.array(["binance"] * half + ["kraken"] * (ticker.num_rows - half))
    both = ticker.set_column(2, "exchange", names.dictionary_encode())
    pq.write_table(both, path)
    assert default_keys(ParquetSource(path)) == ("exchange", "symbol")
    result = run(path)
    assert len(result.summary.table) == 6
    assert "kraken BTC/USDT" in result.summary.labels


def test_bars_of_a_csv_file_need_only_names(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 6, 1), eager=True)
    close = 100 + np.cumsum(np.random.default_rng(0).normal(0, 1, len(days)))
    frame = pl.DataFrame({"date": days, "close": close, "volume": np.arange(len(days)) + 1})
    frame.write_csv(path)
    result = research(
        CsvSource(path, numeric=["close", "volume"]),
        tmp_path / "out.parquet",
        time="date",
        mapping={"price": "close", "size": "volume"},
    )
    table = pl.read_parquet(result.output)
    assert table.columns[:3] == ["date", "close", "volume"]
    expected = np.log(close[1:] / close[:-1])
    np.testing.assert_allclose(table["log_return"].drop_nulls(), expected, rtol=1e-10)
    assert any("left out for want of ask, ask_size, bid, bid_size, side" in n for n in result.notes)
    assert "midprice" not in result.features
    assert result.summary.gap_s == 1.5 * 86_400


def test_a_mapping_that_nothing_reads_is_told(ticker_file: Path) -> None:
    result = run(ticker_file, mapping={"volume": "size"})
    assert result.notes == ["--map volume=size: no feature reads 'volume'"]


def test_a_plan_file_sets_features_key_and_time(
    ticker_file: Path, plan_file: Callable[[str], Path]
) -> None:
    plan = plan_file(
        'by = "symbol"\ntime = "ts"\n'
        '[[feature]]\nkernel = "rolling_mean"\ninputs = ["bid"]\nwindow = 5\nalias = "bid5"\n'
    )
    result = run(ticker_file, features=plan)
    assert result.features == ["bid5"]
    assert result.view.time == "ts"
    bids = pl.read_parquet(ticker_file).select(
        pl.col("bid").rolling_mean(5).over("symbol").alias("bid5")
    )
    found = pl.read_parquet(result.output)["bid5"]
    np.testing.assert_allclose(found, bids["bid5"], rtol=1e-12)


def test_statistics_do_not_depend_on_the_policy_for_missing_values(
    ticker_file: Path, plan_file: Callable[[str], Path]
) -> None:
    feature = '[[feature]]\nkernel = "rolling_mean"\ninputs = ["price"]\nalias = "m"\n'
    skip = run(ticker_file, features=plan_file(feature)).summary.table
    result = run(ticker_file, features=plan_file('nan_policy = "propagate"\n' + feature))
    assert result.summary.table.equals(skip)
    assert pl.read_parquet(result.output)["m"].is_nan().any()


def test_sorting_puts_rows_in_time_order(ticker_file: Path, ticker: pa.Table) -> None:
    expected = pq.read_table(run(ticker_file).output)
    shuffled = ticker.take(np.random.default_rng(0).permutation(ticker.num_rows))
    pq.write_table(shuffled, ticker_file)
    with pytest.raises(PipelineError, match=r"time goes backwards.*--sort sorts the input by time"):
        run(ticker_file)
    assert pq.read_table(run(ticker_file, sort=True).output).equals(expected)


def test_an_input_that_turns_bad_leaves_nothing(ticker_file: Path, ticker: pa.Table) -> None:
    pq.write_table(pa.concat_tables([ticker, ticker.slice(0, 10)]), ticker_file)
    with pytest.raises(PipelineError, match="time goes backwards"):
        run(ticker_file, report=ticker_file.with_name("r.html"), batch_rows=500)
    assert left_over(ticker_file.parent) == set()


def test_wrong_requests_are_refused_before_any_work(
    ticker_file: Path, ticker: pa.Table, plan_file: Callable[[str], Path]
) -> None:
    with pytest.raises(PipelineError, match="is the input; write the output to another file"):
        research(ParquetSource(ticker_file), ticker_file)
    with pytest.raises(PipelineError, match="is inside the input folder"):
        research(ParquetSource(ticker_file.parent), ticker_file.with_name("out.parquet"))
    with pytest.raises(PipelineError, match="is both --output and --report"):
        run(ticker_file, report=ticker_file.with_name("out.parquet"))
    with pytest.raises(PipelineError, match=r"no row satisfies --where 'price < 0'"):
        run(ticker_file, where="price < 0")
    plan = plan_file('[[feature]]\nkernel = "ewma"\ninputs = ["mid"]\n')
    with pytest.raises(PipelineError, match=r"no column 'mid', .*--map mid=COLUMN; columns: ts, "):
        run(ticker_file, features=plan)
    pq.write_table(ticker.drop_columns(["bid"]), ticker_file)
    with pytest.raises(PipelineError, match=r"no column 'bid', which the features need"):
        run(ticker_file, features="default")
    pq.write_table(ticker.drop_columns(["price"]), ticker_file)
    with pytest.raises(PipelineError, match=r"no column 'price'; name it with --map price=COLUMN"):
        run(ticker_file)
    pq.write_table(ticker.append_column("ewma", ticker.column("bid")), ticker_file)
    with pytest.raises(PipelineError, match="has a column 'ewma' already"):
        run(ticker_file)
    pq.write_table(ticker.set_column(4, "price", ticker.column("symbol")), ticker_file)
    with pytest.raises(PipelineError, match=r"ticker\.parquet: column 'price'"):
        run(ticker_file)
    assert left_over(ticker_file.parent) == set()


def test_progress_counts_the_rows_of_the_input(ticker_file: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    run(ticker_file, batch_rows=700, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3000, 3000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_demo_turns_what_a_collector_gets_from_a_simulated_exchange_into_a_report(
    tmp_path: Path,
) -> None:
    result = demo(tmp_path / "demo")
    assert result.research.features == gk.Plan(gk.default_features(), time="recv_ts").output_names
    table = result.research.summary.table
    assert set(table["symbol"]) == {"BTC/USDT", "ETH/USDT", "SOL/USDT"}
    assert (table["trades"] > 100).all()
    assert result.research.report is not None
    assert result.research.report.is_file()
    feed = result.collected.feed
    assert feed.frames > 10_000
    assert (feed.gaps, feed.errors, feed.failures) == (0, 0, 0)
    again = demo(tmp_path / "demo")
    assert again.research.summary.table.equals(table)


def test_a_real_recording_end_to_end(capture: Path, tmp_path: Path) -> None:
    replay([capture], "binance", tmp_path / "data")
    report = tmp_path / "report.html"
    result = research(
        ParquetSource(tmp_path / "data"),
        tmp_path / "features.parquet",
        features="default",
        report=report,
    )
    row = result.summary.table.row(0, named=True)
    assert row["symbol"] == "BTC/USDT"
    assert row["rows"] == 37_797
    assert row["trades"] == 9_757
    assert row["crossed"] == 0
    assert row["gaps"] == 0
    rows = pl.read_parquet(result.output)
    assert rows.height == 37_797
    prices = rows["price"].drop_nulls().to_numpy()
    returns = np.log1p(np.diff(prices) / prices[:-1])
    np.testing.assert_allclose(rows["log_return"].drop_nulls(), returns, rtol=1e-9, atol=1e-18)
    assert row["volatility_bps"] == pytest.approx(1e4 * np.std(returns, ddof=1), rel=1e-9)
    spread = 2e4 * (rows["ask"] - rows["bid"]) / (rows["ask"] + rows["bid"])
    assert row["spread_bps"] == pytest.approx(spread.mean(), rel=1e-9)
    assert report.stat().st_size < 8_000_000
