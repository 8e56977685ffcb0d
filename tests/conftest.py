"""Fixtures of the integration tests, and the markers of all tests.

One private RabbitMQ serves all processes of a test run. Each module that needs them gets a vhost of its own
with a Celery worker, a gateway and a raw record of the wire. All of it is real; what is started here is ended
here.

Each test has one of the markers `unit`, `integration`, `timing` and `deploy`; `integration` is the default.
A unit test starts no process.
"""

import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from celery import Celery

from tests.support import shared_rabbitmq
from tests.support.celery_app import create_app
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher
from tests.support.rabbitmq import RabbitMQ
from tests.support.stream_client import EventStream, NdjsonStream, SseStream, StreamFactory
from tests.support.thorough import IS_THOROUGH
from tests.support.web import WebServer
from tests.support.wire import Wire
from tests.support.worker import Worker

# A shell starts what runs in its background with SIGINT ignored, and children would inherit that: those of
# the tests are to end with Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = "shared_rabbitmq"
MARKERS = ("unit", "integration", "timing", "deploy")


class Controller:
    """Starts the node that the processes of pytest-xdist share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = shared_rabbitmq.start(folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[SHARED] = str(self._folder)

    def pytest_unconfigure(self) -> None:
        self._program.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Controller(Path(tempfile.mkdtemp(prefix="rabbitmq-"))))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not IS_THOROUGH:
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if not any(item.get_closest_marker(name) for name in MARKERS):
            item.add_marker("integration")
    # The longest tests first: at the end of a parallel run, all processes would wait for one.
    items.sort(key=lambda item: "deploy" not in item.path.parts)


@pytest.fixture(autouse=True)
def _no_process_in_unit_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test marked `unit` that starts a process."""
    if request.node.get_closest_marker("unit") is None:
        yield
        return
    started: list[Any] = []
    _watchers.append(started)
    try:
        yield
    finally:
        _watchers.remove(started)
    assert not started, f"a unit test starts no process: {started}"


_watchers: list[list[Any]] = []


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        for started in _watchers:
            started.append(arguments[0])


sys.addaudithook(_on_audit)


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> RabbitMQ:
    """The node of the test run, on 127.0.0.1. Tests that break or reconfigure it override this fixture."""
    shared = getattr(request.config, "workerinput", {}).get(SHARED)
    if shared is None:  # without pytest-xdist
        node: RabbitMQ = request.getfixturevalue("own_rabbitmq")
        return node
    return shared_rabbitmq.attached(Path(shared))


@pytest.fixture(scope="session")
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A node of this process alone, to go `.down()`, `.stop_app()` or into an alarm."""
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
    return rabbitmq.add_vhost(f"tests-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def celery(broker: str, folder: Path) -> Iterator[Celery]:
    """A client of the app in `tests/support/celery_app.py`: `celery.send_task("canvas.add", (1, 2))`."""
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
