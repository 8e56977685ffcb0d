"""Remote control, as Celery calls it: the little that a gateway says to the workers of one broker.

- A worker sends no task events unless it was started with ``-E`` or is told to (``enable_events``), and it
  forgets that when it restarts. So each is told when it is first heard of, and when it comes up again.
- Tasks that were under way before were named in events that nobody will send again. So those workers are
  asked then, and all of them when the gateway begins to listen, what they are at. They know no workflows.

A worker says that it is online before it opens its mailbox (celery/worker/consumer: Heart, then Control):
hence a worker counts as told only when it has answered, and is told again until then, ever less often.

It is nobody's burden: what is said is said in a thread, over a connection of its own, to many workers at a
time and at most once in ``ROUND_SECONDS``, whatever comes in as heartbeats.
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

from gateway.broker import BY_URL, Access
from gateway.errors import Unasked
from gateway.event import Event
from gateway.pidbox import Command, ask

GATHER_SECONDS = 0.5
"""Workers that are heard of within this time are told together."""
ROUND_SECONDS = 1.0
SILENCE_SECONDS = 1.0
"""After how long a silence nobody is expected to answer any more."""
MAX_PAUSE_SECONDS = 30.0
MAX_WORKERS = 10_000
MAX_DESTINATIONS = 500
MAX_HOSTNAME_CHARACTERS = 255
NAMES_AT_ONCE = 500
UNANSWERED_ATTEMPTS = 5
"""After so many it is worth a line in the log; and a worker that is not heard of any more is forgotten."""
LOG_SECONDS = 60.0

_WHOLE = (Command.ENABLE_EVENTS, Command.SCHEDULED, Command.RESERVED, Command.ACTIVE)
"""In this order: a task moves from left to right, so none slips through between two questions."""

_ENABLED = "task events enabled"
"""Of one that was off; else "task events already enabled" (celery/worker/control.py)."""

log = logging.getLogger(__name__)

Names = Sequence[tuple[str, str]]
"""Tasks' uuids and names."""


class RemoteStatistics(NamedTuple):
    """Workers heard of, how many of them have not answered yet; the other counts only grow."""

    workers: int
    unanswered: int
    rounds: int
    failed_rounds: int
    names: int


class _Worker:
    __slots__ = ("due", "attempts", "is_heard")

    def __init__(self, due: float) -> None:
        self.due: float | None = due  # loop time; None: it has answered
        self.attempts = 0
        self.is_heard = True  # since it was last asked


