"""`GET /tasks/counts`: compared with the tasks of all pages, counted in plain Python."""

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.http import fair_share
from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.task_counts import MAX_VALUES, VALUES_PER_STEP
from tests.support.asgi_exchange import Exchange
from tests.support.state_gateway import StateGateway, known, step
from tests.support.task_histories import everything, history
from tests.support.thorough import tries
from tests.support.token_issuer import issuer_file, token

FIELDS = ("state", "name", "queue", "hostname")
QUERIES = (
    "",
    "state=SUCCESS,FAILURE",
    "name=shop.*&since=20m",
    "q=paris",
    "runtime>=0.5",
    "stale=0",
    "uuid=Id-1,Id-2,x",
    "root_id=Id-*",
    "state=NOTHING",
)


def counted(tasks: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    values = {"hostname": lambda task: task["worker"] or task["client"]}
    return {
        field: dict(Counter(values.get(field, lambda task, f=field: task[f])(task) or "" for task in tasks))
        for field in FIELDS
    }


@pytest.mark.parametrize("seed", range(tries(8)))
async def test_numbers_are_those_of_all_pages(seed: int) -> None:
    chance = random.Random(seed)
    gateway = StateGateway(max_tasks=120)
    gateway.put(*history(chance, chance.choice([0, 1, 100, 200])))
    for query in QUERIES:
        tasks = await everything(gateway, query)
        body = await gateway.get(f"/tasks/counts?by=state,name&by=queue,hostname,state&{query}&format=json")
        assert body["total"] == len(tasks), query
        assert body["counts"] == counted(tasks), query
        assert (body["other"], body["id"]) == ({}, gateway.pipeline.hub.id.decode())
        one = await gateway.get(f"/tasks/counts?{query}")
        assert one["counts"] == {"state": counted(tasks)["state"]}, "the default"


async def test_values_are_sorted_by_number_and_the_rest_is_counted_together() -> None:
    gateway = StateGateway()
    many = MAX_VALUES + 20
    gateway.put(*(known(f"t{n}", name=f"n{n:05}") for n in range(many)))
    gateway.put(*(known(f"u{n}", name="often") for n in range(3)), known("v", name="n00007"))
    for query in ("by=name,state", "by=name,state&state=RECEIVED"):
        body = await gateway.get(f"/tasks/counts?{query}")
        names = body["counts"]["name"]
        assert list(names.items())[:3] == [("often", 3), ("n00007", 2), next(iter([*names.items()][2:]))]
        assert (len(names), body["other"]) == (MAX_VALUES, {"name": many + 4 - sum(names.values())})
        assert body["counts"]["state"] == {"RECEIVED": many + 4}
        assert body["total"] == many + 4


async def test_values_are_selected_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the statistics have the numbers, so that no task is counted."""
    pauses = 0
    pause = FairShare.pause

    async def counted_pause(share: FairShare) -> None:
        nonlocal pauses
        pauses += 1
        await pause(share)

    monkeypatch.setattr(fair_share, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(FairShare, "pause", counted_pause)
    gateway = StateGateway()
    gateway.put(*(known(f"t{n}", name=f"n{n}") for n in range(900)))
    assert len((await gateway.get("/tasks/counts?by=name"))["counts"]["name"]) == 900
    assert pauses >= 900 // VALUES_PER_STEP


async def test_a_task_without_a_value_counts_under_an_empty_key() -> None:
    gateway = StateGateway()
    gateway.put(known("a", queue=None))
    for query in ("by=queue", "by=queue&uuid=a"):
        assert (await gateway.get(f"/tasks/counts?{query}"))["counts"] == {"queue": {"": 1}}


@pytest.mark.parametrize("by", ["", "colour", "state,", "state,,name", "State", "uuid", "*", "x" * 50_000])
async def test_bad_fields_get_400(by: str) -> None:
    gateway = StateGateway()
    error = await gateway.get_error(f"/tasks/counts?by={by}", 400)
    assert (error["code"], error["parameter"], error["allowed"]) == ("bad-value", "by", list(FIELDS))
    for query in ("limit=5", "sort=oldest", "cursor=x", "fields=name"):
        assert (await gateway.get_error(f"/tasks/counts?{query}", 400))["code"] == "unknown-parameter"


async def test_numbers_are_as_of_their_position_while_tasks_change() -> None:
    gateway = StateGateway()
    gateway.put(*(known(f"t{n}") for n in range(3_000)))
    stop = asyncio.Event()
    fresh = iter(range(3_000, 10**9))

    async def go_on() -> None:
        while not stop.is_set():
            uid = f"t{random.randrange(3_000)}"
            gateway.put(step("started", uid), known(f"t{next(fresh)}"))
            await asyncio.sleep(0)

    running = asyncio.create_task(go_on())
    for _ in range(4):
        body = await gateway.get("/tasks/counts?by=state&name=shop.*")
        position = int(body["id"].partition("-")[2])
        history = gateway.pipeline.hub.history
        states: dict[str, str] = {}
        for entry in history.after(history.evicted, position - history.evicted):
            event = json.loads(entry.json)
            states[event["uuid"]] = event["state"]
        assert body["counts"]["state"] == Counter(states.values())
        assert body["total"] == len(states)
    assert body["counts"]["state"]["STARTED"]
    stop.set()
    await running


async def test_counts_within_a_scope(tmp_path: Path) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)))
    sent = {"type": "task-sent", "queue": "q1", "hostname": "gen1@host", "timestamp": time.time()}
    gateway.put(known("a") | sent, known("b", name="bank.pay") | sent, known("c"))

    async def ask(query: str, scope: dict[str, Any]) -> Any:
        headers = {"authorization": f"Bearer {token(celery_gateway=scope, sub=json.dumps(scope)[:60])}"}
        exchange = await Exchange(gateway.app, f"/tasks/counts?{query}", headers=headers).done()
        return exchange.status, json.loads(exchange.body)

    shop = {"any": [{"name": "shop.*"}]}
    assert (await ask("by=name", {}))[1]["counts"] == {"name": {"shop.pay": 2, "bank.pay": 1}}
    assert (await ask("by=name,queue", shop))[1]["counts"] == {
        "name": {"shop.pay": 2},
        "queue": {"": 1, "q1": 1},
    }
    assert (await ask("by=name", {"any": []}))[1] == {
        "total": 0,
        "counts": {"name": {}},
        "other": {},
        "id": gateway.pipeline.hub.id.decode(),
    }
    for scope in (shop | {"hide": ["queue", "worker"]}, {"hide": ["queue", "client"]}):
        assert (await ask("by=name,state", scope))[0] == 200
        for field in ("queue", "hostname"):
            status, body = await ask(f"by=name,{field}", scope)
            assert (status, body["error"]["parameter"]) == (403, "by")
