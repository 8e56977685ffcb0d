"""The self-test at the start, and the fallback for a uvicorn that cannot carry streams directly."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
from celery_gateway.http.uvicorn_direct.self_test import find_problem
from celery_gateway.http.uvicorn_direct.websocket_connection import DirectWebSocket
from tests.http.test_streams import KINDS, messages
from tests.support.cpu_time import scaled
from tests.support.gateway_process import GatewayProcess

OLD_UVICORN = "0.50.0"
"""It closes each WebSocket whose application returns; the requirements of celery-gateway exclude it."""


class _NoPipeline(DirectHTTP):
    def __getattribute__(self, name: str) -> Any:
        if name == "pipeline":
            raise AttributeError("no attribute 'pipeline'")
        return super().__getattribute__(name)


class _Closes(DirectWebSocket):
    async def run_asgi(self) -> None:
        await super().run_asgi()
        self.transport.close()


class _NoTexts(DirectWebSocket):
    def send_receive_event_to_app(self) -> None:
        WebSocketsSansIOProtocol.send_receive_event_to_app(self)


def test_the_installed_uvicorn_passes() -> None:
    before = time.process_time()
    assert find_problem(DirectHTTP, DirectWebSocket) is None
    assert time.process_time() - before < scaled(1)


@pytest.mark.parametrize(
    ("http", "websocket", "problem"),
    [
        (_NoPipeline, DirectWebSocket, "SSE: AttributeError: no attribute 'pipeline'"),
        (HttpToolsProtocol, DirectWebSocket, "SSE: RuntimeError: the connection offers no direct transport"),
        (DirectHTTP, _Closes, "WebSocket: ConnectionError: the connection was closed before self-test"),
        (
            DirectHTTP,
            WebSocketsSansIOProtocol,
            "WebSocket: RuntimeError: the connection offers no",
        ),
    ],
)
def test_changed_internals_are_detected(http: type, websocket: type, problem: str) -> None:
    found = find_problem(http, websocket)
    assert found is not None and found.startswith(problem)


def test_a_missing_stream_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery_gateway.http.uvicorn_direct.self_test.TIMEOUT_SECONDS", 0.2)
    assert find_problem(DirectHTTP, _NoTexts) == "WebSocket: TimeoutError"


@pytest.fixture
def demo_on_old_uvicorn(tmp_path: Path) -> Iterator[GatewayProcess]:
    """The demo on an excluded uvicorn, as after `pip install uvicorn==0.50.0`."""
    packages = tmp_path / "packages"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--target", packages, f"uvicorn=={OLD_UVICORN}"),
        ],
        check=True,
        timeout=100,
    )
    gateway = GatewayProcess("", tmp_path, environment={"PYTHONPATH": str(packages)})
    gateway._args = [sys.executable, "-m", "celery_gateway", "demo", "--port", str(gateway.port)]
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


def test_an_old_uvicorn_gets_one_warning_and_all_streams_work(demo_on_old_uvicorn: GatewayProcess) -> None:
    log = demo_on_old_uvicorn.log.read_text()
    assert log.count("WARNING") == 1
    assert f"uvicorn {OLD_UVICORN} cannot carry streams directly (WebSocket: " in log
    assert "pip install 'uvicorn" in log
    streams = [messages(demo_on_old_uvicorn, kind, {"type": "task-started"}) for kind in KINDS]
    for stream in streams:
        assert next(stream)["type"] == "gateway-open"
        assert next(stream)["name"]
        stream.close()  # type: ignore[attr-defined]
    assert demo_on_old_uvicorn.stop() == 0
    assert "Traceback" not in demo_on_old_uvicorn.log.read_text()
