"""The record of a task: field for field beside Celery's own State, and what holds in any order of events.

Each place where it differs from ``celery.events.state.State`` is a test here, with the reason in its name.
"""

import math
from collections import defaultdict
from itertools import combinations, combinations_with_replacement, permutations
from typing import Any

import msgspec
import pytest
from celery.events.state import State
from celery.events.state import Task as CelerysTask
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.course import MAX_INFO_BYTES, MAX_NAME_CHARS, MAX_TEXT_CHARS, apply
from gateway.event import Event
from gateway.normalize import normalize
from gateway.state import MAX_STATE_CHARS, READY_STATES, STATE_OF_EVENT, Reached
from gateway.task import Task, view
from gateway.tasks import Tasks
from tests.test_corpus import RECEIVED_AT, RECORDINGS, all_wire_events, messages, subjects, taken

WORKER, OTHER_WORKER, CLIENT = "one@host", "two@host", "gen7@client"
DRAWN = settings(deadline=None, max_examples=300, derandomize=True)


def event(subject: str, timestamp: float, hostname: str = WORKER, **fields: Any) -> Event:
    """An event as Celery makes it, with the fields that its type has."""
    own: dict[str, Any] = {}
    if subject in ("sent", "received"):
        call = {"args": "(1,)", "kwargs": "{}", "eta": None, "expires": None}
        own = {"name": "shop.pay", "root_id": "u", "parent_id": None, "retries": 0, **call}
    if subject == "sent":
        hostname = CLIENT if hostname == WORKER else hostname
        own |= {"queue": "celery", "exchange": "", "routing_key": "celery"}
    if subject == "succeeded":
        own = {"result": "5", "runtime": 0.25}
    if subject in ("failed", "retried"):
        own = {"exception": f"{subject} at {timestamp}", "traceback": f"Traceback of {subject}"}
    common = {"type": f"task-{subject}", "uuid": "u", "timestamp": timestamp, "hostname": hostname}
    return {**common, "utcoffset": 0, "pid": 40, "clock": int(timestamp), **own, **fields}


def course(subjects: str) -> list[Event]:
    """Events ten seconds apart, from 10 on; a retried one's next message has one more retry."""
    events, retries = [], 0
    for number, subject in enumerate(subjects.split(), 1):
        fields: dict[str, Any] = {"retries": retries} if subject in ("sent", "received") else {}
        retries += subject == "retried"
        events.append(event(subject, 10.0 * number, **fields))
    return events


def fed(*events: Event) -> Task:
    task, reached = Task("u"), Reached()
    for each in events:
        reached, _ = apply(task, reached, dict(each))
    return task


def told(task: Task) -> dict[str, Any]:
    return msgspec.structs.asdict(task)


def celerys(*events: Event) -> Any:
    """The task as Celery's own State has it."""
    state = State()
    for each in events:
        state.event({**each, "local_received": each["timestamp"]})
    return state.tasks["u"]


# ------------------------------------------------------------------------ beside Celery's own State

FIELDS = [field for field in CelerysTask._fields if field not in ("root", "parent", "children", "worker")]


class Pair:
    """A task of a recording: ours with its children, and Celery's."""

    def __init__(self, ours: Task, children: set[str], theirs: Any, events: str) -> None:
        self.ours = ours
        self.children = children
        self.theirs = theirs
        self.events = events

    def field(self, name: str) -> tuple[Any, Any]:
        return getattr(self.ours, name), getattr(self.theirs, name)


@pytest.fixture(scope="module", params=RECORDINGS)
def pairs(request: pytest.FixtureRequest) -> list[Pair]:
    recording: str = request.param
    state, tasks = State(), Tasks()
    by_uuid: dict[str, list[Event]] = defaultdict(list)
    for made in all_wire_events(recording):
        state.event({**made, "local_received": made["timestamp"]})
        if "uuid" in made:
            by_uuid[made["uuid"]].append(made)
    for message in messages(recording):
        for normalized in normalize(taken(message), RECEIVED_AT).events:
            tasks.join(normalized, 0.0)
    tasks.release(1e9)
    found = []
    for uuid, theirs in state.tasks.items():
        record = tasks.get(uuid)
        assert record is not None
        found.append(Pair(record.task, set(record.children or ()), theirs, subjects(by_uuid[uuid])))
    assert len(found) > 40
    return found


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("state", "runtime", "parent_id")])
def test_a_field_is_as_celery_has_it(pairs: list[Pair], name: str) -> None:
    for pair in pairs:
        ours, theirs = pair.field(name)
        assert (ours, type(ours)) == (theirs, type(theirs)), pair.events


def test_the_recordings_have_a_value_for_every_field(pairs: list[Pair]) -> None:
    never_there = {"eta", "expires", "revoked", "rejected", "retried", "parent_id"}
    for name in set(FIELDS) - never_there:
        assert any(pair.field(name)[0] is not None for pair in pairs), name


