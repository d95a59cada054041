"""Times as text."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import DecodeError
from collectors.times import rfc3339_ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-09-30T02:39:53Z", 1_790_735_993_000_000_000),
        ("2026-09-30T02:39:53.78865513Z", 1_790_735_993_788_655_130),
        ("2026-09-30T02:39:53.788628813Z", 1_790_735_993_788_628_813),
        ("2024-02-29T23:59:59.5Z", 1_709_251_199_500_000_000),
    ],
)
def test_trimmed_zeros_are_not_read_as_smaller_units(text, ns):
    assert rfc3339_ns(text) == ns


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)), st.integers(0, 999))
def test_every_nanosecond_survives(time, extra):
    seconds = int(time.replace(microsecond=0, tzinfo=UTC).timestamp())
    ns = time.microsecond * 1000 + extra
    assert rfc3339_ns(f"{time:%Y-%m-%dT%H:%M:%S}.{ns:09d}Z") == seconds * 1_000_000_000 + ns


@pytest.mark.parametrize(
    "text",
    [
        *("", "Z", "2026-09-30", "2026-09-30T02:39:53", "2026-09-30T02:39:53.Z"),
        *("2026-09-30T02:39:53+00:00", "2026-09-30 02:39:53Z", "2026-13-30T02:39:53Z"),
        *("2026-09-30T02:39:53.1234567890Z", "2026-09-30T02:39:53.-1Z", "1969-12-31T23:59:59Z"),
        *("2026-9-30T02:39:53Z", "2026-09-30T02:39:53,5Z", "9999-01-01T00:00:00Z"),
        "2026-09-30T02:39:53.٣Z",
    ],
)
def test_anything_else_is_an_error(text):
    with pytest.raises(DecodeError, match=r"^time '.*': expected UTC such as"):
        rfc3339_ns(text)
