"""Which device a plan runs on: no choice is silent, what is missing is named with its remedy."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import gpukern as gk
from gpukern import backend, device_memory
from gpukern.errors import DeviceError, PlanError

PLAN = gk.Plan([gk.midprice()])
INSTALL = r"pip install 'gpukern\[cuda13\]'"


@pytest.fixture
def unexamined(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is missing is looked for anew, and nothing has been announced."""
    monkeypatch.setattr(backend, "_announced", False)
    backend.what_is_missing.cache_clear()
    yield
    backend.what_is_missing.cache_clear()


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    find_spec = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        if name in modules:
            return None
        return object() if name in ("cupy", "numba_cuda") else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(
        PlanError, match="device must be one of cpu, cuda, cudasim, auto, got 'gpu'"
    ):
        PLAN.start(device="gpu")


@pytest.mark.parametrize(("module", "name"), [("cupy", "CuPy"), ("numba_cuda", "numba-cuda")])
def test_cuda_without_a_package_names_the_extra(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch, unexamined: None
) -> None:
    without(monkeypatch, module)
    with pytest.raises(DeviceError, match=rf"device 'cuda': {name} is not installed.*{INSTALL}"):
        PLAN.start(device="cuda")


def test_cuda_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch, unexamined: None) -> None:
    without(monkeypatch)

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(DeviceError, match=r"no NVIDIA driver \(libcuda.*use device='cpu'"):
        PLAN.start(device="cuda")


def test_auto_says_once_what_it_chose(
    monkeypatch: pytest.MonkeyPatch, unexamined: None, caplog: pytest.LogCaptureFixture
) -> None:
    without(monkeypatch, "cupy")
    with caplog.at_level(logging.INFO, "gpukern"):
        assert backend.choose("auto") == "cpu"
        assert backend.choose("auto") == "cpu"
    assert [r.getMessage().partition(" (")[0] for r in caplog.records] == ["device auto: cpu"]
    assert "CuPy is not installed" in caplog.text


def test_the_simulator_after_the_compiler_is_refused_with_the_remedy() -> None:
    pytest.importorskip("numba_cuda", reason="extra cuda13 not installed")
    code = (
        "import numba.cuda, gpukern as gk\n"
        "try:\n    gk.Plan([gk.midprice()]).start(device='cudasim')\n"
        "except gk.Error as error:\n    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300
    )
    assert "set NUMBA_ENABLE_CUDASIM=1 before Python starts" in done.stdout, done.stderr


class Resource:
    """A resource as RMM's are: some have a size, some take memory from another."""

    def __init__(self, size: int | None, upstream: Resource | None = None) -> None:
        if size is not None:
            self.pool_size = lambda: size
        self.upstream_mr = upstream


def test_the_pools_of_rmm_are_found_behind_other_resources() -> None:
    chain = Resource(None, Resource(1 << 30, Resource(None)))
    assert device_memory.pool_bytes(chain) == 1 << 30
    assert device_memory.pool_bytes(Resource(None)) == 0
