"""Entries of another gateway: applied to the tables as that one has applied them, then passed to the hub."""

from collections.abc import Sequence
from typing import Any

from celery_gateway.broker.source import Status
from celery_gateway.events.event import (
    FILTER_FIELDS,
    ORIGIN_FIELDS,
    Event,
    Keys,
    decode_object,
    keys,
)
from celery_gateway.log.batch import Batch, Line, split_joined
from celery_gateway.log.replica import Replica
from celery_gateway.pipeline.clock import Clock
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.lines import origin_of
from celery_gateway.stream.unexpected_errors import report

UNREACHABLE, WARMING = "log-unreachable", "log-warming"
_NO_KEYS: Keys = (None,) * (len(FILTER_FIELDS) + len(ORIGIN_FIELDS))
_UNTOLD = {"consuming": False, "reason": "no gateway has told its status yet"}


class Following:
    """What a gateway does with the entries of another one.

    Args:
        by_arrival: the clock is that of the arrival of each event; otherwise that of the batch.

    Attributes:
        sources: the sources of the leader, as it has told them last in ``gateway-status``.
        changed_at: when the log could be reached last, or could not any more, in epoch seconds.
    """

    def __init__(
        self,
        tasks: ReplicatedTaskTable,
        workers: WorkerTable,
        hub: Hub,
        completions: Completions,
        clock: Clock,
        *,
        by_arrival: bool = True,
    ) -> None:
        self.sources: list[dict[str, Any]] = []
        self.changed_at = clock.wall()
        self._tasks = tasks
        self._workers = workers
        self._hub = hub
        self._completions = completions
        self._clock = clock
        self._by_arrival = by_arrival
        self._arrived = 0.0  # of the last event

    def on_batch(self, batch: Batch) -> None:
        """Process the entries of a batch."""
        at = batch.head.at
        if not batch.lines or not self._by_arrival:
            self._arrived = at
            self._clock.set_back_to(at)
        for position, line in enumerate(batch.lines, batch.head.first):
            try:
                self._on_line(line, at)
            except Exception as error:
                report("an entry of the shared log could not be applied", error)
                if self._hub.history.position < position:  # the positions must stay right
                    self._hub.commit(line.json, _NO_KEYS, None, at)
        if batch.head.sources and batch.head.sources != self.sources:
            self._on_status(batch.head.sources, self._clock.now())

    def _on_line(self, line: Line, at: float) -> None:
        event = decode_object(line.json)
        if not line.own:
            if event["type"] == "gateway-status":
                self._set_time(line.arrived)
                self._on_status(event["sources"], self._clock.now())
            elif event["type"] == "gateway-gap":
                self._workers.on_gap(event.get("cluster"))
            self._hub.commit(line.json, (), event["type"], at)
            return
        if line.own < 0:
            self._tasks.follow_lost(event)
        else:
            self._apply(event, split_joined(event, line.own), line.arrived)
            self._tasks.set_number(event, self._hub.history.position + 1)
        event_keys = keys(event)
        origin = origin_of(event_keys) if line.origin is None else tuple(line.origin)
        self._hub.commit(line.json, event_keys + origin, None, at)
        self._completions.on_event(event, origin)

    def _apply(self, event: Event, added: Event, arrived: float) -> None:
        """Apply an event as it was before it was joined; then join it as it was."""
        self._set_time(arrived)
        now = self._clock.now()
        process = self._workers.on_event(event, now, arrived)
        self._tasks.follow(event, added, now, process, arrived)
        if event["type"].startswith("worker-"):
            # The leader has found the same at the same event, and its entries tell which tasks are lost.
            for gone, reason, successor in self._workers.find_gone(now):
                self._tasks.mark_lost(gone, reason, arrived, successor)
            self._tasks.mark_lost_late(arrived)
        event.update(added)

    def _set_time(self, arrived: float) -> None:
        if self._by_arrival and arrived != self._arrived:
            self._arrived = arrived
            self._clock.set_back_to(arrived)

    def _on_status(self, sources: list[dict[str, Any]], now: float) -> None:
        """Record what the leader tells of its sources: silence does not count while it does not consume."""
        self.sources = sources
        for source in sources:
            if source["consuming"]:
                self._workers.on_reconnect(source["cluster"], now)
            else:
                self._workers.on_disconnect(source["cluster"], now)

    def warming(self, replica: Replica) -> str:
        """Return why a gateway does not follow the log, or how far it has read."""
        position, goal = replica.order.position or 0, replica.goal
        return replica.outage.reason or (
            f"reading the log: entry {position} of {goal}" if goal else "reading the log"
        )

    def statuses(self, replica: Replica, clusters: Sequence[str | None]) -> dict[str | None, Status]:
        """Return the statuses of the sources, as far as a gateway knows them that does not read them."""
        if replica.outage.reason or not replica.is_warm:
            status = Status(False, self.warming(replica), UNREACHABLE if replica.outage.reason else WARMING)
            return dict.fromkeys(clusters, status)
        told = {source["cluster"]: source for source in self.sources}
        shown = {cluster: told.get(cluster, _UNTOLD) for cluster in clusters}
        return {cluster: Status(source["consuming"], source["reason"]) for cluster, source in shown.items()}

    def since(self, replica: Replica, cluster: str | None) -> float | None:
        """Return when the status of a source began, likewise; ``None`` if that is not known."""
        if replica.outage.reason or not replica.is_warm:
            return self.changed_at
        return next((source["since"] for source in self.sources if source["cluster"] == cluster), None)
