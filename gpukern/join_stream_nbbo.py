"""The best bid and offer over exchanges as the quotes come in."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern.errors import PlanError
from gpukern.join_feed import MAX, MIN, Feed, Operator
from gpukern.join_nbbo import NbboPlan

WHAT = "nbbo_streaming"


def nbbo_streaming(
    columns: Any,
    *,
    lateness: str | int | dt.timedelta = 0,
    late_policy: str = "drop",
    **options: Any,
) -> NbboStream:
    """An :class:`NbboStream` of quotes with these columns; ``options`` are those of ``nbbo``.

    ``columns`` is an Arrow schema, or a table of the kind that the results shall have.
    ``exchanges`` must be declared: their order must not depend on which one comes first. Watermark
    and late rows are those of ``asof_join_streaming``. The row of an instant t and a quote that
    runs out at t are emitted when W > t. All of it together is ``nbbo`` of the accepted rows, and
    after ``advance`` beyond the last of them ``nbbo(until=W − 1)``. Kept are the rows from W on and
    the last row of every symbol and exchange until it is older than ``max_age``.
    """
    plan = NbboPlan.of(WHAT, **options)
    if plan.exchanges is None:
        raise PlanError(f"{WHAT}: declare exchanges=, their names in the order that shall hold")
    feed = Feed(WHAT, "quotes", columns, plan.on, lateness=lateness)
    return NbboStream(plan, feed, late_policy=late_policy)


class NbboStream(Operator):
    """The carried state of one stream of best quotes; made by :func:`nbbo_streaming`."""

    def __init__(self, plan: NbboPlan, quotes: Feed, *, late_policy: str) -> None:
        super().__init__(WHAT, [quotes], late_policy=late_policy, parameters=plan)
        self.plan = plan
        self.quotes = quotes
        self._nothing = self._empty()  # raises for columns that do not fit

    def push(self, batch: Any) -> Any:
        """Take quotes; return the instants that became final."""
        return self._push(self.quotes.name, batch)

    def advance(self, watermark: int | dt.datetime) -> Any:
        """Promise that no quote earlier than the watermark will follow; return what ran out."""
        return self._advance(self.quotes.name, watermark)

    def _settle(self) -> pa.Table | None:
        horizon = MAX if self.ended else max(MIN, self.quotes.watermark - 1)
        if horizon <= self.done:
            return None
        final = self.quotes.until(horizon)
        past = self.quotes.take(final)
        until = self.plan.until
        if horizon < MAX:
            until = horizon if until is None else min(until, horizon)
        out = replace(self.plan, until=until).table(past, after=self.done)
        state = final[self._in_force(past, horizon)]
        self.quotes.keep(np.concatenate((state, np.flatnonzero(self.quotes.times > horizon))))
        self.done = horizon
        return out

    def _in_force(self, past: pa.Table, horizon: int) -> np.ndarray:
        """Ascending numbers of the last rows of each symbol and exchange that can still count."""
        side, order, venue = self.plan.side(past)
        pairs = np.where(side.codes < 0, -1, side.codes.astype(np.int64) * len(order) + venue)
        last = np.full(side.keys.count * len(order) + 1, -1, np.int64)
        core.last_of_keys(pairs, 0, len(pairs), last)
        rows = np.sort(last[:-1][last[:-1] >= 0])
        if self.plan.limit < 0:
            return rows
        return rows[side.times[rows] >= core.minus(horizon, self.plan.limit)]

    def _empty(self) -> pa.Table:
        return self.plan.table(self.quotes.schema.empty_table())
