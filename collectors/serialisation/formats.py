"""Message formats by name, with or without a schema registry.

With a registry a message is framed as Confluent's clients frame it: a zero byte, the schema's id in
four bytes, and for Protobuf the index of the message in its file (a zero byte: the first). Schemas
are registered under `{topic}-value`.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote, urlsplit, urlunsplit

import pyarrow as pa

from collectors.errors import SinkError
from collectors.serialisation.avro import avro_messages, avro_schema
from collectors.serialisation.json import json_messages, json_schema
from collectors.serialisation.messages import Messages
from collectors.serialisation.protobuf import protobuf_messages, protobuf_schema

Encoder = Callable[[pa.RecordBatch], Messages]

_FORMATS: dict[str, tuple[str, Callable[[str], str], Callable[[pa.RecordBatch, bytes], Messages]]]
_FORMATS = {
    "json": ("JSON", json_schema, json_messages),
    "avro": ("AVRO", avro_schema, avro_messages),
    "protobuf": ("PROTOBUF", protobuf_schema, protobuf_messages),
}


class Encoders:
    """The encoder of each topic, in one format."""

    def __init__(self, form: str, schema_registry: str | None = None) -> None:
        """`schema_registry`: its URL, with `user:password@` where it wants that."""
        if form not in _FORMATS:
            raise SinkError(f"format {form!r} is unknown; choose from {', '.join(_FORMATS)}")
        if form != "json" and schema_registry is None:
            raise SinkError(
                f"format {form} needs a schema registry, or nobody can read the messages: "
                f"give --schema-registry URL, or --format json"
            )
        self._kind, self._schema, self._encode = _FORMATS[form]
        self._registry = None if schema_registry is None else _Registry(schema_registry)

    def encoder(self, topic: str, channel: str) -> Encoder:
        """Batches of `channel` -> the messages for `topic`; registers the schema."""
        encode, prefix = self._encode, b""
        if self._registry is not None:
            number = self._registry.register(f"{topic}-value", self._schema(channel), self._kind)
            prefix = b"\0" + number.to_bytes(4, "big") + (b"\0" * (self._kind == "PROTOBUF"))
        return lambda batch: encode(batch, prefix)

    def close(self) -> None:
        """Let go of the registry."""
        if self._registry is not None:
            self._registry.close()


class _Registry:
    """A schema registry that speaks Confluent's HTTP API."""

    def __init__(self, url: str) -> None:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise SinkError(
                f"a schema registry needs the extra 'kafka' ({error}): pip install 'gpukern[kafka]'"
            ) from error
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SinkError(f"schema registry {url!r}: expected a URL such as http://host:8081")
        credentials, _, host = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=host))
        options: dict[str, object] = {"url": self.url, "timeout": 10, "max.retries": 2}
        if credentials:
            options["basic.auth.user.info"] = unquote(credentials)
        self._client = SchemaRegistryClient(options)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def register(self, subject: str, schema: str, kind: str) -> int:
        """The id of the schema, known to the registry from now on."""
        import httpx2  # what confluent-kafka's client stands on, and whose errors it passes on
        from confluent_kafka.schema_registry import Schema
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return int(self._client.register_schema(subject, Schema(schema, kind)))
        except SchemaRegistryError as error:
            raise SinkError(
                f"schema registry {self.url} refuses the schema of {subject}: {error.error_message}"
            ) from error
        except httpx2.HTTPError as error:
            raise SinkError(
                f"schema registry {self.url} does not answer: {error}; is the URL right?"
            ) from error
