"""The gateway as its users run it: `python -m celery_gateway serve` in a process of its own."""

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from tests.support.rabbitmq import Process, free_port, log_tail

ROOT = Path(__file__).resolve().parents[2]


class GatewayProcess:
    """`options` are further arguments of `serve`; `environment` is added to ours."""

    def __init__(
        self,
        broker_url: str,
        folder: Path,
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"gateway-{uuid.uuid4().hex[:8]}.log"
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("GATEWAY_", "CELERY_"))
        }
        # Tests look at the reasons; `test_health` has the default.
        self._env = inherited | {"GATEWAY_VERBOSE_HEALTH": "1"} | dict(environment or {})
        self._args = [
            *(sys.executable, "-m", "celery_gateway", "serve", "--broker", broker_url),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *options,
        ]
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the gateway is not running"
        return self._process.pid

    def launch(self) -> None:
        """Starts the process and does not wait, for a test whose broker is away."""
        self._process = Process(self._args, log=self.log, env=self._env, cwd=ROOT)

    def start(self, timeout_seconds: float = 40) -> None:
        """Returns once GET /readyz answers 200, so events are consumed; raises ProcessError otherwise."""
        self.launch()
        assert self._process is not None
        try:
            self._process.wait_until(self.is_ready, timeout_seconds)
        except BaseException:
            self.stop(timeout_seconds=1)
            raise

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False

    def stop(self, timeout_seconds: float = 40) -> int | None:
        """SIGTERM, then SIGKILL; the exit code (negative: the signal), None if it did not run."""
        process, self._process = self._process, None
        return None if process is None else process.stop(timeout_seconds)

    def tail(self, lines: int = 30) -> str:
        """The end of its log, to be shown with a failed test."""
        return log_tail(self.log, lines)
