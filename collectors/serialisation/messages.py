"""Messages as they leave an encoder: one behind the other, for whoever takes them without an object
for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Messages(Sequence[bytes]):
    """The messages of a batch's rows, in their order."""

    def __init__(self, text: bytes, ends: NDArray[np.int64]) -> None:
        """`text` has one behind the other; `ends` where each of them ends."""
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, messages: Iterable[bytes]) -> Messages:
        """Of such that are objects already."""
        listed = list(messages)
        return cls(b"".join(listed), np.cumsum([*map(len, listed)], dtype=np.int64))

    @property
    def begins(self) -> NDArray[np.int64]:
        """Where each of them begins."""
        begins = np.zeros_like(self.ends)
        begins[1:] = self.ends[:-1]
        return begins

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[bytes]:
        text = self.text
        return (text[begin:end] for begin, end in pairwise([0, *self.ends.tolist()]))

    @overload
    def __getitem__(self, which: int) -> bytes: ...
    @overload
    def __getitem__(self, which: slice) -> list[bytes]: ...
    def __getitem__(self, which: int | slice) -> bytes | list[bytes]:
        if isinstance(which, slice):
            return list(self)[which]
        end = int(self.ends[which])
        return self.text[int(self.begins[which]) : end]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Messages.of({list(self)!r})"
