"""Compiled code that a thread loads while the work goes on without it.

Importing the compiler takes longer than a short replay, or a small feed's first minutes: it is
loaded once so much was done that it would have been worth it, since there will be more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Loading(Generic[T]):
    """One such loading; each process has one of each kind."""

    def __init__(self, load: Callable[[], T], worth: int) -> None:
        """`load` imports, compiles if need be, and gives what there is to use; it is loaded when
        `worth` was done without it, in the caller's unit."""
        self.worth = worth
        self.done = 0
        self.thread: threading.Thread | None = None
        self._load = load
        self._loaded: T | None = None

    def load(self) -> T:
        """Load it now, however little was done."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def loaded(self, more: Callable[[], int]) -> T | None:
        """It, once it is loaded; so much `more` is about to be done with or without it."""
        if self._loaded is None and self.thread is None:
            self.done += more()
            if self.done >= self.worth:
                self.thread = threading.Thread(target=self.load, name="loading")
                self.thread.start()
        return self._loaded
