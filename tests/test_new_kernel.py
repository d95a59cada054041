"""A kernel is one class in one place: kernels of a user, one of each form, keep the contract.

Nothing but the classes below is needed: no other file names them.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import checks
import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import kernel

MARKET = samples.market()

KERNELS = '''
"""Kernels of a user, in a module of their own."""

import numpy as np

from gpukern import scalar
from gpukern.kernel import (
    NAN, NULL, composite, fold, integer, map_, min_periods, number, rank, step, window,
)
import gpukern as gk


@map_("bid>0, ask>0", out="log_spread", units="1", scale=0, source="this test")
class user_log_spread:
    """Log of ask over bid."""

    def value(bid, ask):
        return scalar.log1p((ask - bid) / bid)


@map_("price>0", out="tick_up:b, tick_move", first="2", units=", price", scale=(0, 1),
      source="this test")
class user_tick:
    """Whether the price rose since the row before, and by how much."""

    def value(price, prev_price):
        move = price - prev_price
        return (NULL if move != move else int(move > 0.0)), move


@fold("price>0, volume>=0", out="turnover_ratio", params=[window(20, optional=True), min_periods()],
      first="window or 1", units="1", scale=0, source="this test")
class user_turnover_ratio:
    """Share of the volume that traded above the window's (or the first row's) centre price."""

    acc = "up all"
    base = "total_up total_all"

    def lift(dprice, volume):
        return volume if dprice > 0.0 else 0.0, volume

    def value(up, all):
        return up / all if all > 0.0 else NAN

    def absorb(total_up, total_all, up, all):
        return total_up + up, total_all + all

    def total(total_up, total_all):
        return total_up / total_all if total_all > 0.0 else NAN


@fold("price>0", out="path", params=[window(20), min_periods()], first="window + 1",
      units="price", scale=1, source="this test")
class user_path:
    """Sum of the absolute price changes in the window."""

    series = "step"
    acc = "length"

    def inner(price, prev_price):
        return abs(price - prev_price)

    def lift(step):
        return step

    def value(length):
        return length


@step("price>0", out="streak:i64, direction:i8", params=[integer("cap", 5, low=1)], first="2",
      units="rows, sign", scale=0, source="this test")
class user_streak:
    """Number of consecutive rises (or falls), and which."""

    state = "count way"

    def init():
        return 0.0, 0.0

    def step(count, way, price, prev_price, cap):
        if price != price or prev_price != prev_price:
            return (NAN, NAN), (NULL, NULL)
        move = scalar.sign(price - prev_price)
        count = min(count + 1.0, float(cap)) if move == way else 1.0
        if not count == count:
            return (NAN, NAN), (NULL, NULL)
        return (count, move), (int(count), int(move))


@step("x", out="ring_median", params=[integer("span", 5, low=1)], ring="span", first="1",
      units="x", scale=1, source="this test")
class user_ring_median:
    """Middle value of the last rows, the upper one of two: its step makes an array."""

    state = "seen"

    def init():
        return (0.0,)

    def step(seen, x, ring, k, span):
        if x != x:
            return (seen,), NULL
        ring[k % span] = x
        held = np.sort(ring[: min(k + 1, span)])
        return (seen + 1.0,), held[len(held) // 2]


@rank("x", out="midrange", params=[window(20), min_periods()], first="window", units="x", scale=1,
      source="this test")
class user_midrange:
    """Middle between the smallest and the largest value of the window."""

    def value(s, n):
        return s[0] + 0.5 * (s[n - 1] - s[0])


@rank("x", out="lowest, as_low", params=[window(20), min_periods()], first="window", units="x, 1",
      scale=(1, 0), source="this test")
class user_floor:
    """Lowest value of the window, and how many are as low."""

    def reach(n):
        return 1

    def value(s, n, reach, within):
        return s[0], float(within)


@composite("x", out="{x}_bent", params=[integer("span", 4, low=2), number("weight", 0.5)],
           first="span + 1", units="x", scale=1, source="this test")
class user_bent:
    """Mean of the changes, weighted."""

    def build(x, span):
        return gk.rolling_mean(gk.diff(x), window=span)
'''
NAMES = ["user_bent", "user_floor", "user_log_spread", "user_midrange", "user_path",
         "user_ring_median", "user_streak", "user_tick", "user_turnover_ratio"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Loads the user's module, as an import would, and forgets its kernels afterwards."""
    path: Path = tmp_path_factory.mktemp("user") / "user_kernels.py"
    path.write_text(KERNELS)
    spec = importlib.util.spec_from_file_location("user_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_kernels"] = module
    spec.loader.exec_module(module)
    yield
    for name in NAMES:
        kernel.unregister(name)
    del sys.modules["user_kernels"]
    assert not set(NAMES) & set(gk.kernels())


