"""Expressions and plans: names, wiring, shared work, parameters of rows and durations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk


def values(expr: gk.Expr, **columns: list[float | None]) -> list[float | None]:
    rows = len(next(iter(columns.values())))
    plan = gk.Plan([expr.alias("out")], by=None)
    return plan.run(pa.table({"ts": range(rows), **columns}))["out"].to_pylist()


# --------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("expr", "name"),
    [
        (lambda: gk.rolling_std("log_return", window=20), "log_return_std20"),
        (lambda: gk.rolling_mean("price", window="60s"), "price_mean60s"),
        (lambda: gk.lag("price"), "price_lag1"),
        (lambda: gk.lag("price", k="5s"), "price_lag5s"),
        (lambda: gk.diff("price", k=3), "price_diff3"),
        (lambda: gk.rolling_quantile("price", window=20, q=0.95), "price_q95_20"),
        (lambda: gk.rolling_quantile("price", window=20, q=0.999), "price_q99.9_20"),
        (lambda: gk.rolling_kurt(gk.log_returns("price")), "log_return_kurt20"),
        (lambda: gk.autocorr("x", lag=5), "x_autocorr5"),
        (lambda: gk.cum_max("x"), "x_cummax"),
        (lambda: gk.ewma("price"), "ewma"),
        (lambda: gk.ewma("price", output="smooth"), "smooth"),
        (lambda: gk.ewma("price").alias("smooth"), "smooth"),
        (lambda: gk.macd("price")["macd_hist"], "macd_hist"),
        (lambda: gk.macd("price").alias("a", "b", "c")["macd_hist"], "c"),
        (lambda: gk.macd("price").alias("a", "b", "c")["b"], "b"),
        (lambda: gk.rolling_mean("x", window={"a": 2, "b": 3}), "x_mean_per_symbol"),
    ],
)
def test_outputs_have_the_names_of_the_specification(expr: object, name: str) -> None:
    assert expr().outputs == (name,)  # type: ignore[operator]


def test_windows_may_be_given_by_position() -> None:
    assert gk.rolling_std("log_return", 20).outputs == ("log_return_std20",)
    assert gk.rolling_mean("price", "60s").outputs == ("price_mean60s",)


def test_inputs_by_position_by_name_and_by_mapping_are_the_same() -> None:
    columns = {"p": [1.0, 2.0], "size": [1.0, 3.0]}
    expected = values(gk.vwap("p", "size", anchor=None), **columns)
    assert expected == [1.0, 1.75]
    for expr in (
        gk.vwap(price="p", volume="size", anchor=None),
        gk.vwap("p", volume="size", anchor=None),
        gk.vwap(inputs={"price": "p", "volume": "size"}, anchor=None),
        gk.vwap(gk.col("p"), "size", anchor=None),
    ):
        assert values(expr, **columns) == expected


def test_inputs_that_are_not_named_are_columns_of_that_name() -> None:
    assert gk.Plan([gk.quoted_spread()], by=None, time=None).input_columns == ["bid", "ask"]


def test_input_columns_are_key_time_and_values() -> None:
    plan = gk.Plan([gk.vwap("price", "size"), gk.ewma("price")])
    assert plan.input_columns == ["symbol", "ts", "price", "size"]
    assert plan.output_names == ["vwap", "ewma"]


def test_an_expression_shows_what_it_is() -> None:
    text = repr(gk.rolling_mean(gk.log_returns("price"), window=5))
    assert "rolling_mean" in text
    assert "window=5" in text
    assert "log_return_mean5" in text


# --------------------------------------------------------------------------------- composition


def test_an_expression_may_feed_another() -> None:
    got = values(gk.cum_sum(gk.diff("x")), x=[1.0, 4.0, None, 2.0])
    assert got == [None, 3.0, None, 1.0]


def test_an_intermediate_null_does_not_exist_for_the_next_kernel() -> None:
    got = values(gk.rolling_sum(gk.diff("x"), window=2), x=[1.0, 2.0, None, 4.0, 8.0])
    assert got == [None, None, None, 3.0, 6.0]


def test_one_output_of_several_may_feed_another() -> None:
    x = list(np.random.default_rng(1).normal(100.0, 1.0, 80))
    line = values(gk.macd("x")["macd"], x=x)
    assert values(gk.cum_max(gk.macd("x")["macd"]), x=x) == values(gk.cum_max("line"), line=line)


def test_flags_and_categories_feed_others_as_numbers() -> None:
    got = values(gk.cum_sum(gk.trade_sign("p", method="tick")), p=[1.0, 2.0, 2.0, 1.5, 1.0])
    assert got == [None, 1.0, 2.0, 1.0, 0.0]


def test_equal_sub_expressions_are_computed_once() -> None:
    returns = [gk.log_returns("price") for _ in range(4)]
    plan = gk.Plan(
        [
            returns[0],
            gk.rolling_std(returns[1], window=20),
            gk.rolling_std(returns[2], window=20).alias("again"),
            gk.ewma(returns[3].alias("renamed"), alpha=0.1),
            gk.rolling_std(returns[0], window=21),
        ]
    )
    assert len(plan.steps) == 4
    table = samples.clean(60).select(["symbol", "ts", "price"])
    out = plan.run(table)
    assert out.column("again").equals(out.column("log_return_std20"))


def test_outputs_of_one_kernel_are_computed_once() -> None:
    macd = gk.macd("price")
    alone, split = gk.Plan([macd]), gk.Plan([macd["macd_hist"], gk.macd("price")["macd"]])
    assert len(split.steps) == len(alone.steps)
    assert split.output_names == ["macd_hist", "macd"]


def test_var_and_cvar_share_their_window() -> None:
    both = gk.Plan([gk.historical_var("pnl"), gk.historical_cvar("pnl")])
    assert len(both.steps) == len(gk.Plan([gk.historical_cvar("pnl")]).steps)


def test_different_parameters_are_different_steps() -> None:
    plan = gk.Plan([gk.ewma("price", alpha=a).alias(f"e{a}") for a in (0.1, 0.2)])
    assert len(plan.steps) == 2


# The table of the 48 columns.
DEFAULTS = [
    "log_return", "log_return_lag1", "price_diff1", "ewma", "ema", "zscore", "kalman_filtered",
    "midprice", "microprice", "quoted_spread", "quoted_spread_bps", "l1_imbalance", "ofi",
    "vpin", "signed_volume", "effective_spread", "realized_var", "bipower_var", "medrv",
    "riskmetrics_vol", "log_return_std20", "log_return_skew20", "log_return_kurt20",
    "log_return_autocorr5", "macd", "macd_signal", "macd_hist", "rsi", "bb_mid", "bb_upper",
    "bb_lower", "donchian_high", "donchian_low", "donchian_mid", "mean", "variance", "stddev",
    "pnl", "drawdown", "kyle_lambda", "amihud_illiquidity", "roll_spread", "vwap", "cusum_stat",
    "cusum_alarm", "var", "cvar", "outlier_flag",
]  # fmt: skip


def test_default_features_are_those_of_the_specification() -> None:
    assert len(DEFAULTS) == 48
    assert gk.Plan(gk.default_features()).output_names == DEFAULTS


def test_default_features_of_quote_only_rows_are_those_of_the_quotes() -> None:
    data = samples.columns(1500, seed=61)
    trades = np.arange(1500) % 3 == 0
    holes = dict.fromkeys(("price", "size", "side"), ~trades)
    columns = ["symbol", "ts", "price", "size", "side", "bid", "ask", "bid_size", "ask_size"]
    table = samples.table({"a": data}, holes={"a": holes}).select(columns)
    plan = gk.Plan(gk.default_features())
    out = plan.run(table)
    on_quotes = {"midprice", "microprice", "quoted_spread", "quoted_spread_bps", "l1_imbalance",
                 "ofi"}  # fmt: skip
    for name in plan.output_names:
        valid = np.asarray(out.column(name).combine_chunks().is_valid())
        if name in on_quotes:
            assert valid[1:].all(), name
        else:
            assert not valid[~trades].any(), name
    # Per row, what trades see is what they see without the quotes between them.
    alone = plan.run(table.filter(pa.array(trades)))
    names = [n for n in plan.output_names if n not in on_quotes]
    samples.assert_same(out.filter(pa.array(trades)), alone, names)
    assert out.column("vpin").null_count == 1500  # the bucket is calibrated on 1,000 trades


# ------------------------------------------------------------------------------------ policies


def test_propagated_nan_is_a_value_and_null_is_warm_up() -> None:
    table = pa.table({"x": [1.0, 2.0, None, 4.0, 5.0, 6.0]})
    plan = gk.Plan([gk.rolling_sum("x", window=2)], by=None, time=None, nan_policy="propagate")
    out = plan.run(table)["x_sum2"].to_pylist()
    assert out[0] is None
    assert out[1] == 3.0
    assert np.isnan(out[2])
    assert np.isnan(out[3])
    assert out[4:] == [9.0, 11.0]


def test_a_recurrence_stays_nan_under_propagate() -> None:
    table = pa.table({"x": [1.0, 2.0, None, 4.0, 5.0]})
    plan = gk.Plan([gk.ewma("x"), gk.cum_sum("x")], by=None, time=None, nan_policy="propagate")
    out = plan.run(table)
    for name in plan.output_names:
        column = out[name].to_pylist()
        assert not np.isnan(column[1])
        assert np.isnan(column[2:]).all()


def test_comparisons_with_nan_are_null_under_propagate() -> None:
    table = pa.table({"x": [1.0, 2.0, 1.0, 2.0, 1.0, None, 1.0]})
    plan = gk.Plan([gk.outlier_flag_mad("x", window=3)], by=None, time=None, nan_policy="propagate")
    flags = plan.run(table)["outlier_flag"].to_pylist()
    assert flags[:3] == [None, None, None]
    assert flags[3:5] == [False, False]
    assert flags[5] is None


def test_a_result_that_is_not_finite_is_null() -> None:
    assert values(gk.cum_sum("x"), x=[1.7e308, 1.7e308]) == [1.7e308, None]
    assert values(gk.diff("x"), x=[-1.7e308, 1.7e308, 0.0]) == [None, None, -1.7e308]


@pytest.mark.parametrize("policy", ["skip", "propagate"])
def test_values_outside_the_domain_are_missing_under_both_policies(policy: str) -> None:
    gone = None if policy == "skip" else "nan"
    table = pa.table({"bid_size": [0.0, 1.0, -1.0, 1.0], "ask_size": [1.0, 0.0, 1.0, 3.0],
                      "price": [1.0, 0.0, 2.0, -1.0]})  # fmt: skip
    plan = gk.Plan([gk.l1_imbalance(), gk.pct_returns("price")], by=None, time=None,
                   nan_policy=policy)  # fmt: skip
    out = {
        name: ["nan" if v is not None and np.isnan(v) else v for v in column]
        for name, column in plan.run(table).select(plan.output_names).to_pydict().items()
    }
    assert out["l1_imbalance"] == [-1.0, 1.0, gone, -0.5]  # zero is a size
    # A price of zero is none: skipped, the next return is over the row before it.
    expected = [None, None, 1.0, None] if policy == "skip" else [None, "nan", "nan", "nan"]
    assert out["pct_return"] == expected
