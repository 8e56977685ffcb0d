"""``serve --workers N``: the supervisor of several processes, which are one gateway with one address.

Rules:

- The first process starts alone. If it cannot, its error is the only one, and its exit code is that of the
  command. A process that ends later is replaced: at once, then with back-off if that goes on.
- One signal shuts all processes down at the same time; a second one kills them.
- A process whose supervisor has ended shuts down (``cli.worker_process``).
- Any process returns the metrics of all, which are collected here.
"""

import asyncio
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from celery_gateway.cli.process_channel import (
    MAX_LINE_BYTES,
    Channel,
    Job,
    Metrics,
    Report,
    ShutDown,
    Started,
    Total,
)
from celery_gateway.errors import GatewayError
from celery_gateway.http.interrupt import stop_signals_handled
from celery_gateway.http.listener import SharedAddress, url_of
from celery_gateway.http.metrics_sum import REPLACED, Across, Series, counters, total
from celery_gateway.settings import Settings

STOP_SECONDS: Final = 10.0
"""Time for a shutdown, in seconds, of which the streams get 4; then the processes are killed."""
WARM_SECONDS: Final = 60.0
"""How long a process reads the shared log at most before it accepts requests, if others do already."""
METRICS_SECONDS: Final = 1.0
"""How long a process may take to report its metrics, in seconds; else those of its last report count."""
STABLE_SECONDS: Final = 30.0
"""A process that ran for this time is replaced at once, in seconds."""
MAX_PAUSE_SECONDS: Final = 30.0

log = logging.getLogger(__name__)


def supervise(settings: Settings, on_started: Callable[[str], None]) -> bool:
    """Run the processes of a gateway until SIGINT or SIGTERM, then let them drain.

    Args:
        settings: ``workers`` is the number of processes.
        on_started: is called with the gateway's URL when the first process accepts requests.

    Returns:
        Whether one of the signals was SIGINT.

    Raises:
        UnprotectedAddress, GatewayError: the address cannot be listened on, or the settings cannot be passed
            to other processes.
        SystemExit: the first process could not start.
    """
    address = SharedAddress(settings)
    try:
        url = url_of(address.reserved, settings.root_path, is_tls=bool(settings.tls_cert))
        supervisor = Supervisor(settings, address, lambda: on_started(url))
        asyncio.run(supervisor.run())
    finally:
        address.close()
    if supervisor.exit_code:
        sys.exit(supervisor.exit_code)
    return supervisor.is_interrupted


