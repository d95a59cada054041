"""The research job: files -> features -> Parquet, statistics and a report."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import gpukern as gk
from gpukern import backend
from pipelines.config import DEFAULT, PlanFile, load_plan
from pipelines.errors import PipelineError, first_line
from pipelines.probes import Probe, probe_expressions, probes_for
from pipelines.report import require_report_extra, write_report
from pipelines.sinks import ParquetSink, StagedFile
from pipelines.sources import Source, rechunk
from pipelines.summary import Gatherer, Summary
from pipelines.view import View, make_view

AVAILABLE = "available"
BATCH_ROWS = 131_072

Progress = Callable[[int, int | None], None]
"""Called with the rows done and the rows in all (None: not known)."""


@dataclass(frozen=True)
class Research:
    """What a run did; `notes` are things the user should know."""

    source: str
    output: Path
    report: Path | None
    features: list[str]
    summary: Summary
    view: View
    seconds: float
    device: str
    notes: list[str] = field(default_factory=list)


def research(
    source: Source,
    output: str | Path,
    *,
    features: str | Path = AVAILABLE,
    by: Sequence[str] | None = None,
    time: str | None = None,
    mapping: dict[str, str] | None = None,
    where: str | None = None,
    report: str | Path | None = None,
    device: str = "auto",
    sort: bool = False,
    progress: Progress | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Research:
    """Compute features for every row of `source` and write them beside the input's columns.

    `features` is "available" (those of the default set whose inputs the data has), "default" (all
    48, or an error) or a plan file. Rows stream through in batches, with state carried between
    them, so the input may be larger than memory; `sort=True` holds it in memory to sort it by
    time. Output and report appear complete under their names, or not at all.
    """
    started = clock.perf_counter()
    if report is not None:
        require_report_extra()
    _refuse_own_input(source, output, report)
    wanted = PlanFile([]) if str(features) in (AVAILABLE, DEFAULT) else load_plan(features)
    view = make_view(
        source.label,
        source.schema,
        by=by if by is not None else wanted.by or default_keys(source, mapping),
        time=time or wanted.time,
        mapping=mapping,
        where=where,
    )
    notes: list[str] = []
    expressions = wanted.expressions or _standard_features(view, str(features), notes)
    probes = probes_for(view, plots=report is not None)
    plans, names = _make_plans(view, expressions, probes, wanted.nan_policy)
    used = {name for plan in plans for name in plan.input_columns}
    notes += [
        f"--map {name}={column}: no feature reads {name!r}"
        for name, column in view.mapping.items()
        if name not in used
    ]
    gatherer = Gatherer(view, probes, plots=report is not None)
    with ExitStack() as files:
        page = None if report is None else files.enter_context(StagedFile(report))
        sink = files.enter_context(ParquetSink(output))
        batches = _batches(source, view, sort, batch_rows, progress)
        for batch, seen, results in _computed(batches, view, plans, device):
            written = _appended(batch, results[0], names)
            gatherer.update(seen, results[-1], written, len(names))
            sink.write(written)
        if sink.rows == 0:
            raise PipelineError(f"{source.label}: no row satisfies --where {where!r}")
        result = Research(
            source=source.label,
            output=Path(output),
            report=None if report is None else Path(report),
            features=names,
            summary=gatherer.summary(),
            view=view,
            seconds=clock.perf_counter() - started,
            device=backend.choose(device),
            notes=notes,
        )
        if page is not None:
            write_report(result, page.temporary)
        sink.publish()
        if page is not None:
            page.publish()
    return result


def default_keys(source: Source, mapping: dict[str, str] | None = None) -> tuple[str, ...]:
    """What tells series apart: the symbol, and the exchange unless there is only one."""
    names = {*source.schema.names, *(mapping or {})}
    if "exchange" in names and not source.is_constant((mapping or {}).get("exchange", "exchange")):
        return tuple(name for name in ("exchange", "symbol") if name in names)
    return ("symbol",) if "symbol" in names else ()


def _standard_features(view: View, wanted: str, notes: list[str]) -> list[Any]:
    expressions = gk.default_features()
    if wanted == DEFAULT:
        return expressions
    if "price" not in view.names:
        raise PipelineError(
            f"{view.label}: no column 'price'; name it with --map price=COLUMN, or the features "
            f"you want in a plan file; columns: {', '.join(view.schema.names)}"
        )
    kept, missing = [], set()
    left_out: list[str] = []
    for expression in expressions:
        columns = set(gk.Plan([expression], by=None, time=view.time).input_columns)
        absent = columns - view.names
        if absent:
            missing |= absent
            left_out += gk.Plan([expression], by=None, time=view.time).output_names
        else:
            kept.append(expression)
    if left_out:
        notes.append(
            f"left out for want of {', '.join(sorted(missing))}: {', '.join(left_out)} "
            "(--map names columns, --features default insists)"
        )
    return kept


def _make_plans(
    view: View, expressions: list[Any], probes: Sequence[Probe], nan_policy: str
) -> tuple[list[gk.Plan], list[str]]:
    """Plans of which the first has the features, the last the probes; and the features' names."""
    options: dict[str, Any] = {"by": view.keys or None, "time": view.time, "nan_policy": nan_policy}
    asked = gk.Plan(expressions, **options)
    columns = ", ".join(view.schema.names)
    for name in asked.input_columns:
        if name not in view.names:
            raise PipelineError(
                f"{view.label}: no column {name!r}, which the features need; name it with "
                f"--map {name}=COLUMN; columns: {columns}"
            )
    for name in asked.output_names:
        if name in view.schema.names:
            raise PipelineError(
                f"{view.label}: the input has a column {name!r} already, which is the name of a "
                "feature; give the feature an alias in a plan file or rename the column"
            )
    names = list(asked.output_names)
    extra = probe_expressions(probes)
    if not extra:
        return [asked], names
    if nan_policy == "skip":
        return [gk.Plan([*expressions, *extra], **options)], names
    # Rows without a trade would spread through the statistics as NaN under another policy.
    return [asked, gk.Plan(extra, **{**options, "nan_policy": "skip"})], names


