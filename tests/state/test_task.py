"""The record of a task: field by field beside Celery's own State, and what holds in any order of events.

Each place where it differs from ``celery.events.state.State`` is a test here, with the reason in its name.
Which attempt an event belongs to is tested in ``test_attempt``.
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

from celery_gateway.events.event import Event
from celery_gateway.events.normalize import normalize
from celery_gateway.state.attempt import MAX_ATTEMPTS, Attempts
from celery_gateway.state.lifecycle import _PROCESS_BYTES, apply, mark_lost
from celery_gateway.state.process import Process
from celery_gateway.state.shared_text import MAX_NAME_CHARS
from celery_gateway.state.task import Task, view
from celery_gateway.state.task_fields import MAX_ATTEMPT_TEXT_CHARS, MAX_CUSTOM_BYTES, MAX_TEXT_CHARS
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.transitions import MAX_STATE_CHARS, READY_STATES
from celery_gateway.state.worker_table import WorkerTable
from tests.events.test_corpus import RECEIVED_AT, RECORDINGS, all_wire_events, messages, subjects, taken
from tests.support.thorough import tries

pytestmark = pytest.mark.unit

WORKER, OTHER_WORKER, CLIENT = "one@host", "two@host", "gen7@client"
PIDS = {WORKER: 40, OTHER_WORKER: 50}
DRAWN = settings(deadline=None, max_examples=tries(300), derandomize=True)


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
    if subject == "revoked":
        own = {"terminated": False, "signum": None, "expired": False}
    if subject in ("failed", "retried"):
        own = {"exception": f"{subject} at {timestamp}", "traceback": f"Traceback of {subject}"}
    common = {"type": f"task-{subject}", "uuid": "u", "timestamp": timestamp, "hostname": hostname}
    pid = PIDS.get(hostname, 7)
    return {**common, "utcoffset": 0, "pid": pid, "clock": int(timestamp), **own, **fields}


def course(subjects: str) -> list[Event]:
    """Events ten seconds apart, from 10 on; a retried one's next message has one more retry."""
    events, retries = [], 0
    for number, subject in enumerate(subjects.split(), 1):
        fields: dict[str, Any] = {"retries": retries} if subject in ("sent", "received") else {}
        if subject == "revoked":
            fields["terminated"] = "started" in subjects
        retries += subject == "retried"
        events.append(event(subject, 10.0 * number, **fields))
    return events


class Fed:
    """A task and its attempts, after some events that came a hundredth of a second apart."""

    def __init__(self, *events: Event) -> None:
        self.task = Task("u")
        self.attempts = Attempts()
        self.workers = WorkerTable()
        self.grown = 0
        self.processes: set[Process] = set()
        self.now = 0.0
        for each in events:
            self.apply(each)

    def apply(self, each: Event) -> None:
        self.now += 0.01
        process = self.workers.on_event(each, self.now)
        if process is not None:
            self.processes.add(process)
        _, grown = apply(self.task, self.attempts, dict(each), process, self.now)
        self.grown += grown


def fed(*events: Event) -> Task:
    return Fed(*events).task


def fields_of(task: Task) -> dict[str, Any]:
    fields = msgspec.structs.asdict(task)
    return fields | {"custom": None if task.custom is None else msgspec.json.decode(task.custom)}


OF_THE_YOUNGEST_EVENT = ("type", "timestamp", "clock")


def lasting(task: Task) -> dict[str, Any]:
    """The fields that do not depend on which event of an attempt came last."""
    return {field: value for field, value in fields_of(task).items() if field not in OF_THE_YOUNGEST_EVENT}


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
    state, tasks, workers = State(), TaskTable(), WorkerTable()
    by_uuid: dict[str, list[Event]] = defaultdict(list)
    for made in all_wire_events(recording):
        state.event({**made, "local_received": made["timestamp"]})
        if "uuid" in made:
            by_uuid[made["uuid"]].append(made)
    for message in messages(recording):
        for normalized in normalize(taken(message), RECEIVED_AT).events:
            tasks.join(normalized, 0.0, workers.on_event(normalized, 0.0))
    tasks.release(1e9)
    found = []
    for uuid, theirs in state.tasks.items():
        record = tasks.get(uuid)
        assert record is not None
        found.append(Pair(record.task, set(record.child_ids), theirs, subjects(by_uuid[uuid])))
    assert len(found) > 40
    return found


# By the events of a task, the fields that differ; the reasons are in the tests below.
DIFFERENT = {
    "sent received started sent retried received started sent received retried revoked": (
        *("started", "exception", "traceback"),
    ),
    "sent received started failed rejected": ("rejected", "timestamp", "clock"),
}


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("state", "runtime", "parent_id")])
def test_a_field_is_as_celery_has_it(pairs: list[Pair], name: str) -> None:
    for pair in pairs:
        if name not in DIFFERENT.get(pair.events, ()):
            ours, theirs = pair.field(name)
            assert (ours, type(ours)) == (theirs, type(theirs)), pair.events


