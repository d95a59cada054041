"""A small batch's work, recorded when it is first done and then repeated.

Launching it anew takes the host longer than it takes the device. So batches of like length share
buffers that stay where they are, and the same launches – on a GPU one CUDA graph – do the work of
each. They are made for a length somewhat larger; rows beyond the batch's belong to no symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpukern import backend
from gpukern.device_piece import DevicePiece
from gpukern.device_step import Array

if TYPE_CHECKING:
    from gpukern.device_job import DeviceJob

LEAST = 32  # rows of the shortest buffers
NARROW = 1 << 16  # numbers that NumPy sorts by radix


class Push:
    """Buffers for ``rows`` rows and what is launched on them; ``grouped``: of several symbols."""

    def __init__(self, job: DeviceJob, rows: int, grouped: bool) -> None:
        self.rows = rows
        self.device = job.device
        self.piece = piece = DevicePiece(job, rows, grouped)
        self.symbols = piece.symbols
        inputs = piece.plan.inputs * rows
        # In their own order, rows are brought to where they are wanted.
        self.words = self.device.empty(inputs, "q") if grouped else piece.words[:inputs]
        self.codes = self.device.empty(2 * rows, "i") if grouped else piece.owners[:rows]
        self.memory = _memory(job)
        self.places: Array | None = None  # 0, 1, 2, … where rows come from the device
        self.tape: backend.Tape = []
        self.repeat: Callable[[], None] | None = None

    def fits(self, job: DeviceJob) -> bool:
        """Whether all that the launches work on is still where it was."""
        now = _memory(job)
        return self.symbols == len(job.symbols) and all(
            a is b for a, b in zip(self.memory, now, strict=True)
        )

    def fill(self, slots: np.ndarray | int, columns: Sequence[np.ndarray], n: int) -> None:
        """Bring the rows of a batch."""
        staging, rows = self.device.staging, self.rows
        own = np.full(rows, self.symbols, np.int32)
        own[:n] = slots
        codes = [own]
        if self.piece.grouped:
            narrow = own.astype(np.uint16) if self.symbols < NARROW else own
            codes.append(np.argsort(narrow, kind="stable").astype(np.int32))
        staging.fill(self.codes, codes, rows)
        staging.fill(self.words, columns, rows)

    def take(
        self, slots: Array | int, order: Array | None, columns: Sequence[Array], n: int
    ) -> None:
        """Bring the rows of a batch that is on the device, ``order`` being that of the slots."""
        rows = self.rows
        self.codes[:n] = slots
        self.codes[n:rows] = self.symbols
        if order is not None:
            if self.places is None:
                self.places = self.device.put(np.arange(rows, dtype=np.int32))
            self.codes[rows : rows + n] = order
            self.codes[rows + n : 2 * rows] = self.places[n:]
        for at, column in enumerate(columns):
            self.words[at * rows : at * rows + n] = column

    def run(self) -> None:
        """Queue the work: the outputs are those of the piece."""
        piece = self.piece
        if not self.tape:
            with backend.recording(self.device) as tape:
                if piece.grouped:
                    piece.group(self.codes[: self.rows], self.codes[self.rows :], self.words)
                piece.find_runs()
                piece.run()
            self.tape = tape
        else:
            if self.repeat is None:
                self.repeat = self.device.repeatable(self.tape)
            self.repeat()


def length(n: int, most: int) -> int:
    """Rows that a batch of n shares its buffers with."""
    return min(1 << max(LEAST.bit_length() - 1, (n - 1).bit_length()), most)


def _memory(job: DeviceJob) -> list[Array]:
    return [array for step in job.steps for array in (step.rows, step.arena, step.parameters)]
