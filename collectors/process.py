"""Python's own settings, for processes in which messages must not wait."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.0001
GC_ALL = 1000  # of Python's own 10


def dedicate_process() -> None:
    """Settings of a process that does nothing but collect, or serve a sink; made when all is
    imported."""
    gc.freeze()  # what was imported stays: looking through it again and again delays messages
    # Collecting makes no cycles, and to look for them among all that has come since takes 30 ms.
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, GC_ALL)
    sys.setswitchinterval(SWITCH_S)  # so long another thread waits for each of its turns
