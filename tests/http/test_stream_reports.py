"""What a stream reports beside events: workers, statistics, skipped events. Over every transport."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from celery_gateway import __version__
from celery_gateway.access.authenticator import Authenticator
from celery_gateway.pipeline.about import About
from celery_gateway.state.worker_status import SILENT_SECONDS
from tests.support.asgi_exchange import Exchange
from tests.support.live_streams import KINDS, Stream, served
from tests.support.served_gateway import until
from tests.support.state_gateway import StateGateway
from tests.support.token_issuer import issuer_file, token
from tests.support.virtual_time import run

pytestmark = pytest.mark.unit

Message = dict[str, Any]
EVERYTHING = {"workers": "1", "statistics": "1s", "window": "5m", "max_rate": "1000"}


def heartbeat(hostname: str = "a@host", **fields: Any) -> Message:
    """A worker's event, of now."""
    return {"type": "worker-heartbeat", "hostname": hostname, "pid": 1, "clock": 1, "freq": 2.0} | fields


def started(name: str, number: int = 1, **fields: Any) -> list[Message]:
    """The first events of a task."""
    base = {"uuid": f"{name}-{number}", "hostname": "a@host", "pid": 1, "name": name} | fields
    return [{"type": "task-received", "clock": 2} | base, {"type": "task-started", "clock": 3} | base]


def of_type(messages: list[Message], type: str) -> list[Message]:
    return [message for message in messages if message["type"] == f"gateway-{type}"]


def workers(messages: list[Message]) -> list[tuple[str, str]]:
    """Return the hostname and the status of each reported worker."""
    reported = [message["worker"] for message in of_type(messages, "worker")]
    return [(worker["hostname"], worker["status"]) for worker in reported]


def names(messages: list[Message]) -> list[str]:
    return [item["name"] for message in of_type(messages, "statistics") for item in message["names"]]


@pytest.mark.parametrize("path", ["direct", "portable"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "post"])
async def test_reports_over_every_transport(kind: str, path: str) -> None:
    gateway = StateGateway()
    gateway.put(heartbeat("a@host"), heartbeat("b@host"), *started("shop.pay"))
    async with served(gateway, path) as port:
        stream = await Stream(kind, (), query=urlencode(EVERYTHING)).open(gateway.app, port)
        await until(lambda: len(workers(stream.messages)) == 2 and names(stream.messages))
        assert [message["type"] for message in stream.messages[:2]] == ["gateway-open", "gateway-status"]
        assert workers(stream.messages) == [("a@host", "online"), ("b@host", "online")]
        (statistics,) = of_type(stream.messages, "statistics")
        assert (statistics["window"], [item["name"] for item in statistics["names"]]) == (300.0, ["shop.pay"])
        assert statistics["total"]["running"] == 1 and statistics["other"] is None
        assert statistics["done"] is True
        gateway.put(heartbeat("c@host"), *started("shop.send"))
        await until(lambda: len(workers(stream.messages)) == 3 and len(names(stream.messages)) == 2)
        assert workers(stream.messages)[2:] == [("c@host", "online")], "only what is new"
        assert names(stream.messages) == ["shop.pay", "shop.send"], "only what has changed"
        ids = [gateway.pipeline.hub.position_of(message["id"]) for message in stream.messages]
        assert ids == sorted(ids, key=lambda id: id or 0)
        assert [each["uuid"] for each in stream.messages if "uuid" in each] == ["shop.send-1"] * 2
        gateway.pipeline.hub.close()
        await stream.task


async def test_a_post_and_an_open_stream_have_reports_too() -> None:
    gateway = StateGateway()
    gateway.put(heartbeat(), *started("shop.pay"))
    body = {"workers": True, "statistics": "1s", "window": "1h", "max_rate": 100}
    posted = Exchange(gateway.app, "/events?format=ndjson", method="POST", body=json.dumps(body).encode())
    await posted.begun()
    await posted.until(lambda stream: workers(stream.messages) and names(stream.messages))
    posted.disconnect()
    await posted.done()

    websocket = await Exchange(gateway.app, "/ws", subprotocols=()).begun()
    websocket.send_json({"op": "open"} | body)
    await websocket.until(lambda stream: workers(stream.messages) and names(stream.messages))
    websocket.send_json({"op": "open"})
    await websocket.until(lambda stream: len(of_type(stream.messages, "open")) == 3)
    assert (len(workers(websocket.messages)), len(names(websocket.messages))) == (1, 1)
    websocket.disconnect()
    await websocket.done()


