"""The alignment of streams as they come: a point is final when every stream has passed it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_table as tables
from gpukern.errors import PlanError
from gpukern.join_align import AlignPlan
from gpukern.join_feed import MAX, MIN, Feed, Operator
from gpukern.join_keys import encode

WHAT = "align_streaming"
Duration = str | int | dt.timedelta


def align_streaming(
    streams: Mapping[str, Any],
    *,
    lateness: Duration | Mapping[str, Duration] = 0,
    late_policy: str = "drop",
    max_pending: int | None = None,
    **options: Any,
) -> AlignStream:
    """An :class:`AlignStream`; ``options`` are those of ``align``.

    ``streams`` maps each name to its columns: an Arrow schema, or a table of the kind that the
    results shall have. ``lateness`` is one for all streams or one per name; watermarks and late
    rows are those of ``asof_join_streaming``.

    A point at t is emitted when every stream's W > t. All that is returned is ``align`` of the
    accepted rows, whatever the batches and their interleaving; where ``advance`` moved every stream
    beyond its last row, a grid goes on up to there. Kept is per stream one row per key and what
    waits for the slowest stream: at ``max_pending`` such rows of one stream its pushes stop,
    and ``consumed`` says how many rows were taken; send the others again when that stream moved.
    """
    plan = AlignPlan.of(WHAT, **options)
    if not streams:
        raise PlanError(f"{WHAT}: streams is empty; give at least one name and its columns")
    lags = lateness if isinstance(lateness, Mapping) else dict.fromkeys(streams, lateness)
    for name in streams:
        if name not in lags:
            raise PlanError(f"{WHAT}: lateness has nothing for stream {name!r}; add it")
    feeds = []
    for name, columns in streams.items():
        feeds.append(Feed(WHAT, name, columns, plan.on, lateness=lags[name], limit=max_pending))
    return AlignStream(plan, feeds, late_policy=late_policy)


class AlignStream(Operator):
    """The carried state of one streaming alignment; made by :func:`align_streaming`."""

    def __init__(self, plan: AlignPlan, feeds: list[Feed], *, late_policy: str) -> None:
        super().__init__(WHAT, feeds, late_policy=late_policy, parameters=plan)
        self.plan = plan
        self._nothing = self._empty()  # raises for columns that do not fit

    def push(self, name: str, batch: Any) -> Any:
        """Take rows of the stream; return the points that became final."""
        return self._push(name, batch)

    def advance(self, name: str, watermark: int | dt.datetime) -> Any:
        """Promise that no row of the stream earlier than the watermark will follow (it is idle);
        return the points that became final."""
        return self._advance(name, watermark)

    def _settle(self) -> pa.Table | None:
        mark = min(feed.watermark for feed in self.feeds.values())
        horizon = MAX if self.ended else max(MIN, mark - 1)
        if horizon <= self.done:
            return None
        final = {name: feed.until(horizon) for name, feed in self.feeds.items()}
        past = {name: feed.take(final[name]) for name, feed in self.feeds.items()}
        out = self._plan_until(horizon).table(past)
        for name, feed in self.feeds.items():
            state = final[name][_last_of_keys(past[name], self.plan.by)]
            feed.keep(np.concatenate((state, np.flatnonzero(feed.times > horizon))))
        self.done = horizon
        return out

    def _plan_until(self, horizon: int) -> AlignPlan:
        """The plan of the points after those returned and up to the horizon."""
        starts = [self.plan.start, None if self.done == MIN else self.done + 1]
        ends = [self.plan.end, None if horizon == MAX else horizon]
        return replace(
            self.plan,
            start=max((at for at in starts if at is not None), default=None),
            end=min((at for at in ends if at is not None), default=None),
        )

    def _empty(self) -> pa.Table:
        return self.plan.table({name: f.schema.empty_table() for name, f in self.feeds.items()})

    def _load(self, feed: Feed) -> int:
        return int((feed.times > self.done).sum())


def _last_of_keys(rows: pa.Table, by: tuple[str, ...]) -> np.ndarray:
    """Ascending numbers of the last row of each key."""
    keys = encode(rows, by)
    last = np.full(keys.count + 1, -1, np.int64)
    core.last_of_keys(tables.frozen(keys.codes), 0, len(keys.codes), last)
    found = last[:-1]
    return np.sort(found[found >= 0])
