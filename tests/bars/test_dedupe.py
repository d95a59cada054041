"""dedupe_trades: first arrival wins, conflicts are told apart, prints are multisets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk
from gpukern import bars

SCHEMA = pa.schema(
    {
        "ts": pa.int64(),
        "exchange": pa.string(),
        "symbol": pa.string(),
        "trade_id": pa.int64(),
        "price": pa.float64(),
        "size": pa.float64(),
        "side": pa.int8(),
        "conn_id": pa.int64(),
    }
)
Row = dict[str, Any]


def rows(*cells: dict[str, Any]) -> pa.Table:
    common = {"ts": 1, "exchange": "x", "symbol": "a", "price": 1.0, "size": 1.0, "side": 1}
    return pa.Table.from_pylist([{**common, **c} for c in cells], SCHEMA)


def stream(**options: Any) -> Any:
    return bars.streaming("dedupe_trades", SCHEMA, **options)


def test_the_first_arrival_of_an_id_wins() -> None:
    given_ = rows({"trade_id": 7}, {"trade_id": 8}, {"trade_id": 7}, {"trade_id": 7, "symbol": "b"})
    out = bars.dedupe_trades(given_)
    assert out.equals(given_.take([0, 1, 3]))


def test_an_id_with_other_content_is_a_conflict() -> None:
    dedupe = stream()
    out = dedupe.push(
        rows({"trade_id": 7}, {"trade_id": 7, "price": 2.0}, {"trade_id": 7, "ts": 2},
             {"trade_id": 7})
    )  # fmt: skip
    assert out.num_rows == 1
    assert dedupe.conflicts.select(["ts", "price"]).to_pylist() == [
        {"ts": 1, "price": 2.0}, {"ts": 2, "price": 1.0},
    ]  # fmt: skip
    assert dedupe.counters == {
        "given": 4, "kept": 1, "duplicates": 1, "conflicts": 2, "too_old": 0, "null": 0,
    }  # fmt: skip


def test_two_copies_on_one_connection_and_three_on_another_are_three_prints() -> None:
    given_ = rows(*({"conn_id": c} for c in (1, 2, 1, 2, 2)))
    out = bars.dedupe_trades(given_, fallback="content")
    assert out.num_rows == 3
    assert bars.dedupe_trades(given_).num_rows == 5  # fallback="pass"
    assert bars.dedupe_trades(given_, trade_id=None, fallback="content").equals(out)


def test_missing_cells_of_the_content_are_equal_to_each_other() -> None:
    cells = [
        {"conn_id": c, "price": p, "side": s} for c, p, s in ((1, None, None), (2, np.nan, None))
    ]
    assert bars.dedupe_trades(rows(*cells), fallback="content").num_rows == 1


def test_what_is_older_than_the_horizon_is_forgotten_and_refused() -> None:
    dedupe = stream(horizon=10)
    dedupe.push(rows({"trade_id": 1, "ts": 100}, {"trade_id": 2, "ts": 105}))
    out = dedupe.push(
        rows(
            {"trade_id": 3, "ts": 94},  # too old
            {"trade_id": 3, "ts": 95},
            {"trade_id": 1, "ts": 100},  # a copy
            {"trade_id": 4, "ts": 111},
            {"trade_id": 1, "ts": 112},  # the first 1 is forgotten, so this is no conflict
            {"trade_id": 5, "ts": 90, "symbol": "b"},
        )
    )
    assert out["trade_id"].to_pylist() == [3, 4, 1, 5]
    assert dedupe.counters["too_old"] == dedupe.counters["duplicates"] == 1
    assert dedupe.counters["conflicts"] == 0


def test_rows_without_key_or_time_pass() -> None:
    given_ = rows(*[{"trade_id": 7, "ts": None}] * 2, *[{"trade_id": 7, "symbol": None}] * 2)
    dedupe = stream()
    assert dedupe.push(given_).equals(given_)
    assert dedupe.counters["null"] == 4


def test_ids_may_be_texts() -> None:
    given_ = rows({}, {}, {}, {"symbol": "b"}).drop_columns("trade_id")
    for ids in (["u", "v", "u", "u"], [b"u", b"v", b"u", b"u"]):
        out = bars.dedupe_trades(given_.append_column("trade_id", pa.array(ids)))
        assert out["trade_id"].to_pylist() == [ids[0], ids[1], ids[3]]
        coded = pa.array(ids).dictionary_encode()
        assert bars.dedupe_trades(given_.append_column("trade_id", coded)).num_rows == 3


def test_equals_polars_unique_on_ids() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    frame = pl.DataFrame(
        {
            "ts": np.arange(n) // 3, "exchange": rng.choice(["x", "y"], n),
            "symbol": rng.choice(["a", "b", "c"], n), "trade_id": rng.integers(0, 8_000, n),
            "price": 1.0, "size": 1.0, "side": 1,
        }
    ).with_columns(ts=pl.col("trade_id"))  # fmt: skip
    keys = ["exchange", "symbol", "trade_id"]
    assert bars.dedupe_trades(frame).equals(frame.unique(keys, keep="first", maintain_order=True))


@st.composite
def arrivals(draw: st.DrawFn) -> list[Row]:
    cell = st.fixed_dictionaries(
        {
            "ts": st.one_of(st.none(), st.integers(0, 30), st.integers(0, 6)),
            "exchange": st.sampled_from(["x", "x", "y", None]),
            "symbol": st.just("a"),
            "trade_id": st.one_of(st.none(), st.integers(0, 5), st.none()),
            "price": st.sampled_from([1.0, 2.0, None]),
            "size": st.just(1.0),
            "side": st.sampled_from([1, None]),
            "conn_id": st.sampled_from([1, 2, None]),
        }
    )
    return draw(st.lists(cell, max_size=40))


def verdicts(given_: list[Row], fallback: str, horizon: int | None) -> list[str]:
    """The rules in words: dictionaries that forget by themselves."""
    found = []
    latest: dict[Any, int] = {}
    ids: dict[Any, tuple[Any, ...]] = {}
    per_feed: Counter[Any] = Counter()
    per_print: Counter[Any] = Counter()
    for r in given_:
        key, t = r["exchange"], r["ts"]
        if key is None or t is None:
            found.append("null")
            continue
        since = -(10**9) if horizon is None else latest.get(key, -(10**9)) - horizon
        if t < since:
            found.append("too_old")
            continue
        content = (t, r["price"], r["size"], r["side"])
        verdict = "kept"
        if r["trade_id"] is not None:
            before = ids.get((key, r["trade_id"]))
            if before is None or before[0] < since:
                ids[key, r["trade_id"]] = content
            else:
                verdict = "duplicates" if before == content else "conflicts"
        elif fallback == "content":
            per_feed[key, content, r["conn_id"]] += 1
            if per_feed[key, content, r["conn_id"]] > per_print[key, content]:
                per_print[key, content] += 1
            else:
                verdict = "duplicates"
        if verdict == "kept":
            latest[key] = max(latest.get(key, t), t)
        found.append(verdict)
    return found


@settings(max_examples=150)
@given(
    arrivals(),
    st.sampled_from(["pass", "content"]),
    st.sampled_from([None, 0, 3, 10]),
    st.booleans(),
    st.data(),
)
def test_any_cut_and_restart_follows_the_rules(
    given_: list[Row],
    fallback: str,
    horizon: int | None,
    restart: bool,
    data: st.DataObject,
) -> None:
    options = {"fallback": fallback, "horizon": horizon}
    whole = pa.Table.from_pylist(given_, SCHEMA)
    want = verdicts(given_, fallback, horizon)
    dedupe, out, conflicts, at = stream(**options), [SCHEMA.empty_table()], [], 0
    while at < whole.num_rows:
        size = data.draw(st.integers(1, 9))
        out.append(dedupe.push(whole.slice(at, size)))
        conflicts.extend(dedupe.conflicts.to_pylist())
        at += size
        if restart:
            blob = dedupe.snapshot()
            dedupe = stream(**options)
            dedupe.restore(blob)
    kept = [r for r, v in zip(given_, want, strict=True) if v in ("kept", "null")]
    assert pa.concat_tables(out).to_pylist() == kept
    assert conflicts == [r for r, v in zip(given_, want, strict=True) if v == "conflicts"]
    count = Counter(want)
    assert dedupe.counters == {"given": len(given_)} | {
        n: count[n] for n in ("kept", "duplicates", "conflicts", "too_old", "null")
    }
    assert bars.dedupe_trades(whole, **options).to_pylist() == kept


def test_a_long_stream_with_a_horizon_stays_small() -> None:
    dedupe = stream(horizon=100)
    for begin in range(0, 50_000, 500):
        batch = rows(*({"trade_id": n, "ts": n} for n in range(begin, begin + 500)))
        assert dedupe.push(batch).num_rows == 500
    assert len(dedupe.by_id.entries) < 3_000


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"fallback": "drop"}, "fallback must be pass or content"),
        ({"trade_id": "id"}, "no column 'id'"),
        ({"content": ("price", "qty")}, "no column 'qty'"),
        ({"fallback": "content", "connection": "feed"}, "there is no column 'feed'"),
        ({"horizon": -1}, "horizon must not be negative"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], match: str) -> None:
    with pytest.raises(gk.PlanError, match=match):
        bars.dedupe_trades(rows({"trade_id": 1}), **options)
