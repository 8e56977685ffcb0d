"""The pipeline: sources -> normalize -> workers -> tasks -> hub, wired and counted.

One way, no hop back. This is the only place that knows all the stages; each of them knows none of the
others.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from gateway import control
from gateway.event import Event, encode, pick
from gateway.hub import Hub, HubStatistics
from gateway.message import Message
from gateway.normalize import normalize
from gateway.remote import Remote, RemoteStatistics
from gateway.source import Source, Status
from gateway.task import view
from gateway.tasks import Record, Tasks, TasksStatistics
from gateway.until import Until
from gateway.workers import Workers, WorkersStatistics

REFUSED_LOG_SECONDS = 60.0
TICK_SECONDS = 1.0
"""How often workers are looked at that may be gone."""
STANDSTILL_SECONDS = 3.0
"""A tick that comes later than this means that the gateway itself did not run."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Feed:
    """One broker: its source, and who talks to its workers (``None``: nobody does).

    ``cluster`` is its name, which its events bear; ``None`` for the only one.
    """

    cluster: str | None
    source: Source
    remote: Remote | None = None


class FeedStatistics(NamedTuple):
    """How a broker's source is doing, and counts that only grow."""

    status: Status
    messages: int
    gaps: int
    remote: RemoteStatistics | None


class PipelineStatistics(NamedTuple):
    """Counts of the whole that only grow, and of its stages; ``feeds`` by cluster."""

    feeds: dict[str | None, FeedStatistics]
    refused: dict[str, int]
    tasks: TasksStatistics
    workers: WorkersStatistics
    hub: HubStatistics


