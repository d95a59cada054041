"""Kafka for the tests that need it: the same broker and registry for a whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import kafka_broker
import pytest


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a broker that all tests share: choose your own topic names."""
    if address := os.environ.get("KAFKA_BOOTSTRAP"):
        yield address
        return
    kafka_broker.need_java()
    with kafka_broker.broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[kafka_broker.Broker]:
    """A broker for one test, which may kill it and start it again."""
    kafka_broker.need_java()
    with kafka_broker.broker(tmp_path / "kafka", session_s=1.5) as broker:
        yield broker


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a schema registry that all tests share."""
    if url := os.environ.get("SCHEMA_REGISTRY_URL"):
        yield url
        return
    kafka_broker.need_java()
    with kafka_broker.registry(tmp_path_factory.mktemp("registry")) as url:
        yield url
