"""The table of workers: what their own events say of them, and which of them are gone.

A worker says ``worker-online``, then ``worker-heartbeat`` every ``freq`` seconds, and ``worker-offline`` if
it ends in good order. One that is killed says nothing: it is offline when it has been silent for longer than
``SILENT_FREQS`` heartbeats take, at least ``SILENT_SECONDS``. Any event counts as a sign of life.

- A worker is known by its cluster and its hostname (a node name, ``celery@host``). There may be several
  processes of one hostname: that which was restarted, or by mistake two at a time. Each has its pid; a
  ``worker-online`` ends those before it, and what an ended one said earlier, and comes late, changes nothing.
- Clients (``gen<pid>@host``) also send events, and are no workers.
- Bounded by ``MAX_WORKERS``: those that were silent for longest go first. One that is gone is forgotten after
  ``FORGET_SECONDS``; that it was there is remembered for longer, since its tasks may be, too.
- Pure: no clock of its own, no I/O. ``now`` is any clock of seconds that only goes forward.
"""

from collections import OrderedDict
from math import inf
from typing import NamedTuple

import msgspec

from gateway.event import Event, is_client, is_number
from gateway.task import Task

SILENT_SECONDS = 15.0
SILENT_FREQS = 3
MAX_FREQ_SECONDS = 3600.0
"""Of a worker that would have it longer: otherwise it could never be told to be gone."""
FORGET_SECONDS = 3600.0
MAX_WORKERS = 10_000
MAX_FORGOTTEN = 100_000
"""Of how many forgotten workers it is remembered that they are gone."""
MAX_PROCESSES = 8
"""Of how many processes under one hostname is kept whether they live."""
MAX_HOSTNAME_CHARACTERS = 255
MAX_TEXT_CHARS = 255

_NUMBERS = ("active", "processed", "pid", "clock")
_TEXTS = ("sw_ident", "sw_ver", "sw_sys")
_Key = tuple[str | None, str]


class Worker(msgspec.Struct):
    """What is known of a worker. Times are epoch seconds, UTC, on the worker's clock.

    Attributes:
        hostname: its node name.
        freq: seconds from heartbeat to heartbeat.
        active: tasks that it runs.
        processed: tasks that it has begun since its start.
        loadavg: of its machine, over 1, 5 and 15 minutes.
        timestamp: of its youngest worker event.
        online: when it came up, if that was seen.
        offline: when it said last that it ends.
        cluster: the broker's name; left out where it has none.
    """

    hostname: str
    alive: bool = True
    freq: float | None = None
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None
    pid: int | None = None
    clock: int | None = None
    timestamp: float | None = None
    online: float | None = None
    offline: float | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    cluster: str | msgspec.UnsetType = msgspec.UNSET


WORKER_FIELDS = Worker.__struct_fields__


class WorkersStatistics(NamedTuple):
    """How many workers are known, and how many of them are alive."""

    known: int
    alive: int


class _Process:
    """One of the processes under a hostname, with the timestamps of its youngest words, by what they say."""

    __slots__ = ("heard_at", "live_stamp", "offline_stamp")

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.live_stamp = self.offline_stamp = -inf


class _Known:
    """A worker and the processes that went, or go, by its name; the pid is ``None`` where none was told."""

    __slots__ = ("worker", "heard_at", "processes")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.heard_at = 0.0
        self.processes: OrderedDict[int | None, _Process] = OrderedDict()

    def process(self, pid: int | None) -> _Process:
        """Return the process of a worker event, and keep it for longest."""
        process = self.processes.get(pid)
        if process is None:
            process = self.processes[pid] = _Process()
            if len(self.processes) > MAX_PROCESSES:
                self.processes.popitem(last=False)
        else:
            self.processes.move_to_end(pid)
        return process

    def lives(self, process: _Process, now: float) -> bool:
        if process.live_stamp < max(process.offline_stamp, self.worker.online or 0.0):
            return False  # it said goodbye, or another has come up since
        return now - process.heard_at <= self._silent_seconds()

    def is_alive(self, now: float) -> bool:
        return any(self.lives(process, now) for process in self.processes.values())

    def is_forgettable(self, now: float) -> bool:
        return now - self.heard_at > FORGET_SECONDS and not self.is_alive(now)

    def _silent_seconds(self) -> float:
        return max(SILENT_SECONDS, SILENT_FREQS * min(self.worker.freq or 0.0, MAX_FREQ_SECONDS))


