"""gpukern: crypto market data in; features, signals and backtests out."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

# The folder of that name is imported first, so that ``gpukern.kernels`` is the function below.
import gpukern.kernels  # noqa: F401
from gpukern import kernel as _kernel
from gpukern.codegen import cache_dir
from gpukern.cpu_warmup import warmup
from gpukern.errors import DeviceError, Error, PlanError, StateError, UnsortedError
from gpukern.expr import Expr, col
from gpukern.job import Job
from gpukern.kernel import Kernel
from gpukern.plan import Plan, with_features

# Loaded when first used: the joins bring pyarrow.compute and compiled loops of their own.
_JOINS = {
    "AsofTable": "gpukern.asof",
    "align": "gpukern.join_align",
    "align_streaming": "gpukern.join_stream_align",
    "asof_join": "gpukern.asof",
    "asof_join_streaming": "gpukern.join_stream",
    "asof_join_table": "gpukern.asof",
    "nbbo": "gpukern.join_nbbo",
    "nbbo_streaming": "gpukern.join_stream_nbbo",
    "trade_quote_match": "gpukern.join_quotes",
    "trade_quote_match_streaming": "gpukern.join_stream_quotes",
    "window_join": "gpukern.window",
    "window_join_streaming": "gpukern.join_stream_window",
}

__version__ = version("gpukern")

__all__ = [
    "DeviceError",
    "Error",
    "Expr",
    "Job",
    "Kernel",
    "Plan",
    "PlanError",
    "StateError",
    "UnsortedError",
    "cache_dir",
    "col",
    "default_features",
    "kernels",
    "warmup",
    "with_features",
]


def kernels() -> dict[str, Kernel]:
    """Every kernel by name: the catalogue that documentation, tests and benchmarks loop over."""
    return _kernel.kernels()


def default_features(**options: Any) -> list[Expr]:
    """The standard features of canonical ticker rows; see :mod:`gpukern.features`."""
    from gpukern.features import default_features as build

    return build(**options)


def __getattr__(name: str) -> Any:
    """``gpukern.ewma`` and every other registered kernel; the joins; ``gpukern.bars``."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "bars":
        return import_module("gpukern.bars")
    if name in _JOINS:
        return getattr(import_module(_JOINS[name]), name)
    found = _kernel.kernels().get(name)
    if found is None:
        raise AttributeError(f"module 'gpukern' has no attribute or kernel {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "bars", *_JOINS, *_kernel.kernels()])
