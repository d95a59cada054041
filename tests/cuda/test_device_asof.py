"""The as-of matcher on the CUDA simulator finds the rows that the CPU's finds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpukern import join_device
from gpukern.join_plan import AsofPlan, Index, Side, read_side

sides = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.none() | st.integers(0, 12)), max_size=25
)


def side(name: str, rows: list[tuple[str | None, int | None]], *, ordered: bool = True) -> Side:
    if ordered:
        rows = sorted(rows, key=lambda row: -1 if row[1] is None else row[1])
    table = pa.table(
        {
            "symbol": pa.array([key for key, _ in rows], pa.string()),
            "ts": pa.array([t for _, t in rows], pa.int64()),
        }
    )
    return read_side("asof_join", name, table, "ts", ("symbol",))


@pytest.mark.parametrize("direction", ["backward", "forward", "nearest"])
@given(
    left=sides,
    right=sides,
    exact=st.booleans(),
    tolerance=st.none() | st.integers(0, 5),
    shift=st.integers(-3, 3),
)
@settings(max_examples=25)
def test_matches_are_those_of_the_cpu(direction, left, right, exact, tolerance, shift) -> None:
    plan = AsofPlan.of(
        "asof_join",
        on="ts",
        by="symbol",
        direction=direction,
        tolerance=tolerance,
        allow_exact_matches=exact,
    )
    near, far = side("left", left, ordered=False), side("right", right)
    index, bad = Index.of(far)
    assert bad < 0
    found = join_device.match("cudasim", near, far, plan, shift=shift)
    np.testing.assert_array_equal(found, index.match(near, plan, shift=shift))


def test_a_right_side_out_of_order_is_noticed() -> None:
    plan = AsofPlan.of("asof_join", on="ts", by="symbol")
    far = side("right", [("a", 2), ("b", 0), ("a", 1)], ordered=False)
    assert join_device.match("cudasim", side("left", [("a", 3)]), far, plan) is None
