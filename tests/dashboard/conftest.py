"""Fixtures of the dashboard's tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from tests.support.browser import chromium
from tests.support.gateway_process import ROOT
from tests.support.rabbitmq import Process, free_port, wait_for

POPULATED_SECONDS = 60


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the demo, once each kind of thing is there: all states, workflows, failures, a worker."""
    port = free_port()
    log: Path = tmp_path_factory.mktemp("demo") / "demo.log"
    process = Process(
        [sys.executable, "-m", "celery_gateway", "demo", "--port", str(port)], log=log, cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}"

    def is_populated() -> bool:
        try:
            states = httpx.get(f"{url}/tasks/counts?by=state", timeout=5).json()["counts"]["state"]
            failures = httpx.get(f"{url}/failures", timeout=5).json()["failures"]
        except httpx.TransportError:
            return False
        return {"SUCCESS", "FAILURE", "STARTED"} <= states.keys() and bool(failures)

    try:
        wait_for(is_populated, POPULATED_SECONDS)
        yield url
    finally:
        process.stop(20)
