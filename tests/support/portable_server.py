"""The gateway in somebody's application under other ASGI servers, for the tests of the portable path."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import uvicorn

from tests.support.gateway_process import ROOT
from tests.support.rabbitmq import Process, free_port, log_tail, wait_for

COMMANDS = {
    "hypercorn": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "{app}"),
    "uvicorn": ("-m", "uvicorn", "--port", "{port}", "{app}"),
    "granian": ("-m", "granian", "--interface", "asgi", "--port", "{port}", "{app}"),
}


class PortableServer:
    """The gateway mounted at /celery in an application of somebody's own, under a server of `COMMANDS`.

    Args:
        settings: further ones of the gateway.
        middleware: names of what is around the application, as in `tests.support.mounted`.
    """

    def __init__(
        self,
        broker: str,
        folder: Path,
        *,
        server: str = "hypercorn",
        app: str = "tests.support.mounted:app",
        settings: Mapping[str, Any] | None = None,
        middleware: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/celery"
        self.log = folder / f"{server}-{self.port}.log"
        self._environment = {
            **os.environ,
            "TEST_BROKER": broker,
            "TEST_SETTINGS": json.dumps(dict(settings or {})),
            "TEST_MIDDLEWARE": middleware,
            **(environment or {}),
        }
        arguments = [argument.format(port=self.port, app=app) for argument in COMMANDS[server]]
        self._command = [sys.executable, *arguments]
        self._process: Process | None = None

    def start(self) -> None:
        self._process = Process(self._command, log=self.log, env=self._environment, cwd=ROOT)
        self._process.wait_until(self.is_ready, 20)

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL; the exit code (negative: the signal)."""
        assert self._process is not None
        return self._process.stop()

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def tail(self, lines: int = 30) -> str:
        """The end of its log, to be shown with a failed test."""
        return log_tail(self.log, lines)


@contextmanager
def in_thread(app: Any) -> Iterator[tuple[uvicorn.Server, str]]:
    """An application under uvicorn in a thread of ours, and its URL; no signal reaches it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert wait_for(lambda: server.started or not thread.is_alive(), 10) and server.started
        yield server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server does not end"
