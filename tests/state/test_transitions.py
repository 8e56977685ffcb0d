"""The states of a task: the table within one attempt, every pair of state and event written out.

The rule: within an attempt a state only moves up in rank. Two events of one rank: the first one stays, except
that custom events follow each other. Which attempt an event belongs to is tested in ``test_attempt``.
"""

from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event_types import LOST, STATE_OF_EVENT
from celery_gateway.state.transitions import (
    ATTEMPT_ENDED_STATES,
    MAX_STATE_CHARS,
    READY_STATES,
    UNASSIGNED_STATES,
    moves,
    state_of,
)
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

DRAWN = settings(deadline=None, max_examples=tries(300), derandomize=True)

# Rows: the state now. Columns: the event. `.`: the attempt stays as it is.
TABLE = """
           sent     received  started  progress  half-done  retried  cancelled  rejected  succeeded  failed   revoked
None       PENDING  RECEIVED  STARTED  PROGRESS  HALF-DONE  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
PENDING    .        RECEIVED  STARTED  PROGRESS  HALF-DONE  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
LOST       .        RECEIVED  STARTED  .         .          RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
RECEIVED   .        .         STARTED  PROGRESS  HALF-DONE  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
STARTED    .        .         .        PROGRESS  HALF-DONE  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
PROGRESS   .        .         .        PROGRESS  HALF-DONE  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
HALF-DONE  .        .         .        PROGRESS  HALF-DONE  RETRY    CANCELLED  REJECTED  SUCCESS    FAILURE  REVOKED
RETRY      .        .         .        .         .          .        .          REJECTED  SUCCESS    FAILURE  REVOKED
CANCELLED  .        .         .        .         .          .        .          REJECTED  SUCCESS    FAILURE  REVOKED
REJECTED   .        .         .        .         .          .        .          .         SUCCESS    FAILURE  REVOKED
SUCCESS    .        .         .        .         .          .        .          .         .          .        .
FAILURE    .        .         .        .         .          .        .          .         .          .        .
REVOKED    .        .         .        .         .          .        .          .         .          .        .
"""  # noqa: E501
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
STATES = [None if row[0] == "None" else row[0] for row in ROWS]


def pairs() -> list[tuple[str | None, str, str | None]]:
    """(state now, event type, state after) for each cell."""
    found: list[tuple[str | None, str, str | None]] = []
    for now, (_, *cells) in zip(STATES, ROWS, strict=True):
        for subject, cell in zip(HEAD, cells, strict=True):
            found.append((now, f"task-{subject}", now if cell == "." else cell))
    return found


def after(now: str | None, event_type: str) -> str | None:
    to = state_of(event_type)
    return to if moves(now, to) else now


@pytest.mark.parametrize(("now", "event_type", "expected"), pairs())
def test_an_event_moves_an_attempt_by_the_table(
    now: str | None, event_type: str, expected: str | None
) -> None:
    assert after(now, event_type) == expected


def test_the_table_has_every_event_and_every_state() -> None:
    assert {f"task-{subject}" for subject in HEAD} == {*STATE_OF_EVENT, "task-progress", "task-half-done"}
    assert set(STATES) == {None, LOST, "PROGRESS", "HALF-DONE", *STATE_OF_EVENT.values()}


def test_a_custom_event_moves_an_attempt_to_its_own_state_again() -> None:
    # The state stays, but the event counts: its time is the time of the state.
    assert moves("PROGRESS", "PROGRESS")
    assert not any(moves(state, state) for state in STATE_OF_EVENT.values())


def test_ready_states_are_the_three_states_of_the_contract() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == READY_STATES


def test_an_ended_attempt_is_left_by_an_event_of_a_higher_rank_only() -> None:
    left = {
        now: [event_type.removeprefix("task-") for at, event_type, to in pairs() if at == now != to]
        for now in ATTEMPT_ENDED_STATES
    }
    ready = ["succeeded", "failed", "revoked"]
    assert left == {
        "RETRY": ["rejected", *ready],
        "CANCELLED": ["rejected", *ready],
        "REJECTED": ready,
        "SUCCESS": [],
        "FAILURE": [],
        "REVOKED": [],
    }


def test_a_process_holds_what_it_received_started_or_reported_progress_of() -> None:
    assert {state for state in STATES if state not in UNASSIGNED_STATES} == {
        "RECEIVED",
        "STARTED",
        "PROGRESS",
        "HALF-DONE",
    }


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
        ("task-success", "STARTED"),  # an application's own, which must not end the task
        ("task-pending", "STARTED"),
        ("task-lost", "STARTED"),
        ("task-", ""),
        ("task-" + "x" * 1_000, "X" * MAX_STATE_CHARS),
    ],
)
def test_the_state_that_an_event_reports(event_type: str, state: str) -> None:
    assert state_of(event_type) == state


# ---------------------------------------------------------------------------------------- sequences


@pytest.mark.parametrize(
    ("subjects", "end"),
    [
        ("sent received started succeeded", "SUCCESS"),
        ("sent received started failed", "FAILURE"),
        ("sent received started progress revoked", "REVOKED"),
        ("sent received started progress progress succeeded", "SUCCESS"),
        ("sent received started progress", "PROGRESS"),
        ("sent received started rejected", "REJECTED"),
        ("sent received started failed rejected", "FAILURE"),
        ("sent received started retried", "RETRY"),
        ("sent received started cancelled", "CANCELLED"),
        ("sent received started failed failed", "FAILURE"),
        ("sent received revoked", "REVOKED"),
        ("sent revoked", "REVOKED"),
        ("sent received", "RECEIVED"),
        ("sent", "PENDING"),
    ],
)
def test_the_events_of_one_attempt_end_in_the_same_state_in_any_order(subjects: str, end: str) -> None:
    wrong = {
        " ".join(order): state
        for order in permutations(subjects.split())
        if (state := reduce(after, (f"task-{subject}" for subject in order), None)) != end
    }
    assert not wrong


# One event of each rank, in the order of their ranks: the oracle of the test below.
RANKED = ["sent", "received", "started", "progress", "retried", "rejected", "failed"]


@DRAWN
@given(st.lists(st.sampled_from(RANKED), min_size=1))
def test_the_event_of_the_highest_rank_decides_in_any_order_however_often_each_comes(
    subjects: list[str],
) -> None:
    highest = max(subjects, key=RANKED.index)
    assert reduce(after, (f"task-{subject}" for subject in subjects), None) == state_of(f"task-{highest}")


@DRAWN
@given(st.lists(st.sampled_from(HEAD)))
def test_of_two_events_of_one_rank_the_first_one_decides(subjects: list[str]) -> None:
    ends = [state_of(f"task-{each}") for each in subjects if each in ("succeeded", "failed", "revoked")]
    state = reduce(after, (f"task-{subject}" for subject in subjects), None)
    assert (state in READY_STATES) == bool(ends)
    assert not ends or state == ends[0]
