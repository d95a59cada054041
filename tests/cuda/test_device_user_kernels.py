"""Kernels from outside the package, one of each form, run on a device without a line for it."""

from __future__ import annotations

import checks
import pytest
from device_checks import check_run, check_stream
from test_new_kernel import MARKET, NAMES, registered

import gpukern as gk

__all__ = ["registered"]  # loads the user's module for every test here


@pytest.mark.parametrize("name", NAMES)
def test_a_user_s_kernel_gives_the_cpu_s_bits(name: str) -> None:
    subject = checks.Subject(gk.kernels()[name])
    for plan in (subject.plan, subject.propagating):
        check_run(plan, MARKET, "cudasim")
        check_stream(plan, MARKET, "cudasim", [20, 21, 700], swaps=(1,))
