"""The leader's part of the pipeline: the sources are read while this gateway leads the shared log.

Rules:

- A source whose broker keeps messages (``Feed.kept``) is read from where the log has it. Its
  messages arrived when they were sent, also if no gateway ran then (``arrival``).
- Other sources have lost what came while no gateway led: that is a gap, reported once they consume.
- While the log is too slow, a source that can wait does; what others send is dropped, and is a gap.
- A leader that can read no source leaves the lead, if there are other gateways.
- A message that comes after another gateway has taken the lead is ignored: that one reads it, too.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from celery_gateway.broker.source import Status
from celery_gateway.errors import SourceError
from celery_gateway.events.event import Event
from celery_gateway.events.message import Message
from celery_gateway.events.normalize import Normalized, normalize_in_parts
from celery_gateway.log.batch import Reached
from celery_gateway.pipeline.arrival import ArrivalEstimate
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.feed import Feed, FeedRunner
from celery_gateway.pipeline.feed_tasks import FeedTasks
from celery_gateway.pipeline.replication import Replication

IDLE_TICKS = 15
"""A leader that could not read any source for so many seconds lets another gateway try."""
DECLARE_SECONDS = 2.0
"""The pause between two attempts to make a broker keep its messages."""

log = logging.getLogger(__name__)


class Tables(Protocol):
    """The part of the pipeline that the leader uses."""

    def process(self, part: Normalized, feed: Feed, arrived: float) -> None:
        """Process the events of a message."""

    def process_waiting(self, event: Event, number: int) -> None:
        """Process an event that has waited at the last leader, under a number."""

    def on_gap(self, cluster: str | None) -> None:
        """Emit a gap."""

    def on_status(self, feed: Feed, before: Status, status: Status) -> None:
        """Emit a changed status."""

    def on_skipped_message(self, error: Exception) -> None:
        """Record a message that was skipped."""

    def on_dropped(self) -> None:
        """Record a message that was dropped, because the log takes no entries."""

    def stop_timers(self) -> None:
        """Emit nothing by itself any more."""

    def on_log_status(self) -> None:
        """Tell the clients of this gateway."""


class Leader:
    """The handler of all feeds, in place of the pipeline itself."""

    def __init__(self, tables: Tables, replication: Replication, clock: Clock) -> None:
        self._tables = tables
        self._replication = replication
        self._clock = clock
        self._runners: Sequence[FeedRunner] = ()
        self._tasks: FeedTasks | None = None
        self._arrivals: dict[str | None, ArrivalEstimate] = {}
        self._skip: dict[str | None, Reached] = {}  # events of the first message that are in the log
        self._dropped: set[str | None] = set()  # clusters with messages that were dropped
        self._missed: set[str | None] = set()  # clusters with a gap until they consume
        self._idle_ticks = 0  # without a source that consumes
        self._behind: set[str | None] = set()  # clusters with messages that were kept, since the last tick

    def use(self, runners: Sequence[FeedRunner], tasks: FeedTasks) -> None:
        """Set what it starts and stops; before anything else."""
        self._runners, self._tasks = runners, tasks

    @property
    def is_leading(self) -> bool:
        """Whether this gateway reads the sources."""
        return self._replication.is_leading

    @property
    def _by_arrival(self) -> bool:
        """Whether the clock follows the arrival of messages: several brokers would each want their own."""
        return len(self._runners) == 1 and self._runners[0].feed.kept is not None

    @property
    def _is_consuming(self) -> bool:
        return any(runner.current_status.is_consuming for runner in self._runners)

    # ---- replication.Sources

    def start_sources(self, reached: Mapping[str, Reached]) -> None:
        since = self._replication.last_at
        if self._by_arrival:
            self._clock.set_back_to(since)
        else:
            self._clock.set_to_present()
        for runner in self._runners:
            feed = runner.feed
            at = reached.get(feed.cluster or "", Reached(0))
            self._skip[feed.cluster] = at
            if feed.kept is not None:
                feed.kept.start = at.offset
                self._arrivals[feed.cluster] = ArrivalEstimate(since)
            elif self._replication.has_entries:
                self._missed.add(feed.cluster)
        assert self._tasks is not None
        self._tasks.start()

    async def declare(self) -> None:
        """Make sure that brokers keep their messages, also while no gateway leads; try until it works."""
        await asyncio.gather(*(_declare(runner.feed) for runner in self._runners))

    def stop_sources(self) -> None:
        assert self._tasks is not None
        self._tasks.stop()
        self._tables.stop_timers()

    def process_waiting(self, event: Event, number: int) -> None:
        self._tables.process_waiting(event, number)

    def on_log_status(self) -> None:
        self._tables.on_log_status()

    # ---- feed.FeedHandler

    def on_message(self, message: Message, feed: Feed) -> Iterator[None] | None:
        if not self._replication.is_leading:
            return None
        if self._replication.is_full and feed.kept is None:
            self._dropped.add(feed.cluster)
            self._tables.on_dropped()
            return None
        if feed.cluster in self._dropped:
            self._dropped.remove(feed.cluster)
            self._tables.on_gap(feed.cluster)
        found = normalize_in_parts(message, self._clock.wall(), feed.cluster)
        if not isinstance(found, Normalized):
            return self._process_parts(found, message, feed)
        self._process(found, message, feed, 0)
        self._on_processed(message, feed)
        return None

    def _process_parts(self, parts: Iterator[Normalized], message: Message, feed: Feed) -> Iterator[None]:
        count = 0
        try:
            for part in parts:
                if not self._replication.is_leading:
                    return
                count = self._process(part, message, feed, count)
                reached = None if message.offset is None else Reached(message.offset, count)
                self._replication.on_processed(feed.cluster, reached)
                yield
        except Exception:
            self._on_processed(message, feed)  # the rest of it is skipped
            raise
        self._on_processed(message, feed)

    def _on_processed(self, message: Message, feed: Feed) -> None:
        reached = None if message.offset is None else Reached(message.offset + 1)
        self._replication.on_processed(feed.cluster, reached)

    def _process(self, part: Normalized, message: Message, feed: Feed, before: int) -> int:
        """Process the events that are not in the log yet; return how many the message has had.

        Args:
            before: how many events of the message were in the parts before.
        """
        count = before + len(part.events)
        skip = self._skip[feed.cluster]
        if message.offset == skip.offset and skip.events > before:
            part = part._replace(events=part.events[skip.events - before :])
        self._tables.process(part, feed, self._arrived(part, feed))
        return count

    def _arrived(self, part: Normalized, feed: Feed) -> float:
        """Return when a message arrived, in epoch seconds; the clock of the state follows."""
        now = self._clock.wall()
        estimate = self._arrivals.get(feed.cluster)
        if estimate is None or estimate.is_present:
            return now
        self._behind.add(feed.cluster)
        arrived = estimate.of(part.events, now)
        if self._by_arrival:
            self._clock.set_back_to(arrived)
        return arrived

    def on_tick(self) -> None:
        """Go over to the present, where nothing that was kept has come since the last tick."""
        if not self.is_leading:
            return
        for runner in self._runners:
            cluster = runner.feed.cluster
            estimate = self._arrivals.get(cluster)
            if estimate is not None and cluster not in self._behind:
                estimate.is_present |= runner.current_status.is_consuming
        self._behind.clear()
        self._idle_ticks = 0 if self._is_consuming else self._idle_ticks + 1
        if self._idle_ticks >= IDLE_TICKS:
            self._idle_ticks = 0
            self._replication.step_down()
        if all(estimate.is_present for estimate in self._arrivals.values()):
            self._clock.set_to_present()

    def on_gap(self, cluster: str | None) -> None:
        if self._replication.is_leading:
            self._tables.on_gap(cluster)

    def on_status(self, feed: Feed, before: Status, status: Status) -> None:
        assert self._tasks is not None
        # That a source ends because this gateway leaves the lead is no news: another one reads it at once.
        if self._replication.is_leading and not self._tasks.is_stopping:
            if status.is_consuming and feed.cluster in self._missed:
                self._missed.remove(feed.cluster)
                self._tables.on_gap(feed.cluster)
            self._tables.on_status(feed, before, status)

    def on_skipped_message(self, error: Exception) -> None:
        self._tables.on_skipped_message(error)


async def _declare(feed: Feed) -> None:
    while feed.kept is not None:
        try:
            await feed.kept.declare()
            break
        except SourceError as error:
            log.debug("messages are not kept yet: %s", error)
            await asyncio.sleep(DECLARE_SECONDS)
