"""Rows as JSON objects with the names of the canonical columns; missing is null."""

from __future__ import annotations

import json

import pyarrow as pa

from collectors.schema import SCHEMAS
from collectors.serialisation import REQUIRED, record_name


def json_lines(batch: pa.RecordBatch, *, dataset: str | None = None) -> bytes:
    """One object and line break per row; `dataset` is put first, where several share a file."""
    import polars as pl

    columns = {name: plain_column(batch.column(name)) for name in batch.schema.names}
    frame = pl.from_arrow(pa.table(columns))
    assert isinstance(frame, pl.DataFrame)
    if dataset is not None:
        frame = frame.select(pl.lit(dataset).alias("dataset"), pl.all())
    return frame.write_ndjson().encode()


def json_messages(batch: pa.RecordBatch, prefix: bytes = b"") -> list[bytes]:
    """One object per row, after `prefix`."""
    lines = json_lines(batch).split(b"\n")[:-1]
    return [prefix + line for line in lines] if prefix else lines


def json_schema(channel: str) -> str:
    """The JSON Schema of a channel's objects; closed, so that it may be extended compatibly."""
    properties = {}
    for field in SCHEMAS[channel]:
        kind = _kind(field.type)
        properties[field.name] = {"type": kind if field.name in REQUIRED else [kind, "null"]}
    return json.dumps(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": record_name(channel),
            "type": "object",
            "properties": properties,
            "required": list(REQUIRED),
            "additionalProperties": False,
        }
    )


def plain_column(column: pa.Array) -> pa.Array:
    """Times as int64 nanoseconds, names as text."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    return column


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "string"
    if pa.types.is_boolean(kind):
        return "boolean"
    return "number" if pa.types.is_floating(kind) else "integer"
