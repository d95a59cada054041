"""The command: what it prints, what it leaves, how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from pipelines import doctor
from pipelines.catalogue import all_kernels
from pipelines.cli import main


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def failure(*arguments: object) -> str:
    """The one line that a wrong call prints."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr


def test_every_command_and_option_is_documented() -> None:
    assert set(main.commands) == {
        "collect",
        "simulate",
        "replay",
        "research",
        "kernels",
        "doctor",
        "warmup",
        "demo",
    }
    for command in [main, *main.commands.values()]:
        assert command.help, command.name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)


@pytest.mark.parametrize("command", ["", *main.commands])
def test_help_of_every_command(command: str) -> None:
    result = invoke(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numba', 'polars', 'pyarrow', 'rich', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_replay_then_research(tmp_path: Path) -> None:
    from collectors.recordings import BINANCE_DEMO

    replayed = invoke("replay", BINANCE_DEMO, "--exchange", "binance", "--parquet", tmp_path / "d")
    assert replayed.exit_code == 0
    assert "trades" in replayed.stdout
    output, report = tmp_path / "features.parquet", tmp_path / "report.html"
    result = invoke("research", "--parquet", tmp_path / "d", "--output", output, "--report", report)
    assert result.exit_code == 0
    for text in ("BTC/USDT", "ETH/USDT", "SOL/USDT", "volatility", "correlation of returns"):
        assert text in result.stdout
    assert str(output) in result.stdout
    assert output.is_file()
    assert report.is_file()


def test_research_takes_every_option(ticker_file: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[[feature]]\nkernel = "vwap"\ninputs = ["price", "volume"]\n')
    result = invoke(
        *("research", "--parquet", ticker_file, "--output", tmp_path / "out.parquet"),
        *("--features", plan, "--where", "symbol = 'BTC/USDT'", "--map", "volume=size"),
        *("--by", "exchange,symbol", "--time", "ts", "--device", "cpu", "--sort"),
    )
    assert result.exit_code == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names[-1] == "vwap"
    assert set(table.column("symbol").to_pylist()) == {"BTC/USDT"}


def test_research_reads_csv(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("time,close\n" + "".join(f"2024-08-{d:02},{100 + d}\n" for d in range(1, 31)))
    result = invoke(
        *("research", "--csv", path, "--output", tmp_path / "o.parquet"),
        *("--time", "time", "--map", "price=close"),
    )
    assert result.exit_code == 0
    assert "note: left out for want of" in result.stdout


def test_bad_input_is_one_line_exit_code_2_and_no_output(
    tmp_path: Path, ticker_file: Path, ticker: pa.Table
) -> None:
    output = tmp_path / "out.parquet"
    corrupt = tmp_path / "corrupt.parquet"
    corrupt.write_bytes(b"PAR1 this is no Parquet file PAR1")
    empty = tmp_path / "empty.csv"
    empty.touch()
    unsorted = tmp_path / "unsorted.parquet"
    pq.write_table(ticker.slice(0, 50).take(list(reversed(range(50)))), unsorted)
    unpriced = tmp_path / "unpriced.parquet"
    pq.write_table(ticker.drop_columns(["price"]), unpriced)
    before = {file.name for file in tmp_path.iterdir()}

    def research(*options: object) -> str:
        return failure("research", "--output", output, *options)

    assert "no such file or folder" in research("--parquet", tmp_path / "nowhere")
    assert "not a readable Parquet file" in research("--parquet", corrupt)
    assert "the file is empty" in research("--csv", empty)
    assert "no column 'price'" in research("--parquet", unpriced)
    assert "time goes backwards" in research("--parquet", unsorted)
    assert "--sort" in research("--parquet", unsorted)
    assert "--parquet PATH or --csv PATH" in research()
    good = ("--parquet", ticker_file)
    assert "no such plan file" in research(*good, "--features", tmp_path / "p.toml")
    assert "--where" in research(*good, "--where", "price >")
    assert "NAME=COLUMN" in research(*good, "--map", "price")
    assert "no column 'close'" in research(*good, "--map", "price=close")
    assert "no such column" in research(*good, "--time", "when")
    assert "'tpu'" in research(*good, "--device", "tpu")
    nowhere = tmp_path / "nowhere" / "out.parquet"
    assert "cannot be written" in failure("research", *good, "--output", nowhere)
    assert "cannot be written" in research(*good, "--report", nowhere)
    assert {file.name for file in tmp_path.iterdir()} == before


def test_replay_of_what_is_no_recording_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "raw.txt"
    path.write_text("hello\nworld\n")
    folder = ("--parquet", tmp_path / "d")
    assert "line 1" in failure("replay", path, "--exchange", "binance", *folder)
    assert "nowhere" in failure("replay", tmp_path / "nowhere", "--exchange", "binance", *folder)
    assert "nyse" in failure("replay", path, "--exchange", "nyse", *folder)


def test_an_error_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(doctor, "examine", broken)
    with pytest.raises(ValueError, match="a mistake of ours"):
        invoke("doctor")


def test_kernels_lists_the_registry() -> None:
    result = invoke("kernels")
    assert result.exit_code == 0
    for kernel in all_kernels():
        assert kernel.name in result.stdout


def test_kernels_explains_one() -> None:
    result = invoke("kernels", "bollinger_bands")
    assert "gk.bollinger_bands(price" in result.stdout
    for name in ("bb_mid", "bb_upper", "bb_lower", "window=20"):
        assert name in result.stdout
    assert "did you mean 'ema'" in failure("kernels", "emwa")


def test_doctor_names_versions_devices_and_extras() -> None:
    result = invoke("doctor")
    assert result.exit_code == 0
    for topic in ("gpukern", "python", "numba", "cpu", "gpu", "extra report"):
        assert topic in result.stdout


def test_the_packages_of_an_extra_are_read_from_the_distribution() -> None:
    requirements = [
        "numpy>=2.1",
        'plotly>=6; extra == "report"',
        'jinja2>=3.1; extra == "report"',
        'gpukern[report]; extra == "all"',
    ]
    assert doctor.extra_packages("report", requirements) == ["plotly", "jinja2"]
    assert doctor.extra_packages("all", requirements) == []


def test_warmup_fills_the_cache(tmp_path: Path) -> None:
    # In a process of its own: this one has its kernels compiled already.
    plan = tmp_path / "plan.toml"
    plan.write_text('[[feature]]\nkernel = "log_returns"\n')
    command = [sys.executable, "-m", "pipelines", "warmup", "--features", str(plan)]
    environment = {**os.environ, "GPUKERN_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "1 features ready" in done.stdout
    assert any((tmp_path / "cache").rglob("*.py"))


def test_demo_says_where_to_look(tmp_path: Path) -> None:
    result = invoke("demo", "--output", tmp_path / "demo")
    assert result.exit_code == 0
    assert f"Open {tmp_path / 'demo' / 'report.html'} in a browser." in result.stdout


def test_demo_empties_its_own_folder_and_nobody_elses(tmp_path: Path) -> None:
    data = tmp_path / "market-data"
    data.mkdir()
    (data / "mine.parquet").write_bytes(b"precious")
    message = failure("demo", "--output", tmp_path)
    assert "holds data that are not the demo's; choose another --output" in message
    assert (data / "mine.parquet").read_bytes() == b"precious"


def test_terminating_a_run_removes_its_temporary_file(tmp_path: Path, ticker_file: Path) -> None:
    # The signal comes after the first batch is computed, when the temporary file is open.
    code = (
        "import os, signal, sys\n"
        "from pipelines import cli, research\n"
        "real = research._computed\n"
        "def stop(*arguments):\n"
        "    yield next(real(*arguments))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "research._computed = stop\n"
        "cli.main(sys.argv[1:])\n"
    )
    output = tmp_path / "out.parquet"
    command = [sys.executable, "-c", code, "research", "--parquet", str(ticker_file)]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True)
    assert done.returncode == 143
    assert [file.name for file in tmp_path.iterdir()] == ["ticker.parquet"]
