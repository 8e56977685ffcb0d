"""Endpoints for state: `/tasks`, `/tasks/{uuid}`, `/workflows/{root_id}`, `/workers`.

Most tests call the application in the event loop that also processes the events. The last ones use a gateway
with a broker and a worker.
"""

import asyncio
import gc
import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import celery as celery_package
import httpx
import pytest
from celery import Celery, chain

from celery_gateway.http.state_tasks import MAX_PAGE_BYTES
from celery_gateway.state.task import VIEW_FIELDS
from celery_gateway.state.worker import WORKER_FIELDS
from celery_gateway.state.worker_status import SILENT_SECONDS
from tests.support.cpu_time import scaled
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import wait_for
from tests.support.state_gateway import (
    Event,
    StateGateway,
    clock,
    content,
    fetch,
    heartbeat,
    known,
    served,
    step,
    uuids,
)
from tests.support.stream_client import NdjsonStream
from tests.support.worker import Worker

MANY = 50_000
EVENTS_PER_SECOND = 2_000

# -------------------------------------------------------------------------------------------- a task


async def test_a_task_has_all_fields() -> None:
    gateway = StateGateway()
    gateway.put(known("a", args="(1,)"), known("b", "a", parent_id="a"), step("started", "a"))
    task = await gateway.get("/tasks/a")
    assert tuple(task) == tuple(field for field in VIEW_FIELDS if field != "cluster")
    assert {key: task[key] for key in ("uuid", "name", "state", "root_id", "worker", "args")} == {
        "uuid": "a",
        "name": "shop.pay",
        "state": "STARTED",
        "root_id": "a",
        "worker": "w1@host",
        "args": "(1,)",
    }
    assert (task["children"], task["stale"]) == (["b"], False)
    assert (await gateway.get("/tasks/b?fields=state,stale")) == {
        "uuid": "b",
        "state": "RECEIVED",
        "stale": False,
    }


async def test_a_404_has_the_reason() -> None:
    gateway = StateGateway(max_tasks=2)
    for uid in "abc":
        gateway.put(known(uid), step("started", uid), step("succeeded", uid))
    assert (await gateway.get_error("/tasks/a", 404))["code"] == "task-evicted"
    assert (await gateway.get_error("/workflows/a", 404))["code"] == "workflow-evicted"
    assert (await gateway.get_error("/tasks/x", 404))["code"] == "task-unknown"
    assert (await gateway.get_error("/workflows/x", 404))["code"] == "workflow-unknown"
    gateway.put(known("d", "c"))
    error = await gateway.get_error("/workflows/d", 404)
    assert (error["code"], error["root_id"]) == ("workflow-unknown", "c")
    assert error["message"] == "workflow 'd' is unknown: the task 'd' belongs to the root 'c'"


async def test_ids_may_have_any_characters() -> None:
    gateway = StateGateway()
    for uid in ("a/b", "50%", "ü ber", "x,y", "!x", "*", "a?b", "a\nb", "\r\n", "a\u2028"):
        gateway.put(known(uid))
        quoted = quote(uid, safe="")
        assert (await gateway.get(f"/tasks/{quoted}"))["uuid"] == uid
        tree = await gateway.get(f"/workflows/{quoted}")
        assert (tree["root_id"], tree["total"]) == (uid, 1)


@pytest.mark.parametrize(
    ("uid", "text"), [(12345, "12345"), (3.5, "3.5"), (True, "true"), (["a"], '["a"]'), (0, "0")]
)
async def test_ids_of_any_json_type_are_found_by_their_text(uid: Any, text: str) -> None:
    gateway = StateGateway()
    gateway.put(known(uid, uid), step("started", uid), step("succeeded", uid, result="1"))
    gateway.put(known("child", parent_id=uid) | {"root_id": uid})
    quoted = quote(text, safe="")
    task = await gateway.get(f"/tasks/{quoted}")
    assert (task["name"], task["state"], task["children"]) == ("shop.pay", "SUCCESS", ["child"])
    assert (await gateway.get(f"/workflows/{quoted}"))["total"] == 2
    assert uuids(await gateway.get(f"/tasks?root_id={quoted}")) == ["child", task["uuid"]]
    assert uuids(await gateway.get(f"/tasks?parent_id={quoted}")) == ["child"]
    assert len(uuids(await gateway.get(f"/tasks?uuid={quoted}"))) == 1


