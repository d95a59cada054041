"""Order statistics of an ascending window: upkeep and the functions rank kernels use.

All work on ``s[0:n]``, a float64 array in ascending order without NaN.
"""

import numpy as np  # noqa: F401  (array methods in compiled code)
from numba.extending import register_jitable

# Below this length a straight count beats a binary search: no mispredicted branch.
SCAN = 256


@register_jitable
def position(s, n, x):
    """Number of elements of ``s[0:n]`` smaller than x."""
    if n <= SCAN:
        count = 0
        for j in range(n):
            count += 1 if s[j] < x else 0
        return count
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
def insert(s, n, x):
    """Insert x into ``s[0:n]``; the array must have room for n + 1."""
    at = position(s, n, x)
    for j in range(n, at, -1):
        s[j] = s[j - 1]
    s[at] = x


@register_jitable
def remove(s, n, x):
    """Remove one x, which must be there."""
    at = position(s, n, x)
    for j in range(at, n - 1):
        s[j] = s[j + 1]


@register_jitable
def exchange(s, n, old, x):
    """Remove one ``old``, which must be there, and insert x."""
    a = position(s, n, old)
    b = position(s, n, x)
    if b > a:
        for j in range(a, b - 1):
            s[j] = s[j + 1]
        s[b - 1] = x
    else:
        for j in range(a, b, -1):
            s[j] = s[j - 1]
        s[b] = x


@register_jitable
def quantile(s, n, q):
    """Linear between order statistics: h = (n−1)q, s[⌊h⌋] + (h−⌊h⌋)(s[⌊h⌋+1] − s[⌊h⌋])."""
    h = (n - 1) * q
    j = int(h)
    if j >= n - 1:
        return s[n - 1]
    return s[j] + (h - j) * (s[j + 1] - s[j])


@register_jitable
def median(s, n):
    """The 0.5 quantile."""
    half = n >> 1
    if n & 1:
        return s[half]
    return s[half - 1] + 0.5 * (s[half] - s[half - 1])


@register_jitable
def kth_deviation(s, n, centre, k):
    """The k-th smallest (from 0) of abs(s[j] − centre).

    Deviations below the centre descend and above it ascend along s, so the k+1 smallest are one
    contiguous stretch of s; its start is found by bisection.
    """
    width = k + 1
    lo = 0
    hi = n - width
    while lo < hi:
        mid = (lo + hi) >> 1
        if centre - s[mid] > s[mid + width] - centre:
            lo = mid + 1
        else:
            hi = mid
    return max(centre - s[lo], s[lo + width - 1] - centre)


@register_jitable
def median_deviation(s, n, centre):
    """Median of abs(s[j] − centre), the MAD when centre is the median."""
    half = n >> 1
    upper = kth_deviation(s, n, centre, half)
    if n & 1:
        return upper
    lower = kth_deviation(s, n, centre, half - 1)
    return lower + 0.5 * (upper - lower)


@register_jitable
def tail_sum(s, n, threshold):
    """(count, mean offset from s[0], …) helper: number of elements ≤ threshold and their mean."""
    count = 0
    total = 0.0
    while count < n and s[count] <= threshold:
        total += s[count] - s[0]
        count += 1
    return count, s[0] + total / max(count, 1)
