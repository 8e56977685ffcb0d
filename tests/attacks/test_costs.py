"""What attacks cost the gateway: CPU time of this process, which does not depend on what else runs."""

import json
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.access.static_tokens import hash_text, new_token
from celery_gateway.broker.task_control import TaskControl
from celery_gateway.broker.urls import brokers
from celery_gateway.http.action_endpoints import Actions
from tests.support.access_file import AccessFile
from tests.support.asgi_exchange import Exchange
from tests.support.attacks import Meter
from tests.support.cpu_time import scaled
from tests.support.gateway_process import GatewayProcess
from tests.support.state_gateway import StateGateway, known, step
from tests.support.token_issuer import issuer_file, token

STATIC = new_token()
BOMB_SECONDS = 0.010
"""A filter that is refused costs at most this; measured: 0.2 to 3 ms."""
ROUNDS = 5
NO_BROKER = TaskControl(brokers("memory://")[0])

BOMBS = {
    "stars": "*a" * 2_000 + "b",
    "adjacent-stars": "*" * 5_000,
    "question-marks": "*?" * 2_000,
    "many": ",".join(f"*{number}*x*" for number in range(3_000)),
    "many-exact": ",".join(str(number) for number in range(9_000)),
    "commas": "," * 20_000,
    "escapes": "\\" * 20_000,
    "exclusions": "!" * 20_000,
    "long": "a" * 50_000,
}


async def gateway_of(folder: Path) -> StateGateway:
    static = f'[tokens.static]\nhash = "{hash_text(STATIC)}"\nscope = {{}}\n'
    return StateGateway(authenticator=Authenticator(issuer_file(folder, static)))


