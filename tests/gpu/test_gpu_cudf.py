"""cuDF tables in and out: the CPU's values, columns that stay on the device."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import samples
from gpu_market import FEW, market

import gpukern as gk
from gpukern.errors import PlanError, UnsortedError

PLAN = gk.Plan(gk.default_features())


@pytest.fixture
def cudf() -> Any:
    return pytest.importorskip("cudf", reason="extra rapids not installed")


@pytest.fixture
def frame(cudf: Any) -> Any:
    return cudf.DataFrame.from_arrow(market(FEW, 100_000).select(PLAN.input_columns))


def test_a_cudf_frame_comes_back_as_one_with_the_cpu_s_bits(cudf: Any, frame: Any) -> None:
    made = PLAN.run(frame, device="cuda")
    assert isinstance(made, cudf.DataFrame)
    expected = PLAN.run(market(FEW, 100_000).select(PLAN.input_columns))
    samples.assert_same(made.to_arrow(), expected, PLAN.output_names)


def test_time_may_have_no_zone(frame: Any) -> None:
    bare = frame.assign(ts=frame["ts"].dt.tz_convert(None))
    made, expected = PLAN.run(bare, device="cuda"), PLAN.run(frame, device="cuda")
    samples.assert_same(made.to_arrow(), expected.to_arrow(), PLAN.output_names)


def test_labels_may_be_there_twice(frame: Any) -> None:
    twice = frame.set_index(np.arange(len(frame)) // 2)
    made, expected = PLAN.run(twice, device="cuda"), PLAN.run(frame, device="cuda")
    assert made.index.equals(twice.index)
    samples.assert_same(made.to_arrow(), expected.to_arrow(), PLAN.output_names)


def test_pieces_continue_each_other(cudf: Any, frame: Any) -> None:
    job = PLAN.start(device="cuda")
    made = cudf.concat([job.push(frame.iloc[:999]), job.push(frame.iloc[999:])])
    expected = PLAN.run(market(FEW, 100_000).select(PLAN.input_columns))
    samples.assert_same(made.to_arrow(), expected, PLAN.output_names)


def test_small_frames_repeat_one_graph(cudf: Any, frame: Any) -> None:
    job: Any = PLAN.start(device="cuda")
    edges = [0, 1_000, *range(1_060, 2_000, 60)]
    made = [job.push(frame.iloc[a:b]) for a, b in pairwise(edges)]
    (push,) = [p for p in job.pushes.values() if p.rows == 64]
    assert push.repeat is not None
    expected = PLAN.run(market(FEW, 100_000).select(PLAN.input_columns))
    rows = np.arange(edges[-1])
    samples.assert_same(cudf.concat(made).to_arrow(), expected, PLAN.output_names, rows)


def test_sorted_on_request(frame: Any) -> None:
    mixed = frame.take(np.random.default_rng(1).permutation(len(frame)))
    made = PLAN.run(mixed, device="cuda", sort=True).to_arrow()
    expected = PLAN.run(mixed.to_arrow(), sort=True)
    samples.assert_same(made, expected, PLAN.output_names)


def test_time_that_goes_backwards_is_refused(frame: Any) -> None:
    with pytest.raises(UnsortedError, match="time goes backwards"):
        PLAN.run(frame.iloc[::-1], device="cuda")


def test_a_cudf_frame_needs_the_gpu(frame: Any) -> None:
    with pytest.raises(PlanError):
        PLAN.run(frame.drop(columns=["price"]), device="cuda")
