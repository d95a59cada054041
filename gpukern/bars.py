"""Operations that change rows: bars of trades, deduplication, state on a grid.

In ``gpukern`` itself a name such as ``gap_fill`` is the kernel with one value per row; here it is a
table with other rows. Every function takes a pyarrow Table or RecordBatch, a polars or a pandas
DataFrame and returns the same kind. :func:`streaming` gives the same operation on batches that
keep coming: the same rows, bit for bit, however they are cut.

**A bar may be used from ``emit_recv_ts`` on (time bars made with ``on="recv_ts"``: from
``known_at`` on), never from its label**, which for a left-labelled bar is where it starts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from gpukern import join_table as tables
from gpukern.bar_bins import Bins
from gpukern.bar_dedupe import Dedupe
from gpukern.bar_grid import GridFill
from gpukern.bar_measure import NAMES, MeasureBars
from gpukern.bar_signed import Rules, SignedBars
from gpukern.bar_stream import Stream, declared
from gpukern.bar_time import TimeBars
from gpukern.errors import PlanError
from gpukern.frame import kind_of

Duration = str | int | dt.timedelta

__all__ = [
    "dedupe_trades",
    "dollar_bars",
    "gap_fill",
    "imbalance_bars",
    "ohlc",
    "resample_ohlc",
    "runs_bars",
    "streaming",
    "tick_bars",
    "volume_bars",
]


def resample_ohlc(
    trades: Any,
    every: Duration,
    *,
    origin: int | dt.datetime = 0,
    closed: str = "left",
    label: str = "left",
    on: str = "ts",
    by: str | Sequence[str] = "symbol",
    lateness: Duration = 0,
    empty: str = "skip",
    partial: bool = False,
    sort: bool = False,
) -> Any:
    """Bars of equal time: bin k holds the trades in [origin + k·every, origin + (k + 1)·every).

    ``closed='right'`` makes that (…]. ``label`` says which end stands in column ``on``;
    ``bar_start`` and ``bar_end`` are always there. Bins are multiples of ``every`` from ``origin``
    (1970 UTC): days are UTC days, no calendar units.

    Columns: ``by``, ``on``, bar_start, bar_end, open, high, low, close, volume Σq, notional Σpq,
    vwap (null without volume), n_trades, buy_volume, sell_volume (null without a column ``side``),
    first_ts, last_ts, known_at (the smallest watermark that completes the bar), emit_recv_ts
    (``recv_ts`` of the row that did, rows being taken in order of time; null if a punctuation or
    the end did, or the input has none). Order: (bar_end, symbol).

    The watermark stands ``lateness`` before the last time of all symbols, so the bar in progress
    is not returned; ``partial=True`` moves it to the end of the last row's bin. ``empty='ffill'``
    adds the bins without trades from a symbol's first bar on (prices = the close before, volume
    0), ``'null'`` the same with null prices; both add a column ``filled``.

    Trades without symbol, time or a price above 0 are left out; a missing or negative size is 0.
    Every symbol's rows must be in time order (UnsortedError, or ``sort=True``); symbols interleave
    as they like. PlanError for wrong columns and options.
    """
    bins = Bins.of(every, origin=origin, closed=closed, label=label, lateness=lateness, empty=empty)
    table = tables.to_arrow(trades)
    bars = TimeBars(kind_of(trades), table.schema, bins, on=on, by=by)
    return tables.from_arrow(bars.kind, bars.run(table, sort=sort, partial=partial))


ohlc = resample_ohlc


def tick_bars(
    trades: Any,
    n: int | Mapping[Any, int],
    *,
    on: str = "ts",
    by: str | Sequence[str] = "symbol",
    sort: bool = False,
) -> Any:
    """Bars of ``n`` trades each, per symbol and in row order.

    ``n`` may be a mapping {symbol: n}. Columns as for :func:`resample_ohlc` from ``open`` to
    ``last_ts``, then known_seq (0-based number of the closing trade among the symbol's usable
    ones) and emit_recv_ts (its ``recv_ts``). Order: that of the closing trades. The unfinished bar
    is never returned.

    Trades without symbol, time or a price above 0 are left out; a missing or negative size is 0.
    Order of time is checked as in :func:`resample_ohlc`. Live, use ``on="recv_ts"``.
    """
    return _measured("tick_bars", trades, n, "keep", on, by, sort)


def volume_bars(
    trades: Any,
    threshold: float | Mapping[Any, float],
    *,
    overshoot: str = "keep",
    on: str = "ts",
    by: str | Sequence[str] = "symbol",
    sort: bool = False,
) -> Any:
    """Bars that end with the trade that brings their volume to ``threshold``.

    The closing trade belongs to its bar whole and the next bar starts at 0 (López de Prado 2018,
    2.3.1); a volume within 1e-12 of the threshold reaches it. ``overshoot='split'`` divides the
    trade instead: each part counts as a trade in its bar, one trade may fill several bars, and
    every bar has exactly the threshold. ``threshold`` may be a mapping {symbol: threshold}.

    Rows and columns as for :func:`tick_bars`; trades without a size of 0 or above are left out.
    """
    return _measured("volume_bars", trades, threshold, overshoot, on, by, sort)


def dollar_bars(
    trades: Any,
    threshold: float | Mapping[Any, float],
    *,
    overshoot: str = "keep",
    on: str = "ts",
    by: str | Sequence[str] = "symbol",
    sort: bool = False,
) -> Any:
    """The same as :func:`volume_bars` by notional value price·size, in quote currency."""
    return _measured("dollar_bars", trades, threshold, overshoot, on, by, sort)


def _measured(
    what: str,
    trades: Any,
    threshold: float | Mapping[Any, float],
    overshoot: str,
    on: str,
    by: str | Sequence[str],
    sort: bool,
) -> Any:
    table = tables.to_arrow(trades)
    bars = MeasureBars(
        what, kind_of(trades), table.schema, threshold, overshoot=overshoot, on=on, by=by
    )
    return tables.from_arrow(bars.kind, bars.run(table, sort=sort))


def imbalance_bars(
    trades: Any,
    metric: str = "tick",
    *,
    sign: str = "tick_rule",
    expected_ticks_init: float = 100,
    warmup_ticks: int | None = None,
    span_bars: float = 20,
    span_ticks: float = 1000,
    min_expected: float | None = None,
    max_expected: float | None = None,
    min_ticks: int = 1,
    max_ticks: int | None = None,
    fixed_threshold: float | Mapping[Any, float] | None = None,
    on: str = "ts",
    by: str | Sequence[str] = "symbol",
    sort: bool = False,
) -> Any:
    """Bars that end when |θ| = |Σ b·x| reaches E_T·|E_b| (López de Prado 2018, 2.3.2).

    b = ±1 by the tick rule (an unchanged price keeps the last sign, 0 before the first change) or,
    with ``sign='side'``, the taker side (the tick rule where it is missing); x = 1, size or
    price·size by ``metric`` tick, volume, dollar. The threshold is fixed when the bar opens. When
    one of T trades closes, E_T ← (1 − a)E_T + aT with a = 2/(span_bars + 1), held in
    min_expected…max_expected, and E_b is the exponentially weighted mean of b·x over all signed
    trades so far, weight 2/(span_ticks + 1), seeded by the first.

    E_T starts at ``expected_ticks_init``; the first bar closes at ``warmup_ticks`` trades (default:
    as many), as does every bar until a trade has a sign. With E_b → 0 the threshold collapses and
    in a trend it explodes, a known defect of the method: ``min_ticks`` and ``max_ticks`` bound the
    trades of a bar, and ``fixed_threshold`` (or a mapping {symbol: threshold}) replaces the
    expectations from the first bar on.

    Rows and columns as for :func:`tick_bars`, and theta, threshold (null in warm-up) and
    expected_ticks (E_T when the bar opened; null with a fixed threshold). For volume and dollar,
    trades without a size of 0 or above are left out.
    """
    rules = Rules(
        metric, sign, expected_ticks_init, warmup_ticks, span_bars, span_ticks, min_expected,
        max_expected, min_ticks, max_ticks, fixed_threshold,
    )  # fmt: skip
    return _signed("imbalance_bars", trades, rules, None, on, by, sort)


def runs_bars(
    trades: Any,
    metric: str = "tick",
    *,
    runs: str = "cumulative",
    sign: str = "tick_rule",
    expected_ticks_init: float = 100,
    warmup_ticks: int | None = None,
    span_bars: float = 20,
    span_ticks: float = 1000,
    min_expected: float | None = None,
    max_expected: float | None = None,
    min_ticks: int = 1,
    max_ticks: int | None = None,
    fixed_threshold: float | Mapping[Any, float] | None = None,
    on: str = "ts",
    by: str | Sequence[str] = "symbol",
    sort: bool = False,
) -> Any:
    """Bars that end when the trades of one side are heavier than expected (López de Prado 2018,
    2.3.2).

    ``runs='cumulative'`` (the book): θ = max(Σ x of buys, Σ x of sells), no restart;
    ``'consecutive'``: θ = Σ x of the current unbroken run of one side within the bar. The
    threshold is E_T·max(P·X_buy, (1 − P)·X_sell), where P, X_buy and X_sell are exponentially
    weighted means, weight 2/(span_bars + 1) and seeded by the first bar, of a bar's share of buys
    among its signed trades and of its mean x of each side (kept if the side is absent).

    All else as for :func:`imbalance_bars`; ``span_ticks`` has no part in these bars.
    """
    rules = Rules(
        metric, sign, expected_ticks_init, warmup_ticks, span_bars, span_ticks, min_expected,
        max_expected, min_ticks, max_ticks, fixed_threshold,
    )  # fmt: skip
    return _signed("runs_bars", trades, rules, runs, on, by, sort)


def _signed(
    what: str,
    trades: Any,
    rules: Rules,
    runs: str | None,
    on: str,
    by: str | Sequence[str],
    sort: bool,
) -> Any:
    table = tables.to_arrow(trades)
    bars = SignedBars(what, kind_of(trades), table.schema, rules, runs=runs, on=on, by=by)
    return tables.from_arrow(bars.kind, bars.run(table, sort=sort))


def dedupe_trades(
    trades: Any,
    *,
    by: str | Sequence[str] = ("exchange", "symbol"),
    trade_id: str | None = "trade_id",
    on: str = "ts",
    content: Sequence[str] = ("price", "size", "side"),
    connection: str = "conn_id",
    fallback: str = "pass",
    horizon: Duration | None = None,
) -> Any:
    """The rows without the copies that reconnects, replays and second feeds bring.

    The first arrival (row order) of a (key, id) wins. An id that comes again with another time or
    other ``content`` is a conflict: dropped too, but counted apart. Rows without id pass, or with
    ``fallback='content'`` connections are compared as multisets: the k-th row of a (time, content)
    on one connection is the k-th on any other, so that two honest equal prints stay two.
    ``trade_id=None`` says that no row has one.

    ``horizon``: per key, what is older than its latest kept time less the horizon is forgotten, and
    a row older than that is dropped. Without it every id is remembered.

    Returns a subset of the rows, in order. Rows without key or time pass. Counters and the
    conflicting rows are on the stream: ``s = streaming("dedupe_trades", trades); s.push(trades)``,
    then ``s.counters``, ``s.conflicts``.
    """
    table = tables.to_arrow(trades)
    seen = Dedupe(
        kind_of(trades), table.schema, by=by, trade_id=trade_id, on=on, content=content,
        connection=connection, fallback=fallback, horizon=horizon,
    )  # fmt: skip
    return tables.from_arrow(seen.kind, seen.run(table))


def gap_fill(
    rows: Any,
    every: Duration,
    *,
    on: str,
    by: str | Sequence[str] = "symbol",
    origin: int | dt.datetime = 0,
    start: int | dt.datetime | None = None,
    end: int | dt.datetime | None = None,
    max_age: Duration | None = None,
    fill: str = "row",
    sort: bool = False,
) -> Any:
    """The state of every symbol on the grid origin + k·every: its last row at or before each point.

    From the first point ≥ the symbol's first row (and ≥ ``start``) to the last ≤ the latest row of
    any symbol (or ``end``). ``fill='row'`` takes the whole last row, its nulls included;
    ``'column'`` the last value of each column. What is older than ``max_age`` (column mode: the
    value) is null. Nothing is interpolated or filled backwards.

    Columns: those of the input with ``on`` = the point, then source_ts (time of the last row),
    age_ns and filled (no row in (point − every, point]). Order: (time, symbol). Rows without symbol
    or time take no part; order of time is checked as in :func:`resample_ohlc`.
    """
    table = tables.to_arrow(rows)
    grid = GridFill(
        kind_of(rows), table.schema, every, on=on, by=by, origin=origin, start=start, end=end,
        max_age=max_age, fill=fill,
    )  # fmt: skip
    return tables.from_arrow(grid.kind, grid.run(table, sort=sort))


def streaming(operation: str, columns: Any, **options: Any) -> Stream:
    """The operation of that name on a stream: ``push``, ``advance``, ``flush``, ``snapshot`` …

    ``columns`` is the Arrow schema of the stream, or a table (an empty one will do) with its
    columns, whose kind the results then have. ``options`` are those of the function but ``sort``
    and ``partial``, for example ``streaming("volume_bars", schema, threshold=10.0)``.

    ``push(rows)`` returns what became final with these rows; all of it together is what the
    function returns for the accepted rows. ``snapshot()`` and ``restore(blob)`` carry the state
    over a restart. ``counters`` tells what became of the rows given.

    ``resample_ohlc`` and ``gap_fill`` wait for the watermark: after each row W = max(W, time −
    lateness); a row earlier than W is late, counted and, with ``late_policy='side'``, found in
    ``late`` after the push. ``advance(W)`` moves it for an idle stream; ``flush()`` to where the
    batch form ends (``partial=True``). A bar comes when W completes it, a grid point when W passes
    it. The other bars are final with the trade that closes them, and rows of a symbol must come in
    order of time: UnsortedError, and the batch changes nothing.
    """
    kind, schema = declared(columns)
    names = [name for name in __all__ if name != "streaming"]
    if operation not in names:
        raise PlanError(
            f"streaming: operation must be one of {', '.join(names)}, got {operation!r}"
        )
    if operation == "dedupe_trades":
        return Dedupe(kind, schema, **options)
    if operation == "gap_fill":
        return GridFill(kind, schema, **options)
    where = {name: options.pop(name) for name in ("on", "by") if name in options}
    if operation in NAMES:
        threshold = options.pop("n" if operation == "tick_bars" else "threshold", None)
        return MeasureBars(operation, kind, schema, threshold, **where, **options)
    if operation in ("imbalance_bars", "runs_bars"):
        default = None if operation == "imbalance_bars" else "cumulative"
        runs = options.pop("runs", default) if default else None
        return SignedBars(operation, kind, schema, Rules(**options), runs=runs, **where)
    policy = options.pop("late_policy", "drop")
    return TimeBars(kind, schema, Bins.of(**options), late_policy=policy, **where)
