"""What else computes the same on a GPU: CuPy's filters and scans, cuDF's windows."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pyarrow as pa

import gpukern as gk

from .agreement import require_agreement
from .data import ticker
from .gpu_device import Device, Resident
from .harness import significant

ALPHA, WINDOW = 0.06, 100


def measure_rivals(device: Device, rows: int, repeats: int) -> list[dict[str, Any]]:
    """One symbol, columns on the device, the same answer first."""
    table = ticker(1, rows)
    found = [_lfilter(device, table, repeats), _cumsum(device, table, repeats)]
    if importlib.util.find_spec("cudf") is not None:
        found.append(_cudf(device, table, repeats))
    return found


def _compare(
    device: Device, table: pa.Table, repeats: int, expr: Any, what: str, rival: str, work: Any,
    stream: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """``stream``: the one that the rival works on, if it is not the engine's."""
    plan = gk.Plan([expr], by="symbol", time="ts")
    run = Resident(device, plan, table)
    ours = plan.run(table.select(plan.input_columns))[plan.output_names[0]].to_pandas().to_numpy()
    with device.engine.stream if stream is None else stream:
        found = device.cp.asnumpy(work())
    require_agreement(what, ours, np.asarray(found, np.float64))
    whole, _ = run.seconds(repeats)
    theirs = device.seconds(work, repeats, stream)
    return {
        "what": what,
        "rival": rival,
        "rows_per_s": significant(table.num_rows / whole),
        "rival_rows_per_s": significant(table.num_rows / theirs),
        "ratio": significant(theirs / whole),
    }


def _lfilter(device: Device, table: pa.Table, repeats: int) -> dict[str, Any]:
    from cupyx.scipy.signal import lfilter

    first = table["price"].to_numpy()[0]
    with device.engine.working():
        price = device.engine.put(table["price"].to_numpy())
        b, a = device.cp.array([ALPHA]), device.cp.array([1.0, ALPHA - 1.0])
        start = device.cp.array([(1.0 - ALPHA) * float(first)])
    return _compare(
        device, table, repeats, gk.ewma("price", alpha=ALPHA), "exponential mean",
        "cupyx.scipy.signal.lfilter", lambda: lfilter(b, a, price, zi=start)[0],
    )  # fmt: skip


def _cumsum(device: Device, table: pa.Table, repeats: int) -> dict[str, Any]:
    with device.engine.working():
        size = device.engine.put(table["size"].to_numpy())
    return _compare(
        device, table, repeats, gk.cum_sum("size"), "running sum", "cupy.cumsum",
        lambda: device.cp.cumsum(size),
    )  # fmt: skip


def _cudf(device: Device, table: pa.Table, repeats: int) -> dict[str, Any]:
    import cudf

    price = cudf.Series(table["price"].to_numpy())
    return _compare(
        device, table, repeats, gk.rolling_mean("price", window=WINDOW), "rolling mean",
        "cudf.Series.rolling.mean",
        lambda: price.rolling(WINDOW).mean().to_cupy(na_value=np.nan), device.cp.cuda.Stream.null,
    )  # fmt: skip