async def test_a_task_is_known_by_a_progress_event_alone() -> None:
    """It started before the gateway."""
    gateway = StateGateway()
    gateway.put(step("progress", "b", name="shop.pay", root_id="r", parent_id="a", current=1, total=4))
    task = await gateway.get("/tasks/b")
    assert (task["name"], task["root_id"], task["parent_id"]) == ("shop.pay", "r", "a")
    assert (task["state"], task["progress"]) == ("PROGRESS", 0.25)
    assert uuids(await gateway.get("/workflows/r")) == ["b"]
    assert uuids(await gateway.get("/tasks?name=shop.*&state=PROGRESS")) == ["b"]


async def test_a_task_of_an_old_protocol_is_its_own_root() -> None:
    """Celery 3.1 sends no root_id."""
    gateway = StateGateway()
    old = known("b")
    del old["root_id"], old["parent_id"]
    gateway.put(old)
    tree = await gateway.get("/workflows/b")
    assert (tree["total"], tree["tasks"][0]["root_id"]) == (1, "b")


# ----------------------------------------------------------------------------------- attempts, brokers


async def test_attempts_of_one_task_and_of_a_list() -> None:
    gateway = StateGateway()
    gateway.put(
        known("a", clock=1),
        step("started", "a", clock=2),
        step("retried", "a", exception="E()", clock=3),
        known("a", retries=1, eta="2026-11-28T16:00:00+00:00", clock=4, hostname="w2@host"),
        step("started", "a", clock=5, hostname="w2@host"),
    )
    task = await gateway.get("/tasks/a")
    first, second = task["attempts"]
    assert [first[key] for key in ("retries", "state", "worker", "pid", "exception", "eta")] == [
        *(0, "RETRY", "w1@host", 1, "E()", None)
    ]
    assert first["received"] < first["started"] < first["ended"]
    assert [second[key] for key in ("retries", "state", "worker", "exception", "ended", "eta")] == [
        *(1, "STARTED", "w2@host", None, None, "2026-11-28T16:00:00+00:00")
    ]
    assert (task["attempt"], task["started"], task["exception"]) == (2, second["started"], None)
    assert (await gateway.get("/tasks/a?fields=attempts")) == {"uuid": "a", "attempts": task["attempts"]}
    assert "attempts" not in await gateway.get("/tasks/a?fields=attempt")
    for path in ("/tasks", "/workflows/a"):
        (whole,) = (await gateway.get(path))["tasks"]
        assert "attempts" not in whole
        (picked,) = (await gateway.get(f"{path}?fields=attempts"))["tasks"]
        assert picked["attempts"] == task["attempts"]


async def test_an_id_of_two_brokers_is_ambiguous() -> None:
    gateway = StateGateway(clusters=("eu", "us"))
    gateway.put(known("a"), step("started", "a"), step("succeeded", "a"), cluster="eu")
    gateway.put(known("only", "a", parent_id="a"), cluster="eu")
    gateway.put(known("a"), cluster="us")
    for path in ("/tasks/a", "/workflows/a"):
        error = await gateway.get_error(path, 409)
        assert (error["code"], error["parameter"], error["allowed"]) == ("ambiguous", "cluster", ["eu", "us"])
        assert (await gateway.get_error(f"{path}?cluster=asia", 404))["code"].endswith("-unknown")
    of_eu, of_us = [await gateway.get(f"/tasks/a?cluster={name}") for name in ("eu", "us")]
    assert [(task["cluster"], task["state"], task["children"]) for task in (of_eu, of_us)] == [
        ("eu", "SUCCESS", ["only"]),
        ("us", "RECEIVED", []),
    ]
    trees = [await gateway.get(f"/workflows/a?cluster={name}") for name in ("eu", "us")]
    assert [(tree["total"], tree["ready"]) for tree in trees] == [(2, 1), (1, 0)]
    assert (await gateway.get("/tasks/only"))["cluster"] == "eu", "one broker has it"
    page = await gateway.get("/tasks?uuid=a")
    assert [task["cluster"] for task in page["tasks"]] == ["us", "eu"]
    assert uuids(await gateway.get("/tasks?root_id=a&cluster=us")) == ["a"]
    assert len(uuids(await gateway.get("/tasks?root_id=a"))) == 3


async def test_endpoints_below_a_sub_path() -> None:
    gateway = StateGateway(root_path="/celery")
    gateway.put(known("a"))
    for path in ("/tasks", "/tasks/a", "/workflows/a", "/workers"):
        assert (await gateway.request(f"/celery{path}")).status_code == 200
        assert (await gateway.request(path)).status_code == 200, "a proxy may have taken the sub-path away"


# ------------------------------------------------------------------------------------------- a list


