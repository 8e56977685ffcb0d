"""The states of a task: every pair (state now, event) said out loud, and what holds in any order.

The rule: within an attempt a state moves on only; a late event
never moves a finished state back; a new attempt (received, started or retried after the end of one, with the
same uuid, on redelivery) moves it forward again.
"""

from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.state import READY_STATES, Reached, state_of, transition

DRAWN = settings(deadline=None, max_examples=300, derandomize=True)
NOBODY = Reached()

# Rows: the state now. Columns: the event. `.` is: stays as it is.
YOUNGER = """
            sent     received  started  progress  retried  cancelled  rejected  succeeded  failed   revoked
None        PENDING  RECEIVED  STARTED  PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
PENDING     .        RECEIVED  STARTED  PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
RECEIVED    .        .         STARTED  PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
STARTED     .        RECEIVED  .        PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
PROGRESS    .        RECEIVED  .        .         RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
RETRY       .        RECEIVED  STARTED  .         .        .          REJECTED  SUCCESS    FAILURE  REVOKED
CANCELLED   .        RECEIVED  STARTED  .         RETRY    .          REJECTED  SUCCESS    FAILURE  REVOKED
REJECTED    .        RECEIVED  STARTED  .         RETRY    .          .         SUCCESS    FAILURE  REVOKED
SUCCESS     .        RECEIVED  STARTED  .         RETRY    .          .         .          .        .
FAILURE     .        RECEIVED  STARTED  .         RETRY    .          .         .          .        .
REVOKED     .        RECEIVED  STARTED  .         RETRY    .          .         .          .        .
"""
OLDER = """
            sent     received  started  progress  retried  cancelled  rejected  succeeded  failed   revoked
PENDING     .        RECEIVED  STARTED  PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
RECEIVED    .        .         STARTED  PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
STARTED     .        .         .        PROGRESS  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
PROGRESS    .        .         .        .         RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
RETRY       .        .         .        .         .        .          REJECTED  SUCCESS    FAILURE  REVOKED
CANCELLED   .        .         .        .         .        .          REJECTED  SUCCESS    FAILURE  REVOKED
REJECTED    .        .         .        .         .        .          .         SUCCESS    FAILURE  REVOKED
SUCCESS     .        .         .        .         .        .          .         .          .        .
FAILURE     .        .         .        .         .        .          .         .          .        .
REVOKED     .        .         .        .         .        .          .         .          .        .
"""


def pairs(table: str) -> list[tuple[str | None, str, str | None]]:
    """(state now, event type, state after) for each cell."""
    head, *rows = [line.split() for line in table.strip().splitlines()]
    found: list[tuple[str | None, str, str | None]] = []
    for name, *cells in rows:
        now = None if name == "None" else name
        for subject, cell in zip(head, cells, strict=True):
            found.append((now, f"task-{subject}", now if cell == "." else cell))
    return found


@pytest.mark.parametrize(("now", "event_type", "after"), pairs(YOUNGER))
def test_an_event_younger_than_the_state(now: str | None, event_type: str, after: str | None) -> None:
    assert transition(Reached(now, 10.0), Reached(state_of(event_type), 11.0)).state == after


@pytest.mark.parametrize(("now", "event_type", "after"), pairs(OLDER))
def test_an_event_older_than_the_state(now: str | None, event_type: str, after: str | None) -> None:
    assert transition(Reached(now, 10.0), Reached(state_of(event_type), 9.0)).state == after


@pytest.mark.parametrize(("now", "event_type", "after"), pairs(OLDER))
def test_an_event_of_the_same_instant_is_no_new_attempt(
    now: str | None, event_type: str, after: str | None
) -> None:
    assert transition(Reached(now, 10.0), Reached(state_of(event_type), 10.0)).state == after


@pytest.mark.parametrize(
    "event_type",
    ["task-sent", "task-received", "task-started", "task-progress", "task-retried", "task-cancelled"]
    + ["task-rejected", "task-succeeded", "task-failed", "task-revoked"],
)
def test_a_late_event_of_any_attempt_never_moves_a_finished_state(event_type: str) -> None:
    # "late events fill fields but never move a finished state back": a task-received with more retries that
    # is older than the end is late too, it is the beginning of the attempt that has ended.
    for finished, retries in product(sorted(READY_STATES), (0, 1, 7)):
        now = Reached(finished, 10.0, 0)
        assert transition(now, Reached(state_of(event_type), 9.0, retries)) == now


