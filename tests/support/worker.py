"""A real Celery worker as a child process."""

import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.support.celery_app import create_app
from tests.support.rabbitmq import Process, log_tail

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """`python -m celery -A tests.support.celery_app worker`; its result backend is the folder `results`.

    `wrapper` is a command that runs it, such as `unshare -Upf --mount-proc`.
    """

    def __init__(
        self,
        broker_url: str,
        folder: Path,
        *,
        results: Path,
        pool: str = "prefork",
        concurrency: int = 2,
        events: bool = True,
        name: str | None = None,
        options: Sequence[str] = (),
        wrapper: Sequence[str] = (),
    ) -> None:
        self.hostname = f"{name or 'worker-' + uuid.uuid4().hex[:8]}@localhost"
        self.log = folder / f"{self.hostname}.log"
        self._control = create_app(broker_url, None).control
        self._env = os.environ | {"TESTS_BROKER_URL": broker_url, "TESTS_RESULTS": str(results)}
        self._args = [
            *wrapper,
            *(sys.executable, "-m", "celery", "-A", "tests.support.celery_app", "worker"),
            *("-n", self.hostname, "-P", pool, "-c", str(concurrency), "-l", "INFO"),
            *(["-E"] if events else []),
            *("--without-gossip", "--without-mingle"),
            *options,
        ]
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the worker is not running"
        return self._process.pid

    def start(self, timeout_seconds: float = 30.0) -> None:
        """Returns once it answers a ping, so tasks and remote control both work; else raises ProcessError."""
        self._process = Process(self._args, log=self.log, env=self._env, cwd=ROOT)
        try:
            self._process.wait_until(self._answers, timeout_seconds)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_seconds: float = 10.0) -> int | None:
        """Warm shutdown, then SIGKILL to all that is left of it; the exit code, None if it did not run."""
        process, self._process = self._process, None
        return None if process is None else process.stop(timeout_seconds)

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer does: no worker-offline, its pool goes too."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def terminate(self) -> None:
        """SIGTERM, a warm shutdown: tasks under way go on to their end."""
        assert self._process is not None, "the worker is not running"
        self._process.signal(signal.SIGTERM)

    def tail(self, lines: int = 30) -> str:
        """The end of its log, to be shown with a failed test."""
        return log_tail(self.log, lines)

    def _answers(self) -> bool:
        return bool(self._control.ping(destination=[self.hostname], timeout=0.25, limit=1))
