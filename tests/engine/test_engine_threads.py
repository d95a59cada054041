"""Any number of threads gives the same bits, also when one symbol's rows are shared out."""

import numpy as np
import pyarrow as pa
import pytest

import gpukern as gk
from gpukern import job as job_module
from gpukern import split, tape

ROWS = 6_000


def table(symbols: int, seed: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    price = 67000 + np.round(rng.normal(size=ROWS).cumsum(), 2) * 0.01
    price[rng.random(ROWS) < 0.05] = np.nan
    return pa.table(
        {
            "symbol": pa.array(rng.choice(["A", "B", "C"][:symbols], ROWS)),
            "ts": np.sort(rng.integers(0, 3 * 10**12, ROWS)),
            "price": price,
            "size": rng.random(ROWS),
            "ret": rng.normal(size=ROWS),
        }
    )


def expressions() -> dict[str, gk.Expr]:
    # One of every template variant, and steps that do and do not forget their beginning.
    return {
        "map": gk.signed_volume("ret", "size"),
        "map with a lag in rows": gk.log_returns("price", k=3),
        "map with no lag": gk.lag("price", k=0),
        "map with a lag in time": gk.diff("price", k="5s"),
        "fold over rows": gk.rolling_std("price", window=37),
        "fold over rows, no zero identity": gk.rolling_min("ret", window=37),
        "fold over rows of differences": gk.kyle_lambda("price", "ret", window=50),
        "fold over time": gk.rolling_std("price", window="20s"),
        "fold over rows before": gk.donchian_channel(
            "price", "price", window=21, include_current=False
        ),
        "rank over rows": gk.rolling_median("price", window=41),
        "rank over time": gk.rolling_median("price", window="20s"),
        "rank over rows before": gk.outlier_flag_mad("ret", window=41),
        "cumulative": gk.welford_mean_var("price"),
        "cumulative with previous rows": gk.rsi("price"),
        "cumulative with seed": gk.ema("price", period=200),
        "cumulative with segments": gk.vwap("price", "size", anchor="1m"),
        "step that forgets": gk.macd("price"),
        "step that does not": gk.cusum("ret", mu=-1.0, sigma=1.0, h=1e9),
    }


PARTS = ((0, 2_500), (2_500, 400), (2_900, None))


@pytest.fixture(autouse=True)
def _small_shares(monkeypatch):
    monkeypatch.setattr(split, "LEAST", 256)
    monkeypatch.setattr(split, "SPECULATE", 512)
    monkeypatch.setattr(job_module, "SHARE", 256)


def in_pieces(plan, threads):
    job = gk.Job(plan, threads=threads)
    job.taped = False
    return job


@pytest.mark.parametrize("symbols", [1, 3])
@pytest.mark.parametrize("name", list(expressions()))
def test_threads_change_no_bit(name, symbols, monkeypatch):
    monkeypatch.setattr(tape, "MOST", 0)
    monkeypatch.setattr(tape, "STRETCH", 128)
    monkeypatch.setattr(tape, "RUN", 1)
    plan = gk.Plan([expressions()[name]])
    data = table(symbols)
    seen = []
    for make in (in_pieces, gk.Job):
        for threads in (1, 2, 5):
            job = make(plan, threads=threads)
            # The second is shared out too, but too short for its passes over columns to be cut.
            parts = [job.run(data.slice(lo, rows)) for lo, rows in PARTS]
            seen.append((pa.concat_tables(parts).select(plan.output_names), job.snapshot()))
    for out, snapshot in seen[1:]:
        assert out.equals(seen[0][0])
        assert snapshot == seen[0][1]


@pytest.mark.parametrize(("worth_ns", "rows"), [(0.0, ROWS - 2 * 512), (np.inf, 0)])
@pytest.mark.parametrize("symbol", [["A"], ["A", "A", "A", "B"]])
def test_one_symbol_is_shared_when_it_is_worth_it(symbol, worth_ns, rows, monkeypatch):
    monkeypatch.setattr(job_module, "TRIAL", 512)
    monkeypatch.setattr(job_module, "WORTH_NS", worth_ns)
    monkeypatch.setattr(tape, "MOST", 0)
    shared = []
    pieces = gk.Job._pieces
    monkeypatch.setattr(
        gk.Job,
        "_pieces",
        lambda job, lo, n, *rest: shared.append(n - lo) or pieces(job, lo, n, *rest),
    )
    plan = gk.Plan([gk.rolling_mean("price", 5)])
    data = table(1).set_column(0, "symbol", pa.array(symbol * (ROWS // len(symbol))))
    expected = in_pieces(plan, 1).run(data).select(plan.output_names)
    shared.clear()
    assert gk.Job(plan, threads=2).run(data).select(plan.output_names).equals(expected)
    assert shared == [rows]


def test_rows_of_many_symbols_need_no_trial(monkeypatch):
    monkeypatch.setattr(job_module, "TRIAL", 512)
    monkeypatch.setattr(job_module, "WORTH_NS", 0.0)
    job = gk.Job(gk.Plan([gk.rolling_mean("price", 5)]), threads=2)
    assert job._has_one_long_run(ROWS, np.arange(ROWS) % 3) is False
    assert job._has_one_long_run(ROWS, 0) is True


def test_a_wrong_guess_is_run_again():
    plan = gk.Plan([gk.cusum("ret", mu=-1.0, sigma=1.0, h=1e9)])
    job = in_pieces(plan, 4)
    job.run(table(1))
    assert job.states[0].mispredicted > 0


def test_a_right_guess_is_kept():
    plan = gk.Plan([gk.cusum("ret", mu=0.0, sigma=1.0, h=3.0)])
    job = in_pieces(plan, 4)
    job.run(table(1))
    assert job.states[0].mispredicted == 0
