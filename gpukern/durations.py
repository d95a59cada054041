"""Durations: an integer and a unit, as nanoseconds (``m`` is a minute)."""

import re

from gpukern.errors import PlanError

UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_PATTERN = re.compile(r"(\d+)(ns|us|ms|s|min|m|h|d)")


def parse_duration(text: str, *, what: str = "duration") -> int:
    """Return the nanoseconds of ``'60s'``, ``'5m'``, ``'1h'``; raise PlanError otherwise."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise PlanError(
            f"{what} must be an integer and one of {' '.join(UNIT_NS)}, such as '60s', got {text!r}"
        )
    ns = int(match[1]) * UNIT_NS[match[2]]
    if ns >= 2**62:
        raise PlanError(f"{what} {text!r} is longer than 146 years")
    return ns
