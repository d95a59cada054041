"""Order statistics of an ascending window: upkeep and the functions rank kernels use.

All work on ``s[0:n]``, a float64 array in ascending order without NaN.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from gpukern.forms.scratch import MAY_ALLOCATE

# Windows up to this length are searched by counting: every 16th element, then single ones (short
# windows: all). Comparisons that do not wait for each other beat a binary search, whose branches
# mispredict.
COUNTED = 4096
# Up to this length one pass over the whole window beats finding the places first (``replace``).
SCAN = 256
GROUP = 16


@register_jitable
def position(s, n, x):
    """Number of elements of ``s[0:n]`` smaller than x."""
    return positions(s, n, x, x)[0]


@register_jitable
def positions(s, n, x, y):
    """The same for two values at once."""
    if n > COUNTED:
        return _bisect(s, n, x), _bisect(s, n, y)
    a = 0
    b = 0
    if n <= 2 * GROUP:
        near = s[0:n]
        for j in range(len(near)):
            a += 1 if near[j] < x else 0
            b += 1 if near[j] < y else 0
        return a, b
    for j in range(n // GROUP):
        mark = s[GROUP * j + (GROUP - 1)]
        a += GROUP if mark < x else 0
        b += GROUP if mark < y else 0
    near = s[a : min(a + GROUP, n)]
    for j in range(len(near)):
        a += 1 if near[j] < x else 0
    near = s[b : min(b + GROUP, n)]
    for j in range(len(near)):
        b += 1 if near[j] < y else 0
    return a, b


@register_jitable
def _bisect(s, n, x):
    lo = 0
    hi = n
    while lo < hi:
        mid = (lo + hi) >> 1
        if s[mid] < x:
            lo = mid + 1
        else:
            hi = mid
    return lo


@register_jitable
def _drop_first(w):
    """Move all but the first element one place down."""
    for j in range(len(w) - 1):
        w[j] = w[j + 1]


@register_jitable
def _put_first(w, x):
    """Move all one place up, the last one out, and put x first."""
    carried = x
    for j in range(len(w)):
        kept = w[j]
        w[j] = carried
        carried = kept


@register_jitable
def insert(s, n, x):
    """Insert x into ``s[0:n]``; the array must have room for n + 1."""
    _put_first(s[position(s, n, x) : n + 1], x)


@register_jitable
def remove(s, n, x):
    """Remove one x, which must be there."""
    _drop_first(s[position(s, n, x) : n])


@register_jitable
def exchange(s, n, old, x):
    """Remove one ``old``, which must be there, and insert x."""
    a, b = positions(s, n, old, x)
    # Slices, because the compiler turns loops over indices from 0 into moves of several elements.
    if b > a:
        _drop_first(s[a:b])
        s[b - 1] = x
    else:
        _put_first(s[b : a + 1], x)


@register_jitable
def replace(s, n, old, x):
    """Take one ``old`` out of the window and put x in.

    ``s`` holds n values from index 1 between sentinels −inf and +inf. Every element is a selection
    among itself, its neighbour and x, and none is read after it was written, so the pass compiles
    to vector code without branches.
    """
    if x > old:
        for j in range(1, n + 1):
            shifted = min(s[j + 1], max(x, s[j]))
            s[j] = s[j] if s[j] < old else shifted
    else:
        for j in range(n, 0, -1):
            shifted = max(s[j - 1], min(x, s[j]))
            s[j] = s[j] if s[j] > old else shifted


@njit(error_model="numpy", **MAY_ALLOCATE)
def put_in_order(values, n, s):
    """``s[0:n]`` becomes the first n values in order."""
    s[:n] = np.sort(values[:n])


@register_jitable
def quantile(s, n, q, reach):
    """Linear between order statistics: h = (n−1)q, s[⌊h⌋] + (h−⌊h⌋)(s[⌊h⌋+1] − s[⌊h⌋]).

    ``reach`` is ``quantile_reach(n, q)``: places counted from it are constants to the compiler
    where many windows are looked at side by side.
    """
    h = (n - 1) * q
    if h >= n - 1:
        return s[reach - 1]
    j = reach - 2
    return s[j] + (h - j) * (s[j + 1] - s[j])


@register_jitable
def quantile_reach(n, q):
    """How many of the lowest values ``quantile`` reads."""
    return min(int((n - 1) * q) + 2, n)


@register_jitable
def within(s, n, reach):
    """How many values are not above the ``reach`` lowest: more if the last has equals."""
    top = s[reach - 1]
    if reach == n or s[reach] > top:
        return reach
    lo = reach
    hi = n
    while lo < hi:
        mid = (lo + hi) >> 1
        if s[mid] <= top:
            lo = mid + 1
        else:
            hi = mid
    return lo


@register_jitable
def median(s, n):
    """The 0.5 quantile."""
    half = n >> 1
    if n & 1:
        return s[half]
    return s[half - 1] + 0.5 * (s[half] - s[half - 1])


@register_jitable
def median_deviation(s, n, centre):
    """Median of abs(s[j] − centre), the MAD when centre is the median.

    Deviations below the centre descend and above it ascend along s, so the n // 2 + 1 smallest
    are one contiguous stretch of s. Its start is found by bisection; the largest deviation in it
    stands at one of its ends, and so does the next when that is taken away.
    """
    half = n >> 1
    lo = 0
    hi = n - half - 1
    while lo < hi:
        mid = (lo + hi) >> 1
        inside = centre - s[mid] <= s[mid + half + 1] - centre
        hi = mid if inside else hi
        lo = lo if inside else mid + 1
    hi = lo + half
    below = centre - s[lo]
    above = s[hi] - centre
    upper = max(below, above)
    if n & 1:
        return upper
    lower = max(centre - s[lo + 1], above) if below > above else max(below, s[hi - 1] - centre)
    return lower + 0.5 * (upper - lower)
