"""What was observed of the workers: the events and replies of each. Pure.

- A worker sends heartbeats without ``-E``, too (celery/worker/consumer/events.py: the group ``worker``). Each
  heartbeat has the number of tasks that the worker has accepted (``processed``). If this number grows, and no
  event of a task arrives, task events are off: ``task-started`` is sent right after the count
  (celery/worker/request.py). Tasks that are ``active`` prove nothing: they may have begun before the check.
- ``-E`` is not in the configuration that a worker reports: ``worker_send_task_events`` there proves "on", but
  not "off". No other command reports it without changing it (``enable_events`` reports whether events were
  on, and switches them on). So for an idle worker that is not configured so, it cannot be determined.
"""

from collections.abc import Mapping
from typing import Any

from celery_gateway.check.step import TaskEvents, WorkerReport
from celery_gateway.events.event import Event

GRACE_SECONDS = 1.5
"""How long after a grown count events may still arrive: they are buffered, heartbeats are not."""
MAX_CHANNELS = 5
_WORKER_TASK_EVENTS = frozenset(
    f"task-{word}"
    for word in ("received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "cancelled")
)
"""Those that the worker sends. A task's own events (``Task.send_event``) are sent without ``-E``, too."""


class ObservedWorker:
    """One worker's observations.

    Attributes:
        heartbeats, task_events: how many have arrived.
        has_replied: whether it has replied to a command.
        conf: its configuration, if it has reported one.
        processed: how many tasks it has accepted during the check.
    """

    def __init__(self) -> None:
        self.heartbeats = self.task_events = 0
        self.has_replied = False
        self.conf: Mapping[str, Any] | None = None
        self._first_count: int | None = None
        self._last_count = 0
        self._grown_at: float | None = None  # when a grown count was first observed

    def on_count(self, count: Any, now: float) -> None:
        """Record how many tasks the worker has accepted since its start."""
        if type(count) is not int:
            return
        if self._first_count is None or count < self._first_count:  # a new worker with the same name
            self._first_count = count
            self._grown_at = None
        elif count > self._first_count and self._grown_at is None:
            self._grown_at = now
        self._last_count = count

    @property
    def processed(self) -> int:
        return self._last_count - (self._first_count or 0)

    def task_events_state(self, now: float) -> TaskEvents:
        """Return whether the worker sends task events, if that is proven."""
        if self.task_events:
            return "on"
        if self._grown_at is not None:
            return "off" if now - self._grown_at >= GRACE_SECONDS else "unknown"
        if self.conf is not None and self.conf.get("worker_send_task_events") is True:
            return "on"
        return "unknown"


class Observations:
    """All observations of one preflight. Times are seconds of any monotonic clock.

    Attributes:
        workers: by hostname.
        sent, received: uuids of ``task-sent`` and ``task-received`` events.
        first_event: its type and sender, empty without an event.
        refused: how many messages could not be read.
        refusal: why the workers could not be asked, empty if they could.
        misrouted: a sender for each channel of events that a gateway would not get.
    """

    def __init__(self) -> None:
        self.workers: dict[str, ObservedWorker] = {}
        self.sent: set[str] = set()
        self.received: set[str] = set()
        self.first_event = ""
        self.refused = 0
        self.refusal = ""
        self.misrouted: dict[str, str] = {}

    def on_event(self, event: Event, now: float) -> None:
        """Record an event."""
        event_type, hostname = event["type"], str(event.get("hostname", ""))
        if not self.first_event:
            self.first_event = f"{event_type} from {hostname}"
        if event_type == "worker-offline":
            self.workers.pop(hostname, None)
        elif event_type in ("worker-online", "worker-heartbeat"):
            worker = self._worker(hostname)
            worker.heartbeats += 1
            worker.on_count(event.get("processed"), now)
        elif event_type == "task-sent":  # from a client, whose hostname is not a worker's
            self.sent.add(str(event.get("uuid")))
        elif event_type in _WORKER_TASK_EVENTS:
            self._worker(hostname).task_events += 1
            if event_type == "task-received":
                self.received.add(str(event.get("uuid")))

    def on_misrouted_event(self, event: Event, channel: str) -> None:
        """Record an event on another channel than the gateway's."""
        if channel in self.misrouted or len(self.misrouted) < MAX_CHANNELS:
            self.misrouted[channel] = str(event.get("hostname", ""))

    def on_conf(self, hostname: str, conf: Mapping[str, Any]) -> None:
        """Record a worker's reply to ``conf``."""
        worker = self._worker(hostname)
        worker.has_replied = True
        if "task_send_sent_event" in conf:
            worker.conf = conf

    def on_stats(self, hostname: str, stats: Mapping[str, Any], now: float) -> None:
        """Record a worker's reply to ``stats``, which has the count of its tasks by name."""
        worker = self._worker(hostname)
        worker.has_replied = True
        total = stats.get("total")
        if isinstance(total, Mapping):
            worker.on_count(sum(n for n in total.values() if type(n) is int), now)

    def confs(self) -> list[Mapping[str, Any]]:
        """Return the configurations that workers have reported."""
        return [worker.conf for worker in self.workers.values() if worker.conf is not None]

    def reports(self, now: float) -> list[WorkerReport]:
        """Return what was observed of each worker, by name."""
        return [
            WorkerReport(
                name,
                worker.task_events_state(now),
                worker.heartbeats > 0,
                worker.has_replied,
                worker.processed,
            )
            for name, worker in sorted(self.workers.items())
        ]

    def _worker(self, hostname: str) -> ObservedWorker:
        return self.workers.setdefault(hostname, ObservedWorker())
