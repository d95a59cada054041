"""Elementary functions whose bits are the same in Python, compiled for a CPU and on a GPU.

The platform's `math.log`, `math.exp` and the GPU's own differ in their last bit. These are built
from `+ - * /`, comparisons and the bits of a double only, each of which IEEE 754 fixes exactly, so
that every compiler that neither reorders nor contracts (`fastmath` off, FMA contraction off) gives
one answer. The main path has no branch, so that a loop over an array vectorises.

Each public function is a numba dispatcher: call it from Python, or as `scalar.log(x)` inside a
compiled function. With NUMBA_DISABLE_JIT=1 Python runs the same text. CUDA kernels call the same
dispatchers: numba-cuda compiles their source again for the device.

Arguments and results are float64. NaN in gives NaN out, always the same positive quiet NaN.
Errors in the docstrings are the largest seen against mpmath, over about a million random arguments
each, of every exponent and every region where the method changes, in units in the last place.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

INF = float("inf")
NAN = float("nan")
LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634

_LN2_HI = 0.6931471803691238  # 32 bits, so that a whole number of up to 21 bits times it is exact
_LN2_LO = 1.9082149292705877e-10
_LN2_HI26 = 0.6931471675634384  # 26 bits, for the product with another half-length number
_LN2_LO26 = 1.2996506893889889e-08

_SMALLEST_NORMAL = 2.2250738585072014e-308
_TWO_52 = 4503599627370496.0
_TWO_54 = 18014398509481984.0
_NEGLIGIBLE = 5.551115123125783e-17  # 2**-54: below it log1p(x) and expm1(x) round to x
_ROUNDER = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest whole number in the bits
_ROUNDER_BITS = 0x4338000000000000
_HALF_ROUNDER = 100663296.0  # 1.5 * 2**26: adding and subtracting it keeps 26 binary places

_MANTISSA = 0x000FFFFFFFFFFFFF
_TWO_52_BITS = 0x4330000000000000
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_ONE_LESS_SQRT_HALF_BITS = 0x3FF0000000000000 - _SQRT_HALF_BITS

# Minimax polynomials (Remez exchange at 60 digits), highest power first.
# (ln((1 + s) / (1 - s)) - 2 s) / s**3 in z = s*s, 0 <= z <= 0.02944: error times z < 2**-58
_LOG_TAIL = (
    0.14797072844430428,
    0.15313951232153897,
    0.18183567651503404,
    0.22222198521198655,
    0.2857142874275959,
    0.3999999999941374,
    0.6666666666666734,
)
# (e**r - 1 - r - r**2 / 2) / r**3, |r| <= 0.3467: error times r**3 < 2**-63
_EXP_TAIL = (
    2.0926794993798032e-09,
    2.5112064372940223e-08,
    2.755723393115021e-07,
    2.7557234819826244e-06,
    2.480158737289969e-05,
    0.00019841269896367448,
    0.0013888888888859028,
    0.00833333333331708,
    0.04166666666666672,
    0.16666666666666682,
)
# ((1 + t) * Mills(t) - 1/2) / w in 2 w - 1, where w = t / (4 + t), 0 <= t <= 39 and Mills(t) is
# exp(t*t/2) * P(X > t): error times w < 2**-55
_MILLS_EVEN = (
    7.777128623000019e-09,
    -5.039093628844341e-08,
    1.5316590078946133e-07,
    -1.2453334616778236e-07,
    -1.7725336507615888e-06,
    1.3477293134011544e-05,
    3.2229867508575645e-07,
    -0.0019607179708599383,
    0.04391623415769005,
    0.16551263712160438,
    -0.05589358698031068,
)
_MILLS_ODD = (
    1.568060483369154e-08,
    -1.5190404077820016e-07,
    9.32195773545653e-07,
    -5.090274330427514e-06,
    2.902206893054448e-05,
    -0.00018918262127057048,
    0.001389471748787366,
    -0.008044039196401877,
    -0.10831190901456672,
    -0.13751336767274033,
)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # error_model: no divisor here is ever zero, and numba's check for it would stop vectorising.
    # forceinline: the longer functions would stay calls inside a loop, which stops it as well.
    dispatcher: Callable[..., Any] = numba.njit(cache=True, error_model="numpy", forceinline=True)(
        function
    )
    return dispatcher


@_compiled
def _bits(x: float) -> int:
    return int(np.float64(x).view(np.int64))


@_compiled
def _double(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))


@_compiled
def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """Horner's rule, highest power first."""
    y = coefficients[0]
    for coefficient in coefficients[1:]:
        y = coefficient + x * y
    return y