@pytest.mark.parametrize(
    ("values", "parameter", "allowed"),
    [
        ({"workers": "yes"}, "workers", ["0", "1"]),
        ({"statistics": "5"}, "statistics", ["1s", "5m"]),
        ({"statistics": "999ms"}, "statistics", ["1s", "5m"]),
        ({"statistics": "6m"}, "statistics", ["1s", "5m"]),
        ({"statistics": "5s", "window": "59s"}, "window", ["1m", "24h"]),
        ({"statistics": "5s", "window": "25h"}, "window", ["1m", "24h"]),
        ({"window": "1h"}, "window", []),
        ({"max_rate": "0"}, "max_rate", ["1", "100000"]),
        ({"max_rate": "100001"}, "max_rate", ["1", "100000"]),
        ({"max_rate": "1.5"}, "max_rate", ["1", "100000"]),
        ({"max_rate": "\u0665"}, "max_rate", ["1", "100000"]),
    ],
)
async def test_a_bad_value_is_an_error(values: dict[str, str], parameter: str, allowed: list[str]) -> None:
    gateway = StateGateway()
    responses = [
        await gateway.request(f"/events?{urlencode(values)}"),
        await Exchange(gateway.app, "/events", method="POST", body=json.dumps(values).encode()).done(),
    ]
    for response in responses:
        text = response.body if isinstance(response, Exchange) else response.content
        error = json.loads(text)["error"]
        assert (error["code"], error["parameter"]) == ("bad-value", parameter)
        if parameter != "workers":
            assert error["allowed"] == allowed
    websocket = await Exchange(gateway.app, "/ws", subprotocols=()).begun()
    websocket.send_json({"op": "open"} | values)
    await websocket.until(lambda stream: of_type(stream.messages, "error"))
    assert of_type(websocket.messages, "error")[0]["parameter"] == parameter
    websocket.disconnect()
    await websocket.done()


@pytest.mark.parametrize("value", [None, False, True, 0, 1, "0", "1"], ids=repr)
async def test_forms_of_a_flag_in_json(value: object) -> None:
    gateway = StateGateway()
    gateway.put(heartbeat())
    body = json.dumps({"workers": value, "statistics": "1s"}).encode()
    stream = await Exchange(gateway.app, "/events?format=ndjson", method="POST", body=body).begun()
    await stream.until(lambda stream: of_type(stream.messages, "statistics"))
    if value in (True, 1, "1"):
        await stream.until(lambda stream: workers(stream.messages))
    assert bool(workers(stream.messages)) == (value in (True, 1, "1"))
    stream.disconnect()
    await stream.done()


@pytest.mark.parametrize(("value", "found"), [(True, "a boolean"), (1.5, "1.5"), ([], "a list")], ids=repr)
async def test_a_value_that_is_no_integer_is_an_error(value: object, found: str) -> None:
    for name in ("max_rate", "max_event_bytes"):
        body = json.dumps({name: value}).encode()
        response = await Exchange(StateGateway().app, "/events", method="POST", body=body).done()
        error = json.loads(response.body)["error"]
        assert (response.status, error["parameter"]) == (400, name)
        assert error["message"] == f'invalid "{name}": it is {found}; it must be an integer'


async def test_a_number_that_is_no_flag_is_an_error() -> None:
    gateway = StateGateway()
    for value in (2, [], {}, "true"):
        body = json.dumps({"workers": value}).encode()
        response = await Exchange(gateway.app, "/events", method="POST", body=body).done()
        assert response.status == 400 and json.loads(response.body)["error"]["parameter"] == "workers"


def test_a_worker_that_was_killed_is_reported_within_a_second() -> None:
    """It sends nothing more, and no other event comes."""

    async def main() -> None:
        gateway = StateGateway()
        gateway.put(heartbeat())
        stream = await Exchange(gateway.app, "/events?workers=1&format=ndjson").begun()
        await stream.until(lambda stream: workers(stream.messages))
        gateway.put(heartbeat(clock=2))
        await asyncio.sleep(SILENT_SECONDS - 0.1)
        assert len(workers(stream.messages)) == 1
        await asyncio.sleep(1.2)
        assert workers(stream.messages)[1:] == [("a@host", "silent")]
        report = of_type(stream.messages, "worker")[1]
        assert report["worker"]["alive"] is False and report["id"] == gateway.pipeline.hub.id.decode()
        gateway.put(heartbeat(clock=3))
        await stream.until(lambda stream: len(workers(stream.messages)) > 2)
        assert workers(stream.messages)[2:] == [("a@host", "online")]
        gateway.put(heartbeat(clock=4, type="worker-offline"))
        await stream.until(lambda stream: len(workers(stream.messages)) > 3)
        assert workers(stream.messages)[3:] == [("a@host", "offline")]
        await asyncio.sleep(30)
        assert len(workers(stream.messages)) == 4, "and nothing that has not changed"
        stream.disconnect()
        await stream.done()

    run(main())


