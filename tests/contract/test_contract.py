"""Every registered kernel keeps the engine's promises: a loop over the registry."""

from __future__ import annotations

from functools import cache

import checks
import numpy as np
import pyarrow as pa
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from gpukern import Plan, kernel

KERNELS = kernel.kernels()
MARKET = samples.market()
ROWS = MARKET.num_rows
CUTS = st.lists(st.integers(0, ROWS), max_size=10)

# Each example is a whole table, so a few of them say much.
quick = settings(max_examples=5)
each_kernel = pytest.mark.parametrize("name", KERNELS)


@cache
def subject(name: str) -> checks.Subject:
    return checks.Subject(KERNELS[name])


@each_kernel
def test_describes_itself(name: str) -> None:
    checks.check_description(KERNELS[name])


@each_kernel
@given(cuts=CUTS)
@quick
def test_any_cut_gives_the_bits_of_the_batch(name: str, cuts: list[int]) -> None:
    checks.check_cuts(subject(name), MARKET, cuts)


@each_kernel
@given(seed=st.integers(0, 2**32 - 1))
@quick
def test_mixed_symbols_equal_each_alone(name: str, seed: int) -> None:
    checks.check_interleaving(subject(name), seed)


@each_kernel
@given(row=st.integers(0, ROWS))
@quick
def test_no_row_depends_on_a_later_one(name: str, row: int) -> None:
    checks.check_causality(subject(name), MARKET, row)


@each_kernel
@given(at=st.integers(0, ROWS), cuts=CUTS)
@quick
def test_a_restart_continues_with_the_same_bits(name: str, at: int, cuts: list[int]) -> None:
    checks.check_snapshot(subject(name), MARKET, at, cuts)


@each_kernel
def test_plain_python_gives_the_bits_of_the_compiled_loop(name: str) -> None:
    checks.check_plain_python(subject(name), MARKET)


@each_kernel
def test_a_mapping_gives_each_symbol_its_own_value(name: str) -> None:
    checks.check_mapping(KERNELS[name], MARKET)


@each_kernel
def test_rows_with_missing_input_are_null(name: str) -> None:
    checks.check_missing_rows_are_null(subject(name), MARKET)


@each_kernel
@given(seed=st.integers(0, 2**32 - 1))
@quick
def test_rows_with_missing_input_change_no_other_row(name: str, seed: int) -> None:
    checks.check_skip(subject(name), seed)


@each_kernel
def test_a_propagated_nan_is_forgotten_when_it_leaves_the_window(name: str) -> None:
    checks.check_recovery(subject(name))


@each_kernel
def test_warm_up_ends_at_the_declared_row(name: str) -> None:
    checks.check_warm_up(subject(name))


@each_kernel
def test_a_bad_print_leaves_no_trace(name: str) -> None:
    checks.check_bad_print(subject(name))


@each_kernel
def test_results_scale_with_the_price(name: str) -> None:
    checks.check_scale(subject(name))


def test_building_blocks_are_tested_through_the_kernels_made_of_them() -> None:
    used = {step.kernel.name for name in KERNELS for step in subject(name).plan.steps}
    hidden = set(kernel.kernels(hidden=True)) - set(KERNELS)
    assert sorted(hidden - used) == []


@pytest.mark.parametrize("symbols", [1, 3, 700])
def test_thread_count_changes_no_bit(symbols: int) -> None:
    rows = 70_000  # so many that the engine shares out the rows of one symbol, too
    data, nulls = samples.punch(samples.columns(rows, seed=2), share=0.03, seed=3)
    table = samples.table({"all": data}, holes={"all": nulls})
    keys = np.random.default_rng(1).integers(0, symbols, rows)
    exprs = [
        case.expr.alias(*(f"{name}: {n}" for n in case.names))
        for name in KERNELS
        for case in subject(name).cases
    ]
    for policy in ("skip", "propagate"):
        plan = Plan(exprs, nan_policy=policy)
        keyed = table.set_column(0, "symbol", pa.array(keys)).select(plan.input_columns)
        one = plan.run(keyed, threads=1)
        for threads in (2, 4):
            samples.assert_same(plan.run(keyed, threads=threads), one, plan.output_names)