@_compiled
def _power_of_two(k: int) -> float:
    """2**k for -1022 <= k <= 1023; any number for the meaningless k that NaN leads to."""
    return _double(((k + 1023) & 0x7FF) << 52)


@_compiled
def _exponent(shifted_bits: int, bias: float) -> float:
    # A 64-bit integer has no vector conversion to double below AVX-512; filling the low bits of
    # 2**52 and subtracting has.
    return _double(((shifted_bits >> 52) & 0x7FF) | _TWO_52_BITS) - (_TWO_52 + bias)


@_compiled
def _log_sum(k: float, f: float, low: float) -> float:
    """k ln 2 + ln(1 + f) + low, for a whole k and 1 + f in [sqrt(1/2), sqrt(2)].

    With s = f / (2 + f): ln(1 + f) = 2 artanh(s) = f - f*f/2 + s * (f*f/2 + tail(s*s)), the tail a
    minimax polynomial of error 2**-58.
    """
    s = f / (2.0 + f)
    z = s * s
    tail = z * _polynomial(_LOG_TAIL, z)
    half_square = 0.5 * f * f
    small = half_square - (s * (half_square + tail) + (k * _LN2_LO + low))
    # k ln 2 is 0 or larger than f: the rounding error of their sum is known exactly and put back.
    whole = k * _LN2_HI
    head = whole + f
    lost = f - (head - whole)
    return head + (lost - small)


@_compiled
def log(x: float) -> float:
    """Natural logarithm, within 0.82 ulp; log(0) = -inf, log(x < 0) = NaN."""
    subnormal = x < _SMALLEST_NORMAL
    normal = x * _TWO_54 if subnormal else x
    bias = 1023.0 + 54.0 if subnormal else 1023.0
    shifted = _bits(normal) + _ONE_LESS_SQRT_HALF_BITS
    k = _exponent(shifted, bias)
    f = _double((shifted & _MANTISSA) + _SQRT_HALF_BITS) - 1.0
    y = _log_sum(k, f, 0.0)
    y = x if x == INF else y
    y = -INF if x == 0.0 else y
    return y if x >= 0.0 else NAN


@_compiled
def log1p(x: float) -> float:
    """ln(1 + x), within 0.82 ulp for small x too; log1p(-1) = -inf, log1p(x < -1) = NaN."""
    u = 1.0 + x
    part = u - 1.0
    lost = (1.0 - (u - part)) + (x - part)
    shifted = _bits(u) + _ONE_LESS_SQRT_HALF_BITS
    k = _exponent(shifted, 1023.0)
    f = _double((shifted & _MANTISSA) + _SQRT_HALF_BITS) - 1.0
    near_one = k == 0.0
    f = x if near_one else f
    low = 0.0 if near_one else lost / (u if u > 0.0 else 1.0)
    y = _log_sum(k, f, low)
    y = x if abs(x) < _NEGLIGIBLE else y
    y = x if x == INF else y
    y = -INF if x == -1.0 else y
    return y if x >= -1.0 else NAN


@_compiled
def _exp_tail(r: float) -> float:
    """e**r - 1 - r for |r| <= ln(2)/2."""
    square = r * r
    return 0.5 * square + square * r * _polynomial(_EXP_TAIL, r)


@_compiled
def _exp_scaled(k: int, h: float, low: float) -> float:
    """2**k * e**(h - low) for |h| <= ln(2)/2 and a tiny low, whatever k a result can need."""
    head = 1.0 + h
    lost = (1.0 - head) + h
    y = head + (lost + (_exp_tail(h - low) - low))
    # Two factors: 2**k itself may be subnormal or beyond the largest double while y * 2**k is not.
    first = ((k + 4096) >> 1) - 2048
    return y * _power_of_two(first) * _power_of_two(k - first)


