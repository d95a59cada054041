"""Spot against perpetual: the annualised basis, from two recordings to a table and a plot.

    python examples/basis.py SPOT_RECORDING PERPETUAL_RECORDING [--output basis.html]

reads raw recordings of Binance spot and of Binance USD-M futures taken by one recorder, aligns the
best quotes of both on a grid of one second, and writes the table (Parquet) and a plot (HTML that
opens offline).

The two streams are aligned on ``recv_ts``, the recorder's clock: at each second both show the last
quote that had arrived by then, never a later one. Seconds at which a quote is older than
``MAX_AGE`` show no basis: a silent connection is no market.

What is "annualised" about a contract that never expires? A dated future's basis converges at its
expiry and is scaled by 365 days / days left. A perpetual has no such day; funding, paid every
eight hours for BTCUSDT, is what ties it to spot. So there are two honest readings, and the table
has both:

``basis_annualised``
    premium × 3 · 365: the simple yearly carry if the premium of the moment were paid every eight
    hours. A scale for the eye: it moves with every tick.
``funding_annualised``
    the same for the rate that this premium would fund at by the exchange's formula,
    F = P + clamp(I − P, ±0.05 %) with I = 0.01 % interest per eight hours. While the premium is
    within 0.05 % of I that is I itself, 10.95 % a year.

Both are gross: no fees, no spread, no margin. The exchange averages its premium index over the
interval and measures it against an index of several exchanges at impact prices; here it is mid
against mid of one instant, so the second figure is an indication and not the published rate.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import polars as pl

import gpukern as gk
from collectors.replay import replay

EVERY = "1s"
MAX_AGE = "5s"
FUNDINGS_PER_YEAR = 3 * 365
INTEREST = 1e-4
"""Per eight hours."""
CLAMP = 5e-4


def quotes(recording: Path | str, exchange: str) -> pl.DataFrame:
    """Best quotes in order of arrival: replayed through the same adapter as a live feed."""
    with tempfile.TemporaryDirectory() as folder:
        replay([recording], exchange, folder, channels=["ticker"], strict=True)
        ticker = pl.read_parquet(Path(folder) / "ticker", hive_partitioning=False)
    return ticker.sort("recv_ts", maintain_order=True).select("recv_ts", "bid", "ask")


def basis(spot: pl.DataFrame, perpetual: pl.DataFrame) -> pl.DataFrame:
    """One row per second from the first at which both markets had been seen."""
    both = gk.align(
        {"spot": spot, "perpetual": perpetual},
        on="recv_ts",
        by=(),
        clock=EVERY,
        max_age=MAX_AGE,
    )
    mids = both.with_columns(
        ((pl.col(f"{name}_bid") + pl.col(f"{name}_ask")) / 2).alias(f"{name}_mid")
        for name in ("spot", "perpetual")
    ).filter(pl.col("spot_recv_ts").is_not_null() & pl.col("perpetual_recv_ts").is_not_null())
    premium = pl.col("perpetual_mid") / pl.col("spot_mid") - 1
    funding = premium + (INTEREST - premium).clip(-CLAMP, CLAMP)
    return mids.select(
        "recv_ts",
        "spot_mid",
        "perpetual_mid",
        (1e4 * premium).alias("basis_bps"),
        (FUNDINGS_PER_YEAR * premium).alias("basis_annualised"),
        (FUNDINGS_PER_YEAR * funding).alias("funding_annualised"),
    )


def plot(table: pl.DataFrame, path: Path | str) -> None:
    """Prices, the basis in bps, and both readings of it in per cent a year."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    panels = {
        "mid price, USDT": ("spot_mid", "perpetual_mid"),
        "basis of the perpetual, bps": ("basis_bps",),
        "% a year, gross": ("basis_annualised", "funding_annualised"),
    }
    figure = make_subplots(
        rows=3, shared_xaxes=True, vertical_spacing=0.06, subplot_titles=list(panels)
    )
    time = table["recv_ts"].dt.cast_time_unit("us").to_list()
    for row, columns in enumerate(panels.values(), start=1):
        for name in columns:
            percent = name.endswith("_annualised")
            values = 100 * table[name] if percent else table[name]
            line = go.Scatter(x=time, y=values.to_list(), name=name)
            figure.add_trace(line, row=row, col=1)
    figure.update_layout(hovermode="x unified", template="plotly_white", height=900)
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The annualised basis of a perpetual.")
    parser.add_argument("spot", help="recording of Binance spot")
    parser.add_argument("perpetual", help="recording of Binance USD-M futures")
    parser.add_argument("--output", type=Path, default=Path("basis.html"))
    options = parser.parse_args()
    table = basis(quotes(options.spot, "binance"), quotes(options.perpetual, "binance-futures"))
    table.write_parquet(options.output.with_suffix(".parquet"))
    plot(table, options.output)
    print(table.select("basis_bps", "basis_annualised", "funding_annualised").describe())


if __name__ == "__main__":
    main()
