"""What a kernel carries per symbol: the words of one state row, and who owns them.

A state row is a run of 8-byte words: a header of named scalars, then rings whose length depends
on the parameters. Duration windows keep their rows in an *arena* instead, one growable region per
symbol whose offset and capacity stand in the header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from gpukern.codegen import arguments
from gpukern.kernel import Kernel


@dataclass
class Layout:
    """Header words by name (``int`` words are read through the int64 view of the state)."""

    header: list[tuple[str, str]] = field(default_factory=list)
    ring_words: Callable[[dict[str, Any]], int] = lambda values: 0
    arena_fields: int = 0

    def add(self, names: Iterable[str], kind: str = "f") -> None:
        """Append header words."""
        self.header.extend((name, kind) for name in names)

    @property
    def size(self) -> int:
        """Words in the header."""
        return len(self.header)

    def index(self, name: str) -> int:
        """Position of a header word."""
        return [n for n, _ in self.header].index(name)

    @property
    def lags(self) -> int:
        """How many previous rows the kernel looks at beside its window."""
        names = [name for name, _ in self.header]
        return sum(any(n.startswith(prefix) for n in names) for prefix in ("prev_", "prev2_"))

    def load(self) -> list[str]:
        """Source lines that read the header of state row ``slot`` into locals."""
        return [
            f"{name} = {'sti' if kind == 'i' else 'st'}[slot, {i}]"
            for i, (name, kind) in enumerate(self.header)
        ]

    def store(self, skip: tuple[str, ...] = ()) -> list[str]:
        """Source lines that write it back."""
        return [
            f"{'sti' if kind == 'i' else 'st'}[slot, {i}] = {name}"
            for i, (name, kind) in enumerate(self.header)
            if name not in skip
        ]


def wanted(kernel: Kernel, *functions: str) -> set[str]:
    """The argument names that these functions of the kernel ask for."""
    return {
        name for f in functions if f in kernel.functions for name in arguments(kernel.functions[f])
    }


def invoke(function: Callable[..., Any], name: str, scope: dict[str, str]) -> str:
    """The call of a scalar function with its arguments taken from the template's scope."""
    missing = [a for a in arguments(function) if a not in scope]
    if missing:
        raise TypeError(
            f"{function.__module__}.{function.__qualname__} asks for {missing[0]!r}; "
            f"here it may use {', '.join(sorted(scope))}"
        )
    return f"{name}({', '.join(scope[a] for a in arguments(function))})"
