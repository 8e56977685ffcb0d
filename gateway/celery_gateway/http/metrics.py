"""``/metrics``: the pipeline's statistics as Prometheus text, read when they are asked for."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.normalize import REFUSED_REASONS
from gateway.pipeline import PipelineStatistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PipelineCollector(Collector):
    """Names the pipeline's counts as Prometheus does."""

    def __init__(self, statistics: Callable[[], PipelineStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterable[Metric]:
        now = self._statistics()

        def gauge(name: str, text: str, value: float) -> Metric:
            return GaugeMetricFamily(f"celery_gateway_{name}", text, value)

        def counter(name: str, text: str, value: float) -> Metric:
            return CounterMetricFamily(f"celery_gateway_{name}", text, value)

        # Without names there is no label: the series is the same one for the most, who have one broker.
        labels = [] if None in now.feeds else ["cluster"]
        consuming = GaugeMetricFamily(
            "celery_gateway_source_consuming", "1 while messages are consumed.", labels=labels
        )
        messages = CounterMetricFamily(
            "celery_gateway_messages", "Messages taken from the broker.", labels=labels
        )
        gaps = CounterMetricFamily(
            "celery_gateway_source_gaps",
            "Times that the source was away, or the broker dropped messages: events may be lost.",
            labels=labels,
        )
        told = GaugeMetricFamily(
            "celery_gateway_control_workers", "Workers that were told to send events.", labels=labels
        )
        failed = CounterMetricFamily(
            "celery_gateway_control_failures", "Times that workers could not be asked.", labels=labels
        )
        for cluster, feed in now.feeds.items():
            values = [cluster] if cluster else []
            consuming.add_metric(values, feed.status.is_consuming)
            messages.add_metric(values, feed.messages)
            gaps.add_metric(values, feed.gaps)
            if feed.remote is not None:
                told.add_metric(values, feed.remote.workers - feed.remote.unanswered)
                failed.add_metric(values, feed.remote.failed_rounds)
        yield from (consuming, messages, gaps)
        if any(feed.remote for feed in now.feeds.values()):
            yield from (told, failed)
        yield counter("events", "Events, gaps and changes of status put into the stream.", now.hub.events)
        refused = CounterMetricFamily(
            "celery_gateway_refused", "Messages and events not passed on, by reason.", labels=["reason"]
        )
        for reason in REFUSED_REASONS:
            refused.add_metric([reason], now.refused.get(reason, 0))
        yield refused
        yield gauge("history_bytes", "Bytes of the stream kept in memory.", now.hub.history_bytes)
        yield counter("history_evicted", "Events that left the history.", now.hub.evicted)
        yield gauge("subscriptions", "Streams open.", now.hub.subscriptions)
        yield gauge("subscription_groups", "Different filters and formats among them.", now.hub.groups)
        yield gauge("tasks_known", "Tasks remembered for joining.", now.tasks.known)
        yield gauge("tasks_known_bytes", "Bytes they take, by estimate.", now.tasks.known_bytes)
        evicted = CounterMetricFamily(
            "celery_gateway_tasks_evicted", "Tasks forgotten to bound the memory.", labels=["finished"]
        )
        evicted.add_metric(["true"], now.tasks.evicted_finished)
        evicted.add_metric(["false"], now.tasks.evicted_unfinished)
        yield evicted
        yield gauge("workers_known", "Workers remembered, alive or not.", now.workers.known)
        yield gauge("workers_alive", "Workers that were heard of lately.", now.workers.alive)
        yield gauge("events_waiting", "Events that wait for what names their task.", now.tasks.waiting_events)
        yield counter("events_unnamed", "Task events passed on without a name.", now.tasks.unnamed_events)


class Metrics:
    """The text of ``/metrics``."""

    def __init__(self, statistics: Callable[[], PipelineStatistics]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PipelineCollector(statistics))

    def text(self) -> bytes:
        """Return it as of now."""
        return generate_latest(self._registry)