class Workers:
    """The table of workers.

    Args:
        has_clusters: events bear the name of their broker as ``cluster``.
    """

    def __init__(self, *, has_clusters: bool = False) -> None:
        self._has_clusters = has_clusters
        self._known: OrderedDict[_Key, _Known] = OrderedDict()  # the longest silent first
        self._forgotten: OrderedDict[int, None] = OrderedDict()  # hashes of keys

    def statistics(self, now: float) -> WorkersStatistics:
        """Return the counts."""
        known = [known for known in self._known.values() if not known.is_forgettable(now)]
        return WorkersStatistics(len(known), sum(worker.is_alive(now) for worker in known))

    def all(self, now: float) -> list[Worker]:
        """Return the workers, alive or not, by cluster and hostname. They are the table's own: to be read."""
        for key in [key for key, known in self._known.items() if known.is_forgettable(now)]:
            self._forget(key, now)
        for known in self._known.values():
            known.worker.alive = known.is_alive(now)
        return [
            self._known[key].worker for key in sorted(self._known, key=lambda key: (key[0] or "", key[1]))
        ]

    def hear(self, event: Event, now: float) -> None:
        """Take note of an event, whatever it is."""
        hostname = event.get("hostname")
        if type(hostname) is not str:
            return
        key = (event["cluster"] if self._has_clusters else None, hostname)
        known = self._known.get(key)
        if event["type"].startswith("worker-"):
            known = known or self._add(key, now)
            if known is None:
                return
            self._take(known, event, now)
        elif known is None:
            return
        else:
            # What a task itself sends has the pid of the pool's child that runs it.
            pid = event.get("pid")
            process = known.processes.get(pid if type(pid) is int else None)
            process = process or known.processes.get(known.worker.pid)
            if process is not None:
                process.heard_at = now
        known.heard_at = now
        self._known.move_to_end(key)

    def is_lost(
        self, hostname: str, pid: int | None, cluster: str | None, since: float | None, now: float
    ) -> bool:
        """Tell whether a worker is gone that had a task in its hands.

        A worker that no worker event has told of is not lost: it may run without heartbeats.

        Args:
            pid: of the process that had it, if that is known.
            since: when that process was last heard of with the task, epoch seconds on the worker's clock.
        """
        key = (cluster, hostname)
        known = self._known.get(key)
        if known is None:
            return hash(key) in self._forgotten
        if pid is not None:
            process = known.processes.get(pid)
            if process is not None:
                return not known.lives(process, now)
            online = known.worker.online
            if online is not None and since is not None and since < online:
                return True  # a process that we have not heard of, before this one
        return not known.is_alive(now)

    def is_stale(self, task: Task, now: float) -> bool:
        """Tell whether a task runs, as far as is known, at a worker that is gone."""
        if not task.is_running or task.worker is None:
            return False
        cluster = task.cluster if self._has_clusters and type(task.cluster) is str else None
        return self.is_lost(task.worker, task.pid, cluster, task.timestamp, now)

    def _add(self, key: _Key, now: float) -> _Known | None:
        cluster, hostname = key
        if not 0 < len(hostname) <= MAX_HOSTNAME_CHARACTERS or is_client(hostname):
            return None
        while self._known:
            oldest = next(iter(self._known))
            if len(self._known) < MAX_WORKERS and not self._known[oldest].is_forgettable(now):
                break
            self._forget(oldest, now)
        self._forgotten.pop(hash(key), None)
        known = self._known[key] = _Known(
            Worker(hostname, cluster=msgspec.UNSET if cluster is None else cluster)
        )
        return known

    def _forget(self, key: _Key, now: float) -> None:
        if self._known.pop(key).is_alive(now):
            return  # it had to make room
        self._forgotten[hash(key)] = None
        if len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def _take(self, known: _Known, event: Event, now: float) -> None:
        """Take a worker event in."""
        worker, event_type = known.worker, event["type"]
        pid, timestamp = event.get("pid"), event.get("timestamp")
        stamp = float(timestamp) if is_number(timestamp) else worker.timestamp or 0.0
        process = known.process(pid if is_number(pid) and type(pid) is int else None)
        if event_type == "worker-offline":
            process.offline_stamp = max(stamp, process.offline_stamp)
            worker.offline = max(stamp, worker.offline or 0.0)
        else:
            process.heard_at = now
            process.live_stamp = max(stamp, process.live_stamp)
            if event_type == "worker-online":
                worker.online = max(stamp, worker.online or 0.0)
        if worker.timestamp is None or stamp >= worker.timestamp:
            worker.timestamp = stamp
            _describe(worker, event)


def _describe(worker: Worker, event: Event) -> None:
    """Take over what a worker event says; what it leaves out stays as it was."""
    if worker.pid != event.get("pid"):
        worker.active = worker.processed = worker.loadavg = None  # another process
    for field in _NUMBERS:
        if type(value := event.get(field)) is int and is_number(value):
            setattr(worker, field, value)
    for field in _TEXTS:
        if type(value := event.get(field)) is str:
            setattr(worker, field, value[:MAX_TEXT_CHARS])
    freq, loadavg = event.get("freq"), event.get("loadavg")
    # An answer to the `heartbeat` command has a freq that is not the worker's (celery/worker/control.py).
    if is_number(freq) and freq > 0 and ("active" in event or worker.freq is None):
        worker.freq = float(freq)
    if type(loadavg) is list and all(map(is_number, loadavg[:3])):
        worker.loadavg = [float(load) for load in loadavg[:3]]
