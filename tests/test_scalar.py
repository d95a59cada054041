"""gpukern.scalar: right to the last digit, and the same bits interpreted and compiled."""

import importlib.util
import math
import struct
import subprocess
import sys
from types import ModuleType
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import ndtr

from gpukern import scalar

INF = math.inf
NAN = math.nan
LARGEST = sys.float_info.max
SMALLEST_NORMAL = sys.float_info.min
SMALLEST = 5e-324
PRECISION = mpmath.workdps(50)

EXACT = {
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "exp2": lambda x: mpmath.power(2, x),
    "norm_cdf": mpmath.ncdf,
}
ELEMENTARY = ["log", "log1p", "exp", "expm1", "exp2"]
FUNCTIONS = [*EXACT, "sign", "isfinite"]


def exact(name: str, x: float) -> mpmath.mpf:
    with PRECISION:
        v = mpmath.mpf(x)
        if abs(x) < 1e-30 and name in ("log1p", "expm1"):  # beyond the working precision
            return v - v * v / 2 if name == "log1p" else v + v * v / 2
        return EXACT[name](v)


def ulps(got: float, want: mpmath.mpf) -> float:
    """Distance in units of the last place of the exact value; beyond the largest double counts as
    its successor 2**1024, which is what infinity stands for."""
    with PRECISION:
        limit = mpmath.mpf(2) ** 1024
        want = min(want, limit)
        if want == 0:
            return 0.0 if got == 0 else INF
        value = mpmath.mpf(got) if math.isfinite(got) else mpmath.sign(got) * limit
        exponent = mpmath.frexp(want)[1]
        return float(abs(value - want) / mpmath.mpf(2) ** max(exponent - 53, -1074))


def inside(name: str, x: float) -> bool:
    return x > {"log": 0.0, "log1p": -1.0}.get(name, -INF)


def worst(name: str, xs: list[float]) -> tuple[float, float]:
    function = getattr(scalar, name)
    return max((ulps(function(x), exact(name, x)), x) for x in xs if inside(name, x))