def test_whether_a_worker_sends_task_events_is_reported() -> None:
    async def main() -> None:
        gateway = StateGateway()
        stream = await Exchange(gateway.app, "/events?workers=1&format=ndjson").begun()
        for number in range(8):
            gateway.put(heartbeat(clock=number, processed=min(number, 3), active=0))
            await asyncio.sleep(2)
        gateway.put(*started("shop.pay"))
        await asyncio.sleep(2)
        reported = [message["worker"]["sends_task_events"] for message in of_type(stream.messages, "worker")]
        assert reported == [None, False, True]
        stream.disconnect()
        await stream.done()

    run(main())


def test_statistics_are_sent_at_their_interval_if_anything_has_changed() -> None:
    async def main() -> None:
        gateway = StateGateway()
        gateway.put(*started("shop.pay"))
        stream = await Exchange(gateway.app, "/events?statistics=5s&format=ndjson").begun()
        await stream.until(lambda stream: names(stream.messages))
        for number in range(40):
            gateway.put(*started("shop.send", number))
            await asyncio.sleep(0.5)
        count = len(of_type(stream.messages, "statistics"))
        assert 4 <= count <= 6
        await asyncio.sleep(6)
        sent = names(stream.messages)
        await asyncio.sleep(20)
        assert names(stream.messages) == sent and sent[0] == "shop.pay"
        assert set(sent[1:]) == {"shop.send"}
        last = of_type(stream.messages, "statistics")[-1]
        assert last["names"][0]["running"] == 40 and last["total"]["running"] == 41
        stream.disconnect()
        await stream.done()

    run(main())


async def test_a_stream_that_begins_with_the_workers_of_a_snapshot_gets_only_changes() -> None:
    gateway = StateGateway()
    gateway.put(heartbeat())
    first = await Exchange(gateway.app, "/events?workers=1&format=ndjson").begun()
    await first.until(lambda stream: workers(stream.messages))
    stream = await Exchange(gateway.app, "/events?snapshot=1&workers=1&format=ndjson").begun()
    await stream.until(lambda stream: of_type(stream.messages, "snapshot"))
    gateway.put(heartbeat("b@host"))
    await stream.until(lambda stream: workers(stream.messages))
    assert workers(stream.messages) == [("b@host", "online")]
    (page,) = of_type(stream.messages, "snapshot")
    assert [worker["hostname"] for worker in page["workers"]] == ["a@host"]
    for each in (first, stream):
        each.disconnect()
        await each.done()


async def test_a_resumed_stream_gets_the_workers_as_they_are_now() -> None:
    gateway = StateGateway()
    id = gateway.pipeline.hub.id.decode()
    gateway.put(heartbeat(), *[event for number in range(300) for event in started("shop.pay", number)])
    query = f"last_event_id={id}&workers=1&statistics=1s&format=ndjson"
    stream = await Exchange(gateway.app, f"/events?{query}").begun()
    await stream.until(
        lambda stream: workers(stream.messages) and sum("uuid" in each for each in stream.messages) == 600
    )
    assert workers(stream.messages) == [("a@host", "online")]
    positions = [gateway.pipeline.hub.position_of(each["id"]) or 0 for each in stream.messages]
    assert positions == sorted(positions)
    stream.disconnect()
    await stream.done()


async def test_a_rate_over_http() -> None:
    gateway = StateGateway()
    stream = await Exchange(gateway.app, "/events?max_rate=5&format=ndjson").begun()
    gateway.put(*[{"type": "audit", "number": number} for number in range(100)])
    await stream.until(lambda stream: of_type(stream.messages, "skipped"))
    await stream.until(lambda stream: sum(each["type"] == "audit" for each in stream.messages) == 5)
    assert [each["number"] for each in stream.messages if each["type"] == "audit"] == [95, 96, 97, 98, 99]
    gateway.put(*[{"type": "audit", "number": number} for number in range(100)])
    await stream.until(lambda stream: len(of_type(stream.messages, "skipped")) == 2)
    assert (
        sum(each["count"] for each in of_type(stream.messages, "skipped"))
        + sum(each["type"] == "audit" for each in stream.messages)
        == 200
    )
    stream.disconnect()
    await stream.done()


