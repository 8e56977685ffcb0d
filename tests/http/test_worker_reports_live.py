"""Reports of real workers: with and without `-E`, and killed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from celery import Celery

from celery_gateway.state.worker_status import SILENT_SECONDS
from tests.support.gateway_process import GatewayProcess
from tests.support.thorough import IS_THOROUGH
from tests.support.worker import Worker

QUERY = {"workers": "1", "type": "none-*", "format": "ndjson"}


def test_workers_with_and_without_task_events(
    broker: str, celery: Celery, gateway: GatewayProcess, folder: Path
) -> None:
    """Both run tasks; then the one that sends nothing but heartbeats is killed (in `make test-thorough`)."""
    workers = {
        queue: Worker(
            broker,
            folder,
            results=folder / "results",
            pool="prefork",
            concurrency=1,
            events=has_events,
            options=("-Q", queue),
        )
        for queue, has_events in (("with", True), ("without", False))
    }
    try:
        for worker in workers.values():
            worker.start()
        with httpx.stream("GET", f"{gateway.url}/events", params=QUERY, timeout=40) as response:
            reports = _reports(response)
            first = [next(reports), next(reports)]
            assert {each["hostname"] for each in first} == {each.hostname for each in workers.values()}
            assert all(each["sends_task_events"] is None for each in first), "no task has started"
            assert all(each["status"] == "online" for each in first)
            for queue in workers:
                celery.send_task("canvas.add", (1, 2), queue=queue)
            found: dict[str, bool] = {}
            while len(found) < 2:
                report = next(reports)
                found[report["hostname"]] = report["sends_task_events"]
            assert found == {workers["with"].hostname: True, workers["without"].hostname: False}
            if IS_THOROUGH:
                workers["without"].kill()
                killed_at = time.monotonic()
                report = next(each for each in reports if each["hostname"] == workers["without"].hostname)
                assert (report["status"], report["alive"]) == ("silent", False)
                assert time.monotonic() - killed_at < SILENT_SECONDS + 2
    finally:
        for worker in workers.values():
            worker.kill()


def _reports(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the workers of a stream as they are reported."""
    deadline = time.monotonic() + 60
    for line in response.iter_lines():
        message = json.loads(line)
        if message["type"] == "gateway-worker":
            yield message["worker"]
        assert time.monotonic() < deadline
