"""Devices: which one a plan runs on, its memory, its launches.

The only file that imports numba.cuda or CuPy. numba-cuda turns generated text into PTX (cached on
disk, so once); CuPy does everything at run time – memory from one pool, streams, copies, sorting,
launches – so another compiler is easily put in. ``cudasim`` runs the same text on the host through
numba's simulator, for tests on machines without a GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gpukern import codegen, device_memory, device_simulator
from gpukern.errors import DeviceError, PlanError
from gpukern.forms.cuda import THREADS
from gpukern.staging import NO_MEMORY, HostStaging, PinnedStaging

log = logging.getLogger("gpukern")
DEVICES = ("cpu", "cuda", "cudasim", "auto")
DTYPES = {"d": np.float64, "q": np.int64, "i": np.int32, "b": np.uint8}
EXTRA = "install the extra: pip install 'gpukern[cuda13]' ('gpukern[cuda12]' for CUDA 12)"
UNSUPPORTED_PTX = 222  # CUDA_ERROR_UNSUPPORTED_PTX_VERSION, for which CuPy has no name
Launch = Callable[..., None]  # (threads, *arguments); the function strides over what is left
Tape = list[Callable[[], None]]  # launches with their arguments
_announced = False
_compiling = threading.Lock()


def choose(device: str) -> str:
    """``'cpu'``, ``'cuda'`` or ``'cudasim'`` for what the caller asked; no choice is silent."""
    global _announced
    if device not in DEVICES:
        raise PlanError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    missing = what_is_missing() if device in ("auto", "cuda") else ""
    if device == "auto":
        device = "cpu" if missing else "cuda"
        if not _announced:
            log.info("device auto: %s%s", device, f" ({missing})" if missing else "")
            _announced = True
    elif missing:
        raise DeviceError(f"device 'cuda': {missing}")
    return device


@cache
def what_is_missing() -> str:
    """Why CUDA cannot be used here, with the remedy; '' if it can."""
    for module, name in (("cupy", "CuPy"), ("numba_cuda", "numba-cuda")):
        if importlib.util.find_spec(module) is None:
            return f"{name} is not installed; {EXTRA}"
    try:  # as CuPy does it; a search may fail for a library that the loader finds
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda is not found); use device='cpu'"
    import cupy

    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"the NVIDIA driver cannot be used ({error}); use device='cpu'"
    return "" if count else "the NVIDIA driver finds no GPU; use device='cpu'"


def describe() -> str:
    """The GPU that ``device="cuda"`` works on. Only where nothing is missing."""
    import cupy

    device = cupy.cuda.Device()
    about = cupy.cuda.runtime.getDeviceProperties(device.id)
    driver = cupy.cuda.runtime.driverGetVersion()
    return (
        f"{about['name'].decode()}, sm_{device.compute_capability}, "
        f"{about['totalGlobalMem'] / 2**30:.0f} GiB, driver for CUDA "
        f"{driver // 1000}.{driver % 1000 // 10}"
    )


@contextmanager
def recording(device: Cuda | Simulator) -> Iterator[Tape]:
    """Note what is launched in here, to be launched again on the same memory."""
    tape: Tape = []
    device.tape = tape
    try:
        yield tape
    finally:
        device.tape = None


@cache
def get(device: str) -> Cuda | Simulator:
    """The device that a plan's job works on."""
    if device != "cuda":
        return Simulator()
    import cupy

    try:
        return Cuda()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"device 'cuda': the GPU cannot be used ({error}); free it or use device='cpu'"
        ) from error


# --------------------------------------------------------------------------------- compilation


def _cuda_module() -> Any:
    if not hasattr(np, "row_stack"):  # numba-cuda 0.30 reads it; NumPy 2.5 has taken it away
        np.row_stack = np.vstack
    from numba import cuda

    return cuda


@contextmanager
def _without_contraction(capability: tuple[int, int]) -> Iterator[None]:
    """Compile with a*b + c left as two roundings, as on a CPU, and without asking a driver.

    numba-cuda has no option for either: its NVVM wrapper takes ``fma`` but nobody passes it.
    """
    nvvm: Any = import_module("numba.cuda.cudadrv.nvvm")
    modules: list[Any] = [import_module(f"numba.cuda.{m}") for m in ("compiler", "dispatcher")]
    compile_ir, current = nvvm.compile_ir, [m.get_current_device for m in modules]
    device = types.SimpleNamespace(compute_capability=capability)
    with _compiling:
        nvvm.compile_ir = lambda ir, **options: compile_ir(ir, **{**options, "fma": False})
        for module in modules:
            module.get_current_device = lambda: device
        try:
            yield
        finally:
            nvvm.compile_ir = compile_ir
            for module, own in zip(modules, current, strict=True):
                module.get_current_device = own


