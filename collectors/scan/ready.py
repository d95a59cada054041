"""When the compiled scanner is worth its loading, and loading it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from collectors.loading import Loading

if TYPE_CHECKING:
    from collectors.scan.frames import Scanner

WORTH_BYTES = 32_000_000
"""Of messages in one process, of those that come by the hundred: decoding them has taken as much
longer as loading takes: a hundred thousand trades, or a tenth as many changes of books."""


def _load() -> type[Scanner]:
    from collectors.ladder import Ladder
    from collectors.scan.frames import Scanner

    Ladder.compile()  # books are kept from what the scanner reads
    Scanner.compile()
    return Scanner


def loading() -> Loading[type[Scanner]]:
    """One that has not begun."""
    return Loading(_load, WORTH_BYTES)


_loading = loading()


def load() -> None:
    """Load the scanner now, however few messages there are."""
    _loading.load()


def loaded(frames: Sequence[bytes]) -> type[Scanner] | None:
    """The scanner, once it is loaded; these frames are about to be decoded."""
    return _loading.loaded(lambda: sum(map(len, frames)))