def test_a_received_with_more_retries_is_a_new_attempt_even_if_its_clock_is_behind() -> None:
    # Worker A says when it retried, worker B when it received: two clocks.
    now = Reached("RETRY", 10.0, 0)
    assert transition(now, Reached("RECEIVED", 9.9, 1)) == Reached("RECEIVED", 9.9, 1)


def test_ready_are_the_three_states_of_the_contract() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == READY_STATES


@pytest.mark.parametrize(
    ("event_type", "state"),
    [
        ("task-sent", "PENDING"),
        ("task-received", "RECEIVED"),
        ("task-started", "STARTED"),
        ("task-retried", "RETRY"),
        ("task-cancelled", "CANCELLED"),
        ("task-rejected", "REJECTED"),
        ("task-succeeded", "SUCCESS"),
        ("task-failed", "FAILURE"),
        ("task-revoked", "REVOKED"),
        ("task-progress", "PROGRESS"),
        ("task-half-done", "HALF-DONE"),
    ],
)
def test_the_state_that_an_event_speaks_of(event_type: str, state: str) -> None:
    assert state_of(event_type) == state


# ------------------------------------------------------------------------------------------ courses

Course = list[tuple[str, int]]  # (event type without its group, retries), oldest first
NO_RETRIES = 0


def after_all(course: Course, order: tuple[int, ...]) -> str | None:
    """The state when the events of a course, each a second younger than the one before, come in an order."""
    now = NOBODY
    for number in order:
        subject, retries = course[number]
        # As in tasks.py: only sent and received say how many retries; others are of the attempt known.
        known = retries if subject in ("sent", "received") else now.retries
        now = transition(now, Reached(state_of(f"task-{subject}"), float(number + 1), known))
    return now.state


ONE_ATTEMPT: list[tuple[str, str]] = [
    ("sent received started succeeded", "SUCCESS"),
    ("sent received started failed", "FAILURE"),
    ("sent received started progress revoked", "REVOKED"),
    ("sent received started progress progress succeeded", "SUCCESS"),
    ("sent received started half-done progress", "PROGRESS"),
    ("sent received started rejected", "REJECTED"),
    ("sent received started failed rejected", "FAILURE"),
    ("sent received started retried", "RETRY"),
    ("sent received started cancelled", "CANCELLED"),
    ("sent received started failed failed", "FAILURE"),
    ("sent received revoked", "REVOKED"),
    ("sent revoked", "REVOKED"),
    ("received sent started", "STARTED"),
    ("sent received", "RECEIVED"),
]


@pytest.mark.parametrize(("course", "end"), ONE_ATTEMPT)
def test_the_events_of_one_attempt_end_in_the_same_state_in_whatever_order_they_come(
    course: str, end: str
) -> None:
    events: Course = [(subject, NO_RETRIES) for subject in course.split()]
    wrong = {
        " ".join(course.split()[number] for number in order): state
        for order in permutations(range(len(events)))
        if (state := after_all(events, order)) != end
    }
    assert not wrong


RETRIED: Course = [
    ("sent", 0),
    ("received", 0),
    ("started", 0),
    ("retried", 0),
    ("received", 1),
    ("started", 1),
    ("succeeded", 1),
]


def test_a_retried_task_that_has_succeeded_stays_so_in_whatever_order_its_events_come() -> None:
    wrong = {
        " ".join(f"{RETRIED[number][0]}({RETRIED[number][1]})" for number in order): state
        for order in permutations(range(len(RETRIED)))
        if (state := after_all(RETRIED, order)) != "SUCCESS"
    }
    assert not wrong, f"{len(wrong)} orders, such as {next(iter(wrong.items()))}"


