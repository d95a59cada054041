"""A plan file: features written down in TOML.

    by = "symbol"                  # optional, as are time and nan_policy
    include = "default"            # optional: the standard set first

    [[feature]]
    kernel = "log_returns"         # a name of `gpukern kernels`
    inputs = ["price"]             # columns or earlier features; left out: the kernel's own names
    alias = "r"                    # optional; a list for several outputs
    hidden = true                  # optional: an input of later features, no column of its own

    [[feature]]
    kernel = "realized_var"
    inputs = { log_return = "r" }
    window = "60s"                 # every other key is a parameter of the kernel
    outputs = ["realized_vol"]     # optional: only these outputs, in this order

A parameter may be one value or a table `{ "BTC/USDT" = 100, "ETH/USDT" = 50 }` per symbol.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpukern as gk
from gpukern.kernel import Kernel
from pipelines.catalogue import nearest
from pipelines.errors import PipelineError, first_line

DEFAULT = "default"
PLAN_KEYS = ("by", "time", "nan_policy", "include", "feature")
FEATURE_KEYS = ("kernel", "inputs", "alias", "outputs", "hidden")


@dataclass(frozen=True)
class PlanFile:
    """What a plan file says: expressions in order, and the options it sets (None: not said)."""

    expressions: list[Any]
    by: tuple[str, ...] | None = None
    time: str | None = None
    nan_policy: str = "skip"


@dataclass
class _Scope:
    """The names that later features may use as inputs."""

    where: str
    expressions: list[Any] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)


def load_plan(path: str | Path) -> PlanFile:
    """Read a plan file; errors name the file, the feature and the key."""
    file = Path(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PipelineError(f"{file}: no such plan file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{file}: cannot be read: {first_line(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise PipelineError(f"{file}: not valid TOML: {first_line(error)}") from error
    return parse_plan(document, str(file))


def parse_plan(document: dict[str, Any], where: str = "plan") -> PlanFile:
    """A plan from the decoded document; `where` is what errors call it."""
    _check_keys(document, PLAN_KEYS, where)
    by = document.get("by")
    if by is not None:
        by = tuple(_names(by, f"{where}: by"))
    time = document.get("time")
    if time is not None and not isinstance(time, str):
        raise PipelineError(f"{where}: time must be a column name, got {time!r}")
    nan_policy = document.get("nan_policy", "skip")
    scope = _Scope(where)
    include = document.get("include")
    if include == DEFAULT:
        for expression in gk.default_features():
            _add(scope, expression, hidden=False)
    elif include is not None:
        raise PipelineError(f'{where}: include must be "{DEFAULT}", got {include!r}')
    features = document.get("feature", [])
    if not isinstance(features, list) or not all(isinstance(item, dict) for item in features):
        raise PipelineError(f"{where}: features are written as [[feature]] tables")
    for number, feature in enumerate(features, start=1):
        _add_feature(scope, feature, number)
    if not scope.expressions:
        raise PipelineError(f"{where}: no feature; add a [[feature]] table with a kernel")
    return PlanFile(scope.expressions, by, time, nan_policy)


def _add_feature(scope: _Scope, feature: dict[str, Any], number: int) -> None:
    name = feature.get("kernel")
    if not isinstance(name, str):
        raise PipelineError(
            f'{scope.where}: feature {number}: needs kernel = "NAME"; `gpukern kernels` lists them'
        )
    at = f"{scope.where}: feature {number} ({name})"
    kernel = gk.kernels().get(name)
    if kernel is None:
        raise PipelineError(f"{at}: no kernel {name!r}{nearest(name)}")
    parameters = {key: value for key, value in feature.items() if key not in FEATURE_KEYS}
    inputs = _inputs(scope, kernel, feature.get("inputs", []), at)
    outputs = _names(feature.get("outputs", []), f"{at}: outputs")
    aliases = _names(feature.get("alias", []), f"{at}: alias")
    try:
        expression = kernel(inputs=inputs, **parameters)
        expression = expression[outputs] if outputs else expression
        expression = expression.alias(*aliases) if aliases else expression
    except gk.Error as error:
        raise PipelineError(f"{at}: {first_line(error)}") from error
    for output in expression.outputs:
        if output in scope.named:
            raise PipelineError(f"{at}: a feature {output!r} is there already; give it an alias")
    _add(scope, expression, hidden=_flag(feature, "hidden", at))


def _add(scope: _Scope, expression: Any, *, hidden: bool) -> None:
    for output in expression.outputs:
        scope.named[output] = expression[output]
    if not hidden:
        scope.expressions.append(expression)


def _inputs(scope: _Scope, kernel: Kernel, given: Any, at: str) -> dict[str, Any]:
    """The kernel's inputs: an earlier feature of the name, or else the column."""
    own = [spec.name for spec in kernel.inputs]
    if isinstance(given, dict):
        wanted = given
    else:
        names = _names(given, f"{at}: inputs")
        if len(names) > len(own):
            raise PipelineError(f"{at}: {len(names)} inputs given, it takes {', '.join(own)}")
        wanted = dict(zip(own, names, strict=False))
    for key, name in wanted.items():
        if not isinstance(name, str):
            raise PipelineError(f"{at}: inputs.{key} must be a name, got {name!r}")
    left_out = [spec.name for spec in kernel.inputs if not spec.optional]
    wanted = {**{name: name for name in left_out if name in scope.named}, **wanted}
    return {key: scope.named.get(name, name) for key, name in wanted.items()}


def _names(value: Any, what: str) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise PipelineError(f"{what} must be a name or a list of names, got {value!r}")
    return names


def _flag(feature: dict[str, Any], key: str, at: str) -> bool:
    value = feature.get(key, False)
    if not isinstance(value, bool):
        raise PipelineError(f"{at}: {key} must be true or false, got {value!r}")
    return value


def _check_keys(table: dict[str, Any], known: tuple[str, ...], at: str) -> None:
    for key in table:
        if key not in known:
            raise PipelineError(f"{at}: unknown key {key!r}; known: {', '.join(known)}")
