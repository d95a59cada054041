"""The command `simulate`."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collectors.command import EXCHANGES, Duration

if TYPE_CHECKING:
    from collectors.server.pace import Pace
    from collectors.server.server import Server

PORTS = {"binance": 9201, "binance-futures": 9202, "kraken": 9203, "coinbase": 9204}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("exchange", type=click.Choice(EXCHANGES))
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="0: any that is free.  [default: "
    + ", ".join(f"{port} {exchange}" for exchange, port in PORTS.items())
    + "]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the market.")
@click.option(
    "--recording",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Serve this raw recording instead of a market model; it ends with it.",
)
@click.option(
    "--speed",
    default="1",
    show_default=True,
    metavar="FACTOR|max",
    help="Of the market's time; max: as fast as clients read.",
)
@click.option(
    "--messages-per-s", type=click.FloatRange(min=1), help="Instead: so many, whatever the time."
)
@click.option(
    "--bursts-per-s",
    type=click.FloatRange(min=0.001),
    help="How often something happens on the market, in calm times.  [default: 0.5 per symbol]",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[:CHANNEL[:SYMBOL]][@WHEN][xTIMES][=SECONDS]",
    help="Do something wrong: drop, duplicate, reorder, corrupt, alter, stall, slow, disconnect, "
    "shutdown, refuse. May be repeated.",
)
@click.option("--duration", type=Duration(), help="Stop after so long: 90s, 15m, 1h30m, 2d.")
def simulate(exchange: str, symbols: tuple[str, ...], **options: Any) -> None:
    """Serve a simulated exchange: its web sockets and its REST interface on one port.

    SYMBOLs are BASE/QUOTE, perpetuals BASE/QUOTE:QUOTE; 14 majors unless named, a recording's own
    with --recording. Faults can also be injected while it runs, at /simulator/inject?fault=…;
    /simulator/log tells which have struck, /simulator/status how the server is.

    \b
    gpukern simulate kraken
    gpukern simulate binance BTC/USDT --speed max --fault drop:book:BTC/USDT@1000
    gpukern simulate coinbase --fault corrupt:trades@0.1% --fault disconnect@5000x3
    """
    from collectors.server.faults import parse_fault

    wishes = [parse_fault(text) for text in options.pop("faults")]
    asyncio.run(_serve(exchange, symbols, wishes, **options))


async def _serve(
    exchange: str,
    symbols: tuple[str, ...],
    faults: list[Any],
    *,
    host: str,
    port: int | None,
    speed: str,
    messages_per_s: float | None,
    duration: float | None,
    seed: int,
    recording: Path | None,
    bursts_per_s: float | None,
) -> None:
    from collectors.server.server import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pace, live = _pace(speed, messages_per_s)
    source: dict[str, Any] = {"seed": seed}
    if recording is not None:
        source["recording"] = recording
    elif live:
        source["start_ns"] = time.time_ns()
    elif messages_per_s is not None:
        source["stamp"] = _clock
    if bursts_per_s is not None:
        source["bursts_per_s"] = bursts_per_s
    chosen = PORTS[exchange] if port is None else port
    async with serve(
        exchange, symbols, host=host, port=chosen, pace=pace, faults=faults, **source
    ) as server:
        click.echo(f"{exchange} at {server.url} and {server.rest_url}; for example")
        click.echo(
            f"  gpukern collect {exchange} {' '.join(symbols)}{' ' if symbols else ''}"
            f"--endpoint {server.url} --rest-endpoint {server.rest_url}"
        )
        waited = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(server.ended.wait())]
        await asyncio.wait(waited, timeout=duration, return_when=asyncio.FIRST_COMPLETED)
        for task in waited:
            task.cancel()
        click.echo(_summary(server))


def _clock(time_ns: int) -> int:
    """Messages at a rate of their own say when they were made: their latency is of interest."""
    return time.time_ns()


def _pace(speed: str, messages_per_s: float | None) -> tuple[Pace, bool]:
    """The pace, and whether the market's time is the clock's."""
    from collectors.server.pace import AsRead, MessagesPerSecond, RealTime

    if messages_per_s is not None:
        return MessagesPerSecond(messages_per_s), False
    if speed == "max":
        return AsRead(), False
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < 1e6:
        raise click.BadParameter(
            f"{speed!r} is neither a factor above 0 nor max", param_hint="--speed"
        )
    return RealTime(factor), factor == 1.0


def _summary(server: Server) -> str:
    struck: dict[str, int] = {}
    for fault in server.simulation.log:
        struck[fault.kind] = struck.get(fault.kind, 0) + 1
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(struck.items())) or "none"
    connections = server.simulation.connections
    return f"{server.sent:,} messages on {connections} connections; faults: {faults}"