async def least_seconds(attempt: Callable[[], Awaitable[None]]) -> float:
    """The CPU time of an attempt: the least of some rounds, since the collector of garbage takes its own."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        await attempt()
        found.append(time.process_time() - began)
    return min(found)


@pytest.mark.unit
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("way", ["query", "list", "body", "websocket", "operation", "scope"])
async def test_a_costly_filter_costs_its_sender_an_error(tmp_path: Path, name: str, way: str) -> None:
    gateway, pattern = await gateway_of(tmp_path), BOMBS[name]
    headers = {"authorization": f"Bearer {STATIC}"}
    body = json.dumps({"any": [{"name": pattern.split(",") if "," in pattern else pattern}]}).encode()
    query = "name=" + pattern.replace("\\", "%5C").replace("?", "%3F")

    async def attempt() -> None:
        if way == "scope":
            claim = token(celery_gateway={"any": [{"name": pattern}]})
            refused = Exchange(gateway.app, "/tasks", headers={"authorization": f"Bearer {claim}"})
            assert (await refused.done()).status == 401
        elif way == "body":
            refused = Exchange(gateway.app, "/events", method="POST", headers=headers, body=body)
            assert (await refused.done()).status == 400
        elif way == "websocket":
            refused = Exchange(gateway.app, f"/ws?{query}", headers=headers, subprotocols=())
            assert (await refused.done()).status == 400
        elif way == "operation":
            opened.texts.clear()
            opened.send_json({"op": "filter"} | json.loads(body))
            await opened.until(lambda opened: opened.texts)
            assert '"gateway-error"' in opened.texts[0]
        else:
            path = "/events" if way == "query" else "/tasks"
            assert (await Exchange(gateway.app, f"{path}?{query}", headers=headers).done()).status == 400

    if way == "operation":
        opened = Exchange(gateway.app, "/ws", headers=headers, subprotocols=())
        await opened.until(lambda opened: len(opened.texts) == 2)
    assert await least_seconds(attempt) < scaled(BOMB_SECONDS)


@pytest.mark.unit
async def test_an_invalid_token_costs_less_than_a_valid_one(tmp_path: Path) -> None:
    """Each token is a new one, so that nothing is cached, and both kinds take turns."""
    gateway = await gateway_of(tmp_path)
    invalid: dict[str, Callable[[int], str]] = {
        "unknown": lambda number: new_token(),
        "text": lambda number: secrets.token_hex(20),
        "signature": lambda number: token("x" * 40, sub=f"user-{number}"),
        "expired": lambda number: token(exp=1 + number),
        "none": lambda number: token(sub=f"user-{number}").rpartition(".")[0] + ".",
        "long": lambda number: secrets.token_hex(3_900),
    }
    for name, make in invalid.items():
        valid_seconds, invalid_seconds = [], []
        for number in range(60):
            for seconds, text in (
                (valid_seconds, token(sub=f"{name}-{number}")),
                (invalid_seconds, make(number)),
            ):
                request = Exchange(gateway.app, "/tasks", headers={"authorization": f"Bearer {text}"})
                began = time.process_time()
                await request.done()
                seconds.append(time.process_time() - began)
        assert median(invalid_seconds) < median(valid_seconds), name


@pytest.mark.unit
async def test_a_404_takes_the_same_time_whatever_the_reason(tmp_path: Path) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)), max_tasks=500)
    gateway.put(*(known(f"bank-{number:03}", name="bank.pay") for number in range(1_000)))
    headers = {"authorization": f"Bearer {token(celery_gateway={'any': [{'name': 'shop.*'}]})}"}
    for kind in ("tasks", "workflows"):
        seconds: dict[str, list[float]] = {"evicted": [], "foreign": [], "unknown": []}
        for number in range(100):
            uuids = {"evicted": number, "foreign": 600 + number, "unknown": 2_000 + number}
            for reason, suffix in uuids.items():
                request = Exchange(gateway.app, f"/{kind}/bank-{suffix:03}", headers=headers)
                began = time.process_time()
                assert (await request.done()).status == 404
                seconds[reason].append(time.process_time() - began)
        medians = [median(each) for each in seconds.values()]
        assert max(medians) < 2 * min(medians), (kind, medians)


@pytest.mark.parametrize("scope", [{"root_id": "mine"}, {"uuid": ["mine", "another"]}])
async def test_a_large_foreign_workflow_takes_no_more_time_than_an_unknown_one(
    tmp_path: Path, scope: dict[str, Any]
) -> None:
    gateway = StateGateway(authenticator=Authenticator(issuer_file(tmp_path)))
    gateway.put(known("mine"))
    for start in range(0, 20_000, 1_000):
        gateway.put(*(known(f"t{start + number}", "theirs") for number in range(1_000)))
    headers = {"authorization": f"Bearer {token(celery_gateway={'any': [scope]})}"}
    for path in ("/workflows/", "/tasks?root_id=", "/tasks?parent_id="):
        seconds: dict[str, list[float]] = {"theirs": [], "nobody": []}
        for _ in range(30):
            for root_id, each in seconds.items():
                request = Exchange(gateway.app, path + root_id, headers=headers)
                began = time.process_time()
                await request.done()
                each.append(time.process_time() - began)
        foreign, unknown = map(median, seconds.values())
        assert foreign < 3 * unknown, (path, foreign, unknown)


async def test_other_members_of_a_workflow_take_no_time_for_a_token_with_uuids(tmp_path: Path) -> None:
    gateway = StateGateway(
        authenticator=Authenticator(issuer_file(tmp_path)), actions=Actions(("revoke",), {None: NO_BROKER})
    )
    gateway.put(
        known("alone"), known("among", "large"), step("succeeded", "alone"), step("succeeded", "among")
    )
    for start in range(0, 20_000, 1_000):
        gateway.put(*(known(f"t{start + number}", "large") for number in range(1_000)))
    scope = {"any": [{"uuid": ["alone", "among"]}], "may": ["state", "revoke"]}
    headers = {
        "authorization": f"Bearer {token(celery_gateway=scope)}",
        "content-type": "application/json",
    }
    for method, path, status in (("GET", "", 200), ("POST", "/revoke", 409)):
        seconds: dict[str, list[float]] = {"alone": [], "large": []}
        for _ in range(30):
            for root_id, each in seconds.items():
                target = f"/workflows/{root_id}{path}"
                request = Exchange(gateway.app, target, method=method, headers=headers)
                began = time.process_time()
                assert (await request.done()).status == status
                each.append(time.process_time() - began)
        alone, large = map(median, seconds.values())
        assert large < 3 * alone, (method, alone, large)


HALF_SENT = 5_000


def test_a_stream_stays_live_beside_half_sent_requests(folder: Path) -> None:
    access = AccessFile(folder)
    bearer = {"Authorization": f"Bearer {access.create('stream', ['events', 'state'])}"}
    gateway = GatewayProcess("memory://localhost", folder, options=["--auth", str(access.path)])
    gateway.start()
    heads = [
        b"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nAuthoriz",
        b"G",
        b"POST /session HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ",
    ]
    uri = f"ws://127.0.0.1:{gateway.port}/ws"
    try:
        with (
            connect(uri, additional_headers=bearer) as stream,
            ExitStack() as opened,
            Meter(gateway) as meter,
        ):
            began_seconds = meter.cpu_seconds()
            for number in range(HALF_SENT):
                client = opened.enter_context(socket.socket())
                client.bind((f"127.0.1.{1 + number % 200}", 0))
                client.connect(("127.0.0.1", gateway.port))
                client.sendall(heads[number % len(heads)])
                if number % 500 == 0:
                    stream.send('{"op": "ping"}')
                    while "gateway-pong" not in str(stream.recv(timeout=10)):
                        pass
            assert httpx.get(f"{gateway.url}/tasks", headers=bearer).status_code == 200
            used_seconds = meter.cpu_seconds() - began_seconds
        assert meter.answers > 10, "others were answered meanwhile"
        assert used_seconds / HALF_SENT < scaled(0.002)
        assert meter.grown_bytes / HALF_SENT < 40_000
        assert meter.held_seconds < scaled(0.2)
    finally:
        gateway.stop()
