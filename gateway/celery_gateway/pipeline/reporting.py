"""What streams can report beside events: workers, statistics, skipped events; wired for one pipeline."""

import asyncio

from celery_gateway.pipeline.clock import Clock
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.report_timer import ReportTimer
from celery_gateway.stream.reports import Reports, ReportSource, SkippedReports
from celery_gateway.stream.statistics_reports import StatisticsReports, StatisticsRequest, StatisticsShares
from celery_gateway.stream.subscription import Subscription
from celery_gateway.stream.worker_reports import WorkerReports, WorkerView, WorkerWatch


class Reporting:
    """Gives streams their reports.

    Args:
        roster: encodes the workers.
        limits: what statistics are charged to.
    """

    def __init__(self, workers: WorkerTable, roster: Roster, clock: Clock, limits: Limits) -> None:
        self._timer = ReportTimer()
        self._watch = WorkerWatch(
            workers, roster, lambda: (clock.now(), clock.wall()), on_changes=self._timer.wake
        )
        self._shares = StatisticsShares(lambda: (asyncio.get_running_loop().time(), clock.wall()), limits)

    def add(
        self,
        subscription: Subscription,
        *,
        workers: WorkerView | None = None,
        statistics: StatisticsRequest | None = None,
    ) -> None:
        """Give a new stream the reports that it has asked for; nothing if there are none.

        Args:
            workers: how its client sees workers; ``None``: it does not report them.
            statistics: which ones it reports; ``None``: none.

        Raises:
            OverLimit: the limits do not allow them now. The caller closes the stream.
        """
        sources: list[ReportSource] = []
        if subscription.rate is not None:
            sources.append(SkippedReports(subscription.rate))
        if statistics is not None:  # first: it may fail
            sources.append(StatisticsReports(self._shares, statistics, subscription.client))
        if workers is not None:
            sources.append(WorkerReports(self._watch, workers, has_workers=subscription.has_snapshot))
        if sources:
            self._timer.add(subscription, Reports(sources))

    def close(self) -> None:
        """End all reports."""
        self._timer.close()
