"""Two gateways with one log, as their users see them: the same stream, the same state, and restarts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream, SseStream

TASKS = 30
OPTIONS = ("--log", "rabbitmq", "--history-bytes", "40000", "--allow", "revoke")
"""The history has some dozen events: what is older is read from the log."""


@pytest.fixture(scope="module")
def gateways(broker: str, folder: Path) -> Iterator[list[GatewayProcess]]:
    """The first one leads."""
    made = [GatewayProcess(broker, folder, options=OPTIONS) for _ in range(2)]
    try:
        for gateway in made:
            gateway.start()
        yield made
    finally:
        for gateway in made:
            gateway.stop()


@pytest.fixture(scope="module")
def events(gateways: list[GatewayProcess], publisher: Publisher) -> list[dict[str, Any]]:
    """The events of some tasks, as the first gateway has sent them live."""
    with NdjsonStream(gateways[0].url) as stream:
        for _ in range(TASKS):
            publisher.send(*walk())
        return list(stream.until(lambda events: len(events) >= 3 * TASKS, 40))


def read(gateway: GatewayProcess, count: int, **params: str) -> list[dict[str, Any]]:
    with NdjsonStream(gateway.url, params) as stream:
        return list(stream.until(lambda events: len(events) >= count, 40))


def as_bytes(events: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(event) for event in events]


def metric(gateway: GatewayProcess, name: str) -> float:
    for line in httpx.get(f"{gateway.url}/metrics").text.splitlines():
        if line.startswith(f"celery_gateway_{name} "):
            return float(line.split()[1])
    raise AssertionError(f"there is no metric {name}")


def test_each_gateway_has_every_entry_of_the_log(
    gateways: list[GatewayProcess], events: list[dict[str, Any]]
) -> None:
    for gateway in gateways:
        assert as_bytes(read(gateway, len(events), since="earliest")) == as_bytes(events)


def test_a_client_resumes_at_the_other_gateway_behind_any_entry(
    gateways: list[GatewayProcess], events: list[dict[str, Any]]
) -> None:
    for at in (0, 1, len(events) // 2, len(events) - 2):
        last = events[at]["id"]
        for gateway in gateways:
            rest = events[at + 1 :]
            assert as_bytes(read(gateway, len(rest), last_event_id=last)) == as_bytes(rest)
        with SseStream(gateways[1].url, headers={"Last-Event-ID": last}) as stream:
            assert stream.opened["resume"] == "resumed"


def test_an_unknown_id_is_a_reset_and_a_gap(gateways: list[GatewayProcess]) -> None:
    for gateway in gateways:
        with NdjsonStream(gateway.url, {"last_event_id": "0badc0de-7"}) as stream:
            assert stream.opened["resume"] == "reset"
            (gap,) = stream.until(bool, 40)
            assert (gap["type"], gap["reason"]) == ("gateway-gap", "unknown-id")


def test_an_event_that_is_not_in_memory(gateways: list[GatewayProcess], events: list[dict[str, Any]]) -> None:
    for gateway in gateways:
        assert metric(gateway, "history_evicted_total") > 0
        assert httpx.get(f"{gateway.url}/events/{events[0]['id']}").json() == events[0]
        assert httpx.get(f"{gateway.url}/events/{events[0]['id']}0000").status_code == 404


def test_pages_and_etags_hold_at_each_gateway(
    gateways: list[GatewayProcess], events: list[dict[str, Any]]
) -> None:
    """A client that a load balancer sends from one gateway to the other."""
    found: list[str] = []
    cursor: str | None = None
    for turn in range(TASKS):
        pages = [
            httpx.get(f"{gateway.url}/tasks", params={"limit": 7} | ({"cursor": cursor} if cursor else {}))
            for gateway in (gateways if turn % 2 else gateways[::-1])
        ]
        assert pages[0].text == pages[1].text
        assert pages[0].headers["etag"] == pages[1].headers["etag"]
        found += [task["uuid"] for task in pages[0].json()["tasks"]]
        cursor = pages[0].json()["cursor"]
        if cursor is None:
            break
    assert found == list(dict.fromkeys(event["uuid"] for event in reversed(events)))


def test_the_metrics_of_the_log(gateways: list[GatewayProcess], events: list[dict[str, Any]]) -> None:
    assert [metric(gateway, "log_leading") for gateway in gateways] == [1, 0]
    for gateway in gateways:
        assert metric(gateway, "log_connected") == metric(gateway, "log_warm") == 1
        assert metric(gateway, "log_position") >= len(events)
        assert metric(gateway, "log_silent_seconds") < 30


def test_after_a_restart_everything_is_known_and_what_happened_meanwhile_too(
    broker: str,
    folder: Path,
    gateways: list[GatewayProcess],
    events: list[dict[str, Any]],
    publisher: Publisher,
) -> None:
    task = walk()
    publisher.send(task[0])
    last = read(gateways[0], 1, uuid=task[0]["uuid"], since="earliest")[-1]
    for gateway in gateways:
        assert gateway.stop() == 0
    publisher.send(*task[1:], *walk("shop.later"))
    for gateway in gateways:
        gateway.launch()
    for gateway in gateways:
        assert wait_for(gateway.is_ready, 40), gateway.tail()
        with NdjsonStream(
            gateway.url, {"last_event_id": last["id"], "until": "ready", "uuid": last["uuid"]}
        ) as stream:
            assert stream.opened["resume"] == "resumed"
            assert stream.closed(40)
            types = [event["type"] for event in stream.until(bool, 1)]
            assert types == ["task-started", "task-succeeded", "gateway-close"]
            end = stream.last_event_id
        again = {"last_event_id": end, "until": "ready", "uuid": last["uuid"]}
        assert httpx.get(f"{gateway.url}/events", params=again).status_code == 204
        for uuid in (events[0]["uuid"], last["uuid"]):
            assert httpx.get(f"{gateway.url}/tasks/{uuid}").json()["state"] == "SUCCESS"
        later = read(gateway, 3, name="shop.later", since="earliest")
        assert [event["type"] for event in later] == ["task-received", "task-started", "task-succeeded"]
    gaps = read(gateways[0], 1, last_event_id=events[-1]["id"])
    assert not [event for event in gaps if event["type"] == "gateway-gap"]


def test_a_gateway_that_cannot_reach_its_log_says_so_and_serves_no_stream(broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder, options=("--log", "amqp://user:secret@127.0.0.1:1"))
    gateway.launch()
    try:
        assert wait_for(lambda: "log: " in gateway.tail(), 40)
        ready = httpx.get(f"{gateway.url}/readyz")
        assert ready.status_code == 503
        assert "127.0.0.1:1" in ready.json()["reason"]
        for path in ("/events", "/tasks", "/workers", "/ws"):
            response = httpx.get(f"{gateway.url}{path}")
            assert (response.status_code, response.json()["error"]["code"]) == (503, "log-warming")
            assert response.headers["retry-after"] == "1"
        assert httpx.get(f"{gateway.url}/metrics").status_code == 200
        assert "secret" not in gateway.tail(100) + ready.text
    finally:
        assert gateway.stop() == 0


def test_events_that_wait_for_their_task_wait_on_at_the_next_leader(
    gateways: list[GatewayProcess], publisher: Publisher
) -> None:
    """The leader stops while an event waits for the name of its task."""
    uid = "waits-for-its-name"
    started, named = walk(uid=uid)[1], received(uid, "shop.late")
    publisher.send(started)
    leader = next(gateway for gateway in gateways if metric(gateway, "log_leading"))
    survivor = gateways[0] if leader is gateways[1] else gateways[1]
    leader.stop()
    publisher.send(named)
    found = read(survivor, 2, uuid=uid, since="earliest")
    leader.start()
    assert sorted(event["type"] for event in found) == ["task-received", "task-started"]
    assert len({event["id"] for event in found}) == 2


def test_an_action_is_told_by_the_gateway_that_got_it(
    gateways: list[GatewayProcess], publisher: Publisher
) -> None:
    """It is no entry of the log, so the streams are otherwise the same, also their ids."""
    uid = uuid4().hex
    publisher.send(received(uid, "shop.pay"))
    for gateway in gateways:
        wait_for(lambda url=gateway.url: httpx.get(f"{url}/tasks/{uid}").status_code == 200, 20)  # type: ignore[misc]
    with NdjsonStream(gateways[0].url, {"uuid": uid}) as leading, NdjsonStream(gateways[1].url) as following:
        for gateway in gateways:
            url, headers = f"{gateway.url}/tasks/{uid}/revoke", {"Content-Type": "application/json"}
            assert httpx.post(url, headers=headers, timeout=20).status_code == 202
        publisher.send(task_event("task-revoked", uid))
        streams = [
            each.until(lambda events: any(event["type"] == "task-revoked" for event in events), 20)
            for each in (leading, following)
        ]
    for events in streams:
        assert [event["uuid"] for event in events if event["type"] == "gateway-control"] == [uid]
    ends = [[event for event in events if event["type"] == "task-revoked"] for events in streams]
    assert ends[0] == ends[1]
