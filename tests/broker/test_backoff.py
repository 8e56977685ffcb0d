"""Back-off: the pauses between attempts to connect, and the lines that are logged."""

import logging

import pytest

from celery_gateway.broker.backoff import LOG_SECONDS, MAX_PAUSE_SECONDS, STABLE_SECONDS, Backoff
from celery_gateway.broker.diagnosis import Diagnosis

pytestmark = pytest.mark.unit

REFUSED = Diagnosis("unreachable", "localhost:5672 cannot be reached", "Start the broker.")


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


def test_pauses_double_up_to_a_bound_and_a_stable_success_resets_them(clock: Clock) -> None:
    backoff = Backoff(None, clock=clock, uniform=longest)
    pauses = [backoff.record_failure(REFUSED) for _ in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]
    backoff.record_success("consuming")
    clock.now += STABLE_SECONDS
    assert backoff.record_failure(REFUSED) == 0.5


def test_a_short_success_counts_as_a_failure(clock: Clock) -> None:
    backoff = Backoff(None, clock=clock, uniform=longest)
    for pause in (0.5, 1, 2):
        backoff.record_success("consuming")
        clock.now += STABLE_SECONDS / 2
        assert backoff.record_failure(REFUSED) == pause


@pytest.mark.parametrize("lasted_seconds", [STABLE_SECONDS, 5.0, 60.0])
@pytest.mark.parametrize("urls", [1, 2])
def test_pauses_do_not_grow_while_the_broker_closes_stable_connections(
    clock: Clock, lasted_seconds: float, urls: int
) -> None:
    backoff = Backoff(None, urls, clock=clock, uniform=longest)
    for _ in range(50):
        backoff.record_success("consuming")
        clock.now += lasted_seconds
        assert backoff.record_failure(REFUSED) <= 0.5
        clock.now += 0.5


def test_failures_count_from_the_last_stable_consumer(clock: Clock) -> None:
    backoff = Backoff(None, clock=clock, uniform=longest)
    for _ in range(3):
        backoff.record_success("consuming")
        clock.now += 5
        assert [backoff.record_failure(REFUSED) for _ in range(4)] == [0.5, 1, 2, 4]


@pytest.mark.parametrize("lasted_seconds", [1.0, 5.0, 30.0])
def test_repeated_closes_are_logged_once_a_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture, lasted_seconds: float
) -> None:
    caplog.set_level(logging.INFO, "celery_gateway")
    backoff = Backoff(None, clock=clock)
    while clock.now < 1000.0 + 10 * LOG_SECONDS:
        backoff.record_success("consuming")
        clock.now += lasted_seconds
        backoff.record_failure(REFUSED)
        clock.now += 0.5
    kinds = [record.levelname for record in caplog.records]
    assert 9 <= kinds.count("WARNING") <= 11 and kinds.count("INFO") <= 12


def test_pauses_are_jittered_by_a_half() -> None:
    pauses = {Backoff(None).record_failure(REFUSED) for _ in range(50)}
    assert len(pauses) > 40
    assert all(0.25 <= pause <= 0.5 for pause in pauses)


def test_all_urls_are_tried_before_a_pause(clock: Clock) -> None:
    backoff = Backoff(None, 3, clock=clock, uniform=longest)
    assert [backoff.record_failure(REFUSED) for _ in range(6)] == [0, 0, 0.5, 0, 0, 1]


def test_an_outage_is_logged_at_once_once_a_minute_and_at_its_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "celery_gateway")
    backoff = Backoff("eu", clock=clock)
    for _ in range(int(3 * LOG_SECONDS)):
        backoff.record_failure(REFUSED)
        clock.now += 1
    logged = lines(caplog)
    assert len(logged) == 3
    assert all("broker eu" in line and REFUSED.what in line and "Start the broker" in line for line in logged)
    backoff.record_success("consuming celeryev")
    assert lines(caplog)[3:] == ["broker eu: consuming celeryev again after 180.0 s and 180 attempts"]


def test_a_flapping_broker_does_not_fill_the_log(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "celery_gateway")
    backoff = Backoff(None, clock=clock)
    for _ in range(30):
        backoff.record_success("consuming")
        clock.now += 1
        backoff.record_failure(REFUSED)
        clock.now += 1
    assert len(lines(caplog)) <= 3


def test_the_pauses_can_be_set(clock: Clock) -> None:
    backoff = Backoff(None, first_pause_seconds=0.1, max_pause_seconds=0.2, clock=clock, uniform=longest)
    assert [backoff.record_failure(REFUSED) for _ in range(3)] == [0.1, 0.2, 0.2]
