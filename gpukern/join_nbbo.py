"""The best bid and offer over exchanges at every instant, and the quotes that run out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpukern import join_best as core
from gpukern import join_plan as plans
from gpukern import join_table as tables
from gpukern.errors import PlanError
from gpukern.frame import floats, kind_of
from gpukern.join_keys import encode
from gpukern.join_match import MIN_INT
from gpukern.join_plan import Index
from gpukern.join_quotes import category

WHAT = "nbbo"
STATES = ("normal", "locked", "crossed", "one_sided", "empty")
PRICES = ("bid", "ask", "bid_size", "ask_size", "net_bid", "net_ask")
BID, ASK, BID_SIZE, ASK_SIZE, NET_BID, NET_ASK = range(6)
CODES = ("bid_exchange", "ask_exchange", "net_bid_exchange", "net_ask_exchange")
INTEGERS = ("bid_mask", "ask_mask", "n_exchanges", "oldest_age_ns")
MOST = 62  # exchanges that fit the mask


def nbbo(
    quotes: Any,
    *,
    on: str = "recv_ts",
    by: str = "symbol",
    exchange: str = "exchange",
    exchanges: Sequence[str] | None = None,
    max_age: str | int | dt.timedelta | None = None,
    expiry_rows: bool = True,
    until: int | dt.datetime | None = None,
    fee_bps: Mapping[str, float] | None = None,
) -> Any:
    """Best bid and offer over exchanges: one row per instant of a symbol with a quote.

    Each row of ``quotes`` (bid, ask, and bid_size, ask_size, ``stale`` if there) replaces its
    exchange's quote, both sides. A side counts if its price and size are above 0, its age is at
    most ``max_age``, its row is not flagged stale and its exchange is not itself locked or crossed.
    ``exchanges`` declares their order (default: by name) and leaves out all others.

    Columns: ``by``, ``on``; bid (highest), ask (lowest), sizes (sum over the exchanges at that
    price), ``bid_exchange``, ``ask_exchange`` (the first of them), ``bid_mask``, ``ask_mask`` (bit
    n: exchange n), ``n_exchanges`` that count, ``state`` (normal, locked, crossed, one_sided,
    empty), mid, spread, ``oldest_age_ns``, ``is_expiry``. With ``expiry_rows`` a row shows the
    market without a quote 1 ns after its ``max_age``, up to ``until`` (default: the last time of
    all). ``fee_bps`` (taker fee per exchange) adds ``net_bid``, ``net_ask`` = best prices after
    fees, their exchanges, and ``net_edge_bps`` = 1e4 (net_bid − net_ask) / net_ask.

    Rows are ordered by time, then symbol. Quotes must be in time order within a symbol
    (UnsortedError). Rows without time, symbol or exchange take no part.
    """
    plan = NbboPlan.of(
        WHAT, on=on, by=by, exchange=exchange, exchanges=exchanges, max_age=max_age,
        expiry_rows=expiry_rows, until=until, fee_bps=fee_bps,
    )  # fmt: skip
    return tables.from_arrow(kind_of(quotes), plan.table(tables.to_arrow(quotes)))


@dataclass(frozen=True)
class NbboPlan:
    """The options of nbbo, checked as far as they can be without the quotes."""

    what: str
    on: str
    by: str
    exchange: str
    exchanges: tuple[str, ...] | None
    limit: int
    expiries: bool
    until: int | None
    fee_bps: tuple[tuple[str, float], ...] | None

    @classmethod
    def of(
        cls,
        what: str,
        *,
        on: str = "recv_ts",
        by: str = "symbol",
        exchange: str = "exchange",
        exchanges: Sequence[str] | None = None,
        max_age: str | int | dt.timedelta | None = None,
        expiry_rows: bool = True,
        until: int | dt.datetime | None = None,
        fee_bps: Mapping[str, float] | None = None,
    ) -> NbboPlan:
        """Check the options."""
        limit = -1 if max_age is None else tables.duration_ns(f"{what}: max_age", max_age)
        end = None if until is None else plans.moment_ns(f"{what}: until", until)
        names = None if exchanges is None else tuple(exchanges)
        fees = None if fee_bps is None else tuple(fee_bps.items())
        return cls(what, on, by, exchange, names, limit, limit >= 0 and expiry_rows, end, fees)

    def check(self, quotes: pa.Schema) -> None:
        """Raise unless the quotes have the columns."""
        wanted = [self.on, self.by, self.exchange, "bid", "ask"]
        tables.require(self.what, "quotes", wanted, quotes.names)
        tables.time_kind(self.what, "quotes", self.on, quotes.field(self.on).type)

    def side(self, quotes: pa.Table) -> tuple[plans.Side, list[str], np.ndarray]:
        """The quotes by symbol, the exchanges in order and each row's place among them; rows of
        other exchanges take no part."""
        side = plans.read_side(self.what, "quotes", quotes, self.on, [self.by])
        plans.check_order(self.what, "quotes", self.on, side, "sort it")
        order, venue = _venues(self, quotes)
        side.codes = tables.frozen(np.where(venue < 0, np.int32(-1), side.codes))
        return side, order, venue

    def table(self, quotes: pa.Table, after: int = MIN_INT) -> pa.Table:
        """The best quotes at every instant later than ``after``."""
        self.check(quotes.schema)
        side, order, venue = self.side(quotes)
        fees = _fees(self, order)
        sized = "bid_size" in quotes.column_names and "ask_size" in quotes.column_names
        index = Index.of(side)[0]
        latest = int(index.times.max()) if len(index.times) else 0
        # Every quote can end once, so there are at most two output rows per input row.
        room = len(index.rows) * (2 if self.expiries else 1)
        prices = np.full((len(PRICES), room), np.nan)
        codes = np.full((len(CODES), room), -1, np.int64)
        integers = np.zeros((len(INTEGERS), room), np.int64)
        head = np.zeros((4, room), np.int64)  # key, time, state, whether an expiry
        count = core.best_quotes(
            index.starts,
            index.times,
            index.rows,
            venue,
            tuple(tables.frozen(column) for column in _quote_columns(quotes, sized)),
            fees,
            self.limit,
            self.expiries,
            latest if self.until is None else self.until,
            prices,
            codes,
            integers,
            head,
        )
        place = np.lexsort((_ranks(side)[head[0, :count]], head[1, :count]))
        place = place[head[1, place] > after]
        out = _columns(
            quotes, self, side, order, sized,
            prices[:, place], codes[:, place], integers[:, place], head[:, place],
        )  # fmt: skip
        return pa.table(out)


def _fees(plan: NbboPlan, order: list[str]) -> np.ndarray:
    given = dict(plan.fee_bps or ())
    for name in order:
        if plan.fee_bps is not None and name not in given:
            raise PlanError(
                f"{plan.what}: fee_bps has no fee of exchange {name!r}; add it, 0 if free"
            )
    return np.array([given.get(name, 0.0) * 1e-4 for name in order])


def _quote_columns(quotes: pa.Table, sized: bool) -> list[np.ndarray]:
    """bid, ask, bid size, ask size and the flag of stale rows."""
    columns = [floats(quotes.column(name), name) for name in ("bid", "ask")]
    for name in ("bid_size", "ask_size"):
        ones = np.ones(quotes.num_rows)
        columns.append(floats(quotes.column(name), name) if sized else ones)
    flagged = np.zeros(quotes.num_rows, np.bool_)
    if "stale" in quotes.column_names:
        cells = pc.fill_null(tables.one_array(quotes.column("stale")).cast(pa.bool_()), False)
        flagged = cells.to_numpy(zero_copy_only=False)
    return [*columns, flagged]


def _venues(plan: NbboPlan, quotes: pa.Table) -> tuple[list[str], np.ndarray]:
    """The exchanges in order and each row's place among them, −1 for none."""
    exchanges: Sequence[str] | None = plan.exchanges
    keys = encode(quotes, [plan.exchange])
    names = keys.values[0].cast(pa.string()).to_pylist()
    if exchanges is None:
        used = np.unique(keys.codes[keys.codes >= 0]).tolist()
        exchanges = sorted(names[code] for code in used)
    order = list(exchanges)
    if len(order) > MOST or len(set(order)) < len(order):
        raise PlanError(
            f"{plan.what}: exchanges must be at most {MOST} different names, got {len(order)}: "
            f"{', '.join(order[:5])}, …"
        )
    places = [order.index(name) if name in order else -1 for name in names]
    return order, np.array([*places, -1])[keys.codes]