def test_start_and_outcome_of_the_attempt_before_are_gone_where_celery_keeps_them(pairs: list[Pair]) -> None:
    (revoked,) = [pair for pair in pairs if pair.events.endswith("received retried revoked")] or [None]
    if revoked is not None:
        for name in ("started", "exception", "traceback"):
            ours, theirs = revoked.field(name)
            assert ours is None and theirs is not None
        assert revoked.ours.retried == revoked.theirs.retried


def test_a_failed_task_that_is_rejected_then_stays_failed_where_celery_notes_the_rejection(
    pairs: list[Pair],
) -> None:
    for pair in pairs:
        if pair.events == "sent received started failed rejected":
            assert (pair.ours.rejected, pair.ours.timestamp) == (None, pair.ours.failed)
            assert pair.theirs.rejected == pair.theirs.timestamp > pair.ours.failed


def test_the_recordings_have_a_value_for_every_field(pairs: list[Pair]) -> None:
    never_there = {"eta", "expires", "revoked", "rejected", "retried", "parent_id"}
    for name in set(FIELDS) - never_there:
        assert any(pair.field(name)[0] is not None for pair in pairs), name


def test_the_worker_is_its_name_where_celery_has_an_object(pairs: list[Pair]) -> None:
    for pair in pairs:
        assert pair.ours.worker == (pair.theirs.worker.hostname if pair.theirs.worker else None)


