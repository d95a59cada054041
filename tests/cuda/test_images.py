"""The container files, as far as they can be read where no container engine runs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from pipelines.cli import main

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, rest) without comments, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


DOCKERFILE = instructions(ROOT / "Dockerfile.cuda")


def rests(name: str) -> list[str]:
    return [rest for instruction, rest in DOCKERFILE if instruction == name]


def pins(path: Path) -> dict[str, str]:
    """Exact pip pins and conda's ``name=version`` by name."""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = re.split(r"==?", line)
            found[name.lower().replace("_", "-")] = version
    return found


PIP = pins(ROOT / "requirements/rapids-26.10.txt")
CONDA = pins(ROOT / "requirements/rapids-26.10-conda.txt")


def test_the_base_image_is_of_one_release() -> None:
    (base,) = rests("FROM")
    assert re.fullmatch(r"rapidsai/base:26\.10-cuda13-py3\.\d+", base)


def test_nothing_is_fetched_that_is_not_pinned() -> None:
    for command in rests("RUN"):
        assert not re.search(r"\b(curl|wget|apt-get|git clone)\b|:latest", command)
        for install in re.findall(r"pip install [^&]*", command):
            assert "--no-deps" in install
            assert "--no-cache-dir" in install
        if "conda install" in command:
            assert "--file requirements/" in command
            assert "conda clean --all" in command
    assert all(re.fullmatch(r"[\w.+-]+", version) for version in PIP.values())
    assert all(re.fullmatch(r"[\d.]+(\.\*)?", version) for version in CONDA.values())


def test_it_does_not_run_as_root() -> None:
    assert rests("USER")[-1] == "rapids"


def test_copied_paths_exist() -> None:
    for rest in rests("COPY"):
        *sources, target = [word for word in rest.split() if not word.startswith("--")]
        assert target
        for source in sources:
            assert (ROOT / source).exists(), source


def test_a_pipe_that_fails_fails_the_build() -> None:
    (shell,) = rests("SHELL")
    assert json.loads(shell) == ["/bin/bash", "-o", "pipefail", "-c"]


def test_its_command_is_the_gpu_tests() -> None:
    (command,) = rests("CMD")
    words = json.loads(command)
    assert words == ["python", "-m", "pytest", "-W", "error", "tests/gpu"]
    assert list((ROOT / "tests/gpu").glob("test_*.py"))


@pytest.mark.parametrize("package", ["cudf", "cudf-kafka", "custreamz", "dask-cuda"])
def test_rapids_is_of_the_release_of_the_base_image(package: str) -> None:
    assert CONDA[package] == "26.10.*"


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["kafka"], *EXTRAS["metrics"]])
def test_a_dependency_is_pinned_within_the_project_s_range(line: str) -> None:
    requirement = Requirement(line)
    version = (PIP | CONDA)[requirement.name.lower()]
    assert requirement.specifier.contains(Version(version.replace("*", "999")))


def needs(name: str, extras: set[str]) -> Iterator[str]:
    """What the installed package of that name needs, on this Python."""
    for line in requires(name) or []:
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
            yield needed.name.lower().replace("_", "-")


# Packages of conda that cuDF brings, beside those that are pinned.
CUDF = {"packaging"}
HERE = {found.metadata["Name"].lower().replace("_", "-") for found in distributions()}


@pytest.mark.parametrize("name", sorted(HERE & PIP.keys()))
def test_what_a_pinned_package_needs_is_there(name: str) -> None:
    # pip installs without asking for dependencies.
    extras = {"", "schemaregistry"} if name == "confluent-kafka" else {""}
    assert set(needs(name, extras)) <= {*PIP, *CONDA, *CUDF}


def test_the_compiler_is_the_extra_s() -> None:
    wanted = {Requirement(line).name: Requirement(line).specifier for line in EXTRAS["cuda13"]}
    assert wanted["numba-cuda"].contains(CONDA["numba-cuda"])
    assert wanted["cupy-cuda13x"].contains(CONDA["cupy"].replace("*", "999"))
    assert wanted["nvidia-nvvm"].contains(f"{CONDA['cuda-version']}.999")


def test_gpukern_is_run_only_with_commands_it_has() -> None:
    for command in rests("RUN"):
        for name in re.findall(r"\bgpukern (\w+)", command):
            assert name in main.commands


# --------------------------------------------------------------------------------------- compose

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_s_image_is_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert re.fullmatch(r"\d+\.\d+\.\d+", tag)


def test_what_is_built_has_the_project_s_version_and_a_dockerfile() -> None:
    for service in (s for s in SERVICES.values() if "build" in s):
        assert service["image"].endswith(f":{PROJECT['version']}")
        if "dockerfile" in service["build"]:
            assert (ROOT / service["build"]["dockerfile"]).exists()


def test_the_collector_is_run_with_options_it_has() -> None:
    name, exchange, *options = SERVICES["collector"]["command"]
    command = main.commands[name]
    argument, *_ = (p for p in command.params if isinstance(p, click.Argument))
    assert isinstance(argument.type, click.Choice)
    assert exchange in argument.type.choices
    # Parses as the command line would; nothing is collected.
    context = command.make_context(name, [exchange, *options], resilient_parsing=False)
    assert context.params["exchange"] == exchange


def test_the_collector_s_image_is_pinned_and_not_root() -> None:
    recipe = SERVICES["collector"]["build"]["dockerfile_inline"]
    assert re.match(r"FROM python:3\.\d+\.\d+-slim\n", recipe)
    assert re.findall(r"^USER (\w+)$", recipe, re.M) == ["gpukern"]
    for sources in re.findall(r"^COPY (.+) \S+$", recipe, re.M):
        assert all((ROOT / source).exists() for source in sources.split())
    (extras,) = re.findall(r"'\.\[(.+)\]'", recipe)
    assert set(extras.split(",")) <= set(EXTRAS)


def test_the_collector_waits_for_the_broker_and_may_drain() -> None:
    collector = SERVICES["collector"]
    assert collector["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert f"--kafka={SERVICES['kafka']['hostname']}:19092" in collector["command"]
    assert collector["stop_grace_period"] == "30s"  # longer than --drain's default


def test_volumes_are_declared() -> None:
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_the_broker_listens_on_this_machine_only_and_says_when_it_is_ready() -> None:
    kafka = SERVICES["kafka"]
    assert kafka["image"].startswith("apache/kafka:4.")
    assert all(port.startswith("127.0.0.1:") for port in kafka["ports"])
    assert kafka["healthcheck"]["test"]


def test_every_listener_of_the_broker_is_configured() -> None:
    settings = SERVICES["kafka"]["environment"]

    def names(key: str) -> set[str]:
        return {part.partition(":")[0] for part in settings[key].split(",")}

    assert names("KAFKA_LISTENERS") == names("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP")
    assert names("KAFKA_ADVERTISED_LISTENERS") < names("KAFKA_LISTENERS")
    assert settings["KAFKA_INTER_BROKER_LISTENER_NAME"] in names("KAFKA_ADVERTISED_LISTENERS")
