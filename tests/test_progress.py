"""Progress from inside a task to the stream: real workers of three pools, brokers that go away, the docs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery, Task, states
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from celery_gateway.events.event_types import STATE_OF_EVENT
from celery_gateway.progress import MIN_INTERVAL_SECONDS, WAIT_SECONDS, ProgressMixin, report
from celery_gateway.state.transitions import state_of
from tests.support.celery_app import create_app
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.proxy import Proxy
from tests.support.rabbitmq import Process, RabbitMQ
from tests.support.stream_client import NdjsonStream, StreamFactory, one
from tests.support.wire import EventFields, Wire
from tests.support.worker import Worker

POOLS = ("prefork", "solo", "threads")
INCLUDE = ("-I", "tests.support.progress_app")


@pytest.fixture(scope="module")
def workers(
    broker: str, celery: Celery, gateway: GatewayProcess, folder: Path
) -> Iterator[dict[str, Worker]]:
    """One worker a pool, each with a queue that is named as its pool."""
    started: dict[str, Worker] = {}
    try:
        for pool in POOLS:
            options = (*INCLUDE, "-Q", pool)
            worker = Worker(broker, folder, results=folder / "results", pool=pool, name=pool, options=options)
            worker.start()
            started[pool] = worker
        yield started
    finally:
        for worker in started.values():
            worker.kill()


def finished(stream: NdjsonStream, result: AsyncResult) -> list[EventFields]:
    """The task's own events, once it has ended; a child's last may come after its worker's."""
    result.get(timeout=30)
    events = stream.until_types(result.id, "task-succeeded")
    return [event for event in events if event["type"] not in STATE_OF_EVENT]


@pytest.mark.parametrize("pool", POOLS)
def test_a_report_is_an_event_that_needs_nobody_to_know_its_task(
    pool: str, celery: Celery, workers: dict[str, Worker], stream: StreamFactory
) -> None:
    events = stream(hostname=workers[pool].hostname, name="progress.*")

    result = celery.send_task("progress.unbound", queue=pool)

    result.get(timeout=30)
    event = one(events.until_types(result.id, "task-progress"), "task-progress")
    expected = {
        "name": "progress.unbound",
        "root_id": result.id,
        "parent_id": None,
        "uuid": result.id,
        "hostname": workers[pool].hostname,
        "current": 1,
        "total": 2,
        "progress": 0.5,
        "note": "half",
    }
    assert expected.items() <= event.items()
    assert event["state"] in ("PROGRESS", "SUCCESS")  # a child's event may be later than its worker's


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("total", [None, 999])
def test_a_thousand_reports_are_a_few_events_and_the_last(
    pool: str, total: int | None, celery: Celery, workers: dict[str, Worker], stream: StreamFactory
) -> None:
    events = stream(type="task-progress,task-succeeded")

    result = celery.send_task("progress.count", (1000, total), queue=pool)

    seconds = result.get(timeout=30)
    told = [
        event["current"]
        for event in events.until(
            lambda events: any(event.get("current") == 999 for event in events if event["uuid"] == result.id)
        )
        if event["uuid"] == result.id and event["type"] == "task-progress"
    ]
    assert told == sorted(told) and told[0] == 0 and told[-1] == 999
    assert 2 <= len(told) <= 2 + seconds / MIN_INTERVAL_SECONDS


def test_the_report_that_completes_does_not_wait_for_the_end(
    celery: Celery, workers: dict[str, Worker], stream: StreamFactory, folder: Path
) -> None:
    events, gate = stream(type="task-progress"), folder / "completed"

    result = celery.send_task("progress.completed", (str(gate), 100), queue="prefork")

    told = events.until_types(result.id, "task-progress", "task-progress")
    assert [event["current"] for event in told] == [0, 100], "each later one is over the total, too"
    gate.touch()
    result.get(timeout=30)
    told = events.until_types(result.id, *["task-progress"] * 3)
    assert [event["current"] for event in told] == [0, 100, 200]


def test_a_gateway_that_came_later_finds_the_reports_of_a_workflow(
    broker: str, celery: Celery, workers: dict[str, Worker], folder: Path, gateway: GatewayProcess
) -> None:
    gate = folder / "later"
    with NdjsonStream(gateway.url, {"type": "task-progress"}) as early:
        result = celery.send_task("progress.interrupted", (str(gate), 1), queue="prefork", root_id="the-root")
        early.until_types(result.id, "task-progress")
    late = GatewayProcess(broker, folder)
    late.start()
    try:
        query = {"root_id": "the-root", "name": "progress.interrupted", "state": "PROGRESS"}
        with NdjsonStream(late.url, query) as events:
            gate.touch()
            last = one(events.until_types(result.id, "task-progress"), "task-progress")
    finally:
        late.stop()
    assert (last["current"], last["total"], last["progress"]) == (1, 1, 1.0)


