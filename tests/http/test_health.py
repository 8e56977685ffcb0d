"""Health checks and status for clients, secrets in access logs, and shutdown."""

import asyncio
import json
import logging
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from celery_gateway.asgi import Gateway
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.source import Sink, Status
from celery_gateway.http.query_secrets import hide_secrets
from celery_gateway.http.shutdown import Requests
from celery_gateway.settings import Settings
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received
from tests.support.rabbitmq import wait_for
from tests.support.state_gateway import StateGateway

URL = "amqp://shop-user:pw@broker.internal:5672/payments"
NAMES = ("shop-user", "broker.internal", "payments", "5672", "celeryev")


class UnreachableSource:
    """A source that cannot reach its broker."""

    def __init__(self) -> None:
        failure = diagnose(ConnectionRefusedError(111, "Connection refused"), URL, phase=Phase.CONNECT)
        self.status = Status(False, f"{failure.what}. {failure.remedy}", failure.code)

    async def run(self, sink: Sink) -> None:
        sink.status(self.status)
        await asyncio.Event().wait()


async def reasons(gateway: StateGateway) -> list[str]:
    """Return the reasons that clients get: from /readyz and from gateway-status."""
    ready = await gateway.request("/readyz")
    assert ready.status_code == 503
    status = json.loads(gateway.pipeline.status(b"e-1").json)
    return [ready.json()["reason"], status["sources"][0]["reason"]]


@pytest.mark.parametrize("is_verbose", [False, True])
async def test_reasons_have_broker_names_only_with_verbose_health(is_verbose: bool) -> None:
    gateway = StateGateway(source=UnreachableSource(), verbose_health=is_verbose)
    for reason in await reasons(gateway):
        if is_verbose:
            assert "broker.internal" in reason
        else:
            assert reason == "unreachable; the gateway's log has the details"


def test_brief_reasons_have_no_names() -> None:
    for status in (
        Status(True, "consuming celeryev of broker.internal"),
        Status(True, "consuming celeryev, but payments blocks", "publishers-blocked"),
        Status(False, "not connected to broker.internal yet"),
        Status(False, "shop-user may not read payments", "login-refused"),
    ):
        assert not any(name in status.brief for name in NAMES), status.brief
        assert status.brief.startswith("consuming") == status.is_consuming


# ----------------------------------------------------------------------------- secrets in queries


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("name=a,b&uuid=token", "name=a,b&uuid=token"),
        ("access_token=s3cret", "access_token=***"),
        ("name=a&access_token=s3=cret&uuid=b", "name=a&access_token=***&uuid=b"),
        ("access%5Ftoken=s3cret", "access%5Ftoken=***"),
        ("TOKEN=s3cret&api-key=s3cret&Password=s3cret", "TOKEN=***&api-key=***&Password=***"),
        ("access_token=&access_token", "access_token=&access_token"),
    ],
)
def test_secrets_in_the_query_are_replaced(query: str, expected: str) -> None:
    scope = {"type": "http", "query_string": query.encode()}
    hide_secrets(scope)
    assert scope["query_string"] == expected.encode()


async def test_the_access_log_of_an_application_around_the_gateway_has_no_tokens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = Gateway(Settings(broker="memory://"))
    app = Starlette(routes=[Mount("/celery", gateway)], lifespan=gateway.lifespan)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=2))
    caplog.set_level(logging.INFO, "uvicorn.access")
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for path in ("/celery/tasks", "/celery/workers", "/celery/nothing"):
                await client.get(f"{path}?access_token=s3cret")
            async with client.stream("GET", "/celery/events?access_token=s3cret") as stream:
                assert stream.status_code == 200
    finally:
        server.should_exit = True
        await running
    assert caplog.text.count("access_token=***") == 4, caplog.text
    assert "s3cret" not in caplog.text


# ----------------------------------------------------------------------------- the end of the server


async def test_requests_may_be_ended_twice() -> None:
    requests, may_end = Requests(), asyncio.Event()

    async def request() -> None:
        async with asyncio.timeout(None) as limit:
            with requests.tracked({"type": "http"}, limit):
                try:
                    await asyncio.Event().wait()
                finally:
                    await may_end.wait()

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    try:
        await requests.end(0)
        await requests.end(0.1)
        assert not running.done()
    finally:  # it cannot be cancelled before
        may_end.set()
    with suppress(TimeoutError):
        await running
    await requests.end()


def test_a_shutdown_with_lookups_under_way_is_quiet(broker: str, folder: Path, publisher: Publisher) -> None:
    """Clients that do not read are disconnected; a client that reads gets its whole response."""
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    try:
        for start in range(0, 300, 12):
            publisher.send(
                [
                    received(f"q{n}", "shop.pay", "Q") | {"args": "x" * 30_000}
                    for n in range(start, start + 12)
                ]
            )
        assert wait_for(lambda: total(gateway) == 300, 20)
        clients = [unread(gateway.port) for _ in range(3)]
        reader = unread(gateway.port)
        assert wait_for(lambda: memory(gateway) > 20_000_000, 10), "answers are under way"

        def read_when_it_stops() -> tuple[int, int]:
            assert wait_for(lambda: signal.SIGTERM.name in gateway.log.read_text(), 10)
            with closing(HTTPResponse(reader)) as response:
                response.begin()
                return int(response.headers["content-length"]), len(response.read())

        with ThreadPoolExecutor() as threads:
            reading = threads.submit(read_when_it_stops)
            assert gateway.stop() == 0
            expected_bytes, read_bytes = reading.result()
        assert read_bytes == expected_bytes > 9_000_000
        for client in (*clients, reader):
            client.close()
    finally:
        gateway.stop()
    log = gateway.log.read_text()
    assert "Traceback" not in log and "ERROR" not in log, log
    assert os.path.exists(gateway.log) and signal.SIGTERM.name in log


def total(gateway: GatewayProcess) -> int:
    return int(httpx.get(f"{gateway.url}/workflows/Q?fields=state").json().get("total", 0))


def memory(gateway: GatewayProcess) -> float:
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return float(
        next(line.split()[1] for line in lines if line.startswith("celery_gateway_client_memory_bytes "))
    )


def unread(port: int) -> socket.socket:
    """Return a client that requests a large workflow and does not read it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /workflows/Q HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client
