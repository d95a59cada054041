"""Features the summary needs, whether or not the user asked for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gpukern as gk
from pipelines.view import View

PREFIX = "__"


@dataclass(frozen=True)
class Probe:
    """One such feature: the columns it needs and how to write it."""

    name: str
    needs: tuple[str, ...]
    make: Callable[[], Any]
    plots_only: bool = False


PROBES = (
    Probe("log_return", ("price",), lambda: gk.log_returns("price")),
    Probe(
        "spread_bps", ("bid", "ask"), lambda: gk.quoted_spread("bid", "ask")["quoted_spread_bps"]
    ),
    Probe("imbalance", ("bid_size", "ask_size"), lambda: gk.l1_imbalance("bid_size", "ask_size")),
    Probe("alarm", ("price",), lambda: gk.cusum(gk.log_returns("price"))["cusum_alarm"]),
    Probe(
        "outlier",
        ("price",),
        lambda: gk.outlier_flag_mad(gk.log_returns("price"), window=100)["outlier_flag"],
    ),
    Probe("bb_upper", ("price",), lambda: gk.bollinger_bands("price")["bb_upper"], True),
    Probe("bb_lower", ("price",), lambda: gk.bollinger_bands("price")["bb_lower"], True),
    Probe(
        "volatility",
        ("price",),
        lambda: gk.realized_var(gk.log_returns("price"), window=20)["realized_vol"],
        True,
    ),
)


def probes_for(view: View, plots: bool) -> list[Probe]:
    """The probes whose inputs the data has."""
    return [
        probe
        for probe in PROBES
        if view.names.issuperset(probe.needs) and plots >= probe.plots_only
    ]


def probe_expressions(probes: Sequence[Probe]) -> list[Any]:
    """Their expressions, named so that they meet no feature of the user's."""
    return [probe.make().alias(PREFIX + probe.name) for probe in probes]
