"""Failed authentications: which responses wait, and what is kept for how many addresses."""

import pytest

from celery_gateway.access.failures import (
    BURST_SECONDS,
    DELAY_SECONDS,
    FAILURES_PER_SECOND,
    MAX_ADDRESSES,
    Failures,
)

pytestmark = pytest.mark.unit

BURST = int(FAILURES_PER_SECOND * BURST_SECONDS)


class Clock:
    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("address", ["192.0.2.7", "", "2001:db8::7", "fe80::1%eth0", "no:address"])
def test_failures_beyond_the_burst_wait(address: str) -> None:
    failures = Failures(clock := Clock())
    delays = [failures.delay_seconds(address) for _ in range(BURST + 100)]
    assert not any(delays[: BURST - 1])  # one less: sums of floats
    assert set(delays[BURST + 1 :]) == {DELAY_SECONDS}
    assert failures.delay_seconds("192.0.2.8") == 0
    clock.now += 1
    again = [failures.delay_seconds(address) for _ in range(2 * FAILURES_PER_SECOND)]
    assert abs(again.count(0) - FAILURES_PER_SECOND) <= 1
    assert failures.count == BURST + 100 + 1 + 2 * FAILURES_PER_SECOND


def test_addresses_of_one_ipv6_network_count_together() -> None:
    failures = Failures(Clock())
    delays = [failures.delay_seconds(f"2001:db8:0:1::{number:x}") for number in range(BURST + 10)]
    assert delays[-1] == DELAY_SECONDS
    assert failures.delay_seconds("2001:db8:0:2::1") == 0
    assert failures.addresses == 2


def test_a_bounded_number_of_addresses_is_remembered() -> None:
    failures = Failures(clock := Clock())
    for number in range(3 * MAX_ADDRESSES):
        failures.delay_seconds(f"host-{number}")
    assert failures.addresses == MAX_ADDRESSES
    clock.now += BURST_SECONDS + 1
    failures.delay_seconds("host")
    assert failures.addresses == 1
