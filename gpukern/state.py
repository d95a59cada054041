"""The carried state of a plan: symbols and their slots, one block of memory per kernel."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpukern.durations import parse_duration
from gpukern.errors import PlanError, StateError
from gpukern.forms import rows as prim
from gpukern.forms.cpu import Template
from gpukern.kernel import Kernel, Param

MAGIC = b"GKSTATE2"
WINDOW_SUMS = "fold_rows"  # the variant whose loop may leave sums undone (``cpu_fold.py``)
NULL_FLOAT = {
    "skip": math.nan,
    "propagate": struct.unpack("<d", struct.pack("<q", prim.NULL_BITS))[0],
}


class Symbols:
    """Symbols in order of first appearance; a symbol's slot is its place in that order."""

    def __init__(self) -> None:
        self.slots: dict[Hashable, int] = {}
        # The last batch's dictionary of symbols, and the slot of each of its codes (−1: unseen).
        self.dictionary: pa.Array | None = None
        self.lookup: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.slots)

    def slot(self, symbol: Hashable) -> int:
        """The symbol's slot, given out on first sight."""
        return self.slots.setdefault(symbol, len(self.slots))

    def slots_of(self, symbols: list[Hashable]) -> Sequence[int]:
        """The slots of several symbols."""
        if not self.slots:
            self.slots = dict(zip(symbols, range(len(symbols)), strict=True))
            if len(self.slots) == len(symbols):
                return range(len(symbols))
            self.slots = {}  # some are the same
        return [self.slot(symbol) for symbol in symbols]

    def forget(self, known: int) -> None:
        """Take back the slots after the first ``known``."""
        for symbol in list(self.slots)[known:]:
            del self.slots[symbol]
        self.dictionary = self.lookup = None


def parameter_words(
    kernel: Kernel, params: Mapping[str, Any], symbol: Hashable, policy: str
) -> np.ndarray:
    """One row of the parameter table: the null, then every parameter as one 8-byte word."""
    values = {p.name: _for_symbol(kernel, p, params[p.name], symbol) for p in kernel.params}
    words = np.empty(1 + len(kernel.params), np.float64)
    ints = words.view(np.int64)
    # Through bytes: a signalling detour through Python floats could change the NaN's payload.
    ints[0] = struct.unpack("<q", struct.pack("<d", NULL_FLOAT[policy]))[0]
    for n, p in enumerate(kernel.params, start=1):
        try:
            value = resolve(kernel, p, values)
        except PlanError as error:
            if any(isinstance(v, dict) for v in params.values()):
                raise PlanError(f"{error} (symbol {symbol!r})") from None
            raise
        if p.kind == "number":
            words[n] = value
        else:
            ints[n] = value
    return words


def resolve(kernel: Kernel, param: Param, values: Mapping[str, Any]) -> Any:
    """The number that stands for a parameter's value in the scalar functions."""
    value = values[param.name]
    if param.kind == "periods":
        return _min_periods(kernel, param, values)
    if value is None:
        return math.nan if param.kind == "number" else 0
    if param.kind == "choice":
        return param.options.index(value)
    if isinstance(value, str):
        return parse_duration(value)
    return value


def check_periods(kernel: Kernel, params: Mapping[str, Any]) -> None:
    """Raise PlanError if the window is too short for the kernel (mappings: when symbols come)."""
    if not any(isinstance(v, dict) for v in params.values()):
        for param in kernel.params:
            if param.kind == "periods":
                _min_periods(kernel, param, params)


def _min_periods(kernel: Kernel, param: Param, values: Mapping[str, Any]) -> int:
    window, given = values.get("window"), values[param.name]
    scope = {k: v for k, v in values.items() if isinstance(v, (int, float))}
    least = int(eval(param.minimum, {"__builtins__": {}}, scope))
    if isinstance(window, int):
        periods = max(window if given is None else given, least)
        if periods > window:
            needs = f"min_periods {given}" if given and given > least else f"{least} rows at least"
            raise PlanError(f"{kernel.name}: window {window} is too short, it needs {needs}")
        return periods
    return max(given or 1, least)


def _for_symbol(kernel: Kernel, param: Param, value: Any, symbol: Hashable) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        return value[symbol]
    except KeyError:
        raise PlanError(
            f"{kernel.name}: {param.name} has no value for symbol {symbol!r}; "
            f"the mapping has {', '.join(map(repr, list(value)[:5]))}"
        ) from None


def _resolved(kernel: Kernel, params: Mapping[str, Any], symbol: Hashable) -> dict[str, Any]:
    values = {p.name: _for_symbol(kernel, p, params[p.name], symbol) for p in kernel.params}
    return {p.name: resolve(kernel, p, values) for p in kernel.params}