async def test_a_list_is_newest_first_and_has_the_position_of_the_stream() -> None:
    gateway = StateGateway()
    assert await gateway.get("/tasks") == {
        "tasks": [],
        "cursor": None,
        "id": gateway.pipeline.hub.id.decode(),
    }
    gateway.put(*(known(f"t{n}") for n in range(150)))
    page = await gateway.get("/tasks")
    assert uuids(page) == [f"t{n}" for n in range(149, 49, -1)]
    assert page["id"] == gateway.pipeline.hub.id.decode()
    rest = await gateway.get(f"/tasks?cursor={page['cursor']}")
    assert uuids(rest) == [f"t{n}" for n in range(49, -1, -1)]
    assert rest["cursor"] is None
    whole = await gateway.get("/tasks?limit=150")
    assert whole["cursor"] is None, "the last page is full, and it is the last"


async def test_a_list_has_the_filters_of_the_stream() -> None:
    gateway = StateGateway()
    gateway.put(
        {**known("a", name="shop.pay"), "type": "task-sent", "queue": "fast", "hostname": "gen1@host"},
        known("b", "a", name="shop.ship", parent_id="a"),
        known("c", "a", name="mail.send", parent_id="b", hostname="w2@host"),
        step("started", "c", hostname="w2@host"),
        step("failed", "c", exception="x", hostname="w2@host"),
        known("d", "a,b", parent_id="gone"),
    )
    for query, expected in {
        "name=shop.*": "dba",
        "name=shop.*&name=!shop.ship": "da",
        "state=FAILURE,PENDING": "ca",
        "type=task-failed": "c",
        "queue=fast": "a",
        "hostname=w2@host": "c",
        "hostname=gen*": "a",
        "root_id=a": "cba",
        "root_id=a&state=!FAILURE": "ba",
        "parent_id=a,b": "cb",
        "parent_id=gone": "d",
        "parent_id=*": "dcb",
        "uuid=a,c,x": "ca",
        "uuid=a&root_id=x": "",
        "root_id=*": "dcba",
        "root_id=x": "",
    }.items():
        assert "".join(uuids(await gateway.get(f"/tasks?{query}"))) == expected, query


async def test_fields_of_a_list() -> None:
    gateway = StateGateway()
    gateway.put(known("a"))
    assert (await gateway.get("/tasks?fields=name,state&fields=children"))["tasks"] == [
        {"uuid": "a", "name": "shop.pay", "state": "RECEIVED", "children": []}
    ]


