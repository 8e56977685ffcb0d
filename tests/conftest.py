"""The ground the integration tests stand on.

One private RabbitMQ for the session, and for each module that asks for them a vhost of its own with a Celery
worker, a gateway and a raw record of the wire. All of it is real, and whatever is started here is ended here.
"""

import signal
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from celery import Celery

from tests.celery_app import create_app
from tests.gateway_process import GatewayProcess
from tests.publisher import Publisher
from tests.rabbitmq import RabbitMQ
from tests.stream_client import EventStream, NdjsonStream, SseStream, StreamFactory
from tests.web import WebServer
from tests.wire import Wire
from tests.worker import Worker

# A shell starts what runs in its background with SIGINT ignored, and children would inherit that: those of
# the tests are to end with Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

_vhosts = count(1)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A private node on 127.0.0.1; `rabbitmq.ctl(…)`, `.down()`, `.restart()` for tests of outages."""
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="session")
def web() -> Iterator[WebServer]:
    server = WebServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The module's own: logs of its processes, results of its tasks."""
    return tmp_path_factory.mktemp(request.module.__name__.rpartition(".")[2])


@pytest.fixture(scope="module")
def broker(rabbitmq: RabbitMQ) -> str:
    """The URL of a vhost that nobody else uses."""
    return rabbitmq.add_vhost(f"tests-{next(_vhosts)}")


@pytest.fixture(scope="module")
def celery(broker: str, folder: Path) -> Iterator[Celery]:
    """A client of the app in `tests/celery_app.py`: `celery.send_task("canvas.add", (1, 2))`."""
    results = folder / "results"
    results.mkdir()
    app = create_app(broker, results)
    try:
        yield app
    finally:
        app.close()


@pytest.fixture(scope="module")
def wire(broker: str) -> Iterator[Wire]:
    """Everything on `celeryev` since before worker and gateway started."""
    recorder = Wire(broker)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


@pytest.fixture(scope="module")
def gateway(broker: str, wire: Wire, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder)
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def worker(broker: str, celery: Celery, wire: Wire, folder: Path) -> Iterator[Worker]:
    """A prefork worker with two processes and -E."""
    process = Worker(broker, folder, results=folder / "results")
    try:
        process.start()
        yield process
    finally:
        process.kill()  # a warm shutdown takes Celery three seconds, and nobody would look at it


@pytest.fixture(scope="module")
def publisher(broker: str) -> Iterator[Publisher]:
    """Puts messages of the test's own making on the event exchange."""
    publisher = Publisher(broker)
    try:
        yield publisher
    finally:
        publisher.close()


@pytest.fixture
def stream(gateway: GatewayProcess) -> Iterator[StreamFactory]:
    """`stream(name="shop.*", format="sse")`: a connected client, closed when the test ends."""
    opened: list[EventStream] = []

    def connect(
        *, format: Literal["ndjson", "sse"] = "ndjson", headers: dict[str, str] | None = None, **params: Any
    ) -> EventStream:
        client = (NdjsonStream if format == "ndjson" else SseStream)(gateway.url, params, headers)
        opened.append(client)
        return client

    try:
        yield connect
    finally:
        for client in opened:
            client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the logs of the processes it used."""
    report = yield
    if report.failed:
        for name in ("gateway", "worker", "rabbitmq"):
            process = getattr(item, "funcargs", {}).get(name)
            with suppress(OSError):
                if process is not None:
                    report.sections.append((f"log of {name}", process.tail()))
    return report
