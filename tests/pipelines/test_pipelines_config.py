"""Plan files: features in TOML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import gpukern as gk
from pipelines import config
from pipelines.config import load_plan, parse_plan
from pipelines.errors import PipelineError


def plan_of(text: str, plan_file: Callable[[str], Path]) -> gk.Plan:
    plan = load_plan(plan_file(text))
    return gk.Plan(plan.expressions, by=plan.by or "symbol", time=plan.time or "recv_ts")


def test_features_may_use_columns_and_earlier_features(
    plan_file: Callable[[str], Path], ticker: pa.Table
) -> None:
    plan = plan_of(
        """
        [[feature]]
        kernel = "log_returns"
        inputs = { price = "bid" }
        alias = "r"
        hidden = true

        [[feature]]
        kernel = "rolling_std"
        inputs = ["r"]
        window = "60s"

        [[feature]]
        kernel = "macd"
        inputs = ["bid"]
        outputs = ["macd_hist", "macd"]
        alias = ["h", "m"]
        """,
        plan_file,
    )
    returns = gk.log_returns("bid").alias("r")
    same = gk.Plan(
        [
            gk.rolling_std(returns, window="60s"),
            gk.macd("bid")[["macd_hist", "macd"]].alias("h", "m"),
        ],
        by="symbol",
        time="recv_ts",
    )
    assert plan.output_names == same.output_names
    assert plan.run(ticker).equals(same.run(ticker))


def test_an_input_left_out_is_the_earlier_feature_of_its_name(
    plan_file: Callable[[str], Path],
) -> None:
    plan = plan_of(
        '[[feature]]\nkernel = "log_returns"\n[[feature]]\nkernel = "realized_var"\n', plan_file
    )
    assert plan.input_columns == ["symbol", "recv_ts", "price"]


def test_the_default_features_may_come_first(plan_file: Callable[[str], Path]) -> None:
    plan = plan_of(
        'include = "default"\n[[feature]]\nkernel = "rolling_mean"\ninputs = ["log_return"]\n'
        'alias = "mean_return"\n',
        plan_file,
    )
    default = gk.Plan(gk.default_features(), time="recv_ts").output_names
    assert plan.output_names == [*default, "mean_return"]


def test_parameters_may_differ_by_symbol(
    plan_file: Callable[[str], Path], ticker: pa.Table
) -> None:
    plan = plan_of(
        '[[feature]]\nkernel = "rolling_mean"\ninputs = ["bid"]\nalias = "m"\n'
        'window = { "BTC/USDT" = 5, "ETH/USDT" = 9, "SOL/USDT" = 20 }\n',
        plan_file,
    )
    windows = {"BTC/USDT": 5, "ETH/USDT": 9, "SOL/USDT": 20}
    same = gk.Plan([gk.rolling_mean("bid", window=windows).alias("m")], time="recv_ts")
    assert plan.run(ticker).equals(same.run(ticker))


def test_the_example_of_the_documentation_is_valid() -> None:
    import tomllib

    text = config.__doc__ or ""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ") or not line.strip()]
    plan = parse_plan(tomllib.loads("\n".join(lines)))
    assert plan.by == ("symbol",)
    assert plan.expressions[-1].outputs == ("realized_vol",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"plan\.toml: no feature; add a \[\[feature\]\] table"),
        ("[[feature]", r"plan\.toml: not valid TOML"),
        ("window = 5", r"plan\.toml: unknown key 'window'; known: by, time"),
        ("by = 3", r"plan\.toml: by must be a name or a list of names, got 3"),
        ("time = 3", r"plan\.toml: time must be a column name, got 3"),
        ('include = "all"', r'include must be "default", got \'all\''),
        ("feature = 1", r"features are written as \[\[feature\]\] tables"),
        ("[[feature]]\nwindow = 5", r'feature 1: needs kernel = "NAME"'),
        (
            '[[feature]]\nkernel = "emwa"',
            r"feature 1 \(emwa\): no kernel 'emwa'; did you mean 'ema'",
        ),
        (
            '[[feature]]\nkernel = "ema"\ninputs = ["price"]\nalpha = 2.0',
            r"feature 1 \(ema\): ema: alpha must be .*got 2\.0",
        ),
        (
            '[[feature]]\nkernel = "ema"\ninputs = ["price"]\nwidth = 2',
            r"feature 1 \(ema\): .*unknown parameter 'width'",
        ),
        (
            '[[feature]]\nkernel = "rolling_mean"\ninputs = ["price"]\nwindow = "5 parsecs"',
            r"feature 1 \(rolling_mean\): .*5 parsecs",
        ),
        (
            '[[feature]]\nkernel = "midprice"\ninputs = { big = "bid" }',
            r"feature 1 \(midprice\): .*unknown input 'big'",
        ),
        (
            '[[feature]]\nkernel = "log_returns"\ninputs = ["a", "b"]',
            r"feature 1 \(log_returns\): 2 inputs given, it takes price",
        ),
        (
            '[[feature]]\nkernel = "macd"\noutputs = ["hist"]',
            r"feature 1 \(macd\): .*no output 'hist'",
        ),
        (
            '[[feature]]\nkernel = "ema"\ninputs = ["bid"]\nhidden = "yes"',
            r"hidden must be true or false, got 'yes'",
        ),
        (
            2 * '[[feature]]\nkernel = "log_returns"\n',
            r"feature 2 \(log_returns\): a feature 'log_return' is there already; give it an alias",
        ),
    ],
)
def test_errors_name_file_feature_and_key(
    plan_file: Callable[[str], Path], text: str, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        load_plan(plan_file(text))


def test_a_plan_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"plan\.toml: no such plan file"):
        load_plan(tmp_path / "plan.toml")
