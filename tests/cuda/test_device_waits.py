"""A piece's work is queued whole: nothing is asked of the device, or loaded, before its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import samples
from test_device_plans import FORMS, keyed, one_symbol

import gpukern as gk
from gpukern import backend
from gpukern.device_chunks import Chunks
from gpukern.errors import DeviceError

# Beside the forms: a window that is wide for its chunks, and one that begins anew every hour.
EXPRESSIONS = [
    *FORMS,
    gk.rolling_mean("price", window="300s").alias("mean_wide"),
    gk.rolling_quantile("price", q=0.9, window="300s").alias("quantile_wide"),
    gk.ewma(gk.log_returns("price"), alpha=0.3).alias("second_level"),
]


class Remote(np.ndarray):
    """Memory of a device: elements are there for launches, and for the host when it fetches."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("the host reads memory of the device without fetching it")

    __int__ = __float__ = __bool__ = __index__ = __iter__ = __array_function__ = _refuse
    item = tolist = sum = min = max = any = all = tobytes = _refuse

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, Remote) else self._refuse()


@pytest.fixture
def events(simulator: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the host does with the simulator: the names of launches, "fetch" and "load"."""
    noted: list[str] = []
    load = simulator.load

    def remote(make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: make(*arguments, **options).view(Remote)

    def host(array: Any) -> np.ndarray:
        noted.append("fetch")
        return np.asarray(array).copy()

    def loaded(function: Any, digest: str, kinds: str) -> Any:
        noted.append("load")
        launch = load(function, digest, kinds)

        def note(*arguments: Any) -> None:
            noted.append(function.__name__)
            launch(*arguments)

        return note

    def running_sum(values: Any, out: Any = None) -> Any:
        noted.append("running_sum")
        own = None if out is None else np.asarray(out)
        return np.cumsum(np.asarray(values), dtype=np.int64, out=own).view(Remote)

    def argsort(codes: Any) -> Any:
        return np.argsort(np.asarray(codes), kind="stable").astype(np.int32).view(Remote)

    for name in ("empty", "full", "put"):
        monkeypatch.setattr(simulator, name, remote(getattr(simulator, name)))
    monkeypatch.setattr(simulator.staging, "upload", remote(simulator.staging.upload))
    for name, own in (
        ("fetch", host), ("load", loaded), ("running_sum", running_sum), ("argsort", argsort),
    ):  # fmt: skip
        monkeypatch.setattr(simulator, name, own)
    return noted


def pieces(events: list[str]) -> Iterator[list[str]]:
    """The events from each piece's first launch to its last."""
    begins = [at for at, name in enumerate(events) if name == "find_runs"]
    for begin, end in zip(begins, [*begins[1:], len(events)], strict=True):
        last = max(at for at in range(begin, end) if events[at] == "finish")
        yield events[begin : last + 1]


@pytest.mark.parametrize("symbols", [1, 3])
def test_a_large_table_s_pieces_are_queued_whole(symbols: int, events: list[str]) -> None:
    plan = gk.Plan(EXPRESSIONS)
    table = keyed(400, symbols).select(plan.input_columns)
    job: Any = plan.start(device="cudasim")
    job.most_rows = 200
    samples.assert_same(job.run(table), plan.run(table), plan.output_names)
    whole = list(pieces(events))
    assert len(whole) == 2
    for piece in whole:
        assert {"thin_starts", "verify", "scan", "finish"} <= set(piece)  # many threads a symbol
        assert not {"fetch", "load"} & set(piece)


def test_a_small_batch_is_queued_whole(events: list[str]) -> None:
    plan = gk.Plan(EXPRESSIONS)
    table = keyed(60, 3).select(plan.input_columns)
    job = plan.start(device="cudasim")
    job.push(table.slice(0, 30))
    job.push(table.slice(30))
    whole = list(pieces(events))
    assert whole
    assert not any({"fetch", "load"} & set(piece) for piece in whole)


def test_batches_that_find_room_ask_nothing_at_all(events: list[str]) -> None:
    plan = gk.Plan(EXPRESSIONS)
    table = keyed(100, 3).select(plan.input_columns)
    job = plan.start(device="cudasim")
    job.push(table.slice(0, 40))
    del events[:]
    for at in range(40, 46):
        job.push(table.slice(at, 1))
    assert not {"fetch", "load"} & set(events)


# ------------------------------------------------------------------------- code that is not loaded


class Status(RuntimeError):
    """An error of the driver."""

    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA_ERROR_{status}")
        self.status = status


@pytest.mark.parametrize(
    ("status", "remedy"), [(222, "update the driver, take the extra"), (209, "use device='cpu'")]
)
def test_a_driver_that_does_not_load_code_is_named(status: int, remedy: str) -> None:
    error = backend.load_error("run", Status(status), "cuda")
    assert isinstance(error, DeviceError)
    said = f"device 'cuda': the driver does not load run (CUDA_ERROR_{status}); {remedy}"
    assert str(error).startswith(said)


def refuse(function: Any, digest: str, kinds: str) -> Any:
    raise backend.load_error(function.__name__, Status(2), "cuda")


def test_a_job_whose_code_finds_no_memory_does_not_start(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator, "load", refuse)
    with pytest.raises(DeviceError, match=r"out of memory before the first row .*the code of"):
        gk.Plan(FORMS).start(device="cudasim")


def test_code_of_large_pieces_without_memory_leaves_the_state(
    simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = gk.Plan(FORMS)
    table = keyed(200, 3).select(plan.input_columns)
    job = plan.start(device="cudasim")
    job.push(table.slice(0, 20))
    before = job.snapshot()
    with monkeypatch.context() as short:
        short.setattr(simulator, "load", refuse)
        with pytest.raises(DeviceError, match="out of memory on a piece of 180 rows"):
            job.push(table.slice(20))
    assert job.snapshot() == before
    rest = job.push(table.slice(20))
    samples.assert_same(rest, plan.run(table), plan.output_names, np.arange(20, 200))


# ------------------------------------------------------------------- windows wide for their chunks


@pytest.mark.parametrize("window", ["5s", "60s", "300s", "2h"])
@pytest.mark.parametrize("name", ["rolling_mean", "rolling_median"])
def test_a_window_of_any_width_needs_room_for_two_rows_a_row(
    name: str, window: str, simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[tuple[int, int]] = []
    own = Chunks._arena

    def noted(chunks: Any) -> Any:
        room, arena = own(chunks)
        fields = chunks.step.layout.arena_fields
        rooms.append((int(room[chunks.most]) * fields, arena.size))
        return room, arena

    monkeypatch.setattr(Chunks, "_arena", noted)
    plan = gk.Plan([gk.kernels()[name]("price", window=window)])
    table = one_symbol(600).select(plan.input_columns)
    job: Any = plan.start(device="cudasim")
    job.most_rows = 304
    samples.assert_same(job.run(table), plan.run(table), plan.output_names)
    assert len(rooms) == 2
    assert all(used <= room for used, room in rooms)
