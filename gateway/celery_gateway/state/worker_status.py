"""The status of a worker, from the events of its processes.

A worker sends ``worker-online``, then ``worker-heartbeat`` every ``freq`` seconds, and ``worker-offline``
when it begins to stop; tasks under way then go on to their end. One that is killed sends nothing. Silence is
measured from arrival to arrival, never on the senders' clocks:

- ``online``: the last event, of any type, arrived within ``SILENT_FREQS`` heartbeats, at least
  ``SILENT_SECONDS``.
- ``stopping``: it has sent ``worker-offline``, and runs tasks.
- ``silent``: no event for longer. It may be busy (a gevent worker in a loop) or dead.
- ``offline``: it has stopped, or its process is gone.
- ``unknown``: the gateway is not connected to its broker.

A process is taken for gone when

- it is silent, and another process of its hostname has come up;
- it is silent for ``gone_seconds``, or stopping for ``STOPPING_SECONDS``;
- it begins another life (``worker_table``).

A worker without heartbeats is never silent. Pure.
"""

from collections import OrderedDict
from math import inf

import msgspec

from celery_gateway.state.process import Process
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.worker import Worker, WorkerStatus

SILENT_SECONDS = 15.0
SILENT_FREQS = 3
STOPPING_SECONDS = 3600.0
"""A warm shutdown has no time limit of its own; process managers usually set one."""
MAX_FREQ_SECONDS = 3600.0
"""Of a worker that reports a longer one: otherwise it could never be silent."""
FORGET_SECONDS = 3600.0
"""After this time without an event, a worker that runs no task is removed from the table."""

_WORKER_BYTES = 1_150
_PROCESS_BYTES = 730
"""The size of a worker and of a process without texts, with their places in the table. (Measured.)"""

WorkerKey = tuple[str | None, str]
"""The cluster, if there are several, and the hostname of a worker."""


class WorkerEntry:
    """A worker in the table, and its processes.

    Attributes:
        last_event_at: when its last event arrived.
        processes: by pid, which is ``None`` where events have none; the one that came up last is the last.
        current: the process whose event came last.
        size_bytes: the size of the entry, as ``WorkerTable`` counts it.
    """

    __slots__ = ("key", "worker", "last_event_at", "processes", "current", "size_bytes")

    def __init__(self, key: WorkerKey) -> None:
        cluster, hostname = key
        self.key = key
        self.worker = Worker(hostname, cluster=msgspec.UNSET if cluster is None else cluster)
        self.last_event_at = 0.0
        self.processes: OrderedDict[int | None, Process] = OrderedDict()
        self.current: Process | None = None
        self.size_bytes = 0

    @property
    def silent_seconds(self) -> float:
        """After how many seconds without an event the worker is silent."""
        return max(SILENT_SECONDS, SILENT_FREQS * min(self.worker.freq or 0.0, MAX_FREQ_SECONDS))

    @property
    def sends_task_events(self) -> bool | None:
        """Whether the process that the record shows sends task events; ``None``: not known."""
        process = self.processes.get(self.worker.pid)
        return None if process is None else process.evidence.sends

    def on_gap(self) -> bool:
        """Record that events may have been lost; return whether ``sends_task_events`` may have changed."""
        return any([process.evidence.restart() for process in self.processes.values()])

    def is_forgettable(self, now: float) -> bool:
        """Return whether the worker may be removed from the table."""
        return now - self.last_event_at > FORGET_SECONDS and not any(
            process.assigned and process.gone_at is None for process in self.processes.values()
        )

    def measure(self) -> int:
        """Return the size of the entry in bytes, by estimate."""
        worker = self.worker
        size_bytes = _WORKER_BYTES + _PROCESS_BYTES * len(self.processes) + text_bytes(worker.hostname)
        for text in (worker.sw_ident, worker.sw_ver, worker.sw_sys):
            size_bytes += text_bytes(text)
        return size_bytes

    def gone_after(self, process: Process, gone_seconds: float) -> tuple[float, str]:
        """Return how many seconds of silence show that a process is gone, and the reason in words."""
        if process.stopping_at is not None:
            return STOPPING_SECONDS, "its worker began to stop, and has been silent for"
        if process.is_replaced:
            # Without heartbeats silence means little.
            limit_seconds = self.silent_seconds if self.worker.heartbeats else STOPPING_SECONDS
            return limit_seconds, "another process of its worker has come up, and it has been silent for"
        return gone_seconds if self.worker.heartbeats else inf, "its worker has been silent for"

    def status(self, now: float, away_since: float | None) -> tuple[WorkerStatus, float, bool]:
        """Return the worker's status, since when on the clock of ``now``, and whether it is alive.

        Args:
            away_since: since when the gateway has been disconnected from the broker; ``None`` if it is not.
        """
        at = now if away_since is None else away_since
        limit = self.silent_seconds if self.worker.heartbeats else FORGET_SECONDS
        if len(self.processes) == 1 and away_since is None:  # as below, for almost all
            (process,) = self.processes.values()
            if process.gone_at is None and process.stopping_at is None:
                if now - process.last_event_at <= limit:
                    return "online", process.since, True
                return "silent", process.last_event_at, False
        living = [process for process in self.processes.values() if process.gone_at is None]
        online = [p for p in living if p.stopping_at is None and at - p.last_event_at <= limit]
        stopping = [p for p in living if p.stopping_at is not None and p.is_running]
        silent = [p for p in living if p.stopping_at is None]
        status: WorkerStatus = "offline"
        if online:
            status, since = "online", min(process.since for process in online)
        elif stopping:
            status, since = "stopping", max(process.stopping_at or 0.0 for process in stopping)
        elif silent:
            status, since = "silent", max(process.last_event_at for process in silent)
        else:
            since = max(p.gone_at or p.stopping_at or p.last_event_at for p in self.processes.values())
        is_alive = status in ("online", "stopping")
        return ("unknown", away_since, is_alive) if away_since is not None else (status, since, is_alive)
