"""Generated documentation is what its generator would write now."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import gpukern as gk

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "generator"), [("kernels.md", "kernels_page"), ("cli.md", "cli_page")]
)
def test_generated_pages_are_current(docs: ModuleType, page: str, generator: str) -> None:
    written = (ROOT / "docs" / page).read_text()
    assert written == getattr(docs, generator)(), f"docs/{page} is out of date: make docs"


def test_every_kernel_has_its_row() -> None:
    page = (ROOT / "docs" / "kernels.md").read_text()
    rows = re.findall(r"^\| `(\w+)\(", page, re.M)
    assert sorted(rows) == sorted(gk.kernels())


def test_relative_links_lead_somewhere() -> None:
    pages = sorted(ROOT.glob("docs/*.md"))
    assert pages
    for page in pages:
        targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        assert [t for t in targets if not (page.parent / t).exists()] == [], page.name
