"""The as-of matcher on a device: keys grouped by a stable sort, one thread per left row.

The search itself is ``join_match.find``, the same text as on the CPU; columns are gathered by
whoever holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import backend
from gpukern.device_functions import Functions
from gpukern.forms.device_rows import device
from gpukern.join_match import find, minus

if TYPE_CHECKING:
    from gpukern.join_plan import AsofPlan, Side

cuda: Any = None  # the backend puts numba.cuda or its simulator here


@device("iqinn")
def find_starts(codes, starts, order, keys, n):
    """starts[k] = first place of key k in grouped order; rows without a key (−1) come before."""
    k = cuda.grid(1)
    while k <= keys:
        lo = 0
        hi = n
        while lo < hi:
            mid = (lo + hi) >> 1
            if codes[order[mid]] < k:
                lo = mid + 1
            else:
                hi = mid
        starts[k] = lo
        k += cuda.gridsize(1)


@device("iqiqqn")
def find_disorder(codes, t, order, first, times, n):
    """times = t in grouped order; first[p] = p where a row is earlier than its key's row before."""
    p = cuda.grid(1)
    while p < n:
        i = order[p]
        times[p] = t[i]
        first[p] = 0
        if p > 0 and codes[i] >= 0:
            before = order[p - 1]
            if codes[before] == codes[i] and t[before] > t[i]:
                first[p] = 1
        p += cuda.gridsize(1)


@device("iqqqqinnnnqn")
def match_rows(
    codes, t, lookup, starts, times, rows, direction, exact, tolerance, shift, out, n
):  # fmt: skip
    """out[i] = matching right row of left row i at time t[i] − shift, or −1."""
    i = cuda.grid(1)
    while i < n:
        row = -1
        code = codes[i]
        if code >= 0:
            k = lookup[code]
            if k >= 0:
                lo = starts[k]
                hi = starts[k + 1]
                at = minus(t[i], shift)
                middle = lo + ((hi - lo) >> 1)
                place, _ = find(times, lo, hi, middle, at, direction, exact == 1, tolerance)
                if place >= 0:
                    row = rows[place]
        out[i] = row
        i += cuda.gridsize(1)


def match(name: str, left: Side, right: Side, plan: AsofPlan, *, shift: int = 0) -> Any:
    """The right row of every left row, or −1; None if a key's right rows are not in time order."""
    on = backend.get(name)
    with on.working():
        rows = match_codes(
            on,
            (on.put(left.codes.astype(np.int32)), on.put(left.times), len(left.codes)),
            (on.put(right.codes.astype(np.int32)), on.put(right.times), len(right.codes)),
            on.put(left.keys.lookup(right.keys).astype(np.int64)),
            right.keys.count,
            plan,
            shift,
        )
        return None if rows is None else on.fetch(rows)[: len(left.codes)]


def match_codes(
    on: Any,
    left: tuple[Any, Any, int],
    right: tuple[Any, Any, int],
    lookup: Any,
    keys: int,
    plan: AsofPlan,
    shift: int = 0,
) -> Any:
    """The same where codes, times (and how many) of both sides are on the device; so is the result.

    ``lookup`` is the right code of every left one; right codes are below ``keys``.
    """
    do = Functions(on)
    (near, near_t, rows), (codes, t, n) = left, right
    order = on.argsort(codes[:n])
    starts = on.full(keys + 1, "q", n)
    times, falls = on.empty(n, "q"), on.full(n, "q", 0)
    if n:
        do.find_starts(keys + 1, codes, starts, order, keys, n)
        do.find_disorder(n, codes, t, order, falls, times, n)
    if int(on.fetch(on.running_sum(falls)[-1:])[0]):
        return None
    out = on.empty(rows, "q")
    do.match_rows(
        rows, near, near_t, lookup, starts, times, order, plan.direction, int(plan.exact),
        plan.tolerance, shift, out, rows,
    )  # fmt: skip
    return out
