"""A sink in another process: the same rows and errors, and no process is left behind."""

import os
import select
import signal
import subprocess
import sys

import pytest
from rows import every_channel, trades

from collectors.errors import SinkError
from collectors.queues import SinkQueue
from collectors.sinks import make_sink
from collectors.sinks.apart import SinkProcess

GONE_S = 300


def fill(sink):
    for channel, batch in every_channel().items():
        sink.write(channel, batch)
        sink.write(channel, batch.slice(1))
        sink.flush()
    sink.write_all(list(every_channel().items()))
    sink.close()
    sink.close()


def test_rows_are_those_of_the_sink_itself(tmp_path):
    fill(make_sink("jsonl", tmp_path / "here.jsonl", clock=lambda: 0))
    fill(SinkProcess("jsonl", tmp_path / "apart.jsonl"))
    written = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert len(written) == 2
    assert written[0] == written[1] != b""


def test_trades_of_earlier_runs_are_told(tmp_path):
    fill(make_sink("parquet", tmp_path))
    here, apart = make_sink("parquet", tmp_path), SinkProcess("parquet", tmp_path)
    for exchange in ("binance", "kraken", "nowhere"):
        assert apart.last_trades(exchange) == here.last_trades(exchange)
    assert apart.last_trades("binance")
    here.close()
    apart.close()


def test_what_the_queue_asks_of_a_sink_is_the_sinks_own(capfd):
    sink = SinkProcess("sink_of_tests:Failing")
    assert (sink.name, sink.flush_s, sink.merge_rows, sink.failed_rows) == ("failing", 0.5, 7, 0)
    sink.close()
    assert capfd.readouterr().err == "what a library has to say\n"


def test_error_of_the_sink_is_raised_and_stays():
    sink = SinkProcess("sink_of_tests:Failing")
    sink.write("trades", trades(0, 5))
    for call in (lambda: sink.write("trades", trades(5, 8)), sink.flush):
        with pytest.raises(SinkError, match="no room for trades"):
            call()
    assert sink.failed_rows == 3
    sink.close()
    with pytest.raises(SinkError, match="no room for trades"):
        sink.flush()


def test_error_among_several_batches_is_raised_and_stays():
    sink = SinkProcess("sink_of_tests:Failing")
    with pytest.raises(SinkError, match="no room for ticker"):
        sink.write_all([("trades", trades(0, 5)), ("ticker", every_channel()["ticker"])])
    with pytest.raises(SinkError, match="no room for ticker"):
        sink.flush()
    sink.close()


def test_error_of_building_it_is_raised_and_leaves_no_process(tmp_path, monkeypatch):
    made = []
    begin = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **b: made.append(begin(*a, **b)) or made[-1]
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="file: cannot write there"):
        SinkProcess("parquet", tmp_path / "file")
    with pytest.raises(SinkError, match="sink 'carrier-pigeon' is unknown; choose from parquet"):
        SinkProcess("carrier-pigeon")
    assert [process.poll() is None for process in made] == [False, False]


def test_closed_sink_says_so():
    sink = SinkProcess("sink_of_tests:Failing")
    sink.close()
    assert sink.pid is None
    with pytest.raises(SinkError, match="failing: the sink is closed"):
        sink.flush()


def test_signals_of_the_terminal_are_not_its_own(tmp_path):
    sink = SinkProcess("jsonl", tmp_path / "rows.jsonl")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(sink.pid, number)
    fill(sink)
    assert (tmp_path / "rows.jsonl").stat().st_size


def test_process_that_is_killed_is_an_error_that_the_queue_tells(tmp_path):
    sink = SinkProcess("jsonl", tmp_path / "rows.jsonl")
    queue = SinkQueue(sink)
    queue.write("trades", trades(0, 5))
    queue.flush()
    os.kill(sink.pid, signal.SIGKILL)
    with pytest.raises(
        SinkError, match=r"jsonl: the sink's process \d+ has ended, exit status -9; .* missing"
    ):
        queue.write("trades", trades(5, 9)) or queue.close(60)
    assert sink.pid is None
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 5


def test_error_that_no_sink_should_raise_ends_the_process_and_is_told(capfd):
    sink = SinkProcess("sink_of_tests:Faulty")
    with pytest.raises(SinkError, match=r"the sink's process \d+ has ended, exit status 1;"):
        sink.write("trades", trades(0, 5))
    sink.close()
    told = capfd.readouterr().err
    assert "ZeroDivisionError: rows of trades by nothing" in told
    assert "Fatal Python error" not in told


@pytest.mark.parametrize("calls", ["pass", "sink.flush()"], ids=["idle", "busy"])
def test_process_ends_with_the_one_that_made_it(calls):
    script = (
        "from collectors.sinks.apart import SinkProcess\n"
        "sink = SinkProcess('sink_of_tests:Stuck')\n"
        f"print(sink.pid, flush=True)\n{calls}\ninput()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes) as parent:
        process = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert select.select([process], [], [], GONE_S)[0] == [process]
    os.close(process)


def test_modules_in_the_current_directory_are_not_taken_for_pythons(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise ImportError('not that one')")
    monkeypatch.chdir(tmp_path)
    sink = SinkProcess("jsonl", tmp_path / "rows.jsonl")
    fill(sink)
    assert (tmp_path / "rows.jsonl").stat().st_size
