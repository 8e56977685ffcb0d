"""The pipeline: sources -> normalize -> workers -> tasks -> hub, wired and counted.

Rules: data flows one way. Only this module imports all stages; no stage imports the one after it. Everything
runs in the event loop, one message at a time, so that the order of a broker is the order of the stream.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from celery_gateway.broker.source import Status
from celery_gateway.events.event import Event
from celery_gateway.events.matcher import Matcher
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import Normalized, normalize_in_parts
from celery_gateway.feed import Feed, FeedRunner, FeedStatistics
from celery_gateway.state.current_records import CurrentRecords
from celery_gateway.state.task_table import TaskTable, TaskTableStatistics
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_table import WorkerTable, WorkerTableStatistics
from celery_gateway.stream import messages
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub, HubStatistics
from celery_gateway.stream.limits import Limits, LimitsStatistics
from celery_gateway.stream.snapshot import Snapshots
from celery_gateway.stream.unexpected_errors import report

REFUSED_LOG_SECONDS = 60.0
TICK_SECONDS = 1.0
"""Interval of the checks for workers that are gone, in seconds."""
LOST_PAUSE_SECONDS = 0.01
"""Pause between parts of such a check, if there are many such workers, in seconds."""
STANDSTILL_SECONDS = 3.0
"""A longer time between two ticks, in seconds, means that the gateway itself did not run."""

_REMEDIES = {
    "content-type": 'Events are read in JSON or msgpack only: set event_serializer = "json" in the app of '
    "the workers and clients, and restart them",
}
"""What users can do about refused messages, by reason."""

log = logging.getLogger(__name__)


class PipelineStatistics(NamedTuple):
    """The counts of all stages; ``feeds`` by cluster, ``refused`` by reason (it only grows)."""

    feeds: dict[str | None, FeedStatistics]
    refused: dict[str, int]
    tasks: TaskTableStatistics
    workers: WorkerTableStatistics
    hub: HubStatistics
    limits: LimitsStatistics


class Pipeline:
    """Processes the messages of its feeds, from ``start`` to ``stop``.

    Args:
        feeds: the brokers.
        completions: streams that end when their target is complete.
        limits: those of all clients; by default the hub's.
        verbose_health: whether clients get reasons with the names and addresses of brokers.
        redact: removes hidden fields and secrets from an event, in place, before anything reads it.
    """

    def __init__(
        self,
        feeds: Iterable[Feed],
        tasks: TaskTable,
        workers: WorkerTable,
        hub: Hub,
        completions: Completions | None = None,
        limits: Limits | None = None,
        *,
        verbose_health: bool = False,
        redact: Callable[[Event], None] | None = None,
    ) -> None:
        self.hub = hub
        self._verbose_health = verbose_health
        self._redact = redact
        self.tasks = tasks
        self.records = CurrentRecords(tasks)
        self.workers = workers
        self.completions = completions or Completions(tasks, hub)
        self.limits = limits or hub.limits
        self._roster = Roster(workers)
        self.snapshots = Snapshots(tasks, hub, self.view_workers, self.prepare_workers, self.limits)
        self._runners = [FeedRunner(feed, self) for feed in feeds]
        self._refused = _RefusedMessages()
        self._sources: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []  # of sources and of remote control
        self._crashes: list[str] = []
        self._release_handle: asyncio.TimerHandle | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._lost_handle: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    @property
    def statuses(self) -> dict[str | None, Status]:
        """The status of each source, by cluster, as clients may see it."""
        return {runner.feed.cluster: self._shown(runner.current_status) for runner in self._runners}

    def _shown(self, status: Status) -> Status:
        return status if self._verbose_health else status._replace(reason=status.brief)

    @property
    def crashes(self) -> Sequence[str]:
        """The parts that crashed, with their errors, as clients may see them; restart the gateway."""
        return self._crashes

    def statistics(self) -> PipelineStatistics:
        """Return the counts of all stages."""
        return PipelineStatistics(
            feeds={runner.feed.cluster: runner.statistics() for runner in self._runners},
            refused=dict(self._refused.counts),
            tasks=self.tasks.statistics(),
            workers=self.workers.statistics(_now()),
            hub=self.hub.statistics(),
            limits=self.limits.statistics(),
        )

    async def start(self) -> None:
        """Start to consume, in background tasks."""
        for runner in self._runners:
            feed = runner.feed
            self._sources.append(asyncio.create_task(runner.run(), name=runner.title))
            self._background.append(self._sources[-1])
            if feed.remote is not None:
                on_names, on_enabled = (
                    partial(self.on_names, feed.cluster),
                    partial(self.on_gap, feed.cluster),
                )
                remote = asyncio.create_task(
                    feed.remote.run(on_names, on_enabled), name=f"--control of {runner.title}"
                )
                self._background.append(remote)
        self._ticked_at = _now()
        self._schedule_tick()
        for task in self._background:
            task.add_done_callback(self._on_task_done)

    def drain(self) -> None:
        """End every stream, and request the end of consuming; ``stop`` waits for it. May be called again."""
        self.hub.close()
        for source in self._sources:
            _cancel_once(source)

    async def stop(self) -> None:
        """Stop consuming and end every stream. May be called again."""
        for handle in (self._release_handle, self._tick_handle, self._lost_handle):
            if handle is not None:
                handle.cancel()
        for task in self._background:
            _cancel_once(task)
        for task in self._background:
            with suppress(asyncio.CancelledError, Exception):
                await task
        self.completions.close()
        self.hub.close()

    def on_message(self, message: Message, feed: Feed) -> Iterator[None] | None:
        """Process a message of a feed.

        Returns:
            ``None``, or the rest of the work if the message has many events: each step is a part of them.
        """
        arrived = time.time()
        found = normalize_in_parts(message, arrived, feed.cluster)
        if isinstance(found, Normalized):
            self._process(found, feed, arrived)
            return None
        return self._process_parts(found, feed, arrived)

    def _process_parts(self, parts: Iterator[Normalized], feed: Feed, arrived: float) -> Iterator[None]:
        for part in parts:
            self._process(part, feed, arrived)
            yield

    def _process(self, part: Normalized, feed: Feed, arrived: float) -> None:
        events, refused = part
        if refused:
            self._refused.count(refused)
        now = _now()
        for event in events:
            if self._redact is not None:
                self._redact(event)
            if feed.remote is not None and event["type"].startswith("worker-"):
                feed.remote.on_event(event)
            process = self.workers.on_event(event, now, arrived)
            self._emit(self.tasks.join(event, now, process, arrived))
            if event["type"].startswith("worker-"):
                self._emit_lost(now)
        self._schedule_release()

    def on_gap(self, cluster: str | None) -> None:
        """Emit a gap of a broker to all streams, after the events that still wait."""
        self._emit(self.tasks.release_all(_now(), cluster))
        self.hub.gap("broker", cluster=cluster)

    def on_status(self, feed: Feed, before: Status, status: Status) -> None:
        """Record a change of a source's status, and send it to all streams."""
        if status.is_consuming and not before.is_consuming:
            self.workers.on_reconnect(feed.cluster, _now())
        elif before.is_consuming and not status.is_consuming:
            self.workers.on_disconnect(feed.cluster, _now())
        if status.is_consuming and feed.remote is not None:
            feed.remote.request_all()
        if status != before:
            self.hub.broadcast(self.status)

    def status(self, id: bytes) -> messages.ControlMessage:
        """Return the control message with the status of all sources."""
        sources = []
        for runner in self._runners:
            status = self._shown(runner.current_status)
            sources.append(
                {
                    "cluster": runner.feed.cluster,
                    "consuming": status.is_consuming,
                    "reason": status.reason,
                    "since": round(runner.since, 3),
                }
            )
        return messages.status_message(id, sources)

    def on_names(self, cluster: str | None, names: Iterable[tuple[str, str]]) -> None:
        """Record the names of a broker's tasks, from replies of its workers.

        Args:
            names: pairs of uuid and name.
        """
        for uuid, name in names:
            self._emit(self.tasks.set_name(uuid, name, _now(), cluster))

    def view_workers(self) -> Sequence[bytes]:
        """Return all workers, alive or not, each as JSON, ordered by cluster and hostname."""
        return self._roster.all(_now(), time.time())

    def view_visible_workers(self, visible: Matcher) -> Sequence[bytes]:
        """Return the workers that pass a filter, as ``view_workers`` does."""
        return self._roster.visible(_now(), time.time(), visible)

    def prepare_workers(self) -> bool:
        """Encode some workers; return whether ``view_workers`` has nothing more to encode."""
        return self._roster.prepare(_now(), time.time())

    def _emit(self, events: Iterable[Event]) -> None:
        for event in events:
            origin_keys = self.tasks.origin_keys(event)
            self.hub.append(event, origin_keys)
            self.completions.on_event(event, origin_keys)

    def _emit_lost(self, now: float) -> None:
        """Emit the loss of tasks whose processes are gone."""
        for process, reason, successor in self.workers.find_gone(now):
            self._emit(self.tasks.mark_lost(process, reason, time.time(), successor))
        self._emit(self.tasks.mark_lost_late(time.time()))
        if self._lost_handle is None and self.workers.has_more(now):
            self._lost_handle = asyncio.get_running_loop().call_later(
                LOST_PAUSE_SECONDS, self._emit_more_lost
            )

    def _emit_more_lost(self) -> None:
        self._lost_handle = None
        self._emit_lost(_now())

    def _schedule_tick(self) -> None:
        self._tick_handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = _now()
        passed_seconds, self._ticked_at = now - self._ticked_at, now
        self._schedule_tick()
        if passed_seconds > STANDSTILL_SECONDS:  # messages of that time are still to be read
            self.workers.on_pause(passed_seconds)
        self._emit_lost(now)
        self.completions.on_evictions()

    def _schedule_release(self) -> None:
        """Start the timer of the next event whose wait for its task ends."""
        deadline = self.tasks.next_deadline
        if deadline is not None and self._release_handle is None:
            self._release_handle = asyncio.get_running_loop().call_at(deadline, self._release)

    def _release(self) -> None:
        self._release_handle = None
        self._emit(self.tasks.release(_now()))
        self._schedule_release()

    def on_skipped_message(self, error: Exception) -> None:
        """Count and log a message that was skipped because of an unexpected error."""
        report("a message could not be processed and was skipped", error)
        self._refused.count(("internal",))

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            details = f": {error}" if self._verbose_health else ""
            self._crashes.append(f"{task.get_name()}: {type(error).__name__}{details}")
            log.critical("%s has stopped; restart the gateway", task.get_name(), exc_info=error)


class _RefusedMessages:
    """Counts messages and events that are not passed on, by reason, and logs the counts once a minute."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged_at = -REFUSED_LOG_SECONDS

    def count(self, reasons: tuple[str, ...]) -> None:
        self.counts.update(reasons)
        now = time.monotonic()
        if now - self._logged_at >= REFUSED_LOG_SECONDS:
            self._logged_at = now
            remedies = "".join(f". {_REMEDIES[reason]}" for reason in self.counts if reason in _REMEDIES)
            counts = dict(self.counts)
            log.warning("refused so far, by reason: %s%s (logged once a minute)", counts, remedies)


def _cancel_once(task: asyncio.Task[None]) -> None:
    """Cancel a task. (A second time would cut short how it closes its connection.)"""
    if not task.cancelling():
        task.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
