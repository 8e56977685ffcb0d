"""Whether a worker sends task events: never wrong for workers that always, or never, send them."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.state.task_event_evidence import CONFIRM_SECONDS, DISABLED_SECONDS, TaskEventEvidence
from celery_gateway.state.worker_table import WorkerTable
from tests.support.thorough import tries

pytestmark = pytest.mark.unit


def shown(*steps: tuple[float, int | str | None]) -> list[bool | None]:
    """Return what is known after each step: a count of tasks, `task` for a task event, or `gap`."""
    evidence = TaskEventEvidence()
    results: list[bool | None] = []
    for at, what in steps:
        before = evidence.sends
        if what == "task":
            has_changed = evidence.on_task_event()
        elif what == "gap":
            has_changed = evidence.restart()
        else:
            assert not isinstance(what, str)
            has_changed = evidence.on_worker_event(what, at)
        assert has_changed == (evidence.sends is not before)
        results.append(evidence.sends)
    return results


def test_a_growing_count_without_task_events_shows_that_there_are_none() -> None:
    assert shown((0, 5), (2, 6), (4, 6), (6, 6)) == [None, None, None, False]


def test_an_idle_worker_shows_nothing() -> None:
    assert shown((0, 5), (2, 5), (100, 5), (200, 5)) == [None] * 4


def test_one_task_event_is_enough() -> None:
    assert shown((0, 5), (1, "task"), (2, 6), (6, 6), (100, 6)) == [None, True, True, True, True]


def test_a_task_event_that_comes_after_the_heartbeat_that_counts_it() -> None:
    assert shown((0, 5), (2, 6), (2.5, "task"), (6, 6)) == [None, None, True, True]


def test_a_count_of_before_the_first_worker_event_shows_nothing() -> None:
    assert shown((0, 90), (9, 90)) == [None, None]


def test_events_that_were_switched_off() -> None:
    """A minute without an event, while tasks start."""
    steps = [(0.0, 5), (1.0, "task"), (2.0, 6)]
    assert shown(*steps, (4, 7), (63.9, 30), (64, 31)) == [None, True, True, True, True, False]
    assert shown(*steps, (4, 7), (60, "task"), (64, 31), (123, 40))[-1] is True
    assert shown(*steps, (4, 6), (70, 6), (200, 6))[-1] is True, "an idle worker has nothing to send"


def test_events_that_were_switched_on() -> None:
    assert shown((0, 5), (2, 6), (6, 6), (7, "task"))[-2:] == [False, True]


def test_after_lost_events_the_count_begins_again() -> None:
    assert shown((0, 5), (1, "gap"), (2, 6), (6, 6), (9, 6)) == [None] * 5
    assert shown((0, 5), (2, 6), (3, "gap"), (6, 6), (9, 6)) == [None] * 5
    assert shown((0, 5), (2, 6), (6, 6), (7, "gap"), (8, 7), (9, 8), (12, 8))[-4:] == [
        None,
        None,
        None,
        False,
    ]
    assert shown((0, "task"), (1, "gap"), (2, 6), (6, 6)) == [True] * 4


def test_an_answer_to_a_command_has_no_count() -> None:
    assert shown((0, 5), (2, 6), (6, None), (7, 6)) == [None, None, None, False]


class Work(NamedTuple):
    """What a simulated worker does next: it waits, starts tasks, and perhaps loses its events."""

    wait_seconds: float
    starts: int
    is_gap: bool


WORK = st.lists(
    st.builds(
        Work, st.sampled_from([0.0, 0.5, 2.0, 30.0, 100.0]), st.sampled_from([0, 0, 1, 3]), st.booleans()
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=tries(300))
@given(WORK, st.booleans(), st.floats(0, CONFIRM_SECONDS - 0.1), st.integers(0, 50))
def test_a_worker_that_does_not_change(
    work: list[Work], is_sending: bool, delay_seconds: float, processed: int
) -> None:
    """Its heartbeats come every two seconds; its task events in order, up to a delay later than those.

    The gateway starts at any time, may lose the task events of any span, and is told of the loss.
    """
    workers = WorkerTable()
    now, clock, started = 1_000.0, 0, processed
    queue: list[tuple[float, bool]] = []  # when a task event arrives, and whether it is lost
    has_arrived = False
    began_at: float | None = None  # of what shows that it sends none

    def deliver(until: float) -> None:
        nonlocal has_arrived
        while queue and queue[0][0] <= until:
            at, is_lost = queue.pop(0)
            if is_lost:
                workers.on_gap(None)
            else:
                has_arrived = True
                workers.on_event({"type": "task-started", "hostname": "w", "pid": 1, "uuid": "u"}, at)

    for wait_seconds, starts, is_gap in work:
        end = now + wait_seconds + 2.0
        for number in range(starts):
            started += 1
            if is_sending:
                queue.append((now + delay_seconds, is_gap and number == 0))
            elif is_gap:
                workers.on_gap(None)
                began_at = None
        counted = False
        while now < end:
            now += 2.0
            clock += 1
            deliver(now)
            heartbeat = {"type": "worker-heartbeat", "hostname": "w", "pid": 1, "clock": clock, "freq": 2.0}
            workers.on_event(heartbeat | {"processed": started, "active": 0}, now)
            if starts and not counted and clock > 1 and not is_gap and began_at is None:
                began_at = now
            counted = True
            (worker,) = workers.all(now, now)
            if is_sending:
                assert worker.sends_task_events in ((True,) if has_arrived else (None,))
            else:
                assert worker.sends_task_events is not True
                if began_at is not None and now - began_at > CONFIRM_SECONDS + 2.0:
                    assert worker.sends_task_events is False


def test_each_process_has_its_own() -> None:
    """A worker that was started again without `-E`, or with it."""
    workers = WorkerTable()
    clock = 0

    def heartbeat(now: float, pid: int, processed: int) -> bool | None:
        nonlocal clock
        clock += 1
        event = {"type": "worker-heartbeat", "hostname": "w", "pid": pid, "clock": clock}
        workers.on_event(event | {"processed": processed, "active": 0}, now)
        (worker,) = workers.all(now, now)
        return worker.sends_task_events

    assert heartbeat(0, 1, 0) is None
    workers.on_event({"type": "task-received", "hostname": "w", "pid": 1, "uuid": "u"}, 1)
    assert heartbeat(2, 1, 1) is True
    assert heartbeat(4, 2, 0) is None, "another process"
    assert heartbeat(6, 2, 1) is None
    assert heartbeat(10, 2, 1) is False
    workers.on_event({"type": "task-progress", "hostname": "w", "pid": 3, "uuid": "u"}, 11)
    assert heartbeat(12, 2, 1) is False, "an event of the application"


def test_two_workers_with_one_name_and_pid() -> None:
    """Their counts are not one count: what seems to grow is that of the other one."""
    workers = WorkerTable()
    for number in range(40):
        clock, processed = (100 + number, 5) if number % 2 else (900 + number, 9)
        event = {"type": "worker-heartbeat", "hostname": "w", "pid": 1, "clock": clock}
        workers.on_event(event | {"processed": processed, "active": 1}, 2.0 * number)
        (worker,) = workers.all(2.0 * number, 2.0 * number)
        assert worker.sends_task_events is None


def test_a_change_is_marked() -> None:
    """For snapshots and streams, which encode only workers that have changed."""
    workers = WorkerTable()
    event = {"type": "worker-heartbeat", "hostname": "w", "pid": 1, "clock": 1, "processed": 0, "active": 0}
    workers.on_event(event, 0.0)
    workers.changed.clear()
    workers.on_event({"type": "task-received", "hostname": "w", "pid": 1, "uuid": "u"}, 1.0)
    assert workers.changed == {(None, "w")}
    workers.changed.clear()
    workers.on_event({"type": "task-started", "hostname": "w", "pid": 1, "uuid": "u"}, 1.0)
    assert not workers.changed
    assert DISABLED_SECONDS > CONFIRM_SECONDS
