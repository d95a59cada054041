"""The GPU benchmark, as far as it goes without a GPU: it would measure every kernel."""

from __future__ import annotations

import pytest

import gpukern as gk
from bench import gpu
from bench.data import ticker
from bench.gpu_device import arguments_of, columns_of
from gpukern import backend


@pytest.mark.parametrize("name", gk.kernels())
def test_every_kernel_can_be_measured(name: str) -> None:
    kernel = gk.kernels()[name]
    plan = gk.Plan([kernel(**arguments_of(kernel))], time="ts")
    columns = columns_of(ticker(3, 500))
    assert set(plan.value_columns) <= set(columns)


def test_equal_bits_are_asked_for() -> None:
    plan = gk.Plan([gk.ewma("price", alpha=0.1), gk.trade_sign(bid="bid", ask="ask")])
    table = ticker(3, 500)
    made = plan.run(table.select(plan.input_columns))
    gpu.same_bits(made, made, plan.output_names)
    other = plan.run(ticker(3, 500, seed=2).select(plan.input_columns))
    with pytest.raises(AssertionError, match="bits are not the CPU's"):
        gpu.same_bits(made, other, plan.output_names)


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend, "what_is_missing", lambda: "there is no NVIDIA driver")
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "bench gpu needs a GPU: there is no NVIDIA driver\n"
