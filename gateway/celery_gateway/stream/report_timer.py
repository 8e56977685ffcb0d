"""The timer of reports: it looks twice a second for streams that have some, and gives them a turn.

Rules: it runs only while such a stream is open. Of many streams it looks at some at a time. All calls belong
to one running event loop.
"""

import asyncio

from celery_gateway.stream.reports import Reports
from celery_gateway.stream.subscription import Subscription

TICK_SECONDS = 0.5
STREAMS_AT_ONCE = 200
"""How many streams are looked at in one callback of the event loop: about 0.3 ms of work."""


class ReportTimer:
    """Ticks the reports of all streams."""

    def __init__(self) -> None:
        self._streams: dict[Subscription, Reports] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._left: list[Subscription] = []  # to look at in this tick

    def __len__(self) -> int:
        """Return the number of streams; those that have ended may be counted until the next tick."""
        return len(self._streams)

    def add(self, subscription: Subscription, reports: Reports) -> None:
        """Give a stream its reports, at once and from now on; they are closed after its end."""
        self._streams[subscription] = reports
        subscription.reports = reports
        self._look_at(subscription)
        if self._handle is None:
            self._schedule(TICK_SECONDS)

    def wake(self) -> None:
        """Look at all streams now: something is due that many may need."""
        if self._handle is not None:
            self._handle.cancel()
            self._left = []
            self._schedule(0.0)

    def close(self) -> None:
        """End the reports of all streams."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for subscription in tuple(self._streams):
            self._remove(subscription)

    def _schedule(self, seconds: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        if not self._left:
            self._left = list(self._streams)
        for _ in range(min(len(self._left), STREAMS_AT_ONCE)):
            self._look_at(self._left.pop())
        if self._left:
            self._schedule(0.0)
        elif self._streams:
            self._schedule(TICK_SECONDS)
        else:
            self._handle = None

    def _look_at(self, subscription: Subscription) -> None:
        reports = self._streams.get(subscription)
        if subscription.is_ended:
            self._remove(subscription)
        elif reports is not None:
            try:
                reports.tick()
                subscription.request_reports()
            except Exception as error:
                subscription.fail(error)

    def _remove(self, subscription: Subscription) -> None:
        subscription.reports = None
        if (reports := self._streams.pop(subscription, None)) is not None:
            reports.close()
