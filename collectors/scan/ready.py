"""When the compiled scanner is worth its loading, and loading it meanwhile.

Importing the compiler takes longer than decoding a hundred thousand messages: a short replay never
waits for it, and a feed goes on while a thread loads it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.scan.frames import Scanner

WORTH_FRAMES = 100_000
"""So many in one process, of those that come by the hundred; there will be more."""


class _Loading:
    """The one loading of this process."""

    def __init__(self) -> None:
        self.frames = 0
        self.thread: threading.Thread | None = None
        self.scanner: type[Scanner] | None = None

    def run(self) -> None:
        from collectors.scan.frames import Scanner

        Scanner.compile()
        self.scanner = Scanner


_loading = _Loading()


def load() -> None:
    """Load the scanner now, however few messages there are."""
    if _loading.scanner is None:
        _loading.run()


def loaded(frames: int) -> type[Scanner] | None:
    """The scanner, once it is loaded; `frames` more are about to be decoded."""
    if _loading.scanner is None and _loading.thread is None:
        _loading.frames += frames
        if _loading.frames >= WORTH_FRAMES:
            _loading.thread = threading.Thread(target=_loading.run, name="scan")
            _loading.thread.start()
    return _loading.scanner
