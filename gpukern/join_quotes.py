"""Trades and quotes: the quote in force before each trade and where the trade stands in it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from gpukern import join_match as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError
from gpukern.frame import floats
from gpukern.join_plan import AsofPlan, Index

WHAT = "trade_quote_match"
STATUS = ("no_quote", "stale", "one_sided", "crossed", "locked", "ok")
NO_QUOTE, STALE, ONE_SIDED, CROSSED, LOCKED, OK = range(6)
POSITION = ("below_bid", "at_bid", "inside", "at_ask", "above_ask")
SIZES = ("bid_size", "ask_size")
ADDED = (
    "bid",
    "ask",
    "quote_ts",
    "quote_age_ns",
    "mid",
    "spread",
    "match_status",
    "position",
    "trade_sign",
)


def trade_quote_match(
    trades: Any,
    quotes: Any,
    *,
    on: str = "ts",
    by: str | Sequence[str] = ("exchange", "symbol"),
    strict: bool = True,
    lag: str | int | dt.timedelta = 0,
    max_age: str | int | dt.timedelta | None = None,
) -> Any:
    """Append to every trade the quote that was in force before it, and what follows from the two.

    The quote is the last of the same key with time < t − lag (≤ with ``strict=False``): an update
    stamped with the trade's own instant usually reflects the trade already. Needs price (and side,
    +1 taker buys, if known) in ``trades``; bid, ask (and bid_size, ask_size) in ``quotes``.

    Added: bid, ask, sizes, ``quote_ts``, ``quote_age_ns`` = t − quote time, mid, spread;
    ``match_status`` no_quote, stale (age > max_age), one_sided (a side missing or ≤ 0), crossed,
    locked, ok; ``position`` below_bid, at_bid, inside, at_ask, above_ask for ok and locked;
    ``trade_sign`` the taker side if known, else price against mid, else the tick rule (sign of the
    last price change of the key), null before any. Prices are null for no_quote and stale; mid and
    spread only for ok and locked. Both sides must be in time order within a key. Source: Lee &
    Ready (1991), J. Finance 46.
    """
    plan = QuotePlan.of(WHAT, on=on, by=by, strict=strict, lag=lag, max_age=max_age)
    a, b = tables.to_arrow(trades), tables.to_arrow(quotes)
    plan.check(a.schema, b.schema)
    near = plans.read_side(WHAT, "left", a, on, plan.join.by)
    far = plans.read_side(WHAT, "right", b, on, plan.join.by)
    plans.check_order(WHAT, "left", on, near, "sort it")
    index, bad = Index.of(far)
    if bad >= 0:
        raise plans.unsorted(WHAT, "right", on, far, bad, "sort it")
    rows = index.match(near, plan.join, shift=plan.lag)
    ticks = tick_rule(near, floats(a.column("price"), "price"))
    return tables.attach(trades, *plan.columns(near, far, rows, ticks))


@dataclass(frozen=True)
class QuotePlan:
    """The options of trade_quote_match, checked."""

    join: AsofPlan
    lag: int
    max_age: int

    @classmethod
    def of(
        cls,
        what: str,
        *,
        on: str = "ts",
        by: str | Sequence[str] = ("exchange", "symbol"),
        strict: bool = True,
        lag: str | int | dt.timedelta = 0,
        max_age: str | int | dt.timedelta | None = None,
    ) -> QuotePlan:
        """Check the options."""
        join = AsofPlan.of(what, on=on, by=by, allow_exact_matches=not strict, columns=())
        limit = -1 if max_age is None else tables.duration_ns(f"{what}: max_age", max_age)
        return cls(join, tables.duration_ns(f"{what}: lag", lag), limit)

    def check(self, trades: pa.Schema, quotes: pa.Schema) -> None:
        """Raise unless both sides have the columns, in types that fit."""
        what = self.join.what
        tables.require(what, "left", ["price"], trades.names)
        tables.require(what, "right", ["bid", "ask"], quotes.names)
        for name in (*ADDED, *(name for name in SIZES if name in quotes.names)):
            if name in trades.names:
                raise PlanError(f"{what}: trades have a column {name!r} already; drop or rename it")
        self.join.check(trades, quotes)

    def columns(
        self, near: plans.Side, far: plans.Side, rows: np.ndarray, ticks: np.ndarray
    ) -> tuple[list[pa.Field], list[pa.Array]]:
        """What is appended, given each trade's quote row and its sign by the tick rule."""
        a, b = near.table, far.table
        fresh = rows.copy()
        core.drop_older(near.times, far.times, fresh, self.max_age)
        seen, used = tables.Gather(rows), tables.Gather(fresh)
        prices = [used.take(b.column(name)) for name in ("bid", "ask")]
        bid, ask = (floats(pa.chunked_array([p]), n) for p, n in zip(prices, ADDED, strict=False))
        price = floats(a.column("price"), "price")
        status = _status(rows, fresh, bid, ask)
        usable = status >= LOCKED
        mid, spread = (np.where(usable, x, np.nan) for x in (0.5 * bid + 0.5 * ask, ask - bid))
        age = np.empty(len(rows), np.int64)
        core.ages(near.times, far.times, rows, age)
        assert self.join.right_on is not None
        added = {
            "bid": prices[0],
            "ask": prices[1],
            **{name: used.take(b.column(name)) for name in SIZES if name in b.column_names},
            "quote_ts": seen.take(b.column(self.join.right_on)),
            "quote_age_ns": seen.integers(age),
            "mid": pa.array(mid, from_pandas=True),
            "spread": pa.array(spread, from_pandas=True),
            "match_status": category(status, STATUS),
            "position": category(_position(price, bid, ask, status), POSITION),
            "trade_sign": _signs(a, ticks, price, mid),
        }
        return [pa.field(name, array.type) for name, array in added.items()], list(added.values())