@pytest.fixture(params=NAMES)
def subject(request: pytest.FixtureRequest) -> checks.Subject:
    return checks.Subject(gk.kernels()[request.param])


def test_the_kernels_are_in_the_catalogue_and_in_the_namespace() -> None:
    assert set(NAMES) <= set(gk.kernels())
    assert set(NAMES) <= set(dir(gk))
    assert gk.user_path("price").outputs == ("path",)
    assert gk.user_bent("price").outputs == ("price_bent",)


def test_they_keep_the_contract(subject: checks.Subject) -> None:
    checks.check_description(subject.kernel)
    checks.check_cuts(subject, MARKET, [3, 3, 200, 900, 901])
    checks.check_interleaving(subject, seed=5)
    checks.check_causality(subject, MARKET, 777)
    checks.check_snapshot(subject, MARKET, 600, [10, 400])
    checks.check_plain_python(subject, MARKET)
    checks.check_mapping(subject.kernel, MARKET)
    checks.check_missing_rows_are_null(subject, MARKET)
    checks.check_skip(subject, seed=6)
    checks.check_recovery(subject)
    checks.check_warm_up(subject)
    checks.check_bad_print(subject)
    checks.check_scale(subject)


def test_they_give_what_they_say() -> None:
    table = pa.table({"price": [1.0, 2.0, 4.0, 3.0, 3.0, 1.0], "volume": [1.0] * 6})
    plan = gk.Plan(
        [
            gk.user_path("price", window=2),
            gk.user_streak("price"),
            gk.user_midrange("price", window=3),
            gk.user_floor("price", window=5),
            gk.user_bent("price", span=2),
            gk.user_tick("price"),
            gk.user_turnover_ratio(window=None),
        ],
        by=None,
        time=None,
    )
    out = plan.run(table).to_pydict()
    assert out["path"] == [None, None, 3.0, 3.0, 1.0, 2.0]
    assert out["streak"] == [None, 1, 2, 1, 1, 1]
    assert out["direction"] == [None, 1, 1, -1, 0, -1]
    assert out["midrange"] == [None, None, 2.5, 3.0, 3.5, 2.0]
    assert out["lowest"] == [None, None, None, None, 1.0, 1.0]
    assert out["as_low"] == [None, None, None, None, 1.0, 1.0]
    assert out["price_bent"] == [None, None, 1.5, 0.5, -0.5, -1.0]
    assert out["tick_up"] == [None, True, True, False, False, False]
    assert out["turnover_ratio"][-1] == pytest.approx(4 / 6)


def test_a_fold_serves_windows_of_rows_of_time_and_all_rows() -> None:
    table = samples.clean(100)
    for window in (7, "20s", None):
        expr = gk.user_turnover_ratio(window=window)
        plan = gk.Plan([expr])
        out = plan.run(table)["turnover_ratio"].drop_null().to_numpy()
        assert len(out)
        assert np.isfinite(out).all()
        assert (out >= 0.0).all()
        assert (out <= 1.0).all()


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(gk.PlanError, match="ewma is already registered by exponential"):

        @kernel.map_("x", out="y")
        class ewma:
            """Not the one."""

            def value(x: float) -> float:
                return x

    assert gk.kernels()["ewma"].family == "exponential"


def test_all_outputs_count_unless_the_kernel_says_which() -> None:
    assert gk.kernels()["user_floor"].counting == ("lowest", "as_low")
    assert gk.kernels()["user_midrange"].counting == ()

    class user_mistaken:
        """Counts nothing."""

        def value(s: np.ndarray, n: int) -> float:
            return s[n - 1]

    with pytest.raises(gk.PlanError, match=r"counting='heights': it has no output 'heights'"):
        kernel.rank("x", out="height", counting="heights")(user_mistaken)
    with pytest.raises(
        gk.PlanError, match=r"counting='height': value\(\) does not ask for 'within'"
    ):
        kernel.rank("x", out="height", counting="height")(user_mistaken)


def test_a_kernel_that_asks_for_what_is_not_there_is_told_so() -> None:
    @kernel.map_("x", out="y", source="this test")
    class user_mistaken:
        """Asks for an input that it did not declare."""

        def value(x: float, volume: float) -> float:
            return x * volume

    try:
        with pytest.raises(TypeError, match=r"user_mistaken\.value asks for 'volume'"):
            gk.Plan([gk.user_mistaken("x")])
    finally:
        kernel.unregister("user_mistaken")


def test_log_spread_uses_the_engine_s_own_logarithm() -> None:
    table = pa.table({"bid": [100.0, 0.0], "ask": [101.0, 1.0]})
    out = gk.Plan([gk.user_log_spread()], by=None, time=None).run(table)
    assert out["log_spread"].to_pylist() == [pytest.approx(math.log(1.01), rel=1e-15), None]
