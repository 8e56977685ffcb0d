"""The attempts of a task, and which of them an event belongs to.

A task has runs, and a run has attempts. An attempt is one process's work on one message. The clocks of two
hosts are never compared:

- The first event of a process for a uuid (and, in ``task-received``, its ``retries``) opens an attempt. The
  events of that process belong to it, ordered by that process's own counter (``clock``) or time.
- Attempts are ordered by run, then by ``retries``, then by the arrival of their first event.
- A ``task-sent`` with more retries announces the next attempt. One whose ``retries`` the run has been sent
  already opens a new run. A run that was not sent yet takes it as its own, however late it comes.
- A run also ends with SUCCESS, FAILURE or REVOKED: what a worker begins after that is a new run.

The task is in the state of its last attempt that a worker took up (``shown``); an announced retry waits in
the state of the attempt before it. At most ``MAX_ATTEMPTS`` are kept. Pure.
"""

from collections.abc import Iterator

import msgspec

from gateway.process import Process
from gateway.state import ATTEMPT_ENDED_STATES, NOT_HELD_STATES, READY_STATES

MAX_ATTEMPTS = 10
LATE_SENT_SECONDS = 600.0
"""How late a client's ``task-sent`` can be: later, it is that of another run."""
LATE_RESENT_SECONDS = 3.0
"""The same where the run has one already: after ``replace()`` it can be late, and only time tells the two."""

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
    def is_waiting(self) -> bool:
        """True if its process has received it, and was not seen to begin it."""
        return self.started is None and self.state not in NOT_HELD_STATES

    def is_by(self, process: Process | None) -> bool:
        """Return whether a process works on it; ``None`` is one of which nothing is known."""
        if self.process is None or process is None:
            return self.process is process
        return self.process is process or self.process.key == process.key

    def precedes(self, clock: int | None, stamp: float | None) -> bool:
        """Return whether an event of the same process is younger than all that are known of it."""
        if clock is not None and self.clock is not None and clock != self.clock:
            return clock > self.clock
        return stamp is None or self.stamp is None or stamp > self.stamp