def bits(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def neighbours(x: float, count: int = 3) -> list[float]:
    xs = [x]
    for way in (-INF, INF):
        y = x
        for _ in range(count):
            y = math.nextafter(y, way)
            xs.append(y)
    return xs


def domain_samples(name: str) -> list[float]:
    """Seeded samples: every exponent, every region where the method changes, the usual range."""
    rng = np.random.default_rng(20240808)
    n = 700
    any_positive = rng.integers(1, 0x7FF0000000000000, n).view(np.float64)
    subnormal = rng.integers(1, 1 << 52, n // 4).view(np.float64)
    near_zero = np.ldexp(rng.uniform(-1, 1, n), rng.integers(-60, 0, n))
    samples = {
        "log": [any_positive, subnormal, 1 + near_zero, rng.uniform(0.3, 3, 2 * n)],
        "log1p": [
            any_positive,
            -subnormal,
            near_zero,
            np.abs(near_zero) - 1,
            rng.uniform(-0.5, 1, 2 * n),
        ],
        "exp": [near_zero, rng.uniform(-1, 1, n), rng.uniform(-745, 709, n), [-subnormal[0]]],
        "expm1": [near_zero, rng.uniform(-1, 1, 2 * n), rng.uniform(-45, 70, n), subnormal],
        "exp2": [near_zero, rng.uniform(-1, 1, n), rng.uniform(-1075, 1024, n), [subnormal[0]]],
        "norm_cdf": [near_zero, rng.uniform(-3, 3, n), rng.uniform(-37.5, 9, n)],
    }[name]
    return [float(x) for part in samples for x in part]


LOG_SEAMS = [math.ldexp(m, k) for m in (1.0, math.sqrt(0.5)) for k in (-1022, -54, -1, 0, 1, 1023)]
EXP_SEAMS = [k * math.log(2) / 2 for k in (-107, -3, -2, -1, 1, 2, 3, 107, 113)]
HARD = {
    "log": [*LOG_SEAMS, SMALLEST, LARGEST, 0.1, 10.0, math.e, 67000.01 / 67000.0],
    "log1p": [
        *(v - 1 for v in (0.5, math.sqrt(0.5), math.sqrt(2), 2.0, 4.0)),
        *(s * math.ldexp(1.0, k) for s in (-1, 1) for k in (-1074, -1022, -55, -54, -53, -27, -2)),
        *(math.ldexp(1.0, k) for k in (52, 53, 54, 1023)),
        LARGEST,
        -1 + 2**-53,
    ],
    "exp": [*EXP_SEAMS, -708.3964185322641, -745.0, 709.7827128933840, SMALLEST, -SMALLEST],
    "expm1": [*EXP_SEAMS, 5.551115123125783e-17, -37.42994775023705, 39.0, 709.782712893384],
    "exp2": [k + 0.5 for k in (-1074, -1023, -1022, -1, 0, 1, 1023)],
}


@pytest.mark.parametrize("name", ELEMENTARY)
def test_within_one_ulp_over_the_whole_range(name: str) -> None:
    error, x = worst(name, domain_samples(name))
    assert error <= 1.0, f"{name}({x!r}) is {error:.3f} ulp off"


@pytest.mark.parametrize("name", ELEMENTARY)
def test_within_one_ulp_where_the_method_changes(name: str) -> None:
    error, x = worst(name, [y for x in HARD[name] for y in neighbours(x)])
    assert error <= 1.0, f"{name}({x!r}) is {error:.3f} ulp off"


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
@example(SMALLEST)
@example(LARGEST)
def test_log_of_any_positive_number(x: float) -> None:
    assert ulps(scalar.log(x), exact("log", x)) <= 1.0


@given(st.floats(min_value=-1, exclude_min=True, allow_infinity=False))
def test_log1p_of_any_number_above_minus_one(x: float) -> None:
    assert ulps(scalar.log1p(x), exact("log1p", x)) <= 1.0


@given(st.floats(-746, 710), st.sampled_from(["exp", "expm1", "exp2"]))
def test_exponentials_of_any_number_in_range(x: float, name: str) -> None:
    assert ulps(getattr(scalar, name)(x), exact(name, x)) <= 1.0


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("log", 1.0, 0.0),
        ("log", 2.0, scalar.LN2),
        ("log", 0.0, -INF),
        ("log", -0.0, -INF),
        ("log", INF, INF),
        ("log", -SMALLEST, NAN),
        ("log", -1.0, NAN),
        ("log", -INF, NAN),
        ("log", NAN, NAN),
        ("log1p", 0.0, 0.0),
        ("log1p", -0.0, -0.0),
        ("log1p", SMALLEST, SMALLEST),
        ("log1p", -SMALLEST, -SMALLEST),
        ("log1p", 1.0, scalar.LN2),
        ("log1p", -1.0, -INF),
        ("log1p", math.nextafter(-1.0, -2.0), NAN),
        ("log1p", INF, INF),
        ("log1p", -INF, NAN),
        ("log1p", NAN, NAN),
        ("exp", 0.0, 1.0),
        ("exp", -0.0, 1.0),
        ("exp", 1.0, math.e),
        ("exp", 709.782712893384, 1.7976931348622732e308),
        ("exp", 709.7827128933841, INF),
        ("exp", -745.1332191019411, SMALLEST),
        ("exp", -745.1332191019412, 0.0),
        ("exp", LARGEST, INF),
        ("exp", -LARGEST, 0.0),
        ("exp", INF, INF),
        ("exp", -INF, 0.0),
        ("exp", NAN, NAN),
        ("expm1", 0.0, 0.0),
        ("expm1", -0.0, -0.0),
        ("expm1", SMALLEST, SMALLEST),
        ("expm1", -SMALLEST, -SMALLEST),
        ("expm1", 709.782712893384, 1.7976931348622732e308),
        ("expm1", 709.7827128933841, INF),
        ("expm1", -38.0, -1.0),
        ("expm1", -LARGEST, -1.0),
        ("expm1", INF, INF),
        ("expm1", -INF, -1.0),
        ("expm1", NAN, NAN),
        ("exp2", 0.0, 1.0),
        ("exp2", 1024.0, INF),
        ("exp2", -1075.0, 0.0),
        ("exp2", math.nextafter(-1075.0, 0.0), SMALLEST),
        ("exp2", LARGEST, INF),
        ("exp2", -LARGEST, 0.0),
        ("exp2", INF, INF),
        ("exp2", -INF, 0.0),
        ("exp2", NAN, NAN),
        ("norm_cdf", 0.0, 0.5),
        ("norm_cdf", -0.0, 0.5),
        ("norm_cdf", 9.0, 1.0),
        ("norm_cdf", -40.0, 0.0),
        ("norm_cdf", INF, 1.0),
        ("norm_cdf", -INF, 0.0),
        ("norm_cdf", NAN, NAN),
        ("sign", 3.5, 1.0),
        ("sign", SMALLEST, 1.0),
        ("sign", -SMALLEST, -1.0),
        ("sign", INF, 1.0),
        ("sign", -INF, -1.0),
        ("sign", 0.0, 0.0),
        ("sign", -0.0, 0.0),
        ("sign", NAN, NAN),
        ("isfinite", LARGEST, True),
        ("isfinite", -SMALLEST, True),
        ("isfinite", INF, False),
        ("isfinite", -INF, False),
        ("isfinite", NAN, False),
    ],
)
def test_special_values(name: str, x: float, want: float) -> None:
    got = getattr(scalar, name)(x)
    assert type(got) is type(want)
    assert bits(got) == bits(want), f"{name}({x!r}) = {got!r}, want {want!r}"


