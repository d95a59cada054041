"""Generated modules on disk: made once, made again when anything changes, safe to race for."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gpukern as gk
from gpukern import codegen, kernel

PROGRAM = textwrap.dedent(
    """
    import sys
    import gpukern as gk
    import pyarrow as pa
    plan = gk.Plan([gk.diff("x"), gk.rolling_mean("x", window=2)], by=None, time=None)
    out = plan.run(pa.table({"x": [1.0, 2.0, 4.0, 8.0]}))
    print(out.select(plan.output_names).to_pydict())
    """
)
PRINTED = "{'x_diff1': [None, 1.0, 2.0, 4.0], 'x_mean2': [None, 1.5, 3.0, 6.0]}"


def start(folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "GPUKERN_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out.strip()


def test_processes_may_race_for_a_cold_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    racing = [start(folder) for _ in range(3)]
    assert [printed(p) for p in racing] == [PRINTED] * 3
    assert not list(folder.rglob("*.tmp"))
    modules = sorted(p.name for p in folder.rglob("*.py"))
    assert len(modules) == 3  # two loops and the entry that both have
    compiled = sorted(folder.rglob("*.nbi"))
    assert compiled
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert printed(start(folder)) == PRINTED
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert {p: after.get(p) for p in before if p.suffix in (".py", ".nbi", ".nbc")} == {
        p: t for p, t in before.items() if p.suffix in (".py", ".nbi", ".nbc")
    }  # a warm process compiles nothing


@pytest.fixture
def doubled() -> object:
    """Registers a kernel whose constant and helper can be chosen."""

    def make(factor: float) -> kernel.Kernel:
        source = textwrap.dedent(
            f'''
            from gpukern.kernel import map_
            FACTOR = {factor!r}

            def helper(x):
                return x * FACTOR

            @map_("x", out="doubled", source="this test", units="x", scale=1)
            class doubled:
                """The input times a factor."""

                def value(x):
                    return helper(x)
            '''
        )
        path = folder / f"doubled_{factor}.py"
        path.write_text(source)
        scope = {"__name__": "outside"}
        exec(compile(source, str(path), "exec"), scope)
        return scope["doubled"]

    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield make
    kernel.unregister("doubled")


def test_a_change_anywhere_in_the_code_makes_another_module(doubled: object) -> None:
    sources = []
    for factor in (2.0, 3.0):
        made = doubled(factor)  # type: ignore[operator]
        sources.append(codegen.source_of(made.functions["value"]))
    assert sources[0] != sources[1]
    assert "FACTOR" in sources[0]


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPUKERN_CACHE_DIR", str(tmp_path / "here"))
    assert gk.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("GPUKERN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform != "win32" and sys.platform != "darwin":
        assert gk.cache_dir() == tmp_path / "xdg" / "gpukern"


def test_another_parameter_compiles_nothing() -> None:
    import pyarrow as pa

    table = pa.table({"x": [1.0, 2.0, 3.0]})
    gk.Plan([gk.rolling_mean("x", window=2)], by=None, time=None).run(table)
    known = set(codegen._modules)
    out = gk.Plan([gk.rolling_mean("x", window=3)], by=None, time=None).run(table)
    assert set(codegen._modules) == known
    assert out["x_mean3"].to_pylist() == [None, None, 2.0]


def test_warm_up_reports_each_kernel() -> None:
    plan = gk.Plan([gk.log_returns("x"), gk.rolling_mean(gk.log_returns("x"), window=3)])
    seen: list[tuple[int, int, str]] = []
    assert gk.warmup(plan, progress=lambda *told: seen.append(told)) == 2
    assert seen == [(1, 2, "log_returns"), (2, 2, "rolling_mean")]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc", ".py"])
def test_a_cut_off_cache_file_is_made_anew(tmp_path, suffix):
    code = (
        "import pyarrow as pa, gpukern as gk\n"
        "plan = gk.Plan([gk.rolling_sum('x', window=2)], by=None, time=None)\n"
        "print(plan.run(pa.table({'x': [1.0, 2.0]}))['x_sum2'].to_pylist())\n"
    )
    environment = {**os.environ, "GPUKERN_CACHE_DIR": str(tmp_path)}

    def run() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout

    first = run()
    files = list(tmp_path.rglob(f"rolling_sum*{suffix}"))
    assert files
    for file in files:
        file.write_bytes(b"")
    assert run() == first == "[None, 3.0]\n"


def test_loops_count_no_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what they slice: with thousands of symbols that was a tenth of the time."""
    monkeypatch.setenv("GPUKERN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(codegen, "_modules", {})
    features = [
        gk.rolling_std("x", window=20), gk.rolling_mean("x", window="1s"), gk.drawdown_equity("x"),
        gk.diff("x"), gk.macd("x"),
    ]  # fmt: skip
    job = gk.Plan(features, by="symbol", time="ts").start()
    for step in range(len(job.modules)):
        job.compile(step)
        (told,) = job.modules[step].run.inspect_llvm().values()
        assert "\ndefine " in told
        assert "call void @NRT_incref" not in told