@pytest.mark.parametrize("query", ["", "root_id=r", "name=shop.*", "state=!SUCCESS"])
@pytest.mark.parametrize("seed", range(6))
async def test_pages_have_each_task_once_while_the_table_changes(seed: int, query: str) -> None:
    """Tasks that match all the time are on the pages once, in order; later ones are not."""
    chance = random.Random(seed)
    gateway = StateGateway(max_tasks=700)
    fresh = count()

    def arrive(many: int) -> None:
        for _ in range(many):
            uid = f"t{next(fresh)}"
            root_id = chance.choice(["r", "r", "other"])
            gateway.put(known(uid, root_id, name=chance.choice(["shop.pay", "shop.ship", "mail.send"])))

    def matching() -> dict[str, bool]:
        """Return the matching tasks of the table, newest first."""
        return {
            record.task.uuid: (
                (query != "root_id=r" or record.task.root_id == "r")
                and (query != "name=shop.*" or (record.task.name or "").startswith("shop."))
                and (query != "state=!SUCCESS" or record.task.state != "SUCCESS")
            )
            for record in gateway.pipeline.tasks.newest()
        }

    arrive(chance.randint(0, 600))
    always = {uid for uid, matches in matching().items() if matches}
    ever = set(always)
    order = list(matching())
    got: list[str] = []
    cursor = None
    while True:
        limit = chance.randint(1, 60)
        page = await gateway.get(f"/tasks?limit={limit}&{query}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["tasks"]) <= limit
        got += uuids(page)
        cursor = page["cursor"]
        if cursor is None:
            break
        arrive(chance.randint(0, 30))
        for record in chance.sample(list(gateway.pipeline.tasks.newest()), 5):
            gateway.put(step("started", record.task.uuid), step("succeeded", record.task.uuid))
        now = matching()
        always &= {uid for uid, matches in now.items() if matches}
    assert len(set(got)) == len(got)
    assert got == [uid for uid in order if uid in set(got)], "the order is that of the beginning"
    assert always <= set(got) <= ever


@pytest.mark.parametrize("path", ["/tasks?limit=1000", "/workflows/r"])
async def test_responses_made_in_slices_are_consistent(path: str) -> None:
    """Replaying the stream up to the position of the response gives the same state."""
    gateway = StateGateway()
    gateway.put(*(known(f"t{n}", "r") for n in range(3_000)))
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            uid = f"t{random.randrange(2_000, 3_000)}"
            gateway.put(step("progress", uid, current=next(clock), total=10**9))
            await asyncio.sleep(0)

    running = asyncio.create_task(go_on())
    for _ in range(5):
        body = await gateway.get(path)
        given = {task["uuid"]: task["custom"] for task in body["tasks"] if task["custom"]}
        position = int(body["id"].partition("-")[2])
        history = gateway.pipeline.hub.history
        replayed: dict[str, Any] = {}
        for entry in history.after(history.evicted, position - history.evicted):
            event = json.loads(entry.json)
            if event["type"] == "task-progress":
                replayed[event["uuid"]] = {"current": event["current"], "total": event["total"]}
        assert given == replayed
    assert replayed
    stop.set()
    await running


# ------------------------------------------------------------------------------ workflows and workers


async def test_a_workflow_is_a_tree() -> None:
    gateway = StateGateway()
    gateway.put(known("r"), known("a", "r", parent_id="r"), known("b", "r", parent_id="a"))
    gateway.put(step("started", "r"), step("succeeded", "r", result="1", runtime=1.0))
    tree = await gateway.get("/workflows/r?fields=state")
    assert tree == {
        "root_id": "r",
        "total": 3,
        "known": 3,
        "ready": 1,
        "sent_events": False,
        "progress": 1 / 3,
        "counts": {"SUCCESS": 1, "RECEIVED": 2},
        "critical_path": tree["critical_path"],
        "tasks": [
            {
                "uuid": "r",
                "state": "SUCCESS",
                "children": [
                    {
                        "uuid": "a",
                        "state": "RECEIVED",
                        "children": [{"uuid": "b", "state": "RECEIVED", "children": []}],
                    }
                ],
            }
        ],
        "id": gateway.pipeline.hub.id.decode(),
    }
    assert [each["uuid"] for each in tree["critical_path"]] == ["r", "a"]


async def test_workers_are_listed_alive_or_not() -> None:
    gateway = StateGateway()
    gateway.put(heartbeat("w2@host", freq=2.0, active=1), heartbeat(), heartbeat("gen7@host"))
    gateway.put(
        heartbeat("w2@host") | {"type": "worker-offline"}, {"type": "worker-deployed", "hostname": "x"}
    )
    gateway.put(known("a", hostname="w3@host"))
    body = await gateway.get("/workers?fields=alive,status,heartbeats")
    assert [tuple(each.values()) for each in body["workers"]] == [
        ("gen7@host", True, "online", True),
        ("w1@host", True, "online", True),
        ("w2@host", False, "offline", True),
        ("w3@host", True, "online", False),
    ]
    body = await gateway.get("/workers")
    assert tuple(body["workers"][0]) == tuple(field for field in WORKER_FIELDS if field != "cluster")
    assert all(abs(each["since"] - time.time()) < 30 for each in body["workers"])
    assert body["id"] == gateway.pipeline.hub.id.decode()
    assert (await gateway.get("/workers?hostname=w2*&fields=alive,active"))["workers"] == [
        {"hostname": "w2@host", "alive": False, "active": 1}
    ]
    metrics = (await gateway.request("/metrics")).text
    assert "\ncelery_gateway_workers_known 4.0\n" in metrics
    assert "\ncelery_gateway_workers_alive 3.0\n" in metrics


async def test_one_worker() -> None:
    gateway = StateGateway(clusters=("eu", "us"))
    gateway.put(heartbeat("w1@host", active=3), cluster="eu")
    gateway.put(heartbeat("w1@host"), heartbeat("a/b%@host"), heartbeat("a\n@b"), cluster="us")
    assert (await gateway.get("/workers/a%0A@b"))["hostname"] == "a\n@b"
    listed = (await gateway.get("/workers?cluster=eu"))["workers"]
    assert [await gateway.get("/workers/w1@host?cluster=eu")] == listed
    assert (await gateway.get("/workers/a%2Fb%25@host?fields=active,status&format=json")) == {
        "hostname": "a/b%@host",
        "status": "online",
        "active": None,
    }
    error = await gateway.get_error("/workers/w1@host", 409)
    assert (error["code"], error["parameter"], error["allowed"]) == ("ambiguous", "cluster", ["eu", "us"])
    for path in ("/workers/x@host", "/workers/w1@host?cluster=asia", "/workers/w1@host/"):
        error = await gateway.get_error(path, 404)
        assert error["code"] == "worker-unknown" and "in the last hour" in error["message"]
    etag = (await gateway.request("/workers/w1@host?cluster=eu")).headers["etag"]
    again = await gateway.request("/workers/w1@host?cluster=eu", if_none_match=etag)
    assert again.status_code == 304


async def test_every_endpoint_of_state_takes_format_json() -> None:
    gateway = StateGateway()
    gateway.put(heartbeat(), known("a"))
    id = gateway.pipeline.hub.id.decode()
    paths = ("/tasks", "/tasks/a", "/tasks/counts", "/workflows", "/workflows/a", "/workers")
    for path in (*paths, "/workers/w1@host", f"/events/{id}"):
        plain, asked = await gateway.request(path), await gateway.request(f"{path}?format=json")
        assert (asked.status_code, asked.content) == (200, plain.content)
        for bad in ("format=html", "format=", "format=json&format=json"):
            error = await gateway.get_error(f"{path}?{bad}", 400)
            assert (error["code"], error["parameter"]) == ("bad-value", "format")


async def test_a_worker_that_stops_with_a_running_task_is_stopping() -> None:
    gateway = StateGateway()
    gateway.put(heartbeat(clock=1), known("a"), step("started", "a"))
    gateway.put(heartbeat(clock=2) | {"type": "worker-offline"})
    (worker,) = (await gateway.get("/workers?fields=status,alive"))["workers"]
    assert worker == {"hostname": "w1@host", "alive": True, "status": "stopping"}
    task = await gateway.get("/tasks/a?fields=stale,state,lost")
    assert task == {"uuid": "a", "state": "STARTED", "lost": None, "stale": False}
    gateway.put(step("succeeded", "a"))
    (worker,) = (await gateway.get("/workers?fields=status"))["workers"]
    assert worker["status"] == "offline"


async def test_a_task_of_a_gone_process_is_lost_until_another_attempt() -> None:
    """A container is killed and restarts with the same hostname and pid."""
    gateway = StateGateway()
    gateway.put(heartbeat(clock=1, processed=0), known("a"), step("started", "a"), known("b"))
    before = time.time()
    gateway.put(heartbeat(clock=1, processed=0, active=0) | {"type": "worker-online"})
    for uid in "ab":
        task = await gateway.get(f"/tasks/{uid}")
        assert (task["state"], task["type"], task["stale"]) == ("LOST", "task-lost", True)
        assert before <= task["lost"] <= time.time()
        assert [attempt["state"] for attempt in task["attempts"]] == ["LOST"]
    assert sorted(uuids(await gateway.get("/tasks?state=LOST"))) == ["a", "b"]
    assert (await gateway.get("/workflows/a"))["counts"] == {"LOST": 1}
    (lost, *_) = (event for event in history(gateway) if event["type"] == "task-lost")
    assert (lost["type"], lost["source"], lost["state"], lost["attempt"]) == (
        "task-lost",
        "gateway",
        "LOST",
        1,
    )
    assert (lost["name"], lost["root_id"], lost["hostname"], lost["pid"]) == ("shop.pay", "a", "w1@host", 1)
    assert "restarted" in lost["reason"]
    gateway.put(known("a", hostname="w2@host"), step("started", "a", hostname="w2@host"))
    task = await gateway.get("/tasks/a")
    assert (task["state"], task["lost"], task["stale"], task["attempt"]) == ("STARTED", None, False, 2)
    assert [attempt["state"] for attempt in task["attempts"]] == ["LOST", "STARTED"]


def history(gateway: StateGateway) -> list[Event]:
    """Return all events of the hub."""
    held = gateway.pipeline.hub.history
    return [json.loads(entry.json) for entry in held.after(held.evicted, held.position - held.evicted)]


# --------------------------------------------------------------------------------------- ETag, HEAD, CORS


@pytest.mark.parametrize("path", ["/tasks?root_id=a", "/tasks/a", "/workflows/a", "/workers"])
async def test_unchanged_responses_get_304(path: str) -> None:
    gateway = StateGateway()
    gateway.put(known("a"), heartbeat(timestamp=1.0))
    first = await gateway.request(path)
    assert first.headers["cache-control"] == "private, no-cache"
    etag = first.headers["etag"]
    gateway.put(known("b"), {"type": "probe-asked"})  # the stream goes on
    for tags in (etag, f'"x", {etag}', etag.removeprefix("W/"), "*"):
        again = await gateway.request(path, if_none_match=tags)
        assert (again.status_code, again.content) == (304, b""), tags
        assert again.headers["etag"] == etag
    assert (await gateway.request(path, if_none_match='"x"')).status_code == 200
    gateway.put(step("started", "a"), heartbeat(timestamp=2.0))
    changed = await gateway.request(path, if_none_match=etag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


@pytest.mark.parametrize("path", ["/tasks", "/tasks/a", "/workflows/a", "/workers"])
async def test_head_and_cors(path: str) -> None:
    gateway = StateGateway()
    gateway.put(known("a"))
    whole = await gateway.request(path, origin="https://shop.example")
    assert whole.headers["access-control-allow-origin"] == "https://shop.example"
    assert whole.headers["access-control-expose-headers"] == "ETag, Retry-After"
    assert whole.headers["content-type"] == "application/json"
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert (await gateway.request(path, method="HEAD")).headers["etag"] == whole.headers["etag"]
    assert (await gateway.request(path, method="POST")).status_code == 405


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("/tasks?nam=x", "unknown-parameter", "nam"),
        ("/tasks?args=x", "unknown-parameter", "args"),
        ("/tasks?limit=0", "bad-value", "limit"),
        ("/tasks?limit=1001", "bad-value", "limit"),
        ("/tasks?limit=ten", "bad-value", "limit"),
        ("/tasks?limit=", "bad-value", "limit"),
        ("/tasks?limit=²", "bad-value", "limit"),
        ("/tasks?limit=" + "9" * 5_000, "bad-value", "limit"),
        ("/tasks?limit=1&limit=2", "bad-value", "limit"),
        ("/tasks?cursor=x", "bad-value", "cursor"),
        ("/tasks?cursor=", "bad-value", "cursor"),
        ("/tasks?cursor=00000000-5", "cursor-expired", "cursor"),
        ("/tasks?fields=name,colour", "bad-value", "fields"),
        ("/tasks?fields=", "empty-value", "fields"),
        ("/tasks?name=", "empty-value", "name"),
        ("/tasks/a?name=x", "unknown-parameter", "name"),
        ("/tasks/a?fields=colour", "bad-value", "fields"),
        ("/workflows/a?limit=5", "unknown-parameter", "limit"),
        ("/workflows/a?fields=colour", "bad-value", "fields"),
        ("/workers?name=x", "unknown-parameter", "name"),
        ("/workers?fields=uuid", "bad-value", "fields"),
        ("/workers/a?hostname=x", "unknown-parameter", "hostname"),
        ("/workers/a?fields=uuid", "bad-value", "fields"),
    ],
)
async def test_bad_parameters_get_400_with_the_parameter(query: str, code: str, parameter: str) -> None:
    gateway = StateGateway()
    gateway.put(known("a"))
    error = await gateway.get_error(query, 400)
    assert (error["code"], error["parameter"]) == (code, parameter)
    if code == "unknown-parameter" or parameter == "fields" and code == "bad-value":
        assert error["allowed"]


