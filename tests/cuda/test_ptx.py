"""Every device function compiles without a driver, and its machine code is what it should be.

Same bits as on a CPU: no multiplication and addition joined into one rounding, by libNVVM or later
by the driver. Fast enough to be worth it: registers, stack and spills within a budget.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("ptx_worker.py")
SHARES = 2
# 65,536 registers of a multiprocessor / 128: four blocks of 128 threads are resident at least.
MOST_REGISTERS = 128


def assembler() -> str | None:
    """ptxas, from the PATH or from NVIDIA's compiler wheel."""
    found = importlib.util.find_spec("nvidia")
    for root in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(root).glob("*/bin/ptxas")):
            return str(path)
    return shutil.which("ptxas")


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A description of every function for each architecture."""
    ptxas = assembler()
    if importlib.util.find_spec("numba_cuda") is None or ptxas is None:
        pytest.skip("extra cuda13 not installed")
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    folder = tmp_path_factory.mktemp("ptx")
    workers = []
    for share in range(SHARES):
        command = [sys.executable, str(WORKER), str(share), str(SHARES), ptxas]
        out, errors = (folder / f"{share}.{name}" for name in ("jsonl", "errors"))
        with out.open("w") as lines, errors.open("w") as trouble:
            worker = subprocess.Popen(command, stdout=lines, stderr=trouble, env=environment)
        workers.append((worker, out, errors))
    for worker, _, _ in workers:
        worker.wait(timeout=600)
    found = []
    for worker, out, errors in workers:
        assert worker.returncode == 0, errors.read_text()
        found += [json.loads(line) for line in out.read_text().splitlines()]
    return found


def named(functions: list[dict[str, Any]], what: str) -> Iterator[str]:
    for f in functions:
        if f[what]:
            yield f"{f['function']} ({f['architecture']}): {f[what]}"


def test_every_function_compiles_for_both_architectures(functions: list[dict[str, Any]]) -> None:
    each = [
        {f["function"] for f in functions if f["architecture"] == a} for a in ("sm_90", "sm_80")
    ]
    assert each[0] == each[1]
    assert len(each[0]) > 150
    assert [f["function"] for f in functions if f["target"] != [f["architecture"]]] == []
    assert [f["function"] for f in functions if f["entries"] != 1] == []


def test_one_compilation_serves_both_architectures(functions: list[dict[str, Any]]) -> None:
    assert [f["function"] for f in functions if not f["same"]] == []


def test_no_product_is_joined_with_a_sum(functions: list[dict[str, Any]]) -> None:
    assert list(named(functions, "contracted")) == []


def test_the_driver_may_join_none_either(functions: list[dict[str, Any]]) -> None:
    # Without a rounding mode in its name an instruction may be contracted when PTX is assembled.
    assert list(named(functions, "contractible")) == []


def test_no_function_is_approximate(functions: list[dict[str, Any]]) -> None:
    assert list(named(functions, "approximate")) == []


def test_nothing_is_called_that_is_not_there(functions: list[dict[str, Any]]) -> None:
    assert list(named(functions, "extern")) == []


def test_parameters_are_the_words_that_a_launch_passes(functions: list[dict[str, Any]]) -> None:
    # An array is seven words (owner, parent, sizes, data, shape, stride), all else is one.
    for f in functions:
        words = sum(7 if kind in "DQ" else 1 for kind in f["kinds"])
        assert len(f["parameters"]) == words, f["function"]
        assert set(f["parameters"]) == {"u64"}, f["function"]


def test_no_register_is_spilled(functions: list[dict[str, Any]]) -> None:
    assert list(named(functions, "spilled")) == []


def test_no_function_needs_a_stack(functions: list[dict[str, Any]]) -> None:
    assert list(named(functions, "stack")) == []


def test_registers_are_within_the_budget(functions: list[dict[str, Any]]) -> None:
    ordered = sorted(functions, key=lambda f: -f["registers"])
    print("registers of the widest functions")
    for f in ordered[:20]:
        print(f"{f['registers']:4} {f['architecture']} {f['function']}")
    over = {f["function"]: f["registers"] for f in ordered if f["registers"] > MOST_REGISTERS}
    assert over == {}
