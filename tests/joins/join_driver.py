"""Drives a join of streams as hypothesis pleases: any interleaving, cuts, watermarks, restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

MIN_INT = -(2**63)


@dataclass
class Run:
    """The join after its last row, what it returned, and the rows that each input took (all of
    them unless a limit that nobody could free stopped it). ``marks`` are the watermarks that an
    input was advanced to, each with the number of rows before it."""

    join: Any
    out: pa.Table
    taken: dict[str, pa.Table]
    marks: dict[str, list[tuple[int, int]]]
    on: str

    def batch(self, name: str, lateness: int = 0) -> pa.Table:
        """The accepted rows of the input, stably sorted by time: what the batch form is given."""
        table = self.taken[name]
        rows = sorted(self._judged(name, lateness)[0], key=lambda row: row[self.on])
        return pa.Table.from_pylist(rows, table.schema)

    def check_counters(self, **lateness: int) -> None:
        """Late and missing rows are counted, and the numbers add up."""
        for name, counters in self.join.counters.items():
            rows = self.taken[name].to_pylist()
            missing = sum(row[self.on] is None for row in rows)
            late = self._judged(name, lateness[name])[1]
            accepted = len(rows) - late - missing
            assert counters == {
                "given": len(rows), "accepted": accepted, "late": late, "null": missing,
            }  # fmt: skip

    def _judged(self, name: str, lateness: int) -> tuple[list[dict[str, Any]], int]:
        """The rows that are not late, by the definition of the watermark, and how many are."""
        kept, late, watermark = [], 0, MIN_INT
        for number, row in enumerate(self.taken[name].to_pylist()):
            promised = (mark for before, mark in self.marks[name] if before <= number)
            watermark = max([watermark, *promised])
            time = row[self.on]
            if time is None:
                continue
            if time < watermark:
                late += 1
                continue
            kept.append(row)
            watermark = max(watermark, time - lateness)
        return kept, late


def push_side(join: Any, name: str, rows: pa.Table) -> Any:
    """``push_left`` and its like."""
    return getattr(join, f"push_{name}")(rows)


def advance_side(join: Any, name: str, watermark: int) -> Any:
    """``advance`` of one of several inputs."""
    return join.advance(name, watermark)


def drive(
    make: Callable[[], Any],
    inputs: dict[str, pa.Table],
    data: st.DataObject,
    *,
    restart: bool = False,
    on: str = "ts",
    push: Callable[[Any, str, pa.Table], Any] = push_side,
    advance: Callable[[Any, str, int], Any] = advance_side,
    check: Callable[[Any], bool] = lambda join: True,
) -> Run:
    """Push all inputs in pieces, in turns that ``data`` draws, and flush.

    After some pieces the input's watermark is advanced to its latest time or a bit less. With
    ``restart`` each piece goes to a new join, restored from the last one's snapshot.
    """
    join, out = make(), []
    at = dict.fromkeys(inputs, 0)
    marks: dict[str, list[tuple[int, int]]] = {name: [] for name in inputs}
    full: set[str] = set()
    while True:
        waiting = [n for n, t in inputs.items() if at[n] < t.num_rows and n not in full]
        if not waiting:
            break
        name = data.draw(st.sampled_from(waiting))
        rows = inputs[name].slice(at[name], data.draw(st.integers(1, 6)))
        out.append(push(join, name, rows))
        at[name] += join.consumed
        assert check(join)
        times = [t for t in inputs[name][on].slice(0, at[name]).to_pylist() if t is not None]
        behind = data.draw(st.one_of(st.none(), st.none(), st.integers(0, 3)))
        if behind is not None and times:
            marks[name].append((at[name], max(times) - behind))
            out.append(advance(join, name, max(times) - behind))
        # An input that takes nothing is left alone until another one has moved.
        full = set() if join.consumed else full | {name}
        if restart:
            blob = join.snapshot()
            join = make()
            join.restore(blob)
            assert join.snapshot() == blob
    out.append(join.flush())
    taken = {name: table.slice(0, at[name]) for name, table in inputs.items()}
    return Run(join, pa.concat_tables(out), taken, marks, on)
