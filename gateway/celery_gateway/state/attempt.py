"""The attempts of a task, in order. An attempt is one process's work on one message.

A task has runs, and a run has attempts.

- Attempts are ordered by run, then by ``retries``, then by the arrival of their first event.
- ``attempt_matching`` finds the attempt that an event belongs to.
- The current attempt is the last one that a worker took up. The task has its state. A retry that was only
  sent does not change it.
- At most ``MAX_ATTEMPTS`` are kept.

Pure.
"""

from collections.abc import Iterator

import msgspec

from celery_gateway.state.process import Process
from celery_gateway.state.transitions import READY_STATES, UNASSIGNED_STATES

MAX_ATTEMPTS = 10
MAX_MARKS_BYTES = 64

_NOT_TAKEN_STATES = frozenset({None, "PENDING"})


class Attempt(msgspec.Struct, gc=False, eq=False):  # a process refers to it only while it works on it
    """One process's work on one message. Times are epoch seconds on the sender's clock.

    Attributes:
        number: its number in its run, from 1, with those before the gateway was connected.
        run: the number of its run.
        opened_at: when its first event arrived, on the clock of ``now``.
        previous: the attempt before it.
        process: the process that works on it; ``None`` if it was only sent, or if the process is not known.
        clock, stamp: the counter and the time of the process's last event; the time is ``None`` if it does
            not decide about the order.
        counted: which of its events were counted (``activity``), one bit each.
        marks: the marks (``attempt_matching.mark``) of its newest events with the time of their arrival.
    """

    number: int
    run: int
    retries: int
    opened_at: float
    previous: "Attempt | None" = None
    process: Process | None = None
    state: str | None = None
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    eta: str | None = None
    exception: str | None = None
    clock: int | None = None
    stamp: float | None = None
    counted: int = 0
    marks: bytes = b""

    @property
    def has_worker(self) -> bool:
        """True if a worker has taken it up."""
        return self.process is not None or self.state not in _NOT_TAKEN_STATES

    @property
    def is_unclaimed(self) -> bool:
        """True if it has not ended, and its process is not known."""
        return self.process is None and self.ended is None

    @property
    def is_waiting(self) -> bool:
        """True if its process has received it, and has not started it."""
        return self.started is None and self.state not in UNASSIGNED_STATES

    def is_by(self, process: Process | None) -> bool:
        """Return whether a process works on it; ``None`` is the process of which no event is known."""
        if self.process is None or process is None:
            return self.process is process
        return self.process is process or self.process.key == process.key

    def is_by_life_of(self, process: Process | None) -> bool:
        """Return whether any life of a process works on it: an event may come again after a restart."""
        if self.process is None or process is None:
            return self.process is process
        return self.process is process or self.process.key[:3] == process.key[:3]

    def claim(self, process: Process | None) -> None:
        """Set the process of an attempt that was only sent, or whose process is not known."""
        self.process = process
        self.clock = self.stamp = None
        if self.state == "PENDING":
            self.state = None  # a worker has it

    def add_mark(self, mark: bytes) -> None:
        """Keep the mark of an event, and those of a few events before."""
        self.marks = (self.marks + mark)[-MAX_MARKS_BYTES:]

    def precedes(self, clock: int | None, stamp: float | None) -> bool:
        """Return whether an event of the same process is later than all its events before."""
        if clock is not None and self.clock is not None and clock != self.clock:
            return clock > self.clock
        return stamp is None or self.stamp is None or stamp > self.stamp