class Remote:
    """Talks to the workers of one broker.

    Args:
        urls: the broker's, as Celery takes them; the next one is tried where one fails.
        name: the broker's, for the log.
        access: how to speak to it.
        control_exchange: Celery's.
    """

    def __init__(
        self,
        urls: Sequence[str],
        name: str | None = None,
        *,
        access: Access = BY_URL,
        control_exchange: str = "celery",
    ) -> None:
        self._title = f"control of {name}" if name else "control"
        self._urls = deque(urls)
        self._access = access
        self._control_exchange = control_exchange
        # By hostname and pid, so that two workers with one name do not take turns as newcomers; the pid is
        # None where only an answer was heard. In the order of eviction.
        self._workers: OrderedDict[tuple[str, int | None], _Worker] = OrderedDict()
        self._is_warm = True
        self._due: float | None = None  # when there is something to say, but for the pause
        self._pause_end = 0.0
        self._failures = 0  # in a row
        self._wake = asyncio.Event()
        self._rounds = self._failed_rounds = self._names = 0
        self._logged_at: dict[str, float] = {}

    def statistics(self) -> RemoteStatistics:
        """Return the counts."""
        unanswered = sum(worker.due is not None for worker in self._workers.values())
        return RemoteStatistics(
            len(self._workers), unanswered, self._rounds, self._failed_rounds, self._names
        )

    def saw(self, event: Event) -> None:
        """Take note of a ``worker-…`` event."""
        hostname, pid, event_type = event.get("hostname"), event.get("pid"), event["type"]
        if type(hostname) is not str:
            return
        key = (hostname, pid if type(pid) is int else None)
        if event_type == "worker-heartbeat":
            if (worker := self._workers.get(key)) is None:
                self._heard_of(key)
            else:
                worker.is_heard = True
                self._workers.move_to_end(key)
        elif event_type == "worker-online":
            self._forget(key)
            self._heard_of(key)
        elif event_type == "worker-offline":
            self._forget(key)

    def warm(self) -> None:
        """Ask all workers what they are at: the gateway has begun to listen, and knows nobody for sure."""
        self._workers.clear()
        self._is_warm = False
        self._failures = 0
        self._pause_end = 0.0
        self._due = 0.0
        self._wake.set()

    async def run(self, know: Callable[[Names], None], enabled: Callable[[], None]) -> None:
        """Talk until cancelled.

        Args:
            know: is given tasks' names, in the event loop, some at a time.
            enabled: is called when workers have sent no task events until now: what they did is missing.
        """
        stopping = threading.Event()
        try:
            while True:
                await self._until_due()
                self._pause_end = _now() + ROUND_SECONDS
                try:
                    await self._round(know, enabled, stopping)
                    self._failures = 0
                except Unasked as error:
                    self._fail(str(error))
                except Exception as error:
                    log.exception("%s: an error that was not foreseen; it goes on", self._title)
                    self._fail(repr(error))
                self._due = min((w.due for w in self._workers.values() if w.due is not None), default=None)
                if not self._is_warm:
                    self._due = 0.0
        finally:
            stopping.set()

    async def _until_due(self) -> None:
        while True:
            at = None if self._due is None else max(self._due, self._pause_end)
            if at is not None and at <= _now():
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._wake.wait()

    async def _round(
        self, know: Callable[[Names], None], enabled: Callable[[], None], stopping: threading.Event
    ) -> None:
        self._rounds += 1
        if not self._is_warm:
            self._is_warm = True
            try:
                found = await self._ask((Command.ACTIVE,), None, know, stopping)
            except Unasked:
                self._is_warm = False
                raise
            for hostname in set(found).difference(hostname for hostname, _ in self._workers):
                self._heard_of((hostname, None), due=0.0)
        now = _now()
        asked = dict(islice(((k, w) for k, w in self._workers.items() if _is_due(w, now)), MAX_DESTINATIONS))
        if not asked:
            return
        for worker in asked.values():
            worker.is_heard = False
            worker.attempts += 1
            worker.due = now + _pause_seconds(worker.attempts)
        answered = await self._ask(_WHOLE, sorted({key[0] for key in asked}), know, stopping)
        if _ENABLED in answered.values():
            enabled()
        for key, worker in asked.items():
            if key[0] in answered:
                worker.due = None
            elif worker.attempts >= UNANSWERED_ATTEMPTS:
                self._log_now_and_then("no answer from %s: is its remote control switched off?", key[0])
                if not worker.is_heard and self._workers.get(key) is worker:
                    del self._workers[key]

    async def _ask(
        self,
        commands: Sequence[Command],
        hostnames: Sequence[str] | None,
        know: Callable[[Names], None],
        stopping: threading.Event,
    ) -> Mapping[str, str]:
        """Return who did the first of the commands, and their words."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Mapping[str, str]] = loop.create_future()
        credit = threading.Semaphore(1)  # names are handed over as fast as the loop has time for them
        url = self._urls[0]

        def take(names: Names) -> None:
            credit.release()
            if not stopping.is_set():
                self._names += len(names)
                know(names)

        def end(done: Mapping[str, str], error: Exception | None) -> None:
            if not ended.done():
                ended.set_result(done) if error is None else ended.set_exception(error)

        def talk() -> None:
            done: dict[str, str] = {}
            error: Exception | None = None
            try:
                answers = ask(
                    url,
                    commands,
                    hostnames,
                    SILENCE_SECONDS,
                    stopping.is_set,
                    access=self._access,
                    control_exchange=self._control_exchange,
                )
                for answer in answers:
                    if answer.command is commands[0] and answer.is_done:
                        done[answer.hostname] = answer.words
                    for start in range(0, len(answer.names), NAMES_AT_ONCE):
                        credit.acquire()
                        loop.call_soon_threadsafe(take, answer.names[start : start + NAMES_AT_ONCE])
            except Exception as caught:
                error = caught
            self._log_enabled(done)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, done, error)

        threading.Thread(target=talk, name="celery-gateway-control", daemon=True).start()
        return await ended

    def _heard_of(self, key: tuple[str, int | None], due: float | None = None) -> None:
        hostname = key[0]
        if not 0 < len(hostname) <= MAX_HOSTNAME_CHARACTERS:
            return
        found = self._workers.pop((hostname, None), None)  # the same, now with its pid
        worker = self._workers[key] = found or _Worker(_now() + GATHER_SECONDS if due is None else due)
        if len(self._workers) > MAX_WORKERS:
            self._workers.popitem(last=False)
        if worker.due is not None and (self._due is None or worker.due < self._due):
            self._due = worker.due
            self._wake.set()

    def _forget(self, key: tuple[str, int | None]) -> None:
        self._workers.pop(key, None)
        self._workers.pop((key[0], None), None)

    def _fail(self, reason: str) -> None:
        self._failed_rounds += 1
        self._failures += 1
        self._urls.rotate(-1)
        self._pause_end = _now() + _pause_seconds(self._failures) * random.uniform(1.0, 2.0)
        self._log_now_and_then("cannot talk to the workers (%s); trying again", reason)

    def _log_now_and_then(self, text: str, *arguments: str) -> None:
        now = _now()
        if now - self._logged_at.get(text, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged_at[text] = now
            log.warning(f"%s: {text}", self._title, *arguments)

    def _log_enabled(self, done: dict[str, str]) -> None:
        """Say whose task events were off until now."""
        enabled = [hostname for hostname, words in done.items() if words == _ENABLED]
        if enabled:
            shown = ", ".join(enabled[:5]) + (f" and {len(enabled) - 5} more" if enabled[5:] else "")
            log.info("%s: task events switched on at %s", self._title, shown)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_due(worker: _Worker, now: float) -> bool:
    return worker.due is not None and worker.due <= now


def _pause_seconds(attempts: int) -> float:
    return MAX_PAUSE_SECONDS if attempts > 10 else min(GATHER_SECONDS * 2.0**attempts, MAX_PAUSE_SECONDS)