def test_what_is_not_json_is_told_as_its_repr_and_taken_names_are_put_aside(
    celery: Celery, workers: dict[str, Worker], stream: StreamFactory
) -> None:
    events = stream()

    result = celery.send_task("progress.odd", queue="solo")

    (event,) = finished(events, result)
    assert event["job"].startswith("<object object at ")
    assert event["keys"] == "{(1, 2): 'tuple'}"
    assert "[" in event["endless"] and isinstance(event["unprintable"], str)
    assert (event["number"], event["retry"], event["progress"]) == (None, True, 0.25)
    assert event["folder"] == "/srv" or "PosixPath" in event["folder"]
    assert event["fields"] == {"name": "mine", "hostname": "mine", "id": 7}
    assert (event["name"], event["hostname"]) == ("progress.odd", workers["solo"].hostname)


def test_nonsense_does_not_reach_the_task(
    celery: Celery, workers: dict[str, Worker], stream: StreamFactory
) -> None:
    events = stream()

    result = celery.send_task("progress.nonsense", queue="prefork")

    assert result.get(timeout=30) == "done"
    event = one(events.until_types(result.id, "task-progress"), "task-progress")
    assert (event["current"], event["progress"]) == ("one", None)


def test_a_soft_time_limit_reaches_the_task(celery: Celery, workers: dict[str, Worker]) -> None:
    def run() -> str:
        return str(celery.send_task("progress.limited", queue="prefork").get(timeout=40))

    # A second try: `_repr` in celery/utils/saferepr.py drops an exception that arrives while it runs.
    assert run() == "stopped in time" or run() == "stopped in time"


def test_update_state_is_told_and_still_in_the_result_backend(
    celery: Celery, workers: dict[str, Worker], stream: StreamFactory, folder: Path
) -> None:
    events, gate = stream(), folder / "states"

    result = celery.send_task("progress.states", (str(gate),), queue="prefork")

    events.until_types(result.id, "task-parked")
    assert (result.state, result.info) == ("PARKED", ["at", "the", "gate"])
    gate.touch()
    told = finished(events, result)
    assert [(event["type"], event["state"]) for event in told] == [
        ("task-progress", "PROGRESS"),
        ("task-transferring", "TRANSFERRING"),
        ("task-second_pass", "SECOND_PASS"),
        ("task-parked", "PARKED"),
    ]
    progress, transferring, second_pass, parked = told
    assert (progress["current"], progress["total"], progress["progress"]) == (1, 2, 0.5)
    assert (progress["file"], transferring["file"]) == ("a.png", "a.png")
    assert transferring["fields"] == {"state": "not this"}
    assert "current" not in second_pass and "progress" not in second_pass
    assert parked["meta"] == ["at", "the", "gate"]
    assert {event["name"] for event in told} == {"progress.states"}
    assert not [event for event in events.events if event.get("uuid") == "someone-else"]


class Written:
    """A Task class as far as the mixin goes, which only keeps what is told."""

    def __init__(self) -> None:
        self.states: list[str | None] = []

    def update_state(self, task_id: str | None, state: str | None, meta: object) -> None:
        self.states.append(state)

    @property
    def request(self) -> object:
        raise AssertionError("would have been told")


class Mirrored(ProgressMixin, Written):
    pass


def test_no_state_is_told_as_an_event_of_celerys_own(caplog: pytest.LogCaptureFixture) -> None:
    words = {event_type.partition("-")[2].upper() for event_type in STATE_OF_EVENT}
    own = sorted(words | states.ALL_STATES | {states.REJECTED, states.IGNORED})
    task = Mirrored()
    for state in own:
        task.update_state(state=state)
        task.update_state(state=state.lower())
    task.update_state(state=None, meta={})
    assert len(task.states) == 2 * len(own) + 1
    assert not caplog.records
    for state in ("PROGRESS", "TRANSFERRING", "IN_PROGRESS", "PRE-FLIGHT"):
        assert state_of(f"task-{state.lower()}") == state


