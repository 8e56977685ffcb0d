"""A worker's process: one life of one pid under one node name.

Tasks and workers both refer to it: the events of a worker show whether its process lives, and a task's
attempt belongs to the process that works on it.

Another life of a process has begun when

- ``processed`` or ``clock`` in its worker events go back (``is_older``, ``least_processed``). For a heartbeat
  the next one decides: those of two workers with one name and pid return to the old values.
- its ``worker-online`` has ``processed`` below the number of tasks that it has been seen to start.
  ``worker-online`` alone is no sign: a worker that has lost its broker sends it, too.

Pure.
"""

from collections.abc import Hashable
from typing import NamedTuple

from celery_gateway.events.event import MAX_NUMBER, Event
from celery_gateway.state.task_event_evidence import TaskEventEvidence


class ProcessKey(NamedTuple):
    """The name of a process. ``life`` counts the processes with this hostname and pid, from 0."""

    cluster: str | None
    hostname: str
    pid: int | None
    life: int


class Process:
    """One life of a worker's process. Times are those of arrival, on the clock of ``now``.

    Attributes:
        key: its name; ``hostname`` and ``pid`` are also separate attributes.
        assigned: the tasks that it has received, and that have not ended; True if it has started one.
        starts: how many tasks it was seen to start.
        processed: how many tasks it has started, according to its last worker event.
        clock, stamp: the logical clock and the timestamp of its last worker event.
        trusted_at: when that arrived: until then it was this life.
        since: when its first event arrived.
        last_event_at: when its last event arrived.
        stopping_at: when its ``worker-offline`` arrived; ``None`` before.
        gone_at: when it was found to be gone; ``None`` before.
        is_replaced: another process of its hostname has come up since.
        is_counted: its size is counted with that of a task.
        timer: the time of its next check, and the number of the timer (``process_timers``).
        is_suspect: its last heartbeat had counters below those before: the next one decides.
        evidence: whether it sends task events.
    """

    __slots__ = (
        "key", "hostname", "pid", "assigned", "starts", "processed", "clock", "stamp", "trusted_at",
        "since", "last_event_at", "stopping_at", "gone_at", "timer", "is_counted", "is_replaced",
        "is_suspect", "evidence",
    )  # fmt: skip

    def __init__(self, key: ProcessKey, now: float) -> None:
        self.key = key
        self.hostname = key.hostname
        self.pid = key.pid
        self.assigned: dict[Hashable, bool] = {}
        self.starts = 0
        self.processed: int | None = None
        self.clock: int | None = None
        self.stamp: float | None = None
        self.trusted_at = now
        self.since = now
        self.last_event_at = now
        self.stopping_at: float | None = None
        self.gone_at: float | None = None
        self.timer: tuple[float, int] | None = None
        self.is_counted = False
        self.is_replaced = False
        self.is_suspect = False
        self.evidence = TaskEventEvidence()

    @property
    def is_running(self) -> bool:
        """True if it has started a task that has not ended."""
        return any(self.assigned.values())


class Gone(NamedTuple):
    """A process that is gone, and the reason in words.

    ``successor`` is its next life, if that has shown it; the last events before may be of the successor.
    """

    process: Process
    reason: str
    successor: Process | None = None


def is_older(
    process: Process, event: Event, processed: int | None, clock: int | None, stamp: float | None
) -> bool:
    """Return whether a worker event was sent before the last one of its process."""
    if clock is None or process.clock is None:
        return False
    if clock != process.clock:
        return clock < process.clock
    # The counter never stands still, but for the same event once more.
    is_new_life = event["type"] == "worker-online" and not processed and event.get("active") == 0
    return is_new_life and stamp != process.stamp


def least_processed(process: Process, event_type: str) -> int:
    """Return how many tasks a process must have begun by now, if it still is the same."""
    reported = process.processed or 0
    return max(reported, process.starts) if event_type == "worker-online" else reported


def count(value: object) -> int | None:
    """Return the value of a counter in an event; ``None`` if it is not valid."""
    return value if type(value) is int and -MAX_NUMBER < value < MAX_NUMBER else None
