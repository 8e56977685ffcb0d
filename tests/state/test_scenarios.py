"""The four scenarios of a task's life, from Celery's events through the gateway.

Each walk is made by a real worker on a real broker. What the gateway streams is compared with what a raw
consumer recorded of the wire; the states are written out.
"""

from uuid import uuid4

import pytest
from celery import Celery, chain

from tests.support.stream_client import (
    EventStream,
    StreamFactory,
    assert_delivered,
    assert_states,
    delivered,
    one,
)
from tests.support.web import WebServer
from tests.support.wire import EventFields, Wire

pytestmark = pytest.mark.usefixtures("gateway", "worker")

FINISHED = ("task-sent", "task-succeeded")
SUCCESS = (
    ("task-sent", "PENDING"),
    ("task-received", "RECEIVED"),
    ("task-started", "STARTED"),
    ("task-succeeded", "SUCCESS"),
)


def test_chain_from_a_client(celery: Celery, wire: Wire, stream: StreamFactory, web: WebServer) -> None:
    root, pages = str(uuid4()), len(web.stored)
    everything, workflow, extracts = stream(), stream(root_id=root), stream(name="walks.extract_*")

    walk = chain(
        celery.signature("walks.visit", (web.page_url,)).set(task_id=root),
        celery.signature("walks.extract_data_from_html"),
        celery.signature("walks.store_data", (web.store_url,)),
        app=celery,
    )
    celery.send_task("canvas.add", (1, 2))  # somebody else's, on the same worker
    store = walk.apply_async()
    extract = store.parent
    assert extract.parent.id == root

    uuids = root, extract.id, store.id
    tasks = {uuid: delivered(wire, everything, uuid, *FINISHED) for uuid in uuids}
    names = "walks.visit", "walks.extract_data_from_html", "walks.store_data"
    parents = None, root, extract.id
    for events, name, parent in zip(tasks.values(), names, parents, strict=True):
        assert_states(events, *SUCCESS)
        assert_kinship(events, name, root, parent)
    assert web.stored[pages:] == [{"title": "Bücher", "links": ["/one", "/two"]}]

    assert_gets_exactly(workflow, wire, *tasks)
    assert_gets_exactly(extracts, wire, extract.id)
    assert {"task-started", "task-succeeded"} <= {event["type"] for event in extracts.events}


def test_chain_inside_a_task(celery: Celery, wire: Wire, stream: StreamFactory, web: WebServer) -> None:
    root = str(uuid4())
    everything, workflow = stream(), stream(root_id=root)
    finished = stream(name="walks.*", type="task-succeeded")

    celery.send_task("walks.crawl", (web.page_url, web.store_url), task_id=root)

    seen = wire.until(lambda events: len(uuids_of(root, events)) == 4)
    tasks = {uuid: delivered(wire, everything, uuid, *FINISHED) for uuid in uuids_of(root, seen)}
    visit = uuid_of(seen, root, "walks.visit")
    extract = uuid_of(seen, root, "walks.extract_data_from_html")
    store = uuid_of(seen, root, "walks.store_data")
    for events in tasks.values():
        assert_states(events, *SUCCESS)
    assert_kinship(tasks[root], "walks.crawl", root, None)
    assert_kinship(tasks[visit], "walks.visit", root, root)
    assert_kinship(tasks[extract], "walks.extract_data_from_html", root, visit)
    assert_kinship(tasks[store], "walks.store_data", root, extract)

    assert_gets_exactly(workflow, wire, *tasks)
    finished.until(lambda events: len(events) >= 4)
    assert [event["name"] for event in finished.of(*tasks)].count("walks.crawl") == 1
    assert {event["uuid"] for event in finished.events} == set(tasks)


