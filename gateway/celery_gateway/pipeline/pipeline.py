"""The pipeline: sources -> normalize -> workers -> tasks -> log -> hub, wired and counted.

Rules: data flows one way. Only this module imports all stages; no stage imports the one after it. Everything
runs in the event loop, one message at a time, so that the order of a broker is the order of the stream.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from celery_gateway.broker.source import Status
from celery_gateway.events.event import Event
from celery_gateway.events.matcher import Matcher
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import Normalized, normalize_in_parts
from celery_gateway.log.follower import Restart
from celery_gateway.pipeline.about import About
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.feed import Feed, FeedRunner, FeedStatistics
from celery_gateway.pipeline.feed_tasks import FeedTasks, cancel_once, end_all
from celery_gateway.pipeline.leader import Leader
from celery_gateway.pipeline.log_statistics import LogStatistics
from celery_gateway.pipeline.output import DirectOutput, Output
from celery_gateway.pipeline.refused import RefusedMessages
from celery_gateway.pipeline.replication import Replication
from celery_gateway.pipeline.reporting import Reporting
from celery_gateway.pipeline.source_statuses import SourceStatuses
from celery_gateway.pipeline.timers import Timers
from celery_gateway.state.current_records import CurrentRecords
from celery_gateway.state.process import Process
from celery_gateway.state.task_statistics import TaskTableStatistics
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_table import WorkerTable, WorkerTableStatistics
from celery_gateway.stream import messages
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.hub_statistics import HubStatistics
from celery_gateway.stream.limits import Limits, LimitsStatistics
from celery_gateway.stream.snapshot import Snapshots
from celery_gateway.stream.unexpected_errors import report

log = logging.getLogger(__name__)


class PipelineStatistics(NamedTuple):
    """The counts of all stages.

    ``feeds``: by cluster; ``refused``: by reason (it only grows); ``log``: ``None`` without a shared log.
    """

    feeds: dict[str | None, FeedStatistics]
    refused: dict[str, int]
    tasks: TaskTableStatistics
    workers: WorkerTableStatistics
    hub: HubStatistics
    limits: LimitsStatistics
    log: LogStatistics | None


class Pipeline:
    """Processes the messages of its feeds, from ``start`` to ``stop``.

    Args:
        feeds: the brokers.
        completions: streams that end when their target is complete.
        limits: those of all clients; by default the hub's.
        verbose_health: whether clients get reasons with the names and addresses of brokers.
        redact: removes hidden fields and secrets from an event, in place, before anything reads it.
        replication: the shared log, if there is one.
        clock: the one that the replication uses.
        about: what clients receive about the gateway itself.
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
        replication: Replication | None = None,
        clock: Clock | None = None,
        about: About | None = None,
    ) -> None:
        self.hub = hub
        self.clock = clock or Clock()
        self.replication = replication
        self._verbose_health = verbose_health
        self._redact = redact
        self.tasks = tasks
        self.records = CurrentRecords(tasks)
        self.workers = workers
        self.completions = completions or Completions(tasks, hub)
        self.limits = limits or hub.limits
        self._roster = Roster(workers)
        self.reporting = Reporting(workers, self._roster, self.clock, self.limits)
        self.snapshots = Snapshots(tasks, hub, self.view_workers, self.prepare_workers, self.limits)
        self._leader = None if replication is None else Leader(self, replication, self.clock)
        self._runners = [FeedRunner(feed, self._leader or self) for feed in feeds]
        self._statuses = SourceStatuses(
            self._runners, replication, about or About(), is_verbose=verbose_health
        )
        on_enabled = (self._leader or self).on_gap
        self._feed_tasks = FeedTasks(self._runners, self.on_names, on_enabled, self._on_crash)
        if self._leader is not None:
            self._leader.use(self._runners, self._feed_tasks)
        self._refused = RefusedMessages()
        self._output: Output = replication or DirectOutput(hub, self.completions)
        self._replicating: asyncio.Task[None] | None = None
        self._resigning: asyncio.Task[None] | None = None
        self._on_restart: Callable[[Restart], None] | None = None
        self._crashes: list[str] = []
        self._timers = Timers(tasks, workers, self.clock, self._emit, self._on_tick)

    @property
    def statuses(self) -> dict[str | None, Status]:
        """The status of each source, by cluster, as clients may see it (and the leader has told it)."""
        return self._statuses.by_cluster()

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
            workers=self.workers.statistics(self.clock.now()),
            hub=self.hub.statistics(),
            limits=self.limits.statistics(),
            log=None if self.replication is None else self.replication.statistics(),
        )

    async def start(self, on_restart: Callable[[Restart], None] | None = None) -> None:
        """Start to consume, in background tasks.

        Args:
            on_restart: called when another pipeline, with empty tables, has to take the place of this one.
        """
        self._timers.start()
        if self.replication is None or self._leader is None:
            self.tasks.activity.begin(self.clock.wall())
            self._feed_tasks.start()
            return
        self._on_restart = on_restart
        self._replicating = asyncio.create_task(
            self._replicate(self.replication, self._leader), name="the log"
        )
        self._replicating.add_done_callback(self._on_replication_end)

    def drain(self) -> None:
        """End every stream, and request the end of consuming; ``stop`` waits for it. May be called again.

        With a shared log another gateway may consume from now on.
        """
        self.hub.close()
        self._feed_tasks.stop_sources()
        self._resign()

    async def stop(self) -> None:
        """Stop consuming and end every stream. May be called again."""
        self._timers.end()
        self._feed_tasks.stop()
        self._resign()
        if self._resigning is not None:
            await self._resigning
        await self._feed_tasks.wait()
        if self._replicating is not None:
            cancel_once(self._replicating)
            await end_all((self._replicating,))
        self.completions.close()
        self.reporting.close()
        self.hub.close()

    def _resign(self) -> None:
        if self.replication is not None and self._resigning is None:
            self._timers.end()
            self._resigning = asyncio.create_task(self.replication.resign(), name="the end of the lead")

    def stop_timers(self) -> None:
        """Emit nothing by itself any more, until the next message."""
        self._timers.stop()

    def on_message(self, message: Message, feed: Feed) -> Iterator[None] | None:
        """Process a message of a feed.

        Returns:
            ``None``, or the rest of the work if the message has many events: each step is a part of them.
        """
        arrived = self.clock.wall()
        found = normalize_in_parts(message, arrived, feed.cluster)
        if isinstance(found, Normalized):
            self.process(found, feed, arrived)
            return None
        return self._process_parts(found, feed, arrived)

    def _process_parts(self, parts: Iterator[Normalized], feed: Feed, arrived: float) -> Iterator[None]:
        for part in parts:
            self.process(part, feed, arrived)
            yield

    def process(self, part: Normalized, feed: Feed, arrived: float) -> None:
        """Process the events of a message, or of a part of it, which arrived at this time (epoch seconds)."""
        events, refused = part
        if refused:
            self._refused.count(refused)
        now = self.clock.now()
        for event in events:
            if self._redact is not None:
                self._redact(event)
            if feed.remote is not None and event["type"].startswith("worker-"):
                feed.remote.on_event(event)
            process = self.workers.on_event(event, now, arrived)
            self._join(event, now, process, arrived)
            if event["type"].startswith("worker-"):
                self._timers.emit_lost()
        self._timers.schedule_release()

    def process_waiting(self, event: Event, number: int) -> None:
        """Process an event that has waited at another gateway, which leads no more, under a number."""
        now, arrived = self.clock.now(), self.clock.time()
        self._join(event, now, self.workers.on_event(event, now, arrived), arrived, number)
        self._timers.schedule_release()

    def _join(
        self, event: Event, now: float, process: Process | None, arrived: float, number: int = 0
    ) -> None:
        replication = self.replication
        if replication is None:
            self._emit(self.tasks.join(event, now, process, arrived))
            return
        replication.before_join(event, number)
        try:
            self._emit(self.tasks.join(event, now, process, arrived))
        except Exception:
            replication.on_failed_join(event)
            raise
        replication.after_join(event)

    def on_gap(self, cluster: str | None) -> None:
        """Emit a gap of a broker to all streams, after the events that still wait."""
        self.workers.on_gap(cluster)
        self._emit(self.tasks.release_all(self.clock.now(), cluster))
        self._output.broadcast(lambda id: messages.gap_message(id, "broker", None, cluster))

    def on_status(self, feed: Feed, before: Status, status: Status) -> None:
        """Record a change of a source's status, and send it to all streams."""
        if status.is_consuming and not before.is_consuming:
            self.workers.on_reconnect(feed.cluster, self.clock.now())
        elif before.is_consuming and not status.is_consuming:
            self.workers.on_disconnect(feed.cluster, self.clock.now())
        if status.is_consuming and feed.remote is not None:
            feed.remote.request_all()
        if status != before:
            self._output.broadcast(self._statuses.own_message)

    def status(self, id: bytes) -> messages.ControlMessage:
        """Return the control message with the status of all sources, as far as this gateway knows it."""
        return self._statuses.message(id)

    def on_names(self, cluster: str | None, names: Iterable[tuple[str, str]]) -> None:
        """Record the names of a broker's tasks, from replies of its workers.

        Args:
            names: pairs of uuid and name.
        """
        if self._leader is not None and not self._leader.is_leading:
            return  # a reply that comes too late: its tasks are another gateway's
        for uuid, name in names:
            self._emit(self.tasks.set_name(uuid, name, self.clock.now(), cluster))

    def view_workers(self) -> Sequence[bytes]:
        """Return all workers, alive or not, each as JSON, ordered by cluster and hostname."""
        return self._roster.all(self.clock.now(), self.clock.wall())

    def view_visible_workers(self, visible: Matcher) -> Sequence[bytes]:
        """Return the workers that pass a filter, as ``view_workers`` does."""
        return self._roster.visible(self.clock.now(), self.clock.wall(), visible)

    def prepare_workers(self) -> bool:
        """Encode some workers; return whether ``view_workers`` has nothing more to encode."""
        return self._roster.prepare(self.clock.now(), self.clock.wall())

    def _emit(self, events: Iterable[Event]) -> None:
        for event in events:
            origin_keys = self.tasks.origin_keys(event)
            self._output.append(event, origin_keys)

    def _on_tick(self) -> None:
        if self._leader is not None:
            self._leader.on_tick()
        if self._leader is None or self._leader.is_leading:
            self._timers.emit_lost()
        self.completions.on_evictions()

    def on_skipped_message(self, error: Exception) -> None:
        """Count and log a message that was skipped because of an unexpected error."""
        report("a message could not be processed and was skipped", error)
        self._refused.count(("internal",))

    def on_dropped(self) -> None:
        """Count a message that was dropped, because the shared log takes no entries."""
        self._refused.count(("log-full",))

    def on_log_status(self) -> None:
        """Send the status of all sources to the streams of this gateway."""
        self.hub.broadcast_local(self.status)

    async def _replicate(self, replication: Replication, leader: Leader) -> None:
        declaring = asyncio.create_task(leader.declare(), name="what the brokers keep")
        try:
            await replication.run(leader)
        finally:
            declaring.cancel()
            await end_all((declaring,))

    def _on_replication_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            if isinstance(error, Restart) and self._on_restart is not None:
                self._on_restart(error)
            else:
                self._on_crash(task.get_name(), error)

    def _on_crash(self, title: str, error: BaseException) -> None:
        details = f": {error}" if self._verbose_health else ""
        self._crashes.append(f"{title}: {type(error).__name__}{details}")
        log.critical("%s has stopped; restart the gateway", title, exc_info=error)
