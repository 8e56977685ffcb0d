"""Streams that begin with a snapshot: what is, then what changes, with nothing missing and nothing twice.

The state is rebuilt from a snapshot and the events behind it, and compared with what the full history says:
of every task, at the snapshot's own position and at the end.
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

from gateway.event import Event
from gateway.filter import parse
from gateway.scan import Scan
from gateway.tasks import Tasks
from tests.gateway_process import GatewayProcess
from tests.load import Load, position, states
from tests.portable_server import PortableServer
from tests.publisher import Publisher, received, task_event
from tests.rabbitmq import wait_for
from tests.stream_client import NdjsonStream
from tests.transports import KINDS, Message, Server, messages


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
    """Compare a stream with a snapshot to the history of all that was ever published."""
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


def test_snapshot_and_events_make_up_the_history_at_any_moment_under_load(
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
                time.sleep(dice.uniform(0.05, 0.4))  # the moments are what is tried
                kind = KINDS[number % 3]
                name = "a." if number % 2 else ""
                query = {"snapshot": "1"} | ({"name": "a.*", "type": "task-*"} if name else {})
                seen: list[Message] = []
                # The mark passes no filter on names, so those streams are cut in the end.
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


def test_a_big_snapshot_comes_in_pages_and_each_task_as_it_is_in_the_end(broker: str, folder: Path) -> None:
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


def test_a_stream_that_is_resumed_has_no_snapshot_and_one_cut_off_amid_it_has_another(
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


def test_only_some_fields_of_events_and_of_tasks(server: Server, broker: str) -> None:
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


def test_a_snapshot_of_a_queue_goes_on_with_all_events_of_its_tasks(server: Server, broker: str) -> None:
    """CASES.md A20: it would stay PENDING, if only `task-sent` were of the queue."""
    publisher = Publisher(broker)
    try:
        uid, queue = f"queue-{time.time_ns()}", f"q-{time.time_ns()}"
        sent = {"type": "task-sent", "hostname": "gen1@host", "queue": queue, "retries": 0}
        publisher.send(received(uid, "queued") | sent)
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
def test_bad_values_are_refused(server: Server, query: str, parameter: str) -> None:
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


@settings(deadline=None, max_examples=300)
@given(
    query=_QUERIES,
    steps=st.lists(_EVENTS | st.integers(1, 12), max_size=120),
    bound=st.sampled_from([12, 1000]),
)
def test_a_scan_gives_all_that_matches_as_of_the_moment_it_ends(
    query: dict[str, list[str]], steps: list[Any], bound: int
) -> None:
    """Numbers in the steps are reads of so many records, the rest are events; tasks are also evicted."""
    tasks = Tasks(max_tasks=bound)
    filter = parse(query)
    clock = count(1)
    scan = Scan(tasks, filter)
    given: dict[str, tuple[str | None, ...]] = {}

    def happen(number: int, kind: str) -> None:
        if kind == "known":  # told by a worker that was asked
            tasks.know(str(number), "ab"[number % 2], 0.0)
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
        records, done = scan.take(step)
        given |= {record.task.uuid: record.task.keys() for record in records}
        if done:
            known = {record.task.uuid: record.task.keys() for record in tasks.newest()}
            wanted = {uuid: keys for uuid, keys in known.items() if filter.matches(keys)}
            still_known = {uuid: keys for uuid, keys in given.items() if uuid in known}
            assert {uuid: keys for uuid, keys in still_known.items() if filter.matches(keys)} == wanted
            assert all(known[uuid] == keys for uuid, keys in still_known.items())
            return
    raise AssertionError("the scan did not come to an end though nothing happened any more")