def test_retried_three_times_then_failed(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything = stream()

    task = celery.send_task("walks.flaky")

    events = delivered(wire, everything, task.id, *["task-sent"] * 4, "task-failed")
    retried = (("task-received", "RECEIVED"), ("task-started", "STARTED"), ("task-retried", "RETRY"))
    failed = (("task-received", "RECEIVED"), ("task-started", "STARTED"), ("task-failed", "FAILURE"))
    assert_states_of_attempts(events, retried, retried, retried, failed)
    assert sorted(event["retries"] for event in events if event["type"] == "task-sent") == [0, 1, 2, 3]
    assert {event["exception"] for event in events if "exception" in event} == {
        "ConnectionError('the service is away')"
    }
    # On the wire a retried task is its own parent; what the gateway adds does not say so.
    assert {event["parent_id"] for event in events if event["type"] == "task-started"} == {None}
    assert {event["name"] for event in events} == {"walks.flaky"}
    assert {event["root_id"] for event in events} == {task.id}


def test_rejected_without_requeue(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything = stream()

    task = celery.send_task("walks.refuse")

    events = delivered(wire, everything, task.id, "task-sent", "task-rejected")
    if "task-failed" in {event["type"] for event in wire.of(task.id)}:
        assert_states(
            events,
            ("task-sent", "PENDING"),
            ("task-received", "RECEIVED"),
            ("task-started", "STARTED"),
            ("task-failed", "FAILURE"),
            ("task-rejected", "FAILURE"),
        )
    else:  # Celery up to 5.6
        assert_states(
            events,
            ("task-sent", "PENDING"),
            ("task-received", "RECEIVED"),
            ("task-started", "STARTED"),
            ("task-rejected", "REJECTED"),
        )
    assert one(events, "task-rejected")["requeue"] is False
    assert_kinship(events, "walks.refuse", task.id, None)


def test_expired_while_it_retries(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, ends = stream(), stream(type="task-revoked", name="walks.late", state="REVOKED")

    # The retry is received at once and waits for its eta in the worker, where it expires: were it still in
    # the queue, the broker would drop it without an event.
    task = celery.send_task("walks.late", (0.7,), expires=0.6)

    events = delivered(wire, everything, task.id, "task-sent", "task-sent", "task-revoked")
    assert_states_of_attempts(
        events,
        (("task-received", "RECEIVED"), ("task-started", "STARTED"), ("task-retried", "RETRY")),
        (("task-received", "RECEIVED"), ("task-revoked", "REVOKED")),
    )
    revoked = one(events, "task-revoked")
    assert revoked["expired"] is True and revoked["terminated"] is False
    assert {event["name"] for event in events} == {"walks.late"}
    assert_gets_only(ends, wire, task.id, "task-revoked")


def test_late_events_do_not_move_a_state_back_and_a_second_task_sent_begins_a_run(
    celery: Celery, wire: Wire, stream: StreamFactory
) -> None:
    """The events of two publishers may overtake each other; here they do."""
    everything, uuid = stream(), str(uuid4())
    named = {"uuid": uuid, "name": "walks.any", "root_id": uuid, "parent_id": None, "retries": 0}

    with celery.events.default_dispatcher() as dispatcher:
        dispatcher.send("task-received", **named)
        dispatcher.send("task-succeeded", uuid=uuid, result="1", runtime=0.5)
        dispatcher.send("task-progress", uuid=uuid, current=1)
        dispatcher.send("task-sent", **named)
        dispatcher.send("task-rejected", uuid=uuid, requeue=False)
        dispatcher.send("task-sent", **named)

    events = delivered(wire, everything, uuid, "task-sent", "task-sent")
    assert [(event["type"], event["state"]) for event in events] == [
        ("task-received", "RECEIVED"),
        ("task-succeeded", "SUCCESS"),
        ("task-progress", "SUCCESS"),
        ("task-sent", "SUCCESS"),
        ("task-rejected", "SUCCESS"),
        ("task-sent", "PENDING"),
    ]
    assert {event["attempt"] for event in events} == {1}


def assert_states_of_attempts(events: list[EventFields], *attempts: tuple[tuple[str, str], ...]) -> None:
    """Each attempt had its steps, in their order.

    The order between attempts is the wire's: a worker may receive the retry before it reports that the
    attempt before was started and retried. An event of an attempt that another one follows leaves the state.
    """
    happened = [(event["type"], event["attempt"], event["state"]) for event in events]
    for number, steps in enumerate(attempts, 1):
        types = [type for type, attempt, _ in happened if attempt == number and type != "task-sent"]
        assert types == [type for type, _ in steps], f"attempt {number} of {happened}"
    states = {(type, n): state for n, steps in enumerate(attempts, 1) for type, state in steps}
    current, before = 0, None
    for type, attempt, state in happened:
        if type == "task-sent":
            assert state == (before or "PENDING"), happened
        else:
            current = max(current, attempt)
            assert state == (states[type, attempt] if attempt == current else before), happened
        before = state


def assert_kinship(events: list[EventFields], name: str, root: str, parent: str | None) -> None:
    assert {(e["name"], e["root_id"], e["parent_id"]) for e in events} == {(name, root, parent)}


def assert_gets_exactly(client: EventStream, wire: Wire, *uuids: str) -> None:
    """Check that the stream has all events of these tasks, each task's in the wire's order, and no others."""
    client.until(lambda events: len(events) >= len(wire.of(*uuids)))
    assert {event.get("uuid") for event in client.events} == set(uuids)
    for uuid in uuids:
        assert_delivered(client.of(uuid), wire.of(uuid))


def assert_gets_only(client: EventStream, wire: Wire, uuid: str, type: str) -> None:
    client.until(bool)
    assert_delivered(client.events, [event for event in wire.of(uuid) if event["type"] == type])


def uuids_of(root: str, events: list[EventFields]) -> list[str]:
    return list(dict.fromkeys(event["uuid"] for event in events if event.get("root_id") == root))


def uuid_of(events: list[EventFields], root: str, name: str) -> str:
    return next(str(e["uuid"]) for e in events if e.get("root_id") == root and e["name"] == name)
