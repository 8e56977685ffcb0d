"""Every message that was recorded from Celery 4.4.7 and 5.7.0, through normalize and Tasks.

What comes out is compared with a second reading of the recording that uses nothing of the gateway: the
standard library's json and datetime, and what the README documents.
"""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import pytest
from celery.events.state import State

from celery_gateway.events.event import Event, encode
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import normalize
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable

FOLDER = Path(__file__).parents[1] / "corpus"
RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
RECEIVED_AT = 4e9
JOINED = ("name", "root_id", "parent_id", "queue", "state", "attempt")

pytestmark = pytest.mark.parametrize("recording", RECORDINGS)


@cache
def messages(recording: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{recording}.jsonl").read_text("utf-8").splitlines()]


def taken(message: dict[str, Any]) -> Message:
    """A recorded message as a source hands it on."""
    return Message(
        message["body"].encode(),
        message["content_type"],
        message["content_encoding"],
        message["headers"].get("compression"),
    )


def wire_events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message's events as Celery made them; what is not finite is null in the contract."""
    body = json.loads(message["body"], parse_constant=lambda _: None)
    return body if isinstance(body, list) else [body]


def all_wire_events(recording: str) -> list[dict[str, Any]]:
    return [event for message in messages(recording) for event in wire_events(message)]


def time_of(timestamp: float) -> str:
    made = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=timestamp)
    return made.isoformat(timespec="microseconds").replace("+00:00", "Z")


def text(value: Any) -> str:
    """As JSON text, in which 1, 1.0 and true are three things."""
    return json.dumps(value, sort_keys=True)


def through_the_gateway(recorded: list[dict[str, Any]]) -> list[Event]:
    tasks, workers = TaskTable(), WorkerTable()
    out: list[Event] = []
    for message in recorded:
        for event in normalize(taken(message), RECEIVED_AT).events:
            out += tasks.join(event, 0.0, workers.on_event(event, 0.0))
    out += tasks.release(1e9)
    return out


