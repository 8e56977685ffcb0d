"""The table of workers: what their own events say of them, whether they live, and which of them are gone.

A worker sends ``worker-online``, then ``worker-heartbeat`` every ``freq`` seconds, and ``worker-offline``
when it begins to stop; tasks under way then go on to their end. One that is killed sends nothing. Silence is
judged by arrival here, never by the senders' clocks:

- ``online``: it was heard within ``SILENT_FREQS`` heartbeats, at least ``SILENT_SECONDS``; any event counts.
- ``stopping``: it has sent ``worker-offline``, and runs tasks.
- ``silent``: not heard for longer. It may be busy (a gevent worker in a loop) or dead.
- ``offline``: it has stopped, or its process is gone.
- ``unknown``: the gateway itself does not hear its broker.

A process (``process``) is known to be gone when

- it begins another life: ``processed`` or ``clock`` in its worker events go back, or its ``worker-online``
  has ``processed`` below the number of tasks that it was seen to start. ``worker-online`` alone is no sign: a
  worker that lost its broker sends it, too. A heartbeat that goes back counts when the next one does not
  return to the old values, as those of two workers with one name and pid do;
- it is silent, and another process of its hostname has come up;
- it is silent for ``gone_seconds``, or stopping for ``STOPPING_SECONDS``.

While the gateway is away from a broker the silence of its workers is not counted.

- A worker is known by its cluster and its hostname (a node name, ``celery@host``). One without heartbeats is
  known by its task events, and never silent. Clients (``gen<pid>@host``) send neither; an application's own
  ``worker-…`` events make no worker.
- Bounded by ``MAX_WORKERS``: those that were silent for longest go first. One that is gone is forgotten after
  ``FORGET_SECONDS``.
- Pure: no clock of its own, no I/O. ``now`` is any clock of seconds that only goes forward.
"""

from collections import OrderedDict
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

import msgspec

from gateway.event import MAX_NUMBER, Event, is_number
from gateway.process import Process, ProcessKey
from gateway.state import STATE_OF_EVENT
from gateway.worker import Worker, WorkerStatus, describe

SILENT_SECONDS = 15.0
SILENT_FREQS = 3
GONE_SECONDS = 300.0
STOPPING_SECONDS = 3600.0
"""A warm shutdown has no time limit of its own; process managers usually set one."""
MAX_FREQ_SECONDS = 3600.0
"""Of a worker that claims a longer one: otherwise it could never be silent."""
FORGET_SECONDS = 3600.0
MAX_WORKERS = 10_000
MAX_PROCESSES = 8
"""How many processes under one hostname are kept."""
MAX_HOSTNAME_CHARACTERS = 255

_WORKER_EVENTS = frozenset({"worker-online", "worker-heartbeat", "worker-offline"})
_WORKERS_TASK_EVENTS = frozenset(STATE_OF_EVENT) - {"task-sent"}
_Key = tuple[str | None, str]


class WorkersStatistics(NamedTuple):
    """How many workers are known, and how many of them are alive."""

    known: int
    alive: int


class Gone(NamedTuple):
    """A process that is known to be gone, and how that is known, for people.

    ``successor`` is the life after it, where that is what tells; some of the last events may be its.
    """

    process: Process
    why: str
    successor: Process | None = None


class _Known:
    """A worker and the processes that went, or go, by its name; the pid is ``None`` where none was told."""

    __slots__ = ("key", "worker", "heard_at", "processes", "current")

    def __init__(self, key: _Key, worker: Worker) -> None:
        self.key = key
        self.worker = worker
        self.heard_at = 0.0
        self.processes: OrderedDict[int | None, Process] = OrderedDict()
        self.current: Process | None = None  # whose worker event, or task event, came last

    @property
    def silent_seconds(self) -> float:
        return max(SILENT_SECONDS, SILENT_FREQS * min(self.worker.freq or 0.0, MAX_FREQ_SECONDS))

    def is_forgettable(self, now: float) -> bool:
        return now - self.heard_at > FORGET_SECONDS and not any(
            process.held and process.gone_at is None for process in self.processes.values()
        )


