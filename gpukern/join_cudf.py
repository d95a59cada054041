"""As-of joins of cuDF tables: keys, match and columns stay on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import backend, join_device
from gpukern.errors import PlanError, UnsortedError
from gpukern.forms.rows import NULL_INT
from gpukern.frame_cudf import integers, masked
from gpukern.join_plan import AsofPlan


def joined(plan: AsofPlan, left: Any, right: Any, *, sort: bool) -> Any:
    """The left frame with the matching right columns appended, as a cuDF DataFrame."""
    import cudf

    if not isinstance(right, cudf.DataFrame):
        raise PlanError(
            f"{plan.what}: the left side is a cuDF table and the right a "
            f"{type(right).__qualname__}; give both as the same kind"
        )
    assert plan.left_on is not None
    assert plan.right_on is not None
    plan.check(_schema(left), _schema(right))
    on: Any = backend.get(backend.choose("cuda"))
    cupy = on.cp
    near, far, keys = _codes(cupy, left, right, plan.by)
    near_t = integers(left[plan.left_on], plan.left_on)
    far_t = integers(right[plan.right_on], plan.right_on)
    near[near_t == NULL_INT] = -1  # a row without a time takes no part
    far[far_t == NULL_INT] = -1
    if not sort:
        _check_order(cupy, plan, near, near_t, len(left))
    order = cupy.argsort(far_t, kind="stable") if sort else None
    if order is not None:
        far, far_t = far[order], far_t[order]
    lookup = cupy.arange(max(keys, 1), dtype=np.int64)
    # cuDF, and CuPy so far, work on the default stream, the matcher on another one.
    cupy.cuda.Device().synchronize()
    with on.working():
        rows = join_device.match_codes(
            on, (near, near_t, len(left)), (far, far_t, len(right)), lookup, keys, plan
        )
        on.stream.synchronize()
    if rows is None:
        raise UnsortedError(
            f"{plan.what}: right side is not in time order within a key: column "
            f"{plan.right_on!r}; sort it or pass sort=True"
        )
    rows = rows[: len(left)]
    found = rows >= 0
    place = cupy.where(found, rows, 0)
    if order is not None and len(right):
        place = order[place]
    made = left.copy(deep=False)
    for source, field in plan.outputs([str(c) for c in left.columns], _schema(right)):
        if source is None:
            ages = near_t - (far_t[cupy.where(found, rows, 0)] if len(right) else near_t)
            made[field.name] = masked(cudf, cudf.Series(ages), found, left.index)
        elif len(right) == 0:
            made[field.name] = cudf.Series([None] * len(left), dtype=right[source].dtype)
        else:
            taken = right[source].take(place).reset_index(drop=True)
            made[field.name] = masked(cudf, taken, found, left.index)
    # What is freed here goes back to the matcher's stream: nobody may be reading it any more.
    cupy.cuda.Device().synchronize()
    return made


def _schema(frame: Any) -> pa.Schema:
    """Column names and types; no rows leave the device."""
    return frame.head(0).to_arrow(preserve_index=False).schema


def _codes(cupy: Any, left: Any, right: Any, by: tuple[str, ...]) -> tuple[Any, Any, int]:
    """int32 key codes of both sides, −1 where a component is missing, and how many keys."""
    import cudf

    n = len(left)
    codes = cupy.zeros(n + len(right), np.int64)
    missing = cupy.zeros(n + len(right), bool)
    for name in by:
        own, unique = cudf.concat([left[name], right[name]], ignore_index=True).factorize()
        missing |= own < 0
        codes = codes * max(len(unique), 1) + own
    distinct, dense = cupy.unique(codes, return_inverse=True)
    dense = cupy.where(missing, -1, dense).astype(np.int32)
    return dense[:n], dense[n:], len(distinct)


def _check_order(cupy: Any, plan: AsofPlan, codes: Any, times: Any, n: int) -> None:
    """Raise UnsortedError unless the rows of every key are in time order."""
    order = cupy.argsort(codes, kind="stable")
    own, t = codes[order], times[order]
    falls = (own[1:] == own[:-1]) & (own[1:] >= 0) & (t[1:] < t[:-1])
    if n > 1 and bool(falls.any()):
        row = int(order[int(cupy.flatnonzero(falls)[0]) + 1])
        raise UnsortedError(
            f"{plan.what}: left side is not in time order: column {plan.left_on!r}, row {row}; "
            "sort it or pass sort=True"
        )
