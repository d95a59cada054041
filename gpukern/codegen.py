"""Template + scalar functions → a readable module on disk that numba can cache.

Numba cannot cache a loop that closes over other compiled functions, but it caches a function of a
module whose globals they are. So each kernel variant becomes a source file in the cache directory,
named by the hash of everything that went into it, and the scalar functions are put into the
module's globals when it is loaded. Files appear by rename, so processes may race.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import os
import pickle
import platform
import sys
import tempfile
import textwrap
import threading
import types
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from gpukern import order
from gpukern.forms import cpu_back, lanes, scratch
from gpukern.kernel import Kernel

ENTRY = "void(CPointer(int64))"
LOOP: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
LOOP |= scratch.UNCOUNTED

_lock = threading.RLock()
_modules: dict[tuple[str, bool], types.ModuleType] = {}
_entries: dict[str, Any] = {}  # by their text


def cache_dir() -> Path:
    """Where generated modules live: ``$GPUKERN_CACHE_DIR`` or the user's cache directory."""
    configured = os.environ.get("GPUKERN_CACHE_DIR")
    if configured:
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "gpukern"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gpukern"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "gpukern" / "cache"
    return Path.home() / ".cache" / "gpukern"


@cache
def arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """The argument names of a scalar function."""
    return tuple(inspect.signature(function).parameters)


@cache
def source_of(function: Callable[..., Any]) -> str:
    """The function's source and that of every Python function and constant it reaches."""
    seen: dict[str, str] = {}
    _collect(getattr(function, "py_func", function), seen)
    return "\n".join(f"# {name}\n{text}" for name, text in sorted(seen.items()))


def _collect(function: Any, seen: dict[str, str]) -> None:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in seen:
        return
    seen[name] = textwrap.dedent(inspect.getsource(function))
    _collect_names(function.__code__, function.__globals__, seen)


def _collect_names(code: types.CodeType, scope: dict[str, Any], seen: dict[str, str]) -> None:
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            _collect_names(const, scope, seen)
    modules = [v for v in (scope.get(n) for n in code.co_names) if isinstance(v, types.ModuleType)]
    for used in code.co_names:
        values = [scope[used]] if used in scope else []
        values += [getattr(m, used) for m in modules if hasattr(m, used)]
        for value in values:
            value = getattr(value, "py_func", value)
            if isinstance(value, types.FunctionType):
                _collect(value, seen)
            elif isinstance(value, (int, float, tuple)):
                seen[f"{scope.get('__name__')}.{used}"] = repr(value)


def compiled(function: Callable[..., Any]) -> Any:
    """The function for use inside compiled loops (functions are compiled on first use only)."""
    if hasattr(function, "py_func"):
        return function
    # Without forceinline larger bodies become calls and their state goes through memory. They may
    # make arrays, which the loops that call them cannot (``forms/scratch.py``).
    return numba.njit(error_model="numpy", forceinline=True, **scratch.MAY_ALLOCATE)(function)


def load(
    kernel: Kernel, variant: str, text: str, loops: Mapping[str, list[Any]] | None
) -> types.ModuleType:
    """Return the module of one kernel variant, writing its file if it is not there yet.

    Its loops are compiled (or taken from the cache) for the types of their arguments, which are
    empty arrays. None loads the same text as plain Python: the slow oracle of the tests.
    """
    digest = _digest(kernel, text)
    key = (digest, loops is not None)
    with _lock:
        if key not in _modules:
            path = write(_path(kernel, variant, digest), text)
            name = path.stem
            module = _execute(kernel, name, path, loops is not None)
            if loops is not None:
                try:
                    _compile(module, loops)
                except (EOFError, pickle.UnpicklingError):
                    # A crash or a full disk has left a cut-off file; compile anew.
                    for damaged in (path.parent / "__pycache__").glob(f"{name}.*"):
                        damaged.unlink()
                    module = _execute(kernel, name, path, True)
                    _compile(module, loops)
            _modules[key] = module
        elif loops is not None:
            _compile(_modules[key], loops)  # another loop of a module that is loaded already
        return _modules[key]