class Supervisor:
    """Runs the processes of a gateway.

    Attributes:
        exit_code: that of the first process, if it could not start; else 0.
        is_interrupted: whether one of the signals was SIGINT.
    """

    def __init__(self, settings: Settings, address: SharedAddress, on_started: Callable[[], None]) -> None:
        self._settings = settings
        self._address = address
        self._on_started = on_started
        self._is_started = False
        self._running: dict[int, Process] = {}
        self._ended: list[Series] = []  # the counters of processes that have ended
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.exit_code = 0
        self.is_interrupted = False

    async def run(self) -> None:
        """Run the processes until a signal, or until the first one could not start."""
        with stop_signals_handled(self._on_signal):
            try:
                self._keep(1)
                await self._stopping.wait()
                await self._stop()
            finally:
                for process in self._running.values():
                    process.kill()

    def _on_signal(self, number: signal.Signals) -> None:
        self.is_interrupted |= number == signal.SIGINT
        if self._stopping.is_set():
            self._killing.set()
            return
        log.info("%s: shutting down; a second signal kills the processes", number.name)
        self._stopping.set()

    async def _stop(self) -> None:
        for process in self._running.values():
            process.shut_down()
        killing: asyncio.Future[Any] = asyncio.create_task(self._killing.wait())
        ended: asyncio.Future[Any] = asyncio.gather(*self._tasks)
        await asyncio.wait({killing, ended}, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for process in self._running.values():
            if not self._killing.is_set():
                log.warning("%s did not shut down within %d s: killed", process.title, STOP_SECONDS)
            process.kill()
        await ended
        killing.cancel()

    def _keep(self, number: int) -> None:
        """Run a process, and replace it whenever it ends, in the background."""
        task = asyncio.create_task(self._run_again_and_again(number))
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._stopping.set()  # ``_stop`` raises it

    async def _run_again_and_again(self, number: int) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                process = await self._run(number)
            except (OSError, GatewayError) as error:  # too many processes or files
                if not self._is_started:
                    raise
                event = f"process {number} cannot start ({error})"
            else:
                if not self._is_started and not self._stopping.is_set():
                    self._fail(process)
                event = f"{process.title} {process.end}"
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - began >= STABLE_SECONDS else failures + 1
            pause_seconds = min(2.0 ** (failures - 2), MAX_PAUSE_SECONDS) if failures > 1 else 0.0
            log.error(
                "%s: starting another one %s", event, f"in {pause_seconds:g} s" if pause_seconds else "now"
            )
            replaced = Series(REPLACED, (), True, Across.SUM, 1.0)
            self._ended = total([self._ended, [replaced]])
            await _wait(self._stopping, pause_seconds)

    def _fail(self, process: "Process") -> None:
        """End the command: the first process could not start, and has printed why."""
        if process.code < 0:
            log.error("%s %s before it was ready", process.title, process.end)
        self.exit_code = max(process.code, 0) or 1
        self._stopping.set()

    async def _run(self, number: int) -> "Process":
        """Run a process; return it when it has ended."""
        process = await Process.start(self._settings, number, self._address, listens=not self._is_started)
        self._running[number] = process
        if self._stopping.is_set():
            process.shut_down()
        try:
            await self._follow(process)
            await process.wait()
        finally:
            del self._running[number]
            self._ended = total([self._ended, counters(process.metrics)])
        return process

    async def _follow(self, process: "Process") -> None:
        """Process the messages of a process until its channel ends."""
        async for message in process.channel.messages():
            match message:
                case Started():
                    process.is_ready = True
                    if not self._is_started and not self._stopping.is_set():
                        self._is_started = True
                        self._on_started()
                        for number in range(2, self._settings.workers + 1):
                            self._keep(number)
                case Metrics(series, wants_total):
                    process.on_metrics(series)
                    if wants_total:
                        process.answering = asyncio.create_task(self._answer(process))

    async def _answer(self, process: "Process") -> None:
        """Send a process the metrics of all."""
        others = [each for each in self._running.values() if each is not process and each.is_ready]
        await asyncio.gather(*(other.report() for other in others))
        reports = (each.metrics for each in self._running.values())
        process.channel.send(Total(total([*reports, self._ended])))


class Process:
    """A process of the gateway.

    Attributes:
        title: of the log.
        channel: to the process.
        is_ready: whether it accepts requests.
        metrics: its last report.
        answering: sends it the metrics of all processes.
        code: its exit code, negative for a signal; 0 while it runs.
    """

    def __init__(self, number: int, process: "subprocess.Popen[bytes]", channel: Channel) -> None:
        self.title = f"process {number} (pid {process.pid})"
        self.channel = channel
        self.is_ready = False
        self.metrics: list[Series] = []
        self.answering: asyncio.Task[None] | None = None
        self.code = 0
        self._process = process
        self._reported = asyncio.Event()

    @classmethod
    async def start(
        cls, settings: Settings, number: int, address: SharedAddress, *, listens: bool
    ) -> "Process":
        """Start a process.

        Args:
            listens: whether clients can connect while it starts.

        Raises:
            GatewayError: the settings cannot be passed to it.
        """
        try:
            job = pickle.dumps(Job(settings, number, 0.0 if listens else WARM_SECONDS))
        except Exception as error:  # of objects of an app in its transport options
            raise GatewayError(
                f"--workers: the settings cannot be passed to other processes ({error}): leave --workers out"
            ) from None
        ours, theirs = socket.socketpair()
        with theirs, address.socket(listens=listens) as listener:
            process = _spawn(job, theirs, listener)
        streams = await asyncio.open_unix_connection(sock=ours, limit=MAX_LINE_BYTES)
        return cls(number, process, Channel(*streams))

    @property
    def end(self) -> str:
        """How it ended, for the log."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        return f"was ended by {signal.Signals(-self.code).name}"

    def on_metrics(self, series: list[Series]) -> None:
        """Store a report of its metrics."""
        self.metrics = series
        self._reported.set()

    async def report(self) -> None:
        """Request a report of its metrics, and wait until it has arrived, ``METRICS_SECONDS`` at most."""
        self._reported.clear()
        self.channel.send(Report())
        await _wait(self._reported, METRICS_SECONDS)

    async def wait(self) -> None:
        """Wait until it has ended, after its channel has."""
        self.code = await asyncio.to_thread(self._process.wait)
        self.channel.close()

    def shut_down(self) -> None:
        """Let it shut down."""
        self.channel.send(ShutDown())
        if not self.is_ready:  # it may not read the channel yet
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)  # none if it has ended


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event for some seconds at most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _spawn(job: bytes, control: socket.socket, listener: socket.socket) -> "subprocess.Popen[bytes]":
    """Start ``cli.worker_process`` with the modules of this process, wherever they come from."""
    numbers = control.fileno(), listener.fileno()
    # A process inherits what is blocked: a terminal sends SIGINT to all processes, but only the supervisor
    # handles it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "celery_gateway.cli.worker_process", *map(str, numbers)],
            stdin=subprocess.PIPE,
            pass_fds=numbers,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # it has ended
        process.stdin.write(job)
    return process
