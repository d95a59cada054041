"""Every registered kernel gives the CPU's bits on a GPU, on millions of rows in both shapes."""

from __future__ import annotations

import checks
import pytest
from device_checks import check_run
from gpu_market import FEW, MANY, market

import gpukern as gk
from gpukern import kernel

KERNELS = kernel.kernels()
shapes = pytest.mark.parametrize("symbols", [FEW, MANY])


@shapes
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_gives_the_cpu_s_bits(name: str, symbols: int) -> None:
    table = market(symbols)
    for case in checks.Subject(KERNELS[name]).cases:
        for policy in ("skip", "propagate"):
            check_run(gk.Plan([case.expr], nan_policy=policy), table, "cuda")


@shapes
@pytest.mark.parametrize("policy", ["skip", "propagate"])
def test_the_default_features_give_the_cpu_s_bits(symbols: int, policy: str) -> None:
    check_run(gk.Plan(gk.default_features(), nan_policy=policy), market(symbols), "cuda")
