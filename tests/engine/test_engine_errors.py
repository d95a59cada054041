"""Errors name the thing, the value and the remedy, and come before any row is processed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import kernel


@pytest.fixture
def table() -> pa.Table:
    return samples.clean(30).select(["symbol", "ts", "price", "size"])


def seconds(*values: int | None) -> pa.Array:
    stamps = [None if v is None else v * samples.SECOND for v in values]
    return pa.array(stamps, pa.timestamp("ns", "UTC"))


def rows(symbols: str, times: list[int | None], **columns: list[float | None]) -> pa.Table:
    return pa.table({"symbol": list(symbols), "ts": seconds(*times), **columns})


# --------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: gk.ewma("price", alpha=1.5), ["ewma", "alpha", "1.5"]),
        (lambda: gk.ewma("price", alpha=0.1, span=4), ["ewma", "alpha", "span"]),
        (lambda: gk.ewma("price", half_life="10 parsecs"), ["ewma", "half_life", "10 parsecs"]),
        (lambda: gk.rolling_mean("price", window=0), ["rolling_mean", "window", "0"]),
        (lambda: gk.rolling_mean("price", window=2.5), ["rolling_mean", "window", "2.5"]),
        (lambda: gk.rolling_mean("price", window="0s"), ["rolling_mean", "window", "0s"]),
        (lambda: gk.rolling_mean("price", window="tomorrow"), ["rolling_mean", "tomorrow"]),
        (lambda: gk.rolling_mean("price", window=True), ["rolling_mean", "window", "True"]),
        (lambda: gk.rolling_mean("price", window=None), ["rolling_mean", "window"]),
        (lambda: gk.rolling_mean("price", window={}), ["rolling_mean", "window"]),
        (lambda: gk.rolling_quantile("price", q=1.5), ["rolling_quantile", "q", "1.5"]),
        (lambda: gk.rolling_quantile("price", q=float("nan")), ["rolling_quantile", "q", "nan"]),
        (lambda: gk.trade_sign("price", method="guess"), ["trade_sign", "method", "guess", "tick"]),
        (lambda: gk.rolling_mean("price", windw=5), ["rolling_mean", "windw", "window"]),
        (lambda: gk.rolling_std("price", ddof=-1), ["rolling_std", "ddof", "-1"]),
        (lambda: gk.lag("price", k=-1), ["lag", "k", "-1"]),
        (lambda: gk.log_returns("price", k=0), ["log_returns", "k", "0"]),
        (lambda: gk.rolling_mean("price", "size"), ["rolling_mean", "window", "size"]),
        (lambda: gk.vwap("price", price="price"), ["vwap", "price", "twice"]),
        (lambda: gk.vwap("price", inputs={"volum": "size"}), ["vwap", "volum", "volume"]),
        (lambda: gk.rolling_mean(3.0), ["rolling_mean", "3.0"]),
        (lambda: gk.rolling_mean(gk.macd("price")), ["rolling_mean", "macd_signal", "select"]),
        (lambda: gk.macd("price")["nothing"], ["macd", "nothing", "macd_hist"]),
        (lambda: gk.macd("price").alias("one"), ["macd", "alias", "1", "3"]),
        (lambda: gk.vpin("size", "side"), ["vpin", "bucket_volume"]),
        (lambda: gk.effective_spread("price", "mid", signed=True), ["effective_spread", "side"]),
        (lambda: gk.trade_sign("price", method="lee_ready"), ["trade_sign", "bid"]),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_named_with_its_value(call: object, parts: list[str]) -> None:
    with pytest.raises(gk.PlanError) as error:
        call()  # type: ignore[operator]
    assert [p for p in parts if p not in str(error.value)] == []


@pytest.mark.parametrize(
    "expr",
    [
        lambda: gk.rolling_mean("price", window=5, min_periods=6),
        lambda: gk.rolling_std("price", window=1),
        lambda: gk.rolling_kurt("price", window=3),
        lambda: gk.rolling_mean("price", window={"BTC/USD": 5}, min_periods=6),
    ],
)
def test_a_window_too_short_for_its_statistic_is_refused(expr: object, table: pa.Table) -> None:
    with pytest.raises(gk.PlanError, match=r"window"):
        gk.Plan([expr()]).run(table)  # type: ignore[operator]


def test_a_mapping_names_the_symbol_it_lacks(table: pa.Table) -> None:
    plan = gk.Plan([gk.rolling_mean("price", window={"ETH/USD": 5})])
    with pytest.raises(gk.PlanError, match=r"rolling_mean: window .*'BTC/USD'.*'ETH/USD'"):
        plan.run(table)


@pytest.mark.parametrize("values", [(5, "5s"), (None, 5), ("5s", None)])
def test_a_mapping_of_rows_durations_and_none_is_refused(values: tuple[object, object]) -> None:
    mixed = dict(zip("ab", values, strict=True))
    with pytest.raises(gk.PlanError, match=r"vwap: window .* alike"):
        gk.vwap("price", "size", window=mixed)
    with pytest.raises(gk.PlanError, match="rolling_mean: window"):
        gk.rolling_mean("price", window=mixed)


def test_a_mapping_checks_each_value() -> None:
    with pytest.raises(gk.PlanError, match=r"ewma: alpha .* got 7"):
        gk.ewma("price", alpha={"a": 0.5, "b": 7})


# --------------------------------------------------------------------------------------- plans


def test_a_plan_takes_expressions_only() -> None:
    with pytest.raises(gk.PlanError, match="at least one"):
        gk.Plan([])
    with pytest.raises(gk.PlanError, match="'price'"):
        gk.Plan(["price"])  # type: ignore[list-item]
    with pytest.raises(gk.PlanError, match=r"nan_policy .*'ignore'"):
        gk.Plan([gk.log_returns("price")], nan_policy="ignore")


def test_duplicate_outputs_are_refused_with_both_owners() -> None:
    with pytest.raises(gk.PlanError, match=r"'ewma' is given twice.*alias"):
        gk.Plan([gk.ewma("price"), gk.ewma("size")])


def test_an_output_that_is_already_a_column_is_refused(table: pa.Table) -> None:
    plan = gk.Plan([gk.ewma("price").alias("size")])
    with pytest.raises(gk.PlanError, match=r"'size' is already a column.*alias"):
        plan.run(table)


def test_time_is_needed_where_a_duration_is_given() -> None:
    with pytest.raises(gk.PlanError, match="rolling_mean needs time"):
        gk.Plan([gk.rolling_mean("price", window="5s")], time=None)
    assert gk.Plan([gk.rolling_mean("price")], time=None, by=None).input_columns == ["price"]


@pytest.mark.parametrize("device", ["cuda", "tpu"])
def test_a_device_that_is_not_there_is_an_error(device: str, table: pa.Table) -> None:
    with pytest.raises(gk.Error, match=device):
        gk.Plan([gk.ewma("price")]).run(table, device=device)


# --------------------------------------------------------------------------------------- input


def test_an_unknown_column_is_named_with_those_there(table: pa.Table) -> None:
    with pytest.raises(gk.PlanError, match=r"'prise'.*price"):
        gk.Plan([gk.ewma("prise")]).run(table)
    with pytest.raises(gk.PlanError, match=r"'venue'"):
        gk.Plan([gk.ewma("price")], by="venue").run(table)


@pytest.mark.parametrize(
    "column",
    [pa.array(["1", "2"]), pa.array([[1.0], [2.0]]), seconds(1, 2)],
    ids=["string", "list", "timestamp"],
)
def test_a_column_of_the_wrong_type_is_named_with_it(column: pa.Array) -> None:
    table = rows("aa", [1, 2]).append_column("price", column)
    with pytest.raises(gk.PlanError) as error:
        gk.Plan([gk.ewma("price")]).run(table)
    assert "'price'" in str(error.value)
    assert str(column.type) in str(error.value)


@pytest.mark.parametrize("times", [[1.0, 2.0], ["1", "2"]])
def test_time_of_the_wrong_type_is_refused(times: list[object]) -> None:
    table = pa.table({"symbol": ["a", "a"], "ts": times, "price": [1.0, 2.0]})
    with pytest.raises(gk.PlanError, match=r"'ts'.*timestamp"):
        gk.Plan([gk.ewma("price")]).run(table)


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        ({"price": [1.0]}, "builtins.dict"),
        (pl.LazyFrame({"price": [1.0]}), "polars.lazyframe.frame.LazyFrame"),
        (pd.Series([1.0]), "Series"),
    ],
)
def test_something_that_is_no_table_is_refused(thing: object, kind: str) -> None:
    with pytest.raises(gk.PlanError, match=f"pyarrow.*got .*{kind}"):
        gk.Plan([gk.ewma("price")]).run(thing)


def test_null_symbols_are_refused() -> None:
    table = pa.table({"symbol": ["a", None], "ts": seconds(1, 2), "price": [1.0, 2.0]})
    with pytest.raises(gk.PlanError, match=r"'symbol' has 1 null"):
        gk.Plan([gk.ewma("price")]).run(table)


def test_null_symbols_inside_a_dictionary_are_refused() -> None:
    keys = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a", None]))
    table = pa.table({"symbol": keys, "ts": seconds(1, 2), "price": [1.0, 2.0]})
    with pytest.raises(gk.PlanError, match=r"'symbol' has 1 null"):
        gk.Plan([gk.ewma("price")]).run(table)


def test_a_column_that_is_there_twice_is_refused() -> None:
    table = pa.Table.from_arrays(
        [pa.array(["a"]), seconds(1), pa.array([1.0]), pa.array([2.0])],
        names=["symbol", "ts", "price", "price"],
    )
    with pytest.raises(gk.PlanError, match="'price' is 2 times"):
        gk.Plan([gk.ewma("price")]).run(table)


# ---------------------------------------------------------------------------------------- time


def test_time_going_backwards_is_an_error_that_says_where() -> None:
    table = rows("abab", [5, 9, 4, 9], price=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(gk.UnsortedError, match=r"'ts', row 2, symbol 'a'.*sort"):
        gk.Plan([gk.ewma("price")]).run(table)


def test_symbols_may_be_out_of_step_with_each_other() -> None:
    table = rows("abab", [5, 1, 6, 2], price=[1.0, 2.0, 3.0, 4.0])
    assert gk.Plan([gk.ewma("price")]).run(table).num_rows == 4


def test_a_missing_time_orders_nothing() -> None:
    table = rows("aaaa", [5, None, 6, 6], price=[1.0, 2.0, 3.0, 4.0])
    plan = gk.Plan([gk.rolling_sum("price", window="1h"), gk.cum_sum("price")])
    out = plan.run(table).to_pydict()
    # Without a time the row is missing where time is used, and there only.
    assert out["price_sum1h"] == [1.0, None, 4.0, 8.0]
    assert out["price_cumsum"] == [1.0, 3.0, 6.0, 10.0]
    with pytest.raises(gk.UnsortedError):
        plan.run(rows("aaa", [5, None, 4], price=[1.0, 2.0, 3.0]))


def test_a_failed_push_leaves_the_state_as_it_was() -> None:
    plan = gk.Plan([gk.cum_sum("price"), gk.rolling_mean("price", window={"a": 2, "b": 2})])
    job = plan.start()
    job.push(rows("ab", [5, 5], price=[1.0, 10.0]))
    before = job.snapshot()
    with pytest.raises(gk.UnsortedError):
        job.push(rows("aba", [6, 6, 4], price=[2.0, 20.0, 3.0]))
    assert job.snapshot() == before
    with pytest.raises(gk.PlanError):
        job.push(rows("ac", [6, 6], price=[2.0, 5.0]))  # no window for c
    assert job.snapshot() == before
    with pytest.raises(gk.PlanError):
        job.push(pa.table({"symbol": ["a"], "ts": seconds(7)}))
    assert job.snapshot() == before
    out = job.push(rows("ab", [6, 6], price=[2.0, 20.0])).to_pydict()
    assert out["price_cumsum"] == [3.0, 30.0]
    assert out["price_mean_per_symbol"] == [1.5, 15.0]


def test_time_must_not_go_back_across_batches_and_restarts() -> None:
    plan = gk.Plan([gk.ewma("price")])
    job = plan.start()
    job.push(rows("ab", [5, 1], price=[1.0, 2.0]))
    with pytest.raises(gk.UnsortedError, match=r"row 0, symbol 'a'"):
        job.push(rows("a", [4], price=[1.0]))
    resumed = plan.resume(job.snapshot())
    with pytest.raises(gk.UnsortedError, match=r"row 0, symbol 'a'"):
        resumed.push(rows("a", [4], price=[1.0]))
    resumed.push(rows("b", [4], price=[1.0]))


def test_the_catalogue_knows_no_kernel_of_that_name() -> None:
    with pytest.raises(AttributeError, match="ewmaa"):
        gk.ewmaa  # noqa: B018


def test_a_kernel_is_checked_when_it_is_declared() -> None:
    with pytest.raises(gk.PlanError, match="no docstring"):

        @kernel.map_("x", out="y")
        class nameless:
            def value(x: float) -> float:
                return x

    with pytest.raises(gk.PlanError, match="valeu"):

        @kernel.map_("x", out="y")
        class misspelt:
            """Doubles."""

            def valeu(x: float) -> float:
                return x

    with pytest.raises(gk.PlanError, match="'x!'"):

        @kernel.map_("x!", out="y")
        class unreadable:
            """Doubles."""

            def value(x: float) -> float:
                return x

    assert not {"nameless", "misspelt", "unreadable"} & set(gk.kernels())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (lambda: gk.rolling_mean("x", window=np.int64(5)), lambda: gk.rolling_mean("x", window=5)),
        (lambda: gk.ewma("x", alpha=np.float32(0.5)), lambda: gk.ewma("x", alpha=0.5)),
        (lambda: gk.kalman_1d("x", q=np.int32(1)), lambda: gk.kalman_1d("x", q=1.0)),
        (lambda: gk.rolling_skew("x", bias=np.True_), lambda: gk.rolling_skew("x", bias=True)),
        (lambda: gk.kalman_1d("x", q=1), lambda: gk.kalman_1d("x", q=1.0)),
    ],
)
def test_numbers_of_numpy_are_numbers(given: object, meant: object) -> None:
    assert given().key == meant().key  # type: ignore[operator]


def test_a_window_too_short_for_one_symbol_names_the_symbol() -> None:
    plan = gk.Plan([gk.rolling_zscore("x", window={"A": 10, "B": 1})], time=None)
    table = pa.table({"symbol": ["A", "B"], "x": [1.0, 2.0]})
    with pytest.raises(gk.PlanError, match=r"rolling_zscore: window 1 is too short.*symbol 'B'"):
        plan.run(table)


def test_errors_about_a_hidden_part_name_the_kernel_that_was_written() -> None:
    @kernel.composite("x", out="twice_smoothed", params=[kernel.number("alpha", 0.5)])
    class twice_smoothed:
        """Smoothed with a decay that is not allowed."""

        def build(x, alpha):
            return kernel.kernels(hidden=True)["ew_mean_rows"](x, alpha=alpha, min_periods=2.5)

    try:
        with pytest.raises(gk.PlanError, match=r"^twice_smoothed: min_periods must be an integer"):
            gk.Plan([twice_smoothed("x")])
    finally:
        kernel.unregister("twice_smoothed")
