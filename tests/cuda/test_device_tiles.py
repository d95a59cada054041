"""Rows by way of shared memory: any number of columns, runs of any length beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from device_checks import check_run, check_stream, plans
from test_device_plans import keyed

import gpukern as gk
from gpukern import kernel
from gpukern.errors import DeviceError
from gpukern.forms import cuda
from gpukern.forms.cuda_tile import SHARED, WORD
from gpukern.kernel import step

OUTPUTS = [f"ahead_{n}" for n in range(20)]


def registered(outputs: int) -> Any:
    """A kernel of two inputs and so many outputs, each a sum that starts at its own number."""
    names = ", ".join(OUTPUTS[:outputs])

    @step("price>0, size>=0", out=names, params=[], first="1", units="price", scale=1,
          source="this test")  # fmt: skip
    class user_ahead:
        """Running turnover and what it is ahead of the numbers from 0 on."""

        state = "total"

        def init():
            return (0.0,)

        def step(total, price, size):
            total = total + price * size
            return (total,), (total, total - 1.0, total - 2.0, total - 3.0, total - 4.0,
                              total - 5.0, total - 6.0, total - 7.0, total - 8.0, total - 9.0,
                              total - 10.0, total - 11.0, total - 12.0, total - 13.0,
                              total - 14.0, total - 15.0, total - 16.0, total - 17.0,
                              total - 18.0, total - 19.0)  # fmt: skip

    return gk.user_ahead


@pytest.fixture(params=[4, 7, 13, 20])
def wide(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield registered(request.param)
    kernel.unregister("user_ahead")


def test_any_number_of_columns_fits(wide: Any) -> None:
    plan = gk.Plan([wide()])
    (planned,) = plan.steps
    text = cuda.template(planned.template, planned.params).text
    run = text[: text.index("\ndef ", 1)]
    words = [int(line.split("(")[1].split(",")[0]) for line in run.split("\n") if ".array(" in line]
    assert len(words) == 2 + len(planned.kernel.outputs) + 3
    assert SHARED // 2 < sum(words) * WORD <= SHARED


def test_wide_kernels_give_the_cpu_s_bits(wide: Any) -> None:
    for plan in plans([wide()]):
        check_run(plan, keyed(200, 5), "cudasim")
        check_stream(plan, keyed(200, 5), "cudasim", [3, 40, 41], swaps=(1,))


def test_more_columns_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpukern.forms.cuda_tile.SHARED", 8 << 10)
    with pytest.raises(DeviceError, match=r"kalman_1d: \d columns .* use device='cpu'"):
        gk.Plan([gk.kalman_1d("price")]).start(device="cudasim")
