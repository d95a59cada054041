"""The programs of docs/bars.md print what the page shows."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from pathlib import Path
from typing import Any

from gpukern import bars

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "bars.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)


def test_programs_print_what_the_page_shows() -> None:
    blocks = FENCE.findall(PAGE)
    scope: dict[str, Any] = {}
    shown = 0
    for (kind, text), (after, output) in itertools.pairwise(blocks):
        if kind == "python" and after == "text":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, "bars.md", "exec"), scope)
            assert printed.getvalue() == output
            shown += 1
    assert shown == 2


def test_every_function_is_on_the_page() -> None:
    assert [name for name in bars.__all__ if f"`{name}" not in PAGE] == []
