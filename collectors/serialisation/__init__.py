"""Canonical rows as messages: JSON, Avro, Protobuf; times are int64 nanoseconds since 1970 UTC."""

REQUIRED = ("recv_ts", "exchange", "symbol")
"""The columns that no row is without."""


def record_name(channel: str) -> str:
    """What schemas call a row of `channel`."""
    return channel.capitalize()
