"""State asked for over HTTP: `/tasks`, `/tasks/{uuid}`, `/workflows/{root_id}`, `/workers`.

Most of it asks the application itself, in the loop that also takes the events in; the last part is a gateway
with a broker and a worker.
"""

import asyncio
import gc
import json
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import celery as celery_package
import httpx
import pytest
import uvicorn
from celery import Celery, chain

from gateway.edge.app import create_app
from gateway.edge.direct import DirectHTTP
from gateway.edge.lookup import MAX_LARGE_ANSWERS, MAX_PAGE_BYTES
from gateway.hub import Hub
from gateway.message import Message
from gateway.pipeline import Feed, Pipeline
from gateway.source import Sink, Status
from gateway.task import VIEW_FIELDS
from gateway.tasks import Tasks
from gateway.worker import WORKER_FIELDS
from gateway.workers import SILENT_SECONDS, Workers
from tests.gateway_process import GatewayProcess
from tests.publisher import Publisher, received, task_event, walk
from tests.rabbitmq import wait_for
from tests.stream_client import NdjsonStream
from tests.worker import Worker

Event = dict[str, Any]
MANY = 50_000
EVENTS_A_SECOND = 2_000

_clock = count(1)


class Quiet:
    """A source of which nothing comes: the tests hand messages to the pipeline themselves."""

    status = Status(True, "consuming")

    async def run(self, sink: Sink) -> None: ...


