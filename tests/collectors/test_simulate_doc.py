"""docs/simulate.md says what is so."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from collectors.server.command import PORTS, simulate
from collectors.server.faults import KINDS, parse_fault

TEXT = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text()


def test_example_prints_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    program, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.S).groups()
    exec(compile(program, "simulate.md", "exec"), {})
    assert capsys.readouterr().out == shown


def test_every_kind_of_fault_is_described() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) == KINDS


def test_the_faults_and_options_in_it_exist() -> None:
    for fault in re.findall(r"--fault ([a-z]\S*[:@]\S+)", TEXT):
        assert parse_fault(fault)
    text = CliRunner().invoke(simulate, ["--help"]).output
    for option in set(re.findall(r"`(--[a-z-]+)", TEXT)):
        assert option in text
    assert f"port {PORTS['kraken']}" in TEXT
