"""Bars as the specification words them: plain Python over lists of rows, sums by math.fsum."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

SCHEMA = pa.schema(
    {
        "ts": pa.int64(),
        "symbol": pa.string(),
        "price": pa.float64(),
        "size": pa.float64(),
        "side": pa.int8(),
        "recv_ts": pa.int64(),
    }
)
Row = dict[str, Any]


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def trades(ts: Any, price: Any, size: Any = None, *, symbol: str = "a", **columns: Any) -> pa.Table:
    """A small table of one symbol; sizes are 1 unless given."""
    ts = list(ts)
    return pa.table(
        {
            "ts": pa.array(ts, pa.int64()),
            "symbol": pa.array([symbol] * len(ts), pa.string()),
            "price": pa.array([None if p is None else float(p) for p in price], pa.float64()),
            "size": pa.array([1.0] * len(ts) if size is None else list(size), pa.float64()),
            **columns,
        }
    )


def usable(row: Row, *, sized: bool = False) -> bool:
    price, size = row["price"], row["size"]
    if row["ts"] is None or row["symbol"] is None or price is None or not 0 < price < math.inf:
        return False
    return not sized or (size is not None and 0 <= size < math.inf)


def size_of(row: Row) -> float:
    size = row["size"]
    return size if size is not None and 0 <= size < math.inf else 0.0


def summary(rows: list[Row]) -> Row:
    """What a bar says about its trades, which are in order."""
    prices = [r["price"] for r in rows]
    sizes = [size_of(r) for r in rows]
    volume = math.fsum(sizes)
    notional = float(sum(Fraction(p) * Fraction(q) for p, q in zip(prices, sizes, strict=True)))
    sides = [r["side"] or 0 for r in rows]
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": volume,
        "notional": notional,
        "vwap": notional / volume if volume else None,
        "n_trades": len(rows),
        "buy_volume": math.fsum(q for q, s in zip(sizes, sides, strict=True) if s > 0),
        "sell_volume": math.fsum(q for q, s in zip(sizes, sides, strict=True) if s < 0),
        "first_ts": rows[0]["ts"],
        "last_ts": rows[-1]["ts"],
    }


def time_bars(
    rows: list[Row],
    every: int,
    *,
    origin: int = 0,
    closed: str = "left",
    label: str = "left",
    lateness: int = 0,
    empty: str = "skip",
    partial: bool = False,
) -> list[Row]:
    there = [r for r in rows if r["ts"] is not None and r["symbol"] is not None]
    if not there:
        return []

    def start_of(t: int) -> int:
        if closed == "left":
            return origin + (t - origin) // every * every
        return origin + -((origin - t) // every) * every - every

    there.sort(key=lambda r: r["ts"])
    watermark = there[-1]["ts"] - lateness
    later = int(closed == "right")
    if partial:
        watermark = start_of(there[-1]["ts"]) + every + later
    found = []
    for symbol in {r["symbol"] for r in there}:
        bins: dict[int, list[Row]] = {}
        for r in there:
            if r["symbol"] == symbol and usable(r):
                bins.setdefault(start_of(r["ts"]), []).append(r)
        close = None
        starts = sorted(bins)
        if starts and empty != "skip":
            starts = list(range(starts[0], max(starts[-1], watermark) + every, every))
        for start in starts:
            known_at = start + every + later
            if known_at > watermark:
                continue
            bar = {"symbol": symbol, "ts": start if label == "left" else start + every}
            bar |= {"bar_start": start, "bar_end": start + every}
            if start in bins:
                bar |= summary(bins[start])
                close = bar["close"]
            else:
                price = close if empty == "ffill" else None
                bar |= dict.fromkeys(("open", "high", "low", "close"), price)
                bar |= dict.fromkeys(("volume", "notional", "buy_volume", "sell_volume"), 0.0)
                bar |= {"vwap": None, "n_trades": 0, "first_ts": None, "last_ts": None}
            done = [r["recv_ts"] for r in there if r["ts"] - lateness >= known_at]
            bar |= {"known_at": known_at, "emit_recv_ts": done[0] if done else None}
            if empty != "skip":
                bar["filled"] = start not in bins
            found.append(bar)
    return sorted(found, key=lambda b: (b["bar_end"], b["symbol"]))


def measure_bars(
    rows: list[Row], metric: str, threshold: float, *, overshoot: str = "keep"
) -> list[Row]:
    """Tick, volume and dollar bars; amounts are exact fractions of the input doubles."""
    found: list[tuple[int, int, Row]] = []
    slack = Fraction(threshold) * (1 - Fraction(1, 10**12))
    for symbol in {r["symbol"] for r in rows}:
        bar: list[Row] = []
        total, number = Fraction(0), 0
        for at, r in enumerate(rows):
            if r["symbol"] != symbol or not usable(r, sized=metric != "tick"):
                continue
            unit = Fraction(r["price"]) if metric == "dollar" else Fraction(1)
            amount = Fraction(1) if metric == "tick" else Fraction(size_of(r)) * unit
            part = 0
            while overshoot == "split" and total + amount >= slack:
                need = min(amount, Fraction(threshold) - total)
                bar.append({**r, "size": float(need / unit)})
                found.append((at, part, {"symbol": symbol, **summary(bar), "known_seq": number,
                                         "emit_recv_ts": r["recv_ts"]}))  # fmt: skip
                bar, total, amount, part = [], Fraction(0), amount - need, part + 1
            if part and amount < Fraction(threshold) / 10**12:
                number += 1
                continue
            bar.append({**r, "size": float(amount / unit)} if metric != "tick" else r)
            total += amount
            if overshoot == "keep" and total >= slack:
                found.append((at, 0, {"symbol": symbol, **summary(bar), "known_seq": number,
                                      "emit_recv_ts": r["recv_ts"]}))  # fmt: skip
                bar, total = [], Fraction(0)
            number += 1
    return [bar for _, _, bar in sorted(found, key=lambda f: f[:2])]


def accepted(rows: list[Row], lateness: int) -> tuple[list[Row], int]:
    """The rows with a time that are not late, by the definition of the watermark."""
    kept, late, watermark = [], 0, -(2**62)
    for row in rows:
        if row["ts"] is None or row["symbol"] is None:
            continue
        if row["ts"] < watermark:
            late += 1
            continue
        kept.append(row)
        watermark = max(watermark, row["ts"] - lateness)
    return kept, late


PRICES = (None, math.nan, -1.0, 0.0, 1.5, 2.0, 2.5, 3.0, 7.25)
SIZES = (None, math.nan, -1.0, 0.0, 0.1, 0.5, 1.0, 2.0, 9.0)


@st.composite
def streams(draw: st.DrawFn, *, most: int = 40, disorder: int = 0) -> list[Row]:
    """Interleaved symbols with ties, missing cells, and times up to ``disorder`` out of order."""
    cell = st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 30)),
        st.sampled_from(("a", "b", "c", None)),
        st.sampled_from(PRICES + PRICES[4:] * 3),
        st.sampled_from(SIZES + SIZES[4:] * 3),
        st.sampled_from((None, 0, 1, -1, 1, -1)),
        st.sampled_from((0, 0, 0, 0, 0, None)),
        st.integers(0, disorder),
    )
    cells = draw(st.lists(cell, max_size=most))
    times = list(accumulate((c[0] for c in cells), initial=draw(st.integers(-50, 50))))[1:]
    return [
        {
            "ts": None if gone is None else t - back,
            "symbol": symbol, "price": price, "size": size, "side": side,
            "recv_ts": None if n % 11 == 5 else 1000 + n,
        }
        for n, (t, (_, symbol, price, size, side, gone, back)) in enumerate(
            zip(times, cells, strict=True)
        )
    ]  # fmt: skip


def assert_close(got: pa.Table, want: list[Row]) -> None:
    """The same rows; sums to 1e-12."""
    assert got.num_rows == len(want)
    for mine, theirs in zip(got.to_pylist(), want, strict=True):
        assert mine.keys() >= theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, float):
                assert mine[name] is not None, (name, value)
                assert math.isclose(mine[name], value, rel_tol=1e-12, abs_tol=1e-300), name
            else:
                assert mine[name] == value, name
