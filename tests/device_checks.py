"""What the tests of the simulator and of a GPU check of a plan: the CPU's bits, whatever the cuts.

Needs only gpukern, NumPy and Arrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import samples

import gpukern as gk


def check_run(plan: gk.Plan, table: pa.Table, device: str) -> None:
    """A whole table gives the CPU's bits."""
    table = table.select(plan.input_columns)
    samples.assert_same(plan.run(table, device=device), plan.run(table), plan.output_names)


def check_stream(
    plan: gk.Plan, table: pa.Table, device: str, cuts: Iterable[int], swaps: Sequence[int] = ()
) -> None:
    """Pushed in pieces, a device gives the bits of the CPU's batch and, after every piece, the
    bytes of the CPU's snapshot. After the pieces in ``swaps`` the two resume each other's.
    """
    table = table.select(plan.input_columns)
    host, other = plan.start(), plan.start(device=device)
    made = []
    for piece, (lo, hi) in enumerate(pairwise([0, *sorted(cuts), table.num_rows])):
        batch = table.slice(lo, hi - lo)
        host.push(batch)
        made.append(other.push(batch))
        here, there = host.snapshot(), other.snapshot()
        assert here == there, f"the snapshots differ after row {hi}"
        if piece in swaps:
            host, other = plan.resume(there), plan.resume(here, device=device)
    samples.assert_same(pa.concat_tables(made), plan.run(table), plan.output_names)


def plans(expressions: Iterable[Any], **options: Any) -> list[gk.Plan]:
    """A plan for each way to treat missing values."""
    listed = list(expressions)
    return [gk.Plan(listed, nan_policy=policy, **options) for policy in ("skip", "propagate")]