def test_exp2_of_whole_numbers_is_exact() -> None:
    assert [scalar.exp2(float(k)) for k in range(-1074, 1024)] == [
        math.ldexp(1.0, k) for k in range(-1074, 1024)
    ]


def test_constants_are_the_nearest_doubles() -> None:
    with PRECISION:
        assert float(mpmath.log(2)) == scalar.LN2
        assert float(1 / mpmath.log(2)) == scalar.LOG2_E
    assert (scalar.INF, bits(scalar.NAN)) == (INF, 0x7FF8000000000000)


def test_norm_cdf_is_right_to_1e_15_in_centre_and_lower_tail() -> None:
    for x in domain_samples("norm_cdf"):
        want = exact("norm_cdf", x)
        with PRECISION:
            assert abs(scalar.norm_cdf(x) - want) <= 1e-15 * want, x


def test_norm_cdf_agrees_with_scipy() -> None:
    xs = np.linspace(-37, 8, 2001)
    np.testing.assert_allclose([scalar.norm_cdf(x) for x in xs], ndtr(xs), rtol=1e-12, atol=0)


@given(st.floats(-40, 40))
def test_norm_cdf_of_both_signs_adds_up_to_one(x: float) -> None:
    assert scalar.norm_cdf(x) + scalar.norm_cdf(-x) == 1.0


@pytest.mark.parametrize("name", ELEMENTARY)
def test_never_decreases_where_the_method_changes(name: str) -> None:
    function = getattr(scalar, name)
    for seam in HARD[name]:
        values = [function(x) for x in sorted(neighbours(seam, 200)) if inside(name, x)]
        assert values == sorted(values), f"{name} near {seam!r}"


@pytest.fixture(scope="module")
def interpreted() -> ModuleType:
    """The same source file with numba switched off: every statement is run by Python."""
    spec = importlib.util.spec_from_file_location("scalar_interpreted", scalar.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        spec.loader.exec_module(module)
    return module


def in_a_loop(function: Any, xs: np.ndarray) -> np.ndarray:
    """One compiled loop over an array, which the compiler is free to vectorise."""

    @numba.njit
    def loop(xs: np.ndarray) -> np.ndarray:
        out = np.empty_like(xs)
        for i in range(len(xs)):
            out[i] = function(xs[i])
        return out

    return loop(xs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_interpreted_compiled_and_vectorised_give_the_same_bits(
    name: str, interpreted: ModuleType
) -> None:
    rng = np.random.default_rng(7)
    patterns = rng.integers(0, 1 << 64, 2000, dtype=np.uint64).view(np.float64)
    special = [0.0, -0.0, INF, -INF, NAN, SMALLEST, -SMALLEST, -1.0, 1.0, LARGEST, SMALLEST_NORMAL]
    scales = np.ldexp(rng.uniform(-2, 2, 2000), rng.integers(-30, 11, 2000))
    xs = np.concatenate([patterns, special, scales])
    plain, compiled = getattr(interpreted, name), getattr(scalar, name)
    assert not hasattr(plain, "py_func")
    by_python = [bits(plain(x)) for x in xs.tolist()]
    assert [bits(compiled(x)) for x in xs.tolist()] == by_python
    assert in_a_loop(compiled, xs).view(np.uint64).tolist() == by_python


def test_compiled_functions_of_other_modules_may_call_them() -> None:
    @numba.njit
    def relative_log(high: float, low: float) -> float:
        return scalar.log1p((high - low) / low)

    assert relative_log(101.0, 100.0) == scalar.log1p(0.01)


def test_importing_compiles_nothing() -> None:
    names = ", ".join(f"scalar.{name}" for name in FUNCTIONS)
    check = f"from gpukern import scalar; print(sum(len(f.signatures) for f in ({names})))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("0", "")
