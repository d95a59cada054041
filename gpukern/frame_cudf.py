"""cuDF tables in and out of a device job: columns never leave the device.

Only the names of symbols come to the host, once per distinct symbol of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern.errors import PlanError
from gpukern.forms.rows import NULL_INT

if TYPE_CHECKING:
    from gpukern.device_job import DeviceJob


def run(job: DeviceJob, frame: Any, *, sort: bool) -> Any:
    """The frame with the plan's outputs appended, as a cuDF DataFrame."""
    import cudf

    cupy = job.device.cp
    plan = job.plan
    names = [str(c) for c in frame.columns]
    for name in plan.input_columns:
        if name not in names:
            raise PlanError(f"no column {name!r} in the input; it has {', '.join(names)}")
    for name in plan.output_names:
        if name in names:
            raise PlanError(
                f"output {name!r} is already a column of the input; rename it with .alias()"
            )
    n = len(frame)
    columns = {c: _column(frame[c], c, c in job.integers) for c in plan.value_columns}
    t = None if plan.time is None else integers(frame[plan.time], plan.time)
    slots = _slots(job, frame, plan.by, n)
    order = cupy.argsort(t, kind="stable") if sort and t is not None else None
    if order is not None and t is not None:
        columns = {name: values[order] for name, values in columns.items()}
        slots, t = slots if isinstance(slots, int) else slots[order], t[order]
    words: Any = None
    bits: Any = None
    if n:
        # cuDF, and CuPy so far, work on the default stream, the job on another one.
        cupy.cuda.Device().synchronize()
        words, bits = job.run_resident(n, slots, t, columns)
        job.device.stream.synchronize()
    made = frame.copy(deep=False)
    width = (n + 7) // 8
    for at, output in enumerate(plan.outputs if n else ()):
        byte = bits[at * width : (at + 1) * width]
        valid = cupy.unpackbits(byte, bitorder="little")[:n].astype(bool)
        values = words[at * n : (at + 1) * n]
        values = values.view(np.float64) if output.dtype == "f64" else values
        if order is not None:
            values, valid = _unsorted(values, order), _unsorted(valid, order)
        made[output.name] = _series(cudf, values, valid, output.dtype, frame.index)
    # What is freed here goes back to the job's stream: nobody may be reading it any more.
    cupy.cuda.Device().synchronize()
    if not n:
        kinds = {"f64": "float64", "i64": "int64", "i8": "int8", "b": "bool"}
        for output in plan.outputs:
            made[output.name] = cudf.Series([], dtype=kinds[output.dtype])
    return made


def _unsorted(values: Any, order: Any) -> Any:
    back = values.copy()
    back[order] = values
    return back


def _series(cudf: Any, values: Any, valid: Any, dtype: str, index: Any) -> Any:
    if dtype == "b":
        values = values == 1
    elif dtype == "i8":
        values = values.astype(np.int8)
    return masked(cudf, cudf.Series(values, nan_as_null=False), valid, index)


def masked(cudf: Any, series: Any, valid: Any, index: Any) -> Any:
    """The series with null where it is not valid, under another index.

    The index comes last: cuDF would align by it, and labels may be there twice.
    """
    made = series.where(cudf.Series(valid))
    made.index = index
    return made


def _column(series: Any, name: str, integer: bool) -> Any:
    if integer:
        return integers(series, name)
    if series.dtype.kind not in "fiub":
        raise PlanError(f"column {name!r} must be numeric, it is {series.dtype}")
    return series.astype("float64").to_cupy(na_value=np.nan)


def integers(series: Any, name: str) -> Any:
    """int64 (timestamps in ns), null as the smallest int64."""
    if series.dtype.kind == "M":
        if getattr(series.dtype, "tz", None) is not None:
            series = series.dt.tz_convert(None)
        series = series.astype("datetime64[ns]").astype("int64")
    elif series.dtype.kind not in "iu":
        raise PlanError(f"column {name!r} must be an integer or a timestamp, it is {series.dtype}")
    return series.astype("int64").to_cupy(na_value=NULL_INT)


def _slots(job: DeviceJob, frame: Any, by: Sequence[str], n: int) -> Any:
    """The slot of every row's symbol; new symbols are given the next ones."""
    if not by:
        return job.symbols.slot(None)
    cupy = job.device.cp
    codes = cupy.zeros(n, np.int64)
    values: list[list[Any]] = []
    for name in by:
        own, unique = frame[name].factorize()
        if int((own < 0).sum()):
            raise PlanError(
                f"key column {name!r} has nulls; every row needs a symbol, drop or fill them"
            )
        codes = codes * max(len(unique), 1) + own
        values.append(unique.to_arrow().to_pylist())
    distinct, inverse = cupy.unique(codes, return_inverse=True)
    slots = []
    for code in cupy.asnumpy(distinct).tolist():
        key = []
        for column in reversed(values):
            code, place = divmod(code, max(len(column), 1))
            key.append(column[place])
        slots.append(job.symbols.slot(key[0] if len(by) == 1 else tuple(reversed(key))))
    return cupy.asarray(np.array(slots, np.int32))[inverse]