def test_the_worker_is_its_name_where_celery_has_an_object(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert pair.ours.worker == (pair.theirs.worker.hostname if pair.theirs.worker else None)


def test_of_the_recorded_tasks_only_a_rejected_one_has_another_state_than_celery_says(
    pairs: list[Pair],
) -> None:
    for pair in pairs:
        ours, theirs = pair.field("state")
        is_rejected = pair.events.endswith("rejected") and "failed" not in pair.events
        assert (ours, theirs) == (("REJECTED", "STARTED") if is_rejected else (theirs, theirs)), pair.events


def test_a_failed_task_has_a_runtime_where_celery_gives_none(pairs: list[Pair]) -> None:
    failed = [pair for pair in pairs if pair.ours.failed is not None]
    assert len(failed) > 2
    for pair in pairs:
        ours, theirs = pair.field("runtime")
        if pair in failed and pair.ours.started is not None:
            assert theirs is None
            assert ours == pair.ours.failed - pair.ours.started > 0
        else:
            assert (ours, type(ours)) == (theirs, type(theirs)), pair.events


def test_a_retried_task_is_not_its_own_parent_nor_its_own_child_where_celery_makes_it_both(
    pairs: list[Pair],
) -> None:
    retried = 0
    for pair in pairs:
        uuid, children = pair.ours.uuid, {child.uuid for child in pair.theirs.children}
        ours, theirs = pair.field("parent_id")
        assert ours == (None if theirs == uuid else theirs)
        assert pair.children == children - {uuid}
        retried += uuid in children
    assert retried == 2
    assert any(pair.children for pair in pairs)


# What the last event of a course leads to. Canonical courses to each state, and then one event more.
COURSES = {
    "PENDING": "sent",
    "RECEIVED": "sent received",
    "STARTED": "sent received started",
    "PROGRESS": "sent received started progress",
    "RETRY": "sent received started retried",
    "CANCELLED": "sent received started cancelled",
    "REJECTED": "sent rejected",
    "SUCCESS": "sent received started succeeded",
    "FAILURE": "sent received started failed",
    "REVOKED": "sent received started revoked",
}
SUBJECTS = ["sent", "received", "started", "progress", "retried"]
SUBJECTS += ["cancelled", "rejected", "succeeded", "failed", "revoked"]

# reason: (states now, events) -> ours stays as it is, or moves on; and Celery's does the other thing.
YOUNGER = {
    "rejected_is_a_state_where_celery_ranks_it_below_received": [
        ("RECEIVED STARTED PROGRESS CANCELLED", "rejected", "REJECTED", "."),
    ],
    "a_redelivered_task_begins_anew_where_celery_stays_where_it_was": [
        ("STARTED PROGRESS CANCELLED SUCCESS FAILURE REVOKED", "received", "RECEIVED", "."),
        ("CANCELLED SUCCESS FAILURE REVOKED", "started", "STARTED", "."),
    ],
    "a_revoke_after_a_custom_state_is_revoked_where_celery_ranks_custom_states_above_it": [
        ("PROGRESS CANCELLED", "revoked", "REVOKED", "."),
        ("REVOKED", "progress", ".", "PROGRESS"),
        ("REVOKED", "cancelled", ".", "CANCELLED"),
    ],
    "a_message_of_the_next_attempt_leaves_retry_where_celery_goes_back_to_pending": [
        ("RETRY", "sent", ".", "PENDING"),
    ],
    "a_custom_event_is_no_new_attempt_where_celery_lets_anything_follow_what_ended_one": [
        ("RETRY CANCELLED REJECTED", "progress", ".", "PROGRESS"),
        ("RETRY REJECTED", "cancelled", ".", "CANCELLED"),
    ],
    "an_end_without_a_new_attempt_changes_no_end_where_celery_lets_success_win": [
        ("FAILURE REVOKED", "succeeded", ".", "SUCCESS"),
        ("REVOKED", "failed", ".", "FAILURE"),
    ],
}
OLDER = {
    "a_late_event_leaves_retry_where_celery_takes_any": [
        ("RETRY", "sent", ".", "PENDING"),
        ("RETRY", "received", ".", "RECEIVED"),
        ("RETRY", "started", ".", "STARTED"),
        ("RETRY", "progress", ".", "PROGRESS"),
        ("RETRY", "cancelled", ".", "CANCELLED"),
    ],
    "a_late_retried_does_not_undo_what_followed_where_celery_takes_it_always": [
        ("CANCELLED REJECTED SUCCESS FAILURE REVOKED", "retried", ".", "RETRY"),
    ],
    "a_late_event_leaves_rejected_where_celery_ranks_it_below_received": [
        ("REJECTED", "received", ".", "RECEIVED"),
        ("REJECTED", "started", ".", "STARTED"),
        ("REJECTED", "progress", ".", "PROGRESS"),
        ("REJECTED", "cancelled", ".", "CANCELLED"),
        ("RECEIVED STARTED PROGRESS CANCELLED", "rejected", "REJECTED", "."),
    ],
    "a_late_custom_event_leaves_another_that_ended_the_attempt": [
        ("CANCELLED", "progress", ".", "PROGRESS"),
    ],
    "revoked_is_an_end_where_celery_ranks_custom_states_above_it": [
        ("PROGRESS CANCELLED", "revoked", "REVOKED", "."),
        ("REVOKED", "progress", ".", "PROGRESS"),
        ("REVOKED", "cancelled", ".", "CANCELLED"),
    ],
    "a_late_end_changes_no_end_where_celery_lets_success_win": [
        ("FAILURE REVOKED", "succeeded", ".", "SUCCESS"),
        ("REVOKED", "failed", ".", "FAILURE"),
    ],
}


def cells(rows: list[tuple[str, str, str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
    """By state and event: (our state after it, Celery's)."""
    return {
        (state, subject): (state if ours == "." else ours, state if theirs == "." else theirs)
        for states, subject, ours, theirs in rows
        for state in states.split()
    }


def states_after(state: str, subject: str, *, is_older: bool) -> tuple[str | None, str]:
    before = course(COURSES[state])
    assert fed(*before).state == celerys(*before).state == state
    last = event(subject, before[-1]["timestamp"] + (-5 if is_older else 5))
    return fed(*before, last).state, celerys(*before, last).state


@pytest.mark.parametrize("reason", YOUNGER)
def test_where_we_differ_from_celery(reason: str) -> None:
    for (state, subject), after in cells(YOUNGER[reason]).items():
        assert states_after(state, subject, is_older=False) == after, (state, subject)


@pytest.mark.parametrize("reason", OLDER)
def test_where_we_differ_from_celery_on_late_events(reason: str) -> None:
    for (state, subject), after in cells(OLDER[reason]).items():
        assert states_after(state, subject, is_older=True) == after, (state, subject)


@pytest.mark.parametrize(("table", "is_older"), [(YOUNGER, False), (OLDER, True)], ids=["younger", "older"])
def test_everywhere_else_we_agree_with_celery(
    table: dict[str, list[tuple[str, str, str, str]]], is_older: bool
) -> None:
    differing = {cell for rows in table.values() for cell in cells(rows)}
    agreeing = [
        (state, subject) for state in COURSES for subject in SUBJECTS if (state, subject) not in differing
    ]
    for state, subject in agreeing:
        ours, theirs = states_after(state, subject, is_older=is_older)
        assert ours == theirs, (state, subject)
    assert len(agreeing) > 70


def test_an_older_time_does_not_replace_a_younger_one_where_celery_takes_what_came_last() -> None:
    first, second = event("sent", 10.0), event("sent", 20.0, retries=1)
    received = event("received", 21.0, retries=1)
    ours, theirs = fed(second, received, first), celerys(second, received, first)
    assert (ours.sent, ours.retries) == (20.0, 1)
    assert (theirs.sent, theirs.retries) == (10.0, 0)


def test_what_failed_last_is_told_where_celery_tells_what_came_last() -> None:
    retried, failed = event("retried", 10.0), event("failed", 20.0)
    assert fed(failed, retried).exception == "failed at 20.0"
    assert celerys(failed, retried).exception == "retried at 10.0"


def test_a_custom_events_fields_are_its_own_where_celery_lets_them_overwrite_the_tasks() -> None:
    fields = {"result": "half", "args": [5], "retries": 7, "started": "yes", "exception": None}
    events = [*course("sent received started"), event("progress", 40.0, **fields)]
    ours, theirs = fed(*events), celerys(*events)
    assert (ours.result, ours.args, ours.retries, ours.started) == (None, "(1,)", 0, 30.0)
    assert (theirs.result, theirs.args, theirs.retries, theirs.started) == ("half", [5], 7, "yes")
    assert ours.info is not None and msgspec.json.decode(ours.info) == fields


def test_a_field_that_is_missing_is_unknown_where_celery_raises() -> None:
    bare = {"type": "task-started", "uuid": "u"}
    assert fed(bare).state == "STARTED"
    with pytest.raises(KeyError):
        State().event(bare)


def test_a_custom_event_of_a_client_names_no_worker_where_celery_takes_it_for_one() -> None:
    events = [event("sent", 10.0), event("noted", 20.0, hostname=CLIENT)]
    assert (fed(*events).worker, fed(*events).state) == (None, "NOTED")
    assert celerys(*events).worker.hostname == CLIENT


@pytest.mark.parametrize("parent_first", [True, False])
def test_a_child_is_its_parents_whoever_is_known_first_as_celery_has_it(parent_first: bool) -> None:
    parent = event("sent", 10.0, uuid="p", root_id="p")
    child = event("sent", 20.0, uuid="c", root_id="p", parent_id="p")
    events = [parent, child] if parent_first else [child, parent]
    tasks, state = Tasks(), State()
    for each in events:
        state.event({**each, "local_received": 0})
        tasks.join(each, 0.0)
    record = tasks.get("p")
    assert record is not None
    assert list(record.children or ()) == ["c"] == [task.uuid for task in state.tasks["p"].children]


# ------------------------------------------------------------------- one attempt, in whatever order

ONE_ATTEMPT = [
    "sent",
    "sent received",
    "sent received started",
    "sent received started succeeded",
    "received started succeeded",
    "sent received started failed",
    "sent received started progress succeeded",
    "sent received started progress half-done revoked",
    "sent received started progress progress failed",
    "sent received started rejected",
    "sent received started failed rejected",
    "sent received started failed failed",
    "sent received started cancelled",
    "sent received started retried",
    "sent received failed",
    "sent received revoked",
    "sent received started revoked revoked",
    "sent revoked",
]
MORE_ATTEMPTS = [
    pytest.param("sent received started retried sent received started succeeded", id="retried"),
    pytest.param("sent received started retried sent received started failed", id="retried and failed"),
    pytest.param("sent received started rejected received started succeeded", id="redelivered"),
    pytest.param("sent received started failed received started succeeded", id="redelivered after its end"),
    pytest.param("sent received started succeeded received started failed", id="failed the second time"),
    pytest.param("sent received started sent received started succeeded", id="replaced"),
    pytest.param("sent received started progress retried sent received succeeded", id="of progress"),
]
COURSES_TAKEN = [*ONE_ATTEMPT, *(str(each.values[0]) for each in MORE_ATTEMPTS)]


@pytest.mark.parametrize("subjects", ONE_ATTEMPT)
def test_the_record_of_an_attempt_is_the_same_in_whatever_order_its_events_come(subjects: str) -> None:
    events = course(subjects)
    in_order = told(fed(*events))
    for order in permutations(events):
        assert told(fed(*order)) == in_order, [each["type"] for each in order]


@pytest.mark.parametrize("subjects", MORE_ATTEMPTS)
def test_of_several_attempts_the_last_is_told_in_whatever_order_their_events_come(subjects: str) -> None:
    # What depends on the order: how many attempts are counted, since one that starts late by its event may
    # be known already; and how long the last was in the queue, if it is not known which message it had.
    events = course(subjects)
    in_order = fed(*events)
    expected = told(in_order)
    for order in permutations(events):
        task = fed(*order)
        assert 1 <= task.attempts <= in_order.attempts + in_order.retries
        assert task.queued_seconds is None or 0 <= task.queued_seconds <= 60
        assert 1 <= task.starts <= task.attempts
        unsure = {field: expected[field] for field in ("attempts", "starts", "queued_seconds")}
        assert told(task) | unsure == expected, [each["type"] for each in order]


@pytest.mark.parametrize("subjects", MORE_ATTEMPTS)
def test_clients_messages_may_come_as_late_as_they_like(subjects: str) -> None:
    """Within a worker the order is kept; task-sent comes on other connections."""
    events = course(subjects)
    in_order = fed(*events)
    of_worker = [each for each in events if each["type"] != "task-sent"]
    of_client = [each for each in events if each["type"] == "task-sent"]
    in_time = [sum(other in of_worker for other in events[: events.index(each)]) for each in of_client]
    for places in combinations_with_replacement(range(len(of_worker) + 1), len(of_client)):
        if any(place < earliest for place, earliest in zip(places, in_time, strict=True)):
            continue
        order = list(of_worker)
        for place, each in sorted(zip(places, of_client, strict=True), key=lambda pair: -pair[0]):
            order.insert(place, each)
        task = fed(*order)
        assert (task.state, task.attempts, task.runtime) == (
            in_order.state,
            in_order.attempts,
            in_order.runtime,
        )


@pytest.mark.parametrize("subjects", COURSES_TAKEN)
def test_an_event_that_comes_again_at_any_time_changes_nothing(subjects: str) -> None:
    events = course(subjects)
    in_order = told(fed(*events))
    for first, again in combinations(range(len(events) + 1), 2):
        repeated = [*events[:again], events[first], *events[again:]]
        assert told(fed(*repeated)) == in_order, (events[first]["type"], again)
    assert told(fed(*events, *events)) == in_order, "the whole course again"


@pytest.mark.parametrize("subjects", COURSES_TAKEN)
def test_times_are_those_of_the_youngest_of_their_kind(subjects: str) -> None:
    events = course(subjects)
    youngest = {each["type"].removeprefix("task-"): each["timestamp"] for each in events}
    for order in (events, events[::-1]):
        task = fed(*order)
        times = {kind: getattr(task, kind) for kind in SUBJECTS if hasattr(task, kind) and kind != "progress"}
        assert {kind: time for kind, time in times.items() if time is not None} == {
            kind: time for kind, time in youngest.items() if kind in times
        }


SOME = st.sampled_from([*SUBJECTS, "half-done"])
HOSTS = st.sampled_from([WORKER, OTHER_WORKER])
EVENTS = st.lists(
    st.builds(
        lambda subject, timestamp, host, retries: event(
            subject, timestamp, host, **({"retries": retries} if subject in ("sent", "received") else {})
        ),
        SOME,
        st.integers(1, 6).map(float),
        HOSTS,
        st.integers(0, 2),
    ),
    max_size=10,
)


@DRAWN
@given(EVENTS)
def test_whatever_comes_twice_in_a_row_is_as_if_it_came_once(events: list[Event]) -> None:
    assert told(fed(*(each for each in events for _ in range(2)))) == told(fed(*events))


@DRAWN
@given(EVENTS)
def test_whatever_comes_a_finished_state_goes_on_only_with_a_younger_event(events: list[Event]) -> None:
    task, reached = Task("u"), Reached()
    for each in events:
        before = reached
        reached, _ = apply(task, reached, dict(each))
        assert task.state == reached.state
        if before.state in READY_STATES and reached[:3] != before[:3]:
            assert reached.timestamp > before.timestamp
        assert task.queued_seconds is None or task.queued_seconds >= 0
        assert task.runtime is None or task.runtime >= 0
        assert (task.attempts > 0) or task.started is None


# --------------------------------------------------------------------------------- what is derived


def timings(task: Task) -> tuple[float | None, float | None, int]:
    return task.queued_seconds, task.runtime, task.attempts


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(course("sent received"), (None, None, 0), id="not begun"),
        pytest.param(course("sent received started"), (20.0, None, 1), id="running"),
        pytest.param(course("sent received started succeeded"), (20.0, 0.25, 1), id="plain"),
        pytest.param(course("received started succeeded"), (10.0, 0.25, 1), id="not seen sent"),
        pytest.param(course("sent started"), (10.0, None, 1), id="not seen received"),
        pytest.param(course("sent received started failed"), (20.0, 10.0, 1), id="failed"),
        pytest.param(
            course("sent received started retried sent received"), (20.0, None, 1), id="about to be retried"
        ),
        pytest.param(
            course("sent received started retried sent received started failed"),
            (20.0, 10.0, 2),
            id="retried",
        ),
        pytest.param(
            course("sent received started sent received retried started succeeded"),
            (30.0, 0.25, 2),
            id="retried, the new message first",
        ),
        pytest.param(
            course("sent received started received started failed"), (10.0, 10.0, 2), id="redelivered"
        ),
        pytest.param(
            course("sent received started rejected received started failed"),
            (20.0, 10.0, 2),
            id="rejected and requeued",
        ),
        pytest.param(
            course("sent received started succeeded received started"), (10.0, None, 2), id="begun again"
        ),
        pytest.param(
            course("sent received started sent received started succeeded"), (20.0, 0.25, 2), id="replaced"
        ),
        pytest.param(course("sent received failed"), (None, None, 0), id="unregistered"),
        pytest.param(
            [*course("sent received started"), event("failed", 41.0), event("failed", 41.5)],
            (20.0, 11.5, 1),
            id="a hard time limit, told twice",
        ),
        pytest.param(
            [*course("sent received started"), event("succeeded", 45.0, runtime=None)],
            (20.0, 15.0, 1),
            id="succeeded, and the worker does not say in what time",
        ),
        pytest.param(
            [event("received", 10.0, retries=2), event("started", 20.0)], (10.0, None, 3), id="the third try"
        ),
        pytest.param(
            [event("sent", 99.0), event("received", 10.0), event("started", 12.0)],
            (2.0, None, 1),
            id="a client's clock that is ahead",
        ),
    ],
)
def test_queued_runtime_attempts(events: list[Event], expected: tuple[Any, ...]) -> None:
    assert timings(fed(*events)) == expected


def test_a_retry_on_a_worker_whose_clock_is_behind() -> None:
    task = fed(
        event("sent", 100.0), event("received", 105.0), event("started", 105.5), event("retried", 106.0),
        event("sent", 106.1, retries=1), event("received", 101.0, OTHER_WORKER, retries=1),
        event("started", 102.0, OTHER_WORKER), event("failed", 104.0, OTHER_WORKER),
    )  # fmt: skip
    assert (task.state, task.worker, task.retries) == ("FAILURE", OTHER_WORKER, 1)
    assert (task.received, task.started, task.attempts) == (101.0, 102.0, 2)
    assert task.runtime == 2.0


def test_a_retry_that_comes_back_before_its_worker_tells_of_the_attempt_before() -> None:
    # As recorded: the worker reads the new message first, and then what its child has told it.
    events = [
        event("sent", 10.0), event("received", 10.1),
        event("sent", 10.2, retries=1), event("received", 10.3, retries=1),
        event("started", 10.4), event("retried", 10.5), event("started", 10.6),
    ]  # fmt: skip
    task = fed(*events, event("succeeded", 10.9))
    assert (task.state, task.attempts, task.retries) == ("SUCCESS", 2, 1)
    assert task.queued_seconds == pytest.approx(0.4)
    # And if it is revoked there and then, that is its end.
    revoked = fed(*events[:4], event("revoked", 10.35), *events[4:6])
    assert (revoked.state, revoked.attempts) == ("REVOKED", 1)


@pytest.mark.parametrize("attempts_before", [0, 1, 2])
@pytest.mark.parametrize("end", ["succeeded", "failed", "revoked"])
def test_a_retry_that_another_process_ends_before_the_attempt_before_is_told_stays_ended(
    attempts_before: int, end: str
) -> None:
    # With a short countdown a worker's other process may be done with the retry before the worker hears from
    # the one that asked for it; the time of task-retried is that of the worker's telling.
    before = course("sent received started retried " * attempts_before + "sent received started")
    number = attempts_before + 1
    again = [
        event("sent", 1000.0, retries=number),
        event("received", 1001.0, retries=number),
        event("started", 1002.0),
    ]
    late = event("retried", 1004.0)
    running = fed(*before, *again, late)
    assert (running.state, running.retried, running.attempts) == ("STARTED", 1004.0, number + 1)
    progressing = fed(*before, *again, event("progress", 1003.0, current=1, total=2), late)
    assert progressing.state == "PROGRESS"
    ended = fed(*before, *again, event(end, 1003.0), late)
    assert ended.state == STATE_OF_EVENT[f"task-{end}"]
    assert told(fed(*before, *again, event(end, 1003.0), late, late)) == told(ended)
    # And what comes then is the last message's own.
    assert fed(*before, *again, late, event("retried", 1005.0)).state == "RETRY"
    redelivered = [
        event("received", 1006.0, retries=number),
        event("started", 1007.0),
        event("retried", 1008.0),
    ]
    assert fed(*before, *again, event(end, 1003.0), late, *redelivered).state == "RETRY"


def test_a_retry_of_a_task_that_is_heard_of_late_is_its_last_messages() -> None:
    heard = [event("received", 10.0, retries=3), event("started", 11.0), event("retried", 12.0)]
    assert fed(*heard).state == "RETRY"


def test_a_retry_to_another_queue_is_in_that_queue() -> None:
    events = course("sent received started retried")
    again = event("sent", 50.0, retries=1, queue="slow", routing_key="slow", exchange="other")
    task = fed(*events, again)
    assert (task.queue, task.routing_key, task.exchange) == ("slow", "slow", "other")


def test_eta_and_expires_are_those_of_the_last_message() -> None:
    planned = {"eta": "2030-01-01T00:00:00+00:00", "expires": "2031-01-01T00:00:00+00:00"}
    first = [event("sent", 10.0, **planned), event("received", 20.0, **planned)]
    assert (fed(*first).eta, fed(*first).expires) == (planned["eta"], planned["expires"])
    again = [event("started", 30.0), event("sent", 40.0), event("received", 50.0)]
    assert (fed(*first, *again).eta, fed(*first, *again).expires) == (None, None)
    assert (fed(*first, *again, first[0]).eta, fed(*first, *again, first[1]).eta) == (None, None)


# -------------------------------------------------------------------------- custom events: progress


@pytest.mark.parametrize(
    ("fields", "progress"),
    [
        ({"current": 1, "total": 4}, 0.25),
        ({"current": 9, "total": 4}, 1.0),
        ({"current": -1, "total": 4}, 0.0),
        ({"current": 1.5, "total": 2.0}, 0.75),
        ({"current": 1, "total": 4, "progress": 0.5}, 0.5),
        ({"progress": 1}, 1.0),
        ({"current": 1, "total": 4, "progress": 55}, 0.25),
        ({"current": 1, "total": 4, "progress": None}, 0.25),
        ({"current": 1, "total": 0}, None),
        ({"current": 1, "total": None}, None),
        ({"current": True, "total": True}, None),
        ({"current": "1", "total": "2"}, None),
        ({"current": 10**400, "total": 3}, None),
        ({"current": 3, "total": 10**400}, 0.0),
        ({"current": 1e308, "total": 1e-308}, 1.0),
        ({}, None),
    ],
    ids=repr,
)
def test_progress(fields: dict[str, Any], progress: float | None) -> None:
    task = fed(event("progress", 10.0, **fields))
    assert task.progress == progress
    assert (None if task.info is None else msgspec.json.decode(task.info)) == (fields or None)


def test_the_youngest_custom_event_is_told() -> None:
    first, second = event("progress", 30.0, current=1, total=2), event("progress", 40.0, current=2, total=2)
    for task in (fed(first, second), fed(second, first), fed(first, second, first)):
        assert (task.progress, task.informed) == (1.0, 40.0)


def test_a_new_attempt_has_made_no_progress() -> None:
    first = [*course("sent received started"), event("progress", 35.0, current=1, total=2)]
    assert fed(*first).progress == 0.5
    task = fed(*first, event("retried", 40.0), event("received", 50.0, retries=1))
    assert (task.progress, task.info, task.informed) == (None, None, None)


def test_progress_that_comes_before_its_attempts_own_received_stays() -> None:
    # The task tells it on a connection of its own.
    told_early = event("progress", 55.0, current=1, total=2)
    task = fed(*course("sent received started retried"), told_early, event("received", 50.0, retries=1))
    assert task.progress == 0.5


# ------------------------------------------------------------------------------ bounds, wrong types


def test_texts_are_kept_up_to_a_bound_their_ends() -> None:
    long = "x" * MAX_TEXT_CHARS + "the end"
    task = fed(event("failed", 10.0, traceback=long, exception=long))
    assert task.traceback == task.exception == long[-MAX_TEXT_CHARS:]
    assert fed(event("failed", 10.0, traceback=long[7:])).traceback == long[7:]


def test_custom_fields_that_are_too_big_are_left_out_and_the_progress_stays() -> None:
    task = fed(event("progress", 10.0, current=1, total=2, log="x" * MAX_INFO_BYTES))
    assert (task.info, task.progress) == (None, 0.5)


def test_names_of_types_states_and_nodes_are_kept_up_to_a_bound() -> None:
    task = fed(event("x" * 10_000, 10.0, hostname="w@" + "h" * 10_000), event("ß" * 1_000, 11.0))
    assert task.type is not None and task.state is not None and task.worker is not None
    assert (len(task.type), len(task.worker)) == (MAX_NAME_CHARS, MAX_NAME_CHARS)
    assert len(task.state) == MAX_STATE_CHARS


@DRAWN
@given(EVENTS, st.integers(0, 3))
def test_the_growth_that_is_returned_is_what_the_texts_take(events: list[Event], times: int) -> None:
    task, reached, grown = Task("u"), Reached(), 0
    for number, each in enumerate(events):
        each = dict(each)
        for field in ("args", "kwargs", "result", "traceback"):
            if field in each:
                each[field] = "é"[: number % 2] + "x" * (number * times)
        if each["type"] == "task-progress":
            each["log"] = "y" * (number * 6_000)
        reached, size = apply(task, reached, each)
        grown += size
    texts = ("args", "kwargs", "eta", "expires", "result", "exception", "traceback")
    texts += ("queue", "exchange", "routing_key")
    held = [text for field in texts if type(text := getattr(task, field)) is str]
    expected = sum(len(text) if text.isascii() else 4 * len(text) for text in held)
    assert grown == expected + (0 if task.info is None else len(bytes(task.info)))


HOSTILE = [
    *(None, True, False, 0, -1, 5, 1 << 31, -(1 << 63), 1 << 63, 10**30, -(10**400), 10**400),
    *(0.0, -0.0, 1.5, -1.5, 1e300, -1e300, math.nan, math.inf, -math.inf),
    *("", "text", "nan", "\x00\u2028", "x" * 40_000, [], [1, [2]], {}, {"x": {"y": None}}),
]
OWN_FIELDS = (
    *("timestamp", "hostname", "pid", "clock", "retries", "args", "kwargs", "eta", "expires", "queue"),
    *(
        "exchange",
        "routing_key",
        "result",
        "runtime",
        "exception",
        "traceback",
        "name",
        "root_id",
        "parent_id",
    ),
    *("current", "total", "progress", "state", "requeue", "signum", "utcoffset"),
)


def assert_sound(task: Task) -> None:
    """Every field is of its type and finite, and can be written."""
    written = msgspec.json.decode(view(task, ["c"], False))
    assert (written.pop("children"), written.pop("stale")) == (["c"], False)
    info = written.pop("info")
    assert info is None or type(info) is dict
    read = msgspec.convert(written, Task)  # which checks the types
    assert told(read) | {"info": None} == told(task) | {"info": None}, "and nothing was lost by writing it"


@pytest.mark.parametrize("field", OWN_FIELDS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_field_of_another_type_is_passed_over(subject: str, field: str) -> None:
    for hostile in HOSTILE:
        before = course("sent received started")
        assert_sound(fed(*before, event(subject, 40.0) | {field: hostile}, *course("succeeded")))
        assert_sound(fed(event(subject, 40.0) | {field: hostile}, *before))


@DRAWN
@given(
    st.lists(
        st.tuples(SOME, st.dictionaries(st.sampled_from(OWN_FIELDS), st.sampled_from(HOSTILE), max_size=6)),
        max_size=8,
    )
)
def test_events_of_wrong_types_together(drawn: list[tuple[str, dict[str, Any]]]) -> None:
    tasks = Tasks()
    for number, (subject, fields) in enumerate(drawn):
        tasks.join(event(subject, float(number)) | fields, float(number))
        record = tasks.get("u")
        if record is not None:
            assert_sound(record.task)
            assert record.task.runtime is None or record.task.runtime >= 0
            assert record.task.queued_seconds is None or record.task.queued_seconds >= 0


def test_an_event_with_nothing_but_its_type() -> None:
    for subject in SUBJECTS:
        task = fed({"type": f"task-{subject}", "uuid": "u"})
        assert_sound(task)
        assert (task.state, task.timestamp) == (fed(event(subject, 1.0)).state, 0.0)


def test_a_younger_end_counts_where_its_attempt_is_known_to_have_begun() -> None:
    first_end, begun, end = event("failed", 40.0), event("started", 60.0), event("succeeded", 70.0)
    before = course("sent received started")
    assert fed(*before, begun, first_end, end).state == "SUCCESS"
    assert fed(*before, first_end, end, begun).state == "SUCCESS"
    assert fed(*before, first_end, end).state == "FAILURE", "the same attempt, as far as is known"


def test_an_end_that_another_worker_tells_late_is_not_that_of_the_attempt_under_way() -> None:
    first, begun = course("sent received started"), event("received", 50.0, OTHER_WORKER)
    assert fed(*first, begun, event("failed", 40.0)).state == "RECEIVED"
    assert fed(*first, begun, event("failed", 60.0)).state == "FAILURE", "it runs on both, and one has ended"


def test_what_a_client_tells_late_of_the_first_message_undoes_nothing_of_the_retry() -> None:
    """A busy client tells what it has sent after the worker has begun it, and has asked for a retry."""
    retry = [event("retried", 12), event("sent", 11.5, retries=1), event("received", 13, retries=1)]
    late = event("sent", 14, "gen8@client")
    task = fed(event("received", 10), event("started", 11), *retry, late, event("started", 20))
    assert (task.retries, task.sent, task.client) == (1, 11.5, CLIENT)
    assert (task.attempts, task.queued_seconds) == (2, 8.5)


def test_an_end_is_heard_though_the_workers_clock_was_set_back() -> None:
    assert fed(*course("sent received started"), event("succeeded", 5.0)).state == "SUCCESS"


def test_starts_without_a_time_count_as_one_until_the_attempt_ends() -> None:
    bare = [{"type": f"task-{subject}", "uuid": "u"} for subject in ("received", "started", "started")]
    assert fed(*bare).attempts == 1


# -------------------------------------------------------------------------------- children, bounded


def sent(uuid: str, parent_id: str | None = None, at: float = 1.0) -> Event:
    return event("sent", at, uuid=uuid, root_id="r", parent_id=parent_id)


def family(tasks: Tasks, uuid: str) -> set[str]:
    record = tasks.get(uuid)
    assert record is not None
    for child in (record.children or {}).values():
        assert child.task.parent_id == uuid
    return set(record.children or ())


@DRAWN
@given(st.permutations("abcdefg"))
def test_a_tree_is_the_same_in_whatever_order_its_tasks_become_known(order: list[str]) -> None:
    parents = {"a": None, "b": "a", "c": "a", "d": "b", "e": "b", "f": "c", "g": "f"}
    tasks = Tasks()
    for uuid in order:
        tasks.join(sent(uuid, parents[uuid]), 0.0)
    assert {uuid: family(tasks, uuid) for uuid in parents} == {
        uuid: {child for child, parent in parents.items() if parent == uuid} for uuid in parents
    }


def test_children_are_found_again_when_their_parent_was_forgotten_and_comes_back() -> None:
    tasks = Tasks(max_tasks=3)
    for each in (sent("p"), sent("c", "p"), sent("d", "p")):
        tasks.join(each, 0.0)
    tasks.join(event("succeeded", 3.0, uuid="p"), 0.0)
    tasks.join(sent("x"), 0.0)
    assert tasks.get("p") is None
    tasks.join(event("succeeded", 5.0, uuid="x"), 0.0)
    tasks.join(sent("p"), 0.0)
    assert family(tasks, "p") == {"c", "d"}


def test_a_child_that_takes_another_parent_leaves_the_one_before_known_or_not() -> None:
    tasks = Tasks()
    tasks.join(sent("c", "p"), 0.0)
    tasks.join(event("received", 2.0, uuid="c", root_id="r", parent_id="q"), 0.0)
    tasks.join(sent("p"), 0.0)
    tasks.join(sent("q"), 0.0)
    assert (family(tasks, "p"), family(tasks, "q")) == (set(), {"c"})


def test_what_is_remembered_of_unknown_parents_goes_with_their_children() -> None:
    tasks = Tasks(max_tasks=10)
    for number in range(1_000):
        tasks.join(sent(f"c{number}", f"p{number}"), 0.0)
        tasks.join(sent(f"d{number}", f"c{number}"), 0.0)
    assert len(tasks._orphans) <= 10
    for number in range(10):
        tasks.join(sent(f"x{number}"), 0.0)
    assert len(tasks._orphans) == 0


def test_tasks_that_are_each_others_parents_are_forgotten_like_others() -> None:
    tasks = Tasks(max_tasks=2)
    tasks.join(sent("a", "b"), 0.0)
    tasks.join(sent("b", "a"), 0.0)
    assert (family(tasks, "a"), family(tasks, "b")) == ({"b"}, {"a"})
    for uuid in "cdef":
        tasks.join(sent(uuid), 0.0)
    assert (tasks.statistics().known, len(tasks._orphans)) == (2, 0)