def by_uuid(events: list[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if "uuid" in event:
            found[event["uuid"]].append(event)
    return found


def reported_names(recording: str) -> dict[str, dict[str, str | None]]:
    """By uuid what task-sent and task-received in the recording report of a task."""
    reported: dict[str, dict[str, str | None]] = {}
    for event_type in ("task-sent", "task-received"):  # received last: its word goes before that of sent
        for event in all_wire_events(recording):
            if event["type"] == event_type:
                parent_id = event["parent_id"]
                before = reported.get(event["uuid"], {}).get("parent_id")
                reported[event["uuid"]] = {
                    "name": event["name"],
                    "root_id": event["root_id"],
                    "parent_id": parent_id if parent_id not in (None, event["uuid"]) else before,
                }
    return reported


def test_the_recording_is_all_there(recording: str) -> None:
    assert len(messages(recording)) > 180
    types = {event["type"] for event in all_wire_events(recording)}
    assert types >= {
        "task-sent", "task-received", "task-started", "task-succeeded", "task-failed", "task-retried",
        "task-rejected", "task-revoked", "task-progress", "worker-online", "worker-heartbeat",
    }  # fmt: skip
    assert any(len(wire_events(message)) > 1 for message in messages(recording))


def test_every_field_stays_and_time_is_added(recording: str) -> None:
    for message in messages(recording):
        events, refused = normalize(taken(message), RECEIVED_AT)
        assert refused == ()
        for ours, theirs in zip(events, wire_events(message), strict=True):
            assert text(ours) == text({**theirs, "time": time_of(theirs["timestamp"])})


def test_every_event_is_encoded_as_the_same_json(recording: str) -> None:
    for message in messages(recording):
        for event in normalize(taken(message), RECEIVED_AT).events:
            assert text(json.loads(encode(event).decode())) == text(event)


def test_a_field_of_its_own_named_id_or_time_is_found_under_fields(recording: str) -> None:
    for message in messages(recording):
        theirs = [{**event, "id": 7, "time": ["x"]} for event in wire_events(message)]
        events = normalize(Message(json.dumps(theirs).encode()), RECEIVED_AT).events
        for ours, event in zip(events, theirs, strict=True):
            own = {"id": event.pop("id"), "time": event.pop("time")}
            assert text(ours) == text({**event, "fields": own, "time": time_of(event["timestamp"])})


def test_a_worker_that_sends_msgpack_gives_the_same_events(recording: str) -> None:
    for message in messages(recording):
        packed = msgpack.packb(json.loads(message["body"]))
        events = normalize(Message(packed, "application/x-msgpack", "binary"), RECEIVED_AT).events
        assert text(events) == text(normalize(taken(message), RECEIVED_AT).events)


def test_the_utcoffset_is_not_applied(recording: str) -> None:
    for message in messages(recording):
        theirs = [{**event, "utcoffset": -5} for event in wire_events(message)]
        for ours in normalize(Message(json.dumps(theirs).encode()), RECEIVED_AT).events:
            assert ours["time"] == time_of(ours["timestamp"])
            assert ours["utcoffset"] == -5


def test_joining_adds_fields_and_loses_nothing(recording: str) -> None:
    out = through_the_gateway(messages(recording))
    theirs = all_wire_events(recording)
    assert len(out) == len(theirs)
    # The recorded order is kept within each task; whole messages are not held back for others.
    for uuid, events in by_uuid(theirs).items():
        for ours, event in zip(by_uuid(out)[uuid], events, strict=True):
            expected = {**event, "time": time_of(event["timestamp"])}
            kept = {field: value for field, value in ours.items() if field in expected}
            assert text(kept) == text(expected)
            assert ours.keys() - expected.keys() == set(JOINED) - expected.keys()
    workers = [event for event in out if "uuid" not in event]
    assert [event.keys() & set(JOINED) for event in workers] == [set()] * len(workers)


@pytest.mark.parametrize("order", ["as recorded", "backwards", "received and sent last"])
def test_events_are_joined_with_what_sent_and_received_say(recording: str, order: str) -> None:
    recorded = messages(recording)
    if order == "backwards":
        recorded = recorded[::-1]
    elif order == "received and sent last":  # each event before what names it, all within the wait
        single = [
            {**message, "body": json.dumps(event)} for message in recorded for event in wire_events(message)
        ]
        recorded = sorted(single, key=lambda message: '"root_id"' in message["body"])
    reported = reported_names(recording)
    joined = 0
    for ours in through_the_gateway(recorded):
        if "uuid" in ours and ours["type"] not in ("task-sent", "task-received"):
            assert {field: ours[field] for field in reported[ours["uuid"]]} == reported[ours["uuid"]]
            joined += 1
    assert joined > 80


def test_tasks_that_nobody_names_are_given_null(recording: str) -> None:
    naming = ("task-sent", "task-received")
    nameless = [
        {
            **message,
            "body": json.dumps([event for event in wire_events(message) if event["type"] not in naming]),
        }
        for message in messages(recording)
    ]
    for ours in through_the_gateway(nameless):
        if "uuid" in ours:
            assert (ours["name"], ours["root_id"], ours["parent_id"]) == (None, None, None)
            assert ours["state"]


# Where Celery's own State is wrong, by the events of a task: (the right state, Celery's).
CELERY_IS_WRONG = {
    # Its State has no rank for REJECTED, and so a rejected task stays what it was.
    "sent received started rejected": ("REJECTED", "STARTED"),
}


def subjects(events: list[Event]) -> str:
    return " ".join(event["type"].removeprefix("task-") for event in events)


def test_the_states_at_the_end_are_those_of_celerys_own_state_where_it_is_right(recording: str) -> None:
    celerys = State()
    for event in all_wire_events(recording):
        celerys.event({**event, "local_received": event["timestamp"]})
    compared = 0
    for uuid, events in by_uuid(through_the_gateway(messages(recording))).items():
        ours, theirs = events[-1]["state"], celerys.tasks[uuid].state
        assert (ours, theirs) == CELERY_IS_WRONG.get(subjects(events), (theirs, theirs)), subjects(events)
        compared += 1
    assert compared > 40


COURSES = """
sent=PENDING
sent=PENDING received=RECEIVED
sent=PENDING revoked=REVOKED
sent=PENDING received=RECEIVED started=STARTED
received=RECEIVED started=STARTED succeeded=SUCCESS
sent=PENDING received=RECEIVED started=STARTED succeeded=SUCCESS
sent=PENDING received=RECEIVED started=STARTED failed=FAILURE
sent=PENDING received=RECEIVED started=STARTED failed=FAILURE rejected=FAILURE
sent=PENDING received=RECEIVED started=STARTED rejected=REJECTED
sent=PENDING received=RECEIVED started=STARTED revoked=REVOKED
sent=PENDING received=RECEIVED started=STARTED revoked=REVOKED revoked=REVOKED
sent=PENDING received=RECEIVED started=STARTED progress=PROGRESS progress=PROGRESS progress=PROGRESS \
succeeded=SUCCESS
sent=PENDING received=RECEIVED started=STARTED sent=STARTED retried=RETRY received=RECEIVED started=STARTED \
sent=STARTED received=RECEIVED retried=RECEIVED revoked=REVOKED
sent=PENDING received=RECEIVED started=STARTED sent=STARTED retried=RETRY received=RECEIVED started=STARTED \
sent=STARTED received=RECEIVED retried=RECEIVED started=STARTED sent=STARTED received=RECEIVED \
retried=RECEIVED started=STARTED failed=FAILURE
sent=PENDING received=RECEIVED started=STARTED sent=STARTED retried=RETRY received=RECEIVED started=STARTED \
sent=STARTED received=RECEIVED retried=RECEIVED started=STARTED received=RECEIVED sent=RECEIVED \
retried=RECEIVED started=STARTED failed=FAILURE
""".replace("\\\n", "")


# Where the worker received the retry before it reported the end of the attempt before, the task is RECEIVED.
def test_the_states_on_the_way_are_those_written_here(recording: str) -> None:
    known = set(COURSES.strip().splitlines())
    for events in by_uuid(through_the_gateway(messages(recording))).values():
        course = [f"{event['type'].removeprefix('task-')}={event['state']}" for event in events]
        assert " ".join(course) in known


def test_events_have_their_attempt_and_the_queue_of_its_message(recording: str) -> None:
    attempts = 0
    for events in by_uuid(through_the_gateway(messages(recording))).values():
        for each, number in zip(events, attempt_numbers(events), strict=True):
            assert each["attempt"] == number, subjects(events)
            attempts = max(attempts, number)
        queues = [each["queue"] for each in events if each["type"] == "task-sent"]
        assert {each["queue"] for each in events} == {*queues} or not queues
    assert attempts == 4


def attempt_numbers(events: list[Event]) -> list[int]:
    """The attempts that events of a task belong to, by its retries: recorded tasks have one worker."""
    numbers, begun, ended = [], 0, 0
    for each in events:
        if each["type"] in ("task-sent", "task-received"):
            numbers.append(each["retries"] + 1)
        elif each["type"] == "task-started":
            begun += 1
            numbers.append(begun)
        elif each["type"] == "task-retried":
            ended += 1
            numbers.append(ended)
        elif each["type"] == "task-revoked":  # may be the only event of its attempt
            numbers.append(max(ended + 1, begun))
        else:
            numbers.append(begun)
    return numbers


def test_a_task_that_has_ended_has_the_same_state_when_its_events_come_backwards(recording: str) -> None:
    of_tasks = [message for message in messages(recording) if "uuid" in wire_events(message)[0]]
    forwards = by_uuid(through_the_gateway(of_tasks))
    backwards = by_uuid(through_the_gateway(of_tasks[::-1]))
    ended = {
        uuid: events
        for uuid, events in forwards.items()
        if events[-1]["state"] in ("SUCCESS", "FAILURE", "REVOKED")
    }
    differences = {
        subjects(events): (events[-1]["state"], backwards[uuid][-1]["state"])
        for uuid, events in ended.items()
        if events[-1]["state"] != backwards[uuid][-1]["state"]
    }
    assert not differences
    assert len(ended) > 30
