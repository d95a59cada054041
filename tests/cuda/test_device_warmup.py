"""Device code is compiled ahead, on a machine without a GPU; the doctor says what there is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpukern import backend
from gpukern.device_warmup import parse_architecture
from gpukern.errors import PlanError
from pipelines import doctor
from pipelines.errors import PipelineError
from pipelines.warmup import warmup


def test_warmup_compiles_for_an_architecture_without_a_gpu(tmp_path: Path) -> None:
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("extra cuda13 not installed")
    plan = tmp_path / "plan.toml"
    plan.write_text('[[feature]]\nkernel = "log_returns"\n')
    # A process of its own: the simulator may be on in this one.
    command = [sys.executable, "-m", "pipelines", "warmup", "--features", str(plan)]
    environment = {**os.environ, "GPUKERN_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    done = subprocess.run(
        [*command, "--device", "cuda", "--arch", "sm_80"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert "1 features ready" in done.stdout
    made = {path.name: path.read_text() for path in (tmp_path / "cache").rglob("*.ptx")}
    assert len(made) > 20
    assert all(name.endswith("_sm_80.ptx") for name in made)
    assert all(".target sm_80" in text for text in made.values())


@pytest.mark.parametrize("text", ["90", "h100", "sm_", "sm_9x"])
def test_an_architecture_is_named_as_nvidia_does(text: str) -> None:
    with pytest.raises(PlanError, match=f"such as sm_90 or sm_80, got '{text}'"):
        parse_architecture(text)


def test_an_architecture_of_three_digits() -> None:
    assert parse_architecture("sm_120") == (12, 0)


@pytest.mark.parametrize(("device", "arch"), [("cuda", None), ("cpu", "sm_90")])
def test_an_architecture_goes_with_the_gpu(device: str, arch: str | None) -> None:
    with pytest.raises(PipelineError, match=r"arch .* goes with device cuda"):
        warmup(device=device, arch=arch)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(PipelineError, match="device must be cpu or cuda, got 'tpu'"):
        warmup(device="tpu")


def test_the_doctor_says_what_is_missing_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "what_is_missing", lambda: "CuPy is not installed; install it")
    (found,) = [f for f in doctor.examine() if f.topic == "gpu"]
    assert found.value == "none used, everything runs on the CPU: CuPy is not installed; install it"


def test_the_doctor_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "what_is_missing", lambda: "")
    monkeypatch.setattr(backend, "describe", lambda: "NVIDIA H200, sm_90")
    (found,) = [f for f in doctor.examine() if f.topic == "gpu"]
    assert found.value == "NVIDIA H200, sm_90"
