"""Exchange times as text -> nanoseconds since 1970 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from collectors.errors import DecodeError

_SCALES = tuple(10 ** (9 - decimals) for decimals in range(10))


def rfc3339_ns(text: str) -> int:
    """Nanoseconds of `2026-09-30T02:39:53.78865513Z`: up to nine decimals, or none, always UTC."""
    second, point, fraction = text[:19], text[19:20], text[20:-1]
    if point == "." and text[-1] == "Z" and fraction.isdigit() and text.isascii():
        if len(fraction) <= 9:
            return _second(second) * 1_000_000_000 + int(fraction) * _SCALES[len(fraction)]
    elif text[19:] == "Z":
        return _second(second) * 1_000_000_000
    raise _error(text)


@lru_cache(maxsize=1024)
def _second(text: str) -> int:
    """Many messages share a second."""
    try:
        time = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise _error(text) from error
    second = int(time.timestamp())
    if len(text) != 19 or not 0 <= second < 9_000_000_000:  # int64 ns ends in the year 2262
        raise _error(text)
    return second


def _error(text: str) -> DecodeError:
    shown = text if len(text) <= 40 else text[:40] + "..."
    return DecodeError(f"time {shown!r}: expected UTC such as 2026-09-30T02:39:53.788655Z")
