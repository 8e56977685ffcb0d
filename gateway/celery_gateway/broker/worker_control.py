"""Remote control of the workers of one broker: switch on task events, and list tasks that are under way.

- A worker sends no task events unless it was started with ``-E`` or gets the command ``enable_events``, which
  it forgets when it restarts. So each worker gets the command when its first event arrives, and when it comes
  online again.
- Tasks that are under way have been named in earlier events, which are not sent again. So the same workers
  are asked for their tasks; and all workers, when the gateway begins to consume. Such lists have no
  workflows.
- A worker sends ``worker-online`` before it opens its mailbox (celery/worker/consumer: Heart, then Control).
  So a worker counts as done only when it has replied. Until then the commands are repeated, ever less often.
- All commands are sent in a thread, over a connection of its own, to many workers at a time, and at most once
  in ``ROUND_SECONDS``, however many heartbeats arrive.
"""

import asyncio
import logging
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from celery_gateway.broker.pidbox import Command
from celery_gateway.broker.pidbox_client import request
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import WorkerControlError
from celery_gateway.events.event import Event

GATHER_SECONDS = 0.5
"""Workers whose first events arrive within this time get their commands together."""
ROUND_SECONDS = 1.0
SILENCE_SECONDS = 1.0
"""The time without a reply after which no further reply is expected."""
MAX_PAUSE_SECONDS = 30.0
MAX_WORKERS = 10_000
MAX_DESTINATIONS = 500
MAX_HOSTNAME_CHARACTERS = 255
NAMES_AT_ONCE = 500
UNANSWERED_ATTEMPTS = 5
"""After so many attempts a missing reply is logged, and a worker without further events is forgotten."""
LOG_SECONDS = 60.0

_ALL_COMMANDS = (Command.ENABLE_EVENTS, Command.SCHEDULED, Command.RESERVED, Command.ACTIVE)
"""In this order: a task moves from left to right, so that none is missed between two lists."""

_ENABLED = "task events enabled"
"""The reply of a worker whose events were off; otherwise "task events already enabled"
(celery/worker/control.py)."""

log = logging.getLogger(__name__)

Names = Sequence[tuple[str, str]]
"""Uuids and names of tasks."""


class WorkerControlStatistics(NamedTuple):
    """Counts of workers, and counts that only grow.

    Attributes:
        workers: those whose events have arrived.
        unanswered: those of them that have not replied yet.
        rounds: of commands.
        failed_rounds: those whose commands could not be sent.
        names: of tasks that workers have listed.
    """

    workers: int
    unanswered: int
    rounds: int
    failed_rounds: int
    names: int


class _Worker:
    __slots__ = ("due", "attempts", "has_events")

    def __init__(self, due: float) -> None:
        self.due: float | None = due  # loop time of the next commands; None: it has replied
        self.attempts = 0
        self.has_events = True  # since the last commands