class House:
    """A gateway without a broker, and a client of it."""

    def __init__(
        self,
        *,
        max_tasks: int = 100_000,
        root_path: str = "",
        slow_seconds: float = 60.0,
        clusters: tuple[str, ...] = (),
    ) -> None:
        self.feeds = {name: Feed(name, Quiet()) for name in clusters or (None,)}
        self.pipeline = Pipeline(
            self.feeds.values(),
            Tasks(max_tasks=max_tasks, clusters=clusters),
            Workers(has_clusters=bool(clusters)),
            Hub(),
        )
        self.app = create_app(
            self.pipeline,
            slow_seconds=slow_seconds,
            root_path=root_path,
            allow_origins=["https://shop.example"],
        )
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url="http://gateway"
        )

    def put(self, *events: Event, cluster: str | None = None) -> None:
        self.pipeline.take(Message(json.dumps(events).encode()), self.feeds[cluster])

    async def ask(self, path: str, *, method: str = "GET", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.request(method, path, headers=named)

    async def get(self, path: str) -> Any:
        response = await self.ask(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, path: str, status_code: int) -> dict[str, Any]:
        response = await self.ask(path)
        assert response.status_code == status_code, response.text
        error: dict[str, Any] = response.json()["error"]
        assert error["message"]
        return error


def known(uid: str, root_id: str | None = None, **fields: Any) -> Event:
    """A task-received, each a second younger than the one before."""
    about = {"name": "shop.pay", "timestamp": float(next(_clock))} | fields
    return received(uid, about.pop("name"), root_id) | about


def step(subject: str, uid: str, **fields: Any) -> Event:
    return task_event(f"task-{subject}", uid, timestamp=float(next(_clock)), **fields)


def heartbeat(hostname: str = "w1@host", **fields: Any) -> Event:
    return {"type": "worker-heartbeat", "hostname": hostname, "timestamp": time.time(), "pid": 1} | fields


def uuids(page: dict[str, Any]) -> list[str]:
    return [task["uuid"] for task in page["tasks"]]


# -------------------------------------------------------------------------------------------- a task


async def test_a_task_is_given_with_all_that_is_known_of_it() -> None:
    house = House()
    house.put(known("a", args="(1,)"), known("b", "a", parent_id="a"), step("started", "a"))
    task = await house.get("/tasks/a")
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
    assert (await house.get("/tasks/b?fields=state,stale")) == {
        "uuid": "b",
        "state": "RECEIVED",
        "stale": False,
    }


async def test_a_404_says_whether_the_task_was_never_seen_or_forgotten() -> None:
    house = House(max_tasks=2)
    for uid in "abc":
        house.put(known(uid), step("started", uid), step("succeeded", uid))
    assert (await house.refused("/tasks/a", 404))["code"] == "task-evicted"
    assert (await house.refused("/workflows/a", 404))["code"] == "workflow-evicted"
    assert (await house.refused("/tasks/x", 404))["code"] == "task-unknown"
    assert (await house.refused("/workflows/x", 404))["code"] == "workflow-unknown"
    assert (await house.refused("/tasks/", 404))["code"] == "task-unknown"
    house.put(known("d", "c"))
    error = await house.refused("/workflows/d", 404)
    assert (error["code"], error["root_id"]) == ("workflow-unknown", "c")
    assert error["message"] == "the task 'd' belongs to the root 'c'"


async def test_ids_may_have_any_characters() -> None:
    house = House()
    for uid in ("a/b", "50%", "ü ber", "x,y", "!x", "*", "a?b"):
        house.put(known(uid))
        quoted = quote(uid, safe="")
        assert (await house.get(f"/tasks/{quoted}"))["uuid"] == uid
        tree = await house.get(f"/workflows/{quoted}")
        assert (tree["root_id"], tree["total"]) == (uid, 1)


@pytest.mark.parametrize(
    ("uid", "text"), [(12345, "12345"), (3.5, "3.5"), (True, "true"), (["a"], '["a"]'), (0, "0")]
)
async def test_ids_may_be_of_any_type_and_are_found_by_their_text(uid: Any, text: str) -> None:
    """CASES.md A16."""
    house = House()
    house.put(known(uid, uid), step("started", uid), step("succeeded", uid, result="1"))
    house.put(known("child", parent_id=uid) | {"root_id": uid})
    quoted = quote(text, safe="")
    task = await house.get(f"/tasks/{quoted}")
    assert (task["name"], task["state"], task["children"]) == ("shop.pay", "SUCCESS", ["child"])
    assert (await house.get(f"/workflows/{quoted}"))["total"] == 2
    assert uuids(await house.get(f"/tasks?root_id={quoted}")) == ["child", task["uuid"]]
    assert uuids(await house.get(f"/tasks?parent_id={quoted}")) == ["child"]
    assert len(uuids(await house.get(f"/tasks?uuid={quoted}"))) == 1


async def test_a_task_that_only_reports_its_progress_is_known_by_that() -> None:
    """CASES.md A18: it was under way before the gateway came."""
    house = House()
    house.put(step("progress", "b", name="shop.pay", root_id="r", parent_id="a", current=1, total=4))
    task = await house.get("/tasks/b")
    assert (task["name"], task["root_id"], task["parent_id"]) == ("shop.pay", "r", "a")
    assert (task["state"], task["progress"]) == ("PROGRESS", 0.25)
    assert uuids(await house.get("/workflows/r")) == ["b"]
    assert uuids(await house.get("/tasks?name=shop.*&state=PROGRESS")) == ["b"]


async def test_a_task_of_an_old_protocol_is_its_own_root() -> None:
    """CASES.md A22: Celery 3.1 names no root."""
    house = House()
    old = known("b")
    del old["root_id"], old["parent_id"]
    house.put(old)
    tree = await house.get("/workflows/b")
    assert (tree["total"], tree["tasks"][0]["root_id"]) == (1, "b")


# ----------------------------------------------------------------------------------- attempts, brokers


async def test_the_tries_of_a_task_are_always_given_and_those_of_many_on_request() -> None:
    house = House()
    house.put(
        known("a", clock=1),
        step("started", "a", clock=2),
        step("retried", "a", exception="E()", clock=3),
        known("a", retries=1, eta="2026-11-28T16:00:00+00:00", clock=4, hostname="w2@host"),
        step("started", "a", clock=5, hostname="w2@host"),
    )
    task = await house.get("/tasks/a")
    first, second = task["tries"]
    assert [first[key] for key in ("retries", "state", "worker", "pid", "exception", "eta")] == [
        *(0, "RETRY", "w1@host", 1, "E()", None)
    ]
    assert first["received"] < first["started"] < first["ended"]
    assert [second[key] for key in ("retries", "state", "worker", "exception", "ended", "eta")] == [
        *(1, "STARTED", "w2@host", None, None, "2026-11-28T16:00:00+00:00")
    ]
    assert (task["attempts"], task["started"], task["exception"]) == (2, second["started"], None)
    assert (await house.get("/tasks/a?fields=tries")) == {"uuid": "a", "tries": task["tries"]}
    assert "tries" not in await house.get("/tasks/a?fields=attempts")
    for path in ("/tasks", "/workflows/a"):
        (whole,) = (await house.get(path))["tasks"]
        assert "tries" not in whole
        (picked,) = (await house.get(f"{path}?fields=tries"))["tasks"]
        assert picked["tries"] == task["tries"]


async def test_an_id_that_two_brokers_have_is_ambiguous_until_one_is_chosen() -> None:
    """CASES.md A15."""
    house = House(clusters=("eu", "us"))
    house.put(known("a"), step("started", "a"), step("succeeded", "a"), cluster="eu")
    house.put(known("only", "a", parent_id="a"), cluster="eu")
    house.put(known("a"), cluster="us")
    for path in ("/tasks/a", "/workflows/a"):
        error = await house.refused(path, 409)
        assert (error["code"], error["parameter"], error["allowed"]) == ("ambiguous", "cluster", ["eu", "us"])
        assert (await house.refused(f"{path}?cluster=asia", 404))["code"].endswith("-unknown")
    of_eu, of_us = [await house.get(f"/tasks/a?cluster={name}") for name in ("eu", "us")]
    assert [(task["cluster"], task["state"], task["children"]) for task in (of_eu, of_us)] == [
        ("eu", "SUCCESS", ["only"]),
        ("us", "RECEIVED", []),
    ]
    trees = [await house.get(f"/workflows/a?cluster={name}") for name in ("eu", "us")]
    assert [(tree["total"], tree["ready"]) for tree in trees] == [(2, 1), (1, 0)]
    assert (await house.get("/tasks/only"))["cluster"] == "eu", "one broker has it"
    page = await house.get("/tasks?uuid=a")
    assert [task["cluster"] for task in page["tasks"]] == ["us", "eu"]
    assert uuids(await house.get("/tasks?root_id=a&cluster=us")) == ["a"]
    assert len(uuids(await house.get("/tasks?root_id=a"))) == 3


async def test_it_works_below_a_sub_path() -> None:
    house = House(root_path="/celery")
    house.put(known("a"))
    for path in ("/tasks", "/tasks/a", "/workflows/a", "/workers"):
        assert (await house.ask(f"/celery{path}")).status_code == 200
        assert (await house.ask(path)).status_code == 200, "a proxy may have taken the sub-path away"


# ------------------------------------------------------------------------------------------- a list


async def test_a_list_is_newest_first_and_bears_the_position_of_the_stream() -> None:
    house = House()
    assert await house.get("/tasks") == {
        "tasks": [],
        "cursor": None,
        "id": house.pipeline.hub.id.decode(),
    }
    house.put(*(known(f"t{n}") for n in range(150)))
    page = await house.get("/tasks")
    assert uuids(page) == [f"t{n}" for n in range(149, 49, -1)]
    assert page["id"] == house.pipeline.hub.id.decode()
    rest = await house.get(f"/tasks?cursor={page['cursor']}")
    assert uuids(rest) == [f"t{n}" for n in range(49, -1, -1)]
    assert rest["cursor"] is None
    whole = await house.get("/tasks?limit=150")
    assert whole["cursor"] is None, "the last page is full, and it is the last"


async def test_a_list_has_the_filters_of_the_stream() -> None:
    house = House()
    house.put(
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
        assert "".join(uuids(await house.get(f"/tasks?{query}"))) == expected, query


async def test_fields_of_a_list_are_picked() -> None:
    house = House()
    house.put(known("a"))
    assert (await house.get("/tasks?fields=name,state&fields=children"))["tasks"] == [
        {"uuid": "a", "name": "shop.pay", "state": "RECEIVED", "children": []}
    ]


@pytest.mark.parametrize("query", ["", "root_id=r", "name=shop.*", "state=!SUCCESS"])
@pytest.mark.parametrize("seed", range(6))
async def test_pages_repeat_and_skip_nothing_while_tasks_arrive_change_and_are_forgotten(
    seed: int, query: str
) -> None:
    """All that match throughout are on the pages once, in order, and none that came later."""
    chance = random.Random(seed)
    house = House(max_tasks=700)
    fresh = count()

    def arrive(many: int) -> None:
        for _ in range(many):
            uid = f"t{next(fresh)}"
            root_id = chance.choice(["r", "r", "other"])
            house.put(known(uid, root_id, name=chance.choice(["shop.pay", "shop.ship", "mail.send"])))

    def matching() -> dict[str, bool]:
        """Which of the known tasks match, by a look at each, the newest first."""
        return {
            record.task.uuid: (
                (query != "root_id=r" or record.task.root_id == "r")
                and (query != "name=shop.*" or (record.task.name or "").startswith("shop."))
                and (query != "state=!SUCCESS" or record.task.state != "SUCCESS")
            )
            for record in house.pipeline.tasks.newest()
        }

    arrive(chance.randint(0, 600))
    always = {uid for uid, matches in matching().items() if matches}
    ever = set(always)
    order = list(matching())
    got: list[str] = []
    cursor = None
    while True:
        limit = chance.randint(1, 60)
        page = await house.get(f"/tasks?limit={limit}&{query}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["tasks"]) <= limit
        got += uuids(page)
        cursor = page["cursor"]
        if cursor is None:
            break
        arrive(chance.randint(0, 30))
        for record in chance.sample(list(house.pipeline.tasks.newest()), 5):
            house.put(step("started", record.task.uuid), step("succeeded", record.task.uuid))
        now = matching()
        always &= {uid for uid, matches in now.items() if matches}
    assert len(set(got)) == len(got)
    assert got == [uid for uid in order if uid in set(got)], "the order is that of the beginning"
    assert always <= set(got) <= ever


@pytest.mark.parametrize("path", ["/tasks?limit=1000", "/workflows/r"])
async def test_what_is_read_in_slices_is_as_of_one_moment(path: str) -> None:
    """Replaying the stream up to the position of the answer gives the same as the answer."""
    house = House()
    house.put(*(known(f"t{n}", "r") for n in range(3_000)))
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            uid = f"t{random.randrange(2_000, 3_000)}"
            house.put(step("progress", uid, current=next(_clock), total=10**9))
            await asyncio.sleep(0)

    running = asyncio.create_task(go_on())
    for _ in range(5):
        body = await house.get(path)
        given = {task["uuid"]: task["info"] for task in body["tasks"] if task["info"]}
        position = int(body["id"].partition("-")[2])
        history = house.pipeline.hub._history
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
    house = House()
    house.put(known("r"), known("a", "r", parent_id="r"), known("b", "r", parent_id="a"))
    house.put(step("started", "r"), step("succeeded", "r", result="1", runtime=1.0))
    tree = await house.get("/workflows/r?fields=state")
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
        "id": house.pipeline.hub.id.decode(),
    }
    assert [each["uuid"] for each in tree["critical_path"]] == ["r", "a"]


async def test_workers_are_listed_alive_or_not() -> None:
    house = House()
    house.put(heartbeat("w2@host", freq=2.0, active=1), heartbeat(), heartbeat("gen7@host"))
    house.put(heartbeat("w2@host") | {"type": "worker-offline"}, {"type": "worker-deployed", "hostname": "x"})
    house.put(known("a", hostname="w3@host"))
    body = await house.get("/workers?fields=alive,status,heartbeats")
    assert [tuple(each.values()) for each in body["workers"]] == [
        ("gen7@host", True, "online", True),
        ("w1@host", True, "online", True),
        ("w2@host", False, "offline", True),
        ("w3@host", True, "online", False),
    ]
    body = await house.get("/workers")
    assert tuple(body["workers"][0]) == tuple(field for field in WORKER_FIELDS if field != "cluster")
    assert all(abs(each["since"] - time.time()) < 30 for each in body["workers"])
    assert body["id"] == house.pipeline.hub.id.decode()
    assert (await house.get("/workers?hostname=w2*&fields=alive,active"))["workers"] == [
        {"hostname": "w2@host", "alive": False, "active": 1}
    ]
    metrics = (await house.ask("/metrics")).text
    assert "\ncelery_gateway_workers_known 4.0\n" in metrics
    assert "\ncelery_gateway_workers_alive 3.0\n" in metrics


async def test_a_worker_that_stops_with_a_task_under_way_is_stopping_and_the_task_not_lost() -> None:
    """CASES.md A9."""
    house = House()
    house.put(heartbeat(clock=1), known("a"), step("started", "a"))
    house.put(heartbeat(clock=2) | {"type": "worker-offline"})
    (worker,) = (await house.get("/workers?fields=status,alive"))["workers"]
    assert worker == {"hostname": "w1@host", "alive": True, "status": "stopping"}
    task = await house.get("/tasks/a?fields=stale,state,lost")
    assert task == {"uuid": "a", "state": "STARTED", "lost": None, "stale": False}
    house.put(step("succeeded", "a"))
    (worker,) = (await house.get("/workers?fields=status"))["workers"]
    assert worker["status"] == "offline"


async def test_the_task_of_a_process_that_is_gone_is_lost_until_another_takes_it_up() -> None:
    """CASES.md A6: a container is killed and comes up again with the same hostname and pid."""
    house = House()
    house.put(heartbeat(clock=1, processed=0), known("a"), step("started", "a"), known("b"))
    before = time.time()
    house.put(heartbeat(clock=1, processed=0, active=0) | {"type": "worker-online"})
    for uid in "ab":
        task = await house.get(f"/tasks/{uid}")
        assert (task["state"], task["type"], task["stale"]) == ("LOST", "task-lost", True)
        assert before <= task["lost"] <= time.time()
        assert [attempt["state"] for attempt in task["tries"]] == ["LOST"]
    assert sorted(uuids(await house.get("/tasks?state=LOST"))) == ["a", "b"]
    assert (await house.get("/workflows/a"))["counts"] == {"LOST": 1}
    (lost, *_) = (event for event in history(house) if event["type"] == "task-lost")
    assert (lost["type"], lost["source"], lost["state"], lost["attempt"]) == (
        "task-lost",
        "gateway",
        "LOST",
        1,
    )
    assert (lost["name"], lost["root_id"], lost["hostname"], lost["pid"]) == ("shop.pay", "a", "w1@host", 1)
    assert "restarted" in lost["reason"]
    house.put(known("a", hostname="w2@host"), step("started", "a", hostname="w2@host"))
    task = await house.get("/tasks/a")
    assert (task["state"], task["lost"], task["stale"], task["attempts"]) == ("STARTED", None, False, 2)
    assert [attempt["state"] for attempt in task["tries"]] == ["LOST", "STARTED"]


def history(house: House) -> list[Event]:
    """All events that the hub has had."""
    held = house.pipeline.hub._history
    return [json.loads(entry.json) for entry in held.after(held.evicted, held.position - held.evicted)]


# --------------------------------------------------------------------------------------- ETag, HEAD, CORS


@pytest.mark.parametrize("path", ["/tasks?root_id=a", "/tasks/a", "/workflows/a", "/workers"])
async def test_what_has_not_changed_is_not_sent_again(path: str) -> None:
    house = House()
    house.put(known("a"), heartbeat(timestamp=1.0))
    first = await house.ask(path)
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    house.put(known("b"), {"type": "probe-asked"})  # the stream goes on
    for tags in (etag, f'"x", {etag}', etag.removeprefix("W/"), "*"):
        again = await house.ask(path, if_none_match=tags)
        assert (again.status_code, again.content) == (304, b""), tags
        assert again.headers["etag"] == etag
    assert (await house.ask(path, if_none_match='"x"')).status_code == 200
    house.put(step("started", "a"), heartbeat(timestamp=2.0))
    changed = await house.ask(path, if_none_match=etag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


@pytest.mark.parametrize("path", ["/tasks", "/tasks/a", "/workflows/a", "/workers"])
async def test_a_head_has_the_headers_alone_and_other_sites_may_read(path: str) -> None:
    house = House()
    house.put(known("a"))
    whole = await house.ask(path, origin="https://shop.example")
    assert whole.headers["access-control-allow-origin"] == "https://shop.example"
    assert whole.headers["access-control-expose-headers"] == "ETag"
    assert whole.headers["content-type"] == "application/json"
    assert int(whole.headers["content-length"]) == len(whole.content)
    assert (await house.ask(path, method="HEAD")).headers["etag"] == whole.headers["etag"]
    assert (await house.ask(path, method="POST")).status_code == 405


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("/tasks?nam=x", "unknown-parameter", "nam"),
        ("/tasks?since=10m", "unknown-parameter", "since"),
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
    ],
)
async def test_what_cannot_be_understood_is_refused_by_name(query: str, code: str, parameter: str) -> None:
    house = House()
    house.put(known("a"))
    error = await house.refused(query, 400)
    assert (error["code"], error["parameter"]) == (code, parameter)
    if code == "unknown-parameter" or parameter == "fields" and code == "bad-value":
        assert error["allowed"]


async def test_a_cursor_of_before_a_restart_is_told_from_a_wrong_one() -> None:
    before, after = House(), House()
    for house in (before, after):
        house.put(known("a"), known("b"))
    cursor = (await before.get("/tasks?limit=1"))["cursor"]
    assert (await after.refused(f"/tasks?cursor={cursor}", 400))["code"] == "cursor-expired"
    assert uuids(await before.get(f"/tasks?cursor={cursor}")) == ["a"]


# ---------------------------------------------------------------------------------- 50,000 in one root


@asynccontextmanager
async def served(house: House) -> AsyncIterator[int]:
    """The house at a port, in this loop."""
    listener = socket.create_server(("127.0.0.1", 0))  # who comes before it is served waits
    config = uvicorn.Config(
        house.app,
        http=DirectHTTP,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """As the server has it, and without what the tests before this have left."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def fetch(port: int, path: str) -> list[bytes]:
    """A response in pieces: it is read in this loop, where putting it together would be in the way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    chunks: list[bytes] = []
    while chunk := await reader.read(1 << 18):
        chunks.append(chunk)
    writer.close()
    return chunks


def content(chunks: list[bytes]) -> Any:
    head, _, body = b"".join(chunks).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return json.loads(body)


async def test_a_root_of_fifty_thousand_tasks_is_answered_without_holding_up_the_loop() -> None:
    house = House()
    ids = [str(uuid.uuid4()) for _ in range(MANY)]
    for start in range(0, MANY, 24):
        part = range(start, min(start + 24, MANY))
        house.put(
            *(known(ids[n], ids[0], parent_id=ids[(n - 1) // 2] if n else None, args="(1,)") for n in part)
        )
        house.put(*(step("started", ids[n]) for n in part))
    gaps: list[float] = []
    lookups: list[float] = []
    is_over = False

    async def tick() -> None:
        before = time.perf_counter()
        while not is_over:
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            gaps.append(now - before)
            before = now

    async def load() -> None:
        begun, sent = time.perf_counter(), 0
        while not is_over:
            while sent < (time.perf_counter() - begun) * EVENTS_A_SECOND:
                progress = range(sent, sent + 24)
                house.put(*(step("progress", ids[n % MANY], current=n, total=10**9) for n in progress))
                sent += 24
            await asyncio.sleep(0.001)

    async def look_up(port: int) -> None:
        while not is_over:
            before = time.perf_counter()
            await fetch(port, f"/tasks/{random.choice(ids)}")
            lookups.append(time.perf_counter() - before)
            await asyncio.sleep(0.01)

    with collecting_rarely():
        async with served(house) as port, asyncio.TaskGroup() as group:
            for each in (tick(), load(), look_up(port)):
                group.create_task(each)
            try:
                responses = await asyncio.gather(
                    fetch(port, f"/workflows/{ids[0]}"),
                    fetch(port, f"/workflows/{ids[0]}?fields=state"),
                    fetch(port, f"/tasks?root_id={ids[0]}&limit=1000"),
                    fetch(port, "/tasks?name=nothing*"),
                )
            finally:
                is_over = True
    lookups.sort()
    print(
        f"the loop was held for {max(gaps) * 1000:.1f} ms at most;"
        f" a task took {lookups[len(lookups) // 2] * 1000:.1f} ms, p99"
        f" {lookups[int(len(lookups) * 0.99)] * 1000:.1f} ms of {len(lookups)}"
    )
    assert max(gaps) < 0.1  # measured: 10 ms. The machine that tests this may have other things to do.
    answers = [content(chunks) for chunks in responses]
    for tree in answers[:2]:
        assert (tree["total"], sum(tree["counts"].values()), len(tree["tasks"])) == (MANY, MANY, 1)
        parents = {}
        left = [(None, tree["tasks"][0])]
        while left:
            above, task = left.pop()
            parents[task["uuid"]] = above
            left += [(task["uuid"], child) for child in task["children"]]
        assert parents == {uid: ids[(n - 1) // 2] if n else None for n, uid in enumerate(ids)}
    assert uuids(answers[2]) == ids[:-1001:-1]
    assert uuids(answers[3]) == []


async def test_clients_that_do_not_read_a_large_workflow_keep_nobody_from_it() -> None:
    house = House(slow_seconds=0.3)
    house.put(*(known(f"t{n}", "t0", args="x" * 1_000) for n in range(5_000)))
    async with served(house) as port:
        stalled = []
        try:
            for _ in range(MAX_LARGE_ANSWERS + 1):
                stalled.append(client := socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", port))
                client.sendall(b"GET /workflows/t0 HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(20):
                tree = content(await fetch(port, "/workflows/t0"))
            assert tree["total"] == 5_000
            assert content(await fetch(port, "/healthz")) == {"status": "alive"}
        finally:
            for client in stalled:
                client.close()


async def test_a_page_of_very_long_texts_is_shorter_and_goes_on() -> None:
    house = House()
    for n in range(600):
        house.put(known(f"t{n}"), step("failed", f"t{n}", exception="x", traceback="y" * 30_000))
    got: list[str] = []
    path, sizes = "/tasks?limit=1000", []
    while True:
        page = await house.get(path)
        got += uuids(page)
        sizes.append(len(page["tasks"]))
        if page["cursor"] is None:
            break
        path = f"/tasks?limit=1000&cursor={page['cursor']}"
    assert got == [f"t{n}" for n in range(599, -1, -1)]
    assert len(sizes) > 1
    assert max(sizes) * 30_000 < 1.1 * MAX_PAGE_BYTES


# ---------------------------------------------------------------------------------- broker and worker


def test_the_stream_goes_on_from_the_position_of_an_answer(
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


def test_the_tasks_of_a_real_worker_are_seen(gateway: GatewayProcess, celery: Celery, worker: Worker) -> None:
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
    # (A worker sends a chain's next task before it says that the one before has succeeded.)
    path = [each["uuid"] for each in tree["critical_path"]]
    assert path in ([root.id, result.parent.id, result.id], [root.id, result.parent.id])
    task = tree["tasks"][0]
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


def test_a_worker_that_is_killed_is_silent_then_offline_and_its_task_lost(
    broker: str, celery: Celery, folder: Path, worker: Worker
) -> None:
    """It says nothing any more: after 15 seconds that is seen, and after the timeout it is gone."""
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
            assert SILENT_SECONDS - 3 < time.monotonic() - killed_at < SILENT_SECONDS + 3
            assert httpx.get(f"{gateway.url}/tasks/{uid}").json()["stale"] is False, "it may be busy"
            (lost,) = stream.until(bool, 15)
        assert timeout_seconds - 3 < time.monotonic() - killed_at < timeout_seconds + 5
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
