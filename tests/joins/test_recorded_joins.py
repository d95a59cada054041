"""Recorded trades and quotes: the quote in force at each trade, and spot against perpetual."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import gpukern as gk
from collectors.recordings import BINANCE_DEMO
from collectors.replay import replay
from gpukern.join_stream_align import align_streaming
from gpukern.join_stream_quotes import trade_quote_match_streaming

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "basis.py"
BY = ("exchange", "symbol")


def replayed(recording: Path, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Trades, and the ticker: rows with a price are trades with the quote in force, the others are
    new best quotes."""
    replay([recording], "binance", folder, channels=["trades", "ticker"], strict=True)
    trades, ticker = (
        pl.read_parquet(folder / name).with_columns(pl.col("exchange").cast(pl.Categorical))
        for name in ("trades", "ticker")
    )
    return trades, ticker


def quotes_of(ticker: pl.DataFrame) -> pl.DataFrame:
    columns = ["recv_ts", *BY, "bid", "ask", "bid_size", "ask_size"]
    return ticker.filter(pl.col("price").is_null()).select(columns)


@pytest.fixture(scope="module")
def spot(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("spot")
    trades, ticker = replayed(captures / "binance" / "spot_btcusdt_20240808.recv_ns.gz", folder)
    return SimpleNamespace(trades=trades, ticker=ticker, quotes=quotes_of(ticker))


def test_every_trade_of_the_recording_has_a_quote_that_came_before_it(spot: Any) -> None:
    assert (spot.trades.height, spot.quotes.height) == (9_757, 28_040)
    out = gk.trade_quote_match(spot.trades, spot.quotes, on="recv_ts", by=BY)
    assert out["match_status"].unique().to_list() == ["ok"]
    assert dict(out["position"].value_counts().rows()) == {
        "below_bid": 1_943, "at_bid": 2_063, "inside": 774, "at_ask": 2_101, "above_ask": 2_876,
    }  # fmt: skip
    trade, quote = (out[c].to_physical().to_numpy() for c in ("recv_ts", "quote_ts"))
    known = spot.quotes["recv_ts"].to_physical().to_numpy()
    assert (quote < trade).all()
    assert (known[np.searchsorted(known, trade) - 1] == quote).all()  # and none came in between


def test_the_matched_quote_is_the_one_that_arrival_put_in_force(spot: Any) -> None:
    out = gk.asof_join(spot.trades, spot.quotes, on="recv_ts", by=BY, allow_exact_matches=False)
    in_force = spot.ticker.filter(pl.col("price").is_not_null())
    assert out["trade_id"].equals(in_force["seq"].alias("trade_id"))
    columns = ["bid", "ask", "bid_size", "ask_size"]
    assert out.select(columns).equals(in_force.select(columns))


def test_equals_merge_asof_of_pandas(spot: Any) -> None:
    left = spot.trades.select("recv_ts", "symbol", "price").to_pandas()
    right = spot.quotes.select("recv_ts", "symbol", "bid", "ask").to_pandas()
    theirs = pd.merge_asof(left, right, on="recv_ts", by="symbol", tolerance=pd.Timedelta("5ms"))
    mine = gk.asof_join(left, right, on="recv_ts", by="symbol", tolerance="5ms")
    pd.testing.assert_frame_equal(mine[list(theirs.columns)], theirs)
    assert mine["bid"].isna().sum() == 2_302


def test_the_stream_of_the_recording_equals_the_batch(spot: Any) -> None:
    join = trade_quote_match_streaming(
        spot.trades.clear(), spot.quotes.clear(), on="recv_ts", by=BY, lag="50ms"
    )
    parts = []
    for n in range(29):
        parts.append(join.push_right(spot.quotes.slice(1_000 * n, 1_000)))
        parts.append(join.push_left(spot.trades.slice(350 * n, 350)))
    out = pl.concat([*parts, join.flush()])
    want = gk.trade_quote_match(spot.trades, spot.quotes, on="recv_ts", by=BY, lag="50ms")
    assert out.equals(want)


def test_on_the_recorders_clock_quotes_run_ahead_of_the_trades_that_moved_them(spot: Any) -> None:
    signless = spot.trades.drop("side")
    right = []
    for lag in ("0ms", "50ms"):
        out = gk.trade_quote_match(signless, spot.quotes, on="recv_ts", by=BY, lag=lag)
        right.append(int((out["trade_sign"] == spot.trades["side"]).sum()))
    assert right == [4_798, 9_007]


def test_the_shipped_recording_matches_too(tmp_path: Path) -> None:
    trades, ticker = replayed(BINANCE_DEMO, tmp_path)
    out = gk.trade_quote_match(trades, quotes_of(ticker), on="recv_ts", by=BY)
    assert out.height == trades.height > 0
    assert (out["quote_ts"] < out["recv_ts"]).sum() == (out["match_status"] != "no_quote").sum()


# -- the example -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(captures: Path) -> list[str]:
    return [
        str(captures / "binance" / "spot_btcusdt_20240808.recv_ns.gz"),
        str(captures / "binance_usdm" / "usdm_btcusdt_20240808.recv_ns.gz"),
    ]


def test_the_basis_example_writes_its_table_and_plot(
    recordings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("plotly", reason="extra report not installed: plotly")
    page = tmp_path / "basis.html"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *recordings, "--output", str(page)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "basis_annualised" in capsys.readouterr().out
    table = pl.read_parquet(page.with_suffix(".parquet"))
    assert table.height == 344
    assert table.null_count().sum_horizontal().item() == 0
    assert table["basis_bps"].mean() == pytest.approx(-3.694906, abs=1e-6)
    text = page.read_text(encoding="utf-8")
    assert all(f'"name":"{c}"' in text for c in table.columns if c != "recv_ts")
    assert "cdn.plot.ly" not in text.partition("Plotly.newPlot")[2]  # opens offline


def test_both_markets_aligned_as_they_come_equal_the_batch(recordings: list[str]) -> None:
    quotes = runpy.run_path(str(EXAMPLE))["quotes"]
    streams = {
        "spot": quotes(recordings[0], "binance"),
        "perpetual": quotes(recordings[1], "binance-futures"),
    }
    options: dict[str, Any] = {"by": (), "clock": "1s", "max_age": "5s"}
    join = align_streaming({name: t.clear() for name, t in streams.items()}, **options)
    parts = []
    for n in range(40):
        for name, table in streams.items():
            share = -(-table.height // 40)
            parts.append(join.push(name, table.slice(n * share, share)))
            assert join.consumed == table.slice(n * share, share).height
    assert sum(part.height for part in parts) > 300  # most points did not wait for the end
    assert pl.concat([*parts, join.flush()]).equals(gk.align(streams, **options))


def test_the_basis_shows_what_had_arrived_and_both_readings_of_it(recordings: list[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    spot = example["quotes"](recordings[0], "binance")
    perpetual = example["quotes"](recordings[1], "binance-futures")
    table = example["basis"](spot, perpetual)
    assert table["recv_ts"].diff().drop_nulls().unique().to_list() == [pd.Timedelta("1s")]
    row = table.row(100, named=True)
    for name, quotes in (("spot", spot), ("perpetual", perpetual)):
        last = quotes.filter(pl.col("recv_ts") <= row["recv_ts"]).row(-1, named=True)
        assert row[f"{name}_mid"] == (last["bid"] + last["ask"]) / 2
    premium = row["perpetual_mid"] / row["spot_mid"] - 1
    assert row["basis_bps"] == pytest.approx(1e4 * premium)
    assert row["basis_annualised"] == pytest.approx(premium * 1095)
    funding = premium + min(max(1e-4 - premium, -5e-4), 5e-4)
    assert row["funding_annualised"] == pytest.approx(funding * 1095)
