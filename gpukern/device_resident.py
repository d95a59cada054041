"""Rows whose columns are on the device already: what the host checks elsewhere is checked there.

The host waits once, for how many rows each symbol has and whether time goes backwards: an error has
to be raised before any state has changed. Small batches then go through the launches that are kept
(``device_push.py``), from and to memory of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpukern.device_piece import DevicePiece
from gpukern.device_push import length
from gpukern.device_step import Array
from gpukern.errors import UnsortedError
from gpukern.forms.cuda import RUN

if TYPE_CHECKING:
    from gpukern.device_job import DeviceJob


def run(
    job: DeviceJob, n: int, slots: Array | int, t: Array | None, columns: dict[str, Array]
) -> tuple[Array, Array]:
    """As ``DeviceJob.run_resident``; a MemoryError of a small batch leaves the state alone."""
    own = [columns[name].view(np.int64) for name in job.plan.value_columns]
    if t is not None and job.plan.uses_time:
        own.append(t)
    order = None if isinstance(slots, int) else job.device.argsort(slots)
    counts, last = _check(job, n, slots, order, t)
    for step in job.steps:
        step.reserve(counts, len(job.symbols))
    queue = _push if n < job.device.split_rows else _piece
    made = queue(job, n, slots, order, own)
    job.last = np.concatenate([last, job.last[len(last) :]])
    return made


def _check(
    job: DeviceJob, n: int, slots: Array | int, order: Array | None, t: Array | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and last times of every symbol, or UnsortedError; a missing time is no time."""
    device, do, symbols = job.device, job.functions, len(job.symbols)
    known = job.last[:symbols].copy()
    if isinstance(slots, int) and t is None:
        return job._rows_of_symbols(slots, n), known
    owners, counts = device.empty(n, "i"), device.empty(2, "q")
    # What the host asks for, side by side: a mark, the last times, the runs.
    answer = device.empty(1 + symbols * (1 + RUN), "q")
    answer[:1] = 0
    last, runs = answer[1 : 1 + symbols], answer[1 + symbols :]
    if order is None:
        owners[:n] = slots
    else:
        do.take_codes(n, slots, order, owners, n)
    do.find_runs(symbols, owners, n, runs, counts, symbols)
    if t is not None:
        times, bad = t, device.empty(n, "q")
        if order is not None:
            times = device.empty(n, "q")
            do.take_words(n, t, order, times, 1, n)
        last[:] = device.put(known)
        do.find_backward(n, owners, runs, times, last, bad, n)
        answer[:1] = device.running_sum(bad)[n - 1 : n]
        do.last_times(symbols, runs, times, last, symbols)
    told = device.fetch(answer)
    if told[0]:
        row = int(np.flatnonzero(device.fetch(bad)[:n])[0])
        symbol = list(job.symbols.slots)[int(device.fetch(owners)[row])]
        raise UnsortedError(
            f"time goes backwards: column {job.plan.time!r}, symbol {symbol!r}, at "
            f"{int(device.fetch(times)[row])}; sort the input or pass sort=True"
        )
    ends = told[1 + symbols :].reshape(-1, RUN)
    return ends[:, 3] - ends[:, 2], known if t is None else told[1 : 1 + symbols]


def _piece(
    job: DeviceJob, n: int, slots: Array | int, order: Array | None, columns: list[Array]
) -> tuple[Array, Array]:
    """All rows as one piece, which gives its outputs away."""
    words = job.device.empty(max(job.schedule.inputs, 1) * n, "q")
    for at, column in enumerate(columns):
        words[at * n : (at + 1) * n] = column
    piece = DevicePiece(job, n, order is not None)
    piece.take(slots, words, order)
    piece.find_runs()
    piece.run()
    return piece.out, piece.bits


def _push(
    job: DeviceJob, n: int, slots: Array | int, order: Array | None, columns: list[Array]
) -> tuple[Array, Array]:
    """A small batch by launches that are kept, its outputs copied from where those leave them."""
    device, outputs, width = job.device, len(job.plan.outputs), (n + 7) // 8
    out, bits = device.empty(outputs * n, "q"), device.empty(outputs * width, "b")
    push = job._repeated(length(n, device.split_rows - 1), order is not None)
    push.take(slots, order, columns, n)
    push.run()
    for made, kept, each in ((out, push.piece.out, n), (bits, push.piece.bits, width)):
        made.reshape(outputs, each)[:] = kept.reshape(outputs, -1)[:, :each]
    return out, bits
