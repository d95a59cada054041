"""A GPU under measurement: its copy rates, and plans timed on columns that are on it already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

import gpukern as gk
from gpukern import backend
from gpukern.device_job import DeviceJob
from gpukern.kernel import Kernel

from .harness import median

GIB = 1 << 30
# What a kernel needs beyond its defaults.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "ema": {"period": 20},
    "ewma": {"half_life": 20},
    "ewvar": {"half_life": 20},
    "ewstd": {"half_life": 20},
    "ewcov": {"half_life": 20},
    "ewcorr": {"half_life": 20},
    "vpin": {"side": "side", "bucket_volume": 50.0},
    "trade_sign": {"bid": "bid", "ask": "ask"},
}


def arguments_of(kernel: Kernel) -> dict[str, Any]:
    """Arguments with which the kernel is measured."""
    return ARGUMENTS.get(kernel.name, {})


class Device:
    """The GPU's own rates, in bytes per second: a copy counts what is read and what is written."""

    def __init__(self, size: int = 2 * GIB) -> None:
        import cupy

        self.cp = cupy
        self.engine: Any = backend.get("cuda")
        source = cupy.ones(size // 8)
        target = cupy.empty_like(source)
        self.copy = 2 * size / self.seconds(lambda: cupy.copyto(target, source))
        pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.float64, size // 8)
        pinned[:] = 1.0
        self.to_device = size / self.seconds(lambda: target.set(pinned, stream=self.engine.stream))
        self.to_host = size / self.seconds(
            lambda: source.get(stream=self.engine.stream, out=pinned, blocking=False)
        )

    def seconds(self, work: Callable[[], object], repeats: int = 10, stream: Any = None) -> float:
        """Median time of work queued on a stream (the engine's), by the device's clock."""
        times = []
        stream = self.engine.stream if stream is None else stream
        with stream:
            for repeat in range(repeats + 2):
                begin, end = self.cp.cuda.Event(), self.cp.cuda.Event()
                begin.record(stream)
                work()
                end.record(stream)
                end.synchronize()
                if repeat >= 2:
                    times.append(self.cp.cuda.get_elapsed_time(begin, end) / 1e3)
        return median(times)


def columns_of(table: pa.Table) -> dict[str, np.ndarray]:
    """Every column that a kernel may name, from a ticker table."""
    price, size, bid, ask = (table[n].to_numpy() for n in ("price", "size", "bid", "ask"))
    ts = table["ts"].cast(pa.int64()).to_numpy()
    change = np.diff(np.log(price), prepend=np.log(price[0]))
    side = table["side"].to_numpy().astype(np.float64)
    return {
        "ts": ts, "price": price, "size": size, "volume": size, "side": side, "bid": bid,
        "ask": ask, "bid_size": table["bid_size"].to_numpy(),
        "ask_size": table["ask_size"].to_numpy(), "open": price, "high": np.maximum(price, ask),
        "low": np.minimum(price, bid), "close": price, "exec_price": price,
        "midprice": (bid + ask) / 2.0, "signed_volume": side * size, "log_return": change,
        "pnl": change, "equity": price, "x": price, "y": bid, "last_update": ts - 500_000_000,
    }  # fmt: skip


class Resident:
    """A plan on columns that are on the device; every run continues the one before."""

    def __init__(self, device: Device, plan: gk.Plan, table: pa.Table) -> None:
        self.device, self.plan = device, plan
        self.rows = table.num_rows
        self.job = DeviceJob(plan, "cuda")
        host = columns_of(table)
        coded = table["symbol"].combine_chunks()
        for name in coded.dictionary.to_pylist():
            self.job.symbols.slot(name)
        put = device.engine.put
        with device.engine.working():
            self.slots = put(coded.indices.to_numpy().astype(np.int32))
            self.t = put(host["ts"])
            self.columns = {
                n: put(host[n].astype(np.int64 if n in self.job.integers else np.float64))
                for n in plan.value_columns
            }
        self.span = int(host["ts"][-1] - host["ts"][0]) + 1
        steps = sum(len(s.kernel.inputs) + len(s.kernel.outputs) for s in plan.steps)
        self.step_bytes = 8 * self.rows * steps
        width = len(self.columns) + int(plan.uses_time)
        self.bytes_in = self.rows * (8 * width + 4)
        self.bytes_out = len(plan.outputs) * (8 * self.rows + self.rows // 8)
        self.bytes = self.bytes_in + self.bytes_out
        self.events: list[tuple[Any, Any]] = []
        for step in self.job.steps:
            setattr(step, "run", self._noted(step.run))  # noqa: B010 – a method, for the time being

    def _noted(self, run: Callable[..., None]) -> Callable[..., None]:
        event, stream = self.device.cp.cuda.Event, self.device.engine.stream

        def noted(*arguments: Any) -> None:
            begin, end = event(), event()
            begin.record(stream)
            run(*arguments)
            end.record(stream)
            self.events.append((begin, end))

        return noted

    def seconds(self, repeats: int) -> tuple[float, float]:
        """Median seconds of the whole work, and of the steps' own launches in it."""
        cp, stream = self.device.cp, self.device.engine.stream
        whole, steps = [], []
        for repeat in range(repeats + 1):
            self.events.clear()
            with self.device.engine.working():
                self.t += self.span
                begin, end = cp.cuda.Event(), cp.cuda.Event()
                begin.record(stream)
                self.job.run_resident(self.rows, self.slots, self.t, self.columns)
                end.record(stream)
                end.synchronize()
            if repeat:
                whole.append(cp.cuda.get_elapsed_time(begin, end) / 1e3)
                each = [cp.cuda.get_elapsed_time(a, b) / 1e3 for a, b in self.events]
                steps.append(sum(each))
        return median(whole), median(steps)
