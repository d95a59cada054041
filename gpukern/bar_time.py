"""Bars of time: trades in bins of equal length, each bar final when the watermark says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern import bar_core as core
from gpukern import join_table as tables
from gpukern.bar_bins import WHAT, Bins
from gpukern.bar_fold import Found, Part, Records, fold, key_columns, value_columns
from gpukern.bar_stream import NEVER, Stream, Watermark, in_order
from gpukern.bar_table import (
    FURTHEST,
    RECV,
    Source,
    Trades,
    read_trades,
    time_array,
    time_type,
)
from gpukern.errors import PlanError
from gpukern.frame import NULL_INT
from gpukern.join_match import ascending

COUNTERS = ("given", "accepted", "late", "null", "skipped")
MOST_FILLED = 1 << 31
SPARSE = 4  # cells (or bins) per bar up to which going through them all is quickest
PRICES = core.FLOATS[:4]
OWN = ("bar_start", "bar_end", *core.FLOATS, "n_trades", "first_ts", "last_ts", "known_at",
       "emit_recv_ts", "filled")  # fmt: skip


class TimeBars(Stream):
    """The carried state of ``resample_ohlc``.

    ``counters``: rows given = accepted + late + null (no time or symbol) + skipped (no price above
    0). With ``late_policy='side'`` the late rows of the last push are in ``late``.
    """

    def __init__(
        self,
        kind: str,
        schema: pa.Schema,
        bins: Bins,
        *,
        on: str = "ts",
        by: str | Sequence[str] = "symbol",
        late_policy: str = "drop",
    ) -> None:
        if late_policy not in ("drop", "side"):
            raise PlanError(f"{WHAT}: late_policy must be drop or side, got {late_policy!r}")
        source = Source.of(WHAT, schema, on, by, ("price", "size"))
        source.no_clash(OWN)
        super().__init__(kind, source, (bins, late_policy), COUNTERS)
        self.bins = bins
        self.late_policy = late_policy
        self.late: Any = None
        self.clock = Watermark(bins.lateness)
        self.records = Records()
        self.waiting: Trades | None = None  # rows later than W, whose order is not yet known
        self.due = FURTHEST  # no unfinished bar has a known_at before it
        self.last_known = np.zeros(0, np.int64)
        self.last_close = np.zeros(0)

    # -- batch ----------------------------------------------------------------------------------

    def run(self, table: pa.Table, *, sort: bool, partial: bool) -> pa.Table:
        """The bars of a whole table."""
        trades = read_trades(self.source, table, self.symbols)
        self._reserve()
        by_time = bool(np.all(trades.slots >= 0)) and ascending(trades.times)
        if not by_time:
            trades = in_order(self, trades, sort)
        reach, recv = trades.times, trades.recv
        if not by_time:
            rows = np.flatnonzero(trades.slots >= 0)
            rows = rows[np.argsort(reach[rows], kind="stable")]
            reach, recv = reach[rows], recv[rows] if len(recv) else recv
        if len(reach):
            self.clock.latest = int(reach[-1])
            self.clock.now = self.clock.latest - self.bins.lateness
            if partial:
                self.clock.now = self.bins.known_at(self.clock.latest)
            if self.bins.empty != "skip":
                self._check_filled(int(reach[0]), (NEVER, NEVER))
        if self.clock.now < self.clock.latest:
            early = trades.times <= self.clock.now
            trades.slots = tables.frozen(np.where(early, trades.slots, np.int32(-1)))
        found = self._close(self._fold(trades))
        # W after each row, as if they came in order of time.
        after = reach - self.bins.lateness if len(recv) else reach
        return self._table(found, after, recv)

    # -- stream ---------------------------------------------------------------------------------

    def _push(self, table: pa.Table) -> pa.Table:
        trades = read_trades(self.source, table, self.symbols)
        self._reserve()
        missing = trades.slots < 0
        before = self.clock.now, self.clock.latest
        late, after = self.clock.judge(trades.times, missing)
        if self.bins.empty != "skip":
            fresh = int(trades.times[~missing].min()) if not missing.all() else self.clock.now
            self._check_filled(fresh, before)
        usable = (trades.price > 0.0) & np.isfinite(trades.price)
        keep = ~(missing | late)
        used = keep & usable
        counts = (len(keep), used.sum(), late.sum(), missing.sum(), (keep & ~usable).sum())
        for name, number in zip(COUNTERS, counts, strict=True):
            self.counters[name] += int(number)
        if self.late_policy == "side":
            self.late = tables.from_arrow(self.kind, table.filter(pa.array(late)))
        recv = trades.recv
        if not used.all():
            trades = trades.take(np.flatnonzero(used))
        return self._settle(trades, after, recv)

    def _advance(self, watermark: int) -> pa.Table:
        before = self.clock.now, self.clock.latest
        self.clock.now = max(self.clock.now, watermark)
        if self.bins.empty != "skip":
            self._check_filled(self.clock.now, before)
        nothing = np.zeros(0, np.int64)
        return self._settle(None, nothing, nothing)

    def _flush(self) -> pa.Table:
        if self.clock.latest == NEVER:
            return self._advance(NEVER)
        return self._advance(self.bins.known_at(self.clock.latest))

    def _settle(self, trades: Trades | None, after: np.ndarray, recv: np.ndarray) -> pa.Table:
        """Fold the rows that no accepted row can precede any more; return the finished bars."""
        if self.waiting is not None:
            trades = self.waiting if trades is None else _joined(self.waiting, trades)
            self.waiting = None
        found: list[Part] = []
        if trades is not None and self.bins.lateness:
            # Without lateness the accepted rows are in order and none is later than W.
            ready = trades.times <= self.clock.now
            rows = np.flatnonzero(ready)
            if not ready.all():
                self.waiting = trades.take(np.flatnonzero(~ready))
            trades = trades.take(rows[np.argsort(trades.times[rows], kind="stable")])
        if trades is not None:
            found = self._fold(trades)
        return self._table(self._close(found), after, recv)

    # -- bars -----------------------------------------------------------------------------------

    def _reserve(self) -> None:
        count = len(self.symbols)
        self.records.reserve(count)
        grown = count - len(self.last_known)
        if grown > 0:
            self.last_known = np.append(self.last_known, np.full(grown, core.NO_TIME))
            self.last_close = np.append(self.last_close, np.zeros(grown))

    def _fold(self, trades: Trades) -> list[Part]:
        bins, record, ints = self.bins, self.records.record, self.records.ints
        if len(trades.times):
            self.due = min(self.due, bins.known_at(int(trades.times.min())))

        def step(
            begin: int, lo: int, hi: int, floats: np.ndarray, marks: np.ndarray
        ) -> tuple[int, int]:
            return core.fold_times(
                begin, lo, hi, trades.columns, bins.every, bins.first, record, ints, floats, marks
            )

        return fold(trades.slots, len(self.symbols), step)

    def _close(self, parts: list[Part]) -> Found:
        """Add the unfinished bars that the watermark completes, then the bins without trades."""
        record, ints = self.records.record, self.records.ints
        if self.due <= self.clock.now:
            floats = np.empty((len(core.FLOATS), len(record)))
            marks = np.empty((core.MARKS, len(record)), np.int64)
            made = core.close_due(self.clock.now, record, ints, floats, marks)
            parts = [*parts, (floats[:, :made], marks[:, :made])]
            self.due = core.first_known(ints)
        bars = Found(parts)
        if self.bins.empty != "skip":
            bars = self._filled(bars)
        return self._by_time(bars)

    def _by_time(self, bars: Found) -> Found:
        """The bars in the order of (bar_end, symbol)."""
        if len(bars) == 0:
            return bars
        slots, known = bars.marks([core.SLOT, core.KNOWN])
        ranks, first = self.symbols.ranks(), int(known.min())
        places = (int(known.max()) - first) // self.bins.every + 1
        if places > SPARSE * len(bars) + core.BLOCK:
            return bars.taken(np.lexsort((ranks[slots], known)))
        grid = first, self.bins.every, places, len(self.symbols)
        dense = places * len(self.symbols) <= SPARSE * len(bars) + core.BLOCK
        place = core.places_dense if dense else core.places_by_time
        return bars.put(place(slots, known, ranks, *grid))

    def _check_filled(self, fresh: int, before: tuple[int, int]) -> None:
        """Refuse to fill more bars than fit, before anything has changed: at most those from every
        symbol's last bar (its unfinished one if that is its first; ``fresh`` for a new symbol)."""
        ints = self.records.ints
        opened = np.where(ints[:, core.COUNT] > 0, ints[:, core.MARK], fresh)
        since = np.where(self.last_known == core.NO_TIME, opened, self.last_known)
        behind = np.maximum(self.clock.now - since, 0) // self.bins.every
        if float(behind.sum(dtype=np.float64)) > MOST_FILLED:
            self.clock.now, self.clock.latest = before
            raise PlanError(
                f"{WHAT}: empty={self.bins.empty!r} could fill {behind.sum(dtype=np.float64):.0f} "
                f"bars of {self.bins.every} ns; check the times, or use longer bars or empty='skip'"
            )

    def _filled(self, bars: Found) -> Found:
        bins, until = self.bins, self.clock.now
        slots, known = bars.marks([core.SLOT, core.KNOWN])
        chain = bars.taken(np.lexsort((known, slots)))
        slots, known = chain.marks([core.SLOT, core.KNOWN])
        (close,) = chain.floats([core.CLOSE])
        count = core.count_gaps(slots, known, bins.every, until, self.last_known)
        floats = np.zeros((len(core.FLOATS), count))
        marks = np.zeros((core.MARKS, count), np.int64)
        core.fill_gaps(
            slots, known, close, bins.every, until, self.last_known, self.last_close,
            marks[core.SLOT], marks[core.KNOWN], floats[core.CLOSE],
        )  # fmt: skip
        floats[:4] = floats[core.CLOSE] if bins.empty == "ffill" else np.nan
        floats[core.FLOATS.index("vwap")] = np.nan
        return Found([*bars.parts, (floats, marks)])

    def _table(self, bars: Found, after: np.ndarray, recv: np.ndarray) -> pa.Table:
        """The bars as columns; ``after`` is W after each row of the input, ``recv`` their times."""
        bins, source = self.bins, self.source
        kind = source.time_type
        known, first, n_trades = bars.marks([core.KNOWN, core.FIRST_TS, core.N_TRADES])
        end = known - bins.shift
        ends = {"bar_start": time_array(end - bins.every, kind), "bar_end": time_array(end, kind)}
        values = value_columns(source, bars)
        if bins.empty != "skip":
            filled = n_trades == 0
            values |= {"first_ts": time_array(first, kind, filled)}
            (last,) = bars.marks([core.LAST_TS])
            values |= {"last_ts": time_array(last, kind, filled)}
            if bins.empty == "null":
                prices = bars.floats(range(4))
                values |= {n: pa.array(p, mask=filled) for n, p in zip(PRICES, prices, strict=True)}
        columns = {
            **key_columns(self.symbols, bars),
            source.on: ends["bar_start" if bins.label == "left" else "bar_end"],
            **ends,
            **values,
            "known_at": time_array(known, kind),
            "emit_recv_ts": self._emitted(known, after, recv),
        }
        if bins.empty != "skip":
            columns["filled"] = pa.array(n_trades == 0)
        return pa.table(columns)

    def _emitted(self, known: np.ndarray, after: np.ndarray, recv: np.ndarray) -> pa.Array:
        """``recv_ts`` of the row that completed each bar: the first with W ≥ known_at."""
        schema = self.source.schema
        there = RECV in schema.names
        kind = time_type(schema.field(RECV).type) if there else self.source.time_type
        if not there or len(recv) == 0 or len(known) == 0:
            return pa.nulls(len(known), kind)
        new = np.concatenate(([True], known[1:] != known[:-1]))
        rows = np.searchsorted(after, known[new], "left")
        times = np.append(recv, NULL_INT)[rows][np.cumsum(new) - 1]
        return time_array(times, kind, times == NULL_INT)

    # -- state ----------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        header = {"now": self.clock.now, "latest": self.clock.latest}
        held = self.waiting.columns if self.waiting is not None else []
        arrays = [c.view(np.int64) if c.dtype == np.float64 else c for c in held]
        count = len(self.symbols)
        return header, [
            self.records.dump(count),
            self.last_known[:count],
            self.last_close[:count].view(np.int64),
            *arrays,
        ]

    def _set_state(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        self.clock.now, self.clock.latest = header["now"], header["latest"]
        words, self.last_known, last_close, *held = arrays
        self.records.load(words)
        self.due = core.first_known(self.records.ints)
        self.last_close = last_close.view(np.float64)
        self.waiting = None
        if held:
            times, slots, price, size, side = (tables.frozen(a) for a in held)
            self.waiting = Trades(
                times, tables.frozen(slots.astype(np.int32)), price.view(np.float64),
                size.view(np.float64), tables.frozen(side.astype(np.int8)), times[:0],
            )  # fmt: skip


def _joined(a: Trades, b: Trades) -> Trades:
    pairs = zip(a.columns, b.columns, strict=True)
    times, slots, price, size, side = (tables.frozen(np.concatenate(p)) for p in pairs)
    return Trades(times, slots, price, size, side, times[:0])