def _columns_seen(view: View, plans: list[gk.Plan]) -> list[str]:
    """What the plans read and what the summary needs besides."""
    read = [name for plan in plans for name in plan.input_columns]
    summary = [name for name in ("price", "bid", "ask") if name in view.names]
    return list(dict.fromkeys([*view.keys, view.time, *read, *summary]))


def _refuse_own_input(source: Source, output: str | Path, report: str | Path | None) -> None:
    inputs = {file.resolve() for file in source.files}
    for path in (output, output if report is None else report):
        if Path(path).resolve() in inputs:
            raise PipelineError(f"{path}: is the input; write the output to another file")
    if source.folder is not None and source.folder.resolve() in Path(output).resolve().parents:
        raise PipelineError(
            f"{output}: is inside the input folder {source.folder}, where the next run would read "
            "it as input; write the output elsewhere"
        )
    if report is not None and Path(report).resolve() == Path(output).resolve():
        raise PipelineError(f"{report}: is both --output and --report")


def _computed(
    batches: Iterable[pa.RecordBatch], view: View, plans: list[gk.Plan], device: str
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch, list[pa.RecordBatch]]]:
    """Each batch, what the features saw of it, and what each plan made of that."""
    columns = _columns_seen(view, plans)
    if backend.choose(device) == "cpu":
        for plan in plans:
            gk.warmup(plan)  # a first run compiles for minutes on one core, less on all
    jobs = [plan.start(device=device, threads=None) for plan in plans]
    done = 0
    for batch in batches:
        seen = view.features_batch(batch, columns)
        try:
            results = [job.push(seen) for job in jobs]
        except gk.UnsortedError as error:
            # The engine counts rows from the start of the batch, and knows no options.
            what = first_line(error).rsplit("; ", 1)[0]
            counted = f" (rows counted from {done:,})" if done else ""
            raise PipelineError(
                f"{view.label}: {what}{counted}; --sort sorts the input by time first, in memory"
            ) from error
        except gk.PlanError as error:
            raise PipelineError(f"{view.label}: {first_line(error)}") from error
        yield batch, seen, results
        done += batch.num_rows


def _appended(
    batch: pa.RecordBatch, computed: pa.RecordBatch, features: list[str]
) -> pa.RecordBatch:
    """The input's columns as they came, then the features'."""
    arrays = [*batch.columns, *(computed.column(name) for name in features)]
    fields = [*batch.schema, *(computed.schema.field(name) for name in features)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _batches(
    source: Source, view: View, sort: bool, batch_rows: int, progress: Progress | None
) -> Iterator[pa.RecordBatch]:
    def counted() -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in source.batches(batch_rows):
            yield view.filtered(batch)
            done += batch.num_rows
            if progress is not None:
                progress(done, source.rows)

    if not sort:
        yield from rechunk(counted(), batch_rows)
        return
    table = pa.Table.from_batches(list(counted()), schema=source.schema)
    times = pa.chunked_array([view.to_time(c) for c in table.column(view.source(view.time)).chunks])
    table = table.take(pc.sort_indices(times))
    yield from rechunk(table.to_batches(max_chunksize=batch_rows), batch_rows)
