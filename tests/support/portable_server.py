"""The gateway in somebody's application under another ASGI server, for the tests of the portable path."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import httpx

from tests.gateway_process import ROOT
from tests.rabbitmq import Process, free_port, log_tail


class PortableServer:
    """The gateway mounted at /celery in an application of somebody's own, under hypercorn."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/celery"
        self.log = folder / f"hypercorn-{self.port}.log"
        self._environment = os.environ | {"TEST_BROKER": broker}
        self._process: Process | None = None

    def start(self) -> None:
        self._process = Process(
            [sys.executable, "-m", "hypercorn", "tests.mounted:app", "--bind", f"127.0.0.1:{self.port}"],
            log=self.log,
            env=self._environment,
            cwd=ROOT,
        )
        self._process.wait_until(self.is_ready, 20)

    def stop(self) -> None:
        assert self._process is not None
        self._process.stop()

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == 200
        return False

    def tail(self, lines: int = 30) -> str:
        """The end of its log, to be shown with a failed test."""
        return log_tail(self.log, lines)
