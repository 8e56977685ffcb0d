"""`GET /tasks` with a text, times, comparisons and orders: compared with lists made in plain Python."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.state.criteria import SEARCHED_FIELDS
from celery_gateway.state.task_order import ORDERS
from tests.support.asgi_exchange import Exchange
from tests.support.cpu_time import scaled
from tests.support.state_gateway import StateGateway, known, step, uuids
from tests.support.task_histories import NOW, Task, everything, history
from tests.support.thorough import tries
from tests.support.token_issuer import issuer_file, token


def begun(task: Task) -> float | None:
    return task["sent"] or task["received"] or task["started"]


def ended(task: Task) -> float | None:
    kind = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "revoked"}.get(task["state"])
    return None if kind is None else task[kind]


def has_text(text: str) -> Callable[[Task], bool]:
    def check(task: Task) -> bool:
        return any(text.casefold() in (task[field] or "").casefold() for field in SEARCHED_FIELDS)

    return check


COMPARED = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "=": lambda a, b: a == b,
}


def random_query(chance: random.Random) -> tuple[str, list[Callable[[Task], bool]]]:
    """A query and the conditions that it means."""
    parts: list[str] = []
    checks: list[Callable[[Task], bool]] = []
    if chance.random() < 0.5:
        text = chance.choice(["paris", "ID-1", "%", "ÜNÏ", "STRASSE", "keyerror('p", "nothing", "hop.p"])
        parts.append(f"q={quote(text)}")
        checks.append(has_text(text))
    for field in chance.sample(["runtime", "queued_seconds", "attempt", "retries", "progress"], 2):
        if chance.random() < 0.4:
            operator, value = chance.choice(list(COMPARED)), chance.choice([0, 0.5, 1, 2, 4])
            written = f"{field}{operator}{value}"
            parts.append(chance.choice([written, quote(written), quote(written).replace("%3D", "=")]))
            checks.append(
                lambda task, f=field, o=operator, v=value: task[f] is not None and COMPARED[o](task[f], v)
            )
    for name in ("since", "before"):
        if chance.random() < 0.3:
            at = int(NOW) - chance.randrange(0, 3_000, 50) - 0.5
            written = datetime.fromtimestamp(at, UTC).isoformat()  # with a plus sign
            parts.append(f"{name}={quote(written) if chance.random() < 0.5 else written}")
            checks.append(
                lambda task, n=name, at=at: begun(task) is not None and (begun(task) >= at) == (n == "since")  # type: ignore[operator]
            )
    if chance.random() < 0.2:
        parts.append("name=shop.*")
        checks.append(lambda task: task["name"].startswith("shop."))
    if chance.random() < 0.1:
        parts.append("stale=0")
        checks.append(lambda task: not task["stale"])
    return "&".join(parts), checks


def in_order(tasks: list[Task], order: str) -> list[Task]:
    """Sort tasks, which are given the newest first."""
    if order in ("newest", "oldest"):
        return tasks if order == "newest" else tasks[::-1]
    field = order.removeprefix("-")
    value_of = {"begun": begun, "ended": ended}.get(field, lambda task: task[field])
    known_ones = [task for task in tasks if value_of(task) is not None]
    known_ones.sort(key=value_of, reverse=order.startswith("-"))  # type: ignore[arg-type]
    return known_ones + [task for task in tasks if value_of(task) is None]


@pytest.mark.parametrize("seed", range(tries(16)))
async def test_pages_are_those_of_a_list_in_plain_python(seed: int) -> None:
    chance = random.Random(seed)
    gateway = StateGateway()
    gateway.put(*history(chance, chance.choice([0, 1, 30, 150])))
    tasks = await everything(gateway)
    for _ in range(12):
        query, checks = random_query(chance)
        order = chance.choice(ORDERS)
        expected = [task for task in in_order(tasks, order) if all(check(task) for check in checks)]
        found = await everything(gateway, f"{query}&sort={order}")
        assert [task["uuid"] for task in found] == [task["uuid"] for task in expected], (query, order)
        assert found == expected
        if order == "newest":
            assert await everything(gateway, query) == expected


@pytest.mark.parametrize("order", ["newest", "oldest", "-runtime", "ended"])
async def test_pages_have_each_task_at_most_once_while_others_arrive(order: str) -> None:
    chance = random.Random(1)
    gateway = StateGateway(max_tasks=300)
    gateway.put(*history(chance, 200))
    before = {task["uuid"]: task for task in await everything(gateway)}
    found: list[str] = []
    cursor = ""
    while True:
        page = await gateway.get(f"/tasks?limit=17&sort={order}{cursor}")
        found += uuids(page)
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
        fresh = f"new-{len(found)}"
        gateway.put(known(fresh, timestamp=NOW), step("started", fresh) | {"timestamp": NOW + 1})
        gateway.put(step("succeeded", fresh, runtime=chance.random()) | {"timestamp": NOW + 2})
    assert len(found) == len(set(found))
    assert set(before) <= set(found)


@pytest.mark.parametrize("query", ["sort=-progress&limit=20", "sort=oldest&limit=20&state=PROGRESS", "q=Id-"])
async def test_a_page_is_as_of_its_position_while_tasks_change(query: str) -> None:
    """It is the beginning of the list at that position: nothing that came meanwhile is missing."""
    gateway = StateGateway()
    gateway.put(*(event for n in range(3_000) for event in (known(f"Id-{n}"), step("started", f"Id-{n}"))))
    stop = asyncio.Event()

    async def go_on() -> None:
        while not stop.is_set():
            uid = f"Id-{random.randrange(3_000)}"
            gateway.put(step("progress", uid, progress=random.random()))
            await asyncio.sleep(0)

    running = asyncio.create_task(go_on())
    for _ in range(4):
        page = await gateway.get(f"/tasks?{query}&fields=progress")
        position = int(page["id"].partition("-")[2])
        history = gateway.pipeline.hub.history
        replayed: dict[str, float] = {}
        for entry in history.after(history.evicted, position - history.evicted):
            event = json.loads(entry.json)
            if event["type"] == "task-progress":
                replayed[event["uuid"]] = event["progress"]
        newest = [f"Id-{n}" for n in reversed(range(3_000))]
        expected = {
            "sort=-progress&limit=20": sorted(newest, key=lambda uid: -replayed.get(uid, -1.0)),
            "sort=oldest&limit=20&state=PROGRESS": [uid for uid in reversed(newest) if uid in replayed],
            "q=Id-": newest,
        }[query]
        assert uuids(page) == expected[: len(page["tasks"])]
        assert [task["progress"] for task in page["tasks"]] == [replayed.get(uid) for uid in uuids(page)]
    assert replayed
    stop.set()
    await running


async def test_a_text_that_is_the_id_of_a_task_finds_this_task_alone() -> None:
    gateway = StateGateway()
    gateway.put(known("a-1"), known("b", args="('a-1',)"), known("a-12"))
    assert uuids(await gateway.get("/tasks?q=a-1")) == ["a-1"]
    assert uuids(await gateway.get("/tasks?q=A-1")) == ["a-12", "b", "a-1"]
    assert uuids(await gateway.get("/tasks?q=a-1&name=other")) == []


async def test_a_cursor_is_for_the_same_filter_and_order() -> None:
    gateway = StateGateway()
    gateway.put(*(known(f"t{n}", args="(1,)", timestamp=NOW + n) for n in range(9)))
    for query in ("", "sort=-runtime", "q=1", "name=shop.*", "attempt>=0&since=1h"):
        page = await gateway.get(f"/tasks?limit=2&{query}")
        cursor = page["cursor"]
        assert len(uuids(await gateway.get(f"/tasks?limit=3&fields=name&cursor={cursor}&{query}"))) == 3
        for other in ("sort=runtime", "q=2", "name=shop.p*", "attempt>=1", "sort=oldest"):
            error = await gateway.get_error(f"/tasks?{query}&{other}&cursor={cursor}".replace("?&", "?"), 400)
            assert error["code"] == "bad-value"
            assert error["parameter"] in ("cursor", "sort", "q", "attempt"), "or it is repeated"
        error = await gateway.get_error(f"/tasks?state=RECEIVED&cursor={cursor}&{query}", 400)
        assert (error["code"], error["parameter"]) == ("bad-value", "cursor")
        assert "other parameters" in error["message"]
    error = await gateway.get_error(f"/workflows?cursor={cursor}", 400)
    assert (error["code"], error["parameter"]) == ("bad-value", "cursor")
    same = await gateway.get("/tasks?limit=2&name=shop.*&q=1")
    assert await gateway.get(f"/tasks?q=1&name=shop.*&cursor={same['cursor']}&_=7&format=json")


BAD = [
    ("q=", "empty-value", "q"),
    (f"q={'x' * 1_001}", "value-too-long", "q"),
    ("q=a&q=b", "bad-value", "q"),
    ("q=%00", "bad-value", "q"),
    ("sort=", "bad-value", "sort"),
    ("sort=Newest", "bad-value", "sort"),
    ("sort=-newest", "bad-value", "sort"),
    ("sort=name", "bad-value", "sort"),
    ("sort=runtime&sort=runtime", "bad-value", "sort"),
    ("since=", "bad-value", "since"),
    ("since=earliest", "bad-value", "since"),
    ("since=2026-11-21T08:31:00", "bad-value", "since"),
    ("since=-5m", "bad-value", "since"),
    ("since=1e3s", "bad-value", "since"),
    ("before=5", "bad-value", "before"),
    ("before=%D9%A15m", "bad-value", "before"),
    ("before=9999-99-99T00:00:00Z", "bad-value", "before"),
    ("since=1m&since=2m", "bad-value", "since"),
    ("stale=true", "bad-value", "stale"),
    ("stale=", "bad-value", "stale"),
    ("format=html", "bad-value", "format"),
    ("runtime", "bad-value", "runtime"),
    ("runtime=", "bad-value", "runtime"),
    ("runtime>", "bad-value", "runtime"),
    ("runtime>=", "bad-value", "runtime"),
    ("runtime>=nan", "bad-value", "runtime"),
    ("runtime>=inf", "bad-value", "runtime"),
    ("runtime>=1e999", "bad-value", "runtime"),
    ("runtime>=1e3", "bad-value", "runtime"),
    ("runtime>=-1", "bad-value", "runtime"),
    ("runtime>=+1", "bad-value", "runtime"),
    ("runtime>=%D9%A1", "bad-value", "runtime"),
    ("runtime>=1_000", "bad-value", "runtime"),
    ("runtime>=0x10", "bad-value", "runtime"),
    ("runtime>=1%00", "bad-value", "runtime"),
    ("runtime>=1%0A", "bad-value", "runtime"),
    (f"runtime>={'9' * 400}", "bad-value", "runtime"),
    ("runtime>==1", "bad-value", "runtime"),
    ("runtime>>1", "bad-value", "runtime"),
    ("runtime<>1", "bad-value", "runtime"),
    ("runtime=<1", "bad-value", "runtime"),
    ("runtime>1=2", "bad-value", "runtime"),
    ("runtime>=1&runtime>=2", "bad-value", "runtime"),
    ("runtime>1&runtime%3E1", "bad-value", "runtime"),
    ("attempt>=2m", "bad-value", "attempt"),
    ("progress>=50%25", "bad-value", "progress"),
    ("runtime >=1", "unknown-parameter", "runtime >=1"),
    ("Runtime>=1", "unknown-parameter", "Runtime>=1"),
    ("name>=1", "unknown-parameter", "name>=1"),
    ("pid>1", "unknown-parameter", "pid>1"),
    (">1", "unknown-parameter", ">1"),
    ("a<b>c", "unknown-parameter", "a<b>c"),
    ("runtime!=1", "unknown-parameter", "runtime!"),
    ("total>=2", "unknown-parameter", "total>=2"),
]


@pytest.mark.parametrize("path", ["/tasks", "/tasks/counts"])
async def test_bad_values_get_400_with_the_parameter(path: str) -> None:
    gateway = StateGateway()
    gateway.put(known("a"))
    for query, code, parameter in BAD:
        if query.startswith("sort") and path != "/tasks":
            code, parameter = "unknown-parameter", "sort"
        error = await gateway.get_error(f"{path}?{query}", 400)
        assert (error["code"], error["parameter"]) == (code, parameter), query
        assert len(error["message"]) < 600, "a long value is cut"


async def test_ages_and_absent_values() -> None:
    gateway, now = StateGateway(), time.time()
    gateway.put(known("long", timestamp=now - 900), step("started", "long") | {"timestamp": now - 890})
    gateway.put(step("succeeded", "long", runtime=300.0) | {"timestamp": now - 590})
    gateway.put(known("new", timestamp=now - 10))
    for query, expected in {
        "runtime>=5m": ["long"],
        "runtime>=300s": ["long"],
        "runtime>5m": [],
        "runtime<1h": ["long"],
        "runtime>=0": ["long"],
        "runtime<=300000ms": ["long"],
        "queued_seconds=10": ["long"],
        "since=5m": ["new"],
        "before=5m": ["long"],
        "since=20m&before=5m": ["long"],
        "since=1d": ["new", "long"],
        "stale=1": [],
        "stale=0": ["new", "long"],
        "attempt=1": ["new", "long"],
        "retries>=0&retries<1": ["new", "long"],
        "progress=1": ["long"],
    }.items():
        assert uuids(await gateway.get(f"/tasks?{query}")) == expected, query


async def test_hidden_fields_are_neither_searched_nor_compared_nor_sorted(tmp_path: Any) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)))
    gateway.put(known("a", args="('needle',)"), step("started", "a"))
    gateway.put(step("failed", "a", exception="needle", traceback="needle"))

    async def ask(query: str, *hide: str) -> Exchange:
        scope = {"hide": list(hide)}
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub='of-' + ','.join(hide))}"}
        return await Exchange(gateway.app, query, headers=headers).done()

    shown = await ask("/tasks?q=needle")
    assert shown.status == 200 and b'"uuid":"a"' in shown.body
    assert b'"uuid":"a"' in (await ask("/tasks?q=needle", "args")).body, "the exception has it, too"
    for path in ("/tasks", "/tasks/counts"):
        hidden = await ask(f"{path}?q=needle", "args", "exception")
        assert hidden.status == 200 and b'"a"' not in hidden.body and b'"total":1' not in hidden.body
    for query, hide, parameter in (
        ("runtime>=0", "runtime", "runtime"),
        ("progress=1", "progress", "progress"),
        ("since=1h", "received", "since"),
        ("before=1h", "sent", "before"),
        ("stale=1", "lost", "stale"),
        ("sort=runtime", "runtime", "sort"),
        ("sort=-ended", "failed", "sort"),
        ("sort=begun", "started", "sort"),
    ):
        refused = await ask(f"/tasks?{query}", hide)
        assert refused.status == 403, query
        assert json.loads(refused.body)["error"]["code"] == "forbidden"
        assert json.loads(refused.body)["error"]["parameter"] == parameter
        assert (await ask(f"/tasks?{query}", "args")).status == 200


@pytest.mark.timing
async def test_a_search_in_many_tasks_takes_little_time_and_goes_in_slices() -> None:
    gateway = StateGateway()
    for start in range(0, 20_000, 1_000):
        gateway.put(
            *(
                known(f"0c7e9b1a-{n:012}", args=f"({n}, 'an address of a customer')", kwargs="{'x': 1}")
                for n in range(start, start + 1_000)
            )
        )
    for query in ("q=nothing-has-this", "q=19999,", "sort=-runtime", "runtime>=5", "name=x*"):
        begin, waited = time.process_time(), 0.0
        running = asyncio.ensure_future(gateway.get(f"/tasks?limit=100&{query}"))
        while not running.done():
            at = time.process_time()
            await asyncio.sleep(0)
            waited = max(waited, time.process_time() - at)
        spent = time.process_time() - begin
        assert spent < scaled(0.1), (query, spent)
        assert waited < scaled(0.05), (query, waited)
