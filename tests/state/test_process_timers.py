"""The timers of processes: each process has one, and outdated ones do not pile up."""

import pytest

from celery_gateway.state.process import Process, ProcessKey
from celery_gateway.state.process_timers import _SPARE_TIMERS, ProcessTimers

pytestmark = pytest.mark.unit


def process(pid: int) -> Process:
    return Process(ProcessKey(None, "w@h", pid, 0), 0.0)


def test_timers_expire_in_the_order_of_their_times() -> None:
    timers, first, second, third = ProcessTimers(), process(1), process(2), process(3)
    for each, at in ((third, 30.0), (first, 10.0), (second, 20.0)):
        timers.set(each, at)
    assert not timers.has_expired(9.0)
    assert timers.has_expired(20.0)
    assert list(timers.expire(20.0, 10)) == [first, second]
    assert (first.timer, third.timer is not None) == (None, True)


def test_an_earlier_time_replaces_a_later_one_and_not_the_other_way_round() -> None:
    timers, one, other = ProcessTimers(), process(1), process(2)
    timers.set(one, 20.0)
    timers.set(one, 10.0)
    timers.set(other, 10.0)
    timers.set(other, 20.0)
    assert list(timers.expire(10.0, 10)) == [one, other]
    assert list(timers.expire(99.0, 10)) == [], "each expires once"


def test_a_cancelled_timer_does_not_expire() -> None:
    timers, one = ProcessTimers(), process(1)
    timers.set(one, 10.0)
    timers.cancel(one)
    timers.cancel(one)
    assert list(timers.expire(99.0, 10)) == []


def test_at_most_the_limit_expires_in_a_call_and_timers_may_be_set_meanwhile() -> None:
    timers = ProcessTimers()
    processes = [process(pid) for pid in range(5)]
    for each in processes:
        timers.set(each, 1.0)
    found = []
    for each in timers.expire(1.0, 3):
        timers.set(each, 2.0)
        found.append(each)
    assert found == processes[:3]
    assert list(timers.expire(1.0, 10)) == processes[3:]
    assert list(timers.expire(2.0, 10)) == processes[:3]


def test_outdated_timers_are_removed_from_the_heap() -> None:
    timers, one = ProcessTimers(), process(1)
    for number in range(10 * _SPARE_TIMERS):
        timers.set(one, 1e6 - number)
    assert len(timers._heap) <= _SPARE_TIMERS + 2
