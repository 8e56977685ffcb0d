"""The gateway mounted in another application: start, shutdown and middleware."""

import asyncio
import json
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from celery_gateway.asgi import Gateway
from celery_gateway.settings import Settings
from tests.support.gateway_process import ROOT
from tests.support.portable_server import PortableServer, in_thread
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import wait_for
from tests.support.transports import KINDS, Message, messages

MEMORY = "memory://localhost"
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def subscriptions(url: str) -> int:
    text = httpx.get(f"{url}/metrics").text
    return int(float(text.partition("\ncelery_gateway_subscriptions ")[2].partition("\n")[0]))


def until_end(stream: Iterator[Message]) -> list[Message]:
    """Return the remaining messages of a stream, whether it is closed in order or not."""
    got = []
    with suppress(HTTPException, OSError):
        got.extend(stream)
    return got


def mounted(broker: str, *, lifespan: bool = True) -> tuple[Gateway, Starlette]:
    gateway = Gateway(Settings(broker=broker, keepalive_seconds=0.3))
    routes = [Mount("/celery", gateway)]
    return gateway, Starlette(routes=routes, lifespan=gateway.lifespan if lifespan else None)


@pytest.mark.timing
@pytest.mark.parametrize(
    ("name", "middleware"),
    [("uvicorn", ""), ("uvicorn", "gzip base"), ("hypercorn", ""), ("granian", "")],
)
def test_sigterm_ends_all_streams_within_five_seconds(
    broker: str, folder: Path, publisher: Publisher, name: str, middleware: str
) -> None:
    server = PortableServer(broker, folder, server=name, middleware=middleware)
    server.start()
    # granian closes a WebSocket without the messages that it has not written yet.
    kinds = KINDS if name != "granian" else [kind for kind in KINDS if kind != "websocket"]
    streams = {kind: messages(server, kind, {"type": "nothing"}) for kind in kinds}
    stalled = socket.socket()
    try:
        for stream in streams.values():
            assert next(stream)["type"] == "gateway-open"
        if name != "granian":  # these wait for this one, too
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", server.port))
            stalled.sendall(b"GET /celery/events?format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wait_for(lambda: subscriptions(server.url) == len(streams) + 1, 10)
            publisher.send(*[[{"type": "bulk", "pad": "x" * 10_000} for _ in range(20)] for _ in range(50)])
        began = time.monotonic()
        code = server.stop()
        took_seconds = time.monotonic() - began
        last = {
            kind: [m for m in until_end(stream) if m["type"] != "closed"][-1]
            for kind, stream in streams.items()
        }
    finally:
        stalled.close()
        server.stop()
    assert took_seconds < 5, server.tail()
    assert code in (0, -15), server.tail()
    for kind, message in last.items():
        assert (message["type"], message["reason"]) == ("gateway-close", "drain"), kind


def test_clients_that_stop_reading_do_not_delay_the_shutdown_of_two_gateways() -> None:
    """Their streams have ended, but the last bytes remain in the buffers of the server's connections."""
    gateways = [Gateway(Settings(broker=MEMORY, keepalive_seconds=600, slow_seconds=600)) for _ in range(2)]
    loops = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        async with gateways[0].lifespan(app), gateways[1].lifespan(app):
            yield

    async def fill(server: uvicorn.Server, client: socket.socket, gateway: Gateway, kind: str) -> None:
        connections = server.server_state.connections
        (mine,) = (each for each in connections if each.client == client.getsockname())  # type: ignore[union-attr]
        async with asyncio.timeout(30):
            while not 0 < mine.transport.get_write_buffer_size() < 60_000:
                gateway.pipeline.hub.append({"type": kind, "text": "x" * 15_000})
                await asyncio.sleep(0.005)

    async def fill_all(server: uvicorn.Server) -> None:
        await asyncio.gather(*(fill(server, *each) for each in clients))

    clients = []
    app = Starlette(routes=[Mount(f"/{n}", each) for n, each in enumerate(gateways)], lifespan=lifespan)
    try:
        with in_thread(app) as (server, url):
            for n, gateway in enumerate(gateways):
                for kind, path in (("sse", "events"), ("ndjson", "events"), ("websocket", "ws")):
                    client = socket.socket()
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    clients.append((client, gateway, kind))
                    client.connect(("127.0.0.1", urlsplit(url).port))
                    format = "&format=ndjson" if kind == "ndjson" else ""
                    upgrade = UPGRADE if kind == "websocket" else ""
                    request = (
                        f"GET /{n}/{path}?type={kind}{format} HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"
                    )
                    client.sendall(request.encode())
                assert wait_for(lambda at=f"{url}/{n}": subscriptions(at) == 3, 10)
            asyncio.run_coroutine_threadsafe(fill_all(server), loops[0]).result(30)
            server.should_exit = True  # `in_thread` waits 10 s for the end
    finally:
        for client, _, _ in clients:
            client.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_exits_without_a_signal(kind: str) -> None:
    _, app = mounted(MEMORY)
    with in_thread(app) as (server, url):
        parts = urlsplit(url)
        at = Address(f"{url}/celery", parts.port or 0)
        stream = messages(at, kind, {"type": "nothing"})  # type: ignore[arg-type]
        assert next(stream)["type"] == "gateway-open"
        server.should_exit = True
        last = [message for message in until_end(stream) if message["type"] != "closed"][-1]
    assert (last["type"], last["reason"]) == ("gateway-close", "drain")


class Address:
    """A server's URL."""

    def __init__(self, url: str, port: int) -> None:
        self.url, self.port = url, port


@pytest.fixture(scope="module")
def wrapped(broker: str, folder: Path) -> Iterator[PortableServer]:
    """A gateway in an application whose middleware compresses, and wraps each response."""
    server = PortableServer(broker, folder, server="uvicorn", middleware="gzip base")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("format", ["sse", "ndjson"])
def test_compressing_middleware_delays_no_event(
    wrapped: PortableServer, publisher: Publisher, format: str
) -> None:
    """Each event is read before the next one is sent."""
    with closing(HTTPConnection("127.0.0.1", wrapped.port, timeout=10)) as connection:
        path = f"/celery/events?format={format}&type=step-{format}"
        connection.request("GET", path, headers={"Accept-Encoding": "gzip, deflate, br"})
        response = connection.getresponse()
        assert response.headers["Cache-Control"] == "no-store, no-transform"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Content-Encoding"] == "identity"
        lines = (line.removeprefix(b"data: ") for line in response)
        objects = (json.loads(line) for line in lines if line.startswith(b"{"))
        assert next(objects)["type"] == "gateway-open"
        for n in range(20):
            publisher.send({"type": f"step-{format}", "n": n})
            assert next(o for o in objects if not o["type"].startswith("gateway-"))["n"] == n
    assert wait_for(lambda: subscriptions(wrapped.url) == 0, 10), "a client that has left is not forgotten"


def test_other_responses_are_compressed(wrapped: PortableServer) -> None:
    answer = httpx.get(f"{wrapped.url}/metrics", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip" and "celery_gateway" in answer.text


def test_a_missing_lifespan_gets_503_with_the_fix(caplog: pytest.LogCaptureFixture) -> None:
    _, app = mounted(MEMORY, lifespan=False)
    with in_thread(app) as (_, url), caplog.at_level(logging.ERROR):
        for path in ("/tasks", "/events", "/healthz", "/"):
            answer = httpx.get(f"{url}/celery{path}")
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not-running"
            assert "lifespan=gateway.lifespan" in answer.json()["error"]["message"]
        with pytest.raises(InvalidStatus) as refused, connect(f"{url.replace('http', 'ws')}/celery/ws"):
            pass
        assert refused.value.response.status_code == 503
        foreign = httpx.get(f"{url}/celery/tasks", headers={"Host": "evil.example"})
        assert foreign.status_code == 403
    said = [record for record in caplog.records if "lifespan" in record.getMessage()]
    assert [record.levelname for record in said] == ["ERROR"], "once"


def test_an_application_can_be_started_twice(broker: str, publisher: Publisher) -> None:
    gateway, app = mounted(broker)
    ids = []
    for uuid in ("u-first", "u-second"):
        with TestClient(app) as client:
            assert wait_for(lambda: client.get("/celery/readyz").status_code == 200, 15)
            with client.websocket_connect(f"/celery/ws?uuid={uuid}") as websocket:
                opened = websocket.receive_json()
                assert (opened["type"], opened["resume"]) == ("gateway-open", "live")
                publisher.send(*walk("shop.pay", uid=uuid))
                while (message := websocket.receive_json())["type"] != "task-succeeded":
                    assert message["type"] != "gateway-close"
            assert client.get(f"/celery/tasks/{uuid}").json()["state"] == "SUCCESS"
            ids.append(opened["id"].rpartition("-")[0])
            assert len(client.get("/celery/tasks").json()["tasks"]) == 1, "nothing of before"
    assert ids[0] != ids[1]
    stopped = TestClient(app).get("/celery/tasks")
    assert (stopped.status_code, stopped.json()["error"]["code"]) == (503, "not-running")
    assert "stopped" in stopped.json()["error"]["message"]


def test_a_test_client_is_served_and_a_foreign_page_is_rejected() -> None:
    _, app = mounted(MEMORY)
    with TestClient(app) as client:
        assert client.get("/celery/tasks").status_code == 200  # its host is "testserver"
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            assert client.get("/celery/tasks", headers=headers).status_code == 403
            with pytest.raises(WebSocketDisconnect), client.websocket_connect("/celery/ws", headers=headers):
                pass


async def test_two_servers_of_one_application_share_the_gateway() -> None:
    gateway, app = mounted(MEMORY)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        async with gateway.lifespan():
            async with gateway.lifespan():
                pass
            assert (await client.get("/celery/healthz")).status_code == 200
        assert (await client.get("/celery/healthz")).status_code == 503


def test_one_gateway_cannot_run_in_two_event_loops() -> None:
    gateway, app = mounted(MEMORY)
    with TestClient(app), pytest.raises(RuntimeError, match="another event loop"), TestClient(app):
        pass


def test_the_example_for_fastapi(broker: str, folder: Path, publisher: Publisher) -> None:
    """It has its own lifespan."""
    server = PortableServer(
        broker,
        folder,
        server="uvicorn",
        app="fastapi_app:app",
        environment={"CELERY_BROKER_URL": broker, "PYTHONPATH": f"{ROOT}:{ROOT / 'docs' / 'examples'}"},
    )
    server.start()
    try:
        assert "EventSource" in httpx.get(server.url.removesuffix("celery")).text
        stream = messages(server, "ndjson", {"uuid": "u-fastapi"})
        assert next(stream)["type"] == "gateway-open"
        publisher.send(*walk("shop.pay", uid="u-fastapi"))
        assert (
            next(message for message in stream if message["type"] == "task-succeeded")["name"] == "shop.pay"
        )
        assert server.stop() in (0, -signal.SIGTERM), "it ended by itself"
        assert until_end(stream)[-1]["reason"] == "drain"
        log = server.log.read_text()
        assert log.index("the application's own start") < log.index("the application's own end")
    finally:
        server.stop()


def test_a_missing_lifespan_in_fastapi() -> None:
    app = FastAPI()
    app.mount("/celery", Gateway(Settings(broker=MEMORY)))
    with TestClient(app) as client:
        error: dict[str, Any] = client.get("/celery/tasks").json()["error"]
    assert "async with gateway.lifespan(app)" in error["message"]