class Pipeline:
    """Carries messages from its feeds to the hub, from ``start`` to ``stop``."""

    def __init__(
        self, feeds: Iterable[Feed], tasks: Tasks, workers: Workers, hub: Hub, until: Until | None = None
    ) -> None:
        self.hub = hub
        self.tasks = tasks
        self.workers = workers
        self.until = until or Until(tasks, hub)
        self._inlets = [_Inlet(feed, self) for feed in feeds]
        self._refused: Counter[str] = Counter()
        self._refused_logged_at = -REFUSED_LOG_SECONDS
        self._runners: list[asyncio.Task[None]] = []
        self._release_handle: asyncio.TimerHandle | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    @property
    def statuses(self) -> dict[str | None, Status]:
        """How the sources are doing, by cluster."""
        return {inlet.feed.cluster: inlet.feed.source.status for inlet in self._inlets}

    def statistics(self) -> PipelineStatistics:
        """Return the counts of all stages."""
        return PipelineStatistics(
            feeds={inlet.feed.cluster: inlet.statistics() for inlet in self._inlets},
            refused=dict(self._refused),
            tasks=self.tasks.statistics(),
            workers=self.workers.statistics(_now()),
            hub=self.hub.statistics(),
        )

    async def start(self) -> None:
        """Begin to consume, in the background."""
        for inlet in self._inlets:
            feed = inlet.feed
            self._runners.append(asyncio.create_task(feed.source.run(inlet), name="source"))
            if feed.remote is not None:
                know, enabled = partial(self.know, feed.cluster), partial(self.tell_gap, feed.cluster)
                self._runners.append(asyncio.create_task(feed.remote.run(know, enabled), name="remote"))
        self._ticked_at = _now()
        self._plan_tick()
        for runner in self._runners:
            runner.add_done_callback(_log_crash)

    async def stop(self) -> None:
        """Stop consuming, and end every stream. May be called again."""
        for handle in (self._release_handle, self._tick_handle):
            if handle is not None:
                handle.cancel()
        for runner in self._runners:
            runner.cancel()
        for runner in self._runners:
            with suppress(asyncio.CancelledError, Exception):
                await runner
        self.until.close()
        self.hub.close()

    def take(self, message: Message, feed: Feed) -> None:
        """Carry a message of a feed on, as far as it can go now."""
        events, refused = normalize(message, time.time(), feed.cluster)
        if refused:
            self._refuse(refused)
        now = _now()
        for event in events:
            if feed.remote is not None and event["type"].startswith("worker-"):
                feed.remote.saw(event)
            process = self.workers.hear(event, now)
            self._put(self.tasks.join(event, now, process))
            if event["type"].startswith("worker-"):
                self._put_lost(now)
        self._plan_release()

    def tell_gap(self, cluster: str | None) -> None:
        """Tell all streams that events of a broker may be missing here, behind those that still wait."""
        self._put(self.tasks.release_all(_now(), cluster))
        self.hub.gap("broker", cluster=cluster)

    def tell_status(self) -> None:
        """Tell all streams which sources are consuming."""
        self.hub.tell_all(self.status)

    def status(self, id: bytes) -> control.Control:
        """Return the message that says which sources are consuming."""
        sources = []
        for inlet in self._inlets:
            status = inlet.feed.source.status
            sources.append(
                {
                    "cluster": inlet.feed.cluster,
                    "consuming": status.is_consuming,
                    "reason": status.reason,
                    "since": round(inlet.since, 3),
                }
            )
        return control.status(id, sources)

    def know(self, cluster: str | None, names: Iterable[tuple[str, str]]) -> None:
        """Take the names of a broker's tasks in by their uuids (called by the remote)."""
        for uuid, name in names:
            self._put(self.tasks.know(uuid, name, _now(), cluster))

    def view(self, record: Record, fields: frozenset[str] | None = None, *, has_tries: bool = False) -> bytes:
        """Return a task as clients see it, encoded; of its fields only some, and its uuid, if so asked."""
        tries = record.tries() if has_tries or (fields is not None and "tries" in fields) else None
        json = view(record.task, record.child_ids, tries)
        return json if fields is None else pick(json, fields | {"uuid"})

    def view_workers(self) -> Iterable[bytes]:
        """Give all workers, alive or not, each encoded."""
        return map(encode, self.workers.all(_now(), time.time()))

    def _put(self, events: Iterable[Event]) -> None:
        for event in events:
            self.hub.append(event)
            self.until.saw(event)

    def _put_lost(self, now: float) -> None:
        """Tell of the tasks whose processes have become known to be gone."""
        for process, why, successor in self.workers.find_gone(now):
            self._put(self.tasks.lose(process, why, time.time(), successor))
        self._put(self.tasks.lose_late(time.time()))

    def _plan_tick(self) -> None:
        self._tick_handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = _now()
        passed_seconds, self._ticked_at = now - self._ticked_at, now
        self._plan_tick()
        if passed_seconds > STANDSTILL_SECONDS:  # what has come meanwhile is still to be read
            self.workers.stood_still(passed_seconds)
        self._put_lost(now)
        self.until.refresh()

    def _plan_release(self) -> None:
        """See to it that events do not wait for their task longer than they should."""
        deadline = self.tasks.next_deadline
        if deadline is not None and self._release_handle is None:
            self._release_handle = asyncio.get_running_loop().call_at(deadline, self._release)

    def _release(self) -> None:
        self._release_handle = None
        self._put(self.tasks.release(_now()))
        self._plan_release()

    def refuse_unforeseen(self) -> None:
        """Count a message that was passed over by a fault of ours, and log that fault now and then."""
        if not self._refused["internal"]:
            log.exception("a message could not be taken in, and is passed over; please report this")
        self._refuse(("internal",))

    def _refuse(self, reasons: tuple[str, ...]) -> None:
        self._refused.update(reasons)
        now = time.monotonic()
        if now - self._refused_logged_at >= REFUSED_LOG_SECONDS:
            self._refused_logged_at = now
            log.warning("refused so far, by reason: %s (logged once a minute)", dict(self._refused))


class _Inlet:
    """What a feed's source pours into."""

    def __init__(self, feed: Feed, pipeline: Pipeline) -> None:
        self.feed = feed
        self._pipeline = pipeline
        self._messages = self._gaps = 0
        self._status = Status(False, "")
        self.since = time.time()  # it has been consuming, or not

    def statistics(self) -> FeedStatistics:
        remote = None if self.feed.remote is None else self.feed.remote.statistics()
        return FeedStatistics(self.feed.source.status, self._messages, self._gaps, remote)

    def message(self, message: Message) -> None:
        self._messages += 1
        try:
            self._pipeline.take(message, self.feed)
        except Exception:
            self._pipeline.refuse_unforeseen()
            self.lost()

    def lost(self) -> None:
        self._gaps += 1
        self._pipeline.tell_gap(self.feed.cluster)

    def status(self, status: Status) -> None:
        before, self._status = self._status, status
        workers, cluster = self._pipeline.workers, self.feed.cluster
        if status.is_consuming != before.is_consuming:
            self.since = time.time()
            if status.is_consuming:
                workers.back(cluster, _now())
            else:
                workers.away(cluster, _now())
        if status.is_consuming and self.feed.remote is not None:
            self.feed.remote.warm()
        if status != before:
            self._pipeline.tell_status()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _log_crash(runner: asyncio.Task[None]) -> None:
    if not runner.cancelled() and (error := runner.exception()):
        log.critical("the %s has ended, nothing more will come of it", runner.get_name(), exc_info=error)
