"""Any number of threads gives the same bits, also when one symbol's rows are shared out."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import samples

import gpukern as gk
from gpukern import job as job_module
from gpukern import piece, split
from gpukern.flow import Flow, Order
from gpukern.piece import Piece

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
    monkeypatch.setattr(piece, "WORTH_NS", 0.0)


@pytest.mark.parametrize("symbols", [1, 3])
@pytest.mark.parametrize("name", list(expressions()))
def test_threads_change_no_bit(name, symbols):
    plan = gk.Plan([expressions()[name]])
    data = table(symbols)
    seen = []
    for threads in (1, 2, 5):
        job = gk.Job(plan, threads=threads)
        # The second is shared out too, but too short for its passes over columns to be cut.
        parts = [job.run(data.slice(lo, rows)) for lo, rows in PARTS]
        seen.append((pa.concat_tables(parts).select(plan.output_names), job.snapshot()))
    for out, snapshot in seen[1:]:
        assert out.equals(seen[0][0])
        assert snapshot == seen[0][1]


def test_a_step_is_shared_when_it_is_worth_it(monkeypatch):
    monkeypatch.setattr(piece, "WORTH_NS", 10.0)
    shared = []
    step = Piece._shared_step
    monkeypatch.setattr(Piece, "_shared_step", lambda p, n: shared.append(n) or step(p, n))
    job = gk.Job(gk.Plan([gk.rolling_mean("price", 5)]), threads=2)
    names = job.plan.output_names  # the prices have NaN, which equals nothing
    expected = job.plan.run(table(2), threads=1).select(names)
    job.run(table(2).slice(0, 3_000))
    assert not shared  # how long it takes is not known yet
    for pace_ns, count in ((9.0, 0), (11.0, 1)):
        shared.clear()
        fresh = gk.Job(job.plan, threads=2)
        fresh.pace_ns = pace_ns
        assert fresh.run(table(2)).select(names).equals(expected)
        assert len(shared) == count


def test_a_wrong_guess_is_run_again():
    plan = gk.Plan([gk.cusum("ret", mu=-1.0, sigma=1.0, h=1e9)])
    job = gk.Job(plan, threads=4)
    job.run(table(1))
    assert job.states[0].mispredicted > 0


def test_a_right_guess_is_kept():
    plan = gk.Plan([gk.cusum("ret", mu=0.0, sigma=1.0, h=3.0)])
    job = gk.Job(plan, threads=4)
    job.run(table(1))
    assert job.states[0].mispredicted == 0


def test_a_step_that_outweighs_the_others_is_cut_by_symbols(monkeypatch):
    plan = gk.Plan(gk.default_features())
    data = samples.market().select(plan.input_columns)
    opened = {}
    parts = Piece._parts
    monkeypatch.setattr(Piece, "_parts", lambda p, n: opened.setdefault(n, parts(p, n)))
    job = gk.Job(plan, threads=2)
    (heavy,) = job.groups
    job.cost[heavy] = 10**9
    out = job.run(data)
    assert [n for n, units in opened.items() if len(units) > 1] == [heavy]
    samples.assert_same(out, plan.run(data, threads=1), plan.output_names)


class Waiting:
    """Units 0…n−1, each noted when it runs; every unit reads the given ones."""

    def __init__(self, reads: dict[int, set[int]]) -> None:
        self.order = object.__new__(Order)
        self.order.units = list(reads)
        self.order.sources = reads
        self.order.readers = {n: [m for m, made in reads.items() if n in made] for n in reads}
        self.done: list[int] = []

    def flow(self, open_unit) -> Flow:
        return Flow(self.order, [0, 5, 1, 1, 1, 1], open_unit)

    def run(self, unit: int) -> bool:
        assert self.order.sources[unit] <= set(self.done)
        self.done.append(unit)
        return True


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as workers:
        yield workers


def test_units_run_when_what_they_read_is_there_the_longest_way_first(pool):
    units = Waiting({0: set(), 1: set(), 2: {0}, 3: {2}, 4: {1, 3}, 5: set()})
    units.flow(lambda n: [partial(units.run, n)]).run(pool, 1)
    assert units.done == [1, 0, 2, 3, 4, 5]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_unit_in_parts_is_done_with_its_last(pool, threads):
    units = Waiting({0: set(), 1: {0}, 2: {0}, 3: {1, 2}})
    parts = {n: [0, 1, 2] for n in units.order.units}

    def part(unit: int) -> bool:
        last = parts[unit].pop() == 0
        return units.run(unit) if last else False

    units.flow(lambda n: [partial(part, n)] * 3).run(pool, threads)
    assert sorted(units.done) == [0, 1, 2, 3]
    assert not any(parts.values())


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_error_in_a_unit_ends_the_piece(pool, threads):
    units = Waiting({0: set(), 1: {0}, 2: {1}})

    def fail(unit: int) -> bool:
        if unit == 1:
            raise MemoryError("no room for unit 1")
        return units.run(unit)

    with pytest.raises(MemoryError, match="unit 1"):
        units.flow(lambda n: [partial(fail, n)]).run(pool, threads)
    assert units.done == [0]
