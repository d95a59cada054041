"""Tables in and out: pyarrow, polars and pandas; columns as float64/int64 arrays inside.

Inside the engine a missing float is NaN, a missing integer the smallest int64, and time is int64
ns since 1970 UTC (timestamps without a zone are taken as UTC).
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern.errors import PlanError
from gpukern.forms import rows as prim
from gpukern.state import Symbols

NULL_INT = prim.NULL_INT
_F64, _I64, _I32 = pa.float64(), pa.int64(), pa.int32()
_SCHEMAS = 64  # of different plans: making one costs as much as a tenth of a small batch
_schemas: dict[tuple[tuple[str, str], ...], tuple[pa.Schema, pa.Schema]] = {}
MANY = 64  # symbols that Arrow looks up quicker than Python
_ARROW = {"f64": _F64, "i64": _I64, "i8": pa.int8(), "b": pa.bool_()}


@dataclass
class Result:
    """One output column in row order with its Arrow validity bitmap.

    Flags and signs are int64 words, or packed as Arrow has them: bits, int8.
    """

    name: str
    dtype: str
    values: np.ndarray
    bits: np.ndarray
    nulls: int
    array: pa.Array | None = None  # the same, if it is made already


def kind_of(table: Any) -> str:
    """'table', 'batch', 'polars', 'pandas' or 'cudf'; raise PlanError for anything else."""
    if isinstance(table, pa.Table):
        return "table"
    if isinstance(table, pa.RecordBatch):
        return "batch"
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(table, polars.DataFrame):
        return "polars"
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        return "pandas"
    cudf = sys.modules.get("cudf")
    if cudf is not None and isinstance(table, cudf.DataFrame):
        return "cudf"
    raise PlanError(
        "input must be a pyarrow Table or RecordBatch, a polars DataFrame or a pandas DataFrame, "
        f"got {type(table).__module__}.{type(table).__qualname__}"
    )


def column_names(table: Any) -> list[str]:
    """Names of the table's columns."""
    if kind_of(table) in ("table", "batch"):
        return list(table.schema.names)
    return [str(c) for c in table.columns]


def select(table: Any, names: Sequence[str]) -> pa.Table:
    """The named columns as an Arrow table; raise PlanError naming a column that is not there."""
    kind = kind_of(table)
    if kind == "cudf":
        raise PlanError("a cuDF table is worked on where it is: pass device='cuda'")
    there = column_names(table)
    for name in names:
        if name not in there:
            raise PlanError(f"no column {name!r} in the input; it has {', '.join(there)}")
        if there.count(name) > 1:
            raise PlanError(f"column {name!r} is {there.count(name)} times in the input")
    if kind == "table":
        return table.select(list(names))
    if kind == "batch":
        return pa.Table.from_batches([table.select(list(names))])
    if kind == "polars":
        return table.select(list(names)).to_arrow()
    return pa.table({n: pa.Array.from_pandas(table[n]) for n in names})


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


class _Memory:
    """The memory of an array, kept alive."""

    def __init__(self, owner: np.ndarray) -> None:
        self.owner = owner
        address = owner.__array_interface__["data"][0]
        self.__array_interface__ = {**owner.__array_interface__, "data": (address, False)}


def _numbers(array: pa.Array) -> np.ndarray:
    """The values, without copying them, of the type that results have too.

    NumPy marks Arrow's memory read-only, which is another type to the compiler: every loop would be
    compiled a second time, when the first table comes. Loops do not write to their inputs.
    """
    values = _values(array)
    return values if values.flags.writeable else np.asarray(_Memory(values))


def _values(array: pa.Array) -> np.ndarray:
    """The values of an array of numbers; where floats are null, NaN.

    Arrow's own way to NumPy imports pandas if it is there, which takes 0.3 s.
    """
    dtype = array.type.to_pandas_dtype()
    if not len(array):
        return np.empty(0, dtype)
    valid, data = array.buffers()
    end = array.offset + len(array)
    values = np.frombuffer(data, dtype, end)[array.offset :]
    if array.null_count:
        values = values.copy()
        bits = np.unpackbits(np.frombuffer(valid, np.uint8), count=end, bitorder="little")
        values[bits[array.offset :] == 0] = np.nan
    return values


