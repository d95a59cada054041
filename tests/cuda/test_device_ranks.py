"""Windows in order on a device: values come, go and change places, one warp to a window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import samples
from device_checks import check_stream, plans
from test_device_plans import one_symbol

import gpukern as gk
from gpukern.forms.cuda_rank import SEARCHED


def with_price(price: np.ndarray) -> pa.Table:
    """Rows with these prices, NaN for null."""
    table = one_symbol(len(price))
    column = pa.array(price, mask=np.isnan(price))
    return table.set_column(table.schema.get_field_index("price"), "price", column)


def walk(rows: int, *, levels: int, missing: float) -> np.ndarray:
    """A walk on so few levels that windows hold the same value often, with gaps."""
    random = np.random.default_rng(8)
    price = 100.0 + random.integers(0, levels, rows) / 4
    price[random.random(rows) < missing] = np.nan
    return price


def check(expression: Any, price: np.ndarray, cuts: list[int]) -> None:
    for plan in plans([expression]):
        check_stream(plan, with_price(price), "cudasim", cuts)


@pytest.mark.parametrize("window", [1, 2, SEARCHED - 1, SEARCHED, SEARCHED + 1])
def test_windows_in_rows(window: int) -> None:
    price = walk(2 * SEARCHED + 40, levels=9, missing=0.1)
    check(gk.rolling_median("price", window=window, min_periods=1), price, [3, SEARCHED + 9])


@pytest.mark.parametrize("window", ["1ns", "3s", "100s", "1h"])
def test_windows_in_time(window: str) -> None:
    price = walk(2 * SEARCHED + 40, levels=9, missing=0.1)
    check(gk.rolling_median("price", window=window, min_periods=1), price, [3, SEARCHED + 9])


@pytest.mark.parametrize("window", [5, SEARCHED + 5, "60s"])
def test_the_row_itself_may_be_left_out(window: Any) -> None:
    expression = gk.outlier_flag_mad("price", window=window, min_periods=2)
    check(expression, walk(2 * SEARCHED, levels=40, missing=0.05), [40, 41])


@pytest.mark.parametrize("rows", ["rising", "falling", "equal", "missing", "extreme"])
@pytest.mark.parametrize("window", [7, "9s"])
def test_values_that_all_move_one_way(rows: str, window: Any) -> None:
    n = 90
    price = {
        "rising": np.arange(1.0, n + 1),
        "falling": np.arange(n, 0.0, -1),
        "equal": np.full(n, 5.0),
        "missing": np.full(n, np.nan),
        "extreme": np.tile([1.7e308, -1.7e308, 5e-324, -0.0, 0.0], n // 5),
    }[rows]
    check(gk.rolling_quantile("price", q=0.9, window=window, min_periods=1), price, [30, 31])


def test_one_row_at_a_time(undivided: Any) -> None:
    price = walk(60, levels=9, missing=0.2)
    for plan in plans([gk.rolling_median("price", window=n, min_periods=1) for n in (4, "5s")]):
        table = with_price(price).select(plan.input_columns)
        job = plan.start(device="cudasim")
        made = [job.push(table.slice(at, 1)) for at in range(table.num_rows)]
        samples.assert_same(pa.concat_tables(made), plan.run(table), plan.output_names)
