"""The pipeline: source -> normalize -> tasks -> hub, wired and counted.

One way, no hop back. This is the only place that knows all the stages; each of them knows none of the
others.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from gateway.hub import Hub, HubStatistics
from gateway.message import Message
from gateway.normalize import normalize
from gateway.remote import Remote
from gateway.source import Source, Status
from gateway.tasks import Tasks, TasksStatistics

REFUSED_LOG_SECONDS = 60.0

log = logging.getLogger(__name__)


class PipelineStatistics(NamedTuple):
    """Counts of the whole; all but the status only grow."""

    source: Status
    messages: int
    gaps: int
    refused: dict[str, int]
    tasks: TasksStatistics
    hub: HubStatistics


class Pipeline:
    """Carries messages from a source to the hub, from ``start`` to ``stop``.

    Args:
        remote: talks to the source's workers; ``None``: nobody does.
    """

    def __init__(self, source: Source, tasks: Tasks, hub: Hub, remote: Remote | None = None) -> None:
        self.hub = hub
        self._source = source
        self._tasks = tasks
        self._remote = remote
        self._messages = 0
        self._gaps = 0
        self._refused: Counter[str] = Counter()
        self._refused_logged_at = -REFUSED_LOG_SECONDS
        self._runners: list[asyncio.Task[None]] = []
        self._release_handle: asyncio.TimerHandle | None = None

    @property
    def status(self) -> Status:
        """How the source is doing."""
        return self._source.status

    def statistics(self) -> PipelineStatistics:
        """Return the counts of all stages."""
        return PipelineStatistics(
            source=self._source.status,
            messages=self._messages,
            gaps=self._gaps,
            refused=dict(self._refused),
            tasks=self._tasks.statistics(),
            hub=self.hub.statistics(),
        )

    async def start(self) -> None:
        """Begin to consume, in the background."""
        self._runners = [asyncio.create_task(self._source.run(self), name="source")]
        if self._remote is not None:
            self._runners.append(asyncio.create_task(self._remote.run(self.know), name="remote"))
        for runner in self._runners:
            runner.add_done_callback(_log_crash)

    async def stop(self) -> None:
        """Stop consuming, and end every stream. May be called again."""
        if self._release_handle is not None:
            self._release_handle.cancel()
        for runner in self._runners:
            runner.cancel()
        for runner in self._runners:
            with suppress(asyncio.CancelledError, Exception):
                await runner
        self.hub.close()

    def message(self, message: Message) -> None:
        """Take a message in (called by the source)."""
        self._messages += 1
        events, refused = normalize(message, time.time())
        if refused:
            self._refuse(refused)
        now = asyncio.get_running_loop().time()
        for event in events:
            if self._remote is not None and event["type"].startswith("worker-"):
                self._remote.saw(event)
            for joined in self._tasks.join(event, now):
                self.hub.append(joined)
        self._plan_release()

    def consuming(self) -> None:
        """Ask the workers what they are at (called by the source)."""
        if self._remote is not None:
            self._remote.warm()

    def know(self, names: Iterable[tuple[str, str]]) -> None:
        """Take the names of tasks in by their uuids (called by the remote)."""
        for uuid, name in names:
            for event in self._tasks.know(uuid, name):
                self.hub.append(event)

    def lost(self) -> None:
        """Tell all streams of a gap (called by the source)."""
        self._gaps += 1
        self.hub.gap("broker")

    def _plan_release(self) -> None:
        """See to it that events do not wait for their task longer than they should."""
        deadline = self._tasks.next_deadline
        if deadline is not None and self._release_handle is None:
            self._release_handle = asyncio.get_running_loop().call_at(deadline, self._release)

    def _release(self) -> None:
        self._release_handle = None
        for event in self._tasks.release(asyncio.get_running_loop().time()):
            self.hub.append(event)
        self._plan_release()

    def _refuse(self, reasons: tuple[str, ...]) -> None:
        self._refused.update(reasons)
        now = time.monotonic()
        if now - self._refused_logged_at >= REFUSED_LOG_SECONDS:
            self._refused_logged_at = now
            log.warning("refused so far, by reason: %s (logged once a minute)", dict(self._refused))


def _log_crash(runner: asyncio.Task[None]) -> None:
    if not runner.cancelled() and (error := runner.exception()):
        log.critical("the %s has ended, nothing more will come of it", runner.get_name(), exc_info=error)