def category(codes: np.ndarray, words: Sequence[str]) -> pa.Array:
    """Codes as a dictionary column of all words, −1 as null."""
    indices = pa.array(codes.astype(np.int8), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words, pa.string()))


def _status(rows: np.ndarray, fresh: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    status = np.where(bid == ask, LOCKED, OK)
    status = np.where(bid > ask, CROSSED, status)
    status = np.where((bid > 0) & (ask > 0), status, ONE_SIDED)  # false for NaN too
    status = np.where(fresh < 0, STALE, status)
    return np.where(rows < 0, NO_QUOTE, status)


def _position(
    price: np.ndarray, bid: np.ndarray, ask: np.ndarray, status: np.ndarray
) -> np.ndarray:
    place = np.full(len(price), 2)
    for code, where in enumerate((price < bid, price == bid, None, price == ask, price > ask)):
        if where is not None:
            place = np.where(where, code, place)
    place = np.where((status == LOCKED) & (price == bid), 2, place)
    return np.where((status >= LOCKED) & ~np.isnan(price), place, -1)


def _signs(trades: pa.Table, ticks: np.ndarray, price: np.ndarray, mid: np.ndarray) -> pa.Array:
    sign = np.where(price > mid, 1, np.where(price < mid, -1, ticks))
    if "side" in trades.column_names:
        side = np.sign(np.nan_to_num(floats(trades.column("side"), "side")))
        sign = np.where(side != 0, side, sign)
    return pa.array(sign.astype(np.int8), mask=sign == 0)


def tick_rule(near: plans.Side, price: np.ndarray) -> np.ndarray:
    """Tick rule: sign of the last non-zero price change of the row's key, 0 before any."""
    sign = np.zeros(len(price), np.int8)
    tick_signs(near.codes, price, near.keys.count, sign)
    return sign


@njit(cache=True, nogil=True)
def tick_signs(codes, price, count, sign):
    """Write the tick rule's signs."""
    last = np.full(count, np.nan)
    held = np.zeros(count, np.int8)
    for i in range(len(codes)):
        k = codes[i]
        if k < 0 or math.isnan(price[i]):
            continue
        if price[i] > last[k]:
            held[k] = 1
        elif price[i] < last[k]:
            held[k] = -1
        last[k] = price[i]
        sign[i] = held[k]


@njit(cache=True, nogil=True)
def price_changes(codes, price, before, last):
    """Per key the last row with a price and the last one of another price before it, or −1.

    The two are all that the tick rule needs to know of the past.
    """
    for i in range(len(codes)):
        k = codes[i]
        if k < 0 or math.isnan(price[i]):
            continue
        if last[k] >= 0 and price[i] != price[last[k]]:
            before[k] = last[k]
        last[k] = i
