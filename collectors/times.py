"""Exchange times as text -> nanoseconds since 1970 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from collectors.errors import DecodeError


def rfc3339_ns(text: str) -> int:
    """Nanoseconds of `2026-09-30T02:39:53.78865513Z`: up to nine decimals, or none, always UTC."""
    fraction = text[20:-1]
    if text[-1:] != "Z" or len(fraction) > 9 or (text[19:20] == "." and not fraction):
        raise _error(text)
    if text[19:20] != ("." if fraction else "Z") or (fraction and not _digits(fraction)):
        raise _error(text)
    return _second(text[:19]) * 1_000_000_000 + (int(fraction.ljust(9, "0")) if fraction else 0)


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


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _error(text: str) -> DecodeError:
    shown = text if len(text) <= 40 else text[:40] + "..."
    return DecodeError(f"time {shown!r}: expected UTC such as 2026-09-30T02:39:53.788655Z")
