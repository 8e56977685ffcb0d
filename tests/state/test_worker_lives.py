"""State across clock skew, restarts and shutdowns of real workers, compared with the result backend."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from celery.result import AsyncResult

from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.thorough import variants
from tests.support.worker import Worker

DEADLINE_SECONDS = 20.0
SILENT_SECONDS = 15.0


@pytest.fixture
def workers(broker: str, folder: Path, celery: Celery) -> Iterator[Any]:
    """Makes workers of a queue each, started and ended with the test."""
    started: list[Worker] = []

    def start(queue: str, *, wrapper: tuple[str, ...] = (), **options: Any) -> Worker:
        more = ("-Q", queue, *options.pop("options", ()))
        worker = Worker(broker, folder, results=folder / "results", options=more, wrapper=wrapper, **options)
        started.append(worker)
        worker.start()
        return worker

    try:
        yield start
    finally:
        for worker in started:
            worker.kill()


@pytest.fixture
def queue() -> str:
    return f"lives-{uuid.uuid4().hex[:8]}"


def behind(seconds: float) -> tuple[str, ...]:
    """The command that runs another one with its clock behind."""
    return ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", f"-{seconds}s")


def task(gateway: GatewayProcess, uid: str) -> dict[str, Any]:
    answer = httpx.get(f"{gateway.url}/tasks/{uid}")
    return answer.json() if answer.status_code == 200 else {"state": None}


def status(gateway: GatewayProcess, worker: Worker) -> str:
    listed = httpx.get(f"{gateway.url}/workers", params={"hostname": worker.hostname}).json()["workers"]
    return str(listed[0]["status"]) if listed else ""


def assert_ended_as_stored(gateway: GatewayProcess, results: list[AsyncResult]) -> None:
    for result in results:
        # (A worker that another test has run in this process leaves a mark that get() would refuse.)
        result.get(timeout=DEADLINE_SECONDS, disable_sync_subtasks=False)
    assert wait_for(
        lambda: [task(gateway, each.id)["state"] for each in results] == ["SUCCESS"] * len(results),
        DEADLINE_SECONDS,
    ), {task(gateway, each.id)["state"] for each in results}
    for each in results:
        view = task(gateway, each.id)
        assert view["result"] == repr(each.result)
        assert (view["exception"], view["stale"]) == (None, False)


@pytest.mark.parametrize("seconds", variants(1, [7200.0, 0.03, 0.1]))
def test_a_replaced_task_ends_at_a_worker_whose_clock_is_behind(
    gateway: GatewayProcess, celery: Celery, workers: Any, queue: str, seconds: float
) -> None:
    workers(f"{queue}-a")
    b = workers(f"{queue}-b", wrapper=behind(seconds))
    results = [
        celery.send_task("lives.moved", (f"{queue}-b",), queue=f"{queue}-a", task_id=str(uuid.uuid4()))
        for _ in range(20)
    ]
    assert_ended_as_stored(gateway, results)
    assert {task(gateway, each.id)["worker"] for each in results} == {b.hostname}


def test_a_killed_workers_task_is_ended_by_one_whose_clock_is_behind(
    gateway: GatewayProcess, celery: Celery, workers: Any, queue: str
) -> None:
    a = workers(queue)
    result = celery.send_task("ends.stuck_once", queue=queue)
    assert wait_for(lambda: task(gateway, result.id)["state"] == "STARTED", DEADLINE_SECONDS)
    b = workers(f"{queue}-b", wrapper=behind(3.0))
    celery.control.add_consumer(queue, destination=[b.hostname])
    a.kill()
    assert_ended_as_stored(gateway, [result])
    view = task(gateway, result.id)
    assert (view["attempt"], view["worker"], len(view["attempts"])) == (2, b.hostname, 2)


def test_a_worker_that_is_killed_and_comes_up_with_the_same_pid_has_lost_its_task(
    gateway: GatewayProcess, celery: Celery, workers: Any, queue: str
) -> None:
    name, container = f"c-{queue}", ("unshare", "-Upf", "--mount-proc")
    first = workers(queue, wrapper=container, name=name)
    result = celery.send_task("canvas.forever", queue=queue)
    assert wait_for(lambda: task(gateway, result.id)["state"] == "STARTED", DEADLINE_SECONDS)
    assert task(gateway, result.id)["pid"] < 10
    with NdjsonStream(gateway.url, {"uuid": result.id}) as stream:
        first.kill()
        workers(queue, wrapper=container, name=name)
        lost = stream.until(bool, DEADLINE_SECONDS)[0]
    assert (lost["type"], lost["source"], lost["name"]) == ("task-lost", "gateway", "canvas.forever")
    assert task(gateway, result.id)["state"] == "LOST"


def test_a_worker_that_stops_finishes_what_it_runs(
    gateway: GatewayProcess, celery: Celery, workers: Any, queue: str
) -> None:
    worker = workers(queue)
    result = celery.send_task("lives.held", (8,), queue=queue)
    assert wait_for(lambda: task(gateway, result.id)["state"] == "STARTED", DEADLINE_SECONDS)
    with NdjsonStream(gateway.url, {"uuid": result.id}) as stream:
        worker.terminate()
        assert wait_for(lambda: status(gateway, worker) == "stopping", DEADLINE_SECONDS)
        assert [each["state"] for each in stream.until(bool, DEADLINE_SECONDS)] == ["SUCCESS"]
    assert status(gateway, worker) == "offline"


def test_a_worker_that_does_nothing_for_a_while_is_silent_and_its_task_is_not_lost(
    gateway: GatewayProcess, celery: Celery, workers: Any, queue: str
) -> None:
    worker = workers(queue)
    result = celery.send_task("lives.held", (8,), queue=queue)  # it ends while the worker stands still
    assert wait_for(lambda: task(gateway, result.id)["state"] == "STARTED", DEADLINE_SECONDS)
    with NdjsonStream(gateway.url, {"uuid": result.id}) as stream:
        os.kill(worker.pid, signal.SIGSTOP)  # as a loop does that gives gevent no turn
        try:
            assert wait_for(lambda: status(gateway, worker) == "silent", SILENT_SECONDS + 5)
            assert task(gateway, result.id)["state"] == "STARTED"
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        assert [each["state"] for each in stream.until(bool, DEADLINE_SECONDS)] == ["SUCCESS"]
    assert wait_for(lambda: status(gateway, worker) == "online", DEADLINE_SECONDS)


def test_a_chain_without_task_sent_is_not_ready_while_its_next_task_waits(
    gateway: GatewayProcess, broker: str, folder: Path, workers: Any, queue: str
) -> None:
    client = Celery("client", broker=broker, set_as_current=False)  # task_send_sent_event is off
    environment = {"TESTS_SENT_EVENTS": "0"}
    os.environ.update(environment)
    try:
        workers(queue, concurrency=1, options=("--prefetch-multiplier", "1"))
    finally:
        for name in environment:
            del os.environ[name]
    root_id = str(uuid.uuid4())
    add = client.signature("canvas.add", (1, 2), queue=queue, task_id=root_id)
    chain = add | client.signature("canvas.add", (4,), queue=queue)
    with NdjsonStream(gateway.url, {"root_id": root_id}) as stream:
        client.send_task("lives.held", (1.0,), queue=queue)  # until all others are in the queue
        last = chain.apply_async()
        for _ in range(2):
            client.send_task("lives.held", (2.5,), queue=queue)
        stream.until(bool, 20)
        with NdjsonStream(gateway.url, {"root_id": root_id, "until": "ready"}) as waiting:
            seen = waiting.until(
                lambda seen: any(each["uuid"] == last.id and each["state"] == "SUCCESS" for each in seen), 20
            )
        assert "gateway-close" not in {each["type"] for each in seen}
    client.close()
