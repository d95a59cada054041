"""Rows as Avro records, and the schemas that say so.

Times are plain longs, nanoseconds since 1970 UTC: readers disagree about nanosecond logical types.
`recv_ts`, `exchange` and `symbol` are always there, everything else is a union with null whose
default is null, so that a schema with one more column reads old messages, and an old one new ones.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from collectors.schema import SCHEMAS
from collectors.serialisation import REQUIRED, record_name
from collectors.serialisation.messages import Messages
from collectors.serialisation.wire import Pieces, doubles, present, varint, whole_numbers


def avro_schema(channel: str) -> str:
    """The record schema of a channel, as JSON."""
    fields: list[dict[str, object]] = []
    for field in SCHEMAS[channel]:
        kind = _kind(field.type)
        if field.name in REQUIRED:
            fields.append({"name": field.name, "type": kind})
        else:
            fields.append({"name": field.name, "type": ["null", kind], "default": None})
    record = {"type": "record", "name": record_name(channel), "namespace": "gpukern"}
    return json.dumps({**record, "fields": fields})


def avro_messages(batch: pa.RecordBatch, prefix: bytes = b"") -> Messages:
    """One record per row, after `prefix`."""
    pieces = Pieces(batch.num_rows, prefix)
    for field in batch.schema:
        column = batch.column(field.name)
        where = present(column)
        if field.name not in REQUIRED:
            pieces.byte(where.astype(np.uint8) * np.uint8(2))  # zigzag of the union's 0 or 1
        elif not where.all():
            raise ValueError(f"{field.name} is null, which a row cannot be without")
        _add(pieces, column, where)
    return pieces.messages()


def _add(pieces: Pieces, column: pa.Array, where: np.ndarray) -> None:
    if pa.types.is_dictionary(column.type):
        pieces.text(column, where, lambda length: varint(length << 1))
    elif pa.types.is_floating(column.type):
        pieces.double(doubles(column), where)
    elif pa.types.is_boolean(column.type):
        pieces.varint(whole_numbers(column).view(np.uint64), where)
    else:
        numbers = whole_numbers(column)
        zigzag = (numbers << 1) ^ (numbers >> 63)
        pieces.varint(zigzag.view(np.uint64), where)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "string"
    if pa.types.is_floating(kind):
        return "double"
    if pa.types.is_boolean(kind):
        return "boolean"
    return "int" if kind.bit_width < 64 else "long"