def _ranks(side: plans.Side) -> np.ndarray:
    values = side.keys.values[0]
    ranks = np.empty(len(values), np.int64)
    ranks[pc.array_sort_indices(values).to_numpy()] = np.arange(len(values))
    return ranks


def _columns(
    table: pa.Table,
    plan: NbboPlan,
    side: plans.Side,
    order: list[str],
    sized: bool,
    prices: np.ndarray,
    codes: np.ndarray,
    integers: np.ndarray,
    head: np.ndarray,
) -> dict[str, pa.Array]:
    on, by = plan.on, plan.by
    key, times, state, expiry = head
    kind = table.schema.field(by).type
    values = side.keys.values[0]
    if pa.types.is_dictionary(kind):
        symbols = pa.DictionaryArray.from_arrays(
            pa.array(key.astype(np.int32)), values.cast(kind.value_type)
        )
    else:
        symbols = values.take(pa.array(key)).cast(kind)
    when = pa.array(times)
    zone = table.schema.field(on).type
    if pa.types.is_timestamp(zone):
        when = when.cast(pa.timestamp("ns", zone.tz))
    both = (state != core.ONE_SIDED) & (state != core.EMPTY)
    bid, ask, net_bid, net_ask = prices[[BID, ASK, NET_BID, NET_ASK]]
    shown = {n: pa.array(p, from_pandas=True) for n, p in zip(PRICES, prices, strict=True)}
    venues = {n: category(c, order) for n, c in zip(CODES, codes, strict=True)}
    numbers = {n: pa.array(i) for n, i in zip(INTEGERS, integers, strict=True)}
    found = {by: symbols, on: when, "bid": shown["bid"], "ask": shown["ask"]}
    if sized:
        found |= {n: shown[n] for n in ("bid_size", "ask_size")}
    found |= {n: venues[n] for n in CODES[:2]} | {n: numbers[n] for n in INTEGERS[:3]}
    found |= {
        "state": category(state, STATES),
        "mid": pa.array(0.5 * bid + 0.5 * ask, mask=~both),
        "spread": pa.array(ask - bid, mask=~both),
        "oldest_age_ns": pa.array(integers[3], mask=state == core.EMPTY),
        "is_expiry": pa.array(expiry == 1),
    }
    if plan.fee_bps is not None:
        edge = 1e4 * (net_bid - net_ask) / net_ask
        found |= {n: shown[n] for n in ("net_bid", "net_ask")} | {n: venues[n] for n in CODES[2:]}
        found["net_edge_bps"] = pa.array(edge, from_pandas=True)
    return found
