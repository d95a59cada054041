"""What is mended of numba's simulator: threads that wait for each other, arrays they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

cuda: Any = None  # the simulator puts numba's here


def turn_round(values: Any, to: Any) -> None:
    """Every thread hands its value to the one opposite, many times."""
    shared = cuda.shared.array(2, np.float64)
    me = cuda.threadIdx.x
    last = cuda.blockDim.x - 1
    value = values[cuda.grid(1)]
    turn = 0
    while turn < 101:
        shared[me] = value
        cuda.syncthreads()
        value = shared[last - me]
        cuda.syncthreads()
        turn += 1
    to[cuda.grid(1)] = value


def stumble(values: Any, to: Any) -> None:
    """One thread fails before it meets the others."""
    if cuda.threadIdx.x == 1:
        raise ArithmeticError("no result")
    cuda.syncthreads()
    to[cuda.grid(1)] = values[cuda.grid(1)]


def launched(simulator: Any, function: Any) -> list[float]:
    to = np.zeros(4)
    simulator.load(function, "", "dd")(4, np.arange(4.0), to)
    return [float(x) for x in to]


def test_threads_of_a_block_share_an_array_and_wait(simulator: Any) -> None:
    assert launched(simulator, turn_round) == [1.0, 0.0, 3.0, 2.0]


def test_a_thread_that_fails_is_not_waited_for(simulator: Any) -> None:
    with pytest.raises(ArithmeticError, match="no result"):
        launched(simulator, stumble)