def is_written(kernel: Kernel, variant: str, text: str) -> bool:
    """Whether some process has loaded a kernel variant, and so compiled it or begun to."""
    return _path(kernel, variant, _digest(kernel, text)).exists()


def _path(kernel: Kernel, variant: str, digest: str) -> Path:
    return cache_dir() / "cpu" / f"{kernel.name}_{variant}_{digest}.py"


def load_entry(name: str, text: str, uses: Mapping[str, Any]) -> Any:
    """The compiled entry of a text, which uses these functions (``forms/cpu_entry.py``)."""
    with _lock:
        if text not in _entries:
            parts = [
                text,
                ENTRY,
                platform.python_version(),
                numba.__version__,
                llvmlite.__version__,
            ]
            parts += [inspect.getsource(function._defn) for function in uses.values()]
            digest = hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]
            path = write(cache_dir() / "cpu" / f"entry_{name}_{digest}.py", text)
            compile_entry = numba.cfunc(ENTRY, cache=True)
            names = {"carray": numba.carray, "compile_entry": compile_entry, **uses}
            try:
                _entries[text] = _executed(path.stem, path, names).entry
            except (EOFError, pickle.UnpicklingError):
                for damaged in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                    damaged.unlink()
                _entries[text] = _executed(path.stem, path, names).entry
        return _entries[text]


def _compile(module: types.ModuleType, loops: Mapping[str, list[Any]]) -> None:
    for name, arguments in loops.items():
        getattr(module, name)(*arguments)


def load_device(kernel: Kernel, variant: str, text: str, plain: bool) -> types.ModuleType:
    """The module of a kernel variant's device code, its functions not yet compiled.

    ``plain`` leaves the scalar functions as Python, for the simulator.
    """
    digest = _digest(kernel, text)
    key = (f"device {digest}", plain)
    with _lock:
        if key not in _modules:
            name = f"{kernel.name}_{variant}_{digest}"
            path = write(cache_dir() / "cuda" / f"{name}.py", text)
            names = {n: f if plain else compiled(f) for n, f in kernel.functions.items()}
            module = _executed(f"cuda.{name}", path, {**names, "digest": digest}, known=False)
            _modules[key] = module
        return _modules[key]


def text_digest(function: Callable[..., Any]) -> str:
    """Of a function that is compiled for a device as it stands."""
    parts = [source_of(function), platform.python_version(), numba.__version__]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def _digest(kernel: Kernel, text: str) -> str:
    """Of everything that went into a kernel variant."""
    parts = [text, repr(LOOP)]
    parts += [platform.python_version(), numba.__version__, llvmlite.__version__]
    parts.append(inspect.getsource(scratch))
    for name in sorted(kernel.functions):
        parts.append(f"{name}={source_of(kernel.functions[name])}")
    if "from gpukern.order import" in text:
        parts.append(inspect.getsource(order))
    if "to_lanes(" in text:
        parts.append(inspect.getsource(lanes))
    if "from gpukern.forms.cpu_back import" in text:
        parts.append(inspect.getsource(cpu_back))
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]


def write(path: Path, text: str) -> Path:
    """Put a text into a file, whole or not at all."""
    if path.exists() and path.read_text() == text:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(temporary, path)
    return path


def _execute(kernel: Kernel, name: str, path: Path, jit: bool) -> types.ModuleType:
    functions = kernel.functions
    names: dict[str, Any]
    if not jit:
        names = {"compile_loop": lambda loop: loop, **lanes.PLAIN, **scratch.PLAIN, **functions}
        return _executed(name, path, names, known=False)
    names = {"compile_loop": numba.njit(cache=True, **LOOP), **lanes.COMPILED, **scratch.COMPILED}
    return _executed(name, path, names | {n: compiled(f) for n, f in functions.items()})


def _executed(
    name: str, path: Path, names: Mapping[str, Any], *, known: bool = True
) -> types.ModuleType:
    """The module of a generated file, with these names among its globals.

    ``known``: to be found by its name, as numba's cache asks.
    """
    module_name = f"gpukern_generated.{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(np=np, math=math, **names)
    if known:
        sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