def test_an_eager_or_directly_called_task_connects_to_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        app = Celery(broker=f"amqp://guest:guest@127.0.0.1:{port}//", set_as_current=False)

        @app.task(bind=True)
        def work(self: object) -> str:
            report(self, 1, 2)
            report(self, 2, 2)
            return "done"

        assert work.apply().get() == "done"
        assert work() == "done"
        report(work, 1, 2)
        app.conf.task_always_eager = True
        assert work.delay().get() == "done"
        with pytest.raises(BlockingIOError):
            listener.accept()
        app.close()


def test_importing_it_imports_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import celery_gateway.progress; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["celery_gateway"]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def test_a_task_does_not_wait_for_a_broker_that_is_away_and_reports_to_it_again_later(
    rabbitmq: RabbitMQ, tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_seconds = 2.0
    monkeypatch.setenv("TESTS_PAUSE_SECONDS", str(pause_seconds))  # for the worker
    url, gate = rabbitmq.add_vhost("progress-away"), tmp_path / "gate"
    with Proxy(rabbitmq.port) as proxy, listening(url) as wire, create_app(url, results) as client:
        worker = Worker(proxy.url(url), tmp_path, results=results, concurrency=1, options=INCLUDE)
        try:
            worker.start()
            result = client.send_task("progress.interrupted", (str(gate), 1000))
            wire.until_types(result.id, "task-progress")
            proxy.refuse()
            gate.touch()
            seconds, tries = result.get(timeout=60)  # of a thousand reports, a millisecond apart
            assert 1 <= tries <= 2 + seconds / pause_seconds, worker.tail()
            assert result.state == "SUCCESS"
            assert worker.log.read_text().count("cannot send the progress") == 1, worker.tail()
            proxy.resume()
            deadline = time.monotonic() + pause_seconds + 30
            later: set[str] = set()
            while not any(e["type"] == "task-progress" and e["uuid"] in later for e in wire.events):
                assert time.monotonic() < deadline, worker.tail()
                result = client.send_task("progress.unbound")
                later.add(result.id)
                result.get(timeout=30)
        finally:
            worker.kill()


def test_a_connection_that_was_closed_while_the_task_was_busy_costs_no_report(
    rabbitmq: RabbitMQ, tmp_path: Path, results: Path
) -> None:
    url, gate = rabbitmq.add_vhost("progress-closed"), tmp_path / "gate"
    with Proxy(rabbitmq.port) as proxy, listening(url) as wire, create_app(url, results) as client:
        worker = Worker(proxy.url(url), tmp_path, results=results, options=INCLUDE)
        try:
            worker.start()
            result = client.send_task("progress.interrupted", (str(gate), 1))
            wire.until_types(result.id, "task-progress")
            proxy.hang_up()
            gate.touch()
            result.get(timeout=30)
            wire.until_types(result.id, "task-progress", "task-progress")
            assert "cannot send the progress" not in worker.log.read_text()
        finally:
            worker.kill()


@pytest.mark.timing
def test_a_task_does_not_wait_for_a_network_that_carries_nothing(
    rabbitmq: RabbitMQ, tmp_path: Path, results: Path
) -> None:
    """Writes go on until the buffers are full, then fail; so does the new connection: about a second each."""
    url, gate = rabbitmq.add_vhost("progress-stalled"), tmp_path / "gate"
    with Proxy(rabbitmq.port) as proxy, listening(url) as wire, create_app(url, results) as client:
        worker = Worker(proxy.url(url), tmp_path, results=results, options=INCLUDE)
        try:
            worker.start()
            result = client.send_task("progress.interrupted", (str(gate), 1000, 4 << 20))
            wire.until_types(result.id, "task-progress")
            proxy.stall()
            gate.touch()
            seconds, tries = result.get(timeout=40)
            assert seconds < 7 + 2 * WAIT_SECONDS and tries <= 2, worker.tail()
            assert "cannot send the progress" in worker.log.read_text()
        finally:
            worker.kill()


@pytest.fixture
def confirmed(rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Celery, Proxy]]:
    """An app that waits for the broker's confirms, and its way to the broker."""
    monkeypatch.setattr("celery_gateway.progress._paused_until", 0.0)  # what an earlier test left
    url = rabbitmq.add_vhost(f"progress-{uuid4().hex[:8]}")
    with Proxy(rabbitmq.port) as proxy:
        app = Celery(broker=proxy.url(url), set_as_current=False)
        app.conf.broker_transport_options = {"confirm_publish": True}
        yield app, proxy
        app.pool.force_close_all()  # closing in good order could wait for a broker that does not answer
        app.close()


