"""Rows as Protobuf messages (proto3), and the schemas that say so.

A column's field number is its position in the canonical schema, from 1: columns are only ever
appended. Every field is `optional`, so that null is told from 0. Times are int64 nanoseconds.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from collectors.schema import SCHEMAS
from collectors.serialisation import record_name
from collectors.serialisation.messages import Messages
from collectors.serialisation.wire import Pieces, doubles, present, varint, whole_numbers

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def protobuf_schema(channel: str) -> str:
    """The `.proto` file of a channel."""
    fields = "".join(
        f"  optional {_kind(field.type)} {field.name} = {number};\n"
        for number, field in enumerate(SCHEMAS[channel], 1)
    )
    message = f"message {record_name(channel)} {{\n{fields}}}\n"
    return f'syntax = "proto3";\npackage gpukern;\n\n{message}'


def protobuf_messages(batch: pa.RecordBatch, prefix: bytes = b"") -> Messages:
    """One message per row, after `prefix`."""
    pieces = Pieces(batch.num_rows, prefix)
    for number, field in enumerate(batch.schema, 1):
        column = batch.column(field.name)
        where = present(column)
        if pa.types.is_dictionary(field.type):
            pieces.constant(varint(number << 3 | _LENGTH), where)
            pieces.text(column, where, varint)
        elif pa.types.is_floating(field.type):
            pieces.constant(varint(number << 3 | _FIXED64), where)
            pieces.double(doubles(column), where)
        else:
            pieces.constant(varint(number << 3 | _VARINT), where)
            pieces.varint(whole_numbers(column).view(np.uint64), where)
    return pieces.messages()


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "string"
    if pa.types.is_floating(kind):
        return "double"
    if pa.types.is_boolean(kind):
        return "bool"
    return "int32" if kind.bit_width < 64 else "int64"
