"""The report's figures as plotly descriptions; colours are roles that the page's theme resolves."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import polars as pl

from pipelines.correlation import Correlation
from pipelines.statistics import Histogram

Figure = dict[str, Any]
MARKERS = 150
EVENTS = (
    ("alarm", "triangle-up-open", "change alarms (CUSUM)"),
    ("outlier", "x-thin-open", "outliers (MAD)"),
)
SHARED = "shared"
"""As the `x` of a trace: the figure's `x`, written once for all its traces. A figure's `x` that is
text names the figure whose `x` it takes."""


def typed(values: Any, kind: str = "f8") -> dict[str, str]:
    """An array as plotly reads it: a third of the size of decimal text, and exact."""
    array = np.ascontiguousarray(np.asarray(values), dtype=np.dtype(kind).newbyteorder("<"))
    encoded = {"dtype": kind, "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    if array.ndim == 2:
        encoded["shape"] = f"{array.shape[0]}, {array.shape[1]}"
    return encoded


def price_figure(buckets: pl.DataFrame, gap_s: float) -> Figure:
    """Price with Bollinger bands, change alarms and outliers of one series."""
    rows = _broken(buckets, gap_s)
    traces = []
    if "bb_upper" in rows.columns:
        traces += _envelope(rows, "bb_lower", "bb_upper", "band", "Bollinger bands (20, 2)")
    traces += _envelope(rows, "low", "high", "price", "lowest to highest")
    traces.append(_line(rows["close"], "price", "price"))
    layout = _time_layout("price", rows)
    for name, symbol, label in EVENTS:
        if f"{name}s" not in rows.columns:
            continue
        events = rows.filter(pl.col(f"{name}s") > 0)
        if len(events) <= MARKERS:
            traces.append(_markers(events, name, symbol, label))
        else:
            traces.append(_counts(events, name, label))
            layout["yaxis"]["domain"] = [0.2, 1.0]
            layout["yaxis2"] = {"title": {"text": "events"}, "domain": [0.0, 0.14], "nticks": 3}
            layout["xaxis"]["anchor"] = "y2"
            layout["barmode"] = "stack"
    return {"data": traces, "layout": layout, "x": _milliseconds(rows)}


def volatility_figure(buckets: pl.DataFrame, gap_s: float, beside: str) -> Figure:
    """Realised volatility of one series, in basis points; `beside` names its price figure."""
    rows = _broken(buckets, gap_s)
    scale = pl.col("vol_low", "vol_high", "vol_close") * 1e4
    rows = rows.with_columns(scale)
    traces = _envelope(rows, "vol_low", "vol_high", "volatility", "lowest to highest", "f4")
    traces.append(_line(rows["vol_close"], "volatility", "realised volatility", "f4"))
    layout = _time_layout("bps per 20 returns", rows)
    return {"data": traces, "layout": layout, "x": beside}


def distribution_figure(
    histogram: Histogram, series: list[tuple[int, str]], axis: str, *, logarithmic: bool
) -> Figure:
    """Share of rows per bin, one outline per series."""
    edges = histogram.edges
    counts = np.array([histogram.of(code) for code, _ in series])
    inside = counts[:, 1:-1]
    used = np.flatnonzero(inside.sum(axis=0))
    if used.size == 0:
        return {"data": [], "layout": {}}
    low, high = max(used[0] - 1, 0), min(used[-1] + 2, inside.shape[1])
    centres = np.sqrt(edges[:-1] * edges[1:]) if logarithmic else (edges[:-1] + edges[1:]) / 2
    traces = []
    for number, (_, label) in enumerate(series):
        total = counts[number].sum()
        if total == 0:
            continue
        trace = {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "x": typed(centres[low:high]),
            "y": typed(inside[number, low:high] / total),
            "line": {"shape": "hvh", "width": 1.5},
            "hovertemplate": "%{x:.4g}: %{y:.2%}<extra>%{fullData.name}</extra>",
            "meta": {"role": f"series-{number % 12}"},
        }
        traces.append(trace)
    x_axis: Figure = {"title": {"text": axis}}
    if logarithmic:
        x_axis |= {"type": "log", "dtick": 1}
    layout = {
        "xaxis": x_axis,
        "yaxis": {"title": {"text": "share of rows"}, "tickformat": ".0%", "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    return {"data": traces, "layout": layout}


def correlation_figure(correlation: Correlation, *, numbers: bool) -> Figure:
    """A heat map from -1 to 1; `numbers` writes the values into the cells."""
    trace: Figure = {
        "type": "heatmap",
        "x": correlation.names,
        "y": correlation.names,
        "z": typed(correlation.matrix, "f4"),
        "zmin": -1,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 10, "len": 0.6, "outlinewidth": 0, "tickvals": [-1, 0, 1]},
        "hovertemplate": "%{y} · %{x}<br>%{z:.3f}<extra></extra>",
        "hoverongaps": False,
    }
    if numbers:
        trace["texttemplate"] = "%{z:.2f}"
    axis = {"tickfont": {"size": 10}, "showgrid": False, "automargin": True, "tickmode": "linear"}
    layout = {
        "xaxis": {**axis, "tickangle": -60, "constrain": "domain"},
        "yaxis": {**axis, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
    }
    return {"data": [trace], "layout": layout}


def _broken(buckets: pl.DataFrame, gap_s: float) -> pl.DataFrame:
    """The buckets with an empty one in each gap, so that no line bridges a silence."""
    after = pl.col("time").shift(-1) - pl.col("time") > max(gap_s, 1e-9) * 1e9
    empty = buckets.filter(after).select("code", "bucket", (pl.col("time") + 1).alias("time"))
    return pl.concat([buckets, empty], how="diagonal").sort("time")


def _line(values: pl.Series, role: str, name: str, kind: str = "f8") -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": SHARED,
        "y": _values(values, kind),
        "line": {"width": 1.3},
        "connectgaps": False,
        "meta": {"role": role},
    }


def _envelope(
    rows: pl.DataFrame, low: str, high: str, role: str, name: str, kind: str = "f8"
) -> list[Figure]:
    edge = {
        "type": "scatter",
        "mode": "lines",
        "x": SHARED,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "legendgroup": name,
        "connectgaps": False,
    }
    meta = {"role": role, "fill": True}
    return [
        {**edge, "y": _values(rows[low], kind), "showlegend": False, "meta": meta},
        {**edge, "y": _values(rows[high], kind), "name": name, "fill": "tonexty", "meta": meta},
    ]


def _markers(events: pl.DataFrame, name: str, symbol: str, label: str) -> Figure:
    """Few events: a marker on the price."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{label}: {int(events[f'{name}s'].sum()):,}",
        "x": _milliseconds(events),
        "y": _values(events[f"{name}_price"]),
        "customdata": typed(events[f"{name}s"].to_numpy()),
        "hovertemplate": f"{label}: %{{customdata}}<extra></extra>",
        "marker": {"symbol": symbol, "size": 6, "opacity": 0.75, "line": {"width": 1}},
        "meta": {"role": name},
    }


