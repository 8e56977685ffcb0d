"""Times as RFC 3339, against the standard library's own."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_gateway.events.event import rfc3339

pytestmark = pytest.mark.unit


@given(st.floats(-62_135_596_800, 253_402_300_799) | st.integers(-62_135_596_800, 253_402_300_799))
def test_every_time_of_the_calendar_is_written_as_the_standard_library_has_it(timestamp: float) -> None:
    expected = datetime.fromtimestamp(timestamp, UTC)
    assert rfc3339(timestamp) == expected.strftime(f"{expected.year:04}-%m-%dT%H:%M:%S.%fZ")


def test_what_is_no_time_of_the_calendar_has_none() -> None:
    for value in (
        float("nan"),
        float("inf"),
        -1e300,
        10**400,
        -62_135_596_801,
        253_402_300_800,
        "1",
        None,
        True,
    ):
        assert rfc3339(value) is None
