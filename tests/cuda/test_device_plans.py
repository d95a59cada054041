"""What a plan may be given (shapes, cuts, containers, mappings) gives the CPU's bits there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import checks
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import samples
from device_checks import check_run, check_stream, plans
from hypothesis import given, settings
from hypothesis import strategies as st

import gpukern as gk
from gpukern import device_piece
from gpukern.errors import DeviceError, UnsortedError
from gpukern.forms.cpu import BLOCK

# One expression of every template: map (no lag, row lag, time lag), fold (rows, time, cumulative,
# segmented), step (plain, with a ring), rank (rows, time).
FORMS = [
    gk.midprice(),
    gk.log_returns("price", k=3).alias("returns_rows"),
    gk.log_returns("price", k="7s").alias("returns_time"),
    gk.rolling_var("price", window=7).alias("var_rows"),
    gk.rolling_var("price", window="20s").alias("var_time"),
    gk.ewma("price", alpha=0.1),
    gk.vwap(anchor="1h", offset="10m").alias("vwap_hour"),
    gk.kalman_1d("price"),
    gk.vpin(side="side", bucket_volume=3.0, n_buckets=4),
    gk.rolling_median("price", window=9).alias("median_rows"),
    gk.rolling_median("price", window="20s").alias("median_time"),
    gk.trade_sign(bid="bid", ask="ask"),
]


def one_symbol(rows: int) -> pa.Table:
    values, nulls = samples.punch(samples.columns(rows, seed=21), share=0.02, seed=22)
    return samples.table({"BTC/USD": values}, holes={"BTC/USD": nulls})


def keyed(rows: int, symbols: int) -> pa.Table:
    """Rows of one walk dealt out to symbols at random."""
    keys = np.random.default_rng(5).integers(0, symbols, rows)
    names = pa.array([f"S{n}" for n in range(symbols)])
    column = pa.DictionaryArray.from_arrays(pa.array(keys, pa.int32()), names)
    return one_symbol(rows).set_column(0, "symbol", column)


@pytest.mark.parametrize("edge", [BLOCK, 2 * BLOCK])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_pieces_may_end_beside_a_block_s_edge(edge: int, step: int) -> None:
    for plan in plans(FORMS):
        check_stream(plan, one_symbol(2 * BLOCK + 60), "cudasim", [edge + step])


@given(cuts=st.lists(st.integers(0, 400), max_size=6), swap=st.integers(0, 6))
@settings(max_examples=8)
def test_any_cut_gives_the_bits_of_the_batch(cuts: list[int], swap: int) -> None:
    check_stream(gk.Plan(FORMS), keyed(400, 3), "cudasim", cuts, swaps=(swap,))


@pytest.mark.parametrize("symbols", [1, 2, 150])
def test_few_long_and_many_short_series(symbols: int) -> None:
    for plan in plans(FORMS):
        check_run(plan, keyed(600, symbols), "cudasim")


def test_a_window_longer_than_the_data_and_several_blocks() -> None:
    exprs = [
        gk.rolling_mean("price", window=3 * BLOCK, min_periods=2).alias("rows"),
        gk.rolling_mean("price", window="1h", min_periods=2).alias("time"),
        gk.rolling_median("price", window=3 * BLOCK, min_periods=2).alias("rank"),
    ]
    for plan in plans(exprs):
        check_stream(plan, one_symbol(700), "cudasim", [90, 500])


def test_symbols_that_come_later_find_room() -> None:
    late = pa.concat_tables([keyed(100, 1), keyed(100, 60), keyed(200, 140)])
    late = late.set_column(1, "ts", one_symbol(400)["ts"])
    for plan in plans(FORMS):
        check_stream(plan, late, "cudasim", [100, 200], swaps=(1,))


@pytest.mark.parametrize("policy", ["skip", "propagate"])
def test_the_default_features(policy: str) -> None:
    plan = gk.Plan(gk.default_features(), nan_policy=policy)
    assert len(plan.output_names) == 48
    table = samples.market().slice(0, 700)
    check_run(plan, table, "cudasim")
    check_stream(plan, table, "cudasim", [1, 40, 300], swaps=(1,))


def test_without_a_key_all_rows_are_one_series() -> None:
    for plan in plans(FORMS, by=None):
        check_stream(plan, one_symbol(300), "cudasim", [7, 150])


def test_several_keys_make_one() -> None:
    table = keyed(200, 3).append_column("venue", pa.array(["x", "y"] * 100))
    check_stream(gk.Plan(FORMS, by=["venue", "symbol"]), table, "cudasim", [50])


@pytest.mark.parametrize(
    "expr",
    [
        gk.rolling_var("price", window={"S0": 3, "S1": 9, "S2": 40}),
        gk.rolling_median("price", window={"S0": "5s", "S1": "9s", "S2": "60s"}),
        gk.ema("price", period={"S0": 3, "S1": 5, "S2": 9}),
        gk.lag("price", k={"S0": 1, "S1": 5, "S2": 2}),
        gk.kalman_1d("price", q={"S0": 0.1, "S1": 0.01, "S2": 0.5}),
        gk.vpin(side="side", bucket_volume={"S0": 1.0, "S1": 2.0, "S2": 5.0}, n_buckets=3),
    ],
    ids=lambda expr: expr.kernel.name,
)
def test_a_parameter_per_symbol(expr: Any) -> None:
    for plan in plans([expr]):
        check_stream(plan, keyed(400, 3), "cudasim", [5, 150], swaps=(1,))


def test_a_large_table_goes_in_pieces() -> None:
    for plan in plans(FORMS):
        table = keyed(400, 3).select(plan.input_columns)
        job = plan.start(device="cudasim")
        job.most_rows = 64
        made = job.run(table)
        samples.assert_same(made, plan.run(table), plan.output_names)


def test_rows_beyond_32_bits_over_all_classes_are_counted_class_by_class(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    running_sum = simulator.running_sum

    def noted(values: Any, out: Any = None) -> Any:
        counted.append(values.size)
        return running_sum(values, out)

    monkeypatch.setattr(simulator, "running_sum", noted)
    monkeypatch.setattr(device_piece, "MOST_COUNTED", 500)
    for plan in plans(FORMS):
        check_run(plan, keyed(400, 3), "cudasim")
    assert max(counted) <= 500


def test_sorted_on_request_and_back_in_the_caller_s_order() -> None:
    plan = gk.Plan(FORMS)
    table = keyed(200, 3).select(plan.input_columns)
    mixed = table.take(np.random.default_rng(1).permutation(200))
    made = plan.run(mixed, device="cudasim", sort=True)
    samples.assert_same(made, plan.run(mixed, sort=True), plan.output_names)


def test_pandas_and_polars_come_back_as_what_they_were() -> None:
    plan = gk.Plan(FORMS)
    table = keyed(120, 2).select(plan.input_columns)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert plan.run(frame, device="cudasim").equals(plan.run(frame), null_equal=True)
    old = table.to_pandas()
    pd.testing.assert_frame_equal(plan.run(old, device="cudasim"), plan.run(old))


def test_an_empty_table_has_the_columns() -> None:
    plan = gk.Plan(FORMS)
    empty = keyed(10, 1).slice(0, 0).select(plan.input_columns)
    assert plan.run(empty, device="cudasim").schema == plan.run(empty).schema


def test_a_refused_batch_changes_nothing() -> None:
    plan = gk.Plan(FORMS)
    table = keyed(200, 3).select(plan.input_columns)
    job = plan.start(device="cudasim")
    job.push(table.slice(0, 100))
    before = job.snapshot()
    with pytest.raises(UnsortedError, match="time goes backwards"):
        job.push(table.slice(0, 100))
    assert job.snapshot() == before
    rest = job.push(table.slice(100))
    samples.assert_same(rest, plan.run(table), plan.output_names, np.arange(100, 200))


def test_columns_on_the_device_stay_there() -> None:
    plan = gk.Plan([gk.ewma("price", alpha=0.1), gk.rolling_sum("size", window="20s")])
    table = samples.clean(300).select(plan.input_columns)
    job: Any = plan.start(device="cudasim")
    slots = np.full(300, job.symbols.slot("BTC/USD"), np.int32)
    columns = {n: table[n].to_numpy() for n in plan.value_columns}
    words, bitmaps = job.run_resident(300, slots, table["ts"].cast("int64").to_numpy(), columns)
    expected = plan.run(table)
    for n, name in enumerate(plan.output_names):
        valid, values = samples.bits(expected[name])
        own = bitmaps[n * 38 : (n + 1) * 38]  # a bit for each of 300 rows
        np.testing.assert_array_equal(np.unpackbits(own, bitorder="little")[:300], valid)
        np.testing.assert_array_equal(words[n * 300 : (n + 1) * 300][valid], values[valid])


# ------------------------------------------------------------------------ steps that are guessed


def pushed(expr: Any, table: pa.Table) -> Any:
    plan = gk.Plan([expr])
    job = plan.start(device="cudasim")
    made = job.push(table.select(plan.input_columns))
    samples.assert_same(made, plan.run(table), plan.output_names)
    return job


def test_right_guesses_need_no_repair() -> None:
    job = pushed(gk.cusum("price", mu=1.0, sigma=2.0), samples.clean(600))
    assert job.repaired == {"cusum": 0}


def test_wrong_guesses_are_repaired_side_by_side(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "speculate_rows", 40)
    table = samples.clean(600)
    chunks = table.num_rows // 40
    job = pushed(gk.kalman_1d("price", q=0.1, r=0.1), table)
    assert 0 < job.repaired["kalman_1d"] < chunks


def test_what_guessing_cannot_find_runs_on_one_thread() -> None:
    # A calibration on the first rows of a symbol is never found from the rows before a chunk.
    job = pushed(gk.cusum("price", calib=10, reset=False), samples.clean(600))
    assert job.repaired["cusum"] > 100


# --------------------------------------------------------------------------------- out of memory


def short_of_memory(monkeypatch: pytest.MonkeyPatch, simulator: Any, most: int) -> None:
    upload = simulator.staging.upload

    def refuse(columns: list[np.ndarray]) -> np.ndarray:
        if columns and len(columns[0]) > most:
            raise MemoryError(f"{len(columns[0])} rows")
        return upload(columns)

    monkeypatch.setattr(simulator.staging, "upload", refuse)


def test_out_of_memory_means_smaller_pieces(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = gk.Plan([gk.ewma("price", alpha=0.1), gk.rolling_sum("size", window="20s")])
    table = keyed(17_000, 2).select(plan.input_columns)
    short_of_memory(monkeypatch, simulator, most=9_000)
    job = plan.start(device="cudasim")
    samples.assert_same(job.push(table), plan.run(table), plan.output_names)
    assert job.most_rows == 8_496


def test_a_piece_that_failed_holds_no_memory(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most = [0], 900_000
    empty = simulator.empty

    def limited(n: int, kind: str) -> np.ndarray:
        made = empty(n, kind)
        if held[0] + made.nbytes > most:
            raise MemoryError(f"{made.nbytes} bytes")
        held[0] += made.nbytes
        weakref.finalize(made, lambda size=made.nbytes: held.__setitem__(0, held[0] - size))
        return made

    plan = gk.Plan([gk.ewma("price", alpha=0.1)])
    table = keyed(17_000, 2).select(plan.input_columns)
    job = plan.start(device="cudasim")
    monkeypatch.setattr(simulator, "empty", limited)
    samples.assert_same(job.push(table), plan.run(table), plan.output_names)
    assert job.most_rows == 8_496


def test_out_of_memory_on_a_small_piece_is_an_error(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = gk.Plan([gk.midprice()])
    short_of_memory(monkeypatch, simulator, most=10)
    with pytest.raises(DeviceError, match=r"out of memory on a piece of 50 rows.*device='cpu'"):
        plan.run(keyed(50, 1).select(plan.input_columns), device="cudasim")


class Allowance:
    """The simulator with memory for so many requests more."""

    def __init__(self, simulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1 << 62
        for owner, name in [
            (simulator, "empty"), (simulator, "full"), (simulator, "put"), (simulator, "argsort"),
            (simulator, "running_sum"), (simulator.staging, "upload"),
            (simulator.staging, "fill"), (simulator.staging, "make_room"),
        ]:  # fmt: skip
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))

    def counted(self, request: Any) -> Any:
        def limited(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise MemoryError("no memory left")
            return request(*arguments, **options)

        return limited


@pytest.fixture
def allowance(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> Allowance:
    return Allowance(simulator, monkeypatch)


def failures(push: Callable[[], Any], allowance: Allowance, places: Iterable[int]) -> Iterator[int]:
    """Try with memory for so many requests; yields those that were not enough."""
    for enough in places:
        allowance.left = enough
        try:
            push()
        except DeviceError as error:
            said = str(error)
        else:
            return
        finally:
            allowance.left = 1 << 62
        assert "out of memory" in said
        yield enough
    raise AssertionError("memory was never enough")


def check_push(job: Any, batch: pa.Table, allowance: Allowance, places: Iterable[int]) -> None:
    """Wherever memory runs short, the batch leaves no trace, until it has been pushed."""
    before, last = job.snapshot(), 0
    for enough in failures(lambda: job.push(batch), allowance, places):
        assert job.snapshot() == before, f"after {enough} requests"
        last = enough
    assert last > 15


@pytest.mark.parametrize("policy", ["skip", "propagate"])
def test_a_push_without_memory_leaves_the_state(policy: str, allowance: Allowance) -> None:
    plan = gk.Plan(FORMS, nan_policy=policy)
    table = keyed(44, 7).select(plan.input_columns)  # too few rows for many threads on a symbol
    job = plan.start(device="cudasim")
    job.push(table.slice(0, 15))
    check_push(job, table.slice(15, 20), allowance, range(1_000))
    rest = job.push(table.slice(35))
    samples.assert_same(rest, plan.run(table), plan.output_names, np.arange(35, 44))


def test_a_long_push_without_memory_leaves_the_state(allowance: Allowance) -> None:
    plan = gk.Plan(FORMS)
    table = keyed(200, 3).select(plan.input_columns)
    job = plan.start(device="cudasim")
    job.push(table.slice(0, 20))
    check_push(job, table.slice(20, 120), allowance, range(0, 1_000, 29))
    rest = job.push(table.slice(140))
    samples.assert_same(rest, plan.run(table), plan.output_names, np.arange(140, 200))


@pytest.mark.parametrize("rows", [40, 64])
def test_a_later_piece_without_memory_takes_the_earlier_back(
    rows: int, allowance: Allowance
) -> None:
    plan = gk.Plan(FORMS)
    table = keyed(240, 3).select(plan.input_columns)
    job: Any = plan.start(device="cudasim")
    job.most_rows = rows
    job.push(table.slice(0, 20))
    check_push(job, table.slice(20, 200), allowance, range(40, 4_000, 160 if rows > 48 else 20))
    rest = job.push(table.slice(220))
    samples.assert_same(rest, plan.run(table), plan.output_names, np.arange(220, 240))


@pytest.mark.parametrize("rows", [40, 64])
def test_columns_on_the_device_without_memory_leave_the_state(
    rows: int, allowance: Allowance
) -> None:
    plan = gk.Plan([gk.rolling_sum("size", window="20s"), gk.ewma("price", alpha=0.1)], by=None)
    table = samples.clean(rows).select(plan.input_columns)
    columns = {n: table[n].to_numpy() for n in plan.value_columns}
    times = table["ts"].cast("int64").to_numpy()
    job: Any = plan.start(device="cudasim")
    slot = job.symbols.slot(None)
    job._grow()
    before = job.snapshot()

    def push() -> None:
        job.run_resident(rows, slot, times, columns)

    for _ in failures(push, allowance, range(1_000)):
        assert job.snapshot() == before
    host = plan.start()
    host.push(table)
    assert job.snapshot() == host.snapshot()


def mapped_plans() -> Iterator[gk.Plan]:
    """Every kernel with every parameter that may differ by symbol, differing."""
    for name, kernel in gk.kernels().items():
        for given_, parameter, values in checks.mapped_cases(kernel):
            chosen = {s: values[n % 2] for n, s in enumerate(samples.SYMBOLS)}
            try:
                yield gk.Plan([kernel(**given_, **{parameter: chosen})])
            except gk.PlanError as error:
                if f"{name}: {parameter} must be" not in str(error):  # it decides the kernel
                    raise


def test_mappings_of_every_kernel_are_those_of_the_cpu() -> None:
    table = samples.market().slice(0, 300)
    tried = 0
    for plan in mapped_plans():
        check_stream(plan, table, "cudasim", [100])
        tried += 1
    assert tried > 60