class Attempts:
    """The attempts of a task that are kept.

    Attributes:
        last: the last one in order.
        current: the last one that a worker took up.
        count: how many are kept.
        further_bytes: their size, by estimate, without the first one and its texts.
    """

    __slots__ = ("last", "current", "count", "further_bytes")

    def __init__(self) -> None:
        self.last: Attempt | None = None
        self.current: Attempt | None = None
        self.count = 0
        self.further_bytes = 0

    def kept(self) -> list[Attempt]:
        """Return the attempts that are kept, in order."""
        found = []
        attempt = self.last
        while attempt is not None:
            found.append(attempt)
            attempt = attempt.previous
        found.reverse()
        return found

    def current_run(self) -> list[Attempt]:
        """Return the attempts of the current run, in order."""
        run = None if self.current is None else self.current.run
        return [attempt for attempt in self.kept() if attempt.run == run]

    @property
    def is_over(self) -> bool:
        """True if the last run has ended in SUCCESS, FAILURE or REVOKED."""
        last, current = self.last, self.current
        return (
            last is not None
            and current is not None
            and current.run == last.run
            and current.state in READY_STATES
        )

    def append(self, run: int, retries: int, process: Process | None, now: float) -> Attempt:
        """Add the last attempt; one without a process was only sent."""
        last = self.last
        if last is not None and last.run == run:
            number = last.number + max(1, retries - last.retries)
        else:
            number = 1 if run else retries + 1  # begun and retried before the gateway was connected
        attempt = self.last = Attempt(number, run, retries, now, last, process)
        self.count += 1
        if last is not None and last.previous is not None:
            self._drop_first()
        return attempt

    def insert(self, retries: int, process: Process | None, now: float) -> Attempt:
        """Add an attempt whose first event is late, before those of the last run with more retries.

        With as many retries as the last one has: right before the last one.
        """
        after = self.last
        assert after is not None
        while (
            after.previous is not None
            and after.previous.run == after.run
            and after.previous.retries > retries
        ):
            after = after.previous
        number = max(0, min(retries + 1, after.number - 1))
        attempt = Attempt(number, after.run, retries, now, after.previous, process)
        after.previous = attempt
        self.count += 1
        self._drop_first()
        return attempt

    def update_current(self) -> Attempt | None:
        """Find the current attempt again, and return it."""
        attempt = self.last
        while attempt is not None and not attempt.has_worker:
            if attempt.previous is None or attempt.previous.run != attempt.run:
                break
            attempt = attempt.previous
        self.current = attempt
        return attempt

    def of_process(self, process: Process) -> Iterator[Attempt]:
        """Yield the attempts that a process works on."""
        for attempt in self.kept():
            if attempt.process is process and attempt.state not in UNASSIGNED_STATES:
                yield attempt

    def update_assignment(self, attempt: Attempt) -> None:
        """Record whether a process works on the task, after the state of an attempt has changed."""
        process = attempt.process
        if process is None:
            return
        if attempt.state not in UNASSIGNED_STATES:
            process.assigned[self] = attempt.state != "RECEIVED" or process.assigned.get(self, False)
        elif attempt.previous is None and self.last is attempt:
            process.assigned.pop(self, None)
        elif self in process.assigned:
            running = [other.state != "RECEIVED" for other in self.of_process(process)]
            if running:
                process.assigned[self] = any(running)
            else:
                del process.assigned[self]

    def transfer(self, process: Process, successor: Process) -> None:
        """Move the attempts that its next life must have begun to that process."""
        for attempt in tuple(self.of_process(process)):
            clock, limit = attempt.clock, successor.clock
            is_possible = clock is None or limit is None or clock <= limit
            if is_possible and attempt.opened_at > process.trusted_at:
                attempt.process = successor
                self.update_assignment(attempt)

    def unassign(self) -> None:
        """Remove the task from all processes: it is evicted."""
        for attempt in self.kept():
            if attempt.process is not None:
                attempt.process.assigned.pop(self, None)

    def _drop_first(self) -> None:
        attempt = self.last
        for _ in range(MAX_ATTEMPTS - 1):
            if attempt is None:
                return
            attempt = attempt.previous
        if attempt is not None and attempt.previous is not None:
            dropped, attempt.previous = attempt.previous, None
            self.count = MAX_ATTEMPTS
            dropped.state = None
            self.update_assignment(dropped)
            dropped.process = None
