"""Writers that are killed: at every step on the disk in turn, or whenever the test likes.

As a program: `crash.py steps SCENARIO DIR` runs the scenario again and again, each time killed
before its next step, and prints what was there before and after the restart; `crash.py forever
SCENARIO DIR` writes until it is killed and prints the rows that are safe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import collectors.disk

STEPS = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync")
Acknowledge = Callable[[int], None]


def killed_at_every_step(scenario: str, directory: Path) -> list[dict[str, Any]]:
    """One entry per step: rows `acked`, `written`, `visible` at the crash, `rows` after restart."""
    command = [sys.executable, __file__, "steps", scenario, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def killed_after(acknowledgements: int, scenario: str, directory: Path) -> int:
    """Write until so many acknowledgements came, kill -9, return the rows that were safe."""
    command = [sys.executable, __file__, "forever", scenario, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledgements)]
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return int(lines[-1])


def _scenarios() -> dict[str, Any]:
    from crash_scenarios import SCENARIOS

    return SCENARIOS


def _kill_before(step: int) -> None:
    """Replace what changes the disk by itself, the `step`-th call by SIGKILL."""
    calls = count(1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    import collectors.sinks.parquet_compact as compact

    compact.exchange = counted(collectors.disk.exchange)


def _in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _steps(scenario: Any, directory: Path) -> None:
    for step in count(1):
        here = directory / str(step)
        here.mkdir(parents=True)
        log = here.with_suffix(".acked")
        if hasattr(scenario, "prepare"):
            _in_child(partial(scenario.prepare, here, log))
        status = _in_child(partial(_attempt, scenario, here, log, step))
        assert _in_child(partial(_report, scenario, here, log)) == 0
        if not os.WIFSIGNALED(status):
            assert status == 0
            return


def _attempt(scenario: Any, here: Path, log: Path, step: int) -> None:
    _kill_before(step)
    scenario.write(here, 0, lambda rows: log.write_text(str(rows)), scenario.batches)


def _report(scenario: Any, here: Path, log: Path) -> None:
    visible = scenario.visible(here)
    scenario.write(here, 0, lambda rows: None, 0)
    acked = int(log.read_text() or 0) if log.exists() else 0
    print(json.dumps({"acked": acked, "visible": visible, "rows": scenario.rows(here)}))


def _forever(scenario: Any, directory: Path) -> None:
    def acknowledge(rows: int) -> None:
        print(rows, flush=True)

    start = len(scenario.rows(directory))
    scenario.write(directory, start, acknowledge, sys.maxsize)


def numbered(start: int, batches: int, size: int) -> Iterator[range]:
    """Row numbers of one batch after another."""
    for first in range(start, start + size * batches, size):
        yield range(first, first + size)


if __name__ == "__main__":
    mode, name, target = sys.argv[1:]
    {"steps": _steps, "forever": _forever}[mode](_scenarios()[name], Path(target))
