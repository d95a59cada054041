"""Levels of a book's side that lie in an array with those of other messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Level = tuple[float, float]  # price, size; size 0 removes the level


class LevelRows(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Rows `begin` to `end` of `block`: read and compared as the list of levels that they are.

    Whoever reads thousands of levels takes them out of `block`; whoever keeps few of them takes
    `list` of it, for this keeps the whole block in memory.
    """

    block: NDArray[np.float64]
    """A price and a size in every row."""
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def __iter__(self) -> Iterator[Level]:
        return iter(self._listed())

    def __getitem__(self, index: Any) -> Any:
        return self._listed()[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, LevelRows | list):
            return self._listed() == (other._listed() if isinstance(other, LevelRows) else other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as that of a list

    def __repr__(self) -> str:
        return repr(self._listed())

    def _listed(self) -> list[Level]:
        prices, sizes = self.block[self.begin : self.end].T.tolist()
        return list(zip(prices, sizes, strict=True))


Levels = list[Level] | LevelRows