def test_of_the_recorded_tasks_only_a_rejected_one_has_another_state_than_in_celery(
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
AT_ANY_TIME = {
    "rejected_is_a_state_where_celery_ranks_it_below_received": [
        ("RECEIVED STARTED PROGRESS CANCELLED", "rejected", "REJECTED", "."),
    ],
    "a_task_that_is_sent_again_is_a_new_run_where_celery_stays_where_it_was": [
        ("RECEIVED STARTED PROGRESS CANCELLED REJECTED SUCCESS FAILURE REVOKED", "sent", "PENDING", "."),
    ],
    "a_revoke_after_a_custom_state_is_revoked_where_celery_ranks_custom_states_above_it": [
        ("PROGRESS CANCELLED", "revoked", "REVOKED", "."),
        ("REVOKED", "progress", ".", "PROGRESS"),
        ("REVOKED", "cancelled", ".", "CANCELLED"),
    ],
    "a_custom_event_is_no_new_attempt_where_celery_lets_anything_follow_what_ended_one": [
        ("RETRY CANCELLED REJECTED", "progress", ".", "PROGRESS"),
        ("RETRY REJECTED", "cancelled", ".", "CANCELLED"),
    ],
    "an_attempt_that_has_ended_is_not_retried_where_celery_takes_it_always": [
        ("CANCELLED REJECTED SUCCESS FAILURE REVOKED", "retried", ".", "RETRY"),
    ],
    "an_end_without_a_new_attempt_changes_no_end_where_celery_lets_success_win": [
        ("FAILURE REVOKED", "succeeded", ".", "SUCCESS"),
        ("REVOKED", "failed", ".", "FAILURE"),
    ],
}
YOUNGER = {
    **AT_ANY_TIME,
    "a_redelivered_task_begins_anew_where_celery_stays_where_it_was": [
        ("STARTED PROGRESS CANCELLED SUCCESS FAILURE REVOKED", "received", "RECEIVED", "."),
        ("PROGRESS CANCELLED SUCCESS FAILURE REVOKED", "started", "STARTED", "."),
    ],
    "a_message_that_is_discarded_after_an_end_is_a_new_run_where_celery_stays_where_it_was": [
        ("SUCCESS FAILURE", "revoked", "REVOKED", "."),
    ],
}
OLDER = {
    **AT_ANY_TIME,
    "a_late_event_leaves_an_attempt_that_has_ended_where_celery_takes_any": [
        ("RETRY REJECTED", "received", ".", "RECEIVED"),
        ("RETRY REJECTED", "started", ".", "STARTED"),
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
    # A custom event has no place in the order of the worker's main process.
    last = [each["timestamp"] for each in before if each["type"] != "task-progress"][-1]
    made = event(subject, last - 5 if is_older else before[-1]["timestamp"] + 5)
    return fed(*before, made).state, celerys(*before, made).state


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
    assert len(agreeing) > 50


def test_a_late_task_sent_does_not_replace_that_of_the_retry_where_celery_takes_what_came_last() -> None:
    first, second = event("sent", 10.0), event("sent", 20.0, retries=1)
    events = [event("received", 11.0), event("started", 12.0), event("retried", 20.5)]
    ours, theirs = fed(*events, second, first), celerys(*events, second, first)
    assert (ours.sent, ours.retries) == (20.0, 1)
    assert (theirs.sent, theirs.retries) == (10.0, 0)


def test_the_end_of_an_attempt_before_is_not_recorded_where_celery_takes_what_came_last() -> None:
    begun = [event("received", 10.0), event("started", 11.0), event("received", 12.0, retries=1)]
    begun.append(event("started", 13.0))
    retried, failed = event("retried", 15.0), event("failed", 14.0)
    ours = fed(*begun, failed, retried)
    assert (ours.exception, ours.state, ours.retried) == ("failed at 14.0", "FAILURE", 15.0)
    assert celerys(*begun, failed, retried).exception == "retried at 15.0"


def test_custom_fields_do_not_overwrite_the_tasks_where_celery_lets_them() -> None:
    fields = {"result": "half", "args": [5], "retries": 7, "started": "yes", "exception": None}
    events = [*course("sent received started"), event("progress", 40.0, **fields)]
    ours, theirs = fed(*events), celerys(*events)
    assert (ours.result, ours.args, ours.retries, ours.started) == (None, "(1,)", 0, 30.0)
    assert (theirs.result, theirs.args, theirs.retries, theirs.started) == ("half", [5], 7, "yes")
    assert ours.custom is not None and msgspec.json.decode(ours.custom) == fields


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
def test_children_are_found_in_any_order_as_in_celery(parent_first: bool) -> None:
    parent = event("sent", 10.0, uuid="p", root_id="p")
    child = event("sent", 20.0, uuid="c", root_id="p", parent_id="p")
    events = [parent, child] if parent_first else [child, parent]
    tasks, state = TaskTable(), State()
    for each in events:
        state.event({**each, "local_received": 0})
        tasks.join(each, 0.0)
    record = tasks.get("p")
    assert record is not None
    assert record.child_ids == ["c"] == [task.uuid for task in state.tasks["p"].children]


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
    "sent received started failed failed",
    "sent received started cancelled",
    "sent received started retried",
    "sent received failed",
    "sent received revoked",
    "sent received started revoked revoked",
    "sent revoked",
]
TWICE = [each for each in ONE_ATTEMPT if len({*each.split()} - {"half-done"}) < len(each.split())]
MORE_ATTEMPTS = [
    pytest.param("sent received started retried sent received started succeeded", id="retried"),
    pytest.param("sent received started retried sent received started failed", id="retried and failed"),
    pytest.param("sent received started rejected received started succeeded", id="redelivered"),
    pytest.param("sent received started failed received started succeeded", id="redelivered after its end"),
    pytest.param("sent received started succeeded received started failed", id="failed the second time"),
    pytest.param("sent received started succeeded sent received started failed", id="sent again"),
    pytest.param("sent received started progress retried sent received succeeded", id="of progress"),
]
COURSES_TAKEN = [*ONE_ATTEMPT, *(str(each.values[0]) for each in MORE_ATTEMPTS)]


def assert_same_in_any_order(subjects: str, *unsure: str) -> None:
    events = course(subjects)
    in_order = lasting(fed(*events)) | dict.fromkeys(unsure)
    for order in permutations(events):
        assert lasting(fed(*order)) | dict.fromkeys(unsure) == in_order, [each["type"] for each in order]


@pytest.mark.parametrize("subjects", [each for each in ONE_ATTEMPT if each not in TWICE])
def test_the_record_of_an_attempt_is_the_same_in_whatever_order_its_events_come(subjects: str) -> None:
    assert_same_in_any_order(subjects)


def test_a_rejection_is_noted_where_it_is_reported_before_the_failure() -> None:
    assert_same_in_any_order("sent received started failed rejected", "rejected")


@pytest.mark.parametrize("subjects", MORE_ATTEMPTS)
def test_a_late_task_sent_leads_to_the_same_record(subjects: str) -> None:
    """Within a worker the order is kept; task-sent comes on other connections.

    The one that begins another run may come after the run has begun, not before the run before it has.
    """
    events = course(subjects)
    in_order = fed(*events)
    of_worker = [each for each in events if each["type"] != "task-sent"]
    of_client = [each for each in events if each["type"] == "task-sent"]
    in_time = [sum(other in of_worker for other in events[: events.index(each)]) for each in of_client]
    orders = 0
    for places in combinations_with_replacement(range(len(of_worker) + 1), len(of_client)):
        if any(place < earliest for place, earliest in zip(places, in_time, strict=True)):
            continue
        is_again = [each["retries"] for each in of_client] == [0, 0]
        if is_again and places[0] > of_worker.index(events[4 - 1]):
            continue  # the first run's may be as late as its end, or it is taken for that of the second
        order = list(of_worker)
        for place, each in sorted(zip(places, of_client, strict=True), key=lambda pair: -pair[0]):
            order.insert(place, each)
        task = fed(*order)
        assert (task.state, task.attempt, task.runtime, task.retries) == (
            in_order.state,
            in_order.attempt,
            in_order.runtime,
            in_order.retries,
        ), [each["type"] for each in order]
        orders += 1
    assert orders > 2


@pytest.mark.parametrize("subjects", [each for each in COURSES_TAKEN if each not in TWICE])
def test_an_event_of_celerys_own_that_comes_again_changes_nothing(subjects: str) -> None:
    events = course(subjects)
    in_order = lasting(fed(*events))
    for first, again in combinations(range(len(events) + 1), 2):
        if events[first]["type"] != "task-progress":
            repeated = [*events[:again], events[first], *events[again:]]
            assert lasting(fed(*repeated)) == in_order, (events[first]["type"], again)


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


@pytest.mark.slow
@DRAWN
@given(EVENTS)
def test_an_event_that_is_repeated_at_once_changes_nothing(events: list[Event]) -> None:
    assert fields_of(fed(*(each for each in events for _ in range(2)))) == fields_of(fed(*events))


OUTCOMES = {
    "SUCCESS": ("succeeded", "result"),
    "FAILURE": ("failed", "exception", "traceback"),
    "REVOKED": ("revoked",),
    "LOST": ("lost",),
    "RETRY": ("exception", "traceback"),
    "REJECTED": ("exception", "traceback"),  # after a retry of the same attempt
}


@pytest.mark.slow
@DRAWN
@given(EVENTS)
def test_the_record_fits_its_state_after_any_events(events: list[Event]) -> None:
    story = Fed()
    task = story.task
    for number, each in enumerate(events):
        story.apply(each | {"clock": number})  # each worker's own events are in order
        assert task.queued_seconds is None or task.queued_seconds >= 0
        assert task.runtime is None or task.runtime >= 0
        fields = {field for fields in OUTCOMES.values() for field in fields}
        fields -= set(OUTCOMES.get(task.state or "", ()))
        assert {field for field in fields if getattr(task, field) is not None} == set()
        assert (task.ended_at is not None) == task.is_ready == (task.state in READY_STATES)
        assert task.progress == 1 or task.state != "SUCCESS"
        assert task.state == "PENDING" or task.worker in PIDS


def test_the_exception_of_a_retry_goes_when_the_same_attempt_turns_out_to_have_ended() -> None:
    late = event("succeeded", 35.0)
    task = fed(*course("sent received started retried"), late)
    assert (task.state, task.exception, task.traceback) == ("SUCCESS", None, None)


# --------------------------------------------------------------------------------- what is derived


def timings(task: Task) -> tuple[float | None, float | None, int]:
    return task.queued_seconds, task.runtime, task.attempt


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(course("sent"), (None, None, 0), id="only sent"),
        pytest.param(course("sent received"), (None, None, 1), id="not begun"),
        pytest.param(course("sent received started"), (20.0, None, 1), id="running"),
        pytest.param(course("sent received started succeeded"), (20.0, 0.25, 1), id="plain"),
        pytest.param(course("received started succeeded"), (10.0, 0.25, 1), id="not seen sent"),
        pytest.param(course("sent received started failed"), (20.0, 10.0, 1), id="failed"),
        pytest.param(course("sent received started retried sent"), (20.0, None, 1), id="about to be retried"),
        pytest.param(
            course("sent received started retried sent received"), (None, None, 2), id="received again"
        ),
        pytest.param(
            course("sent received started retried sent received started failed"),
            (20.0, 10.0, 2),
            id="retried",
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
            course("sent received started succeeded received started"), (10.0, None, 1), id="a new run"
        ),
        pytest.param(
            course("sent received started succeeded sent received started"), (20.0, None, 1), id="sent again"
        ),
        pytest.param(course("sent received failed"), (None, None, 1), id="unregistered"),
        pytest.param(
            [*course("sent received started"), event("failed", 41.0), event("failed", 41.5)],
            (20.0, 11.5, 1),
            id="a hard time limit, reported twice",
        ),
        pytest.param(
            [*course("sent received started"), event("succeeded", 45.0, runtime=None)],
            (20.0, 15.0, 1),
            id="succeeded, and the worker does not report its runtime",
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
def test_queue_time_runtime_and_number_of_the_attempt(events: list[Event], expected: tuple[Any, ...]) -> None:
    assert timings(fed(*events)) == expected


@pytest.mark.parametrize("subject", ["started", "revoked", "failed", "progress"])
def test_a_task_that_was_sent_and_then_begun_has_one_attempt(subject: str) -> None:
    assert fed(event("sent", 10.0), event(subject, 20.0)).attempt == 1


def test_the_message_of_a_retry_does_not_change_how_long_the_attempt_before_was_in_the_queue() -> None:
    events = course("sent received started")
    assert fed(*events).queued_seconds == 20.0
    again = [event("sent", 40.0, retries=1), event("retried", 50.0)]  # the order in which Celery does it
    assert fed(*events, *again).queued_seconds == 20.0


def test_a_retry_on_a_worker_whose_clock_is_behind() -> None:
    task = fed(
        event("sent", 100.0), event("received", 105.0), event("started", 105.5), event("retried", 106.0),
        event("sent", 106.1, retries=1), event("received", 101.0, OTHER_WORKER, retries=1),
        event("started", 102.0, OTHER_WORKER), event("failed", 104.0, OTHER_WORKER),
    )  # fmt: skip
    assert (task.state, task.worker, task.retries) == ("FAILURE", OTHER_WORKER, 1)
    assert (task.received, task.started, task.attempt) == (101.0, 102.0, 2)
    assert (task.runtime, task.queued_seconds) == (2.0, 1.0)


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


# ------------------------------------------------------------------------- another attempt, another run

FIRST = {
    "succeeded": ("SUCCESS", "succeeded", "result"),
    "failed": ("FAILURE", "failed", "exception", "traceback"),
    "retried": ("RETRY", "exception", "traceback"),
    "revoked": ("REVOKED", "revoked"),
}


@pytest.mark.parametrize("end", FIRST)
@pytest.mark.parametrize("host", [WORKER, OTHER_WORKER])
def test_the_outcome_of_an_attempt_goes_when_the_next_one_is_taken_up(end: str, host: str) -> None:
    state, *fields = FIRST[end]
    first = [*course("sent received started"), event("progress", 40.0, current=1, total=2)]
    first.append(event(end, 45.0, terminated=True))
    task = fed(*first)
    assert task.state == state
    assert all(getattr(task, field) is not None for field in (*fields, "started", "custom_at", "custom"))
    again = fed(*first, event("received", 50.0, host, retries=int(end == "retried")))
    gone = ("started", "queued_seconds", "runtime", "custom_at", "custom", "progress", *fields)
    assert {field: getattr(again, field) for field in gone} == dict.fromkeys(gone)
    assert (again.state, again.worker, again.received) == ("RECEIVED", host, 50.0)
    assert (again.args, again.queue, again.client) == ("(1,)", "celery", CLIENT), "the call stays"


def test_the_outcome_is_that_of_the_last_run() -> None:
    """A nightly job that fails once, and then succeeds."""
    task = fed(*course("sent received started failed sent received started succeeded"))
    assert (task.state, task.result, task.succeeded) == ("SUCCESS", "5", 80.0)
    assert (task.exception, task.traceback, task.failed) == (None, None, None)
    task = fed(*course("sent received started succeeded sent received started failed"))
    assert (task.state, task.exception, task.failed) == ("FAILURE", "failed at 80.0", 80.0)
    assert (task.result, task.succeeded, task.runtime) == (None, None, 10.0)


def test_a_task_that_is_sent_again_has_no_outcome() -> None:
    before = course("sent received started retried sent received started rejected")
    before += [event("received", 90.0, retries=1), event("succeeded", 95.0)]
    task = fed(*before)
    assert (task.attempt, task.retries, task.retried, task.rejected) == (3, 1, 40.0, 80.0)
    new = event("sent", 100.0, "gen8@client", args="(2,)", queue="slow")
    again, alone = fed(*before, new), fed(new)
    assert lasting(again) == lasting(alone)


def test_the_times_of_a_retry_and_a_rejection_stay_for_the_run() -> None:
    task = fed(*course("sent received started retried sent received started rejected received started"))
    assert (task.retried, task.rejected, task.state) == (40.0, 80.0, "STARTED")


def test_the_times_of_a_retry_and_a_rejection_are_not_the_next_runs() -> None:
    before = course("sent received started retried sent received started rejected")
    assert (fed(*before).retried, fed(*before).rejected) == (40.0, 80.0)
    task = fed(*before, event("sent", 90.0, retries=1))
    assert (task.state, task.retried, task.rejected) == ("PENDING", None, None)


def test_late_events_of_an_earlier_attempt_change_nothing() -> None:
    before = [*course("sent received started"), event("received", 50.0, OTHER_WORKER)]
    before.append(event("started", 60.0, OTHER_WORKER))
    for end in ("succeeded", "failed", "revoked", "cancelled", "progress"):
        late = event(end, 70.0, terminated=True)
        assert fields_of(fed(*before, late)) == fields_of(fed(*before)), end
    rejected = fed(*before, event("rejected", 70.0))
    assert fields_of(rejected) | {"rejected": None} == fields_of(fed(*before)), (
        "but when it was last rejected"
    )
    assert rejected.rejected == 70.0


def test_a_late_task_sent_of_the_first_message_does_not_change_the_retry() -> None:
    """A busy client reports what it has sent after the worker has begun it, and has asked for a retry."""
    retry = [event("retried", 12), event("sent", 11.5, retries=1), event("received", 13, retries=1)]
    late = event("sent", 14, "gen8@client", queue="first")
    task = fed(event("received", 10), event("started", 11), *retry, late, event("started", 20))
    assert (task.retries, task.sent, task.client, task.queue) == (1, 11.5, CLIENT, "celery")
    assert (task.attempt, task.queued_seconds) == (2, 8.5)


def test_the_workers_call_replaces_the_clients() -> None:
    """The client's `args` may be another text (argsrepr), and null does not mean that there are none."""
    sent = event("sent", 10.0, args="(client)", kwargs="{client}", eta="2030-01-01T00:00:00")
    received = event("received", 20.0, args="(worker)", kwargs=None, eta=None)
    for order in ((sent, received), (received, sent)):
        task = fed(*order)
        assert (task.args, task.kwargs, task.eta) == ("(worker)", "{client}", None)


# ------------------------------------------------------------------------------------------- lost


def test_a_task_whose_process_is_gone_is_lost_until_another_attempt_or_an_event_of_that_process() -> None:
    story = Fed(*course("sent received started"), event("progress", 35.0, current=1, total=2))
    process = story.workers.on_event(event("started", 36.0), story.now)
    assert process is not None
    mark_lost(story.task, story.attempts, process, 99.0)
    task = story.task
    assert (task.state, task.type, task.lost, task.timestamp) == ("LOST", "task-lost", 99.0, 99.0)
    assert (task.is_ready, task.is_running, task.ended_at) == (False, False, None)
    assert (task.started, task.worker, task.progress) == (30.0, WORKER, 0.5), "what is known of it stays"
    assert msgspec.json.decode(view(task, []))["stale"] is True
    story.apply(event("sent", 40.0, retries=1))
    assert task.lost == 99.0, "a message that no worker has taken up changes nothing"
    story.apply(event("received", 50.0, OTHER_WORKER, retries=1))
    assert (task.state, task.lost, task.attempt) == ("RECEIVED", None, 2)
    assert msgspec.json.decode(view(task, []))["stale"] is False


# --------------------------------------------------------------------------------------- attempts


def attempts_of(*events: Event) -> list[dict[str, Any]]:
    """The attempts of a task as they are written."""
    story = Fed(*events)
    found: list[dict[str, Any]] = msgspec.json.decode(view(story.task, [], story.attempts.current_run()))[
        "attempts"
    ]
    return found


def test_attempts_are_encoded_with_their_times_and_ends() -> None:
    events = course("sent received started retried")
    events += [event("sent", 50.0, retries=1, eta="2030-01-01T00:00:00+00:00")]
    events += [event("received", 60.0, OTHER_WORKER, retries=1, eta="2030-01-01T00:00:00+00:00")]
    events += [event("started", 70.0, OTHER_WORKER), event("succeeded", 80.0, OTHER_WORKER)]
    first = {
        "retries": 0, "state": "RETRY", "worker": WORKER, "pid": 40, "sent": 10.0, "eta": None,
        "received": 20.0, "started": 30.0, "ended": 40.0, "exception": "retried at 40.0",
    }  # fmt: skip
    second = {
        "retries": 1, "state": "SUCCESS", "worker": OTHER_WORKER, "pid": 50, "sent": 50.0,
        "eta": "2030-01-01T00:00:00+00:00", "received": 60.0, "started": 70.0, "ended": 80.0,
        "exception": None,
    }  # fmt: skip
    assert attempts_of(*events) == [first, second]
    announced = {field: None for field in second} | {"retries": 1, "state": "PENDING", "sent": 50.0}
    assert attempts_of(*events[:5]) == [first, announced | {"eta": second["eta"]}]


def test_attempts_of_the_run_before_are_not_encoded() -> None:
    events = course("sent received started retried sent received started failed")
    assert [(each["retries"], each["state"]) for each in attempts_of(*events)] == [
        (0, "RETRY"),
        (1, "FAILURE"),
    ]
    run = [event("sent", 90.0), event("received", 95.0)]
    assert [(each["retries"], each["state"]) for each in attempts_of(*events, *run)] == [(0, "RECEIVED")]


def test_a_task_is_encoded_without_its_attempts_by_default() -> None:
    task = fed(*course("sent received"))
    written = msgspec.json.decode(view(task, ["c"]))
    assert "attempts" not in written
    assert (written["children"], written["stale"]) == (["c"], False)


def test_attempts_are_bounded_in_number_and_size() -> None:
    story = Fed()
    for retries in range(100):
        story.apply(event("received", 10.0 * retries + 1, retries=retries))
        story.apply(event("started", 10.0 * retries + 2))
        story.apply(event("retried", 10.0 * retries + 3, exception="x" * 100_000))
    assert len(story.attempts.current_run()) == MAX_ATTEMPTS
    assert {len(each.exception or "") for each in story.attempts.current_run()} == {MAX_ATTEMPT_TEXT_CHARS}
    assert story.task.attempt == 100
    assert story.grown < MAX_ATTEMPTS * 2 * MAX_ATTEMPT_TEXT_CHARS + 3 * MAX_TEXT_CHARS


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
    assert (None if task.custom is None else msgspec.json.decode(task.custom)) == (fields or None)


def test_the_last_custom_event_is_recorded() -> None:
    first, second = event("progress", 30.0, current=1, total=4), event("half-done", 40.0, current=2, total=4)
    assert (fed(first, second).progress, fed(first, second).custom_at) == (0.5, 40.0)
    assert (fed(first, second).state, fed(first, second).type) == ("HALF-DONE", "task-half-done")


def test_a_new_attempt_has_made_no_progress() -> None:
    first = [*course("sent received started"), event("progress", 35.0, current=1, total=2)]
    assert fed(*first).progress == 0.5
    task = fed(*first, event("retried", 40.0), event("received", 50.0, retries=1))
    assert (task.progress, task.custom, task.custom_at) == (None, None, None)


def test_progress_of_an_attempt_before_is_not_recorded() -> None:
    events = [*course("sent received started"), event("received", 50.0, OTHER_WORKER)]
    events += [event("started", 60.0, OTHER_WORKER), event("progress", 61.0, OTHER_WORKER, progress=0.25)]
    assert fed(*events).progress == 0.25
    assert fed(*events, event("progress", 62.0, progress=0.75)).progress == 0.25


@pytest.mark.parametrize(
    "reported", [[], [event("progress", 35.0, current=1, total=2)], [event("progress", 35.0, note="x")]]
)
def test_progress_is_1_after_success(reported: list[Event]) -> None:
    begun = course("sent received started")
    assert fed(*begun, *reported, event("succeeded", 40.0)).progress == 1.0
    assert fed(*begun, event("succeeded", 40.0), *reported).progress == 1.0
    for end in ("failed", "revoked", "retried", "rejected"):
        assert fed(*begun, *reported, event(end, 40.0)).progress == fed(*begun, *reported).progress


# ------------------------------------------------------------------------------ bounds, wrong types


def test_the_ends_of_long_texts_are_kept() -> None:
    long = "x" * MAX_TEXT_CHARS + "the end"
    task = fed(event("failed", 10.0, traceback=long, exception=long))
    assert task.traceback == task.exception == long[-MAX_TEXT_CHARS:]
    assert fed(event("failed", 10.0, traceback=long[7:])).traceback == long[7:]


def test_custom_fields_that_are_too_big_are_left_out_and_the_progress_stays() -> None:
    task = fed(event("progress", 10.0, current=1, total=2, log="x" * MAX_CUSTOM_BYTES))
    assert (task.custom, task.progress) == (None, 0.5)


def test_names_of_types_states_and_nodes_are_kept_up_to_a_bound() -> None:
    task = fed(event("x" * 10_000, 10.0, hostname="w@" + "h" * 10_000), event("ß" * 1_000, 11.0))
    assert task.type is not None and task.state is not None and task.worker is not None
    assert (len(task.type), len(task.worker)) == (MAX_NAME_CHARS, MAX_NAME_CHARS)
    assert len(task.state) == MAX_STATE_CHARS


@pytest.mark.slow
@DRAWN
@given(EVENTS, st.integers(0, 3))
def test_the_growth_is_the_size_of_texts_and_attempts(events: list[Event], times: int) -> None:
    story, attempt_bytes = Fed(), 300
    task = story.task
    for number, each in enumerate(events):
        made = dict(each)
        for field in ("args", "kwargs", "result", "traceback", "exception"):
            if field in made:
                made[field] = "é"[: number % 2] + "x" * (number * times)
        if made["type"] == "task-progress":
            made["log"] = "y" * (number * 6_000)
        story.apply(made)
    texts = ("args", "kwargs", "eta", "expires", "result", "exception", "traceback")
    texts += ("queue", "exchange", "routing_key", "worker", "client")
    set_texts = [text for field in texts if type(text := getattr(task, field)) is str]
    expected = sum(map(text_bytes, set_texts))
    expected += sum(_PROCESS_BYTES for process in story.processes if process.is_counted)
    expected += 0 if task.custom is None else len(bytes(task.custom))
    assert story.grown == expected + story.attempts.further_bytes
    assert 0 <= story.attempts.further_bytes <= (len(story.attempts.kept()) + 1) * (attempt_bytes + 4_000)


def test_earlier_attempts_count_with_their_exceptions() -> None:
    story = Fed(*course("sent received started"))
    assert story.attempts.further_bytes == 0
    story.apply(event("retried", 40.0, exception="x" * 500))
    story.apply(event("received", 50.0, retries=1))
    assert 500 < story.attempts.further_bytes < 1_500
    once = story.attempts.further_bytes
    story.apply(event("retried", 60.0, exception="x" * 500))
    story.apply(event("received", 70.0, retries=2))
    assert story.attempts.further_bytes == 2 * once
    story.apply(event("succeeded", 80.0, result="ok"))
    assert story.attempts.further_bytes == 2 * once


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


def assert_sound(task: Task, attempts: Attempts) -> None:
    """Every field is of its type and finite, and can be written."""
    written = msgspec.json.decode(view(task, ["c"], attempts.current_run()))
    assert (written.pop("children"), written.pop("stale")) == (["c"], False)
    assert len(written.pop("attempts")) == len(attempts.current_run()) > 0
    custom = written.pop("custom")
    assert custom is None or type(custom) is dict
    read = msgspec.convert(written, Task)  # which checks the types
    assert fields_of(read) == fields_of(task) | {"custom": None}, "and nothing was lost by writing it"
    assert custom == fields_of(task)["custom"]


def assert_fed(*events: Event) -> None:
    story = Fed(*events)
    assert_sound(story.task, story.attempts)


@pytest.mark.parametrize("field", OWN_FIELDS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_field_of_a_wrong_type_is_ignored(subject: str, field: str) -> None:
    for hostile in HOSTILE:
        before = course("sent received started")
        assert_fed(*before, event(subject, 40.0) | {field: hostile}, *course("succeeded"))
        assert_fed(event(subject, 40.0) | {field: hostile}, *before)


@pytest.mark.slow
@DRAWN
@given(
    st.lists(
        st.tuples(SOME, st.dictionaries(st.sampled_from(OWN_FIELDS), st.sampled_from(HOSTILE), max_size=6)),
        max_size=8,
    )
)
def test_events_of_wrong_types_together(drawn: list[tuple[str, dict[str, Any]]]) -> None:
    tasks, workers = TaskTable(), WorkerTable()
    for number, (subject, fields) in enumerate(drawn):
        made = event(subject, float(number)) | fields
        tasks.join(made, float(number), workers.on_event(made, float(number)))
        record = tasks.get("u")
        if record is not None:
            assert_sound(record.task, record)
            assert record.task.runtime is None or record.task.runtime >= 0
            assert record.task.queued_seconds is None or record.task.queued_seconds >= 0


def test_an_event_with_nothing_but_its_type() -> None:
    for subject in SUBJECTS:
        bare = {"type": f"task-{subject}", "uuid": "u"}
        assert_fed(bare)
        assert (fed(bare).state, fed(bare).timestamp) == (fed(event(subject, 1.0)).state, 0.0)


def test_an_end_counts_though_the_workers_clock_was_set_back() -> None:
    assert fed(*course("sent received started"), event("succeeded", 5.0, clock=31)).state == "SUCCESS"


# -------------------------------------------------------------------------------- children, bounded


def sent(uuid: str, parent_id: str | None = None, at: float = 1.0) -> Event:
    return event("sent", at, uuid=uuid, root_id="r", parent_id=parent_id)


def family(tasks: TaskTable, uuid: str) -> set[str]:
    record = tasks.get(uuid)
    assert record is not None
    for child in (record.children or {}).values():
        assert child.task.parent_id == uuid
    return set(record.child_ids)


@DRAWN
@given(st.permutations("abcdefg"))
def test_a_tree_is_the_same_in_whatever_order_its_tasks_become_known(order: list[str]) -> None:
    parents = {"a": None, "b": "a", "c": "a", "d": "b", "e": "b", "f": "c", "g": "f"}
    tasks = TaskTable()
    for uuid in order:
        tasks.join(sent(uuid, parents[uuid]), 0.0)
    assert {uuid: family(tasks, uuid) for uuid in parents} == {
        uuid: {child for child, parent in parents.items() if parent == uuid} for uuid in parents
    }


def test_children_are_found_again_when_their_parent_was_evicted_and_returns() -> None:
    tasks = TaskTable(max_tasks=3)
    for each in (sent("p"), sent("c", "p"), sent("d", "p")):
        tasks.join(each, 0.0)
    tasks.join(event("succeeded", 3.0, uuid="p"), 0.0)
    tasks.join(sent("x"), 0.0)
    assert tasks.get("p") is None
    tasks.join(event("succeeded", 5.0, uuid="x"), 0.0)
    tasks.join(sent("p"), 0.0)
    assert family(tasks, "p") == {"c", "d"}


def test_a_child_that_takes_another_parent_leaves_the_one_before_known_or_not() -> None:
    tasks = TaskTable()
    tasks.join(sent("c", "p"), 0.0)
    tasks.join(event("received", 2.0, uuid="c", root_id="r", parent_id="q"), 0.0)
    tasks.join(sent("p"), 0.0)
    tasks.join(sent("q"), 0.0)
    assert (family(tasks, "p"), family(tasks, "q")) == (set(), {"c"})


def test_orphans_are_removed_with_the_last_child() -> None:
    tasks = TaskTable(max_tasks=10)
    for number in range(1_000):
        tasks.join(sent(f"c{number}", f"p{number}"), 0.0)
        tasks.join(sent(f"d{number}", f"c{number}"), 0.0)
    assert len(tasks._graph._orphans) <= 10
    for number in range(10):
        tasks.join(sent(f"x{number}"), 0.0)
    assert len(tasks._graph._orphans) == 0


def test_tasks_that_are_each_others_parents_are_evicted_like_others() -> None:
    tasks = TaskTable(max_tasks=2)
    tasks.join(sent("a", "b"), 0.0)
    tasks.join(sent("b", "a"), 0.0)
    assert (family(tasks, "a"), family(tasks, "b")) == ({"b"}, {"a"})
    for uuid in "cdef":
        tasks.join(sent(uuid), 0.0)
    assert (tasks.statistics().known, len(tasks._graph._orphans)) == (2, 0)