def compile_ptx(function: Callable[..., Any], kinds: str, capability: tuple[int, int]) -> str:
    """PTX of a device function for arguments of these kinds (see ``forms/cuda.py``)."""
    cuda = _cuda_module()
    t: Any = import_module("numba.cuda.types")
    known = {
        "d": t.CPointer(t.float64), "q": t.CPointer(t.int64), "i": t.CPointer(t.int32),
        "b": t.CPointer(t.uint8), "n": t.int64,
        "D": t.Array(t.float64, 1, "C"), "Q": t.Array(t.int64, 1, "C"),
    }  # fmt: skip
    with _without_contraction(capability):
        text, _ = cuda.compile(
            function, tuple(known[k] for k in kinds), device=False, abi="numba", cc=capability
        )
    return text


def entry_name(ptx: str) -> str:
    """The name of the kernel in its PTX."""
    found = re.search(r"\.visible \.entry (\w+)\(", ptx)
    if found is None:
        raise DeviceError("the compiler gave PTX without an entry")
    return found[1]


def cached_ptx(
    function: Callable[..., Any], digest: str, kinds: str, capability: tuple[int, int]
) -> Path:
    """The file that holds a function's PTX, compiled if it is not there yet."""
    compiler = hashlib.sha256(compiler_version().encode()).hexdigest()[:8]
    architecture = f"sm_{capability[0]}{capability[1]}"
    name = f"{function.__name__}_{digest}_{compiler}_{architecture}.ptx"
    path = codegen.cache_dir() / "cuda" / name
    if not path.exists():
        codegen.write(path, compile_ptx(function, kinds, capability))
    return path


@cache
def compiler_version() -> str:
    """What the compiler's output depends on beside its input."""
    return f"numba-cuda {version('numba-cuda')}, numba {version('numba')}"


# ------------------------------------------------------------------------------------- devices


