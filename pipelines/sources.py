"""Files as a stream of Arrow batches in bounded memory: Parquet (file, folder, dataset) and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from pipelines.errors import PipelineError, first_line

DEFAULT_CHANNEL = "ticker"
"""The channel read from a folder that holds several (`DIR/ticker`, `DIR/trades`, …)."""

NUMERIC_NAMES = frozenset({"price", "size", "bid", "ask", "bid_size", "ask_size", "volume"})
"""CSV columns read as float64 even if their first values look like integers or are missing."""

CSV_BLOCK_BYTES = 8 << 20


class Source(Protocol):
    """Something that yields its rows once, in order, batch by batch."""

    label: str
    folder: Path | None
    """The folder that was given, if it was one."""
    files: list[Path]
    schema: pa.Schema
    rows: int | None

    def batches(self, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Batches of at most `batch_rows` rows, all of `schema`."""
        ...

    def is_constant(self, column: str) -> bool:
        """Whether the column is known to hold one value only, without reading it."""
        ...


class ParquetSource:
    """A Parquet file, a folder of them, or a partitioned dataset (`key=value` folders).

    Files are read in the order of their paths; a `key=value` folder becomes a column unless the
    file already has it. Rows stream out of each row group, so no file has to fit into memory.
    """

    def __init__(self, path: str | Path) -> None:
        root = Path(path)
        if not root.exists():
            raise PipelineError(f"{root}: no such file or folder")
        self.folder = root if root.is_dir() else None
        if root.is_dir() and not _parquet_files(root, deep=False):
            channel = root / DEFAULT_CHANNEL
            root = channel if channel.is_dir() else root
        self.label = str(root)
        self.files = [root] if root.is_file() else _parquet_files(root, deep=True)
        if not self.files:
            raise PipelineError(f"{root}: the folder holds no .parquet file")
        self._partitions = [_partition_values(file, root) for file in self.files]
        self.rows: int | None = 0
        schemas = []
        for file, partition in zip(self.files, self._partitions, strict=True):
            with _open_parquet(file) as reader:
                self.rows += reader.metadata.num_rows
                schemas.append(_with_partitions(reader.schema_arrow, partition))
        if self.rows == 0:
            raise PipelineError(f"{root}: the input holds no rows")
        self.schema = schemas[0].remove_metadata()
        for file, schema in zip(self.files[1:], schemas[1:], strict=True):
            _check_same_columns(file, schema, self.files[0], self.schema)

    def batches(self, batch_rows: int) -> Iterator[pa.RecordBatch]:
        for file, partition in zip(self.files, self._partitions, strict=True):
            with _open_parquet(file) as reader:
                try:
                    for batch in reader.iter_batches(batch_size=batch_rows):
                        yield _conform(_add_partitions(batch, partition), self.schema)
                except (pa.ArrowException, OSError) as error:
                    raise PipelineError(
                        f"{file}: the Parquet file is damaged: {first_line(error)}"
                    ) from error

    def is_constant(self, column: str) -> bool:
        """Whether folders or the files' own statistics show one value only."""
        values: set[object] = set()
        for file, partition in zip(self.files, self._partitions, strict=True):
            with _open_parquet(file) as reader:
                names = reader.schema_arrow.names
                if column not in names:
                    values.add(partition.get(column))
                    continue
                at = [path.split(".")[0] for path in _leaf_paths(reader)].index(column)
                for group in range(reader.num_row_groups):
                    found = reader.metadata.row_group(group).column(at).statistics
                    if found is None or not found.has_min_max or found.null_count:
                        return False
                    values |= {found.min, found.max}
        return len(values) == 1


