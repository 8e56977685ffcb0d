"""An event that arrives twice changes neither the task nor the counts, whatever the clocks of the hosts are.

A story is a list of events, in the order of arrival: `sent` is a client's, `a.started` one of worker ``a``.
`/1` gives the retries, `+10` lets ten seconds pass, `a.restarted` is a new life of the process of ``a``.
"""

import json
from typing import Any

import pytest

from celery_gateway.events.event import Event
from celery_gateway.state.activity_report import ActivityReader
from celery_gateway.state.attempt import MAX_MARKS_BYTES
from celery_gateway.state.name_activity import KINDS
from celery_gateway.state.task import view
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable

pytestmark = pytest.mark.unit

BEGAN_AT = 1_800_000_000.0
SKEWS = (-7200.0, -601.0, -30.0, 0.0, 30.0, 61.5, 601.0, 7200.0)
PIDS = {"a": 1, "b": 2, "client": 9}
RETRY = "sent a.received a.started a.retried"
RUN = "sent a.received a.started a.succeeded"
STORIES = (
    "sent a.received a.started",
    RUN,
    "a.received a.started a.succeeded",
    "a.received a.started a.failed a.failed",
    "a.received a.started a.failed a.rejected",
    "sent a.received a.received a.started a.succeeded",
    "sent a.received a.revoked",
    "sent a.received a.started a.terminated",
    f"{RETRY} sent/1 a.received/1 a.started a.succeeded",
    f"{RETRY} sent/1 b.received/1 b.started b.succeeded",
    "a.received a.started a.retried b.received/1 b.started b.retried a.received/2 a.started a.succeeded",
    "a.received a.started sent/1 a.received/1 a.retried a.started a.succeeded",
    "a.received a.started a.received/1 a.started a.succeeded a.retried",
    "sent a.received a.started a.rejected a.received a.started a.succeeded",
    "sent a.received a.started b.received b.started b.succeeded a.succeeded",
    f"{RUN} +10 sent a.received a.started a.failed",
    f"{RUN} +10 sent",
    "sent a.received a.started a.restarted a.received a.started a.succeeded",
)

Arrivals = list[tuple[float, Event]]


def arrivals(story: str, skew: float) -> Arrivals:
    """Return the events of a story, and when they arrive; the clocks of ``a`` and of the client are wrong."""
    now, clocks = 0.0, dict.fromkeys(PIDS, 100)
    made: Arrivals = []
    for word in story.split():
        if word.startswith("+"):
            now += float(word)
            continue
        word, _, retries = word.partition("/")
        host, _, subject = word.rpartition(".")
        host = host or "client"
        now += 0.25
        clocks[host] = 1 if subject == "restarted" else clocks[host] + 1
        event: Event = {
            "uuid": "u",
            "type": "task-revoked" if subject == "terminated" else f"task-{subject}",
            "hostname": "gen9@client" if host == "client" else f"{host}@host",
            "timestamp": BEGAN_AT + now + (0.0 if host == "b" else skew),
            "clock": clocks[host],
            "pid": PIDS[host],
        }
        if subject == "restarted":
            del event["uuid"]
            event |= {"type": "worker-online", "freq": 2.0, "active": 0, "processed": 0}
        elif subject in ("sent", "received"):
            event |= {"name": "n", "root_id": "u", "parent_id": None, "retries": int(retries or 0)}
        elif subject in ("failed", "retried"):
            event["exception"] = f"E({clocks[host]})"
        elif subject in ("revoked", "terminated"):
            event["terminated"] = subject == "terminated"
        made.append((now, event))
    return made


def reduced(made: Arrivals) -> tuple[dict[str, Any], list[int]]:
    """Return the task with all its attempts, and its counts."""
    tasks, workers = TaskTable(), WorkerTable(has_clusters=False)
    for now, event in made:
        arrived = BEGAN_AT + now
        process = workers.on_event(event, now, arrived)
        for gone, reason, successor in workers.find_gone(now):
            tasks.mark_lost(gone, reason, arrived, successor)
        tasks.join(dict(event), now, process, arrived)
    reader = ActivityReader(tasks.activity, 86_400.0)
    for _ in reader.read(BEGAN_AT + made[-1][0]):
        pass
    record = tasks.get("u")
    assert record is not None
    shown = json.loads(view(record.task, record.child_ids, record.kept()))
    return shown, [reader.total[kind] for kind in KINDS]


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("story", STORIES)
def test_an_event_that_arrives_twice_changes_nothing(story: str, skew: float) -> None:
    once = arrivals(story, skew)
    expected = reduced(once)
    for first, (_, event) in enumerate(once):
        if "uuid" not in event:
            continue
        for last in range(first, len(once)):
            is_at_end = last == len(once) - 1
            for seconds in (0.01, 700.0) if is_at_end else (0.01,):
                again = (once[last][0] + seconds, event)
                found = reduced([*once[: last + 1], again, *once[last + 1 :]])
                assert found == expected, (event["type"], first, last, seconds)


def test_a_task_has_few_marks_of_its_events() -> None:
    tasks, workers = TaskTable(), WorkerTable(has_clusters=False)
    for now, event in arrivals("a.received " + "a.started a.failed " * 50, 7200.0):
        tasks.join(event, now, workers.on_event(event, now, BEGAN_AT + now), BEGAN_AT + now)
    record = tasks.get("u")
    assert record is not None
    assert max(len(attempt.marks) for attempt in record.kept()) <= MAX_MARKS_BYTES


def test_events_without_time_and_counter_are_not_taken_for_the_same() -> None:
    nameless = {"timestamp": 0, "clock": 0}
    made = [(now, event | nameless) for now, event in arrivals(STORIES[9].replace("b.", "a."), 0.0)]
    assert reduced(made)[1][:3] == [2, 2, 1]
