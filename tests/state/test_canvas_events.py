"""Links, groups, chords, delays, custom events, revokes and large or odd contents, from worker to stream.

A raw consumer records what Celery has sent; the gateway has to stream exactly that.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import time
from uuid import uuid4

import pytest
from celery import Celery, chord, group

from tests.support.celery_app import UNKNOWN_PLACE
from tests.support.gateway_process import GatewayProcess
from tests.support.stream_client import (
    EventStream,
    NdjsonStream,
    SseStream,
    StreamFactory,
    assert_delivered,
    assert_states,
    delivered,
    one,
)
from tests.support.wire import EventFields, Wire
from tests.support.worker import Worker

# The stream first: it needs the `worker-online` of the worker.
pytestmark = pytest.mark.usefixtures("live", "worker")

FINISHED = ("task-sent", "task-succeeded")
SUCCESS = (
    ("task-sent", "PENDING"),
    ("task-received", "RECEIVED"),
    ("task-started", "STARTED"),
    ("task-succeeded", "SUCCESS"),
)


@pytest.fixture(scope="module")
def live(gateway: GatewayProcess) -> Iterator[EventStream]:
    with NdjsonStream(gateway.url) as client:
        yield client


def test_link(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, linked = stream(), str(uuid4())

    link = celery.signature("canvas.add", (10,)).set(task_id=linked)
    task = celery.send_task("canvas.add", (1, 2), link=link)

    for uuid in (task.id, linked):
        assert_states(delivered(wire, everything, uuid, *FINISHED), *SUCCESS)
    assert kinship(everything.of(linked)) == {("canvas.add", task.id, task.id)}
    assert one(everything.of(linked), "task-succeeded")["result"] == "13"


@pytest.mark.parametrize("delay", ["countdown", "eta"])
def test_delayed(celery: Celery, wire: Wire, stream: StreamFactory, delay: str) -> None:
    everything = stream()
    eta = datetime.now(UTC) + timedelta(seconds=0.2)

    task = celery.send_task("canvas.add", (1, 2), **({"eta": eta} if delay == "eta" else {"countdown": 0.2}))

    latest_eta = datetime.now(UTC) + timedelta(seconds=0.2)
    events = delivered(wire, everything, task.id, *FINISHED)
    assert_states(events, *SUCCESS)
    etas = [datetime.fromisoformat(event["eta"]) for event in events if "eta" in event]
    assert len(etas) == 2 and all(eta <= time <= latest_eta for time in etas)


def test_expires_in_time(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything = stream()

    task = celery.send_task("canvas.add", (1, 2), expires=60)

    events = delivered(wire, everything, task.id, *FINISHED)
    assert_states(events, *SUCCESS)
    assert all(datetime.fromisoformat(event["expires"]) for event in events if "expires" in event)


def test_group(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, adds = stream(), stream(name="canvas.add", type="task-succeeded")

    members = group([celery.signature("canvas.add", (i, i)) for i in range(3)], app=celery).apply_async()

    for member in members:
        assert_states(delivered(wire, everything, member.id, *FINISHED), *SUCCESS)
        # Started from a client, each is a workflow of its own.
        assert kinship(everything.of(member.id)) == {("canvas.add", member.id, None)}
    adds.until(lambda events: len(events) >= 3)
    assert {event["uuid"] for event in adds.events} == {member.id for member in members}
    assert {event["result"] for event in adds.events} == {"0", "2", "4"}


def test_chord(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything = stream()

    header = [celery.signature("canvas.add", (i, i)) for i in range(3)]
    body = chord(header, app=celery)(celery.signature("canvas.total"))

    for member in body.parent:
        assert_states(delivered(wire, everything, member.id, *FINISHED), *SUCCESS)
    events = delivered(wire, everything, body.id, *FINISHED)
    assert_states(events, *SUCCESS)
    assert one(events, "task-succeeded")["result"] == "6"
    # With this result backend a task of Celery's own waits for the header by retrying; the body is its child.
    (unlock,) = {event["parent_id"] for event in events}
    assert {event["name"] for event in everything.of(unlock)} == {"celery.chord_unlock"}


def test_progress_inside_a_task(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, progress = stream(), stream(state="PROGRESS", name="canvas.progress")

    task = celery.send_task("canvas.progress", (3,))

    # The pool's process sends its events on a connection of its own, the worker the rest.
    events = delivered(wire, everything, task.id, *FINISHED, *["task-progress"] * 3)
    assert_states(
        events,
        ("task-sent", "PENDING"),
        ("task-received", "RECEIVED"),
        ("task-started", "STARTED"),
        ("task-progress", "PROGRESS"),
        ("task-progress", "PROGRESS"),
        ("task-progress", "PROGRESS"),
        ("task-succeeded", "SUCCESS"),
        late=("task-sent", "task-started", "task-progress"),
    )
    steps = [(e["current"], e["total"]) for e in events if e["type"] == "task-progress"]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert kinship(events) == {("canvas.progress", task.id, None)}
    expected = [event for event in events if event["state"] == "PROGRESS"]
    progress.until(lambda seen: len(seen) >= len(expected))
    assert progress.events == expected


def test_custom_events_from_a_client(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, orders = stream(), stream(type="order-*")
    task = celery.send_task("canvas.add", (1, 2))
    delivered(wire, everything, task.id, *FINISHED)

    with celery.events.default_dispatcher() as dispatcher:
        dispatcher.send("task-updated", uuid=task.id, status="archived")
        dispatcher.send(
            "order-shipped", id="order-17", name="Ωmega", weight_kg=1.0, lines=[{}, None], ok=True
        )

    updated = one(delivered(wire, everything, task.id, "task-updated"), "task-updated")
    assert (updated["status"], updated["state"], updated["name"]) == ("archived", "SUCCESS", "canvas.add")
    orders.until(bool)
    wire.until(lambda events: any(event["type"] == "order-shipped" for event in events))
    order = one(orders.events, "order-shipped")
    assert_delivered(orders.events, [event for event in wire.events if event["type"] == "order-shipped"])
    assert order["fields"] == {"id": "order-17"} and order["id"] != "order-17"
    assert (order["name"], order["ok"]) == ("Ωmega", True)


def test_events_of_an_unnamed_task(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    """They wait until the task is named; if no event names it, they are streamed without names.

    The events of the named task have no counter (`blind`), so their process's clock gives their order.
    """
    everything, named, unnamed = stream(), str(uuid4()), str(uuid4())
    now = time()
    known = {"uuid": named, "name": "canvas.any", "root_id": named, "parent_id": None, "retries": 0}

    with celery.events.default_dispatcher() as dispatcher:
        dispatcher.send("task-updated", uuid=unnamed, status="who?")
        dispatcher.send("task-started", blind=True, uuid=named, timestamp=now)
        dispatcher.send("task-received", blind=True, timestamp=now - 0.1, **known)

    events = delivered(wire, everything, named, "task-received")
    assert [(event["type"], event["state"]) for event in events] == [
        ("task-started", "STARTED"),
        ("task-received", "STARTED"),
    ]
    assert kinship(events) == {("canvas.any", named, None)}
    (event,) = delivered(wire, everything, unnamed, "task-updated", timeout_seconds=5)
    assert kinship([event]) == {(None, None, None)} and event["state"] == "UPDATED"


def test_revoked_while_it_runs(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything = stream()
    task = celery.send_task("canvas.forever")
    delivered(wire, everything, task.id, "task-sent", "task-started")

    task.revoke(terminate=True)

    events = delivered(wire, everything, task.id, "task-revoked")
    assert_states(
        events,
        ("task-sent", "PENDING"),
        ("task-received", "RECEIVED"),
        ("task-started", "STARTED"),
        ("task-revoked", "REVOKED"),
    )
    revoked = one(events, "task-revoked")
    assert revoked["terminated"] is True and revoked["expired"] is False


def test_failure_with_non_ascii_text_and_traceback(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, failures = stream(), stream(format="sse", type="task-failed", name="canvas.fail")

    task = celery.send_task("canvas.fail")

    events = delivered(wire, everything, task.id, "task-sent", "task-failed")
    assert_states(events, *SUCCESS[:3], ("task-failed", "FAILURE"))
    failed = one(events, "task-failed")
    assert failed["exception"] == f"LookupError({UNKNOWN_PLACE!r})"
    assert failed["traceback"].startswith("Traceback (most recent call last):\n")
    assert failed["traceback"].endswith(f"LookupError: {UNKNOWN_PLACE}\n")
    failures.until(bool)
    assert failures.events == [failed]


def test_result_of_200_kb(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    everything, sse = stream(), stream(format="sse", name="canvas.big")

    task = celery.send_task("canvas.big", (200_000,))

    events = delivered(wire, everything, task.id, *FINISHED)
    assert_states(events, *SUCCESS)
    assert one(events, "task-succeeded")["result"] == repr("x" * 200_000)
    sse.until(lambda seen: len(seen) >= len(events))
    assert sse.events == events


def test_sse_carries_the_same_objects(celery: Celery, wire: Wire, stream: StreamFactory) -> None:
    lines, sse = stream(), stream(format="sse")
    assert isinstance(sse, SseStream)

    task = celery.send_task("canvas.progress", (2,))

    types = *FINISHED, "task-progress", "task-progress"
    assert delivered(wire, sse, task.id, *types) == delivered(wire, lines, task.id, *types)
    assert sse.response.headers["content-type"].startswith("text/event-stream")
    assert lines.response.headers["content-type"].startswith("application/x-ndjson")
    opened, *frames = sse.frames
    assert opened.event == "gateway-open" and sse.opened["resume"] == lines.opened["resume"] == "live"
    assert {frame.event for frame in frames} == {"message"}, "onmessage has to get every Celery event"
    assert [frame.id for frame in frames] == [event["id"] for event in sse.events]


def test_nothing_was_lost_or_changed(wire: Wire, live: EventStream, worker: Worker) -> None:
    """All events of the tests above, and the worker's own, on a stream that was opened before the worker."""
    assert_holds(live, wire)
    assert one(live.events, "worker-online")["hostname"] == worker.hostname


def assert_holds(client: EventStream, wire: Wire) -> None:
    """Check that the stream has each task's and each worker's events in the wire's order, and no others."""
    sent = wire.events
    counts = Counter(map(publisher, sent))
    received = client.until(lambda events: counts <= Counter(map(publisher, events)))
    wire.until(lambda events: Counter(map(publisher, received)) <= Counter(map(publisher, events)))
    for key, count in counts.items():
        theirs = [event for event in sent if publisher(event) == key]
        assert_delivered([event for event in received if publisher(event) == key][:count], theirs)
    ids = [event["id"] for event in received]
    assert len(set(ids)) == len(ids)


def kinship(events: list[EventFields]) -> set[tuple[str | None, str | None, str | None]]:
    return {(event["name"], event["root_id"], event["parent_id"]) for event in events}


def publisher(event: EventFields) -> str:
    """Return the task of an event, or else its worker: the order is kept for each of them."""
    return str(event.get("uuid") or event["hostname"])
