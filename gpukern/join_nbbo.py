"""The best bid and offer over exchanges at every instant, and the quotes that run out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
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
    limit = -1 if max_age is None else tables.duration_ns(f"{WHAT}: max_age", max_age)
    table = tables.to_arrow(quotes)
    tables.require(WHAT, "quotes", [on, by, exchange, "bid", "ask"], table.column_names)
    tables.time_kind(WHAT, "quotes", on, table.schema.field(on).type)
    side = plans.read_side(WHAT, "quotes", table, on, [by])
    plans.check_order(WHAT, "quotes", on, side, "sort it")
    order, venue = _venues(table, exchange, exchanges)
    side.codes = tables.frozen(np.where(venue < 0, np.int32(-1), side.codes))
    if fee_bps is not None:
        for name in order:
            if name not in fee_bps:
                raise PlanError(
                    f"{WHAT}: fee_bps has no fee of exchange {name!r}; add it, 0 if free"
                )
    fees = np.array([(fee_bps or {}).get(name, 0.0) * 1e-4 for name in order])
    sized = "bid_size" in table.column_names and "ask_size" in table.column_names
    columns = [floats(table.column(name), name) for name in ("bid", "ask")]
    for name in ("bid_size", "ask_size"):
        ones = np.ones(table.num_rows)
        columns.append(floats(table.column(name), name) if sized else ones)
    flagged = np.zeros(table.num_rows, np.bool_)
    if "stale" in table.column_names:
        cells = pc.fill_null(tables.one_array(table.column("stale")).cast(pa.bool_()), False)
        flagged = cells.to_numpy(zero_copy_only=False)

    index = Index.of(side)[0]
    ends = int(index.times.max()) if len(index.times) else 0
    ends = ends if until is None else plans.moment_ns(f"{WHAT}: until", until)
    # Every quote can end once, so there are at most two output rows per input row.
    room = len(index.rows) * (2 if limit >= 0 and expiry_rows else 1)
    prices = np.full((len(PRICES), room), np.nan)
    codes = np.full((len(CODES), room), -1, np.int64)
    integers = np.zeros((len(INTEGERS), room), np.int64)
    head = np.zeros((4, room), np.int64)  # key, time, state, whether an expiry
    count = core.best_quotes(
        index.starts,
        index.times,
        index.rows,
        venue,
        tuple(tables.frozen(column) for column in (*columns, flagged)),
        fees,
        limit,
        limit >= 0 and expiry_rows,
        ends,
        prices,
        codes,
        integers,
        head,
    )
    ranks = _ranks(side)
    place = np.lexsort((ranks[head[0, :count]], head[1, :count]))
    out = _columns(
        table, on, by, side, order, sized, fee_bps is not None,
        prices[:, place], codes[:, place], integers[:, place], head[:, place],
    )  # fmt: skip
    return tables.from_arrow(kind_of(quotes), pa.table(out))


def _venues(
    table: pa.Table, exchange: str, exchanges: Sequence[str] | None
) -> tuple[list[str], np.ndarray]:
    """The exchanges in order and each row's place among them, −1 for none."""
    keys = encode(table, [exchange])
    names = keys.values[0].cast(pa.string()).to_pylist()
    if exchanges is None:
        used = np.unique(keys.codes[keys.codes >= 0]).tolist()
        exchanges = sorted(names[code] for code in used)
    order = list(exchanges)
    if len(order) > MOST or len(set(order)) < len(order):
        raise PlanError(
            f"{WHAT}: exchanges must be at most {MOST} different names, got {len(order)}: "
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
    on: str,
    by: str,
    side: plans.Side,
    order: list[str],
    sized: bool,
    net: bool,
    prices: np.ndarray,
    codes: np.ndarray,
    integers: np.ndarray,
    head: np.ndarray,
) -> dict[str, pa.Array]:
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
    if net:
        edge = 1e4 * (net_bid - net_ask) / net_ask
        found |= {n: shown[n] for n in ("net_bid", "net_ask")} | {n: venues[n] for n in CODES[2:]}
        found["net_edge_bps"] = pa.array(edge, from_pandas=True)
    return found