async def test_streams_that_ask_for_nothing_have_no_timer() -> None:
    gateway = StateGateway()
    gateway.put(heartbeat())
    plain = await Exchange(gateway.app, "/events?format=ndjson").begun()
    reporting = gateway.pipeline.reporting
    assert reporting._timer._handle is None and reporting._watch._handle is None
    stream = await Exchange(gateway.app, "/events?workers=1&statistics=1s&format=ndjson").begun()
    await stream.until(lambda stream: workers(stream.messages))
    stream.disconnect()
    await stream.done()
    await until(lambda: reporting._timer._handle is None)
    assert reporting._watch._handle is None and not reporting._shares._shared and not len(reporting._timer)
    assert gateway.pipeline.limits.memory.used < 10_000
    plain.disconnect()
    await plain.done()


async def test_what_the_status_has_about_the_gateway() -> None:
    gateway = StateGateway(about=About(control=True, actions=("revoke",)))
    stream = await Exchange(gateway.app, "/events?format=ndjson").begun()
    await stream.until(lambda stream: of_type(stream.messages, "status"))
    (status,) = of_type(stream.messages, "status")
    assert {name: status[name] for name in ("version", "control", "actions")} == {
        "version": __version__,
        "control": True,
        "actions": ["revoke"],
    }
    assert 0 < status["started"] <= status["sources"][0]["since"]
    stream.disconnect()
    await stream.done()


SCOPES: dict[str, dict[str, Any]] = {
    "all": {"may": ["events", "state", "workers"]},
    "events": {"may": ["events"]},
    "no-workers": {"may": ["events", "state"]},
    "no-hostnames": {"hide": ["hostname"], "may": ["events", "state", "workers"]},
    "shop": {"any": [{"name": "shop.*"}], "may": ["events", "state", "workers"]},
    "host": {"any": [{"hostname": "a@*"}], "may": ["events", "state", "workers"]},
    "hidden": {"hide": ["loadavg", "sw_ver", "runtime"], "may": ["events", "state", "workers"]},
}


async def _open(folder: Path, scope: str, query: str) -> tuple[StateGateway, Exchange]:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(folder)))
    gateway.put(heartbeat("a@host", loadavg=[1.0, 1.0, 1.0], sw_ver="5.5"), heartbeat("b@host"))
    gateway.put(*started("shop.pay"), *started("bank.pay"))
    headers = {"authorization": f"Bearer {token(celery_gateway=SCOPES[scope], sub=scope)}"}
    return gateway, await Exchange(gateway.app, f"/events?format=ndjson&{query}", headers=headers).begun()


@pytest.mark.parametrize(
    ("scope", "query", "parameter"),
    [
        ("events", "workers=1", "workers"),
        ("no-workers", "workers=1", "workers"),
        ("no-hostnames", "workers=1", "workers"),  # a report would have no identity
        ("events", "statistics=5s", "statistics"),
    ],
)
async def test_reports_that_a_scope_does_not_allow(
    tmp_path: Path, scope: str, query: str, parameter: str
) -> None:
    _, stream = await _open(tmp_path, scope, query)
    await stream.done()
    assert stream.status == 403
    error = json.loads(stream.body)["error"]
    assert (error["code"], error["parameter"]) == ("forbidden", parameter)


@pytest.mark.parametrize(
    ("scope", "hosts", "shown"),
    [
        ("all", ["a@host", "b@host"], ["bank.pay", "shop.pay"]),
        ("shop", [], ["shop.pay"]),
        ("host", ["a@host"], []),
        ("hidden", ["a@host", "b@host"], ["bank.pay", "shop.pay"]),
    ],
)
async def test_reports_have_what_a_scope_shows(
    tmp_path: Path, scope: str, hosts: list[str], shown: list[str]
) -> None:
    gateway, stream = await _open(tmp_path, scope, "workers=1&statistics=1s")
    await stream.until(
        lambda stream: of_type(stream.messages, "statistics") and len(workers(stream.messages)) == len(hosts)
    )
    gateway.put({"type": "task-succeeded", "uuid": "bank.pay-1", "hostname": "a@host", "pid": 1, "clock": 4})
    gateway.put(heartbeat("c@host", clock=9))
    if scope == "all":
        await stream.until(lambda stream: len(workers(stream.messages)) == len(hosts) + 1)
        hosts = [*hosts, "c@host"]
    await asyncio.sleep(0)
    found = [hostname for hostname, _ in workers(stream.messages)]
    assert found[: len(hosts)] == hosts and set(found) <= {*hosts, *(["c@host"] if scope == "hidden" else [])}
    assert sorted(set(names(stream.messages))) == shown
    first = of_type(stream.messages, "statistics")[0]
    assert first["total"]["running"] == len(shown)
    if scope == "hidden":
        for report in of_type(stream.messages, "worker"):
            assert not {"loadavg", "sw_ver"} & report["worker"].keys()
        assert first["names"][0]["runtime"] is None
    stream.disconnect()
    await stream.done()