class CsvSource:
    """A CSV file with a header line, plain or compressed (`.gz`, `.bz2`, `.zst`).

    Types are inferred from the first 8 MiB; the usual number columns and those named in `numeric`
    are float64 always, a column without any value there is text.
    """

    folder: Path | None = None
    rows: int | None = None

    def __init__(self, path: str | Path, numeric: Iterable[str] = ()) -> None:
        file = Path(path)
        if not file.is_file():
            raise PipelineError(f"{file}: no such file")
        self.label = str(file)
        self.files = [file]
        with self._reader(file, None) as reader:
            inferred = reader.schema
        wanted = NUMERIC_NAMES | set(numeric)
        self.schema = pa.schema([_csv_field(field, field.name in wanted) for field in inferred])

    def is_constant(self, column: str) -> bool:
        """Not known without reading the file."""
        return False

    @staticmethod
    def _reader(file: Path, schema: pa.Schema | None) -> pc_csv.CSVStreamingReader:
        types = None if schema is None else {field.name: field.type for field in schema}
        try:
            return pc_csv.open_csv(
                file,
                read_options=pc_csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
                convert_options=pc_csv.ConvertOptions(column_types=types),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                raise PipelineError(f"{file}: the file is empty") from error
            raise PipelineError(f"{file}: not a readable CSV file: {first_line(error)}") from error

    def batches(self, batch_rows: int) -> Iterator[pa.RecordBatch]:
        with self._reader(self.files[0], self.schema) as reader:
            try:
                for batch in reader:
                    for start in range(0, batch.num_rows, batch_rows):
                        yield batch.slice(start, batch_rows)
            except (pa.ArrowException, OSError) as error:
                raise PipelineError(f"{self.label}: {first_line(error)}") from error


def open_source(
    *,
    parquet: str | Path | None = None,
    csv: str | Path | None = None,
    numeric: Iterable[str] = (),
) -> Source:
    """The one source that is given; `numeric` names CSV columns that hold numbers."""
    if (parquet is None) == (csv is None):
        raise PipelineError("give either --parquet PATH or --csv PATH")
    return ParquetSource(parquet) if parquet is not None else CsvSource(str(csv), numeric)


def rechunk(batches: Iterable[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about `batch_rows`: many small files make no small batches."""
    held: list[pa.RecordBatch] = []
    held_rows = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        held_rows += batch.num_rows
        if held_rows >= batch_rows:
            yield _joined(held)
            held, held_rows = [], 0
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]


def _parquet_files(root: Path, *, deep: bool) -> list[Path]:
    pattern = "**/*.parquet" if deep else "*.parquet"
    found = (path for path in root.glob(pattern) if path.is_file())
    # Names that begin with "." or "_" are other writers' temporary or metadata files.
    visible = (
        path
        for path in found
        if not any(part.startswith((".", "_")) for part in path.relative_to(root).parts)
    )
    return sorted(visible, key=lambda path: path.relative_to(root).parts)


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        reason = "the file is empty" if file.stat().st_size == 0 else first_line(error)
        raise PipelineError(f"{file}: not a readable Parquet file: {reason}") from error


def _leaf_paths(reader: pq.ParquetFile) -> list[str]:
    schema = reader.metadata.schema
    return [schema.column(number).path for number in range(len(schema))]


def _partition_values(file: Path, root: Path) -> dict[str, str]:
    parts = file.relative_to(root).parts[:-1] if file != root else ()
    return dict(part.split("=", 1) for part in parts if "=" in part)


def _with_partitions(schema: pa.Schema, partition: dict[str, str]) -> pa.Schema:
    for name in partition:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def _add_partitions(batch: pa.RecordBatch, partition: dict[str, str]) -> pa.RecordBatch:
    for name, value in partition.items():
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.repeat(value, batch.num_rows))
    return batch


def _check_same_columns(file: Path, schema: pa.Schema, first: Path, expected: pa.Schema) -> None:
    for field in expected:
        if field.name not in schema.names:
            raise PipelineError(f"{file}: no column {field.name!r}, which {first} has")
        found = schema.field(field.name).type
        if _kind(found) != _kind(field.type):
            raise PipelineError(
                f"{file}: column {field.name!r} is {found}, in {first} it is {field.type}"
            )
    extra = [name for name in schema.names if name not in expected.names]
    if extra:
        raise PipelineError(f"{file}: column {extra[0]!r} is missing in {first}")


def _kind(kind: pa.DataType) -> str:
    """Types of one kind are cast to the first file's type; others are not mixed."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        return "text"
    if pa.types.is_integer(value) or pa.types.is_floating(value):
        return "number"
    return "time" if pa.types.is_timestamp(value) else str(value)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    return batch.select(schema.names).cast(schema)


def _csv_field(field: pa.Field, numeric: bool) -> pa.Field:
    if numeric and (pa.types.is_null(field.type) or pa.types.is_integer(field.type)):
        return field.with_type(pa.float64())
    if pa.types.is_null(field.type):
        return field.with_type(pa.string())
    return field
