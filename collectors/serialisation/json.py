"""Rows as JSON objects with the names of the canonical columns; missing is null."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from collectors.loading import Loading
from collectors.schema import SCHEMAS
from collectors.serialisation import REQUIRED, record_name
from collectors.serialisation.messages import Messages

if TYPE_CHECKING:
    from collectors.serialisation.json_rows import JsonRows

FEW = 32
"""Fewer rows are encoded faster one by one."""
WORTH_ROWS = 200_000
"""So many have taken as much longer as loading what encodes them together."""
_encoder = msgspec.json.Encoder()


def json_lines(batch: pa.RecordBatch, *, dataset: str | None = None) -> bytes:
    """One object and line break per row; `dataset` is put first, where several share a file."""
    start = b"{" if dataset is None else b'{"dataset":%s,' % _encoder.encode(dataset)
    rows = _together(batch, start, b"}\n")
    if rows is None or rows.left_out:
        return _encoder.encode_lines(list(_rows(batch, dataset)))
    return rows.text


def json_messages(batch: pa.RecordBatch, prefix: bytes = b"") -> Messages:
    """One object per row, after `prefix`."""
    rows = _together(batch, prefix + b"{", b"}")
    if rows is None:
        return Messages.of(prefix + _encoder.encode(row) for row in _rows(batch))
    if not rows.left_out:
        return rows.each()
    messages = list(rows.each())
    others = [i for i, message in enumerate(messages) if not message]
    for i, row in zip(others, _rows(batch.take(pa.array(others))), strict=True):
        messages[i] = prefix + _encoder.encode(row)
    return Messages.of(messages)


def _load() -> type[JsonRows]:
    from collectors.serialisation.json_rows import JsonRows

    JsonRows.compile()
    return JsonRows


def loading() -> Loading[type[JsonRows]]:
    """One that has not begun."""
    return Loading(_load, WORTH_ROWS)


_loading = loading()


def load() -> None:
    """Load what encodes many rows together now, however few there are."""
    _loading.load()


def _together(batch: pa.RecordBatch, start: bytes, end: bytes) -> JsonRows | None:
    """The rows encoded together, if they are many and it is loaded what does so."""
    if batch.num_rows < FEW:
        return None
    together = _loading.loaded(lambda: batch.num_rows)
    return None if together is None else together(batch, start, end)


def _rows(batch: pa.RecordBatch, dataset: str | None = None) -> Iterator[msgspec.Struct]:
    """The rows as objects, which are the quickest to encode."""
    names = tuple(batch.schema.names)
    columns: list[Iterable[object]] = [plain_column(batch.column(n)).to_pylist() for n in names]
    if dataset is not None:
        names, columns = ("dataset", *names), [repeat(dataset), *columns]
    return map(_row(names), *columns)


@lru_cache(maxsize=64)
def _row(names: tuple[str, ...]) -> type[msgspec.Struct]:
    return msgspec.defstruct("Row", names, gc=False)


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