@_compiled
def exp(x: float) -> float:
    """e**x, within 0.63 ulp (0.77 if subnormal); 0 below about -745.13, inf above about 709.78."""
    clamped = -746.0 if x < -746.0 else x
    clamped = 710.0 if clamped > 710.0 else clamped
    rounded = clamped * LOG2_E + _ROUNDER
    k = rounded - _ROUNDER
    y = _exp_scaled(_bits(rounded) - _ROUNDER_BITS, clamped - k * _LN2_HI, k * _LN2_LO)
    return y if x == x else NAN


@_compiled
def exp2(x: float) -> float:
    """2**x, within 0.66 ulp (0.76 if subnormal), exact for whole x; 0 to -1075, inf from 1024."""
    clamped = -1080.0 if x < -1080.0 else x
    clamped = 1025.0 if clamped > 1025.0 else clamped
    rounded = clamped + _ROUNDER
    r = clamped - (rounded - _ROUNDER)
    r_hi = (r + _HALF_ROUNDER) - _HALF_ROUNDER
    low = -((r - r_hi) * _LN2_HI26 + r * _LN2_LO26)
    y = _exp_scaled(_bits(rounded) - _ROUNDER_BITS, r_hi * _LN2_HI26, low)
    return y if x == x else NAN


@_compiled
def expm1(x: float) -> float:
    """e**x - 1, within 0.89 ulp for small x too; -1 below about -37.4, inf above about 709.78."""
    clamped = -45.0 if x < -45.0 else x
    clamped = 710.0 if clamped > 710.0 else clamped
    rounded = clamped * LOG2_E + _ROUNDER
    k = rounded - _ROUNDER
    h = clamped - k * _LN2_HI
    low = k * _LN2_LO
    # Half the result, (2**(k-1) - 1/2) + 2**(k-1) * (h + tail), because 2**1024 is no double. Both
    # sums keep what they round off.
    scale = _power_of_two(_bits(rounded) - _ROUNDER_BITS - 1)
    base = scale - 0.5
    part = base - scale
    lost = (scale - (base - part)) + (-0.5 - part)
    term = scale * h
    head = base + term
    part = head - base
    lost += (base - (head - part)) + (term - part)
    y = 2.0 * (head + (lost + scale * (_exp_tail(h - low) - low)))
    y = x if abs(x) < _NEGLIGIBLE else y
    return y if x == x else NAN


@_compiled
def norm_cdf(x: float) -> float:
    """Probability that a standard normal variable is at most x, within 4 ulp in the lower tail too.

    exp(-t*t/2) times Mills' ratio for t = |x|. The upper half is 1 minus the lower.
    """
    t = abs(x)
    t = 39.0 if t > 39.0 else t
    w = t / (4.0 + t)
    u = 2.0 * w - 1.0
    correction = _polynomial(_MILLS_EVEN, u * u) + u * _polynomial(_MILLS_ODD, u * u)
    ratio = (0.5 + w * correction) / (1.0 + t)
    # The rounding error of t*t, times t*t itself in the exponential, would cost digits: Dekker's
    # product gives it exactly.
    big = t * 134217729.0
    t_hi = big - (big - t)
    t_lo = t - t_hi
    square = t * t
    square_lost = ((t_hi * t_hi - square) + 2.0 * t_hi * t_lo) + t_lo * t_lo
    density = exp(-0.5 * square)
    tail = (density - density * (0.5 * square_lost)) * ratio
    y = tail if x < 0.0 else 1.0 - tail
    return y if x == x else NAN


@_compiled
def sign(x: float) -> float:
    """-1.0, 0.0 or 1.0; NaN of NaN."""
    y = 1.0 if x > 0.0 else 0.0
    y = -1.0 if x < 0.0 else y
    return y if x == x else NAN


@_compiled
def isfinite(x: float) -> bool:
    """Neither infinite nor NaN."""
    return -INF < x < INF
