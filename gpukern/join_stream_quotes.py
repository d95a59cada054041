"""Trades matched to the quote in force as both come in."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.frame import floats
from gpukern.join_feed import Feed, one_piece, schema_of
from gpukern.join_plan import Index
from gpukern.join_quotes import QuotePlan, price_changes, tick_rule
from gpukern.join_stream import AsofStream

WHAT = "trade_quote_match_streaming"


def trade_quote_match_streaming(
    trade_columns: Any,
    quote_columns: Any,
    *,
    lateness_left: str | int | dt.timedelta = 0,
    lateness_right: str | int | dt.timedelta = 0,
    late_policy: str = "drop",
    max_pending_left: int | None = None,
    max_buffer_right: int | None = None,
    **options: Any,
) -> QuoteMatchStream:
    """A :class:`QuoteMatchStream`; ``options`` are those of ``trade_quote_match``.

    Trades are the left side, quotes the right one; columns, watermarks, late rows, limits and
    order are those of ``asof_join_streaming``. A trade at t is emitted when W_trades ≥ t and
    W_quotes ≥ t − lag (> with ``strict=False``). All of it together is ``trade_quote_match`` of the
    accepted rows. Kept are the waiting trades, per key two prices for the tick rule, and the quotes
    that a trade can still see.
    """
    plan = QuotePlan.of(WHAT, **options)
    plan.check(*(schema_of(columns)[1] for columns in (trade_columns, quote_columns)))
    assert plan.join.left_on is not None
    on = plan.join.left_on
    left = Feed(WHAT, "left", trade_columns, on, lateness=lateness_left, limit=max_pending_left)
    right = Feed(WHAT, "right", quote_columns, on, lateness=lateness_right, limit=max_buffer_right)
    return QuoteMatchStream(plan, left, right, late_policy=late_policy)


class QuoteMatchStream(AsofStream):
    """The carried state of one such stream; made by :func:`trade_quote_match_streaming`."""

    def __init__(self, plan: QuotePlan, left: Feed, right: Feed, *, late_policy: str) -> None:
        super().__init__(plan.join, left, right, late_policy=late_policy, parameters=plan)
        self.match = plan
        self.extra = [self._priced(left.schema.empty_table())]  # trades that the tick rule needs

    def _horizon(self) -> int:
        left, right = self.left.watermark, self.right.watermark
        seen = right - 1 if self.plan.exact else right
        return super()._horizon() if self.ended else min(left, core.minus(seen, -self.match.lag))

    def _oldest(self) -> int:
        return core.minus(super()._oldest(), self.match.lag)

    def _join(self, left: pa.Table, far: plans.Side, index: Index) -> pa.Table:
        near = plans.read_side(WHAT, "left", left, self.plan.left_on, self.plan.by)
        rows = index.match(near, self.plan, shift=self.match.lag)
        return tables.attach(left, *self.match.columns(near, far, rows, self._ticks(left)))

    def _ticks(self, left: pa.Table) -> np.ndarray:
        """Signs by the tick rule, which goes on from the trades before; they are brought up to
        date."""
        (earlier,) = self.extra
        trades = one_piece(pa.concat_tables([earlier, self._priced(left)]))
        side = plans.read_side(WHAT, "left", trades, None, self.plan.by)
        price = floats(trades.column("price"), "price")
        before, last = (np.full(side.keys.count, -1, np.int64) for _ in range(2))
        price_changes(side.codes, price, before, last)
        kept = np.concatenate((before, last))
        self.extra = [tables.take_rows(trades, np.sort(kept[kept >= 0]))]
        return tick_rule(side, price)[earlier.num_rows :]

    def _priced(self, left: pa.Table) -> pa.Table:
        return left.select([*self.plan.by, "price"])
