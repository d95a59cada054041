"""Loops compiled before they are needed, by a process for each core.

Numba compiles one function at a time, whatever the number of threads, and the default features keep
it busy for minutes. What a plan needs is known before there are rows, and what is compiled goes
into a cache that processes share: others compile, this one loads.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gpukern import frame
from gpukern.errors import PlanError
from gpukern.forms import rows as prim
from gpukern.job import Job
from gpukern.tape import compile_walk

if TYPE_CHECKING:
    from gpukern.plan import Plan

MOST = 8  # processes: what walks through tapes takes a quarter of all time, and is one function
WALK = -1  # among the numbers of steps: what is the same for all plans
_SERVE = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from gpukern.cpu_warmup import serve; serve()"
)


def warmup(
    plan: Plan,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    processes: int | None = None,
) -> int:
    """Compile what the plan needs into the cache, for tables and small pushes; returns the number
    of kernels.

    ``progress(done, total, kernel)`` is called after each. So many ``processes`` compile what is
    missing: one for each core (at most 8) unless told otherwise; 1 starts none besides this one.
    They import the modules that kernels of your own come from; where that is the script itself
    (``__main__``), all is compiled here. Raises PlanError for fewer processes than one.
    """
    if processes is not None and processes < 1:
        raise PlanError(
            f"processes must be at least 1, or None for one for each core, got {processes}"
        )
    job = Job(plan, threads=1)
    total = len(plan.steps)
    missing = _missing(job)
    workers = min(processes or min(os.cpu_count() or 1, MOST), len(missing))
    ready: set[int] = set()

    def tell(step: int) -> None:
        ready.add(step)
        if progress is not None:
            progress(len(ready), total, plan.steps[step].kernel.name)

    if workers > 1 and sys.executable:
        with closing(_compiled_elsewhere(plan, missing, workers)) as compiled:
            for step in compiled:
                if step != WALK:
                    tell(step)
    for step in range(total):
        _load(job, step)
        if step not in ready:
            tell(step)
    _load(job, WALK)
    return total


def _missing(job: Job) -> list[int]:
    """Steps that no process has compiled yet, each loop once, those that take longest first."""
    loops = {
        step.template.text: n for n, step in enumerate(job.plan.steps) if not job.is_compiled(n)
    }
    longest = sorted(loops.items(), key=lambda loop: len(loop[0]), reverse=True)
    return [n for _, n in longest]


def _load(job: Job, step: int) -> None:
    """Compile, or take from the cache."""
    if step == WALK:
        compile_walk(job)
        _compile_rest()
        return
    job.compile(step)
    job.entry(step)


def _compile_rest() -> None:
    """The same of what tells symbols apart in a table, finds time that goes backwards, and makes
    room for windows in time."""
    symbols, table = frame.Symbols(), pa.table({"ts": [0, 0], "symbol": ["A", "B"]})
    for order in ([0, 1], [1, 0]):
        rows = table.take(order)
        slots = frame.slots_of(rows, ["symbol"], symbols)
        assert isinstance(slots, np.ndarray)
        prim.first_backward(slots, frame.times(rows.column("ts"), "ts"), np.zeros(2, np.int64))
    prim.first_backward_one(0, frame.times(table.column("ts"), "ts"), np.zeros(2, np.int64))
    none = np.zeros(0)
    prim.move_arena(none, none, np.zeros((0, 1)), 0, 0, np.zeros(0, np.int64), 0)


def _compiled_elsewhere(plan: Plan, steps: list[int], workers: int) -> Generator[int]:
    """Steps as other processes have compiled them. What one leaves undone is not told: it ended
    early, and said why on standard error."""
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for step in [WALK, *steps]:
        tasks.put(step)
    start = pickle.dumps(sys.path) + pickle.dumps(plan)
    running: list[subprocess.Popen[bytes]] = []
    feeders: list[threading.Thread] = []
    try:
        for _ in range(workers):
            # A session of its own, so that Ctrl-C ends only this process, which ends them.
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            running.append(process)
            feeders.append(threading.Thread(target=_feed, args=(process, start, tasks, done)))
            feeders[-1].start()
        ended = 0
        while ended < workers:
            compiled = done.get()
            if compiled is None:
                ended += 1
            else:
                yield compiled
    finally:
        for process in running:
            process.kill()  # it has ended, unless the caller stops here
        for process, feeder in zip(running, feeders, strict=True):
            feeder.join()
            process.wait()


def _feed(
    process: subprocess.Popen[bytes],
    start: bytes,
    tasks: queue.SimpleQueue[int],
    done: queue.SimpleQueue[int | None],
) -> None:
    """Give a process one task after the other, and tell what it has done, at last None."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as orders, process.stdout as answers:
            orders.write(start)
            while True:
                step = tasks.get_nowait()
                orders.write(b"%d\n" % step)
                orders.flush()
                if not answers.readline():
                    tasks.put(step)
                    break
                done.put(step)
    except (queue.Empty, BrokenPipeError):
        pass  # all is done; or the process has ended early
    finally:
        done.put(None)


def serve() -> None:
    """Compile what standard input asks for; the other side is ``_feed``."""
    orders = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)  # what else is printed is no answer
        try:
            job = Job(pickle.load(orders), threads=1)
        except PlanError:  # kernels that only the process that asks can know: it compiles them
            return
        # A compiler makes more objects than it leaves: to look for cycles less often saves a tenth.
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        for order in orders:
            _load(job, int(order))
            answers.write(order)