def floats(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A numeric column as float64 with NaN for null; no copy where the column is that already."""
    array = _one_array(column)
    kind = array.type
    if kind == _F64:
        return _numbers(array)
    of = pa.types
    numeric = (of.is_floating, of.is_integer, of.is_decimal, of.is_null, of.is_boolean)
    if not any(test(kind) for test in numeric):
        raise PlanError(f"column {name!r} must be numeric, it is {kind}")
    return _numbers(pc.cast(array, _F64, safe=False))


def numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """The same, integers without nulls as they stand: whoever works on some rows casts those."""
    array = _one_array(column)
    if pa.types.is_integer(array.type) and not array.null_count:
        return _values(array)
    return floats(column, name)


def integers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """An integer or timestamp column as int64 (timestamps in ns), null as the smallest int64."""
    array = _one_array(column)
    kind = array.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
        raise PlanError(f"column {name!r} must be an integer or a timestamp, it is {kind}")
    try:
        if not pa.types.is_timestamp(kind):
            array = pc.cast(array, _I64)
        elif kind.unit == "ns":
            array = array.view(_I64)
        else:
            array = pc.cast(array, pa.timestamp("ns", kind.tz)).view(_I64)
    except pa.ArrowInvalid as error:
        raise PlanError(
            f"column {name!r} does not fit into int64 (times: ns, the years 1678 to 2261): {error}"
        ) from None
    if array.null_count:
        array = pc.fill_null(array, NULL_INT)
    return _numbers(array)


def times(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """The time column as int64 ns UTC."""
    kind = column.type
    if not (pa.types.is_timestamp(kind) or kind in (pa.int64(), pa.uint64())):
        raise PlanError(f"time column {name!r} must be a timestamp or int64 ns, it is {kind}")
    return integers(column, name)


def slots_of(table: pa.Table, by: Sequence[str], symbols: Symbols) -> np.ndarray | int:
    """The slot of every row's symbol, or of all rows; new symbols are given the next slots."""
    if not by:
        return symbols.slot(None)
    parts = [_codes(table.column(name), name) for name in by]
    if len(parts) == 1:
        return _to_slots(*parts[0], symbols)
    combined = parts[0][0].astype(np.int64)
    for codes, values in parts[1:]:
        combined = combined * len(values) + codes
    unique, inverse = np.unique(combined, return_inverse=True)
    names = [values.to_pylist() for _, values in parts]
    keys: list[Hashable] = []
    for code in unique.tolist():
        key: list[Hashable] = []
        for values in reversed(names):
            code, place = divmod(code, len(values))
            key.append(values[place])
        keys.append(tuple(reversed(key)))
    slots = np.array([symbols.slot(key) for key in keys], np.int32)
    return slots[inverse]


def check_keys(table: pa.Table, by: Sequence[str]) -> None:
    """Raise PlanError if a key column is of the wrong type or has nulls."""
    for name in by:
        _check_key(table.column(name), name)


def _looked_up(values: pa.Array, symbols: Symbols) -> np.ndarray:
    """The slots of the values that the last batch's dictionary has too, −1 for others."""
    before = symbols.dictionary
    if before is None or before.type != values.type or len(values) < MANY:
        return np.full(len(values), -1, np.int32)
    assert symbols.lookup is not None
    places = pc.index_in(values, value_set=before)
    known = np.append(symbols.lookup, np.int32(-1))
    return known[places.fill_null(len(before)).to_numpy(zero_copy_only=False)]


def _to_slots(codes: np.ndarray, values: pa.Array, symbols: Symbols) -> np.ndarray | int:
    """Translate dictionary codes; only values that occur get a slot."""
    lookup = symbols.lookup
    if symbols.dictionary is None or not symbols.dictionary.equals(values):
        lookup = _looked_up(values, symbols)
    assert lookup is not None
    found = np.zeros(len(lookup), np.bool_)
    one = prim.mark_codes(codes, found)
    unseen = np.flatnonzero(found & (lookup < 0))
    if len(unseen):
        names = values if len(unseen) == len(values) else values.take(pa.array(unseen))
        lookup[unseen] = symbols.slots_of(names.to_pylist())
    # A stream repeats its dictionary, which saves looking its thousands of symbols up each time.
    symbols.dictionary, symbols.lookup = values, lookup
    if one and len(codes):
        return int(lookup[codes[0]])
    if prim.is_identity(lookup):
        return codes
    slots = np.empty(len(codes), np.int32)
    prim.translate(codes, lookup, slots)
    return slots


def _check_key(column: pa.ChunkedArray, name: str) -> None:
    if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        raise PlanError(f"key column {name!r} must be a string or an integer, it is {column.type}")
    nulls = column.null_count
    if pa.types.is_dictionary(column.type):  # an index may point at a null
        nulls = sum(
            chunk.dictionary.take(chunk.indices).null_count
            if chunk.dictionary.null_count
            else chunk.null_count
            for chunk in column.chunks
        )
    if nulls:
        raise PlanError(
            f"key column {name!r} has {nulls} null{'s' if nulls > 1 else ''}; every row needs a "
            "symbol, drop or fill them"
        )


def _codes(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, pa.Array]:
    _check_key(column, name)
    if pa.types.is_dictionary(column.type):
        array = _one_array(column.unify_dictionaries() if column.num_chunks > 1 else column)
    else:
        array = _one_array(column).dictionary_encode()
    indices = array.indices
    if indices.type == pa.uint32():
        indices = indices.view(_I32)  # a dictionary has fewer entries than either can count
    elif indices.type != _I32:
        indices = pc.cast(indices, _I32)
    return _numbers(indices), array.dictionary


def arrow_array(result: Result, n: int) -> pa.Array:
    """The result on n rows as an Arrow array of its declared type."""
    if result.array is not None:
        return result.array
    validity = pa.py_buffer(result.bits) if result.nulls else None
    data = result.values
    if result.dtype == "i8" and data.dtype == np.int64:
        data = np.empty(n, np.int8)
        prim.narrow(result.values, data)
    elif result.dtype == "b" and data.dtype == np.int64:
        data = np.empty((n + 7) // 8, np.uint8)
        prim.pack_bools(result.values, data)
    kind = _ARROW[result.dtype]
    return pa.Array.from_buffers(kind, n, [validity, pa.py_buffer(data)], result.nulls)


def arrow_rows(block: np.ndarray, bits: np.ndarray, n: int) -> list[pa.Array]:
    """The first n of each row of words as floats; a bit of each word says whether it is there.

    A slice of one array costs a fraction of an array.
    """
    data = [pa.py_buffer(bits), pa.py_buffer(block)]
    whole = pa.Array.from_buffers(_F64, block.size, data)
    return [whole.slice(at, n) for at in range(0, block.size, block.shape[1])]


def attach(table: Any, results: Sequence[Result]) -> Any:
    """The input with the result columns appended, as the same kind of table."""
    kind = kind_of(table)
    if kind == "pandas":
        return _attach_pandas(table, results)
    n = len(table) if kind == "polars" else table.num_rows
    arrays = [arrow_array(r, n) for r in results]
    if kind == "polars":
        import polars as pl

        return table.hstack(pl.from_arrow(pa.table(arrays, names=[r.name for r in results])))
    if kind == "batch":
        return pa.RecordBatch.from_arrays(
            [*table.columns, *arrays],
            schema=_extended(table.schema, results),
        )
    return pa.Table.from_arrays([*table.columns, *arrays], schema=_extended(table.schema, results))


def _extended(schema: pa.Schema, results: Sequence[Result]) -> pa.Schema:
    """The schema with the results' fields; a stream has the same one in every batch."""
    fields = tuple((result.name, result.dtype) for result in results)
    known = _schemas.get(fields)
    if known is None or not known[0].equals(schema, check_metadata=True):
        new = [pa.field(name, _ARROW[dtype]) for name, dtype in fields]
        known = schema, pa.schema([*schema, *new], metadata=schema.metadata)
        if len(_schemas) >= _SCHEMAS:
            _schemas.clear()
        _schemas[fields] = known
    return known[1]


def _attach_pandas(table: Any, results: Sequence[Result]) -> Any:
    import pandas as pd

    columns = {}
    for r in results:
        if r.dtype == "f64":
            columns[r.name] = r.values
            continue
        missing = r.values == NULL_INT
        if r.dtype == "b":
            columns[r.name] = pd.arrays.BooleanArray(r.values == 1, missing)
        else:
            kind = np.int8 if r.dtype == "i8" else np.int64
            values = np.where(missing, 0, r.values).astype(kind)
            columns[r.name] = pd.arrays.IntegerArray(values, missing)
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)
