"""The worker table: one entry for each worker, and its processes; which processes are gone.

- A key names a worker: its cluster, if there are several, and its hostname (a node name, ``celery@host``).
  A worker without heartbeats is known by its task events. Clients (``gen<pid>@host``) are no workers, and an
  application's own ``worker-…`` events add none.
- The status of a worker follows from the events of its processes, and from their silence (``worker_status``).
  Silence is not counted while the gateway is disconnected from the broker.
- A process is gone if it is silent for too long (``worker_status``), or if another life of it has begun
  (``process``).
- The table is bounded by ``MAX_WORKERS`` and ``MAX_BYTES``: above that it removes the worker without an event
  for longest. One that is gone is removed after ``FORGET_SECONDS``.

Pure: no clock of its own, no I/O. ``now`` is any clock of seconds that only goes forward.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple

from celery_gateway.events.event import Event, is_number, is_time
from celery_gateway.events.event_types import STATE_OF_EVENT
from celery_gateway.state.process import Gone, Process, ProcessKey, count, is_older, least_processed
from celery_gateway.state.process_timers import ProcessTimers
from celery_gateway.state.worker import Worker, describe
from celery_gateway.state.worker_status import (
    FORGET_SECONDS,
    SILENT_SECONDS,
    STOPPING_SECONDS,
    WorkerEntry,
    WorkerKey,
)

GONE_SECONDS = 300.0
MAX_WORKERS = 10_000
MAX_BYTES = 40_000_000
"""The maximum size of the table, by estimate: more than ``MAX_WORKERS`` with names of usual length."""
MAX_CHECKS = 500
"""How many processes ``find_gone`` checks, and returns, in a call at most: about a millisecond."""
MAX_GONE = 1_000
"""How many processes that are gone wait for ``find_gone``; above it only those with tasks are kept."""
MAX_PROCESSES = 8
"""The maximum number of processes that are kept of a worker."""
MAX_HOSTNAME_CHARACTERS = 255

_MAX_FORGOTTEN = 200
"""How many workers are removed before their keys are removed from ``changed``."""
_GONE_BYTES = 650
_WORKER_EVENTS = frozenset({"worker-online", "worker-heartbeat", "worker-offline"})
_WORKERS_TASK_EVENTS = frozenset(STATE_OF_EVENT) - {"task-sent"}


class WorkerTableStatistics(NamedTuple):
    """How many workers are known, how many of them are alive, and their size, by estimate."""

    known: int
    alive: int
    known_bytes: int


class WorkerTable:
    """The table of workers.

    Args:
        has_clusters: events have the name of their broker as ``cluster``.
        gone_seconds: after how long a silence a worker is taken for gone.

    Attributes:
        changed: the keys of workers that events have changed. The encoder of workers (``worker_roster``)
            removes them. The keys of removed workers may be missing.
    """

    def __init__(self, *, has_clusters: bool = False, gone_seconds: float = GONE_SECONDS) -> None:
        self._has_clusters = has_clusters
        self._gone_seconds = gone_seconds
        self._entries: OrderedDict[WorkerKey, WorkerEntry] = OrderedDict()  # by time of the last event
        self._timers = ProcessTimers()  # each process that is not gone has one
        self._bytes = 0
        self._gone: deque[Gone] = deque()
        self._away: dict[str | None, float] = {}  # since when disconnected, by cluster
        self._forgotten = 0  # since their keys were removed from `changed`
        self.changed: set[WorkerKey] = set()

    def statistics(self, now: float) -> WorkerTableStatistics:
        """Return the counts."""
        known = alive = 0
        for entry in self._entries.values():
            if now - entry.last_event_at <= FORGET_SECONDS or not self._is_forgettable(entry, now):
                known += 1
                alive += entry.status(now, self._away.get(entry.key[0]))[2]
        return WorkerTableStatistics(known, alive, self._bytes + _GONE_BYTES * len(self._gone))

    def all(self, now: float, time: float) -> list[Worker]:
        """Return the workers by cluster and hostname. They are the table's own: do not change them.

        Args:
            time: epoch seconds of ``now``.
        """
        return list(self.iterate(now, time))

    def iterate(self, now: float, time: float) -> Iterator[Worker]:
        """Yield the workers that ``all`` returns one by one; meanwhile the table may change."""
        for key in sorted(self._entries):  # all have a cluster, or none has
            worker = self.get(key, now, time)
            if worker is not None:
                yield worker

    def keys(self) -> list[WorkerKey]:
        """Return the keys of all workers: their clusters and hostnames."""
        return list(self._entries)

    def get(self, key: WorkerKey, now: float, time: float) -> Worker | None:
        """Return a worker as of now, as ``all`` does; ``None`` if it is not known, or no longer."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._is_forgettable(entry, now):
            self._forget(key)
            return None
        worker = entry.worker
        before = worker.status
        worker.status, since, worker.alive = entry.status(now, self._away.get(key[0]))
        worker.sends_task_events = entry.sends_task_events
        began = round(time - (now - since), 3)
        if worker.since is None or worker.status != before or abs(began - worker.since) > 1:
            worker.since = began  # the two clocks are never read at the same moment
        return worker

    def on_event(self, event: Event, now: float, arrived: float | None = None) -> Process | None:
        """Record an event of any kind.

        Args:
            arrived: epoch seconds of ``now``, in place of a timestamp that cannot be true; ``None``:
                timestamps are taken as they are.

        Returns:
            The worker's main process that has sent the event; ``None`` if no worker has.
        """
        event_type, hostname = event["type"], event.get("hostname")
        if type(hostname) is not str:
            return None
        cluster = event["cluster"] if self._has_clusters else None
        key = (cluster, hostname)
        entry = self._entries.get(key)
        is_worker_event = event_type in _WORKER_EVENTS
        if is_worker_event or event_type in _WORKERS_TASK_EVENTS:
            if entry is None and (entry := self._add(key, now)) is None:
                return None
            pid = count(event.get("pid"))
            process = entry.processes.get(pid)
            if process is None:
                process = self._begin(entry, ProcessKey(cluster, hostname, pid, 0), now)
            if is_worker_event:
                process = self._on_worker_event(entry, process, event, now, arrived)
            elif not process.evidence.has_event and process.evidence.on_task_event():
                self.changed.add(key)
            entry.current = process
        elif entry is None or event_type == "task-sent":
            return None  # of a client
        else:  # sent by a task itself, from the pool's child that runs it
            process = entry.current
        if process is not None:
            process.last_event_at = now
            if process.gone_at is not None:
                process.gone_at = None
                self._timers.set(process, now + SILENT_SECONDS)
        entry.last_event_at = now
        self._entries.move_to_end(key)
        return process

    def on_disconnect(self, cluster: str | None, now: float) -> None:
        """Record that the gateway has lost the connection to a broker."""
        self._away.setdefault(cluster, now)
        self.changed.update(self._entries)

    def on_reconnect(self, cluster: str | None, now: float) -> None:
        """Record that the gateway is connected again: silence meanwhile does not count."""
        since = self._away.pop(cluster, None)
        if since is not None:
            self._shorten_silence(now - since, cluster)
            self.on_gap(cluster)
            self.changed.update(self._entries)

    def on_gap(self, cluster: str | None) -> None:
        """Record that events of a broker may have been lost."""
        entries = self._entries.items()
        self.changed.update([key for key, entry in entries if key[0] == cluster and entry.on_gap()])

    def on_pause(self, seconds: float) -> None:
        """Record that the gateway itself did not run for a while: silence meanwhile does not count."""
        self._shorten_silence(seconds, *{cluster for cluster, _ in self._entries} - self._away.keys())

    def find_gone(self, now: float) -> list[Gone]:
        """Return processes that were found to be gone since the last call, each once.

        At most ``MAX_CHECKS``: call again soon if ``has_more``.
        """
        for process in self._timers.expire(now, MAX_CHECKS):
            entry = self._entries[process.key.cluster, process.key.hostname]
            limit_seconds, reason = entry.gone_after(process, self._gone_seconds)
            silent_seconds = now - process.last_event_at
            away_since = self._away.get(process.key.cluster)
            if silent_seconds > limit_seconds and away_since is None:
                self._end(process, now, f"{reason} {silent_seconds:.0f} s")
            else:
                soonest = 0.01
                if away_since is not None:  # until now the silence has not counted
                    soonest, limit_seconds = 1.0, limit_seconds + now - away_since
                at = min(process.last_event_at + limit_seconds, now + STOPPING_SECONDS)
                self._timers.set(process, max(at, now + soonest))
        gone = self._gone
        return [gone.popleft() for _ in range(min(len(gone), MAX_CHECKS))]

    def has_more(self, now: float) -> bool:
        """Return whether ``find_gone`` has more to do than it does in one call."""
        return bool(self._gone) or self._timers.has_expired(now)

    def _add(self, key: WorkerKey, now: float) -> WorkerEntry | None:
        if not 0 < len(key[1]) <= MAX_HOSTNAME_CHARACTERS:
            return None
        while self._entries:
            oldest = next(iter(self._entries))
            is_full = len(self._entries) >= MAX_WORKERS or self._bytes > MAX_BYTES
            if not is_full and not self._is_forgettable(self._entries[oldest], now):
                break
            self._forget(oldest)
        self.changed.add(key)
        entry = self._entries[key] = WorkerEntry(key)
        self._measure(entry)
        return entry

    def _measure(self, entry: WorkerEntry) -> None:
        """Count the size of an entry that has changed; remove others if the table is full."""
        size_bytes = entry.measure()
        self._bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes
        if self._bytes > MAX_BYTES:
            self._entries.move_to_end(entry.key)
            while self._bytes > MAX_BYTES and len(self._entries) > 1:
                self._forget(next(iter(self._entries)))

    def _forget(self, key: WorkerKey) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size_bytes
        for process in entry.processes.values():
            self._timers.cancel(process)
        self._timers.tidy()
        self._forgotten += 1
        if self._forgotten > _MAX_FORGOTTEN:
            self._forgotten = 0
            self.changed.intersection_update(self._entries)
        self.changed.add(key)

    def _begin(self, entry: WorkerEntry, key: ProcessKey, now: float) -> Process:
        """Add a process, in place of its life before if there was one."""
        self.changed.add(entry.key)
        if (ended := entry.processes.get(key.pid)) is not None:
            self._timers.cancel(ended)
        process = entry.processes[key.pid] = Process(key, now)
        entry.processes.move_to_end(key.pid)
        self._timers.set(process, now + SILENT_SECONDS)
        for other in entry.processes.values():
            if other is not process and not other.is_replaced:
                other.is_replaced = True
                if other.gone_at is None:
                    self._timers.set(other, other.last_event_at + entry.silent_seconds)
        if not entry.worker.heartbeats:
            entry.worker.pid = key.pid
        if len(entry.processes) > MAX_PROCESSES:
            others = [other for other in entry.processes.values() if other is not process]
            oldest = min(others, key=lambda other: (other.gone_at is None, other.last_event_at))
            del entry.processes[oldest.pid]
            self._timers.cancel(oldest)
            if oldest.gone_at is None and now - oldest.last_event_at > entry.silent_seconds:
                self._end(oldest, now, "many other processes of its worker have come up, and it is silent")
        self._measure(entry)
        return process

    def _end(self, process: Process, now: float, reason: str, successor: Process | None = None) -> None:
        process.gone_at = now
        self.changed.add((process.key.cluster, process.key.hostname))
        if process.assigned or len(self._gone) < MAX_GONE:  # tasks that are assigned later are lost as well
            self._gone.append(Gone(process, reason, successor))

    def _on_worker_event(
        self, entry: WorkerEntry, process: Process, event: Event, now: float, arrived: float | None
    ) -> Process:
        """Record a worker event; return the process that has sent it, which may be a new life."""
        self.changed.add(entry.key)
        event_type = event["type"]
        processed, clock = count(event.get("processed")), count(event.get("clock"))
        timestamp = event.get("timestamp")
        stamp = float(timestamp) if is_number(timestamp) else None
        is_late = is_older(process, event, processed, clock, stamp)
        if event_type == "worker-offline":
            if is_late:
                return process  # of before it came up again
        elif is_late or (processed is not None and processed < least_processed(process, event_type)):
            if event_type == "worker-heartbeat" and not process.is_suspect:
                process.is_suspect = True
                process.evidence.restart()
                return process
            ended, key = process, process.key
            process = self._begin(entry, key._replace(life=key.life + 1), now)
            process.clock = clock
            # Where its first events were missed, what came meanwhile may be of the new life.
            successor = process if event_type == "worker-heartbeat" else None
            self._end(ended, now, "its worker's process was restarted", successor)
        process.is_suspect = False
        process.evidence.on_worker_event(processed, now)
        process.trusted_at, process.stamp = now, stamp
        process.processed = process.processed if processed is None else processed
        process.clock = process.clock if clock is None else clock
        if arrived is not None and not is_time(stamp, arrived):
            stamp = arrived  # to be shown
        self._describe(entry, process, event, now, stamp)
        return process

    def _describe(
        self, entry: WorkerEntry, process: Process, event: Event, now: float, stamp: float | None
    ) -> None:
        """Update the record of a worker from one of its events."""
        worker, event_type = entry.worker, event["type"]
        if event_type == "worker-offline":
            process.stopping_at = now
            worker.offline = stamp
        else:
            process.stopping_at = None
            if event_type == "worker-online":
                worker.online = stamp
        if not worker.heartbeats:  # from now on its silence counts
            for each in entry.processes.values():
                if each.gone_at is None:
                    self._timers.set(each, each.last_event_at + SILENT_SECONDS)
        # The record shows the process that came up last; one that ends does not overwrite it.
        if event_type != "worker-offline" or entry.current is process or entry.current is None:
            if stamp is not None:
                worker.timestamp = stamp
            describe(worker, event)
            self._measure(entry)

    def _is_forgettable(self, entry: WorkerEntry, now: float) -> bool:
        return entry.key[0] not in self._away and entry.is_forgettable(now)

    def _shorten_silence(self, seconds: float, *clusters: str | None) -> None:
        for (cluster, _), entry in self._entries.items():
            if cluster in clusters:
                entry.last_event_at += seconds
                for process in entry.processes.values():
                    process.last_event_at += seconds
