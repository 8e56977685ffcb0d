"""Quotas of principals at a real gateway: what each is answered with, and that others are not affected."""

import asyncio
import json
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from celery_gateway.access.failures import BURST_SECONDS, DELAY_SECONDS, FAILURES_PER_SECOND, Failures
from celery_gateway.asgi import Gateway
from celery_gateway.settings import Settings
from tests.support.access_file import AccessFile
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event

ALL = ("events", "state", "workers", "metrics")
SECONDS = 20.0
TASKS = 3_000
TASK_BYTES = 2_000

OWN_QUOTAS = {
    "streams": {"streams": 2},
    "new-streams": {"new_streams_per_second": 1},
    "filters": {"filter_cost": 100},
    "snapshots": {"snapshots": 1},
    "lookups": {"lookups": 1},
    "memory": {"memory_bytes": 1 << 20},
    "slow": {"memory_bytes": 1 << 20},
    "operations": {"operations_per_second": 1},
    "websockets": {"streams": 1},
    "changed": {"streams": 1},
    "general": {},
    "other": {},
}
"""The limits of each token; each test uses a token of its own, and ``other``."""


class Client:
    """Requests of one principal."""

    def __init__(self, url: str, token: str) -> None:
        self._token = token
        self._url = url
        self.http = httpx.AsyncClient(base_url=url, headers=self.headers, timeout=SECONDS)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    async def open(self, **parameters: Any) -> httpx.Response:
        """Return the response to a request for a stream; its body is not read."""
        request = self.http.build_request("GET", "/events", params=parameters)
        response = await self.http.send(request, stream=True)
        if response.status_code != 200:
            await response.aread()
        return response

    def websocket(self) -> connect:
        return connect(f"{self._url.replace('http', 'ws', 1)}/ws", additional_headers=self.headers)


@pytest.fixture(scope="module")
def access(folder: Path) -> AccessFile:
    return AccessFile(folder)


@pytest.fixture(scope="module")
def tokens(access: AccessFile) -> dict[str, str]:
    return {name: access.create(name, ALL, **quota) for name, quota in OWN_QUOTAS.items()}


@pytest.fixture(scope="module")
def gateway(
    broker: str, folder: Path, access: AccessFile, tokens: dict[str, str]
) -> Iterator[GatewayProcess]:
    """A gateway with authentication, which has seen some thousand tasks."""
    process = GatewayProcess(broker, folder, options=["--auth", str(access.path)])
    publisher = Publisher(broker)
    try:
        process.start()
        for first in range(0, TASKS, 100):
            publisher.send([large_task(str(uuid.uuid4())) for _ in range(first, first + 100)])
        wait_for_tasks(process, tokens["other"])
        yield process
    finally:
        publisher.close()
        process.stop()


def large_task(uid: str) -> dict[str, Any]:
    return received(uid, "shop.pay") | {"args": "x" * TASK_BYTES}


def wait_for_tasks(gateway: GatewayProcess, token: str) -> None:
    deadline = time.monotonic() + SECONDS
    headers = {"Authorization": f"Bearer {token}"}
    while (
        f"celery_gateway_tasks_known {float(TASKS)}"
        not in httpx.get(f"{gateway.url}/metrics", headers=headers).text
    ):
        assert time.monotonic() < deadline, "the gateway has not received the tasks"
        time.sleep(0.05)


@pytest_asyncio.fixture
async def client(gateway: GatewayProcess, tokens: dict[str, str]) -> AsyncIterator[Callable[[str], Client]]:
    async with AsyncExitStack() as stack:

        def make(name: str) -> Client:
            made = Client(gateway.url, tokens[name])
            stack.push_async_callback(made.http.aclose)
            return made

        yield make


