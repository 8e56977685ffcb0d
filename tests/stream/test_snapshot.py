"""Streams that begin with a snapshot: first the state, then the events, nothing missing and nothing twice.

The state is computed from a snapshot and the events after it, and compared with the state from the full
history: for every task, at the position of the snapshot and at the end.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.events.event import Event
from celery_gateway.events.filter_parser import parse
from celery_gateway.state.scan import Scan
from celery_gateway.state.task_table import TaskTable
from tests.support.gateway_process import GatewayProcess
from tests.support.load import Load, position, states
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, received, task_event
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.thorough import tries
from tests.support.transports import KINDS, Message, Server, messages


@pytest.fixture(scope="module", params=["direct", "portable"])
def server(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[Server]:
    server = (GatewayProcess if request.param == "direct" else PortableServer)(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def publish(broker_url: str, event: Message) -> None:
    publisher = Publisher(broker_url)
    publisher.send(event)
    publisher.close()


def check(seen: list[Message], history: list[Message], name: str = "") -> None:
    """Compare a stream that has a snapshot with the history of all events."""
    opened, *rest = seen
    assert (opened["type"], opened["resume"]) == ("gateway-open", "live")
    (last,) = [at for at, message in enumerate(rest) if message.get("done")]
    pages, events = rest[: last + 1], rest[last + 1 :]
    assert {page["type"] for page in pages} == {"gateway-snapshot"}
    begin = position(pages[-1])
    wanted = [event for event in history if event.get("name", "").startswith(name)]
    given = {task["uuid"]: task["state"] for page in pages for task in page["tasks"]}
    assert given == states([event for event in wanted if position(event) <= begin])
    assert not any(message["type"].startswith("gateway-") for message in events)
    assert [event["id"] for event in events] == [event["id"] for event in wanted if position(event) > begin]
    assert given | states(events) == states(wanted)


def collect(server: Server, kind: str, query: dict[str, str], end: str, into: list[Message]) -> None:
    for message in messages(server, kind, query):
        if message["type"] == end:
            return
        if message["type"] != "gateway-bookmark" and "type" in message:
            into.append(message)


def test_a_snapshot_and_its_events_equal_the_history_at_any_moment_under_load(
    server: Server, broker: str
) -> None:
    dice = random.Random(7)
    mark = f"load-ended-{time.time_ns()}"
    with NdjsonStream(server.url) as everything:
        load = Load(broker, 1_500, seed=7)
        load.start()
        streams: list[tuple[str, list[Message], threading.Thread]] = []
        try:
            for number in range(15):
                time.sleep(dice.uniform(0.05, 0.4))  # at random moments
                kind = KINDS[number % 3]
                name = "a." if number % 2 else ""
                query = {"snapshot": "1"} | ({"name": "a.*", "type": "task-*"} if name else {})
                seen: list[Message] = []
                # The mark does not match a filter on names, so these streams are cut at the end.
                thread = threading.Thread(target=collect, args=(server, kind, query, mark, seen), daemon=True)
                thread.start()
                streams.append((name, seen, thread))
        finally:
            load.end()
        for _, seen, _ in streams:
            assert wait_for(lambda seen=seen: any(message.get("done") for message in seen), 20)
        publish(broker, {"type": mark})
        history = everything.until(lambda events: bool(events) and events[-1]["type"] == mark, 60)
        history = [event for event in history if event["type"] != mark]
        assert not any(event["type"].startswith("gateway-") for event in history)
        final = max(position(event) for event in history if event.get("name", "").startswith("a."))
        for name, seen, thread in streams:
            if not name:
                thread.join(30)
                assert not thread.is_alive()
            else:
                assert wait_for(lambda seen=seen: position(seen[-1]) >= final, 30)
            check(list(seen), history, name)


def test_a_large_snapshot_comes_in_pages(broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    publisher = Publisher(broker)
    try:
        tasks = [f"big-{number}" for number in range(5_000)]
        with NdjsonStream(gateway.url, {"type": "filled"}) as client:
            for start in range(0, len(tasks), 50):
                publisher.send([received(uid, "big") for uid in tasks[start : start + 50]])
            publisher.send({"type": "filled"})
            client.until(bool, 30)
        load = Load(broker, 1_000, seed=8)
        load.start()
        try:
            seen = []
            for message in messages(gateway, "ndjson", {"snapshot": "1", "name": "big"}):
                seen.append(message)
                publisher.send(task_event("task-started", tasks[len(seen) % len(tasks)]))
                if message.get("done"):
                    break
        finally:
            load.end()
        pages = seen[1:]
        assert len(pages) > 10
        assert {task["uuid"] for page in pages for task in page["tasks"]} == set(tasks)
        assert not any(page["done"] for page in pages[:-1])
        assert max(len(page["tasks"]) for page in pages) <= 200
    finally:
        publisher.close()
        gateway.stop()


def test_a_resumed_stream_has_no_snapshot_unless_it_was_cut_within_its_snapshot(
    server: Server, broker: str
) -> None:
    publisher = Publisher(broker)
    try:
        publisher.send([received(f"resumed-{number}", "resumed") for number in range(300)])
        stream = messages(server, "ndjson", {"snapshot": "1", "name": "resumed"})
        deadline = time.monotonic() + 10
        opened = next(stream)
        pages = [next(stream)]
        while not pages[-1]["done"] and time.monotonic() < deadline:
            pages.append(next(stream))
        stream.close()
        for id, resume in ((pages[-1]["id"], "resumed"), (opened["id"], "reset")):
            stream = messages(server, "ndjson", {"snapshot": "1", "last_event_id": id})
            assert next(stream)["resume"] == resume
            publisher.send(task_event("task-started", "resumed-1"))
            kinds = []
            for message in stream:
                kinds.append(message["type"])
                if message.get("done") or message["type"] == "task-started":
                    break
            assert ("gateway-snapshot" in kinds) == (resume == "reset")
            stream.close()
    finally:
        publisher.close()


def test_events_and_tasks_have_only_the_requested_fields(server: Server, broker: str) -> None:
    publisher = Publisher(broker)
    try:
        uid = f"fields-{time.time_ns()}"
        query = {"fields": "state,name", "uuid": uid, "snapshot": "1"}
        publisher.send(received(uid, "some"))
        with NdjsonStream(server.url, {"uuid": uid, "since": "1m"}) as there:
            there.until(bool)
        for kind in KINDS:
            stream = messages(server, kind, query)
            next(stream)
            snapshot = next(stream)
            assert [set(task) for task in snapshot["tasks"]] == [{"uuid", "name", "state"}]
            publisher.send(task_event("task-progress", uid, current=1, total=2))
            assert set(next(stream)) == {"id", "type", "name", "state"}
            with suppress(GeneratorExit):
                stream.close()
    finally:
        publisher.close()


def test_a_snapshot_of_a_queue_is_followed_by_all_events_of_its_tasks(server: Server, broker: str) -> None:
    """The other events of a task have no queue: without them its state would stay PENDING."""
    publisher = Publisher(broker)
    try:
        uid, queue = f"queue-{time.time_ns()}", f"q-{time.time_ns()}"
        sent = {"type": "task-sent", "hostname": "gen1@host", "queue": queue, "retries": 0}
        publisher.send(received(uid, "queued") | sent)
        assert wait_for(lambda: httpx.get(f"{server.url}/tasks/{uid}").status_code == 200, 20)
        stream = messages(server, "ndjson", {"queue": queue, "snapshot": "1"})
        assert next(stream)["type"] == "gateway-open"
        tasks: list[Message] = []
        while not (page := next(stream))["done"]:
            tasks += page["tasks"]
        tasks += page["tasks"]
        assert [(task["uuid"], task["state"]) for task in tasks] == [(uid, "PENDING")]
        publisher.send(received("another", "queued"), received(uid, "queued"))
        publisher.send(task_event("task-started", uid), task_event("task-failed", uid))
        assert [next(stream)["state"] for _ in range(3)] == ["RECEIVED", "STARTED", "FAILURE"]
        found = httpx.get(f"{server.url}/tasks", params={"queue": queue}).json()["tasks"]
        assert [(task["uuid"], task["state"]) for task in found] == [(uid, "FAILURE")]
    finally:
        publisher.close()


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("snapshot=yes", "snapshot"), ("snapshot=1&snapshot=1", "snapshot"), ("fields=", "fields"),
     ("fields=a,,b", "fields"), ("fields=" + "a," * 100 + "a", "fields")],
)  # fmt: skip
def test_invalid_values_are_refused(server: Server, query: str, parameter: str) -> None:
    answer = httpx.get(f"{server.url}/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["parameter"] == parameter


# --------------------------------------------------------------------------- the scan, at every interleaving

_EVENTS = st.tuples(
    st.integers(0, 30), st.sampled_from(["received", "started", "progress", "succeeded", "retried", "known"])
)
_QUERIES = st.sampled_from(
    [
        {},
        {"name": ["a*"]},
        {"state": ["STARTED"]},
        {"uuid": ["3", "5"]},
        {"root_id": ["r1"]},
        {"parent_id": ["2"]},
    ]
)


@settings(deadline=None, max_examples=tries(300))
@given(
    query=_QUERIES,
    steps=st.lists(_EVENTS | st.integers(1, 12), max_size=120),
    bound=st.sampled_from([12, 1000]),
)
def test_a_scan_returns_all_matching_tasks_as_of_its_end(
    query: dict[str, list[str]], steps: list[Any], bound: int
) -> None:
    """In the steps, a number is a read of so many records; the others are events. Tasks are evicted, too."""
    tasks = TaskTable(max_tasks=bound)
    filter = parse(query)
    clock = count(1)
    scan = Scan(tasks, filter)
    given: dict[str, tuple[str | None, ...]] = {}

    def happen(number: int, kind: str) -> None:
        if kind == "known":  # a name that a worker has reported
            tasks.set_name(str(number), "ab"[number % 2], 0.0)
            return
        event: Event = {"type": f"task-{kind}", "uuid": str(number), "timestamp": float(next(clock))}
        if kind == "received":
            event |= {"name": "ab"[number % 2], "root_id": f"r{number % 3}", "parent_id": str(number // 4)}
        for _ in tasks.join(event, 0.0):
            pass

    for number in range(20):
        happen(number, "received")
    for step in [*steps, *[50] * 10]:
        if isinstance(step, tuple):
            happen(*step)
            continue
        records, done = scan.read(step)
        given |= {record.task.uuid: record.task.keys() for record in records}
        if done:
            known = {record.task.uuid: record.task.keys() for record in tasks.newest()}
            wanted = {uuid: keys for uuid, keys in known.items() if filter.matches(keys)}
            still_known = {uuid: keys for uuid, keys in given.items() if uuid in known}
            assert {uuid: keys for uuid, keys in still_known.items() if filter.matches(keys)} == wanted
            assert all(known[uuid] == keys for uuid, keys in still_known.items())
            return
    raise AssertionError("the scan did not end, though there were no more events")
