"""Tables of a join: sides in, time columns and durations checked, columns gathered, tables out.

Between the two lies the matcher, which knows only key codes, times and row numbers.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import join_match as core
from gpukern.durations import parse_duration
from gpukern.errors import PlanError
from gpukern.frame import column_names, kind_of
from gpukern.memory import empty

SHARE = 1 << 15  # rows below which threads do not pay
MAX_TIME = 2**63 - 1
VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


class TypeMismatch(PlanError, TypeError):
    """A column has a type that the operation cannot take; a TypeError as well as a PlanError."""


# -- tables in ---------------------------------------------------------------------------------


def to_arrow(table: Any) -> pa.Table:
    """The whole table as Arrow, without copying where the container allows it."""
    kind = kind_of(table)
    if kind == "table":
        return table
    if kind == "batch":
        return pa.Table.from_batches([table])
    if kind == "polars":
        import polars as pl

        return table.to_arrow(compat_level=pl.CompatLevel.oldest())
    if kind == "cudf":  # over the host: only asof_join keeps columns on the device
        return table.to_arrow()
    names = column_names(table)
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise PlanError(f"column {repeated[0]!r} is more than once in the input; rename one")
    return pa.table({n: pa.Array.from_pandas(table[c]) for n, c in zip(names, table, strict=True)})


def as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def require(what: str, side: str, names: Iterable[str], there: Sequence[str]) -> None:
    """Raise PlanError naming a column that the side lacks."""
    for name in names:
        if name not in there:
            raise PlanError(
                f"{what}: no column {name!r} on the {side} side; it has {', '.join(there)}"
            )
        if list(there).count(name) > 1:
            raise PlanError(f"{what}: column {name!r} is more than once on the {side} side")


def duration_ns(what: str, value: str | int | dt.timedelta) -> int:
    """Nanoseconds of ``'500ms'``, a timedelta or an integer (ns); never negative."""
    if isinstance(value, str):
        return parse_duration(value, what=what)
    if isinstance(value, dt.timedelta):
        ns = (value.days * 86_400 + value.seconds) * 10**9 + value.microseconds * 1_000
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        ns = int(value)
    else:
        raise TypeMismatch(
            f"{what} must be a text such as '500ms', a timedelta or whole nanoseconds, "
            f"got {value!r}"
        )
    if not 0 <= ns <= MAX_TIME:
        raise PlanError(f"{what} must not be negative nor above 2^63 - 1 ns, got {value!r}")
    return ns


def time_kind(what: str, side: str, name: str, kind: pa.DataType) -> str:
    """'timestamp' or 'integer'; raise TypeMismatch for anything else, naive timestamps too."""
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise TypeMismatch(
                f"{what}: time column {name!r} on the {side} side has no time zone ({kind}); "
                "give it one, UTC if that is what it means"
            )
        return "timestamp"
    if pa.types.is_integer(kind):
        return "integer"
    raise TypeMismatch(
        f"{what}: time column {name!r} on the {side} side must be a timestamp with a zone or an "
        f"integer (ns), it is {kind}"
    )


def same_time_kind(what: str, columns: Sequence[tuple[str, str, pa.DataType]]) -> str:
    """The common kind of (side, name, type) columns; integers and timestamps do not mix."""
    kinds = [time_kind(what, *column) for column in columns]
    for (side, name, kind), found in zip(columns, kinds, strict=True):
        if found != kinds[0]:
            first = columns[0]
            raise TypeMismatch(
                f"{what}: time column {first[1]!r} on the {first[0]} side is {first[2]} and "
                f"{name!r} on the {side} side is {kind}; make both timestamps or both int64 ns"
            )
    return kinds[0]


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    if pa.types.is_dictionary(column.type) and any(c.dictionary.null_count for c in column.chunks):
        # Arrow cannot unite dictionaries that hold a null.
        return recoded(
            pa.concat_arrays([c.dictionary_decode() for c in column.chunks]), column.type
        )
    return column.combine_chunks()


def recoded(array: pa.Array, kind: pa.DictionaryType) -> pa.DictionaryArray:
    """Plain cells as a dictionary column of that type."""
    used = array.dictionary_encode()
    indices, words = used.indices.cast(kind.index_type), used.dictionary.cast(kind.value_type)
    return pa.DictionaryArray.from_arrays(indices, words, ordered=kind.ordered)


def read_times(what: str, side: str, table: pa.Table, name: str) -> tuple[np.ndarray, Any]:
    """Times as int64 (timestamps in ns) and a mask of the missing ones, None if there are none."""
    array = one_array(table.column(name))
    try:
        if pa.types.is_timestamp(array.type):
            if array.type.unit != "ns":
                array = pc.cast(array, pa.timestamp("ns", array.type.tz))
            array = array.view(pa.int64())
        elif array.type != pa.int64():
            array = pc.cast(array, pa.int64())
    except pa.ArrowInvalid as error:
        raise PlanError(
            f"{what}: time column {name!r} on the {side} side does not fit into int64 "
            f"(timestamps: ns, the years 1678 to 2261): {error}"
        ) from None
    missing = None
    if array.null_count:
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
        array = pc.fill_null(array, 0)
    return frozen(array.to_numpy(zero_copy_only=False)), missing


def frozen(array: np.ndarray) -> np.ndarray:
    """The array read-only, as columns of Arrow are: loops then need one compiled form, not one for
    each mixture of the two."""
    array = array.view()
    array.flags.writeable = False
    return array


# -- columns out -------------------------------------------------------------------------------


def threads() -> int:
    """Threads that one join may use."""
    return os.cpu_count() or 1


def cuts(n: int) -> list[int]:
    """Borders of the shares that threads take of n rows: multiples of 8 (whole bitmap bytes)."""
    parts = n // SHARE
    parts = min(parts, threads()) if parts > 1 else 1
    return [n * p // parts // 8 * 8 for p in range(parts)] + [n]


def each(work: Callable[[int], Any], count: int) -> list[Any]:
    """``work(0)`` … ``work(count - 1)`` at the same time."""
    if count <= 1:
        return [work(n) for n in range(count)]
    with ThreadPoolExecutor(min(count, threads())) as pool:
        return list(pool.map(work, range(count)))


def shared(n: int, work: Callable[[int, int], Any]) -> list[Any]:
    """``work(lo, hi)`` over shares of n rows."""
    ends = cuts(n)
    return each(lambda p: work(ends[p], ends[p + 1]), len(ends) - 1)


class Gather:
    """Columns taken by row number, −1 giving null. Matches are counted once for all columns."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        bits = empty((len(rows) + 7) // 8, np.uint8)
        counted = shared(
            len(rows), lambda a, b: core.valid_bits(rows[a:b], bits[a // 8 : (b + 7) // 8])
        )
        self.matched = sum(counted)
        self.validity = None if self.matched == len(rows) else pa.py_buffer(bits)
        self._indices: pa.Array | None = None

    def take(self, column: pa.ChunkedArray) -> pa.Array:
        """The column's values at the rows, of the same type."""
        array = one_array(column)
        kind = array.type
        if pa.types.is_run_end_encoded(kind):
            decoded = self._take(pc.run_end_decode(array))
            return pc.run_end_encode(decoded, run_end_type=kind.run_end_type)
        if kind in VIEWS:  # Arrow has no take for them
            return self._take(array.cast(VIEWS[kind])).cast(kind)
        return self._take(array)

    def _take(self, array: pa.Array) -> pa.Array:
        if len(array) == 0:
            if isinstance(array, pa.DictionaryArray):
                none = pa.nulls(len(self.rows), array.type.index_type)
                return pa.DictionaryArray.from_arrays(
                    none, array.dictionary, ordered=array.type.ordered
                )
            return pa.nulls(len(self.rows), array.type)
        indices = array.indices if isinstance(array, pa.DictionaryArray) else array
        if array.null_count or not _is_plain(indices.type):
            return array.take(self.indices())
        data = pa.py_buffer(self._take_plain(indices))
        nulls = len(self.rows) - self.matched
        buffers = [self.validity, data]
        if isinstance(array, pa.DictionaryArray):
            return pa.DictionaryArray.from_buffers(
                array.type, len(self.rows), buffers, array.dictionary, nulls
            )
        return pa.Array.from_buffers(array.type, len(self.rows), buffers, nulls)

    def integers(self, values: np.ndarray) -> pa.Array:
        """int64 values of the result's own rows, null where nothing matched."""
        nulls = len(self.rows) - self.matched
        buffers = [self.validity, pa.py_buffer(values)]
        return pa.Array.from_buffers(pa.int64(), len(self.rows), buffers, nulls)

    def indices(self) -> pa.Array:
        """The rows as an Arrow array with nulls."""
        if self._indices is None:
            self._indices = self.integers(self.rows)
        return self._indices

    def _take_plain(self, array: pa.Array) -> np.ndarray:
        width = array.type.bit_width // 8
        kind = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}[width]
        source = np.frombuffer(array.buffers()[1], kind, len(array), array.offset * width)
        out = empty(len(self.rows), kind)
        shared(len(out), lambda a, b: core.gather(source, self.rows[a:b], out[a:b]))
        return out


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The table's rows by number."""
    take = Gather(rows)
    return pa.table([take.take(column) for column in table.columns], schema=table.schema)


def _is_plain(kind: pa.DataType) -> bool:
    of = pa.types
    if of.is_integer(kind) or of.is_floating(kind):
        return True
    return of.is_temporal(kind) and not of.is_interval(kind)


def attach(table: Any, fields: Sequence[pa.Field], arrays: Sequence[pa.Array]) -> Any:
    """The left table with columns appended, as the same kind of table."""
    kind = kind_of(table)
    if kind == "pandas":
        import pandas as pd

        new = {f.name: pandas_column(a) for f, a in zip(fields, arrays, strict=True)}
        return pd.concat([table, pd.DataFrame(new, index=table.index)], axis=1)
    if kind == "polars":
        return table.hstack(from_arrow("polars", pa.table(list(arrays), pa.schema(fields))))
    if kind == "cudf":
        import cudf

        made = table.copy(deep=False)
        for field, array in zip(fields, arrays, strict=True):
            series = cudf.Series.from_arrow(array)
            series.index = table.index
            made[field.name] = series
        return made
    schema = pa.schema([*table.schema, *fields], metadata=table.schema.metadata)
    container = pa.Table if kind == "table" else pa.RecordBatch
    return container.from_arrays([*table.columns, *arrays], schema=schema)


def from_arrow(kind: str, table: pa.Table) -> Any:
    """An Arrow table as the kind of table that ``kind_of`` names."""
    if kind == "table":
        return table
    if kind == "batch":
        arrays = [one_array(c) for c in table.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=table.schema)
    if kind == "polars":
        import polars as pl

        return pl.DataFrame(pl.from_arrow(table))
    if kind == "cudf":
        import cudf

        return cudf.DataFrame.from_arrow(table)
    import pandas as pd

    return pd.DataFrame(
        {f.name: pandas_column(one_array(c)) for f, c in zip(table.schema, table, strict=True)},
        index=pd.RangeIndex(table.num_rows),
    )


def pandas_column(array: pa.Array) -> Any:
    """Integers and booleans become pandas' nullable types, so that the dtype never depends on
    whether something is missing."""
    import pandas as pd

    if not (pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        return array.to_pandas().array
    missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(array.type):
        values = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
        return pd.arrays.BooleanArray(values.copy(), missing)
    values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False)
    return pd.arrays.IntegerArray(values.copy(), missing)
