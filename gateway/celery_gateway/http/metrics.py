"""``/metrics``: the pipeline's statistics as Prometheus text.

Rules: one table of metrics; nothing is counted here. The text is made on request, but takes at most
``MAX_SHARE`` of a core however often it is requested.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import monotonic
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from celery_gateway.access.quota import COUNTED, QUOTA_DEFAULTS
from celery_gateway.events.normalize import REFUSED_REASONS
from celery_gateway.feed import FeedStatistics
from celery_gateway.pipeline import PipelineStatistics
from celery_gateway.stream.limits import REASONS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_SHARE = 0.1
"""The share of a core that the text may take."""

_Family = type[GaugeMetricFamily] | type[CounterMetricFamily]
_GAUGE, _COUNTER = GaugeMetricFamily, CounterMetricFamily


class _OfFeed(NamedTuple):
    """A metric of each broker; ``value`` returns ``None`` where a broker has none."""

    family: _Family
    name: str
    help: str
    value: Callable[[FeedStatistics], float | None]


class _Single(NamedTuple):
    """A metric with one value."""

    family: _Family
    name: str
    help: str
    value: Callable[[PipelineStatistics], float]


class _Labelled(NamedTuple):
    """A metric with a value for each value of a label."""

    family: _Family
    name: str
    help: str
    label: str
    values: Callable[[PipelineStatistics], Iterable[tuple[str, float]]]


_OF_FEEDS = (
    _OfFeed(
        _GAUGE, "source_consuming", "1 while messages are consumed.", lambda feed: feed.status.is_consuming
    ),
    _OfFeed(_COUNTER, "messages", "Messages received from the broker.", lambda feed: feed.messages),
    _OfFeed(
        _COUNTER,
        "source_gaps",
        "Interruptions of consuming, and messages dropped by the broker: events may be lost.",
        lambda feed: feed.gaps,
    ),
    _OfFeed(
        _GAUGE,
        "control_workers",
        "Workers with events switched on by remote control.",
        lambda feed: None if feed.remote is None else feed.remote.workers - feed.remote.unanswered,
    ),
    _OfFeed(
        _COUNTER,
        "control_failures",
        "Failed rounds of remote control.",
        lambda feed: None if feed.remote is None else feed.remote.failed_rounds,
    ),
)

_METRICS: tuple[_Single | _Labelled, ...] = (
    _Single(
        _COUNTER, "events", "Entries of the stream: events, gaps, status changes.", lambda s: s.hub.events
    ),
    _Labelled(
        _COUNTER,
        "refused",
        "Messages and events not passed on, by reason.",
        "reason",
        lambda s: [(reason, s.refused.get(reason, 0)) for reason in REFUSED_REASONS],
    ),
    _Single(_GAUGE, "history_bytes", "Size of the history in bytes.", lambda s: s.hub.history_bytes),
    _Single(_COUNTER, "history_evicted", "Entries evicted from the history.", lambda s: s.hub.evicted),
    _Single(_GAUGE, "subscriptions", "Open streams.", lambda s: s.hub.subscriptions),
    _Single(
        _GAUGE,
        "subscription_cohorts",
        "Different filters and formats of open streams.",
        lambda s: s.hub.cohorts,
    ),
    _Single(
        _GAUGE, "client_memory_bytes", "Memory held for clients, in bytes.", lambda s: s.limits.memory_bytes
    ),
    _Single(
        _GAUGE, "client_filter_cost", "Cost of the filters of all clients.", lambda s: s.limits.filter_cost
    ),
    _Labelled(
        _COUNTER,
        "clients_refused",
        "Clients refused or disconnected because of a limit, by reason.",
        "reason",
        lambda s: [(reason, s.limits.refused.get(reason, 0)) for reason in REASONS],
    ),
    _Labelled(
        _COUNTER,
        "quota_exceeded",
        "Requests refused and streams ended because of the quota of a principal, by quota.",
        "quota",
        lambda s: [(name, s.limits.quotas.exceeded.get(name, 0)) for name in QUOTA_DEFAULTS],
    ),
    _Labelled(
        _GAUGE,
        "quota_in_use",
        "What all principals use of their quotas, by quota.",
        "quota",
        lambda s: [(name, s.limits.quotas.in_use.get(name, 0)) for name in COUNTED],
    ),
    _Single(
        _GAUGE, "quota_principals", "Principals whose use is recorded.", lambda s: s.limits.quotas.principals
    ),
    _Single(
        _COUNTER,
        "failed_authentications",
        "Requests with an invalid token.",
        lambda s: s.limits.failed_authentications,
    ),
    _Single(_GAUGE, "tasks_known", "Tasks in the table.", lambda s: s.tasks.known),
    _Single(
        _GAUGE,
        "tasks_known_bytes",
        "Memory of the tasks in the table, estimated.",
        lambda s: s.tasks.known_bytes,
    ),
    _Labelled(
        _COUNTER,
        "tasks_evicted",
        "Tasks evicted from the table.",
        "finished",
        lambda s: [("true", s.tasks.evicted_finished), ("false", s.tasks.evicted_unfinished)],
    ),
    _Single(_GAUGE, "workers_known", "Workers in the table, alive or not.", lambda s: s.workers.known),
    _Single(_GAUGE, "workers_alive", "Workers that are alive.", lambda s: s.workers.alive),
    _Single(
        _GAUGE,
        "workers_known_bytes",
        "Memory of the workers in the table, estimated.",
        lambda s: s.workers.known_bytes,
    ),
    _Single(
        _GAUGE,
        "events_waiting",
        "Events that wait for the event that names their task.",
        lambda s: s.tasks.waiting_events,
    ),
    _Single(
        _COUNTER, "events_unnamed", "Task events passed on without a name.", lambda s: s.tasks.unnamed_events
    ),
)


class PipelineCollector(Collector):
    """Reads the pipeline's statistics as Prometheus metrics."""

    def __init__(self, statistics: Callable[[], PipelineStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterable[Metric]:
        statistics = self._statistics()
        yield from _of_feeds(statistics)
        for metric in _METRICS:
            name = f"celery_gateway_{metric.name}"
            if isinstance(metric, _Single):
                yield metric.family(name, metric.help, metric.value(statistics))
                continue
            family = metric.family(name, metric.help, labels=[metric.label])
            for label, value in metric.values(statistics):
                family.add_metric([label], value)
            yield family


def _of_feeds(statistics: PipelineStatistics) -> Iterator[Metric]:
    """Yield the metrics of the brokers; a metric without any value is left out.

    Only brokers with names have a label, so that the series of a single broker has none.
    """
    labels = [] if None in statistics.feeds else ["cluster"]
    for metric in _OF_FEEDS:
        family = metric.family(f"celery_gateway_{metric.name}", metric.help, labels=labels)
        for cluster, feed in statistics.feeds.items():
            value = metric.value(feed)
            if value is not None:
                family.add_metric([cluster] if cluster else [], value)
        if family.samples:
            yield family


class Metrics:
    """The text of ``/metrics``."""

    def __init__(self, statistics: Callable[[], PipelineStatistics]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PipelineCollector(statistics))
        self._text = b""
        self._valid_until = -inf

    def text(self) -> bytes:
        """Return the text, at most ten times as old as it takes to make: some milliseconds."""
        began = monotonic()
        if began >= self._valid_until:
            self._text = generate_latest(self._registry)
            ended = monotonic()
            self._valid_until = ended + (ended - began) / MAX_SHARE
        return self._text
