"""Events whose values are lies: a producer cannot show its events to others, or end what others wait for.

The values of the first `task-sent` or `task-received` of a task count. docs/security.md has what a hostile
producer can still do.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.stream import completion
from tests.support.asgi_exchange import Exchange
from tests.support.state_gateway import Event, StateGateway, heartbeat, known, step
from tests.support.token_issuer import issuer_file, token

pytestmark = pytest.mark.unit


class Victim:
    """A gateway, and a client with a scope."""

    def __init__(self, folder: Path, scope: list[dict[str, Any]], **options: Any) -> None:
        self.gateway = StateGateway(authenticator=Authenticator(issuer_file(folder)), **options)
        claim = {"any": scope, "may": ["events", "state", "workers"]}
        self.headers = {"authorization": f"Bearer {token(celery_gateway=claim)}"}
        self.everything = {"authorization": f"Bearer {token(celery_gateway={}, sub='admin')}"}

    def begin(self, target: str, *, is_admin: bool = False) -> Exchange:
        return Exchange(self.gateway.app, target, headers=self.everything if is_admin else self.headers)

    async def get(self, target: str, *, is_admin: bool = False) -> Any:
        return json.loads((await self.begin(target, is_admin=is_admin).done()).body)

    async def replayed(self, query: str = "") -> list[Event]:
        """The events that the client can read, and the end of the gateway."""
        stream = await self.begin(f"/events?since=earliest&format=ndjson&{query}").begun()
        self.gateway.pipeline.hub.close()
        messages = (await stream.done()).messages
        return [message for message in messages if not message["type"].startswith("gateway-")]


def sent(uuid: str, root: str | None = None, **fields: Any) -> Event:
    return known(uuid, root) | {"type": "task-sent", "queue": "theirs"} | fields


CLAIMS = {"name": "shop.pay", "root_id": "mine", "parent_id": "mine", "queue": "mine", "state": "SUCCESS"}
SCOPES = [[{field: value}] for field, value in CLAIMS.items()] + [[{"root_id": ["mine"], "name": "shop.*"}]]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
@pytest.mark.parametrize(
    "lies",
    [
        [step("progress", "theirs", **CLAIMS)],
        [{"type": "audit", "hostname": "w@h", "timestamp": 1.0} | CLAIMS],
        [{"type": "audit", "uuid": "theirs", "hostname": "w@h", "timestamp": 1.0} | CLAIMS],
        [step("progress", "never-named", **CLAIMS)],
        [known("theirs", "theirs", name="bank.pay"), known("theirs", **CLAIMS)],
        [sent("theirs", "theirs", name="bank.pay"), sent("theirs", **CLAIMS), known("theirs", **CLAIMS)],
        [sent("theirs", name="bank.pay"), known("theirs", name="bank.pay"), sent("theirs", **CLAIMS)],
    ],
    ids=["custom", "no-task", "other-group", "never-named", "received-twice", "sent-twice", "sent-again"],
)
async def test_lies_reach_nobody(tmp_path: Path, scope: list[dict[str, Any]], lies: list[Event]) -> None:
    victim = Victim(tmp_path, scope)
    victim.gateway.put(sent("theirs", "theirs", name="bank.pay"), *lies)
    live = await victim.begin("/events?format=ndjson&snapshot=1").begun()
    victim.gateway.put(*lies)
    assert (await victim.get("/tasks"))["tasks"] == []
    assert (await victim.begin("/tasks/theirs").done()).status == 404
    assert (await victim.begin("/workflows/mine").done()).status == 404
    assert await victim.replayed() == []
    messages = (await live.done()).messages
    assert not [message for message in messages if "uuid" in message or message.get("tasks")]


async def test_a_later_event_does_not_move_a_task_into_another_workflow(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"root_id": "mine"}])
    victim.gateway.put(known("mine"), known("child", "mine"), sent("theirs", "theirs"))
    lies = [
        known("child", "theirs"),
        sent("child", "theirs"),
        known("theirs", "mine"),
        sent("theirs", "mine"),
    ]
    victim.gateway.put(*lies)
    for is_admin in (False, True):
        tree = await victim.get("/workflows/mine", is_admin=is_admin)
        assert tree["total"] == 2
        listed = await victim.get("/tasks?root_id=mine", is_admin=is_admin)
        assert {task["uuid"] for task in listed["tasks"]} == {"mine", "child"}
    assert (await victim.get("/workflows/theirs", is_admin=True))["total"] == 1


async def test_the_queue_of_a_task_is_that_of_its_first_task_sent(tmp_path: Path) -> None:
    """It may arrive after `task-received`, which names no queue. A third event changes nothing."""
    victim = Victim(tmp_path, [{"queue": "mine"}])
    victim.gateway.put(known("a"), sent("a", queue="mine"), sent("a", queue="theirs"))
    victim.gateway.put(known("b"), sent("b", queue="theirs"), sent("b", queue="mine"))
    victim.gateway.put(known("c", queue="mine"), step("progress", "c", queue="mine"))
    assert [task["uuid"] for task in (await victim.get("/tasks"))["tasks"]] == ["a"]
    assert {event["uuid"] for event in await victim.replayed()} == {"a"}


async def test_an_event_is_of_the_broker_that_it_came_from(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"cluster": "eu"}], clusters=("eu", "us"))
    victim.gateway.put(known("a", cluster="us"), cluster="eu")
    victim.gateway.put(known("b", cluster="eu"), {"type": "audit", "cluster": "eu"}, cluster="us")
    victim.gateway.put(heartbeat("w@us", cluster="eu"), cluster="us")
    assert [task["uuid"] for task in (await victim.get("/tasks"))["tasks"]] == ["a"]
    workers = (await victim.get("/workers"))["workers"]
    assert {(worker["hostname"], worker["cluster"]) for worker in workers} == {("w1@host", "eu")}
    assert (await victim.begin("/tasks/b").done()).status == 404
    assert (await victim.begin("/tasks/b?cluster=us").done()).status == 404
    assert [event["uuid"] for event in await victim.replayed()] == ["a"]


async def test_the_same_uuid_of_another_broker_makes_nothing_ambiguous(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"cluster": "eu"}], clusters=("eu", "us"))
    for cluster in ("eu", "us"):
        victim.gateway.put(known("a"), step("succeeded", "a"), cluster=cluster)
    for target in ("/tasks/a", "/workflows/a"):
        assert (await victim.begin(target, is_admin=True).done()).status == 409
        response = await victim.begin(target).done()
        assert response.status == 200 and b'"us"' not in response.body
    ended = await victim.begin("/events?uuid=a&until=ready&format=ndjson").done()
    assert (ended.messages[-1]["reason"], ended.messages[-1]["known"]) == ("ready", 1)


async def test_messages_of_the_gateway_itself_cannot_be_forged(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"uuid": "*"}])
    types = ("gateway-close", "gateway-gap", "gateway-snapshot", "gateway-open", "GATEWAY-CLOSE", "gateway-x")
    victim.gateway.put(*({"type": type, "uuid": "a", "reason": "expired"} for type in types), known("a"))
    events = await victim.replayed()
    assert {event["type"] for event in events} <= {"task-received", "GATEWAY-CLOSE"}


async def test_an_event_cannot_bring_its_record(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"uuid": "a"}])
    forged = {"uuid": "a", "state": "SUCCESS", "result": "forged"}
    victim.gateway.put(known("a"), step("progress", "a", record=forged))
    for event in await victim.replayed("view=record"):
        assert event["record"]["state"] != "SUCCESS" and event["record"]["result"] is None


# ------------------------------------------------------------------------------------- until=ready


async def test_a_forged_state_ends_nothing(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"root_id": "mine"}])
    victim.gateway.put(sent("mine"), known("mine"), step("started", "mine"))
    waiting = await victim.begin("/events?uuid=mine&until=ready&format=ndjson").begun()
    victim.gateway.put(
        step("progress", "mine", state="SUCCESS"),
        {"type": "audit", "uuid": "mine", "state": "SUCCESS"},
        step("success", "mine"),
        step("succeeded", "theirs", root_id="mine", name="shop.pay", state="SUCCESS"),
    )
    await until_flushed(victim)
    assert not waiting.is_done
    victim.gateway.put(step("succeeded", "mine"))
    assert (await waiting.done()).messages[-1]["reason"] == "ready"


async def test_a_workflow_is_ready_whoever_claims_to_belong_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "QUIET_SECONDS", 0.3)
    victim = Victim(tmp_path, [{"root_id": "mine"}])
    victim.gateway.put(sent("mine"), known("mine"), sent("child", "mine"))
    lies = [
        step("progress", "never-named", name="bank.x", root_id="mine", progress=0.1),
        {"type": "audit", "root_id": "mine"},
        known("theirs", "theirs"),
        known("theirs", "mine"),
        step("progress", "theirs", root_id="mine"),
    ]
    victim.gateway.put(*lies)
    waiting = await victim.begin("/events?root_id=mine&until=ready&format=ndjson").begun()
    victim.gateway.put(known("child", "mine"), step("succeeded", "child"))
    await until_flushed(victim)
    assert not waiting.is_done, "one of two tasks has ended"
    victim.gateway.put(step("succeeded", "mine"))
    async with asyncio.timeout(30):
        while not waiting.is_done:  # further lies do not make it wait longer
            victim.gateway.put(*lies)
            await asyncio.sleep(0.05)
    end = waiting.messages[-1]
    assert (end["reason"], end["known"], end["ready"], end["sent_events"]) == ("ready", 2, 2, True)


async def test_a_workflow_of_lies_alone_is_unknown(tmp_path: Path) -> None:
    victim = Victim(tmp_path, [{"root_id": "mine"}], wait_known_seconds=0.1)
    victim.gateway.put(step("progress", "never-named", name="bank.x", root_id="mine"))
    end = (await victim.begin("/events?root_id=mine&until=ready&format=ndjson").done()).messages[-1]
    assert end["reason"] == "unknown" and "never-named" not in json.dumps(end)
    # And a task that is named later counts from then on.
    victim.gateway.put(known("never-named", "mine"), step("succeeded", "never-named"))
    later = await victim.begin("/events?root_id=mine&until=ready&quiet_time=0&format=ndjson").done()
    assert (later.messages[-1]["reason"], later.messages[-1]["known"]) == ("ready", 1)


async def until_flushed(victim: Victim) -> None:
    hub = victim.gateway.pipeline.hub
    async with asyncio.timeout(30):
        while hub.id_of(hub.position) != hub.id:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
