"""Rows by way of shared memory, so that a block's threads read and write neighbouring words.

A thread walks the rows of one run, and the runs of neighbouring threads lie far apart: read one by
one, every row would come in a transfer of its own. Here a block's threads bring the next few rows
of all their runs together, each then works on its own, and together they take the results away.
"""

from __future__ import annotations

import re

from gpukern.errors import DeviceError
from gpukern.forms.cpu import Source
from gpukern.forms.cuda import THREADS, Loop, column_of, under
from gpukern.kernel import Kernel

ROWS = (8, 4, 2, 1)  # of every run in a tile, as its columns fit; 4 are a sector of 32 bytes
SHARED = 48 << 10  # bytes that a block has without asking for more
WORD = 8
RUN_WORDS = ("begins", "ends", "emits")  # what all threads know of each other's runs
COLUMN = re.compile(r"\bin_(\w+)\[i\]|\b(t)\[i\]")
OUTPUT = re.compile(r"\bout_(\d+)\[i\]")


def over_tiles(loop: Loop, begin: Source, row: Source, end: Source) -> str:
    """The rest of the function: ``begin`` before the rows of a run, ``row`` for row i, ``end``."""
    s, kernel = loop.s, loop.kernel
    text = "\n".join(row.lines)
    kinds = {i.name: i.dtype for i in kernel.inputs} | {"t": "i64"}
    columns = sorted({name or t for name, t in COLUMN.findall(text)})
    outputs = sorted({int(n) for n in OUTPUT.findall(text)})
    rows = _rows_of_tile(kernel, len(columns) + len(outputs))
    pitch = rows + 1  # so that threads at the same row of theirs use different banks

    def place(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return f"{'float' if kinds[name] == 'f64' else 'int'}(tile_{name}[q])"

    _declare(s, {f"tile_{c}": kinds[c] for c in columns}, THREADS * pitch)
    _declare(s, {f"tile_{n}": kernel.outputs[n].dtype for n in outputs}, THREADS * pitch)
    _declare(s, dict.fromkeys(RUN_WORDS, "i64"), THREADS)
    s("me = cuda.threadIdx.x", "entry = cuda.grid(1)", "entries = counts[at]")
    # All threads of a block go on as long as one of them has a run.
    s.block("while entry - me < entries:")
    s("slot = 0", "base = 0", "lo = 0", "hi = 0", "emit = 0")
    s.block("if entry < entries:")
    loop.read_run()
    s.end()
    loop.read_parameters("slot")
    s("i = lo")
    loop.load()
    s(*begin.lines)
    s("begins[me] = i", "ends[me] = hi", "emits[me] = emit", "tile = 0")
    s.block("while cuda.syncthreads_count(min(max(hi - i, 0), 1)) > 0:")
    _together(s, rows, [f"tile_{c}[at_tile] = {column_of(c)}[there]" for c in columns])
    s("cuda.syncthreads()", f"q = me * {pitch}", f"stop = min(i + {rows}, hi)")
    s.block("while i < stop:")
    s(*(OUTPUT.sub(r"tile_\1[q]", COLUMN.sub(place, line)) for line in row.lines))
    s("q += 1", "i += 1").end()
    if outputs:
        s("cuda.syncthreads()")
        lines = [f"out_{n}[there] = tile_{n}[at_tile]" for n in outputs]
        _together(s, rows, lines, "there >= emits[other]")
    s(f"tile += {rows}").end()
    s.block("if lo < hi:")
    s(*end.lines).end()
    s("entry += cuda.gridsize(1)").end(2)
    return "\n".join(s.lines) + "\n"


def _rows_of_tile(kernel: Kernel, columns: int) -> int:
    for rows in ROWS:
        if (columns * (rows + 1) + len(RUN_WORDS)) * THREADS * WORD <= SHARED:
            return rows
    raise DeviceError(
        f"{kernel.name}: {columns} columns read and written are more than a GPU's shared memory "
        "holds a row of; split the kernel or use device='cpu'"
    )


def _declare(s: Source, arrays: dict[str, str], size: int) -> None:
    for name, dtype in arrays.items():
        s(f"{name} = cuda.shared.array({size}, np.{'float64' if dtype == 'f64' else 'int64'})")


def _together(s: Source, rows: int, lines: list[str], only: str = "") -> None:
    """What is done for every row of the tile, by whichever thread; ``rows`` is a power of two."""
    shift = rows.bit_length() - 1
    s("j = me")
    s.block(f"while j < cuda.blockDim.x * {rows}:")
    s(f"other = j >> {shift}", f"there = begins[other] + tile + (j & {rows - 1})")
    s("at_tile = j + other")
    under(s, f"if there < ends[other]{' and ' + only if only else ''}:", *lines)
    s("j += cuda.blockDim.x").end()
