"""A real Kafka broker and a real schema registry for the tests: no Docker, no root, loopback only.

Both are Java programs from Maven Central, fetched once into the user's cache directory. Tests use
the fixtures `kafka` (or `own_broker`, which may be killed) and `schema_registry`; `KAFKA_BOOTSTRAP`
and `SCHEMA_REGISTRY_URL` replace them by running ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "broker"
REGISTRY_VERSION = "3.0.9"
READY_S = 180.0
_JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_CLUSTER_ID = "gpukernTestsCluster001"


class Broker:
    """A single-node Kafka in a directory of its own; it can be killed and started again.

    Who has not been heard of for `session_s` leads no partition, and nobody can take its place
    before: short for a broker that is killed, long for one that lives on a slow machine.
    """

    def __init__(self, directory: Path, session_s: float) -> None:
        self.directory = directory
        self._session_s = session_s
        self.port, self._controller_port = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._classpath = f"{_kafka_jars()}/*"
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "server.properties"
        self._config.write_text(self._properties())
        self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", self._config)

    def start(self) -> None:
        """Start, and return when it answers."""
        with (self.directory / "broker.log").open("ab") as log:
            options = [
                "-Xms128m",
                "-Xmx512m",
                *_JAVA,
                f"-Dlog4j2.configurationFile={self._log4j()}",
            ]
            self._process = subprocess.Popen(
                ["java", *options, "-cp", self._classpath, "kafka.Kafka", str(self._config)],
                stdout=log,
                stderr=log,
            )
        _until_ready(self._process, self._answers, self.directory / "broker.log")

    def kill(self) -> None:
        """Stop without a chance to say goodbye."""
        self._end(signal_kill=True)

    def stop(self) -> None:
        """Stop in an orderly way."""
        self._end(signal_kill=False)

    def _end(self, *, signal_kill: bool) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill() if signal_kill else process.terminate()
        try:
            process.wait(READY_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        # A refused connection is worth a line on stderr to librdkafka; look before asking.
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        try:
            admin = AdminClient({"bootstrap.servers": self.bootstrap})
            return bool(admin.list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    def _java(self, main: str, *arguments: object) -> None:
        command = ["java", *_JAVA, "-cp", self._classpath, main, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=READY_S)

    def _log4j(self) -> Path:
        path = self.directory / "log4j2.properties"
        path.write_text(
            "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n"
            "appender.out.layout.pattern=%d %p %c{1}: %m%n\n"
            "rootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\n"
        )
        return path

    def _properties(self) -> str:
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self._controller_port}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={self.directory}/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms={self._session_s * 1000:.0f}
broker.heartbeat.interval.ms=300
"""


@contextlib.contextmanager
def broker(directory: Path, session_s: float = 300.0) -> Iterator[Broker]:
    """A running broker, stopped at the end."""
    one = Broker(directory, session_s)
    try:
        one.start()
        yield one
    finally:
        one.stop()


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[str]:
    """A running schema registry (Apicurio, in memory): the URL of its Confluent-compatible API."""
    (port,) = _free_ports(1)
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    directory.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"QUARKUS_HTTP_HOST": "127.0.0.1", "QUARKUS_HTTP_PORT": str(port)}
    with (directory / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["java", "-Xmx512m", *_JAVA, "-jar", str(_registry_jar())],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=directory,
        )
    try:
        _until_ready(process, lambda: _http_answers(f"{url}/subjects"), directory / "registry.log")
        yield url
    finally:
        process.terminate()
        process.wait(READY_S)


def need_java() -> None:
    """Skip on a machine without Java and Maven; in CI that is a failure."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{' and '.join(missing)} not installed: the Kafka tests need them")
    if missing:
        pytest.skip(f"no Kafka: {' and '.join(missing)} not installed")


def _kafka_jars() -> Path:
    target = _cache() / "kafka-4.1.1"
    return _fetched(target, lambda folder: _maven("dependency:copy-dependencies", folder))


def _registry_jar() -> Path:
    artifact = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all"

    def fetch(folder: Path) -> None:
        _maven("dependency:copy", folder, f"-Dartifact={artifact}")
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()

    folder = _fetched(_cache() / f"apicurio-registry-{REGISTRY_VERSION}", fetch)
    (jar,) = folder.glob("*-runner.jar")
    return jar


def _fetched(target: Path, fetch: object) -> Path:
    """The folder, filled once; several processes may try at the same time."""
    if not target.is_dir():
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        assert callable(fetch)
        fetch(partial)
        try:
            partial.rename(target)
        except OSError:  # another was first
            shutil.rmtree(partial)
    return target


def _maven(goal: str, folder: Path, *options: str) -> None:
    need_java()
    command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), goal, *options]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={folder}", "-DincludeScope=runtime"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpukern-tests"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _http_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _until_ready(process: subprocess.Popen[bytes], answers: object, log: Path) -> None:
    assert callable(answers)
    end = time.monotonic() + READY_S
    while not answers():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise RuntimeError(f"{process.args!r} does not answer: {log.read_text()[-4000:]}")
        time.sleep(0.05)


if __name__ == "__main__":  # fetch only, for whoever prepares a machine
    sys.exit(print(_kafka_jars(), _registry_jar()))
