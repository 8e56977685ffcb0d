"""Events that wait for the name of their task.

- The events of one task wait together, in order, from the arrival of the first one on.
- They wait for ``JOIN_WAIT_SECONDS`` at most. Over ``MAX_WAITING_EVENTS`` or ``MAX_WAITING_BYTES`` those that
  have waited for longest are released first.

Pure.
"""

from collections import OrderedDict

from celery_gateway.events.event import Event, encode
from celery_gateway.state.process import Process

JOIN_WAIT_SECONDS = 1.0
"""Celery flushes a worker's events once a loop, so what names a task is at most a loop and a hop behind."""
MAX_WAITING_EVENTS = 10_000
MAX_WAITING_BYTES = 16 << 20

_EVENT_OVERHEAD_BYTES = 2_000

WaitingEvent = tuple[Event, Process | None]
"""An event, and the worker's main process that sent it."""


class _Waiting:
    """The events of one task."""

    __slots__ = ("deadline", "events", "size_bytes")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.events: list[WaitingEvent] = []
        self.size_bytes = 0


class JoinBuffer:
    """The events that wait, by the key of their task.

    Attributes:
        event_count: how many events wait.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()  # in the order of their deadlines
        self.event_count = 0
        self._bytes = 0

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    @property
    def is_full(self) -> bool:
        """True if more wait than may."""
        return self.event_count > MAX_WAITING_EVENTS or self._bytes > MAX_WAITING_BYTES

    @property
    def next_deadline(self) -> float | None:
        """The time until which the oldest events wait, on the clock of ``now``; ``None`` if none wait."""
        for waiting in self._waiting.values():
            return waiting.deadline
        return None

    def add(self, key: str, event: Event, process: Process | None, now: float) -> None:
        """Add an event after those of its task that wait already."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now + JOIN_WAIT_SECONDS)
        json = encode(event)
        # Its texts, and their UTF-8 forms, which may take four bytes a character and as many.
        size_bytes = _EVENT_OVERHEAD_BYTES + len(json) * (1 if json.isascii() else 5)
        waiting.events.append((event, process))
        waiting.size_bytes += size_bytes
        self.event_count += 1
        self._bytes += size_bytes

    def remove(self, key: str) -> list[WaitingEvent]:
        """Remove the events of a task, and return them."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return []
        self.event_count -= len(waiting.events)
        self._bytes -= waiting.size_bytes
        return waiting.events

    def oldest(self) -> str:
        """Return the key of the task whose events have waited for longest. There must be one."""
        return next(iter(self._waiting))

    def keys(self, cluster: str | None = None) -> list[str]:
        """Return the keys of all tasks that have events waiting; of a cluster, if one is given."""
        return [
            key
            for key, waiting in self._waiting.items()
            if cluster is None or waiting.events[0][0]["cluster"] == cluster
        ]