@contextmanager
def running(app: Celery) -> Iterator[Task]:
    """A task of the app that is, as far as it can see, being run by a worker."""

    @app.task(bind=True)
    def work(self: Task) -> None:
        raise AssertionError("is never run")

    work.push_request(id="a-task", root_id="a-task", hostname="w1@localhost")
    try:
        yield work
    finally:
        work.pop_request()


@pytest.mark.timing
def test_a_task_does_not_wait_for_a_broker_in_alarm(
    confirmed: tuple[Celery, Proxy], rabbitmq: RabbitMQ
) -> None:
    """It confirms nothing until the alarm is over: a second to see that, and one with a new connection."""
    with running(confirmed[0]) as task:
        report(task, 0)
        rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1")
        try:
            started = time.monotonic()
            while time.monotonic() < started + 3 * MIN_INTERVAL_SECONDS:
                report(task, 1)
            for _ in range(1000):
                report(task, 2)
            assert WAIT_SECONDS <= time.monotonic() - started < 2 * WAIT_SECONDS + 2
        finally:
            rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


def test_a_soft_time_limit_while_it_waits_leaves_no_broken_connection_in_the_pool(
    confirmed: tuple[Celery, Proxy],
) -> None:
    app, proxy = confirmed

    def on_time(*_: object) -> None:
        raise SoftTimeLimitExceeded()

    before = signal.signal(signal.SIGALRM, on_time)
    try:
        with running(app) as task:
            report(task, 1, 2)
            with app.pool.acquire() as connection:
                assert connection.connected
            proxy.stall()
            signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS / 4)
            with pytest.raises(SoftTimeLimitExceeded):
                report(task, 2, 2)
            with app.pool.acquire() as connection:
                assert not connection.connected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def listening(url: str) -> Iterator[Wire]:
    wire = Wire(url)
    wire.start()
    try:
        yield wire
    finally:
        wire.stop()


def test_the_page_s_examples_do_what_it_says(
    broker: str, stream: StreamFactory, tmp_path: Path, results: Path
) -> None:
    project = tmp_path / "proj"
    project.mkdir()
    configured = f"Celery('proj', broker={broker!r}, backend={'file://' + str(results)!r}"
    (project / "celery.py").write_text(
        f"from celery import Celery\napp = {configured}, include=['proj.pictures', 'proj.files'])\n"
        "app.conf.task_default_queue = 'proj'\n"
    )
    page = (ROOT / "docs" / "progress.md").read_text()
    examples = re.findall(r"```python\n# proj/(\w+\.py)\n(.*?)```", page, re.DOTALL)
    assert [name for name, _ in examples] == ["pictures.py", "files.py"]
    for name, text in examples:
        (project / name).write_text(text)
    args = (sys.executable, "-m", "celery", "-A", "proj", "worker", "-E", "-n", "proj@localhost", "-c", "1")
    events = stream(name="proj.*")
    worker = Process(
        args, log=tmp_path / "proj.log", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        with create_app(broker, results) as client:
            calls: dict[str, tuple[object, ...]] = {
                "proj.pictures.resize": (["a.png", "b.png", "c.png"],),
                "proj.files.hello": (1, 2),
                "proj.files.upload_files": (["a.txt", "b.txt"],),
            }
            ids = {
                name: client.send_task(name, args, queue="proj", ignore_result=True).id
                for name, args in calls.items()
            }
            for uuid in ids.values():
                events.until_types(uuid, "task-succeeded", timeout_seconds=40)
    finally:
        worker.kill()

    def told(name: str) -> list[tuple[object, ...]]:
        fields = ("type", "state", "current", "total", "progress")
        own = [event for event in events.of(ids[name]) if event["type"] not in STATE_OF_EVENT]
        return [tuple(event.get(field) for field in fields) for event in own]

    progress = ("task-progress", "PROGRESS")
    assert told("proj.pictures.resize")[:-1] == [(*progress, n, 3, n / 3) for n in range(3)]
    assert told("proj.pictures.resize")[-1][2:] == (3, 3, 1.0)
    assert told("proj.files.hello") == [(*progress, None, None, 50), (*progress, None, None, 90)]
    assert told("proj.files.upload_files") == [
        (*progress, 0, 2, 0.0),
        (*progress, 1, 2, 0.5),
        ("task-verifying", "VERIFYING", None, None, None),
    ]