@pytest.mark.parametrize(
    ("course", "states"),
    [
        pytest.param(
            "sent received started retried sent received started succeeded",
            "PENDING RECEIVED STARTED RETRY RETRY RECEIVED STARTED SUCCESS",
            id="a retry",
        ),
        pytest.param(
            "sent received started sent received retried started failed",
            "PENDING RECEIVED STARTED STARTED RECEIVED RETRY STARTED FAILURE",
            id="a retry whose new message overtakes task-retried, as recorded",
        ),
        pytest.param(
            "received started rejected received started succeeded",
            "RECEIVED STARTED REJECTED RECEIVED STARTED SUCCESS",
            id="acks_late, a worker lost, the task redelivered",
        ),
        pytest.param(
            "received started succeeded received started succeeded",
            "RECEIVED STARTED SUCCESS RECEIVED STARTED SUCCESS",
            id="a task redelivered after it has ended",
        ),
        pytest.param(
            "received started succeeded started succeeded",
            "RECEIVED STARTED SUCCESS STARTED SUCCESS",
            id="a redelivery of which task-received was lost",
        ),
        pytest.param(
            "received started failed retried",
            "RECEIVED STARTED FAILURE RETRY",
            id="a redelivery of which only task-retried came",
        ),
        pytest.param(
            "received received started", "RECEIVED RECEIVED STARTED", id="a task received twice on reconnect"
        ),
        pytest.param(
            "sent received started sent received started succeeded",
            "PENDING RECEIVED STARTED STARTED RECEIVED STARTED SUCCESS",
            id="replace(): the same uuid under another name",
        ),
        pytest.param(
            "received started failed rejected",
            "RECEIVED STARTED FAILURE FAILURE",
            id="Reject(requeue=False), Celery 5.7",
        ),
        pytest.param(
            "received started failed failed", "RECEIVED STARTED FAILURE FAILURE", id="a hard time limit"
        ),
        pytest.param(
            "received started progress revoked",
            "RECEIVED STARTED PROGRESS REVOKED",
            id="a revoke after progress",
        ),
        pytest.param("received sent started", "RECEIVED RECEIVED STARTED", id="received before sent"),
        pytest.param("sent revoked revoked", "PENDING REVOKED REVOKED", id="revoked twice"),
    ],
)
def test_the_courses_that_celery_takes(course: str, states: str) -> None:
    now, seen, retries = NOBODY, [], -1
    for number, subject in enumerate(course.split(), 1):
        retries += subject == "received" and "retried" in course
        now = transition(now, Reached(state_of(f"task-{subject}"), float(number), max(retries, 0)))
        seen.append(now.state)
    assert " ".join(map(str, seen)) == states


STATES = st.sampled_from(
    ["PENDING", "RECEIVED", "STARTED", "RETRY", "CANCELLED", "REJECTED", "SUCCESS", "FAILURE", "REVOKED"]
    + ["PROGRESS", "HALF-DONE", ""]
)
EVENTS = st.builds(Reached, STATES, st.integers(0, 5).map(float), st.integers(0, 2))


@DRAWN
@given(st.lists(EVENTS, max_size=8))
def test_an_event_either_moves_the_state_to_itself_or_leaves_it(events: list[Reached]) -> None:
    now = NOBODY
    for event in events:
        after = transition(now, event)
        assert after in (now, event)
        assert transition(after, event) == after, "the same event twice is the same as once"
        now = after


@DRAWN
@given(st.sampled_from(sorted(READY_STATES)), st.lists(EVENTS, max_size=8))
def test_only_received_started_and_retried_lead_out_of_a_finished_state(
    finished: str, events: list[Reached]
) -> None:
    steps = [Reached(finished, 2.0)]
    for event in events:
        steps.append(transition(steps[-1], event))
    for before, after in pairwise(steps):
        if before.state in READY_STATES and after != before:
            assert after.state in ("RECEIVED", "STARTED", "RETRY")


def test_times_of_zero_and_below_are_times_like_others() -> None:
    for before, after in product((-5.0, 0.0), (1.0, 2.0)):
        assert transition(Reached("SUCCESS", before), Reached("RECEIVED", after)).state == "RECEIVED"
        assert transition(Reached("SUCCESS", after), Reached("STARTED", before)).state == "SUCCESS"
