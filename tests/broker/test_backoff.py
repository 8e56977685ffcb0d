"""How long a source waits, and what it says: a line at first, then one a minute, then that it is over."""

import logging

import pytest

from gateway.source.attempts import LOG_SECONDS, MAX_PAUSE_SECONDS, STABLE_SECONDS, Attempts
from gateway.source.failure import Failure

REFUSED = Failure("unreachable", "localhost:5672 cannot be reached", "Start the broker.")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    return high


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_pauses_double_to_a_bound_and_begin_anew_after_a_success_that_lasted(clock: Clock) -> None:
    attempts = Attempts(None, clock=clock, dice=longest)
    pauses = [attempts.failed(REFUSED) for _ in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]
    attempts.succeeded("consuming")
    clock.now += STABLE_SECONDS
    assert attempts.failed(REFUSED) == 0.5


def test_a_success_that_does_not_last_is_one_more_failure(clock: Clock) -> None:
    attempts = Attempts(None, clock=clock, dice=longest)
    for pause in (0.5, 1, 2):
        attempts.succeeded("consuming")
        clock.now += STABLE_SECONDS / 2
        assert attempts.failed(REFUSED) == pause


def test_pauses_are_jittered_by_a_half() -> None:
    pauses = {Attempts(None).failed(REFUSED) for _ in range(50)}
    assert len(pauses) > 40
    assert all(0.25 <= pause <= 0.5 for pause in pauses)


def test_all_addresses_are_tried_before_a_pause(clock: Clock) -> None:
    attempts = Attempts(None, 3, clock=clock, dice=longest)
    assert [attempts.failed(REFUSED) for _ in range(6)] == [0, 0, 0.5, 0, 0, 1]


def test_one_line_at_once_one_a_minute_and_one_when_it_is_over(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    attempts = Attempts("eu", clock=clock)
    for _ in range(int(3 * LOG_SECONDS)):
        attempts.failed(REFUSED)
        clock.now += 1
    told = lines(caplog)
    assert len(told) == 3
    assert all("broker eu" in line and REFUSED.what in line and "Start the broker" in line for line in told)
    attempts.succeeded("consuming celeryev")
    assert lines(caplog)[3:] == ["broker eu: consuming celeryev again, after 180.0 s and 180 attempts"]


def test_a_broker_that_flaps_does_not_fill_the_log(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")
    attempts = Attempts(None, clock=clock)
    for _ in range(30):
        attempts.succeeded("consuming")
        clock.now += 1
        attempts.failed(REFUSED)
        clock.now += 1
    assert len(lines(caplog)) <= 3
