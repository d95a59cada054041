"""The simulated exchange over real sockets: any web socket client, any HTTP client."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from listening import EXCHANGES, PAIRS
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from collectors.errors import CollectorError
from collectors.raw import RawLog
from collectors.replay import replay
from collectors.server.faults import Fault
from collectors.server.local import collect_simulated
from collectors.server.pace import AsRead, MessagesPerSecond, RealTime
from collectors.server.server import Server, serve

SUBSCRIBE = '{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}'


def against(
    work: Callable[[Server, httpx.AsyncClient], Awaitable[None]], **options: object
) -> None:
    """Run `work` with a server of Binance Spot."""

    async def run() -> None:
        async with (
            serve("binance", PAIRS["binance"], **options) as server,
            httpx.AsyncClient(base_url=server.rest_url) as rest,
        ):
            await asyncio.wait_for(work(server, rest), 60)

    asyncio.run(run())


async def to_the_end(socket: ClientConnection) -> None:
    """Read until the connection is closed, which raises."""
    while True:
        await socket.recv()


def test_a_plain_client_subscribes_and_reads() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        async with connect(f"{server.url}/stream", close_timeout=0.2) as socket:
            await socket.send(SUBSCRIBE)
            assert json.loads(await socket.recv()) == {"result": None, "id": 1}
            trades = [json.loads(await socket.recv())["data"]["t"] for _ in range(100)]
        assert trades == list(range(trades[0], trades[0] + 100))

    against(work)


def test_rest_is_answered_on_the_same_port() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        depth = await rest.get("/api/v3/depth", params={"symbol": "BTCUSDT", "limit": 5})
        assert depth.status_code == 200
        assert depth.headers["Content-Type"] == "application/json"
        assert len(depth.json()["bids"]) == 5
        assert (await rest.get("/api/v3/depth?symbol=NOSUCH")).status_code == 400
        assert (await rest.get("/nothing")).status_code == 404

    against(work)


def test_a_refused_connection_is_an_http_error() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        server.inject(Fault("refuse", seconds=30))
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.url}/stream")
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"] == "30"
        with pytest.raises(InvalidStatus, match="404"):
            await connect(f"{server.url}/elsewhere")

    against(work)


def test_a_cut_line_ends_without_a_close_and_a_shutdown_with_one() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        for kind, code in (("disconnect", None), ("shutdown", 1001)):
            server.inject(Fault(kind, at=50))
            async with connect(f"{server.url}/stream", close_timeout=0.2) as socket:
                await socket.send(SUBSCRIBE)
                with pytest.raises(ConnectionClosed) as ended:
                    await to_the_end(socket)
                assert (ended.value.rcvd.code if ended.value.rcvd else None) == code

    against(work)


def test_faults_are_injected_and_told_over_http() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        wished = await rest.get("/simulator/inject", params={"fault": "drop:trades:BTC/USDT@3"})
        assert wished.json() == {"injected": 1}
        wrong = await rest.get("/simulator/inject", params={"fault": "nonsense"})
        assert wrong.status_code == 400
        assert "choose from drop" in wrong.json()["msg"]
        async with connect(f"{server.url}/stream", close_timeout=0.2) as socket:
            await socket.send(SUBSCRIBE)
            for _ in range(10):
                await socket.recv()
            status = (await rest.get("/simulator/status")).json()
        (struck,) = (await rest.get("/simulator/log")).json()
        assert (struck["kind"], struck["symbol"], struck["connection"]) == ("drop", "BTC/USDT", 1)
        assert json.loads(struck["frame"])["data"]["e"] == "trade"
        assert (status["connections"], status["faults"]) == (1, 1)
        assert (await rest.get("/simulator/elsewhere")).status_code == 404

    against(work)


def test_the_market_stands_still_until_somebody_listens() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        begun_ns = (await rest.get("/simulator/status")).json()["time_ns"]
        async with connect(f"{server.url}/stream", close_timeout=0.2) as socket:
            await socket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            await socket.recv()
            assert server.simulation.now_ns == begun_ns
            await socket.send(SUBSCRIBE)
            for _ in range(5):
                await socket.recv()
            assert server.simulation.now_ns > begun_ns

    against(work)


def test_in_real_time_it_does_not_and_keeps_the_clocks_time() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        status = [(await rest.get("/simulator/status")).json() for _ in range(2)]
        while status[-1]["time_ns"] == status[0]["time_ns"]:
            status.append((await rest.get("/simulator/status")).json())
        assert status[-1]["time_ns"] - status[0]["time_ns"] < 60 * 1_000_000_000

    against(work, pace=RealTime())


def test_a_client_that_never_reads_is_sent_away_in_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collectors.server.server._BEHIND", 100_000)

    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        streams = "/".join(f"{name}usdt@trade" for name in ("btc", "eth", "sol"))
        url = f"{server.url}/stream?streams={streams}"
        async with connect(url, max_queue=1, close_timeout=0.2) as socket:
            while server.simulation.talks:
                await rest.get("/simulator/status")
            with pytest.raises(ConnectionClosed):
                await to_the_end(socket)

    against(work, pace=RealTime(5e3))


def test_a_rate_is_kept_by_sleeping_while_too_much_has_been_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = iter([100.0, 100.0, 100.5, 102.0])
    monkeypatch.setattr("collectors.server.pace.asyncio.sleep", sleep)
    monkeypatch.setattr("collectors.server.pace.time.perf_counter", lambda: next(clock))
    pace = MessagesPerSecond(1_000)

    async def work() -> None:
        for sent in (50, 1_050, 2_050):  # from 50 on, and then 1,000 more each time
            await pace.until(0, 0, sent)

    asyncio.run(work())
    assert slept == [0, 0.5, 0]


def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    async def work(server: Server, rest: httpx.AsyncClient) -> None:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(CollectorError, match=f"127.0.0.1:{port} cannot be listened at"):
            async with serve("kraken", ["BTC/USD"], port=port):
                pass

    against(work)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_collector_in_step_gets_the_same_rows_every_time(exchange: str, tmp_path: Path) -> None:
    logs = []
    for name in ("one", "two"):
        raw = RawLog(tmp_path / name)
        progress = asyncio.run(
            collect_simulated(exchange, PAIRS[exchange], [], seconds=20, raw=raw)
        )
        assert progress.feed.gaps == progress.feed.errors == 0
        report = replay([*tmp_path.glob(f"{name}*")], exchange, tmp_path / f"data-{name}")
        assert {k: v for k, v in report.rows.items() if v} == dict(progress.rows)
        logs.append([file.read_bytes() for file in sorted(tmp_path.glob(f"{name}*"))])
    assert logs[0] == logs[1]
    assert sum(map(len, logs[0])) > 10_000


def test_the_command_serves_and_says_how_to_collect_from_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "simulate", "kraken", "BTC/USD", "ETH/USD"]
    command += ["--port", "0", "--speed", "max", "--fault", "drop:book:BTC/USD@20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, hint = process.stdout.readline(), process.stdout.readline()
        url = re.match(r"kraken at (ws://127\.0\.0\.1:\d+) and http://", first)
        assert url is not None
        arguments = hint.split()
        assert arguments[:2] == ["gpukern", "collect"]
        collect = [sys.executable, "-m", "pipelines", *arguments[1:]]
        collect += ["--jsonl", str(tmp_path / "rows.jsonl"), "--duration", "2s"]
        done = subprocess.run(collect, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert re.search(r"messages on \d+ connections; faults: 1 drop", out)
    rows = [json.loads(x) for f in tmp_path.glob("rows*") for x in f.read_text().splitlines()]
    gaps = [row for row in rows if row.get("reason") == "checksum"]
    assert {row["symbol"] for row in gaps} == {"BTC/USD"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fault", "explode"], "fault 'explode': choose from"),
        (["--speed", "fast"], "neither a factor above 0 nor max"),
        (["PEPE/USD"], "no pair 'PEPE/USD'"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "pipelines", "simulate", "kraken", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_paces_say_whether_they_wait() -> None:
    assert (AsRead().waits, RealTime().waits, MessagesPerSecond(1).waits) == (True, False, True)
