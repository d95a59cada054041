"""docs/joins.md: its programs print what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

import gpukern as gk

PAGE = Path(__file__).resolve().parents[2] / "docs" / "joins.md"


def test_the_programs_of_the_page_print_what_it_shows() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert found.attempted > 15
    assert found.failed == 0


def test_the_page_names_every_join() -> None:
    text = PAGE.read_text(encoding="utf-8")
    joins = ("gpukern.asof", "gpukern.join_", "gpukern.window")
    names = [name for name, module in gk._JOINS.items() if module.startswith(joins)]
    assert [name for name in names if f"`{name}" not in text] == []
