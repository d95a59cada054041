"""What the features see of the input: mapped names, parsed time, filtered rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import PipelineError, first_line

TIME_NAMES = ("recv_ts", "ts")
"""Columns taken as time, first match wins: the arrival time is what was known when."""

TIME_SCALES = ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000), (9.2e18, 1))
"""Numbers below the first are seconds, below the second milliseconds, …: (limit, ns per unit)."""


@dataclass(frozen=True)
class View:
    """Column `name` of the features is column `mapping.get(name, name)` of the input."""

    label: str
    schema: pa.Schema
    keys: tuple[str, ...]
    time: str
    mapping: dict[str, str] = field(default_factory=dict)
    where: str | None = None

    @property
    def names(self) -> set[str]:
        """Every column name that a feature may use."""
        return set(self.schema.names) | set(self.mapping)

    def source(self, name: str) -> str:
        """The input's name of a column the features call `name`."""
        return self.mapping.get(name, name)

    def type_of(self, name: str) -> pa.DataType:
        """The input's type of a column the features call `name`."""
        return self.schema.field(self.source(name)).type

    def filtered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of `batch` for which `where` is true."""
        if self.where is None:
            return batch
        frame = _plain_frame(batch, pl.sql_expr(self.where).meta.root_names())
        try:
            mask = frame.select(pl.sql_expr(self.where).alias("keep"))["keep"]
        except pl.exceptions.PolarsError as error:
            raise _where_error(self.where, error) from error
        return batch.filter(mask.to_arrow(), null_selection_behavior="drop")

    def features_batch(self, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        """`columns` of `batch` under the features' names, time as timestamp[ns, UTC]."""
        arrays = []
        for name in columns:
            array = batch.column(self.source(name))
            arrays.append(self.to_time(array) if name == self.time else _to_number(array))
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def to_time(self, array: pa.Array) -> pa.Array:
        """Timestamps, dates, ISO 8601 text or numbers since 1970 (s, ms, us, ns by magnitude)."""
        try:
            return _to_time(array)
        except pa.ArrowInvalid as error:
            raise PipelineError(
                f"{self.label}: time column {self.source(self.time)!r}: {first_line(error)}"
            ) from error


def make_view(
    label: str,
    schema: pa.Schema,
    *,
    by: Sequence[str],
    time: str | None = None,
    mapping: dict[str, str] | None = None,
    where: str | None = None,
) -> View:
    """Check the options against the input's columns; errors name the column and the remedy."""
    mapping = dict(mapping or {})
    for name, column in mapping.items():
        if column not in schema.names:
            hint = (
                f"; did you mean --map {column}={name}? (feature's name first)"
                if name in schema.names
                else ""
            )
            raise PipelineError(
                f"{label}: --map {name}={column}: no column {column!r}{hint}; "
                f"columns: {', '.join(schema.names)}"
            )
    names = [*schema.names, *mapping]
    for name in by:
        _require(label, names, name, "--by")
    if time is None:
        time = next((name for name in TIME_NAMES if name in names), None)
        if time is None:
            raise PipelineError(
                f"{label}: no time column ({' or '.join(TIME_NAMES)}); name it with "
                f"--time COLUMN; columns: {', '.join(schema.names)}"
            )
    else:
        _require(label, names, time, "--time")
    view = View(label, schema, tuple(by), time, mapping, where)
    if where is not None:
        _check_where(where, schema)
    return view


def parse_mapping(text: str) -> dict[str, str]:
    """`price=close,size=volume` as a dictionary: the features' name first."""
    mapping: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not (name and equals and column):
            raise PipelineError(f"--map {pair!r}: expected NAME=COLUMN, for example price=close")
        if name in mapping:
            raise PipelineError(f"--map: {name!r} is given twice")
        mapping[name] = column
    return mapping


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """`a,b` as names; `none` as no name at all; None stays None."""
    if text is None:
        return None
    if text.strip() == "none":
        return ()
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _require(label: str, names: list[str], name: str, option: str) -> None:
    if name not in names:
        raise PipelineError(
            f"{label}: {option} {name}: no such column; columns: {', '.join(names)}"
        )


def _check_where(where: str, schema: pa.Schema) -> None:
    try:
        expression = pl.sql_expr(where)
        empty = _plain_frame(schema.empty_table(), expression.meta.root_names())
        kind = empty.select(expression.alias("keep")).schema["keep"]
    except pl.exceptions.PolarsError as error:
        raise _where_error(where, error) from error
    if kind != pl.Boolean:
        raise PipelineError(f"--where {where!r}: must be true or false for each row, gives {kind}")


def _where_error(where: str, error: Exception) -> PipelineError:
    return PipelineError(
        f"--where {where!r}: {first_line(error)}; write it as SQL, for example "
        "\"symbol = 'BTC/USDT' AND recv_ts >= TIMESTAMP '2024-08-08 10:00:00'\""
    )


def _plain_frame(table: pa.RecordBatch | pa.Table, names: list[str]) -> pl.DataFrame:
    """The named columns with plain types, so that SQL literals compare with them."""
    present = [name for name in names if name in table.schema.names]
    frame = pl.DataFrame(pl.from_arrow(table.select(present)))
    casts = []
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Categorical | pl.Enum):
            casts.append(pl.col(name).cast(pl.String))
        elif isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            utc = pl.col(name).dt.convert_time_zone("UTC")
            casts.append(utc.dt.replace_time_zone(None))
    return frame.with_columns(casts)


def _to_number(array: pa.Array) -> pa.Array:
    return array.cast(pa.float64()) if pa.types.is_decimal(array.type) else array


def _to_time(array: pa.Array) -> pa.Array:
    target = pa.timestamp("ns", "UTC")
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _to_time(array.dictionary_decode())
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return pc.assume_timezone(array.cast(pa.timestamp("ns")), "UTC")
    if pa.types.is_timestamp(kind):
        return array.cast(target)
    if pa.types.is_date(kind):
        return pc.assume_timezone(array.cast(pa.timestamp("ns")), "UTC")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _text_to_time(array)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _number_to_time(array)
    raise pa.ArrowInvalid(f"cannot read {kind} as time")


def _text_to_time(array: pa.Array) -> pa.Array:
    try:
        return array.cast(pa.timestamp("ns", "UTC"))
    except pa.ArrowInvalid:
        # Text without a zone is read as UTC; Arrow refuses to guess that on its own.
        return pc.assume_timezone(array.cast(pa.timestamp("ns")), "UTC")


def _number_to_time(array: pa.Array) -> pa.Array:
    """The unit follows from the magnitude: the ranges of 1973 to 5138 do not overlap."""
    values = np.asarray(array.drop_null().cast(pa.float64(), safe=False))
    if values.size == 0:
        return pa.nulls(len(array), pa.timestamp("ns", "UTC"))
    largest = float(np.abs(values).max())
    scale = next((scale for limit, scale in TIME_SCALES if largest < limit), None)
    if scale is None:
        raise pa.ArrowInvalid(f"{largest:g} is no time since 1970 in s, ms, us or ns")
    if pa.types.is_integer(array.type):
        nanoseconds = pc.multiply(array.cast(pa.int64()), scale)
    else:
        # Whole units and the rest apart: their product as one float64 is off by up to 128 ns.
        units = array.cast(pa.float64())
        whole = pc.floor(units)
        rest = pc.round(pc.multiply(pc.subtract(units, whole), float(scale))).cast(pa.int64())
        nanoseconds = pc.add(pc.multiply(whole.cast(pa.int64()), scale), rest)
    return nanoseconds.cast(pa.timestamp("ns", "UTC"))