class Told(msgspec.Struct, gc=False):
    """What an event says of itself: its type, its place in its process's order, and when it arrived.

    ``retries`` is ``None`` where the type does not say, or what it says cannot be. ``is_whole``: it may be
    the only event of its attempt, as the ``task-revoked`` of a worker that discards a message.
    """

    type: str
    retries: int | None
    stamp: float | None
    clock: int | None
    process: Process | None
    now: float
    is_whole: bool


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

    def find(
        self,
        type: str,
        retries: int | None,
        stamp: float | None,
        clock: int | None,
        process: Process | None,
        now: float,
        is_whole: bool = False,
    ) -> tuple[Attempt, bool]:
        """Return the attempt that one of Celery's own task events belongs to; opens it where it is new.

        The arguments are those of ``Told``.

        Returns:
            The attempt, and whether the event is news: not where it came before, or is of an attempt that
            is not kept any more.
        """
        last = self.last
        if last is not None and last.previous is None and process is not None:
            # Nearly all events; the same as below, at once.
            if last.process is None:
                if type == "task-received" and last.state == "PENDING" and last.retries == retries:
                    return self._claim(last, process), True
            elif last.process is process:
                if type == "task-started":
                    if last.state == "RECEIVED":
                        return last, True
                elif type not in _BEGINNINGS and last.state not in NOT_HELD_STATES:
                    return last, True
        told = Told(type, retries, stamp, clock, process, now, is_whole)
        if type == "task-sent":
            return self._of_sent(told)
        if type == "task-received":
            return self._of_received(told)
        if type == "task-started":
            return self._of_started(told)
        return self._of_end(told)

    def of_custom(self, process: Process | None, hostname: str | None, now: float) -> Attempt:
        """Return the attempt that a custom event belongs to; opens the first one.

        Args:
            process: the worker's main process; the event itself comes from one of its children.
            hostname: of the worker; ``None`` if it comes from a client.
        """
        shown, last = self.shown, self.last
        if last is None:
            return self._open(Told("", None, None, None, process, now, False))
        if hostname is not None:
            kept = self.kept()
            theirs = [a for a in kept if a.process is not None and a.process.hostname == hostname]
            running = [a for a in theirs if a.started is not None and a.state not in ATTEMPT_ENDED_STATES]
            if theirs:
                return (_not_superseded(running, kept) or theirs)[-1]
            if last.process is None and last.state not in ATTEMPT_ENDED_STATES:
                return self._claim(last, process)
        return shown or last

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

    def _of_sent(self, told: Told) -> tuple[Attempt, bool]:
        last, stamp = self.last, told.stamp
        if last is None:
            return self._announce(told, 0), True
        retries = last.retries if told.retries is None else told.retries
        kept = self.kept()
        for attempt in kept:
            if attempt.sent == stamp is not None and attempt.retries == retries:
                return attempt, False
        if retries > last.retries:
            if (
                last.ended is not None
                and last.received is None
                and last.sent is None
                and self._is_new(last, told)
            ):
                last.retries = retries  # a worker has discarded this message, and did not say its retries
                return last, True
            return self._announce(told, last.run), True
        same = [a for a in kept if a.run == last.run and a.retries == retries]
        unsent = [a for a in same if a.sent is None]
        is_sent = len(unsent) < len(same)
        if unsent:
            own = unsent[-1] if is_sent else unsent[0]
            if told.now - own.opened_at <= (LATE_RESENT_SECONDS if is_sent else LATE_SENT_SECONDS):
                return own, True
        for attempt in reversed(kept):  # the words of clients can come in another order than the messages
            if attempt.retries == retries and attempt.sent is None and self._is_new(attempt, told):
                return attempt, True
        if not same and not self._has_ended_before(told):
            return kept[0], False  # of a message before those that are known
        return self._announce(told, last.run + 1), True

    def _of_received(self, told: Told) -> tuple[Attempt, bool]:
        last, process = self.last, told.process
        retries = told.retries
        if retries is None:
            retries = 0 if last is None else last.retries
        if last is None:
            return self._open(told, retries), True
        kept = self.kept()
        mine = [attempt for attempt in reversed(kept) if attempt.is_by(process)]
        for attempt in mine:
            if attempt.received == told.stamp is not None:
                return attempt, False
        for attempt in reversed(kept):
            is_free = attempt.process is None and attempt.ended is None
            if is_free and attempt.run == last.run and attempt.retries == retries:
                return self._claim(attempt, process), True
        for attempt in mine:
            if not attempt.precedes(told.clock, told.stamp):
                # Late; the retries of an attempt that was heard of by its end were a guess.
                is_own = attempt.retries == retries or len(kept) == 1
                if attempt.received is None and is_own:
                    attempt.retries = retries
                    attempt.number = max(attempt.number, retries + 1)
                    return attempt, True
                if is_own:
                    return attempt, False
            elif attempt is last and attempt.retries == retries and attempt.is_waiting:
                return attempt, True  # prefetched again after its worker has lost its broker
        if retries < last.retries and not self._has_ended_before(told, retries):
            return self._insert(told, retries), True
        return self._open(told, retries), True

    def _of_started(self, told: Told) -> tuple[Attempt, bool]:
        last, process = self.last, told.process
        if last is not None:
            kept = self.kept()
            mine = [attempt for attempt in kept if attempt.is_by(process)]
            for attempt in mine:
                if attempt.started == told.stamp is not None:
                    return attempt, False
            unstarted = [attempt for attempt in mine if attempt.started is None]
            waiting = [attempt for attempt in unstarted if attempt.state not in ATTEMPT_ENDED_STATES]
            if waiting:
                return _first_waiting(waiting, kept), True
            for attempt in reversed(unstarted):
                if not attempt.precedes(told.clock, told.stamp):
                    return attempt, True
            if mine and not mine[-1].precedes(told.clock, told.stamp):
                return mine[-1], False
        if last is not None and last.process is None and last.ended is None:
            return self._claim(last, process), True
        return self._open(told), True

    def _of_end(self, told: Told) -> tuple[Attempt, bool]:
        last, process = self.last, told.process
        if last is None:
            return self._open(told), True
        kept = self.kept()
        mine = [attempt for attempt in kept if attempt.is_by(process)]
        for attempt in mine:
            if attempt.ended == told.stamp is not None:
                return attempt, False
        under_way = [attempt for attempt in mine if attempt.state not in ATTEMPT_ENDED_STATES]
        is_free = last.process is None and last.ended is None
        # A worker discards a message before it begins it.
        is_other = told.is_whole and (is_free or last not in under_way)
        if under_way and not (is_other and all(a.started is not None for a in under_way)):
            return _ended_one(under_way, kept, told.type), True
        if mine and (told.type in _ENDS_SAID_AGAIN or not mine[-1].precedes(told.clock, told.stamp)):
            return mine[-1], True
        if is_free:
            return self._claim(last, process), True
        if mine and not told.is_whole and mine[-1].state not in _GOES_ON:
            return mine[-1], True
        if mine or told.is_whole or last.state in _GOES_ON:
            return self._open(told), True
        return self._insert(told, last.retries), True  # it began before what is known

    def _has_ended_before(self, told: Told, retries: int | None = None) -> bool:
        """Return whether the last run is over, so that what comes cannot be late and of that run."""
        last, shown = self.last, self.shown
        assert last is not None
        if shown is None or shown.state not in READY_STATES or shown.run != last.run:
            return False
        is_known = any(a.run == last.run and a.retries == retries and a.is_heard for a in self.kept())
        return is_known or not self._is_new(shown, told)

    def _is_new(self, attempt: Attempt, told: Told) -> bool:
        """Return whether a client's word of an attempt that has no other one may come as late as this."""
        return told.now - attempt.opened_at <= LATE_RESENT_SECONDS

    def _announce(self, told: Told, run: int) -> Attempt:
        """Append an attempt that no worker has taken up yet."""
        return self._append(told, told.retries or 0, run, None)

    def _open(self, told: Told, retries: int | None = None) -> Attempt:
        """Append an attempt that a worker has taken up."""
        last = self.last
        if last is None:
            return self._append(told, retries or 0, 0, told.process)
        shown = self.shown
        is_over = shown is not None and shown.run == last.run and shown.state in READY_STATES
        if retries is None:
            retries = 0 if is_over else last.retries + (last.state == "RETRY")
        return self._append(told, retries, last.run + is_over, told.process)

    def _append(self, told: Told, retries: int, run: int, process: Process | None) -> Attempt:
        last = self.last
        if last is not None and last.run == run:
            number = last.number + max(1, retries - last.retries)
        else:
            number = 1 if run else retries + 1  # begun and retried so often before we listened
        attempt = self.last = Attempt(number, run, retries, told.now, last, process)
        if last is not None and last.previous is not None:
            self._drop_first()
        return attempt

    def _insert(self, told: Told, retries: int) -> Attempt:
        """Insert an attempt that is heard of only now, before those of its run with more retries.

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
        attempt = Attempt(number, after.run, retries, told.now, after.previous, told.process)
        after.previous = attempt
        self._drop_first()
        return attempt

    def _claim(self, attempt: Attempt, process: Process | None) -> Attempt:
        attempt.process = process
        attempt.clock = attempt.stamp = None
        if attempt.state == "PENDING":
            attempt.state = None  # a worker has it
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


def _not_superseded(attempts: list[Attempt], kept: list[Attempt], *, by_runs: bool = True) -> list[Attempt]:
    """Return attempts without those that have been begun again since.

    Such a one has replaced itself, or its worker gave it up with the connection to the broker.

    Args:
        by_runs: also those after which another run has begun.
    """
    return [
        attempt
        for number, attempt in enumerate(kept, 1)
        if attempt in attempts
        and not any(
            later.started is not None
            and (
                (by_runs and later.run > attempt.run)
                or (later.run == attempt.run and later.retries == attempt.retries)
            )
            for later in kept[number:]
        )
    ]


def _first_waiting(waiting: list[Attempt], kept: list[Attempt]) -> Attempt:
    """Return which of a process's attempts that it has not begun a start is of.

    The first one of the last run; of several at one message the last: those before were given up with the
    connection to the broker.
    """
    left = _not_superseded(waiting, kept) or waiting
    first = min((attempt for attempt in left if attempt.run == left[-1].run), key=lambda a: a.retries)
    return next(a for a in reversed(left) if (a.run, a.retries) == (first.run, first.retries))


def _ended_one(under_way: list[Attempt], kept: list[Attempt], type: str) -> Attempt:
    """Return which of a process's attempts, of which none has ended, an end is of."""
    if type == "task-revoked":
        return under_way[-1]
    under_way = _not_superseded(under_way, kept, by_runs=type != "task-retried") or under_way
    # One that a message with more retries follows can only have been retried.
    followed = [
        attempt
        for attempt in under_way
        if any(a.run == attempt.run and a.retries > attempt.retries for a in kept)
    ]
    if type == "task-retried":
        candidates = [a for a in followed if a.retries == followed[0].retries] if followed else under_way
    else:
        candidates = [attempt for attempt in under_way if attempt not in followed] or under_way
    begun = [attempt for attempt in candidates if attempt.started is not None]
    return (begun or candidates)[-1]


_BEGINNINGS = frozenset({"task-sent", "task-received", "task-started"})
_GOES_ON = frozenset({"RETRY", "CANCELLED", "REJECTED", "LOST"})
"""States of an attempt after which another one is to be expected."""
_ENDS_SAID_AGAIN = frozenset({"task-rejected", "task-cancelled", "task-retried"})
"""Ends that, after an attempt of the process has ended, are of that attempt."""
