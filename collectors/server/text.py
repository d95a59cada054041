"""Numbers and times as exchanges write them. Amounts are whole numbers of 1e-8."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from collectors.market import UNIT

_DIGITS = 8


def decimals_of(step: int) -> int:
    """Decimals that a price or size in multiples of `step` needs."""
    text = f"{step % UNIT:0{_DIGITS}d}".rstrip("0")
    return len(text)


def full(units: int) -> str:
    """Eight decimals: 0.20000000."""
    return f"{units // UNIT}.{units % UNIT:08d}"


def fixed(units: int, decimals: int) -> str:
    """So many decimals, which must be enough: 83250.10."""
    text = full(units)
    return text[: len(text) - _DIGITS + decimals] if decimals else text[: -_DIGITS - 1]


def trimmed(units: int) -> str:
    """No decimals that say nothing: 0.2, 14."""
    return full(units).rstrip("0").rstrip(".")


def rfc3339(time_ns: int, digits: int = 6) -> str:
    """UTC to so many decimals of a second: 2026-09-30T02:39:53.788655Z."""
    second, ns = divmod(time_ns, 1_000_000_000)
    return f"{_second(second)}.{ns // 10 ** (9 - digits):0{digits}d}Z"


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
