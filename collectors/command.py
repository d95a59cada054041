"""The command `collect`, of `gpukern` and of `python -m collectors`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collectors.collect import Collector
    from collectors.console import Console
    from collectors.metrics import Metrics
    from collectors.queues import SinkQueue
    from collectors.raw import RawLog

FAILED = 1  # a sink, or the machine
BAD_INPUT = 2

EXCHANGES = ("coinbase", "kraken", "binance", "binance-futures")
POLICIES = ("block", "conflate", "spill", "drop")
FORMATS = ("json", "avro", "protobuf")
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Duration(click.ParamType[float]):
    """`90s`, `15m`, `1h30m`, `2d`: seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        parts = _PART.findall(value)
        if not parts or "".join(map("".join, parts)) != value:
            self.fail(f"{value!r} is no duration; write 90s, 15m, 1h30m or 2d", param, ctx)
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        if not seconds:
            self.fail(f"{value!r} is no time at all; write 90s, 15m, 1h30m or 2d", param, ctx)
        return seconds


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("exchange", type=click.Choice(EXCHANGES))
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option("--kafka", "-k", metavar="HOST:PORT,…", help="Topics {exchange}-{channel} there.")
@click.option("--parquet", "-F", type=click.Path(path_type=Path), help="A dataset in this folder.")
@click.option("--sqlite", "-S", type=click.Path(path_type=Path), help="Tables in this database.")
@click.option("--jsonl", "-J", type=click.Path(path_type=Path), help="JSON lines; .zst compresses.")
@click.option(
    "--raw",
    type=click.Path(path_type=Path),
    help="Every message as it came, for `gpukern replay`; .zst compresses.",
)
@click.option("--channels", metavar="NAME,…", help="ticker, trades, book, funding.  [default: all]")
@click.option("--duration", type=Duration(), help="Stop after so long: 90s, 15m, 1h30m, 2d.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="json",
    show_default=True,
    help="Of messages to Kafka.",
)
@click.option("--schema-registry", metavar="URL", help="For --format avro and protobuf.")
@click.option(
    "--kafka-config",
    "-X",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of librdkafka, such as sasl.username=me; may be repeated.",
)
@click.option(
    "--queue",
    type=click.Choice(POLICIES),
    default="block",
    show_default=True,
    help="When a sink is too slow: wait, drop superseded quotes, use the disk, or drop and count.",
)
@click.option(
    "--queue-mb",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Memory of the queue before each sink.",
)
@click.option(
    "--drain",
    type=Duration(),
    default=10.0,
    show_default="10s",
    help="How long stopping may take.",
)
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Answer Prometheus on this port."
)
@click.option("--endpoint", default="", metavar="ws://…", help="Of the exchange's web sockets.")
@click.option("--rest-endpoint", default="", metavar="http://…", help="Of its REST requests.")
@click.option(
    "--symbols",
    "symbol_list",
    type=click.Path(path_type=Path),
    help="The exchange's own list of symbols, as its REST interface gives it.",
)
@click.pass_context
def collect(ctx: click.Context, **options: Any) -> None:
    """Collect live market data: checked, canonical, into any number of sinks.

    SYMBOLs are BASE/QUOTE, perpetuals BASE/QUOTE:QUOTE; 14 majors unless named. Without a sink the
    latest of every symbol is shown as a table. SIGTERM or Ctrl-C stops reading, drains and closes
    the sinks; a second one ends at once. Exit code 1 means that a sink failed.

    \b
    gpukern collect kraken
    gpukern collect binance BTC/USDT ETH/USDT -F data --raw binance.zst
    gpukern collect coinbase -k localhost:9092 --format avro --schema-registry http://localhost:8081
    """
    from collectors.errors import CollectorError, SinkError

    _check_kafka_options(options)
    try:
        _run(options)
    except (CollectorError, OSError) as error:
        click.echo(f"Error: {' '.join(str(error).split())}", err=True)
        ctx.exit(FAILED if isinstance(error, SinkError | OSError) else BAD_INPUT)


def _check_kafka_options(options: dict[str, Any]) -> None:
    if options["form"] != "json" and not options["schema_registry"]:
        raise click.UsageError(f"--format {options['form']} needs --schema-registry URL")
    if not options["kafka"]:
        for name, value in (
            ("--kafka-config", options["kafka_config"]),
            ("--schema-registry", options["schema_registry"]),
        ):
            if value:
                raise click.UsageError(f"{name} is about Kafka: name its brokers with --kafka")
    for pair in options["kafka_config"]:
        name, equals, _ = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--kafka-config {pair!r} is not NAME=VALUE")


def _run(options: dict[str, Any]) -> None:
    from collectors.collect import Collector
    from collectors.console import Console
    from collectors.metrics import Metrics, serve
    from collectors.process import dedicate_process

    collector = Collector(
        options["exchange"],
        options["symbols"],
        [name.strip() for name in (options["channels"] or "").split(",") if name.strip()],
        endpoint=options["endpoint"],
        rest_endpoint=options["rest_endpoint"],
        symbol_list=options["symbol_list"],
    )
    console = Console(collector)
    metrics = None
    with ExitStack() as stack:
        if options["metrics_port"] is not None:
            metrics = Metrics()
            server = serve(metrics, options["metrics_port"])
            stack.callback(server.close)
            console.say(f"metrics at http://localhost:{server.port}/metrics")
        queues, raw = _open(options, console)
        stack.enter_context(_stopped_by_signals(collector))
        dedicate_process()
        asyncio.run(_collect(collector, queues, raw, metrics, options, console))


async def _collect(
    collector: Collector,
    queues: list[SinkQueue],
    raw: RawLog | None,
    metrics: Metrics | None,
    options: dict[str, Any],
    console: Console,
) -> None:
    async with console:
        await collector.run(
            queues,
            raw=raw,
            metrics=metrics,
            duration_s=options["duration"],
            drain_s=options["drain"],
        )


def _open(options: dict[str, Any], console: Console) -> tuple[list[SinkQueue], RawLog | None]:
    """The outputs that were asked for; if one cannot be opened, those before are closed."""
    from collectors.queues import SinkQueue
    from collectors.raw import RawLog
    from collectors.sinks import Sink, make_sink
    from collectors.sinks.apart import SinkProcess

    with ExitStack() as opened:
        raw = RawLog(options["raw"]) if options["raw"] else None
        if raw is not None:
            opened.callback(raw.close)
        sinks: list[Sink] = []
        for name in ("parquet", "sqlite", "jsonl"):
            if options[name]:
                sinks.append(make_sink(name, options[name]))
                opened.callback(sinks[-1].close)
        if options["kafka"]:
            sinks.append(
                SinkProcess(  # encoding and producing row by row would take turns from the feed
                    "kafka",
                    options["kafka"],
                    form=options["form"],
                    schema_registry=options["schema_registry"],
                    config=dict(pair.split("=", 1) for pair in options["kafka_config"]),
                )
            )
            opened.callback(sinks[-1].close)
        policy, max_bytes = options["queue"], options["queue_mb"] << 20
        queues = [SinkQueue(sink, policy=policy, max_bytes=max_bytes) for sink in sinks]
        if not sinks and raw is None:
            queues.append(SinkQueue(console.table_sink(), policy="conflate"))
        opened.pop_all()
    return queues, raw


@contextmanager
def _stopped_by_signals(collector: Collector) -> Iterator[None]:
    """The first SIGTERM or SIGINT stops the collector, the second one the process."""
    signals = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # a live display hides the cursor
            os._exit(128 + number)
        collector.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
