"""Feeds: one broker each, with its source, its counts and its status.

Rules: a feed's source runs until it is cancelled; if it ends otherwise, it has crashed, and the feed reports
that as its status from then on. A message that raises an unexpected error is skipped, and counts as a gap.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from celery_gateway.broker.source import KeptSource, Source, Status
from celery_gateway.broker.worker_control import WorkerControl, WorkerControlStatistics
from celery_gateway.events.message import Message


@dataclass(frozen=True, slots=True)
class Feed:
    """One broker.

    Attributes:
        cluster: its name, which its events have; ``None`` for a single broker.
        source: consumes its messages.
        remote: controls its workers; ``None`` without ``--control``.
        kept: the source itself, if its broker keeps messages that can be read from an offset.
    """

    cluster: str | None
    source: Source
    remote: WorkerControl | None = None
    kept: KeptSource | None = None


class FeedStatistics(NamedTuple):
    """The status of a broker's source, and counts that only grow."""

    status: Status
    messages: int
    gaps: int
    remote: WorkerControlStatistics | None


class FeedHandler(Protocol):
    """Processes what a feed consumes; see ``pipeline``."""

    def on_message(self, message: Message, feed: Feed) -> Iterator[None] | None:
        """Process a message; return the rest of the work if it has many events."""

    def on_skipped_message(self, error: Exception) -> None:
        """Record a message that was skipped because of an unexpected error."""

    def on_gap(self, cluster: str | None) -> None:
        """Record that events of a broker may be missing from here on."""

    def on_status(self, feed: Feed, before: Status, status: Status) -> None:
        """Record a change of a source's status."""


class FeedRunner:
    """Runs a feed's source, as its sink.

    Attributes:
        since: when it began or ceased to consume, in epoch seconds.
    """

    def __init__(self, feed: Feed, handler: FeedHandler) -> None:
        self.feed = feed
        self.since = time.time()
        self._handler = handler
        self._messages = self._gaps = 0
        self._status = Status(False, "")
        self._crash: Status | None = None

    @property
    def title(self) -> str:
        """Its name in the log."""
        return "the source" if self.feed.cluster is None else f"the source of {self.feed.cluster}"

    @property
    def current_status(self) -> Status:
        """The status of the source, unless it has crashed."""
        return self.feed.source.status if self._crash is None else self._crash

    async def run(self) -> None:
        """Run the source.

        Raises:
            Exception: the source has crashed, or ended by itself.
        """
        try:
            await self.feed.source.run(self)
            raise RuntimeError("the source has ended by itself")
        except Exception as error:
            self._crash = Status(
                False,
                f"unexpected error: {type(error).__name__}: {error}. Restart the gateway",
                f"unexpected error: {type(error).__name__}",
            )
            self.lost()
            self.status(self._crash)
            raise

    def statistics(self) -> FeedStatistics:
        """Return the status and the counts."""
        remote = None if self.feed.remote is None else self.feed.remote.statistics()
        return FeedStatistics(self.current_status, self._messages, self._gaps, remote)

    # ---- the sink of the source (broker.source.Sink)

    def message(self, message: Message) -> Iterator[None] | None:
        self._messages += 1
        try:
            rest = self._handler.on_message(message, self.feed)
        except Exception as error:
            self._skip(error)
            return None
        return None if rest is None else self._guarded(rest)

    def lost(self) -> None:
        self._gaps += 1
        self._handler.on_gap(self.feed.cluster)

    def status(self, status: Status) -> None:
        before, self._status = self._status, status
        if status.is_consuming != before.is_consuming:
            self.since = time.time()
        self._handler.on_status(self.feed, before, status)

    def _guarded(self, rest: Iterator[None]) -> Iterator[None]:
        try:
            yield from rest
        except Exception as error:
            self._skip(error)

    def _skip(self, error: Exception) -> None:
        self._handler.on_skipped_message(error)
        self.lost()


def source_status(cluster: str | None, status: Status, since: float) -> dict[str, object]:
    """Return the status of a source as clients see it; ``since``: when it began, in epoch seconds."""
    return {
        "cluster": cluster,
        "consuming": status.is_consuming,
        "reason": status.reason,
        "since": round(since, 3),
    }
