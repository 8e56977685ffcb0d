"""The metrics of the gateway: their names, and their values in the statistics of the pipeline."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from celery_gateway.access.quota import COUNTED, QUOTA_DEFAULTS
from celery_gateway.events.normalize import REFUSED_REASONS
from celery_gateway.http.metrics_sum import REPLACED, Across
from celery_gateway.pipeline.feed import FeedStatistics
from celery_gateway.pipeline.log_statistics import LogStatistics
from celery_gateway.pipeline.pipeline import PipelineStatistics
from celery_gateway.stream.limits import REASONS

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]
GAUGE, COUNTER = GaugeMetricFamily, CounterMetricFamily


class OfFeed(NamedTuple):
    """A metric of each broker; ``value`` returns ``None`` where a broker has none."""

    family: Family
    name: str
    help: str
    value: Callable[[FeedStatistics], float | None]
    across: Across = Across.SUM


class Single(NamedTuple):
    """A metric with one value."""

    family: Family
    name: str
    help: str
    value: Callable[[PipelineStatistics], float]
    across: Across = Across.SUM


class OfLog(NamedTuple):
    """A metric of the shared log; there is none without one."""

    family: Family
    name: str
    help: str
    value: Callable[[LogStatistics], float]
    across: Across = Across.MAX


class Labelled(NamedTuple):
    """A metric with a value for each value of a label."""

    family: Family
    name: str
    help: str
    label: str
    values: Callable[[PipelineStatistics], Iterable[tuple[str, float]]]
    across: Across = Across.SUM


OF_FEEDS = (
    OfFeed(
        GAUGE,
        "source_consuming",
        "1 while messages are consumed.",
        lambda feed: feed.status.is_consuming,
        Across.MAX,
    ),
    OfFeed(COUNTER, "messages", "Messages received from the broker.", lambda feed: feed.messages),
    OfFeed(
        COUNTER,
        "source_gaps",
        "Interruptions of consuming, and messages dropped by the broker: events may be lost.",
        lambda feed: feed.gaps,
    ),
    OfFeed(
        GAUGE,
        "control_workers",
        "Workers with events switched on by remote control.",
        lambda feed: None if feed.remote is None else feed.remote.workers - feed.remote.unanswered,
        Across.MAX,
    ),
    OfFeed(
        COUNTER,
        "control_failures",
        "Failed rounds of remote control.",
        lambda feed: None if feed.remote is None else feed.remote.failed_rounds,
    ),
)

METRICS: tuple[Single | Labelled, ...] = (
    Single(
        COUNTER,
        "events",
        "Entries of the stream: events, gaps, status changes.",
        lambda s: s.hub.events,
        Across.MAX,
    ),
    Labelled(
        COUNTER,
        "refused",
        "Messages and events not passed on, by reason.",
        "reason",
        lambda s: [(reason, s.refused.get(reason, 0)) for reason in REFUSED_REASONS],
    ),
    Single(
        GAUGE, "history_bytes", "Size of the history in bytes.", lambda s: s.hub.history_bytes, Across.MAX
    ),
    Single(
        COUNTER,
        "history_evicted",
        "Entries evicted from the history.",
        lambda s: s.hub.evicted,
        Across.MAX,
    ),
    Single(GAUGE, "subscriptions", "Open streams.", lambda s: s.hub.subscriptions),
    Single(
        GAUGE,
        "subscription_cohorts",
        "Different filters and formats of open streams.",
        lambda s: s.hub.cohorts,
    ),
    Single(
        GAUGE, "client_memory_bytes", "Memory held for clients, in bytes.", lambda s: s.limits.memory_bytes
    ),
    Single(
        GAUGE, "client_filter_cost", "Cost of the filters of all clients.", lambda s: s.limits.filter_cost
    ),
    Labelled(
        COUNTER,
        "clients_refused",
        "Clients refused or disconnected because of a limit, by reason.",
        "reason",
        lambda s: [(reason, s.limits.refused.get(reason, 0)) for reason in REASONS],
    ),
    Labelled(
        COUNTER,
        "quota_exceeded",
        "Requests refused and streams ended because of the quota of a principal, by quota.",
        "quota",
        lambda s: [(name, s.limits.quotas.exceeded.get(name, 0)) for name in QUOTA_DEFAULTS],
    ),
    Labelled(
        GAUGE,
        "quota_in_use",
        "What all principals use of their quotas, by quota.",
        "quota",
        lambda s: [(name, s.limits.quotas.in_use.get(name, 0)) for name in COUNTED],
    ),
    Single(
        GAUGE, "quota_principals", "Principals whose use is recorded.", lambda s: s.limits.quotas.principals
    ),
    Single(
        COUNTER,
        "failed_authentications",
        "Requests with an invalid token.",
        lambda s: s.limits.failed_authentications,
    ),
    Single(GAUGE, "tasks_known", "Tasks in the table.", lambda s: s.tasks.known, Across.MAX),
    Single(
        GAUGE,
        "tasks_known_bytes",
        "Memory of the tasks in the table, estimated.",
        lambda s: s.tasks.known_bytes,
        Across.MAX,
    ),
    Single(
        GAUGE,
        "statistics_names",
        "Names with statistics of their own.",
        lambda s: s.tasks.activity_names,
        Across.MAX,
    ),
    Single(
        GAUGE,
        "statistics_bytes",
        "Memory of the statistics, estimated.",
        lambda s: s.tasks.activity_bytes,
        Across.MAX,
    ),
    Labelled(
        COUNTER,
        "tasks_evicted",
        "Tasks evicted from the table.",
        "finished",
        lambda s: [("true", s.tasks.evicted_finished), ("false", s.tasks.evicted_unfinished)],
        Across.MAX,
    ),
    Single(
        GAUGE, "workers_known", "Workers in the table, alive or not.", lambda s: s.workers.known, Across.MAX
    ),
    Single(GAUGE, "workers_alive", "Workers that are alive.", lambda s: s.workers.alive, Across.MAX),
    Single(
        GAUGE,
        "workers_known_bytes",
        "Memory of the workers in the table, estimated.",
        lambda s: s.workers.known_bytes,
        Across.MAX,
    ),
    Single(
        GAUGE,
        "events_waiting",
        "Events that wait for the event that names their task.",
        lambda s: s.tasks.waiting_events,
    ),
    Single(
        COUNTER, "events_unnamed", "Task events passed on without a name.", lambda s: s.tasks.unnamed_events
    ),
    Single(GAUGE, "processes", "Processes of the gateway.", lambda s: 1),
    Single(
        COUNTER,
        REPLACED,
        "Processes of the gateway that ended unexpectedly.",
        lambda s: 0,  # the supervisor counts them
    ),
)

OF_LOG = (
    OfLog(GAUGE, "log_connected", "1 while the shared log can be reached.", lambda log: not log.reason),
    OfLog(GAUGE, "log_leading", "1 if this gateway leads.", lambda log: log.is_leading),
    OfLog(
        COUNTER, "log_claims", "Times that this gateway took the lead.", lambda log: log.claims, Across.SUM
    ),
    OfLog(GAUGE, "log_warm", "1 once the tables were read from the log.", lambda log: log.is_warm),
    OfLog(GAUGE, "log_position", "Position of the last entry read.", lambda log: log.position),
    OfLog(
        GAUGE,
        "log_silent_seconds",
        "Seconds since the last batch that was read was written; about 1 at most while a gateway leads.",
        lambda log: log.silent_seconds,
    ),
    OfLog(
        GAUGE, "log_unread", "Entries that the leader has written and not read back.", lambda log: log.unread
    ),
    OfLog(COUNTER, "log_written_bytes", "Bytes written to the log.", lambda log: log.written_bytes),
    OfLog(
        COUNTER,
        "log_reads",
        "Reads of entries that are older than the history.",
        lambda log: log.older.reads,
        Across.SUM,
    ),
    OfLog(
        COUNTER,
        "log_read_errors",
        "Failed reads of such entries; they are tried again.",
        lambda log: log.older.errors,
        Across.SUM,
    ),
    OfLog(
        GAUGE,
        "log_readers",
        "Streams that wait for such entries.",
        lambda log: log.older.waiting,
        Across.SUM,
    ),
    OfLog(
        GAUGE,
        "log_cache_bytes",
        "Memory of such entries.",
        lambda log: log.older.cached_bytes,
        Across.SUM,
    ),
)
BY_NAME = {metric.name: metric for metric in (*OF_FEEDS, *OF_LOG, *METRICS)}