class WorkerControl:
    """Sends commands to the workers of one broker.

    Args:
        urls: the broker's, as Celery takes them; after a failure the next one is used.
        name: the broker's, for the log.
        access: how the gateway connects.
        control_exchange: Celery's.
        round_seconds: the shortest time between two rounds of commands.
        silence_seconds: the time without a reply after which a round ends.
    """

    def __init__(
        self,
        urls: Sequence[str],
        name: str | None = None,
        *,
        access: Access = BY_URL,
        control_exchange: str = "celery",
        round_seconds: float = ROUND_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._title = f"control of {name}" if name else "control"
        self._urls = deque(urls)
        self._access = access
        self._control_exchange = control_exchange
        self._round_seconds = round_seconds
        self._silence_seconds = silence_seconds
        # By hostname and pid, so that two workers with one name do not replace each other again and again.
        # The pid is None for a worker without events that has replied. In the order of eviction.
        self._workers: OrderedDict[tuple[str, int | None], _Worker] = OrderedDict()
        self._is_all_requested = True
        self._due: float | None = None  # loop time of the next round, apart from the pause
        self._pause_end = 0.0  # loop time
        self._failures = 0  # in a row
        self._wake = asyncio.Event()
        self._rounds = self._failed_rounds = self._names = 0
        self._logged_at: dict[str, float] = {}

    def statistics(self) -> WorkerControlStatistics:
        """Return the counts."""
        unanswered = sum(worker.due is not None for worker in self._workers.values())
        return WorkerControlStatistics(
            len(self._workers), unanswered, self._rounds, self._failed_rounds, self._names
        )

    def on_event(self, event: Event) -> None:
        """Record a ``worker-…`` event."""
        hostname, pid, event_type = event.get("hostname"), event.get("pid"), event["type"]
        if type(hostname) is not str:
            return
        key = (hostname, pid if type(pid) is int else None)
        if event_type == "worker-heartbeat":
            if (worker := self._workers.get(key)) is None:
                self._add(key)
            else:
                worker.has_events = True
                self._workers.move_to_end(key)
        elif event_type == "worker-online":
            self._forget(key)
            self._add(key)
        elif event_type == "worker-offline":
            self._forget(key)

    def request_all(self) -> None:
        """Request the tasks of all workers, because the gateway begins to consume."""
        self._workers.clear()
        self._is_all_requested = False
        self._failures = 0
        self._pause_end = 0.0
        self._due = 0.0
        self._wake.set()

    async def run(self, on_names: Callable[[Names], None], on_enabled: Callable[[], None]) -> None:
        """Send commands when they are due, until cancelled.

        Args:
            on_names: called in the event loop with names of tasks, some at a time.
            on_enabled: called when workers have sent no task events until now, so that events are missing.
        """
        stopping = threading.Event()
        try:
            while True:
                await self._wait_until_due()
                self._pause_end = _now() + self._round_seconds
                try:
                    await self._round(on_names, on_enabled, stopping)
                    self._failures = 0
                except WorkerControlError as error:
                    self._record_failure(str(error))
                except Exception as error:
                    log.exception("%s: unexpected error; it tries again", self._title)
                    self._record_failure(repr(error))
                self._due = min((w.due for w in self._workers.values() if w.due is not None), default=None)
                if not self._is_all_requested:
                    self._due = 0.0
        finally:
            stopping.set()

    async def _wait_until_due(self) -> None:
        while True:
            at = None if self._due is None else max(self._due, self._pause_end)
            if at is not None and at <= _now():
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._wake.wait()

    async def _round(
        self, on_names: Callable[[Names], None], on_enabled: Callable[[], None], stopping: threading.Event
    ) -> None:
        self._rounds += 1
        if not self._is_all_requested:
            self._is_all_requested = True
            try:
                replies = await self._request((Command.ACTIVE,), None, on_names, stopping)
            except WorkerControlError:
                self._is_all_requested = False
                raise
            for hostname in set(replies).difference(hostname for hostname, _ in self._workers):
                self._add((hostname, None), due=0.0)
        now = _now()
        due = dict(islice(((k, w) for k, w in self._workers.items() if _is_due(w, now)), MAX_DESTINATIONS))
        if not due:
            return
        for worker in due.values():
            worker.has_events = False
            worker.attempts += 1
            worker.due = now + _pause_seconds(worker.attempts)
        replies = await self._request(_ALL_COMMANDS, sorted({key[0] for key in due}), on_names, stopping)
        if _ENABLED in replies.values():
            on_enabled()
        for key, worker in due.items():
            if key[0] in replies:
                worker.due = None
            elif worker.attempts >= UNANSWERED_ATTEMPTS:
                self._log_once_a_minute("no reply from %s: is its remote control switched off?", key[0])
                if not worker.has_events and self._workers.get(key) is worker:
                    del self._workers[key]

    async def _request(
        self,
        commands: Sequence[Command],
        hostnames: Sequence[str] | None,
        on_names: Callable[[Names], None],
        stopping: threading.Event,
    ) -> Mapping[str, str]:
        """Send commands from a thread; return the replies to the first of them, by hostname."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Mapping[str, str]] = loop.create_future()
        credit = threading.Semaphore(1)  # names are handed over as fast as the event loop processes them
        url = self._urls[0]

        def process(names: Names) -> None:
            credit.release()
            if not stopping.is_set():
                self._names += len(names)
                on_names(names)

        def end(replies: Mapping[str, str], error: Exception | None) -> None:
            if not ended.done():
                ended.set_result(replies) if error is None else ended.set_exception(error)

        def run() -> None:
            replies: dict[str, str] = {}
            error: Exception | None = None
            try:
                for reply in request(
                    url,
                    commands,
                    hostnames,
                    self._silence_seconds,
                    stopping.is_set,
                    access=self._access,
                    control_exchange=self._control_exchange,
                ):
                    if reply.command is commands[0] and reply.is_success:
                        replies[reply.hostname] = reply.text
                    for start in range(0, len(reply.names), NAMES_AT_ONCE):
                        credit.acquire()
                        loop.call_soon_threadsafe(process, reply.names[start : start + NAMES_AT_ONCE])
            except Exception as caught:
                error = caught
            self._log_enabled(replies)
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(end, replies, error)

        threading.Thread(target=run, name="celery-gateway-control", daemon=True).start()
        return await ended

    def _add(self, key: tuple[str, int | None], due: float | None = None) -> None:
        hostname = key[0]
        if not 0 < len(hostname) <= MAX_HOSTNAME_CHARACTERS:
            return
        known = self._workers.pop((hostname, None), None)  # the same worker, now with its pid
        worker = self._workers[key] = known or _Worker(_now() + GATHER_SECONDS if due is None else due)
        if len(self._workers) > MAX_WORKERS:
            self._workers.popitem(last=False)
        if worker.due is not None and (self._due is None or worker.due < self._due):
            self._due = worker.due
            self._wake.set()

    def _forget(self, key: tuple[str, int | None]) -> None:
        self._workers.pop(key, None)
        self._workers.pop((key[0], None), None)

    def _record_failure(self, reason: str) -> None:
        self._failed_rounds += 1
        self._failures += 1
        self._urls.rotate(-1)
        self._pause_end = _now() + _pause_seconds(self._failures) * random.uniform(1.0, 2.0)
        self._log_once_a_minute("commands could not be sent to the workers (%s); it tries again", reason)

    def _log_once_a_minute(self, text: str, *arguments: str) -> None:
        now = _now()
        if now - self._logged_at.get(text, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged_at[text] = now
            log.warning(f"%s: {text}", self._title, *arguments)

    def _log_enabled(self, replies: Mapping[str, str]) -> None:
        """Log the workers whose task events were off until now."""
        enabled = [hostname for hostname, text in replies.items() if text == _ENABLED]
        if enabled:
            shown = ", ".join(enabled[:5]) + (f" and {len(enabled) - 5} more" if enabled[5:] else "")
            log.info("%s: task events switched on at %s", self._title, shown)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_due(worker: _Worker, now: float) -> bool:
    return worker.due is not None and worker.due <= now


def _pause_seconds(attempts: int) -> float:
    return MAX_PAUSE_SECONDS if attempts > 10 else min(GATHER_SECONDS * 2.0**attempts, MAX_PAUSE_SECONDS)
