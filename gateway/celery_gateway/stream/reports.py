"""Reports: control messages that a stream has asked for beside its events, such as changes of workers.

Rules:

- Reports are no entries of the log. Each has the id of the position where it is sent.
- A report says what is true when it is sent. There is no queue: a source of reports remembers what the client
  has got, and a client that reads slowly gets the newest state once. So the memory is bounded.
- Reports are read in the turns of the stream (``catch_up``), one read of reports and one of entries by turns:
  they delay no events, and respect the buffer of the transport.
- They depend on the scope, not on the filter of the stream.
- Streams without reports have no cost.

``report_timer`` looks for reports that are due. Pure.
"""

from collections.abc import Sequence
from typing import Protocol

from celery_gateway.stream.messages import ControlMessage
from celery_gateway.stream.stream_rate import StreamRate

REPORTS_BYTES = 64 << 10
"""A read of reports ends with the one that reaches this size, in bytes."""


class ReportSource(Protocol):
    """One kind of reports of one stream."""

    @property
    def has_more(self) -> bool:
        """Whether there is something to read, or to compute for it."""

    def tick(self) -> None:
        """Find out what is due. Called about twice a second."""

    def read(self, id: bytes) -> Sequence[ControlMessage]:
        """Return reports of about ``REPORTS_BYTES``; none if there is more to compute, or nothing.

        Args:
            id: that of the position where they are sent.

        Raises:
            OverLimit: they need more memory than the client may have.
        """

    def close(self) -> None:
        """Release what it uses. May be called again."""


class Reports:
    """All reports of one stream.

    Args:
        sources: of each kind that it has asked for.
    """

    __slots__ = ("_sources", "_next")

    def __init__(self, sources: Sequence[ReportSource]) -> None:
        self._sources = tuple(sources)
        self._next = 0

    @property
    def has_more(self) -> bool:
        """Whether there is something to read, or to compute for it."""
        return any([source.has_more for source in self._sources])

    def tick(self) -> None:
        """Find out what is due."""
        for source in self._sources:
            source.tick()

    def read(self, id: bytes) -> Sequence[ControlMessage]:
        """Return the next reports, possibly none; see ``ReportSource.read``. The sources take turns."""
        for _ in self._sources:
            source = self._sources[self._next]
            self._next = (self._next + 1) % len(self._sources)
            if source.has_more and (messages := source.read(id)):
                return messages
        return ()

    def close(self) -> None:
        """Release what they use. May be called again."""
        for source in self._sources:
            source.close()


class SkippedReports:
    """The reports of events that a stream has skipped, where no event follows soon.

    Args:
        rate: that of the stream.
    """

    def __init__(self, rate: StreamRate) -> None:
        self._rate = rate
        self.has_more = False

    def tick(self) -> None:
        self.has_more = self._rate.is_report_due

    def read(self, id: bytes) -> Sequence[ControlMessage]:
        self.has_more = False
        return (self._rate.report(id),) if self._rate.skipped else ()

    def close(self) -> None:
        self.has_more = False
