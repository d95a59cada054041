"""Collectors: decoding against cryptofeed, books, and the way from a socket into a sink.

``python -m bench collect [--captures DIR] [--kafka HOST:PORT]``. Decoding and books need recorded
messages, which are not part of the project (``--captures`` or ``GPUKERN_CAPTURES``); Kafka needs a
broker (``--kafka`` or ``KAFKA_BOOTSTRAP``), whose default says how many partitions a topic has: the
client sends a request for each. What is absent is left out, with a line that says so. A broker that
has just been started compiles itself while it serves, on the processors that are measured: flows to
it begin with one that is not measured. The pauses of its collector, 40 to 150 ms on processors that
are busy, are most of the tail: one with `-Xms6g -Xmx6g -Xmn4g -XX:+UseG1GC -XX:+AlwaysPreTouch`
makes one of 80 to 230 ms in sixteen minutes. Of several flows alike the one of the median p99 is
told; those that the host of a virtual machine disturbed are repeated (``bench/collect_flow.py``),
and the result has the p99 of every one: a host that is seldom quiet needs more ``--tries``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.sinks import Sink

from . import collect_decode, collect_flow
from .harness import console, print_machine, print_table, write_result

CAPTURES = Path(__file__).parents[2] / "shared" / "captures"
TARGET_RATIO = 5.0
TARGET_BOOK_US = 5.0
TARGET_PER_S = 50_000
TARGET_P99_MS = 20.0
RATES_PER_S = (0.0, 50_000.0, 20_000.0)  # 0: as fast as the collector reads
SECONDS = 20  # as long as several row groups take to fill
WARM_S = 60
SINKS = ("parquet", "kafka")
TOPIC = "binance-trades"


def decoding(captures: Path, repeats: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases of decoding, and of books."""
    found = list(collect_decode.recordings(captures))
    cases = [collect_decode.measure(recorded, repeats) for recorded in found]
    books = [collect_decode.measure_book(r, repeats) for r in found if r.channel == "book"]
    print_table(
        "collect: messages per second on one core, decoded and checked",
        [
            *("exchange, channel", "bytes", "singly", "decoded", "and checked", "cryptofeed"),
            *("ratio", "checked", "target"),
        ],
        [
            (
                f"{case['exchange']} {case['channel']}",
                case["bytes"],
                f"{case['single_per_s']:,.0f}",
                f"{case['decoded_per_s']:,.0f}",
                f"{case['checked_per_s']:,.0f}",
                f"{case['cryptofeed_per_s']:,.0f}" if case["ratio"] else case["reason"],
                f"{case['ratio']:.1f} ×" if case["ratio"] else "",
                f"{case['checked_ratio']:.1f} ×" if case["ratio"] else "",
                _met(case["ratio"] >= TARGET_RATIO) if case["ratio"] else "",
            )
            for case in cases
        ],
    )
    print_table(
        "collect: book updates applied, checked and proven",
        ["exchange", "levels an update", "µs an update", "µs a level", "target"],
        [
            (
                book["exchange"],
                book["levels_per_update"],
                book["us_per_update"],
                book["us_per_level"],
                _met(book["us_per_update"] < TARGET_BOOK_US),
            )
            for book in books
        ],
    )
    return cases, books


def flows(
    sink: str,
    rates_per_s: Sequence[float],
    kafka: str,
    seconds: float,
    warm_s: float,
    repeats: int,
    tries: int,
) -> list[dict[str, Any]]:
    """Cases of the whole way into a sink, for every rate."""
    with tempfile.TemporaryDirectory() as folder:

        def make() -> Sink:
            if sink == "kafka":
                return collect_flow.TimedKafkaProcess(kafka, Path(folder, "kafka.npz"))
            # A directory each: trades that an output has already are not taken again.
            return collect_flow.TimedParquet(Path(tempfile.mkdtemp(dir=folder)))

        if sink == "kafka" and warm_s:
            collect_flow.measure(make, int(TARGET_PER_S * warm_s), TARGET_PER_S)
        kinds = [(int((per_s or TARGET_PER_S) * seconds), per_s) for per_s in rates_per_s]
        cases = collect_flow.measure_medians(make, kinds, repeats, tries)
        for case in cases if sink == "kafka" else ():
            case["partitions"] = _partitions(kafka)
    print_table(
        f"collect: from a socket into {sink}, the exchange in another process",
        [
            *("partitions", "offered/s", "messages/s", "rows", "cores"),
            *("queued p50 ms", "p99", "taken p50 ms", "p99", "flows", "stolen", "target"),
        ],
        [
            (
                case.get("partitions", ""),
                f"{case['offered_per_s']:,.0f}" if case["offered_per_s"] else "all",
                f"{case['messages_per_s']:,.0f}",
                f"{case['rows']:,}",
                case["cpu_share"],
                case["queued_p50_ms"],
                case["queued_p99_ms"],
                case["taken_p50_ms"],
                case["taken_p99_ms"],
                f"{case['flows_counted']} of {len(case['taken_p99_ms_of_each'])}",
                f"{case['stolen_share']:.1%}",
                _verdict(case),
            )
            for case in cases
        ],
    )
    return cases


def _partitions(kafka: str) -> int:
    """Of a topic that the sink has asked for."""
    from confluent_kafka.admin import AdminClient

    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(TOPIC, timeout=10).topics
    return len(topics[TOPIC].partitions)


def _verdict(case: dict[str, Any]) -> str:
    """Flat out it is the rate that counts, at a rate below that the latency."""
    if case["offered_per_s"] is None:
        return _met(case["messages_per_s"] >= TARGET_PER_S)
    return _met(case["taken_p99_ms"] < TARGET_P99_MS)


def _met(met: bool) -> str:
    return "yes" if met else "NO"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench collect", description=__doc__)
    captures = Path(os.environ.get("GPUKERN_CAPTURES", CAPTURES))
    parser.add_argument("--captures", type=Path, default=captures, help="recorded messages")
    parser.add_argument("--kafka", default=os.environ.get("KAFKA_BOOTSTRAP", ""), help="a broker")
    parser.add_argument("--repeats", type=int, default=5, help="of every decoding")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=RATES_PER_S,
        help="messages offered a second; 0: as fast as they are read",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of every flow")
    parser.add_argument("--flows", type=int, default=5, help="of every kind")
    parser.add_argument("--tries", type=int, default=15, help="most flows of a kind")
    parser.add_argument("--warm", type=float, default=WARM_S, help="seconds, of the broker")
    parser.add_argument("--part", choices=("decoding", *SINKS), help="only this")
    options = parser.parse_args(arguments)
    print_machine()
    if options.part in (None, "decoding"):
        if options.captures.is_dir():
            cases, books = decoding(options.captures, options.repeats)
            write_result("collect_decoding", {"decoding": cases, "books": books})
        else:
            console.print(f"decoding and books left out: no captures at {options.captures}")
    for sink in SINKS if options.part is None else {options.part} & {*SINKS}:
        if sink == "kafka" and not options.kafka:
            console.print("Kafka left out: no broker; name one with --kafka or KAFKA_BOOTSTRAP")
            continue
        told = options.kafka, options.seconds, options.warm, options.flows, options.tries
        write_result(f"collect_{sink}", {"flows": flows(sink, options.rates, *told)})
