"""The attempts of a task, in order. An attempt is one process's work on one message.

A task has runs, and a run has attempts. Attempts are ordered by run, then by ``retries``, then by the arrival
of their first event; ``matching`` decides which one an event belongs to. The task is in the state of its last
attempt that a worker took up (``shown``); an announced retry waits in the state of the attempt before it. At
most ``MAX_ATTEMPTS`` are kept. Pure.
"""

from collections.abc import Iterator

import msgspec

from gateway.process import Process
from gateway.state import NOT_HELD_STATES, READY_STATES

MAX_ATTEMPTS = 10

_UNHEARD_STATES = frozenset({None, "PENDING"})


class Attempt(msgspec.Struct, gc=False, eq=False):  # a process leads back to it only while it holds it
    """One process's work on one message. Times are epoch seconds on the sender's clock.

    Attributes:
        number: counts the attempts of its run from 1, those before the gateway listened included.
        run: counts the runs of the task.
        opened_at: when its first event arrived, on the clock of ``now``.
        previous: the attempt before it.
        process: who works on it; ``None`` while it is only announced, or where that is not known.
        clock, stamp: the counter and the time of the process's youngest event.
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

    @property
    def is_heard(self) -> bool:
        """True if a worker has taken it up."""
        return self.process is not None or self.state not in _UNHEARD_STATES

    @property
    def is_free(self) -> bool:
        """True if it has not ended, and no process is known to have it."""
        return self.process is None and self.ended is None

    @property
    def is_waiting(self) -> bool:
        """True if its process has received it, and was not seen to begin it."""
        return self.started is None and self.state not in NOT_HELD_STATES

    def is_by(self, process: Process | None) -> bool:
        """Return whether a process works on it; ``None`` is one of which nothing is known."""
        if self.process is None or process is None:
            return self.process is process
        return self.process is process or self.process.key == process.key

    def claim(self, process: Process | None) -> None:
        """Give an attempt that is only announced, or whose process is not known, to a process."""
        self.process = process
        self.clock = self.stamp = None
        if self.state == "PENDING":
            self.state = None  # a worker has it

    def precedes(self, clock: int | None, stamp: float | None) -> bool:
        """Return whether an event of the same process is younger than all that are known of it."""
        if clock is not None and self.clock is not None and clock != self.clock:
            return clock > self.clock
        return stamp is None or self.stamp is None or stamp > self.stamp


class Attempts:
    """The attempts of a task that are kept.

    Attributes:
        last: the last one in order.
        shown: the one whose state the task has.
        earlier_bytes: what those before it were last estimated to take.
    """

    __slots__ = ("last", "shown", "earlier_bytes")

    def __init__(self) -> None:
        self.last: Attempt | None = None
        self.shown: Attempt | None = None
        self.earlier_bytes = 0

    def kept(self) -> list[Attempt]:
        """Return them, the first one first."""
        found = []
        attempt = self.last
        while attempt is not None:
            found.append(attempt)
            attempt = attempt.previous
        found.reverse()
        return found

    def tries(self) -> list[Attempt]:
        """Return those of the run that is shown, the first one first."""
        run = None if self.shown is None else self.shown.run
        return [attempt for attempt in self.kept() if attempt.run == run]

    @property
    def is_over(self) -> bool:
        """True if the last run has ended in SUCCESS, FAILURE or REVOKED."""
        last, shown = self.last, self.shown
        return (
            last is not None and shown is not None and shown.run == last.run and shown.state in READY_STATES
        )

    def append(self, run: int, retries: int, process: Process | None, now: float) -> Attempt:
        """Add the last attempt; one without a process is only announced."""
        last = self.last
        if last is not None and last.run == run:
            number = last.number + max(1, retries - last.retries)
        else:
            number = 1 if run else retries + 1  # begun and retried so often before we listened
        attempt = self.last = Attempt(number, run, retries, now, last, process)
        if last is not None and last.previous is not None:
            self._drop_first()
        return attempt

    def insert(self, retries: int, process: Process | None, now: float) -> Attempt:
        """Add an attempt that is heard of only now, before those of the last run with more retries.

        With the retries of the last one: right before that one.
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
        self._drop_first()
        return attempt

    def show(self) -> Attempt | None:
        """Find, and return, the attempt that is the task's now."""
        attempt = self.last
        while attempt is not None and not attempt.is_heard:
            if attempt.previous is None or attempt.previous.run != attempt.run:
                break
            attempt = attempt.previous
        self.shown = attempt
        return attempt

    def of_process(self, process: Process) -> Iterator[Attempt]:
        """Give the attempts that a process has in its hands."""
        for attempt in self.kept():
            if attempt.process is process and attempt.state not in NOT_HELD_STATES:
                yield attempt

    def hold(self, attempt: Attempt) -> None:
        """Record in whose hands an attempt is now, after its state has changed."""
        process = attempt.process
        if process is None:
            return
        if attempt.state not in NOT_HELD_STATES:
            process.held[self] = attempt.state != "RECEIVED" or process.held.get(self, False)
        elif attempt.previous is None and self.last is attempt:
            process.held.pop(self, None)
        elif self in process.held:
            running = [other.state != "RECEIVED" for other in self.of_process(process)]
            if running:
                process.held[self] = any(running)
            else:
                del process.held[self]

    def hand_over(self, process: Process, successor: Process) -> None:
        """Give the attempts to the next life of their process that must be its own."""
        for attempt in tuple(self.of_process(process)):
            clock, limit = attempt.clock, successor.clock
            is_possible = clock is None or limit is None or clock <= limit
            if is_possible and attempt.opened_at > process.trusted_at:
                attempt.process = successor
                self.hold(attempt)

    def release(self) -> None:
        """Take the task out of all hands: it is to be forgotten."""
        for attempt in self.kept():
            if attempt.process is not None:
                attempt.process.held.pop(self, None)

    def _drop_first(self) -> None:
        attempt = self.last
        for _ in range(MAX_ATTEMPTS - 1):
            if attempt is None:
                return
            attempt = attempt.previous
        if attempt is not None and attempt.previous is not None:
            dropped, attempt.previous = attempt.previous, None
            dropped.state = None
            self.hold(dropped)
            dropped.process = None
