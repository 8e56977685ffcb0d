"""Whether a worker's process sends task events (``celery worker -E``), from its events.

A worker event has the number of tasks that the process has started (``processed``). With ``-E`` each start is
an event, and a broker keeps the order of one sender. So if the number has grown and no task event has come,
the process sends none. Rules:

- True once a task event of the process has come.
- False if ``processed`` has grown from one worker event to a later one, no task event has come in between,
  and none comes until a worker event ``CONFIRM_SECONDS`` later: a shared log has events that wait for the
  name of their task after later ones. After True it takes ``DISABLED_SECONDS``: events can be switched off.
- Where events may be lost, or those of another process may be among them, the count begins again.

Only ``processed`` and the order of arrival count; clocks of workers do not. Pure.
"""

CONFIRM_SECONDS = 3.0
DISABLED_SECONDS = 60.0


class TaskEventEvidence:
    """What the events of one process show.

    Attributes:
        sends: whether it sends task events; ``None`` while that is not known.
        has_event: a task event has come since the last worker event. Further ones show nothing more.
    """

    __slots__ = ("sends", "has_event", "_processed", "_grown_at")

    def __init__(self) -> None:
        self.sends: bool | None = None
        self.has_event = False
        self._processed: int | None = None  # of the last worker event
        self._grown_at: float | None = None  # when the count had grown without an event; none has come since

    def on_task_event(self) -> bool:
        """Record a task event of the process itself; return whether ``sends`` has changed."""
        self.has_event, self._grown_at = True, None
        if self.sends:
            return False
        self.sends = True
        return True

    def on_worker_event(self, processed: int | None, now: float) -> bool:
        """Record a worker event; return whether ``sends`` has changed.

        Args:
            processed: how many tasks the process has started; ``None`` if the event does not have it.
            now: when it arrived, in seconds, on any clock that only goes forward.
        """
        if processed is None:
            return False
        before, self._processed = self._processed, processed
        has_event, self.has_event = self.has_event, False
        if self._grown_at is None:
            if before is not None and processed > before and not has_event:
                self._grown_at = now
            return False
        if self.sends is False or now - self._grown_at < (
            DISABLED_SECONDS if self.sends else CONFIRM_SECONDS
        ):
            return False
        self.sends = False
        return True

    def restart(self) -> bool:
        """Begin the count again: events may be lost, or may be those of another process.

        Returns:
            Whether ``sends`` has changed: False becomes ``None``, since the loss may be that of task events,
            or may be reported because they were switched on.
        """
        self._processed = self._grown_at = None
        if self.sends is not False:
            return False
        self.sends = None
        return True
