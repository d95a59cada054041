"""Compiling ahead, by several processes, and the plans that travel to them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gpukern as gk

# What is compiled in the process that asks is told by numba itself.
PROGRAM = textwrap.dedent(
    """
    import sys
    import gpukern as gk
    import pyarrow as pa
    from numba.core import event

    {before}
    plan = gk.Plan([gk.diff("x"), gk.lag("x", 2), gk.rolling_median("x", window="3s"){more}])
    seen = []
    with event.install_recorder("numba:compile") as compiled:
        gk.warmup(plan, lambda *told: seen.append(told), processes=2)
    print(len(compiled.buffer) > 0)
    print([told[:2] for told in seen], sorted(told[2] for told in seen))
    with event.install_recorder("numba:compile") as compiled:
        for n in (4, 40_000):
            times = pa.array(range(n)).cast(pa.timestamp("ns"))
            symbols, x = ["A", "B"] * (n // 2), [1.0, 2.0] * (n // 2)
            table = pa.table({{"symbol": symbols, "ts": times, "x": x}})
            for rows in (table, table.set_column(2, "x", pa.array([1, None] * (n // 2)))):
                out = plan.run(rows)
                out = plan.start().push(rows.filter(pa.array([True, False] * (n // 2))))
    print([e.data["dispatcher"].py_func.__name__ for _, e in compiled.buffer])
    print(out["x_diff1"].to_pylist()[:2])
    """
)
KERNEL = textwrap.dedent(
    '''
    from gpukern.kernel import map_

    @map_("x", out="{x}_doubled", source="this test", units="x", scale=1)
    class doubled:
        """The input times two."""

        def value(x):
            return 2.0 * x
    '''
)


def lines(
    folder: Path, before: str = "", more: str = "", caches: tuple[str, ...] = ("GPUKERN",)
) -> list[str]:
    """What the program prints with these caches empty."""
    (folder / "program.py").write_text(PROGRAM.format(before=before, more=more))
    empty = {f"{name}_CACHE_DIR": str(folder / name) for name in caches}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(folder / "program.py")],
        env={**os.environ, **empty},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def all_told(of: int, *kernels: str) -> list[str]:
    """The lines after the first: progress, what is compiled after a warm-up, a result."""
    return [
        f"{[(n, of) for n in range(1, of + 1)]} {sorted(kernels)}",
        "[]",
        "[None, 0.0]",
    ]


def test_other_processes_compile_everything(tmp_path: Path) -> None:
    (tmp_path / "doubling.py").write_text(KERNEL)
    both = ("GPUKERN", "NUMBA")
    here, *told = lines(tmp_path, "import doubling", ", doubling.doubled('x')", caches=both)
    assert here == "False"
    assert told == all_told(4, "diff", "lag", "rolling_median", "doubled")


def test_kernels_of_a_script_are_compiled_by_it(tmp_path: Path) -> None:
    here, *told = lines(tmp_path, KERNEL, ", doubled('x')")
    assert here == "True"
    assert told == all_told(4, "diff", "lag", "rolling_median", "doubled")


def test_what_other_processes_leave_undone_is_compiled_here(tmp_path: Path) -> None:
    here, *told = lines(tmp_path, "sys.executable = '/bin/false'")
    assert here == "True"
    assert told == all_told(3, "diff", "lag", "rolling_median")


def test_progress_that_raises_ends_the_other_processes(monkeypatch) -> None:
    from gpukern import cpu_warmup

    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(cpu_warmup.subprocess, "Popen", Watched)
    monkeypatch.setattr(cpu_warmup, "_missing", lambda job: [0, 1])
    plan = gk.Plan([gk.diff("x"), gk.lag("x", 2)], time=None)

    def stop(*told: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gk.warmup(plan, stop, processes=2)
    assert [process.returncode is None for process in started] == [False, False]


def test_number_of_processes_must_make_sense() -> None:
    plan = gk.Plan([gk.diff("x")], time=None)
    with pytest.raises(gk.PlanError, match=r"processes must be at least 1, .* got 0"):
        gk.warmup(plan, processes=0)


def test_pickled_plan_is_the_same() -> None:
    plan = gk.Plan(gk.default_features(), by="symbol", time="ts")
    again = pickle.loads(pickle.dumps(plan))
    assert again.fingerprint == plan.fingerprint
    assert again.output_names == plan.output_names
    assert again.outputs == plan.outputs


def test_pickled_plan_keeps_key_time_policy_and_parameters() -> None:
    expression = gk.ewma("x", alpha={("A", 1): 0.1, ("B", 2): 0.2}).alias("slow")
    plan = gk.Plan([expression], by=("a", "b"), time=None, nan_policy="propagate")
    again = pickle.loads(pickle.dumps(plan))
    assert (again.by, again.time, again.nan_policy) == (("a", "b"), None, "propagate")
    assert again.expressions[0].params == expression.params
    assert again.output_names == ["slow"]


def test_kernel_that_cannot_be_found_is_named() -> None:
    from gpukern.kernel import find

    for module in ("__main__", "no_such_module_anywhere"):
        with pytest.raises(
            gk.PlanError,
            match=f"kernel 'nothing' is not known in this process, and importing '{module}'",
        ):
            find("nothing", module)
    assert find("ewma", "gpukern.kernels.exponential") is gk.ewma
