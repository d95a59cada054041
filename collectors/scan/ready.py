"""When the compiled scanner is worth its loading, and loading it meanwhile.

Importing the compiler takes longer than decoding a hundred thousand trades, or a tenth as many
changes of books: a short replay never waits for it, and a feed goes on while a thread loads it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.scan.frames import Scanner

WORTH_BYTES = 32_000_000
"""Of messages in one process, of those that come by the hundred: decoding them has taken as much
longer as loading takes, and there will be more."""


class _Loading:
    """The one loading of this process."""

    def __init__(self) -> None:
        self.size = 0
        self.thread: threading.Thread | None = None
        self.scanner: type[Scanner] | None = None

    def run(self) -> None:
        from collectors.ladder import Ladder
        from collectors.scan.frames import Scanner

        Ladder.compile()  # books are kept from what the scanner reads
        Scanner.compile()
        self.scanner = Scanner


_loading = _Loading()


def load() -> None:
    """Load the scanner now, however few messages there are."""
    if _loading.scanner is None:
        _loading.run()


def loaded(frames: Iterable[bytes]) -> type[Scanner] | None:
    """The scanner, once it is loaded; these frames are about to be decoded."""
    if _loading.scanner is None and _loading.thread is None:
        _loading.size += sum(map(len, frames))
        if _loading.size >= WORTH_BYTES:
            _loading.thread = threading.Thread(target=_loading.run, name="scan")
            _loading.thread.start()
    return _loading.scanner
