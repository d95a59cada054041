"""Compile what a plan needs before it is needed."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gpukern as gk
from pipelines.config import DEFAULT, load_plan
from pipelines.errors import PipelineError


@dataclass(frozen=True)
class Warmup:
    """What was compiled, how long it took and where it lies."""

    features: int
    seconds: float
    folder: Path


def warmup(
    features: str | Path = DEFAULT,
    progress: Callable[[int, int | None], None] | None = None,
    *,
    device: str = "cpu",
    arch: str | None = None,
) -> Warmup:
    """Fill the compile cache for the default features or those of a plan file.

    ``device="cuda"`` compiles for GPUs of an architecture (``"sm_90"``) and needs none here.
    """
    if device not in ("cpu", "cuda"):
        raise PipelineError(f"device must be cpu or cuda, got {device!r}")
    if (device == "cuda") != (arch is not None):
        raise PipelineError("arch (such as sm_90) goes with device cuda, and only with it")
    started = clock.perf_counter()
    if str(features) == DEFAULT:
        plan = gk.Plan(gk.default_features(), by="symbol", time="recv_ts")
    else:
        wanted = load_plan(features)
        plan = gk.Plan(
            wanted.expressions,
            by=wanted.by or "symbol",
            time=wanted.time or "recv_ts",
            nan_policy=wanted.nan_policy,
        )

    def report(done: int, total: int, kernel: str) -> None:
        if progress is not None:
            progress(done, total)

    if arch is not None:
        from gpukern.device_warmup import warmup_device

        warmup_device(plan, arch, progress=report)
    else:
        gk.warmup(plan, progress=report)
    return Warmup(len(plan.output_names), clock.perf_counter() - started, Path(gk.cache_dir()))