def _counts(events: pl.DataFrame, name: str, label: str) -> Figure:
    """Many events would bury the price: their number per bucket, in a strip of its own."""
    return {
        "type": "bar",
        "name": f"{label}: {int(events[f'{name}s'].sum()):,}",
        "x": _milliseconds(events),
        "y": _values(events[f"{name}s"], "f4"),
        "yaxis": "y2",
        "hovertemplate": f"{label}: %{{y}}<extra></extra>",
        "marker": {"line": {"width": 1}},
        "meta": {"role": name},
    }


def _milliseconds(rows: pl.DataFrame) -> dict[str, str]:
    """Time as plotly's date axis counts it."""
    return typed(rows["time"].to_numpy() / 1e6)


def _values(series: pl.Series, kind: str = "f8") -> dict[str, str]:
    return typed(series.cast(pl.Float64).fill_null(np.nan).to_numpy(), kind)


def _time_layout(title: str, rows: pl.DataFrame) -> Figure:
    # The data's own span: markers at the edge would widen one figure and not its neighbour.
    span = [float(rows["time"][0]) / 1e6, float(rows["time"][-1]) / 1e6] if len(rows) else None
    return {
        "xaxis": {"type": "date", "range": span},
        "yaxis": {
            "title": {"text": title, "standoff": 12},
            "exponentformat": "none",
            "separatethousands": True,
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "x",
    }
