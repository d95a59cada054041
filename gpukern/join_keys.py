"""Keys of a join: every row's combination of ``by`` values as one small integer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern.join_table import TypeMismatch, frozen, one_array

MOST_KNOWN = 64  # dictionaries
_known: dict[tuple[Any, ...], tuple[pa.Array, pa.Array, np.ndarray | None]] = {}

DENSE = 1 << 16  # combinations of values up to which codes need not be packed


@dataclass
class Keys:
    """Key codes of a table's rows; −1 where a component is missing.

    A code counts through the combinations of the columns' distinct values, the last fastest;
    where there are many more combinations than rows, ``packed`` lists those that occur.
    """

    codes: np.ndarray
    count: int
    values: list[pa.Array]
    packed: np.ndarray | None = None

    def key(self, code: int) -> tuple[Hashable, ...]:
        """The values behind a code."""
        return self.keys(np.array([code]))[0]

    def keys(self, codes: np.ndarray) -> list[tuple[Hashable, ...]]:
        """The values behind several codes."""
        if not self.values:
            return [()] * len(codes)
        columns = [
            v.take(pa.array(p)).to_pylist()
            for v, p in zip(self.values, self.places(codes), strict=True)
        ]
        return list(zip(*columns, strict=True))

    def places(self, codes: np.ndarray) -> list[np.ndarray]:
        """Per column, the place of each code's value among the distinct values."""
        raw = codes.astype(np.int64) if self.packed is None else self.packed[codes]
        places = []
        for values in reversed(self.values):
            raw, place = np.divmod(raw, max(1, len(values)))
            places.append(place)
        return places[::-1]

    def lookup(self, other: Keys) -> np.ndarray:
        """For each code here, the code of the same key in ``other``, or −1."""
        mine = np.arange(self.count)
        raw = np.zeros(self.count, np.int64)
        known = np.ones(self.count, np.bool_)
        for place, values, theirs in zip(self.places(mine), self.values, other.values, strict=True):
            if len(values) == 0 or len(theirs) == 0:  # their types may differ: nothing but nulls
                return np.full(self.count, -1)
            found = pc.fill_null(pc.index_in(values, value_set=theirs), -1).to_numpy()[place]
            known &= found >= 0
            raw = raw * max(1, len(theirs)) + found
        if other.packed is not None:
            at = np.minimum(np.searchsorted(other.packed, raw), other.count - 1)
            known &= (other.packed[at] == raw) if other.count else False
            raw = at
        return np.where(known, raw, -1)


def value_type(kind: pa.DataType) -> pa.DataType:
    """What a key column holds, however it is encoded: all strings are the same type."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    return kind


def check_key_types(
    what: str, by: Sequence[str], left: pa.Schema, right: pa.Schema, sides: tuple[str, str]
) -> None:
    """Raise TypeMismatch if a ``by`` column has different types or one that is no key."""
    for name in by:
        a, b = left.field(name).type, right.field(name).type
        for side, kind in zip(sides, (a, b), strict=True):
            if pa.types.is_floating(value_type(kind)) or pa.types.is_nested(value_type(kind)):
                raise TypeMismatch(
                    f"{what}: key column {name!r} on the {side} side must be a string or an "
                    f"integer, it is {kind}"
                )
        if value_type(a) != value_type(b) and not pa.types.is_null(a) | pa.types.is_null(b):
            raise TypeMismatch(
                f"{what}: key column {name!r} is {a} on the {sides[0]} side and {b} on the "
                f"{sides[1]} side; cast one of them"
            )


def encode(table: pa.Table, by: Sequence[str]) -> Keys:
    """Code the keys of all rows."""
    if not by:
        return Keys(np.zeros(table.num_rows, np.int32), 1, [])
    columns = [_codes(table.column(name)) for name in by]
    values = [v for _, v in columns]
    if len(columns) == 1:
        return Keys(columns[0][0], len(values[0]), values)
    raw = columns[0][0].astype(np.int64)
    missing = raw < 0
    combinations = len(values[0])
    for codes, own in columns[1:]:
        raw = raw * len(own) + codes
        missing |= codes < 0
        combinations *= len(own)
    if combinations >= 2**62:
        raise TypeMismatch(
            f"key columns {', '.join(by)} have {combinations} combinations; join by fewer columns"
        )
    raw[missing] = -1
    if combinations <= max(DENSE, 2 * table.num_rows):
        return Keys(raw.astype(np.int32), combinations, values)
    packed, codes = np.unique(raw, return_inverse=True)
    if len(packed) and packed[0] == -1:
        packed, codes = packed[1:], codes - 1
    return Keys(codes.astype(np.int32), len(packed), values, packed)


def with_times(keys: Keys, missing: np.ndarray | None) -> np.ndarray:
    """The codes with −1 where the time is missing too."""
    if missing is None:
        return frozen(keys.codes)
    return frozen(np.where(missing, np.int32(-1), keys.codes))


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes of one column and its distinct values, strings as large_string."""
    wanted = value_type(column.type)
    array = one_array(column)
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    indices = array.indices
    if indices.type != pa.int32():
        indices = indices.cast(pa.int32())
    if indices.null_count:
        indices = pc.fill_null(indices, -1)
    codes = indices.to_numpy(zero_copy_only=False)
    values, places = _distinct(array.dictionary, wanted)
    return codes if places is None else places[codes], values


def _distinct(words: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    """The distinct words of a dictionary; where some are repeated or null also the place of each
    word among them (−1 for null, which code −1 reads too)."""
    if wanted != pa.large_string():
        return _looked_through(words, wanted)
    # A stream's batches share their dictionary. The cache holds it, so that its address stays its
    # own; text, other than numbers, never lies in memory that somebody else may write to.
    address = [0 if part is None else part.address for part in words.buffers()]
    key = (words.type, words.offset, len(words), *address)
    found = _known.get(key)
    if found is None:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        found = _known[key] = (words, *_looked_through(words, wanted))
    return found[1:]


def _looked_through(words: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, np.ndarray | None]:
    values = words if words.type == wanted else words.cast(wanted)
    distinct = values.dictionary_encode()
    if len(distinct.dictionary) == len(values):
        return values, None
    places = np.append(pc.fill_null(distinct.indices, -1).to_numpy(), np.int32(-1))
    return distinct.dictionary, places
