"""Short cuts of the engine give what the ordinary way gives: rows as they came, blocks abreast."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

import gpukern as gk
from gpukern import job as job_module

BAD = [None, math.nan, math.inf, -math.inf, 0.0, -1.0]


def quotes(rows: int) -> pa.Table:
    """Quotes of two symbols, interleaved, with missing values of every kind."""
    rng = np.random.default_rng(11)
    bid = list(67000.0 + rng.normal(size=rows).cumsum())
    for n, value in enumerate(BAD):
        bid[5 * n + 2] = value
    return pa.table(
        {
            "symbol": ["BTC/USD", "ETH/USD"] * (rows // 2) + ["BTC/USD"] * (rows % 2),
            "ts": range(rows),
            "bid": bid,
            "ask": pa.array([None if b is None else b + 0.25 for b in bid]),
            "side": rng.choice([-1.0, 0.0, 1.0], rows),
            "size": rng.random(rows),
        }
    )


# ------------------------------------------------------------------- maps of the current row


@pytest.mark.parametrize("rows", [31, 1024, 1025, 2500])
def test_a_map_of_the_row_is_null_where_an_input_is_missing(rows: int) -> None:
    table = quotes(rows)
    out = gk.Plan([gk.midprice("bid", "ask")], time=None).run(table)["midprice"]
    bids = table["bid"].to_pylist()
    expected = [b + 0.125 if b is not None and 0.0 < b < math.inf else None for b in bids]
    assert out.to_pylist() == expected
    assert out.null_count == len(BAD)


def test_a_map_of_the_row_is_null_where_its_value_is_not_finite() -> None:
    table = pa.table({"bid_size": [0.0, 1.0, 0.0], "ask_size": [0.0, 3.0, 2.0]})
    out = gk.Plan([gk.l1_imbalance()], by=None, time=None).run(table)
    assert out["l1_imbalance"].to_pylist() == [None, -0.5, -1.0]


def test_an_optional_input_that_is_not_given_is_not_missing() -> None:
    table = pa.table({"exec_price": [101.0, 99.0], "midprice": [100.0, 100.0]})
    out = gk.Plan([gk.effective_spread("exec_price", "midprice")], by=None, time=None).run(table)
    assert out["effective_spread"].to_pylist() == [2.0, 2.0]


def test_a_map_of_the_row_reads_results_of_other_steps() -> None:
    table = quotes(100)
    mid = gk.midprice("bid", "ask")
    before = gk.lag(mid, k=1).alias("before")
    out = gk.Plan([mid, before, gk.quoted_spread(before, mid).alias("rise", "rise_bps")]).run(table)
    mids, olds = out["midprice"].to_numpy(), out["before"].to_numpy()
    expected = np.where(np.isnan(mids + olds), np.nan, mids - olds)
    np.testing.assert_array_equal(out["rise"].to_numpy(), expected)


def test_threads_share_the_rows_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "SHARE", 0)
    table, plan = quotes(40_001), gk.Plan([gk.quoted_spread("bid", "ask")])
    shared, alone = (plan.run(table, threads=n).select(plan.output_names) for n in (3, 1))
    assert shared.equals(alone)


def test_keys_are_checked_where_no_symbol_is_needed() -> None:
    table = pa.table({"symbol": ["A", None], "bid": [1.0, 2.0], "ask": [2.0, 3.0]})
    with pytest.raises(gk.PlanError, match="key column 'symbol' has 1 null"):
        gk.Plan([gk.midprice("bid", "ask")], time=None).run(table)
