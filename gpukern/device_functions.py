"""The device functions that all plans share.

The driver assembles a module when it is loaded, which takes time and memory and may fail. So a job
loads what it will launch before it does any work: no state is half changed by an error, no batch
waits, and nothing is loaded while launches are recorded.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gpukern import codegen
from gpukern.forms import device_rows

# Their functions enter the table of shared ones when they are imported.
CHUNKS = tuple(f"gpukern.forms.device_{name}" for name in ("cut", "segments", "split"))
ARENA = ("live_rows", "move_regions")  # what those hold that a job without chunks needs


class Functions:
    """The shared functions, loaded when first asked for."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.loaded: dict[str, Any] = {}
        for module in CHUNKS:
            import_module(module)

    def __getattr__(self, name: str) -> Any:
        if name not in self.loaded:
            function, kinds = device_rows.FUNCTIONS[name]
            self.loaded[name] = self.device.load(function, codegen.text_digest(function), kinds)
        return self.loaded[name]

    def load(self, *, chunks: bool, arena: bool) -> None:
        """Load those that pieces need, with rows cut into chunks and with an arena."""
        modules = (device_rows.__name__, *(CHUNKS if chunks else ()))
        for name, (function, _) in device_rows.FUNCTIONS.items():
            if function.__module__ in modules or (arena and name in ARENA):
                getattr(self, name)
