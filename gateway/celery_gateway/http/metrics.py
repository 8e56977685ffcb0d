"""``/metrics``: the pipeline's statistics as Prometheus text.

Rules: one table of metrics; nothing is counted here. The text is made on request, but takes at most
``MAX_SHARE`` of a core however often it is requested. If the gateway has several processes, any of them
returns the metrics of all; the table has how their values become one (``metrics_sum``).
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from math import inf
from time import monotonic

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from celery_gateway.http.metrics_sum import Peers, Report, Series
from celery_gateway.http.metrics_table import (
    BY_NAME,
    COUNTER,
    METRICS,
    OF_FEEDS,
    OF_LOG,
    Labelled,
    OfFeed,
    OfLog,
    Single,
)
from celery_gateway.pipeline.pipeline import PipelineStatistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_SHARE = 0.1
"""The share of a core that the text may take."""
MAX_AGE_SECONDS = 1.0
"""Maximum age of a text with the metrics of several processes, some of which may be slow to answer."""


def report(statistics: PipelineStatistics) -> list[Series]:
    """Return the metrics of this process; those of the brokers without a value are left out.

    Only brokers with names have a label, so that the series of a single broker has none.
    """
    return [*_of_feeds(statistics), *_of_log(statistics), *_of_pipeline(statistics)]


def _of_feeds(statistics: PipelineStatistics) -> Iterator[Series]:
    for metric in OF_FEEDS:
        for cluster, feed in statistics.feeds.items():
            value = metric.value(feed)
            if value is not None:
                yield _series(metric, value, *([("cluster", cluster)] if cluster else []))


def _of_log(statistics: PipelineStatistics) -> Iterator[Series]:
    if statistics.log is not None:
        for metric in OF_LOG:
            yield _series(metric, metric.value(statistics.log))


def _of_pipeline(statistics: PipelineStatistics) -> Iterator[Series]:
    for metric in METRICS:
        if isinstance(metric, Single):
            yield _series(metric, metric.value(statistics))
        else:
            for label, value in metric.values(statistics):
                yield _series(metric, value, (metric.label, label))


def _series(metric: OfFeed | OfLog | Single | Labelled, value: float, *labels: tuple[str, str]) -> Series:
    return Series(metric.name, labels, metric.family is COUNTER, metric.across, float(value))


class ReportCollector(Collector):
    """Converts a report to Prometheus metrics."""

    def __init__(self, read: Callable[[], Report]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        for name, group in groupby(self._read(), key=lambda series: series.name):
            all_series = list(group)
            metric = BY_NAME[name]
            labels = [label for label, _ in all_series[0].labels]
            family = metric.family(f"celery_gateway_{name}", metric.help, labels=labels)
            for series in all_series:
                family.add_metric([value for _, value in series.labels], series.value)
            yield family


class Metrics:
    """The text of ``/metrics``."""

    def __init__(self, statistics: Callable[[], PipelineStatistics]) -> None:
        self._statistics = statistics
        self._report: Report = ()
        self._registry = CollectorRegistry()
        self._registry.register(ReportCollector(lambda: self._report))
        self._text = b""
        self._valid_until = -inf
        self._is_made = asyncio.Lock()

    def text(self) -> bytes:
        """Return the text, at most ten times as old as it takes to make: some milliseconds."""
        began = monotonic()
        if began >= self._valid_until:
            self._make(report(self._statistics()), began)
        return self._text

    async def text_of_all(self, peers: Peers) -> bytes:
        """Return the text with the metrics of all processes, as old as ``text``, or a second at most.

        Raises:
            TimeoutError: the supervisor does not answer.
        """
        async with self._is_made:
            began = monotonic()
            if began >= self._valid_until:
                self._make(await peers.total(report(self._statistics())), began)
            return self._text

    def _make(self, metrics: Report, began: float) -> None:
        self._report = metrics
        self._text = generate_latest(self._registry)
        ended = monotonic()
        self._valid_until = ended + min((ended - began) / MAX_SHARE, MAX_AGE_SECONDS)
