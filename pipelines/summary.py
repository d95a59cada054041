"""Everything the table and the report say about a run, gathered while the rows stream past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.buckets import (
    SECOND_NS,
    Buckets,
    Field,
    count,
    double,
    highest,
    last,
    last_where,
    lowest,
    next_clock_step,
)
from pipelines.correlation import (
    CLOCK_CAPACITY,
    CLOCK_SERIES,
    Correlation,
    RowSample,
    feature_correlation,
    returns_on_clock,
)
from pipelines.probes import PREFIX, Probe
from pipelines.series import SeriesNames
from pipelines.statistics import (
    IMBALANCE_EDGES,
    SPREAD_EDGES,
    Histogram,
    SeriesStatistics,
    gap_threshold_ns,
)
from pipelines.view import View

PLOT_SERIES = 12
PLOT_BUCKETS = 2048
PLOT_FIRST_STEP_NS = 1_000_000
CORRELATED_SERIES = 30


@dataclass(frozen=True)
class Quality:
    """Nulls of one column over the whole run."""

    column: str
    kind: str
    nulls: int
    is_feature: bool


@dataclass(frozen=True)
class Summary:
    """What was found; `table` has a row per series, most rows first."""

    rows: int
    table: pl.DataFrame
    labels: list[str]
    gap_s: float
    correlation: Correlation | None
    quality: list[Quality]
    features: Correlation | None = None
    feature_stride: int = 1
    plots: pl.DataFrame | None = None
    plot_step_s: float = 0.0
    plotted: list[int] = field(default_factory=list)
    spread: Histogram | None = None
    imbalance: Histogram | None = None


class Gatherer:
    """Takes each batch with its features; `summary` tells the whole."""

    def __init__(self, view: View, probes: Sequence[Probe], plots: bool) -> None:
        self._view = view
        self._probes = probes
        self._plots = plots
        self._names = SeriesNames(view.keys)
        self._rows = 0
        self._statistics: SeriesStatistics | None = None
        self._tracked: set[int] = set()
        self._plotted: list[int] = []
        self._nulls: dict[str, Quality] = {}
        self._clock = Buckets(
            [last("price")],
            step_ns=SECOND_NS,
            next_step=next_clock_step,
            capacity=CLOCK_CAPACITY,
        )
        self._buckets = Buckets(
            self._plot_fields(), step_ns=PLOT_FIRST_STEP_NS, next_step=double, capacity=PLOT_BUCKETS
        )
        self._sample = RowSample()
        self._spread = Histogram(SPREAD_EDGES)
        self._imbalance = Histogram(IMBALANCE_EDGES)

    def update(
        self, seen: pa.RecordBatch, computed: pa.RecordBatch, output: pa.RecordBatch, features: int
    ) -> None:
        """`seen` is what the features saw, `computed` holds the probes, `output` is written."""
        self._rows += output.num_rows
        self._count_nulls(output, features)
        frame = self._frame(seen, computed)
        if self._statistics is None:
            self._start(frame)
        assert self._statistics is not None
        self._statistics.update(frame)
        if "price" in frame.columns:
            self._follow(frame)
        if self._plots:
            self._update_plots(frame, output, features)

    def summary(self) -> Summary:
        """The statistics of all rows so far."""
        labels = self._names.labels()
        statistics = self._statistics
        table = pl.DataFrame() if statistics is None else statistics.table()
        keys = pl.DataFrame(
            self._names.rows, schema=dict.fromkeys(self._view.keys, pl.String), orient="row"
        )
        table = pl.concat([keys, table], how="horizontal") if self._view.keys else table
        return Summary(
            rows=self._rows,
            table=table.sort(["rows", "code"], descending=[True, False]),
            labels=labels,
            gap_s=0.0 if statistics is None else statistics.gap_ns / 1e9,
            correlation=returns_on_clock(self._clock, labels, CORRELATED_SERIES),
            quality=list(self._nulls.values()),
            features=feature_correlation(self._sample) if self._plots else None,
            feature_stride=self._sample.stride,
            plots=self._buckets.frame() if self._plots else None,
            plot_step_s=self._buckets.step_ns / 1e9,
            plotted=self._plotted,
            spread=self._spread,
            imbalance=self._imbalance,
        )

    def _frame(self, seen: pa.RecordBatch, computed: pa.RecordBatch) -> pl.DataFrame:
        wanted = [name for name in ("price", "bid", "ask") if name in seen.schema.names]
        columns = {name: pl.Series(name, seen.column(name)) for name in wanted}
        for probe in self._probes:
            name = PREFIX + probe.name
            columns[probe.name] = pl.Series(probe.name, computed.column(name))
        time = pl.Series("time", seen.column(self._view.time).cast(pa.int64()))
        frame = pl.DataFrame({"code": self._names.codes(seen), "time": time, **columns})
        return frame.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))

    def _start(self, frame: pl.DataFrame) -> None:
        """Choices that need a first look at the data."""
        groups = frame.group_by("code", maintain_order=True).agg("time", rows=pl.len())
        times = [series.drop_nulls().to_numpy() for series in groups["time"]]
        self._statistics = SeriesStatistics(gap_threshold_ns(times))
        busiest = groups.sort(["rows", "code"], descending=[True, False])["code"]
        self._tracked = set(busiest.head(CLOCK_SERIES))
        self._plotted = busiest.head(PLOT_SERIES).to_list()

    def _follow(self, frame: pl.DataFrame) -> None:
        if len(self._tracked) < CLOCK_SERIES:
            fresh = [code for code in frame["code"].unique().sort() if code not in self._tracked]
            self._tracked.update(fresh[: CLOCK_SERIES - len(self._tracked)])
        if len(self._plotted) < PLOT_SERIES:
            fresh = [code for code in frame["code"].unique().sort() if code not in self._plotted]
            self._plotted += fresh[: PLOT_SERIES - len(self._plotted)]
        prices = frame.select("code", "time", "price").filter(pl.col("price") > 0)
        if len(self._names.rows) > CLOCK_SERIES:
            prices = prices.filter(pl.col("code").is_in(list(self._tracked)))
        self._clock.update(prices)

    def _update_plots(self, frame: pl.DataFrame, output: pa.RecordBatch, features: int) -> None:
        codes = frame["code"].to_numpy()
        if "spread_bps" in frame.columns:
            self._spread.update(codes, frame["spread_bps"].fill_null(np.nan).to_numpy())
        if "imbalance" in frame.columns:
            self._imbalance.update(codes, frame["imbalance"].fill_null(np.nan).to_numpy())
        if "price" in frame.columns:
            trades = frame.filter(pl.col("price").is_not_null())
            self._buckets.update(trades.filter(pl.col("code").is_in(self._plotted)))
        self._sample.update(_sample_frame(frame, output, features))

    def _plot_fields(self) -> list[Field]:
        names = {probe.name for probe in self._probes}
        fields = [lowest("low", "price"), highest("high", "price"), last("close", "price")]
        if "bb_upper" in names:
            fields += [highest("bb_upper", "bb_upper"), lowest("bb_lower", "bb_lower")]
            fields += [lowest("vol_low", "volatility"), highest("vol_high", "volatility")]
            fields += [last("vol_close", "volatility")]
        for flag in ("alarm", "outlier"):
            if flag in names:
                fields.append(count(f"{flag}s", pl.col(flag)))
                fields.append(last_where(f"{flag}_price", "price", flag))
        return fields

    def _count_nulls(self, output: pa.RecordBatch, features: int) -> None:
        inputs = output.num_columns - features
        for number, column in enumerate(output.schema):
            known = self._nulls.get(column.name)
            nulls = output.column(number).null_count + (known.nulls if known else 0)
            self._nulls[column.name] = Quality(
                column.name, _kind(column.type), nulls, number >= inputs
            )


def _sample_frame(frame: pl.DataFrame, output: pa.RecordBatch, features: int) -> pl.DataFrame:
    """Numeric features on the rows that have a price (all rows if there is no price)."""
    first = output.num_columns - features
    names = [
        column.name
        for column in list(output.schema)[first:]
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    ]
    table = pl.DataFrame(pl.from_arrow(output.select(names))).cast(pl.Float32)
    table = table.insert_column(0, frame["code"])
    return table.filter(frame["price"].is_not_null()) if "price" in frame.columns else table


def _kind(kind: pa.DataType) -> str:
    """A type's name for readers."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_timestamp(kind):
        return "time"
    return {"string": "text", "large_string": "text", "double": "float64"}.get(str(kind), str(kind))