def unread_stream(gateway: GatewayProcess, client: Client, query: str) -> socket.socket:
    """Return the connection of a stream whose client reads nothing, so that the gateway has to keep it."""
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    unread.settimeout(SECONDS)
    unread.connect(("127.0.0.1", gateway.port))
    head = "".join(f"{name}: {text}\r\n" for name, text in client.headers.items())
    unread.sendall(f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
    assert unread.recv(12) == b"HTTP/1.1 200"
    return unread


def has_ended(stream: socket.socket) -> bool:
    """Read a stream; return whether it ends before nothing comes for some seconds.

    Its last message is ``gateway-close``, if it reads soon enough (tests/stream/test_stream_limits.py).
    """
    stream.settimeout(5)
    try:
        while stream.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def refusal(response: httpx.Response, quota: str, limit: int) -> float:
    """Check the response beyond a quota; return the value of `Retry-After`."""
    assert response.status_code == 429
    error = response.json()["error"]
    assert (error["code"], error["reason"], error["limit"]) == ("quota", quota, limit)
    assert error["message"].startswith(f"quota {quota} exceeded: ")
    assert re.fullmatch(r"[1-9]\d*", response.headers["retry-after"])
    assert response.headers["cache-control"] == "no-store"
    return float(response.headers["retry-after"])


async def eventually(request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Return the first response with status 200: the gateway needs a moment to see that a client has left."""
    async with asyncio.timeout(SECONDS):
        while (response := await request()).status_code == 429:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert response.status_code == 200, await response.aread()
    return response


async def value(client: Client, metric: str) -> float:
    """Return the current value of a metric: its text is cached for a moment."""
    await asyncio.sleep(0.2)
    text = (await client.http.get("/metrics")).text
    found = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    assert found, metric
    return float(found[1])


async def message(websocket: ClientConnection, *types: str) -> dict[str, Any]:
    """Return the next message of one of some types."""
    async with asyncio.timeout(SECONDS):
        while (received := json.loads(await websocket.recv()))["type"] not in types:
            pass
    return dict(received)


@asynccontextmanager
async def closing(*responses: httpx.Response) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for response in responses:
            await response.aclose()


async def test_open_streams(client: Callable[[str], Client]) -> None:
    one, other = client("streams"), client("other")
    before = await value(other, 'celery_gateway_quota_exceeded_total{quota="streams"}')
    first, second = await one.open(uuid="a"), await one.open(uuid="b")
    async with closing(first, second):
        refusal(await one.open(uuid="c"), "streams", 2)
        refusal(await one.http.post("/events", json={}), "streams", 2)
        with pytest.raises(InvalidStatus) as error:
            async with one.websocket():
                pass
        assert error.value.response.status_code == 429
        assert int(error.value.response.headers["Retry-After"]) >= 1
        assert json.loads(error.value.response.body or b"")["error"]["reason"] == "streams"
        async with closing(others := await other.open()):
            assert others.status_code == 200
            assert await value(other, 'celery_gateway_quota_in_use{quota="streams"}') == 3
        await second.aclose()
        async with closing(await eventually(lambda: one.open(uuid="c"))):
            refusal(await one.open(uuid="d"), "streams", 2)
    after = await value(other, 'celery_gateway_quota_exceeded_total{quota="streams"}')
    assert after >= before + 4


async def test_new_streams_per_second(client: Callable[[str], Client]) -> None:
    one, other = client("new-streams"), client("other")
    for _ in range(5):
        async with closing(await one.open(uuid="a")):
            pass
    refused = await one.http.post("/events", content=b"not read at all")
    retry_seconds = refusal(refused, "new_streams_per_second", 1)
    async with closing(others := await other.open()):
        assert others.status_code == 200
    await asyncio.sleep(retry_seconds)
    async with closing(again := await one.open(uuid="a")):
        assert again.status_code == 200, "Retry-After was too short"


async def test_filter_cost(client: Callable[[str], Client]) -> None:
    one, other = client("filters"), client("other")
    parameters = [{"uuid": [f"{name}-{number}" for number in range(60)]} for name in "abc"]
    first = await one.open(**parameters[0])
    async with closing(first):
        assert first.status_code == 200
        refusal(await one.open(**parameters[1]), "filter_cost", 100)
        async with closing(others := await other.open(**parameters[1])):
            assert others.status_code == 200
    async with closing(await eventually(lambda: one.open(**parameters[2]))):
        pass


async def test_snapshots(gateway: GatewayProcess, client: Callable[[str], Client]) -> None:
    one, other = client("snapshots"), client("other")
    unread = unread_stream(gateway, one, "snapshot=1")
    try:
        refusal(await one.open(snapshot=1), "snapshots", 1)
        async with closing(without := await one.open()):
            assert without.status_code == 200
        async with closing(others := await other.open(snapshot=1)):
            assert others.status_code == 200
    finally:
        unread.close()
    async with closing(await eventually(lambda: one.open(snapshot=1))):
        pass
    async with asyncio.timeout(SECONDS):
        while await value(other, 'celery_gateway_quota_in_use{quota="snapshots"}'):
            pass


async def test_lookups(client: Callable[[str], Client]) -> None:
    one, other = client("lookups"), client("other")
    path = "/tasks?limit=1000"

    async def together() -> tuple[list[httpx.Response], httpx.Response]:
        *responses, others = await asyncio.gather(
            *(one.http.get(path) for _ in range(8)), other.http.get(path)
        )
        return responses, others

    refused: list[httpx.Response] = []
    async with asyncio.timeout(SECONDS):
        while not refused:  # the requests may have come one after another
            responses, others = await together()
            assert others.status_code == 200
            assert any(response.status_code == 200 for response in responses)
            refused = [response for response in responses if response.status_code != 200]
    for response in refused:
        refusal(response, "lookups", 1)
    assert (await one.http.get(path)).status_code == 200
    assert await value(other, 'celery_gateway_quota_in_use{quota="lookups"}') == 0


async def test_lookups_whose_clients_leave_do_not_count(client: Callable[[str], Client]) -> None:
    one, other = client("lookups"), client("other")
    for _ in range(20):
        request = asyncio.create_task(one.http.get("/tasks?limit=1000"))
        await asyncio.sleep(0.005)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await eventually(lambda: one.http.get("/tasks?limit=1000"))
    assert await value(other, 'celery_gateway_quota_in_use{quota="lookups"}') == 0


async def test_memory_of_a_response(client: Callable[[str], Client]) -> None:
    one, other = client("memory"), client("other")
    refusal(await one.http.get("/tasks?limit=1000"), "memory_bytes", 1 << 20)
    assert (await other.http.get("/tasks?limit=1000")).status_code == 200
    assert (await one.http.get("/tasks?limit=100")).status_code == 200


async def test_memory_of_streams(
    gateway: GatewayProcess, broker: str, client: Callable[[str], Client]
) -> None:
    """Streams that are not read end."""
    one, other = client("slow"), client("other")
    metric = 'celery_gateway_quota_exceeded_total{quota="memory_bytes"}'
    before = await value(other, metric)
    publisher = Publisher(broker)
    async with closing(read := await other.open(type="shop-large")):
        streams = [unread_stream(gateway, one, "type=shop-large") for _ in range(30)]
        for _ in range(50):
            publisher.send(task_event("shop-large", str(uuid.uuid4()), text="x" * 60_000))
        publisher.close()
        async with asyncio.timeout(SECONDS):
            lines = read.aiter_lines()
            for _ in range(50):  # another principal gets them all
                while not (await anext(lines)).startswith("data: "):
                    pass
            while await value(other, metric) <= before:
                pass
    with ExitStack() as opened:
        for stream in streams:
            opened.enter_context(stream)
        for stream in streams:  # the first that has ended is enough
            if await asyncio.to_thread(has_ended, stream):
                return
    pytest.fail("no stream has ended")


async def test_operations_per_second(client: Callable[[str], Client]) -> None:
    one, other = client("operations"), client("other")
    async with one.websocket() as websocket, other.websocket() as others:
        for _ in range(5):
            await websocket.send('{"op": "ping"}')
            await message(websocket, "gateway-pong")
        await websocket.send("not JSON, and not parsed")
        error = await message(websocket, "gateway-error")
        assert (error["code"], error["status"], error["reason"]) == ("quota", 429, "operations_per_second")
        assert error["limit"] == 1 and error["parameter"] == "op" and error["id"]
        await others.send('{"op": "ping"}')
        await message(others, "gateway-pong")
        assert 0 < error["retry_ms"] <= 1_000
        await asyncio.sleep(error["retry_ms"] / 1_000)
        await websocket.send('{"op": "ping"}')
        assert (await message(websocket, "gateway-pong", "gateway-error"))["type"] == "gateway-pong"


async def test_open_replaces_a_stream(client: Callable[[str], Client]) -> None:
    one = client("websockets")
    async with one.websocket() as websocket:
        await message(websocket, "gateway-open")
        for number in range(20):
            await websocket.send(json.dumps({"op": "open", "any": [{"uuid": [f"u{number}"]}]}))
            opened = await message(websocket, "gateway-open", "gateway-error")
            assert opened["type"] == "gateway-open", opened
        refusal(await one.open(), "streams", 1)
    async with closing(await eventually(one.open)):
        pass


async def test_a_change_of_the_file_holds_without_a_restart(
    access: AccessFile, client: Callable[[str], Client]
) -> None:
    one = client("changed")
    async with closing(await one.open()):
        refusal(await one.open(), "streams", 1)
        access.set_quota("changed", streams=3)  # which ends that stream: its token has changed
        async with closing(*[await eventually(one.open) for _ in range(3)]):
            refusal(await one.open(), "streams", 3)


async def test_general_quotas_hold_for_principals_without_their_own(
    access: AccessFile, client: Callable[[str], Client]
) -> None:
    one, own = client("general"), client("streams")
    access.set_general_quota(streams=1)
    try:
        async with AsyncExitStack() as stack, asyncio.timeout(SECONDS):
            while (response := await one.open()).status_code == 200:
                await stack.enter_async_context(closing(response))
                await asyncio.sleep(0.1)  # less often than new streams are allowed
            refusal(response, "streams", 1)
            async with closing(await own.open(), await own.open()):
                refusal(await own.open(), "streams", 2)
    finally:
        access.set_general_quota()
    async with closing(await eventually(one.open), await eventually(one.open)):
        pass


async def test_invalid_tokens_in_a_loop_are_slowed_down(tmp_path: Path) -> None:
    """Valid tokens and requests without a token are not, though they come from the same address."""
    access = AccessFile(tmp_path)
    headers = {"Authorization": f"Bearer {access.create('valid', ALL)}"}
    invalid = {"Authorization": f"Bearer cgw_{'x' * 43}"}
    gateway = Gateway(Settings(broker="memory://", auth=str(access.path)))
    gateway.limits.failures = Failures(lambda: 0.0)  # no time passes
    transport = httpx.ASGITransport(gateway)
    async with (
        gateway.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):

        async def fail() -> float:
            began = time.monotonic()
            assert (await http.get("/tasks", headers=invalid)).status_code == 401
            return time.monotonic() - began

        burst = int(FAILURES_PER_SECOND * BURST_SECONDS)
        began = time.monotonic()
        for _ in range(burst - 1):
            await fail()
        assert time.monotonic() - began < burst * DELAY_SECONDS / 10
        await fail()  # the last of the burst, or the first beyond
        failing = asyncio.create_task(fail())
        for given, status_code in ((headers, 200), ({}, 401)):
            assert (await http.get("/tasks", headers=given)).status_code == status_code
        assert not failing.done()
        assert await failing >= DELAY_SECONDS
        assert gateway.limits.statistics().failed_authentications == burst + 1


async def test_metrics_have_no_names_of_principals(client: Callable[[str], Client]) -> None:
    text = (await client("other").http.get("/metrics")).text
    assert "token:" not in text
    assert await value(client("other"), "celery_gateway_quota_principals") <= len(OWN_QUOTAS)
