"""One step of a plan on a device: its state there, its launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpukern import codegen
from gpukern.device_chunks import Chunks
from gpukern.device_functions import Functions
from gpukern.forms import cuda
from gpukern.state import StepState

if TYPE_CHECKING:
    from gpukern.plan import Step

Array = Any  # of the device
WHOLE = ("run", "keep")  # functions of a step's module that are launched on any rows


@dataclass(frozen=True)
class Rows:
    """A class of rows as a step sees it: at most n, in dense order."""

    n: int
    counts: Array  # rows, runs
    runs: Array
    owner: Array  # the symbol of every row


class DeviceStep:
    """State rows, parameters and arena of a step, and the functions that work on them."""

    def __init__(self, device: Any, functions: Functions, step: Step, state: StepState) -> None:
        self.device = device
        self.functions = functions
        self.kernel = step.kernel
        self.state = state
        self.layout = state.template.layout
        self.words = state.words
        self.template = cuda.template(step.template, step.params)
        self.loaded: dict[str, Any] = {}
        self.rows = device.full(self.words, "d", 0.0)
        self.sent = state.parameters.ravel()
        self.parameters = device.put(self.sent)
        self.arena = device.empty(1, "d")
        self.caps = np.zeros(0, np.int64)
        self.live = np.zeros(0, np.int64)  # at most so many rows of each symbol are in the arena
        self.carried = 0  # at most so many were there, of all symbols, before the latest rows
        self.repaired = device.full(1, "q", 0)  # chunks whose guess was wrong, so far
        self.sliced = "D" in self.template.kinds["run"]
        self.least = self._least_chunk(step.params)

    def function(self, name: str) -> Any:
        """A function of the step's module."""
        if name not in self.loaded:
            made = self.template
            plain = self.device.name == "cudasim"
            module = codegen.load_device(self.kernel, made.variant, made.text, plain)
            self.loaded[name] = self.device.load(
                getattr(module, name), f"{self.kernel.name}_{module.digest}", made.kinds[name]
            )
        return self.loaded[name]

    def load(self, *, chunks: bool) -> None:
        """Load what is launched on rows that are cut into chunks, or that are not."""
        for name in self.template.kinds:
            if chunks or name in WHOLE:
                self.function(name)

    def _least_chunk(self, params: dict[str, Any]) -> int:
        """Rows of a chunk below which rebuilding its state would be most of the work."""
        if self.template.variant == "step":
            return int(self.device.speculate_rows)
        spans = params.get("window")
        each = list(spans.values()) if isinstance(spans, dict) else [spans]
        rows = [v for v in each if isinstance(v, int)]
        return max([int(self.device.chunk_rows), *(2 * r for r in rows)])

    # -- state ----------------------------------------------------------------------------

    def grow(self, capacity: int) -> None:
        """Room for so many symbols; those known keep their state."""
        known = len(self.caps)
        if capacity <= known:
            return
        new = self.device.full(capacity * self.words, "d", 0.0)
        new[: known * self.words] = self.rows[: known * self.words]
        more = np.zeros(capacity - known, np.int64)
        self.rows = new
        self.caps = np.concatenate([self.caps, more])
        self.live = np.concatenate([self.live, more])

    def reserve(self, added: np.ndarray, symbols: int) -> None:
        """Room in the arena for so many more rows of each symbol."""
        if not self.layout.arena_fields:
            return
        need = self.live[:symbols] + added + 2
        if np.any(need > self.caps[:symbols]):
            self.live[:symbols] = self.device.fetch(self.live_rows(symbols))[:symbols]
            need = self.live[:symbols] + added + 2
        short = need > self.caps[:symbols]
        if np.any(short):
            caps = self.caps.copy()
            caps[:symbols][short] = need[short] + need[short] // 2
            self._move_arena(caps, symbols)
        self.carried = int(self.live[:symbols].sum())
        self.live[:symbols] += added

    def live_rows(self, symbols: int) -> Array:
        """Rows in the arena per symbol that later rows may need."""
        live = self.device.full(symbols, "q", 0)
        names = [n for n, _ in self.layout.header]
        word = {n: names.index(n) if n in names else -1 for n in ("older", "newer", "head", "tail")}
        self.functions.live_rows(
            symbols, self.rows.view(np.int64), self.words, word["older"], word["newer"],
            word["head"], word["tail"], live, symbols,
        )  # fmt: skip
        return live

    def _move_arena(self, caps: np.ndarray, symbols: int) -> None:
        fields = self.layout.arena_fields
        begins = np.concatenate([[0], np.cumsum(caps * fields)])
        arena = self.device.full(int(begins[-1]), "d", 0.0)
        self.functions.move_regions(
            symbols, self.arena.view(np.int64), arena.view(np.int64), self.rows.view(np.int64),
            self.words, self.layout.index("off"), self.device.put(begins[:-1]),
            self.device.put(caps), fields, symbols,
        )  # fmt: skip
        self.arena, self.caps = arena, caps

    def keep(self) -> tuple[Any, ...]:
        """A copy of the state on the device."""
        own = self.rows, self.arena, self.repaired, self.caps, self.live
        return tuple(array.copy() for array in own)

    def put_back(self, kept: tuple[Any, ...]) -> None:
        """Return to what ``keep`` gave."""
        self.rows, self.arena, self.repaired, self.caps, self.live = kept

    def to_host(self) -> None:
        """Bring the state to the host's StepState, for a snapshot."""
        state = self.state
        rows = self.device.fetch(self.rows)
        state.rows = rows[: len(rows) // self.words * self.words].reshape(-1, self.words)
        state.arena = self.device.fetch(self.arena)

    def from_host(self) -> None:
        """Take the state over from the host's StepState."""
        state = self.state
        self.rows = self.device.put(state.rows.ravel())
        self.arena = self.device.put(state.arena)
        self.caps = np.zeros(len(state.rows), np.int64)
        if self.layout.arena_fields:
            self.caps[:] = state.rows.view(np.int64)[:, self.layout.index("cap")]
        self.live = self.caps.copy()

    def send_parameters(self) -> None:
        """The parameter rows again, if new symbols have come."""
        now = self.state.parameters.ravel()
        if not np.array_equal(now.view(np.int64), self.sent.view(np.int64)):
            self.parameters, self.sent = self.device.put(now), now

    # -- launches -------------------------------------------------------------------------

    def run(
        self, rows: Rows, symbols: int, t: Array, inputs: list[Array], outs: list[Array]
    ) -> None:
        """All rows of a class; outputs in dense order."""
        own = self.own()
        if self.kernel.form == "map":
            table = (rows.counts, 0, rows.runs)
            self.call("run", rows.n, table, own, rows, t, inputs, outs)
            if "keep" in self.template.kinds:
                table = (rows.counts, 1, rows.runs)
                self.call("keep", symbols, table, own, rows, t, inputs, outs)
        elif rows.n < self.device.split_rows:
            table = (rows.counts, 1, rows.runs)
            self.call("run", symbols, table, own, rows, t, inputs, outs)
        else:
            Chunks(self, rows, symbols, t, inputs, outs).run()

    def own(self) -> tuple[Array, int, int, Array]:
        """The symbols' state rows, as functions take them."""
        return self.rows, self.words, 1, self.arena

    def call(
        self, name: str, threads: int, table: tuple[Array, int, Array],
        state: tuple[Array, int, int, Array], rows: Rows, t: Array, inputs: list[Array],
        outs: list[Array], *extra: Any,
    ) -> None:  # fmt: skip
        """Queue a function of the step's module on the runs of a table and their state rows."""
        counts, at, runs = table
        st, ss, sw, arena = state
        if name == "run" and self.kernel.form == "rank":
            threads *= cuda.LANES
        self.function(name)(
            threads, counts, at, rows.owner, runs, self.parameters,
            self.parameters.view(np.int64), self.state.stride, st, st.view(np.int64), ss, sw,
            arena, arena.view(np.int64), t, *inputs, *outs, *extra,
        )  # fmt: skip
