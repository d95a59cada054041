"""Where canonical batches go: Parquet, SQLite, JSON lines, Kafka, a table on the screen.

A sink is made by name with `make_sink` and takes batches of `collectors.schema`, the `gaps` among
them. It is not safe for several threads: `collectors.queues` puts a bounded queue and a thread
before each sink, and feeds several at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from collectors.errors import SinkError


class Sink(ABC):
    """Takes canonical batches. An error is final: the sink raises it again on every later call."""

    name: ClassVar[str]
    flush_s: ClassVar[float] = 1.0
    """How often to flush, unless asked otherwise."""
    merge_rows: ClassVar[int] = 0
    """Batches of a channel that wait are written as one, up to about so many rows, and those of all
    channels by one call of `write_all`."""
    failed_rows: int = 0
    """Rows that were taken and that the sink knows to be lost; it has failed if there are any."""

    def last_trades(self, exchange: str) -> dict[str, tuple[int, int]]:
        """By symbol, the id and receive time (ns) of the last trade that earlier runs wrote, as far
        as the output can tell; to be asked before anything is written."""
        return {}

    @abstractmethod
    def write(self, channel: str, batch: pa.RecordBatch) -> None:
        """Take the rows of `batch`, which has the schema `SCHEMAS[channel]`."""

    def write_all(self, batches: Sequence[tuple[str, pa.RecordBatch]]) -> None:
        """`write` for each channel and batch, in this order."""
        for channel, batch in batches:
            self.write(channel, batch)

    @abstractmethod
    def flush(self) -> None:
        """Make what was written durable: a crash later loses none of it. Called regularly."""

    @abstractmethod
    def close(self) -> None:
        """Finish: flush, complete the files, let go. A second call does nothing."""


SINKS = {
    "parquet": "collectors.sinks.parquet_live:LiveParquetSink",
    "sqlite": "collectors.sinks.sqlite:SqliteSink",
    "jsonl": "collectors.sinks.jsonl:JsonlSink",
    "kafka": "collectors.sinks.kafka:KafkaSink",
    "table": "collectors.sinks.table:TableSink",
}
"""Name -> where its class is."""


def make_sink(name: str, *arguments: Any, **options: Any) -> Sink:
    """The sink called `name`, or one of your own as `module:Class`, built with its own arguments;
    its module is imported only now."""
    if name not in SINKS and ":" not in name:
        raise SinkError(f"sink {name!r} is unknown; choose from {', '.join(SINKS)}")
    module, _, kind = SINKS.get(name, name).partition(":")
    sink: Sink = getattr(import_module(module), kind)(*arguments, **options)
    return sink


def by_exchange(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The exchange of a batch and its rows; a batch of several is taken apart."""
    column = batch.column("exchange")
    if len(column.dictionary) == 1 and batch.num_rows:  # as builders make them
        yield column.dictionary[0].as_py(), batch
        return
    plain = column.dictionary_decode()
    names = pc.unique(plain).to_pylist()
    for name in names:
        yield name, batch if len(names) == 1 else batch.filter(pc.equal(plain, name))