class Workers:
    """The table of workers.

    Args:
        has_clusters: events bear the name of their broker as ``cluster``.
        gone_seconds: how long a worker has to be silent to be taken for gone.
    """

    def __init__(self, *, has_clusters: bool = False, gone_seconds: float = GONE_SECONDS) -> None:
        self._has_clusters = has_clusters
        self._gone_seconds = gone_seconds
        self._known: OrderedDict[_Key, _Known] = OrderedDict()  # the longest silent first
        self._due: list[tuple[float, int, Process, _Known]] = []  # a heap: when a process may be gone
        self._number = 0
        self._gone: list[Gone] = []
        self._away: dict[str | None, float] = {}  # since when, by cluster

    def statistics(self, now: float) -> WorkersStatistics:
        """Return the counts."""
        known = [known for known in self._known.values() if not self._is_forgettable(known, now)]
        return WorkersStatistics(len(known), sum(self._status(worker, now)[2] for worker in known))

    def all(self, now: float, time: float) -> list[Worker]:
        """Return the workers by cluster and hostname. They are the table's own: to be read.

        Args:
            time: epoch seconds of ``now``.
        """
        for key in [key for key, known in self._known.items() if self._is_forgettable(known, now)]:
            del self._known[key]
        for known in self._known.values():
            worker = known.worker
            before = worker.status
            worker.status, since, worker.alive = self._status(known, now)
            began = round(time - (now - since), 3)
            if worker.since is None or worker.status != before or abs(began - worker.since) > 1:
                worker.since = began  # the two clocks are never read at the same moment
        return [
            self._known[key].worker for key in sorted(self._known, key=lambda key: (key[0] or "", key[1]))
        ]

    def hear(self, event: Event, now: float) -> Process | None:
        """Take note of any event; return the worker's main process that it is from, if it is from one."""
        event_type, hostname = event["type"], event.get("hostname")
        if type(hostname) is not str:
            return None
        cluster = event["cluster"] if self._has_clusters else None
        key = (cluster, hostname)
        known = self._known.get(key)
        is_workers_own = event_type in _WORKER_EVENTS
        if is_workers_own or event_type in _WORKERS_TASK_EVENTS:
            if known is None and (known := self._add(key, now)) is None:
                return None
            pid = _count(event.get("pid"))
            process = known.processes.get(pid)
            if process is None:
                process = self._begin(known, ProcessKey(cluster, hostname, pid, 0), now)
            if is_workers_own:
                process = self._take(known, process, event, now)
            known.current = process
        elif known is None or event_type == "task-sent":
            return None  # nobody's, or a client's
        else:  # sent by a task itself, from the pool's child that runs it
            process = known.current
        if process is not None:
            process.heard_at = now
            if process.gone_at is not None:
                process.gone_at = None
                self._watch(process, known, now + SILENT_SECONDS)
        known.heard_at = now
        self._known.move_to_end(key)
        return process

    def away(self, cluster: str | None, now: float) -> None:
        """Take note that the gateway does not hear a broker from now on."""
        self._away.setdefault(cluster, now)

    def back(self, cluster: str | None, now: float) -> None:
        """Take note that it hears it again: silence meanwhile meant nothing."""
        since = self._away.pop(cluster, None)
        if since is not None:
            self._excuse(now - since, cluster)

    def stood_still(self, seconds: float) -> None:
        """Take note that the gateway itself did not run for a while."""
        self._excuse(seconds, *{cluster for cluster, _ in self._known} - self._away.keys())

    def find_gone(self, now: float) -> list[Gone]:
        """Return the processes that have become known to be gone since the last call, each once."""
        while self._due and self._due[0][0] <= now:
            _, _, process, known = heappop(self._due)
            is_known = self._known.get(known.key) is known and known.processes.get(process.pid) is process
            if process.gone_at is not None or not is_known:
                continue
            limit_seconds, why = self._limit(process, known)
            silent_seconds = now - process.heard_at
            is_away = process.key.cluster in self._away
            if silent_seconds > limit_seconds and not is_away:
                self._end(process, now, f"{why} {silent_seconds:.0f} s")
            else:
                soonest = now + (1.0 if is_away else 0.01)
                at = min(process.heard_at + limit_seconds, now + STOPPING_SECONDS)
                self._watch(process, known, max(at, soonest))
        found, self._gone = self._gone, []
        return found

    def _limit(self, process: Process, known: _Known) -> tuple[float, str]:
        """Return how long a process has to be silent to be gone, and in words that it was for so long."""
        if process.stopping_at is not None:
            return STOPPING_SECONDS, "its worker began to stop, and has been silent for"
        if process.is_replaced:
            # Without heartbeats silence means little.
            limit_seconds = known.silent_seconds if known.worker.heartbeats else STOPPING_SECONDS
            return limit_seconds, "another process of its worker has come up, and it has been silent for"
        return self._gone_seconds if known.worker.heartbeats else inf, "its worker has been silent for"

    def _watch(self, process: Process, known: _Known, at: float) -> None:
        """Look at a process again at this time."""
        self._number += 1
        heappush(self._due, (at, self._number, process, known))

    def _add(self, key: _Key, now: float) -> _Known | None:
        cluster, hostname = key
        if not 0 < len(hostname) <= MAX_HOSTNAME_CHARACTERS:
            return None
        while self._known:
            oldest = next(iter(self._known))
            if len(self._known) < MAX_WORKERS and not self._is_forgettable(self._known[oldest], now):
                break
            del self._known[oldest]
        known = self._known[key] = _Known(
            key, Worker(hostname, cluster=msgspec.UNSET if cluster is None else cluster)
        )
        return known

    def _begin(self, known: _Known, key: ProcessKey, now: float) -> Process:
        """Add a process, in place of an earlier life of it if there is one."""
        process = known.processes[key.pid] = Process(key, now)
        known.processes.move_to_end(key.pid)
        self._watch(process, known, now + SILENT_SECONDS)
        for other in known.processes.values():
            if other is not process and not other.is_replaced:
                other.is_replaced = True
                self._watch(other, known, other.heard_at + known.silent_seconds)
        if not known.worker.heartbeats:
            known.worker.pid = key.pid
        if len(known.processes) > MAX_PROCESSES:
            others = [other for other in known.processes.values() if other is not process]
            oldest = min(others, key=lambda other: (other.gone_at is None, other.heard_at))
            del known.processes[oldest.pid]
            if oldest.gone_at is None and now - oldest.heard_at > known.silent_seconds:
                self._end(oldest, now, "many other processes of its worker have come up, and it is silent")
        return process

    def _end(self, process: Process, now: float, why: str, successor: Process | None = None) -> None:
        process.gone_at = now
        self._gone.append(Gone(process, why, successor))

    def _take(self, known: _Known, process: Process, event: Event, now: float) -> Process:
        """Take a worker event in; return the process that it is from, which may be a new life."""
        worker, event_type = known.worker, event["type"]
        processed, clock = _count(event.get("processed")), _count(event.get("clock"))
        is_back = clock is not None and process.clock is not None and clock < process.clock
        timestamp = event.get("timestamp")
        stamp = float(timestamp) if is_number(timestamp) else None
        if event_type == "worker-online" and not processed and event.get("active") == 0:
            # The counter never stands still, but for the same event once more.
            is_back |= clock is not None and clock == process.clock and stamp != process.stamp
        if event_type == "worker-offline":
            if is_back:
                return process  # of before it came up again
        elif is_back or (processed is not None and processed < _least_processed(process, event_type)):
            if event_type == "worker-heartbeat" and not process.is_suspect:
                process.is_suspect = True
                return process
            ended, key = process, process.key
            process = self._begin(known, key._replace(life=key.life + 1), now)
            process.clock = clock
            # Where its first events were missed, what came meanwhile may be of the new life.
            successor = process if event_type == "worker-heartbeat" else None
            self._end(ended, now, "its worker's process was restarted", successor)
        process.is_suspect = False
        process.trusted_at, process.stamp = now, stamp
        if event_type == "worker-offline":
            process.stopping_at = now
            worker.offline = stamp
        else:
            process.stopping_at = None
            if event_type == "worker-online":
                worker.online = stamp
        process.processed = process.processed if processed is None else processed
        process.clock = process.clock if clock is None else clock
        if not worker.heartbeats:  # from now on its silence means something
            for each in known.processes.values():
                self._watch(each, known, each.heard_at + SILENT_SECONDS)
        # The process that came up last speaks for the worker; one that ends does not overwrite it.
        if event_type != "worker-offline" or known.current is process or known.current is None:
            if stamp is not None:
                worker.timestamp = stamp
            describe(worker, event)
        return process

    def _status(self, known: _Known, now: float) -> tuple[WorkerStatus, float, bool]:
        """Return a worker's status, since when on the clock of ``now``, and whether it is alive."""
        away_since = self._away.get(known.worker.cluster if type(known.worker.cluster) is str else None)
        at = now if away_since is None else away_since
        living = [process for process in known.processes.values() if process.gone_at is None]
        limit = known.silent_seconds if known.worker.heartbeats else FORGET_SECONDS
        online = [p for p in living if p.stopping_at is None and at - p.heard_at <= limit]
        stopping = [p for p in living if p.stopping_at is not None and p.is_running]
        silent = [p for p in living if p.stopping_at is None]
        status: WorkerStatus = "offline"
        if online:
            status, since = "online", min(process.since for process in online)
        elif stopping:
            status, since = "stopping", max(process.stopping_at or 0.0 for process in stopping)
        elif silent:
            status, since = "silent", max(process.heard_at for process in silent)
        else:
            since = max(p.gone_at or p.stopping_at or p.heard_at for p in known.processes.values())
        is_alive = status in ("online", "stopping")
        return ("unknown", away_since, is_alive) if away_since is not None else (status, since, is_alive)

    def _is_forgettable(self, known: _Known, now: float) -> bool:
        cluster = known.worker.cluster
        return (cluster if type(cluster) is str else None) not in self._away and known.is_forgettable(now)

    def _excuse(self, seconds: float, *clusters: str | None) -> None:
        for (cluster, _), known in self._known.items():
            if cluster in clusters:
                known.heard_at += seconds
                for process in known.processes.values():
                    process.heard_at += seconds


def _least_processed(process: Process, event_type: str) -> int:
    """Return how many tasks a process must have begun by now, if it still is the same."""
    reported = process.processed or 0
    return max(reported, process.starts) if event_type == "worker-online" else reported


def _count(value: object) -> int | None:
    return value if type(value) is int and -MAX_NUMBER < value < MAX_NUMBER else None