class Simulator:
    """The device functions as Python on the host."""

    name = "cudasim"
    # Sizes at which a test of few rows still crosses every border.
    chunk_rows, speculate_rows, split_rows, lanes = 16, 8, 48, 64

    def __init__(self) -> None:
        config: Any = import_module("numba").config
        if "numba.cuda" in sys.modules and not config.ENABLE_CUDASIM:
            raise DeviceError(
                "device 'cudasim': numba.cuda is imported already without the simulator; set "
                "NUMBA_ENABLE_CUDASIM=1 before Python starts"
            )
        config.ENABLE_CUDASIM = 1
        self.cuda = _cuda_module()
        parts = [import_module(f"numba.cuda.simulator.{m}") for m in ("kernel", "kernelapi")]
        device_simulator.mend(*parts)
        self.staging = HostStaging()
        self.tape: Tape | None = None
        self.lock = threading.RLock()

    def free_bytes(self) -> int:
        """Memory that may be used."""
        return 1 << 28

    def working(self) -> AbstractContextManager[Any]:
        """Where launches and allocations belong; one thread at a time."""
        return self.lock

    def empty(self, n: int, kind: str) -> np.ndarray:
        """Room for n elements; never none, so that there is a pointer to it."""
        return np.empty(max(n, 1), DTYPES[kind])

    def full(self, n: int, kind: str, value: float) -> np.ndarray:
        """Room for n elements, all of that value."""
        return np.full(max(n, 1), value, DTYPES[kind])

    def put(self, array: np.ndarray) -> np.ndarray:
        """A copy on the device."""
        return array.copy() if array.size else np.zeros(1, array.dtype)

    def fetch(self, array: np.ndarray) -> np.ndarray:
        """A copy on the host, when all work before is done."""
        return array.copy()

    def argsort(self, codes: np.ndarray) -> np.ndarray:
        """Stable order of int32 codes."""
        return np.argsort(codes, kind="stable").astype(np.int32)

    def running_sum(self, values: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Inclusive running sum as int64."""
        return np.cumsum(values, dtype=np.int64, out=out)

    def load(self, function: Callable[..., Any], digest: str, kinds: str) -> Launch:
        """A launcher of a device function."""
        function.__globals__["cuda"] = self.cuda
        fake = self.cuda.jit(function)

        def launch(threads: int, *arguments: Any) -> None:
            # Memory views give and take plain Python numbers: the arithmetic of the oracle.
            views = [
                a if kind == "n" else memoryview(a)
                for a, kind in zip(arguments, kinds, strict=True)
            ]
            again = partial(fake[2 if threads > 2 else 1, 2], *views)
            if self.tape is not None:
                self.tape.append(again)
            again()

        return launch

    def repeatable(self, tape: Tape) -> Callable[[], None]:
        """A function that launches again what is on the tape."""

        def repeat() -> None:
            for again in tape:
                again()

        return repeat


class Compiler:
    """Fills the cache with a GPU's machine-independent code where there is no GPU."""

    def __init__(self, capability: tuple[int, int]) -> None:
        if importlib.util.find_spec("numba_cuda") is None:
            raise DeviceError(f"device 'cuda': numba-cuda is not installed; {EXTRA}")
        config: Any = import_module("numba").config
        if config.ENABLE_CUDASIM:
            raise DeviceError(
                "device 'cuda': the simulator is on in this process; unset NUMBA_ENABLE_CUDASIM"
            )
        self.capability = capability
        self.cuda = _cuda_module()

    def load(self, function: Callable[..., Any], digest: str, kinds: str) -> Path:
        """The file of a device function's PTX, compiled or taken from the cache."""
        function.__globals__["cuda"] = self.cuda
        return cached_ptx(function, digest, kinds, self.capability)


class Cuda:
    """A GPU. CuPy's pool (RMM's where it is installed) gives all memory there is."""

    name = "cuda"
    chunk_rows, speculate_rows, split_rows, lanes = 256, 1024, 1 << 15, 1 << 16

    def __init__(self) -> None:
        import cupy

        self.cp = cupy
        self.rmm = device_memory.share(cupy)
        self.lock = threading.RLock()
        self.at = device = cupy.cuda.Device()
        text = device.compute_capability
        self.capability = (int(text[:-1]), int(text[-1]))
        self.most_blocks = device.attributes["MultiProcessorCount"] * 32
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.staging = PinnedStaging(cupy, self.stream)
        self.cuda = _cuda_module()
        self.tape: Tape | None = None
        self.launchers: dict[tuple[str, str], Launch] = {}  # the driver assembles PTX when loaded

    def free_bytes(self) -> int:
        """Memory that may be used."""
        own = self.cp.get_default_memory_pool().free_bytes()
        pool = device_memory.rmm_pool_bytes() if self.rmm else own
        return int(self.cp.cuda.runtime.memGetInfo()[0]) + int(pool)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Where launches and allocations belong; one thread at a time.

        Staging and what is recorded are the device's, whichever job they serve.
        """
        with self.lock, self.at, self.stream:
            yield

    def empty(self, n: int, kind: str) -> Any:
        """Room for n elements; never none, so that there is a pointer to it."""
        return self.cp.empty(max(n, 1), DTYPES[kind])

    def full(self, n: int, kind: str, value: float) -> Any:
        """Room for n elements, all of that value."""
        return self.cp.full(max(n, 1), value, DTYPES[kind])

    def put(self, array: np.ndarray) -> Any:
        """A copy on the device."""
        return self.cp.asarray(array if array.size else np.zeros(1, array.dtype))

    def fetch(self, array: Any) -> np.ndarray:
        """A copy on the host, when all work before is done."""
        return self.cp.asnumpy(array, stream=self.stream)

    def argsort(self, codes: Any) -> Any:
        """Stable order of int32 codes (a radix sort)."""
        return self.cp.argsort(codes, kind="stable").astype(np.int32)

    def running_sum(self, values: Any, out: Any = None) -> Any:
        """Inclusive running sum as int64."""
        return self.cp.cumsum(values, dtype=np.int64, out=out)

    def load(self, function: Callable[..., Any], digest: str, kinds: str) -> Launch:
        """A launcher of a device function, compiled or taken from the cache."""
        key = (function.__name__, digest)
        if key not in self.launchers:
            self.launchers[key] = self._launcher(function, digest, kinds)
        return self.launchers[key]

    def _launcher(self, function: Callable[..., Any], digest: str, kinds: str) -> Launch:
        function.__globals__["cuda"] = self.cuda
        path = cached_ptx(function, digest, kinds, self.capability)
        module = self.cp.RawModule(path=str(path))
        try:
            kernel = module.get_function(entry_name(path.read_text()))
            _ = kernel.num_regs  # the driver assembles the function now, not when it is launched
        except self.cp.cuda.driver.CUDADriverError as error:
            raise load_error(function.__name__, error, self.name) from error

        def launch(threads: int, *arguments: Any) -> None:
            grid = max(1, min(-(-threads // THREADS), self.most_blocks))
            again = partial(kernel, (grid,), (THREADS,), tuple(_unpacked(arguments, kinds)))
            if self.tape is not None:
                self.tape.append(again)
            again()

        return launch

    def repeatable(self, tape: Tape) -> Callable[[], None]:
        """A function that launches again, as one CUDA graph, what is on the tape.

        All of it has been launched before: no module is loaded while the stream is captured.
        """
        runtime = self.cp.cuda.runtime
        try:
            self.stream.begin_capture()
            try:
                for again in tape:
                    again()
            finally:
                graph = self.stream.end_capture()
        except runtime.CUDARuntimeError as error:
            if error.status != NO_MEMORY:
                raise
            raise MemoryError("for a graph of a small batch") from error
        return partial(graph.launch, self.stream)


def load_error(function: str, error: Any, device: str) -> Exception:
    """What a driver that does not load a function's PTX is answered with."""
    if error.status == NO_MEMORY:
        return MemoryError(f"for the code of {function}")
    remedy = "use device='cpu'"
    if error.status == UNSUPPORTED_PTX:
        remedy = f"update the driver, take the extra of its CUDA version or {remedy}"
    return DeviceError(
        f"device {device!r}: the driver does not load {function} ({error}); {remedy}"
    )


def _unpacked(arguments: tuple[Any, ...], kinds: str) -> Iterator[Any]:
    """Kernel parameters: numbers, pointers, and for arrays the seven words of numba's structure."""
    for argument, kind in zip(arguments, kinds, strict=True):
        if kind == "n":
            yield np.int64(argument)
        elif kind in "DQ":
            size = np.int64(argument.size)
            yield from (np.int64(0), np.int64(0), size, np.int64(8), argument, size, np.int64(8))
        else:
            yield argument
