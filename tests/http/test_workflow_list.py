"""`GET /workflows`: compared with the workflows of all tasks, put together in plain Python."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.http.workflow_query import WORKFLOW_FIELDS
from celery_gateway.state.workflow_counts import TALLY_MEMBERS
from tests.support.asgi_exchange import Exchange
from tests.support.cpu_time import scaled
from tests.support.state_gateway import StateGateway, known, step
from tests.support.task_histories import NOW, Task, everything
from tests.support.thorough import tries
from tests.support.token_issuer import issuer_file, token

Workflow = dict[str, Any]
READY = ("SUCCESS", "FAILURE", "REVOKED")
EDGE = int(NOW) - 1_550.0
EDGE_TEXT = datetime.fromtimestamp(EDGE, UTC).isoformat()
IDLE = ("PENDING", "RECEIVED", "RETRY", "REJECTED", "CANCELLED")


def move(chance: random.Random, uid: str) -> list[Task]:
    """Events that move a task to a random state."""
    at = {"timestamp": NOW - chance.randrange(0, 500, 10)}
    started = step("started", uid) | at
    return chance.choice(
        [
            [],
            [started],
            [started, step("progress", uid, progress=chance.choice([0.25, 0.5])) | at],
            [started, step("retried", uid, exception="E()") | at],
            [started, step("succeeded", uid, result="1", runtime=1.0) | at],
            [started, step("succeeded", uid, result="1", runtime=1.0) | at],
            [started, step("failed", uid, exception="E()") | at],
            [step("revoked", uid) | at],
        ]
    )


def history(chance: random.Random, roots: int, members: int) -> list[Task]:
    """Events of workflows; of some the root task is not known."""
    events: list[Task] = []
    for number in range(roots):
        root = f"root-{number}"
        at = NOW - chance.randrange(0, 3_000, 100)
        if chance.random() < 0.8:
            name = chance.choice(["shop.checkout", "mail.all"])
            events.append(known(root, root, name=name, args="('Paris',)", timestamp=at))
            events += move(chance, root)
        for child in range(chance.choice([0, 0, 1, 3, members])):
            uid = f"{root}-{child}"
            events.append(known(uid, root, parent_id=root, name="shop.step", timestamp=at + child))
            events += move(chance, uid)
    return events


def workflows(tasks: list[Task]) -> list[Workflow]:
    """The workflows of tasks, which are given the newest first; the newest workflow first."""
    by_root: dict[str, list[Task]] = {}
    for task in reversed(tasks):
        by_root.setdefault(task["root_id"], []).append(task)
    found = []
    for root_id, members in by_root.items():
        counts = Counter(task["state"] or "PENDING" for task in members)
        ready = [task for task in members if task["state"] in READY]
        running = any(task["state"] not in (*READY, *IDLE, "LOST") for task in members)
        failed = counts["FAILURE"] + counts["REVOKED"]
        state = "failed" if failed else "succeeded"
        if len(ready) < len(members):
            state = "running" if running else "lost" if counts["LOST"] else "waiting"
        root = next((task for task in members if task["uuid"] == root_id), None)
        first = root or members[0]
        ends = [task["succeeded"] or task["failed"] or task["revoked"] for task in ready]
        found.append(
            {
                "root_id": root_id,
                "name": root and root["name"],
                "state": state,
                "total": len(members),
                "ready": len(ready),
                "failed": failed,
                "counts": {name: number for name, number in counts.items() if number},
                "progress": pytest.approx(
                    sum(1 if t["state"] in READY else t["progress"] or 0 for t in members) / len(members)
                ),
                "begun": first["sent"] or first["received"] or first["started"],
                "ended": max(ends) if state in ("failed", "succeeded") else None,
                "root": root,
            }
        )
    return found[::-1]


def shown(workflow: Workflow) -> Workflow:
    return {name: value for name, value in workflow.items() if name != "root"}


async def all_pages(gateway: StateGateway, query: str = "") -> list[Workflow]:
    found: list[Workflow] = []
    cursor = ""
    while True:
        page = await gateway.get(f"/workflows?limit={random.randint(1, 25)}&{query}{cursor}")
        found += page["workflows"]
        if page["cursor"] is None:
            return found
        cursor = f"&cursor={page['cursor']}"


QUERIES: dict[str, Callable[[Workflow], Any]] = {
    "": lambda w: True,
    "format=json": lambda w: True,
    "state=running": lambda w: w["state"] == "running",
    "state=failed,waiting": lambda w: w["state"] in ("failed", "waiting"),
    "state=!succeeded&state=!failed": lambda w: w["state"] not in ("succeeded", "failed"),
    "state=running,waiting,!waiting": lambda w: w["state"] == "running",
    "total>=2": lambda w: w["total"] >= 2,
    "total=1": lambda w: w["total"] == 1,
    "failed>0&ready<3": lambda w: w["failed"] and w["ready"] < 3,
    "name=shop.*": lambda w: w["root"] and w["root"]["name"].startswith("shop."),
    "name=!shop.*": lambda w: not w["root"] or not w["root"]["name"].startswith("shop."),
    "root_id=root-1,root-2": lambda w: w["root_id"] in ("root-1", "root-2"),
    "root_id=root-1*": lambda w: w["root_id"].startswith("root-1"),
    "uuid=root-3": lambda w: w["root_id"] == "root-3",
    "hostname=w1@host": lambda w: w["root"],
    "q=PARIS": lambda w: w["root"] and "Paris" in w["root"]["args"],
    "q=root-4": lambda w: w["root_id"] == "root-4",
    "q=OOT-1": lambda w: "oot-1" in w["root_id"],
    f"since={EDGE_TEXT}": lambda w: w["begun"] >= EDGE,
    f"before={EDGE_TEXT}": lambda w: w["begun"] < EDGE,
    "parent_id=x": lambda w: False,
}


@pytest.mark.parametrize("seed", range(tries(12)))
async def test_pages_are_those_of_a_list_in_plain_python(seed: int) -> None:
    chance = random.Random(seed)
    gateway = StateGateway()
    events = history(chance, chance.choice([1, 12, 25]), chance.choice([5, TALLY_MEMBERS + 10]))
    gateway.put(*events)
    uids = [event["uuid"] for event in events]
    for _ in range(2):
        reference = workflows(await everything(gateway))
        for query, fits in QUERIES.items():
            expected = [shown(workflow) for workflow in reference if fits(workflow)]
            assert await all_pages(gateway, query) == expected, query
            if chance.random() < 0.3:
                assert await all_pages(gateway, f"{query}&sort=oldest") == expected[::-1], query
        for uid in chance.sample(uids, min(len(uids), 30)):  # also to states of before: new runs
            gateway.put(
                *move(chance, uid), known(uid, "-".join(uid.split("-")[:2]), timestamp=NOW - 200, args="()")
            )


async def test_evicted_tasks_leave_their_workflows() -> None:
    chance = random.Random(5)
    gateway = StateGateway(max_tasks=60)
    for _ in range(10):
        gateway.put(*history(chance, 8, TALLY_MEMBERS + 5))
        reference = workflows(await everything(gateway))
        found = await all_pages(gateway)
        assert {w["root_id"]: (w["state"], w["total"], w["ready"], w["counts"]) for w in found} == {
            w["root_id"]: (w["state"], w["total"], w["ready"], w["counts"]) for w in reference
        }


async def test_a_list_agrees_with_the_workflow_itself() -> None:
    gateway = StateGateway()
    gateway.put(*history(random.Random(3), 20, TALLY_MEMBERS + 3))
    for workflow in await all_pages(gateway):
        whole = await gateway.get(f"/workflows/{workflow['root_id']}")
        for field in ("total", "ready", "counts"):
            assert workflow[field] == whole[field]
        assert workflow["progress"] == pytest.approx(whole["progress"])
        assert tuple(workflow) == tuple(field for field in WORKFLOW_FIELDS if field != "cluster")


async def test_lost_tasks_fields_and_clusters() -> None:
    gateway = StateGateway(clusters=("eu", "us"))
    gateway.put(known("r", name="of.eu"), step("started", "r"), cluster="eu")
    gateway.put(known("r", name="of.us"), known("c", "r"), cluster="us")
    both = (await gateway.get("/workflows"))["workflows"]
    assert [(w["root_id"], w["cluster"], w["total"], w["name"]) for w in both] == [
        ("r", "us", 2, "of.us"),
        ("r", "eu", 1, "of.eu"),
    ]
    for query in ("cluster=eu", "name=of.eu", "q=r&cluster=eu", "root_id=r&cluster=eu", "state=running"):
        (one,) = (await gateway.get(f"/workflows?{query}"))["workflows"]
        assert one["cluster"] == "eu"
    (record,) = gateway.pipeline.tasks.find("r", "eu")
    assert record.current is not None and record.current.process is not None
    gateway.pipeline.tasks.mark_lost(record.current.process, "test", time.time())
    body = await gateway.get("/workflows?state=lost&fields=state,counts")
    assert body["workflows"] == [{"root_id": "r", "state": "lost", "counts": {"LOST": 1}}]
    assert set(body) == {"workflows", "cursor", "id"}


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("state=SUCCESS", "bad-value", "state"),
        ("state=", "bad-value", "state"),
        ("state=run*", "bad-value", "state"),
        ("state=!!lost", "bad-value", "state"),
        ("sort=-total", "bad-value", "sort"),
        ("total>=-1", "bad-value", "total"),
        ("total>=1m", "bad-value", "total"),
        ("runtime>=1", "unknown-parameter", "runtime>=1"),
        ("stale=1", "unknown-parameter", "stale"),
        ("limit=0", "bad-value", "limit"),
        ("fields=tasks", "bad-value", "fields"),
        ("fields=name,", "empty-value", "fields"),
        ("cursor=x", "bad-value", "cursor"),
        ("q=", "empty-value", "q"),
        ("since=x", "bad-value", "since"),
        ("format=xml", "bad-value", "format"),
        ("total=1&total=1", "bad-value", "total"),
        ("type=task_failed", "bad-value", "type"),
    ],
)
async def test_bad_values_get_400_with_the_parameter(query: str, code: str, parameter: str) -> None:
    gateway = StateGateway()
    gateway.put(known("a"))
    error = await gateway.get_error(f"/workflows?{query}", 400)
    assert (error["code"], error["parameter"]) == (code, parameter)


async def test_a_cursor_is_for_the_same_query() -> None:
    gateway = StateGateway()
    gateway.put(*(known(f"r{n}") for n in range(5)))
    cursor = (await gateway.get("/workflows?limit=2&name=shop.*"))["cursor"]
    page = await gateway.get(f"/workflows?limit=9&name=shop.*&fields=state&cursor={cursor}")
    assert [w["root_id"] for w in page["workflows"]] == ["r2", "r1", "r0"]
    for other in ("", "name=shop.pay", "name=shop.*&sort=oldest", "name=shop.*&state=waiting"):
        error = await gateway.get_error(f"/workflows?{other}&cursor={cursor}", 400)
        assert (error["code"], error["parameter"]) == ("bad-value", "cursor")
    assert (await gateway.get_error(f"/tasks?name=shop.*&cursor={cursor}", 400))["code"] == "bad-value"
    gateway.put(known("r2-child", "r2"), known("new"))
    later = await gateway.get(f"/workflows?limit=9&name=shop.*&cursor={cursor}")
    assert [(w["root_id"], w["total"]) for w in later["workflows"]] == [("r2", 2), ("r1", 1), ("r0", 1)]


@pytest.mark.parametrize("scope", [{}, {"any": [{"name": "shop.*"}]}])
async def test_a_page_is_as_of_its_position_while_tasks_change(tmp_path: Path, scope: dict[str, Any]) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)))
    headers = {"authorization": f"Bearer {token(celery_gateway=scope)}"}
    gateway.put(*(known(f"t{n}", f"r{n % 300}") for n in range(3_000)))
    stop = asyncio.Event()
    fresh = iter(range(3_000, 10**9))

    async def go_on() -> None:
        while not stop.is_set():
            uid = f"t{random.randrange(3_000)}"
            number = next(fresh)
            gateway.put(step("started", uid), known(f"t{number}", f"r{number % 310}"))
            await asyncio.sleep(0)

    running = asyncio.create_task(go_on())
    for _ in range(3):
        exchange = await Exchange(gateway.app, "/workflows?limit=1000", headers=headers).done()
        body = json.loads(exchange.body)
        position = int(body["id"].partition("-")[2])
        log = gateway.pipeline.hub.history
        states: dict[str, tuple[str, str]] = {}
        for entry in log.after(log.evicted, position - log.evicted):
            event = json.loads(entry.json)
            states[event["uuid"]] = event["root_id"], event["state"]
        expected: dict[str, Counter[str]] = {}
        for root_id, state in states.values():
            expected.setdefault(root_id, Counter())[state] += 1
        assert {w["root_id"]: w["counts"] for w in body["workflows"]} == expected
    stop.set()
    await running


async def test_workflows_within_a_scope(tmp_path: Path) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)))
    chance = random.Random(8)
    gateway.put(*history(chance, 30, TALLY_MEMBERS + 5))
    tasks = [json.loads(record.view()) for record in gateway.pipeline.tasks.newest()]

    async def ask(query: str, scope: dict[str, Any]) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub=str(hash(str(scope))))}"}
        exchange = await Exchange(gateway.app, f"/workflows?{query}", headers=headers).done()
        return exchange.status, json.loads(exchange.body)

    def seen(name: str) -> Callable[[Task], bool]:
        return lambda task: task["name"].startswith(name)

    scopes: list[tuple[dict[str, Any], Callable[[Task], bool]]] = [
        ({"any": [{"name": "shop.step"}]}, seen("shop.step")),
        ({"any": [{"name": "shop.*"}]}, seen("shop.")),
        ({"any": [{"root_id": ["root-1", "root-7"]}]}, lambda t: t["root_id"] in ("root-1", "root-7")),
        ({"any": [{"root_id": "root-1*"}]}, lambda t: t["root_id"].startswith("root-1")),
        ({"any": [{"uuid": ["root-1", "root-7-0"]}]}, lambda t: t["uuid"] in ("root-1", "root-7-0")),
        ({"any": [{"parent_id": "root-7"}]}, lambda t: t["parent_id"] == "root-7"),
        ({"any": [{"state": "FAILURE"}]}, lambda t: t["state"] == "FAILURE"),
        ({"any": []}, lambda t: False),
    ]
    for scope, is_seen in scopes:
        reference = workflows([task for task in tasks if is_seen(task)])
        order = [w["root_id"] for w in workflows(tasks)]
        reference.sort(key=lambda w: order.index(w["root_id"]))
        for query, fits in QUERIES.items():
            status, body = await ask(f"{query}&limit=1000", scope)
            assert status == 200
            assert body["workflows"] == [shown(w) for w in reference if fits(w)], (scope, query)
    hidden = {"hide": ["progress", "received", "succeeded", "failed"]}
    status, body = await ask("limit=5", hidden)
    assert status == 200
    assert set(body["workflows"][0]) == {*WORKFLOW_FIELDS} - {
        *("cluster", "progress", "begun", "ended", "failed"),
    }
    for query, parameter in (("since=1h", "since"), ("failed>=1", "failed"), ("hostname=x", "hostname")):
        status, body = await ask(query, {"hide": ["sent", "failed", "hostname"]})
        assert (status, body["error"]["parameter"]) == (403, parameter)
    assert (await ask(f"q={quote('paris')}", {"hide": ["args"]}))[1]["workflows"] == []


@pytest.mark.timing
async def test_a_list_is_cheap_with_many_workflows_and_with_large_ones() -> None:
    gateway = StateGateway()
    for start in range(0, 20_000, 1_000):
        gateway.put(*(known(f"s{n}") for n in range(start, start + 1_000)))
        gateway.put(*(known(f"m{n}", "large") for n in range(start, start + 1_000)))
    gateway.put(*(step("started", f"m{n}") for n in range(8)))
    for query in (
        "",
        "total>=2",
        "state=running",
        "q=large",
        "root_id=large",
        "since=1970-01-01T00:00:00Z&sort=oldest",
    ):
        begin = time.process_time()
        body = await gateway.get(f"/workflows?limit=100&{query}")
        spent = time.process_time() - begin
        assert body["workflows"]
        assert spent < scaled(0.1), (query, spent)
        if query in ("total>=2", "state=running"):
            (large,) = body["workflows"]
            assert large["counts"] == {"RECEIVED": 19_992, "STARTED": 8}