async def test_a_page_ends_while_all_its_tasks_change() -> None:
    gateway = StateGateway()
    gateway.put(*(known(f"t{number}") for number in range(400)))
    changes = 0

    async def change() -> None:
        nonlocal changes
        while True:
            gateway.put(*(step("progress", f"t{number}", current=changes) for number in range(400)))
            changes += 1
            await asyncio.sleep(0)

    changing = asyncio.create_task(change())
    try:
        async with asyncio.timeout(30):
            page = await gateway.get("/tasks?limit=400")
    finally:
        changing.cancel()
    assert len(page["tasks"]) == 400
    assert changes > 1, "nothing changed meanwhile"
    of_one_moment = {task["custom"]["current"] for task in page["tasks"]}
    assert len(of_one_moment) == 1


async def test_an_expired_cursor_differs_from_an_invalid_one() -> None:
    before, after = StateGateway(), StateGateway()
    for gateway in (before, after):
        gateway.put(known("a"), known("b"))
    cursor = (await before.get("/tasks?limit=1"))["cursor"]
    assert (await after.get_error(f"/tasks?cursor={cursor}", 400))["code"] == "cursor-expired"
    assert uuids(await before.get(f"/tasks?cursor={cursor}")) == ["a"]


# ---------------------------------------------------------------------------------- 50,000 in one root


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Set the garbage collector as the server does, without the objects of earlier tests."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def grow_tree(gateway: StateGateway, ids: list[str]) -> None:
    """Add a workflow whose tasks form a binary tree, and start them."""
    for start in range(0, len(ids), 24):
        part = range(start, min(start + 24, len(ids)))
        gateway.put(
            *(known(ids[n], ids[0], parent_id=ids[(n - 1) // 2] if n else None, args="(1,)") for n in part)
        )
        gateway.put(*(step("started", ids[n]) for n in part))


def parents_in(tree: dict[str, Any]) -> dict[str, str | None]:
    """Return the parent of each task in a tree with one root."""
    (root,) = tree["tasks"]
    parents: dict[str, str | None] = {}
    left: list[tuple[str | None, Any]] = [(None, root)]
    while left:
        parent_id, task = left.pop()
        parents[task["uuid"]] = parent_id
        left += [(task["uuid"], child) for child in task["children"]]
    return parents


@pytest.mark.timing
async def test_a_workflow_of_fifty_thousand_tasks_does_not_block_the_event_loop() -> None:
    gateway = StateGateway()
    ids = [str(uuid.uuid4()) for _ in range(MANY)]
    grow_tree(gateway, ids)
    turns: list[float] = []
    is_over = False

    async def measure_turns() -> None:
        """Measure the CPU time between two turns of this task."""
        before = time.thread_time()
        while not is_over:
            await asyncio.sleep(0.0005)
            now = time.thread_time()
            turns.append(now - before)
            before = now

    async def send_events() -> None:
        started, sent = time.perf_counter(), 0
        while not is_over:
            while sent < (time.perf_counter() - started) * EVENTS_PER_SECOND:
                progress = range(sent, sent + 24)
                gateway.put(*(step("progress", ids[n % MANY], current=n, total=10**9) for n in progress))
                sent += 24
            await asyncio.sleep(0.001)

    async def request_tasks(port: int) -> None:
        while not is_over:
            await fetch(port, f"/tasks/{random.choice(ids)}")
            await asyncio.sleep(0.01)

    with collecting_rarely():
        async with served(gateway) as port, asyncio.TaskGroup() as group:
            for each in (measure_turns(), send_events(), request_tasks(port)):
                group.create_task(each)
            try:
                chunks = await asyncio.gather(
                    fetch(port, f"/workflows/{ids[0]}"),
                    fetch(port, f"/workflows/{ids[0]}?fields=state"),
                    fetch(port, f"/tasks?root_id={ids[0]}&limit=1000"),
                    fetch(port, "/tasks?name=nothing*"),
                )
            finally:
                is_over = True
    print(f"at most {max(turns) * 1000:.1f} ms of CPU time in a turn")
    assert max(turns) < scaled(0.1)
    responses = [content(each) for each in chunks]
    for tree in responses[:2]:
        assert (tree["total"], sum(tree["counts"].values()), len(tree["tasks"])) == (MANY, MANY, 1)
        assert parents_in(tree) == {uid: ids[(n - 1) // 2] if n else None for n, uid in enumerate(ids)}
    assert uuids(responses[2]) == ids[:-1001:-1]
    assert uuids(responses[3]) == []


async def test_a_page_of_very_long_texts_is_shorter() -> None:
    gateway = StateGateway()
    for n in range(600):
        gateway.put(known(f"t{n}"), step("failed", f"t{n}", exception="x", traceback="y" * 30_000))
    got: list[str] = []
    path, sizes = "/tasks?limit=1000", []
    while True:
        page = await gateway.get(path)
        got += uuids(page)
        sizes.append(len(page["tasks"]))
        if page["cursor"] is None:
            break
        path = f"/tasks?limit=1000&cursor={page['cursor']}"
    assert got == [f"t{n}" for n in range(599, -1, -1)]
    assert len(sizes) > 1
    assert max(sizes) * 30_000 < 1.1 * MAX_PAGE_BYTES


# ---------------------------------------------------------------------------------- broker and worker


def test_a_stream_continues_from_the_position_of_a_response(
    gateway: GatewayProcess, publisher: Publisher
) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    publisher.send(walk(uid=first))
    assert wait_for(lambda: state_of(gateway, first) == "SUCCESS", 10)
    positions = [
        httpx.get(f"{gateway.url}{path}").json()["id"]
        for path in (f"/tasks?uuid={first}", "/workers", f"/workflows/{first}")
    ]
    publisher.send(walk(uid=second))
    for position in positions:
        with NdjsonStream(gateway.url, {"last_event_id": position, "uuid": [first, second]}) as stream:
            got = stream.until(lambda events: len(events) >= 3)
            assert stream.opened["resume"] == "resumed"
            assert [event["uuid"] for event in got] == [second] * 3


def state_of(gateway: GatewayProcess, uid: str) -> str | None:
    with suppress(KeyError):
        return str(httpx.get(f"{gateway.url}/tasks/{uid}").json()["state"])
    return None


def test_tasks_of_a_real_worker(gateway: GatewayProcess, celery: Celery, worker: Worker) -> None:
    add = celery.signature("canvas.add")
    result = chain(add.clone((1, 2)), add.clone((3,)), add.clone((4,))).apply_async()
    root = result.parent.parent
    tree: dict[str, Any] = {}

    def is_ready() -> bool:
        answer = httpx.get(f"{gateway.url}/workflows/{root.id}")
        tree.update(answer.json())
        return tree.get("ready") == 3

    assert wait_for(is_ready, 20), tree
    assert (tree["total"], tree["progress"], tree["counts"]) == (3, 1.0, {"SUCCESS": 3})
    task = tree["tasks"][0]
    tasks = [task, task["children"][0], task["children"][0]["children"][0]]
    # It ends with the task that ended last: a worker can report a chain's second task before its first.
    last = max(range(3), key=lambda number: tasks[number]["succeeded"])
    path = [each["uuid"] for each in tree["critical_path"]]
    assert path == [root.id, result.parent.id, result.id][: last + 1], tree
    assert (task["uuid"], task["name"], task["result"]) == (root.id, "canvas.add", "3")
    assert task["children"][0]["children"][0]["uuid"] == result.id
    newest = httpx.get(f"{gateway.url}/tasks", params={"root_id": root.id, "fields": "result"}).json()
    assert newest["tasks"] == [
        {"uuid": each.id, "result": text}
        for each, text in ((result, "10"), (result.parent, "6"), (root, "3"))
    ]
    (seen,) = httpx.get(f"{gateway.url}/workers", params={"hostname": worker.hostname}).json()["workers"]
    assert (seen["alive"], seen["sw_ident"], seen["sw_ver"]) == (
        True,
        "py-celery",
        celery_package.__version__,
    )
    assert seen["processed"] is not None


def test_a_killed_worker_becomes_silent_then_offline(
    broker: str, celery: Celery, folder: Path, worker: Worker
) -> None:
    """It becomes silent after 15 seconds, and offline after the timeout."""
    timeout_seconds = SILENT_SECONDS + 3
    gateway = GatewayProcess(broker, folder, options=["--worker-timeout", str(timeout_seconds)])
    victim = Worker(broker, folder, results=folder / "results", pool="prefork", concurrency=1)

    def status(hostname: str) -> tuple[str, bool]:
        workers = httpx.get(f"{gateway.url}/workers", params={"hostname": hostname}).json()["workers"]
        return next(((each["status"], each["alive"]) for each in workers), ("missing", False))

    try:
        gateway.start()
        victim.start()
        worker_control(celery, "cancel_consumer", worker)
        uid = celery.send_task("canvas.forever").id
        assert wait_for(lambda: state_of(gateway, uid) == "STARTED", 20)
        task = httpx.get(f"{gateway.url}/tasks/{uid}").json()
        assert (task["worker"], task["stale"]) == (victim.hostname, False)
        with NdjsonStream(gateway.url, {"root_id": uid, "queue": "celery"}) as stream:
            victim.kill()
            killed_at = time.monotonic()
            assert status(victim.hostname) == ("online", True), "nobody can know yet"
            assert wait_for(lambda: status(victim.hostname) == ("silent", False), SILENT_SECONDS + 10)
            assert time.monotonic() - killed_at > SILENT_SECONDS - 3
            assert httpx.get(f"{gateway.url}/tasks/{uid}").json()["stale"] is False, "it may be busy"
            (lost,) = stream.until(bool, 15)
        assert time.monotonic() - killed_at > timeout_seconds - 3
        assert (lost["type"], lost["name"], lost["hostname"]) == (
            *("task-lost", "canvas.forever", victim.hostname),
        )
        assert status(victim.hostname) == ("offline", False)
        task = httpx.get(f"{gateway.url}/tasks/{uid}").json()
        assert (task["stale"], task["state"], task["lost"]) == (True, "LOST", lost["timestamp"])
        assert httpx.get(f"{gateway.url}/workflows/{uid}").json()["tasks"][0]["stale"] is True
        assert status(worker.hostname) == ("online", True)
    finally:
        victim.kill()
        gateway.stop()
        worker_control(celery, "add_consumer", worker)


def worker_control(celery: Celery, command: str, worker: Worker) -> None:
    answers = celery.control.broadcast(
        command, arguments={"queue": "celery"}, destination=[worker.hostname], reply=True, timeout=5, limit=1
    )
    assert "ok" in answers[0][worker.hostname]
