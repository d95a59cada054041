"""Bars of 346 s of recorded Binance trades, reconciled with the trades themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from collectors.replay import replay
from gpukern import bars

TRADES = 9_757


@pytest.fixture(scope="module")
def recorded(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    root = tmp_path_factory.mktemp("bars")
    replay([captures / "binance" / "spot_btcusdt_20240808.recv_ns.gz"], "binance", root)
    return pl.read_parquet(root / "trades").sort("trade_id")


@pytest.fixture(scope="module")
def frame(recorded: pl.DataFrame) -> pd.DataFrame:
    return recorded.select("ts", "price", "size", "side").to_pandas()


def test_time_bars_hold_every_trade_once(recorded: pl.DataFrame) -> None:
    out = bars.resample_ohlc(recorded, "10s", partial=True)
    assert recorded.height == out["n_trades"].sum() == TRADES
    assert out["volume"].sum() == pytest.approx(recorded["size"].sum(), rel=1e-12)
    sides = recorded.group_by("side").agg(pl.col("size").sum()).sort("side")["size"]
    assert out["sell_volume"].sum() == pytest.approx(sides[0], rel=1e-12)
    assert out["buy_volume"].sum() == pytest.approx(sides[1], rel=1e-12)
    assert ((out["vwap"] >= out["low"]) & (out["vwap"] <= out["high"])).all()


def test_time_bars_are_those_of_pandas(recorded: pl.DataFrame, frame: pd.DataFrame) -> None:
    out = bars.resample_ohlc(recorded, "10s", partial=True).to_pandas()
    grouped = frame.set_index("ts").resample("10s")
    want = grouped["price"].ohlc().dropna()
    for name in ("open", "high", "low", "close"):
        assert out[name].tolist() == want[name].tolist()
    assert out["bar_start"].tolist() == want.index.tolist()
    counts = grouped["price"].count()
    assert out["n_trades"].tolist() == counts[counts > 0].tolist()


def test_on_arrival_time_a_bar_is_emitted_after_it_is_known(recorded: pl.DataFrame) -> None:
    rows = recorded.sort("recv_ts", maintain_order=True)
    out = bars.resample_ohlc(rows, "1s", on="recv_ts")
    assert out.height > 300
    assert (out["emit_recv_ts"] >= out["known_at"]).all()
    assert (out["last_ts"] < out["known_at"]).all()
    assert out["emit_recv_ts"].null_count() == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tick_bars", {"n": 100}),
        ("volume_bars", {"threshold": 1.5}),
        ("dollar_bars", {"threshold": 50_000.0}),
        ("dollar_bars", {"threshold": 50_000.0, "overshoot": "split"}),
        ("imbalance_bars", {"metric": "dollar", "sign": "side", "max_ticks": 2_000}),
        ("runs_bars", {"metric": "volume", "max_ticks": 2_000}),
    ],
)
def test_information_bars_account_for_the_trades_up_to_the_last(
    recorded: pl.DataFrame, name: str, options: dict[str, Any]
) -> None:
    stream = bars.streaming(name, recorded.clear(), **options)
    out = pl.concat([stream.push(part) for part in recorded.iter_slices(613)])
    assert out.height > 4
    done = recorded.head(out["known_seq"][-1] + 1)
    if "overshoot" not in options:
        assert out["n_trades"].sum() == done.height
        assert out["volume"].sum() == pytest.approx(done["size"].sum(), rel=1e-12)
    notional = (done["price"] * done["size"]).sum()
    rest = notional - out["notional"].sum()
    assert 0 <= rest < 50_000 if "overshoot" in options else abs(rest) < 1e-9 * notional
    assert (out["emit_recv_ts"] == recorded["recv_ts"].gather(out["known_seq"])).all()
    assert stream.counters == {"given": TRADES, "accepted": TRADES, "null": 0, "skipped": 0}


def test_tick_bars_are_groups_of_n_trades(recorded: pl.DataFrame, frame: pd.DataFrame) -> None:
    out = bars.tick_bars(recorded, 100)
    want = frame.groupby(frame.index // 100)["price"].agg(["first", "max", "min", "last"])
    got = out.select("open", "high", "low", "close").rows()
    assert got == [tuple(row) for row in want.head(len(got)).itertuples(index=False)]
    assert len(got) == TRADES // 100


def test_a_replayed_overlap_is_removed(recorded: pl.DataFrame) -> None:
    overlap = pl.concat([recorded.head(6_000), recorded.slice(5_000)])
    assert bars.dedupe_trades(overlap, horizon="10m").equals(recorded)


def test_the_last_price_on_a_grid(recorded: pl.DataFrame, frame: pd.DataFrame) -> None:
    out = bars.gap_fill(recorded.select("ts", "symbol", "price"), "250ms", on="ts")
    last = frame.set_index("ts")["price"]
    last = last[~last.index.duplicated(keep="last")]
    grid = pd.date_range(last.index[0].ceil("250ms"), last.index[-1].floor("250ms"), freq="250ms")
    assert out["ts"].to_list() == grid.to_list()
    assert out["price"].to_list() == last.reindex(grid, method="ffill").tolist()