class StepState:
    """State rows, parameters and (for duration windows) the arena of one step."""

    def __init__(self, template: Template, params: dict[str, Any], policy: str) -> None:
        self.template = template
        self.kernel = template.kernel
        self.params = params
        self.policy = policy
        self.mapped = any(isinstance(v, dict) for v in params.values())
        layout = template.layout
        self.words = max(1, layout.size + self._ring_words())
        self.rows = np.zeros((0, self.words))
        self.arena = np.zeros(0)
        if self.mapped:
            self.parameters = np.zeros((0, 1 + len(self.kernel.params)))
        else:
            self.parameters = parameter_words(self.kernel, params, None, policy)[None, :]
        self.stride = int(self.mapped)
        self.mispredicted = 0  # speculated chunks of a step that had to be run again

    def _ring_words(self) -> int:
        """Ring words of a state row: the most that any symbol needs."""
        keys = {k for v in self.params.values() if isinstance(v, dict) for k in v} or {None}
        sizes = []
        for key in keys:
            try:
                sizes.append(
                    self.template.layout.ring_words(_resolved(self.kernel, self.params, key))
                )
            except PlanError:
                continue  # a symbol that another mapping lacks; an error when it appears
        return max(sizes, default=0)

    def add_symbols(self, symbols: list[Hashable]) -> None:
        """Fill in the parameters of new symbols."""
        if self.mapped:
            new = [parameter_words(self.kernel, self.params, s, self.policy) for s in symbols]
            self.parameters = np.concatenate([self.parameters, *(w[None, :] for w in new)])

    def move(self, room: np.ndarray) -> None:
        """Move the state rows to the (larger, zeroed) room for them."""
        room = room.reshape(-1, self.words)
        room.view(np.int64)[: len(self.rows)] = self.rows.view(np.int64)
        self.rows = room

    def reserve(self, runs: np.ndarray) -> None:
        """Make room in the arena for the rows of the runs."""
        layout = self.template.layout
        if not layout.arena_fields or not len(runs):
            return
        ints = self.rows.view(np.int64)
        cap = ints[:, layout.index("cap")]
        slots = runs[:, 0]
        need = self._live_rows(ints, slots) + (runs[:, 2] - runs[:, 1]) + 2
        if np.all(cap[slots] >= need):
            return
        caps = cap.copy()
        caps[slots] = np.maximum(caps[slots], np.where(cap[slots] >= need, 0, need + need // 2))
        arena = np.zeros(int(caps.sum()) * layout.arena_fields)
        prim.move_arena(
            self.arena, arena, self.rows, layout.index("off"), layout.index("cap"), caps,
            layout.arena_fields,
        )  # fmt: skip
        self.arena = arena

    def _live_rows(self, ints: np.ndarray, slots: np.ndarray) -> np.ndarray:
        layout = self.template.layout
        if self.template.variant.startswith("fold"):
            return ints[slots, layout.index("older")] + ints[slots, layout.index("newer")]
        return ints[slots, layout.index("tail")] - ints[slots, layout.index("head")]

    # -- snapshots ------------------------------------------------------------------------

    def dump(self, count: int) -> list[np.ndarray]:
        """The state of the first ``count`` slots as int64 arrays that depend on the rows only."""
        rows = self.rows[:count].view(np.int64).copy()
        if self.kernel.form == "rank" and not self.template.layout.arena_fields:
            self._put_in_order(rows.view(np.float64))
        if self.template.variant == WINDOW_SUMS:
            self._forget_stale(rows)
        if not self.template.layout.arena_fields:
            return [rows]
        regions = [self._region(rows, slot) for slot in range(count)]
        lengths = np.array([[len(f) for f in region] for region in regions], np.int64)
        flat = [f for region in regions for f in region]
        data = np.concatenate(flat) if flat else np.zeros(0, np.int64)
        return [rows, lengths.ravel(), data]

    def _put_in_order(self, rows: np.ndarray) -> None:
        """Windows that are marked as out of order (``forms/cpu_lowest.py``)."""
        at, word = self.template.layout.size, self.template.layout.index("n")
        counts = rows.view(np.int64)[:, word].tolist()
        for row, n, window in zip(rows, counts, self._windows(len(rows)).tolist(), strict=True):
            if np.isnan(row[at + window]):
                row[at + window : at + window + n] = np.sort(row[at : at + n])
                row[at + window + n : at + 2 * window] = 0.0

    def _windows(self, count: int) -> np.ndarray:
        """The window of each of the first slots."""
        word = 1 + [p.name for p in self.kernel.params].index("window")
        windows = self.parameters.view(np.int64)[:, word]
        return windows[:count] if self.stride else np.full(count, windows[0])

    def _sums(self, rows: np.ndarray, window: int) -> np.ndarray:
        """Of a window in rows: its sums of the block before, by slot, row and field."""
        parts = len(self.kernel.fields["acc"])
        end = self.template.layout.size + self.template.layout.ring_words({"window": window})
        return rows[:, end - parts * window : end].reshape(len(rows), window, parts)

    def owed(self, count: int) -> np.ndarray:
        """Of the first slots those whose loop has left sums undone."""
        if self.template.variant != WINDOW_SUMS:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.rows.view(np.int64)[:count, self.template.layout.index("owed")])

    def _forget_stale(self, rows: np.ndarray) -> None:
        """Sums that no row will read again depend on how rows were cut into runs."""
        windows, done = self._windows(len(rows)), rows[:, self.template.layout.index("rows")]
        for window in np.unique(windows).tolist():
            own = np.flatnonzero(windows == window)
            k = np.maximum(done[own] - self.template.layout.lags, 0)
            read = np.where(k % window == 0, window * (k > 0), k % window)
            some = rows[own]
            self._sums(some, window)[np.arange(window) < read[:, None]] = 0
            rows[own] = some

    def _region(self, rows: np.ndarray, slot: int) -> list[np.ndarray]:
        """Live parts of one slot's arena fields; rewrites its header words to match."""
        layout = self.template.layout
        word = {name: i for i, (name, _) in enumerate(layout.header)}
        row = rows[slot]
        off, cap = int(row[word["off"]]), int(row[word["cap"]])
        ints = self.arena.view(np.int64)
        fields = [ints[off + f * cap : off + (f + 1) * cap] for f in range(layout.arena_fields)]
        row[word["off"]] = row[word["cap"]] = 0
        if "older" in word:
            older, newer = int(row[word["older"]]), int(row[word["newer"]])
            sums = len(self.kernel.fields["acc"])
            closed = older + 1 if row[word["rows"]] else 0
            rows_of, sums_of = fields[:-sums], fields[-sums:]
            return [f[: older + newer] for f in rows_of] + [f[:closed] for f in sums_of]
        head, tail = int(row[word["head"]]), int(row[word["tail"]])
        row[word["head"]], row[word["tail"]] = 0, tail - head
        live = [f[head:tail] for f in fields]
        if "n" in word:
            live[-1] = fields[-1][: int(row[word["n"]])]
        return live

    def restore(self, arrays: list[np.ndarray], count: int) -> None:
        """Take over what ``dump`` gave."""
        self.rows.view(np.int64)[:count] = arrays[0]
        layout = self.template.layout
        if not layout.arena_fields:
            return
        lengths = arrays[1].reshape(count, layout.arena_fields)
        caps = lengths.max(axis=1) + 2 if count else np.zeros(0, np.int64)
        self.arena = np.zeros(int(caps.sum()) * layout.arena_fields)
        ints, rows = self.arena.view(np.int64), self.rows.view(np.int64)
        at = start = 0
        for slot in range(count):
            rows[slot, layout.index("off")] = at
            rows[slot, layout.index("cap")] = caps[slot]
            for f in range(layout.arena_fields):
                length = int(lengths[slot, f])
                begin = at + f * int(caps[slot])
                ints[begin : begin + length] = arrays[2][start : start + length]
                start += length
            at += layout.arena_fields * int(caps[slot])


def pack(header: dict[str, Any], arrays: list[np.ndarray]) -> bytes:
    """Header and int64 arrays as one checksummed block of bytes."""
    header = {**header, "lengths": [a.size for a in arrays]}
    text = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join(
        [MAGIC, struct.pack("<q", len(text)), text, *(a.astype("<i8").tobytes() for a in arrays)]
    )
    return body + struct.pack("<I", zlib.crc32(body))


def unpack(blob: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Undo ``pack``; raise StateError if the bytes are not a whole snapshot."""
    if len(blob) < len(MAGIC) + 12 or not blob.startswith(MAGIC):
        raise StateError("not a gpukern snapshot, or one of another format version")
    if zlib.crc32(blob[:-4]) != struct.unpack("<I", blob[-4:])[0]:
        raise StateError(f"snapshot of {len(blob)} bytes is damaged: its checksum does not match")
    (size,) = struct.unpack_from("<q", blob, len(MAGIC))
    start = len(MAGIC) + 8
    header = json.loads(blob[start : start + size])
    arrays, at = [], start + size
    for length in header["lengths"]:
        arrays.append(np.frombuffer(blob, "<i8", length, at).astype(np.int64))
        at += 8 * length
    return header, arrays
