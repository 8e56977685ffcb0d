"""Which attempt of a task an event belongs to. The clocks of two hosts are never compared:

- The first event of a process for a uuid (and, in ``task-received``, its ``retries``) opens an attempt. The
  events of that process belong to it, ordered by that process's own counter (``clock``) or time.
- A ``task-sent`` with more retries announces the next attempt. One whose ``retries`` the run has been sent
  already opens a new run. A run that was not sent yet takes it as its own, however late it comes.
- A run also ends with SUCCESS, FAILURE or REVOKED: what a worker begins after that is a new run.
- Between processes the order of arrival counts. An attempt followed by a message with more retries was
  retried.

Pure.
"""

import msgspec

from gateway.attempt import Attempt, Attempts
from gateway.process import Process
from gateway.state import ATTEMPT_ENDED_STATES, NOT_HELD_STATES

LATE_SENT_SECONDS = 600.0
"""How late a client's ``task-sent`` can be: later, it is that of another run."""
LATE_RESENT_SECONDS = 3.0
"""The same where the run has one already: after ``replace()`` it can be late, and only time tells the two."""

_BEGINNINGS = frozenset({"task-sent", "task-received", "task-started"})
_GOES_ON = frozenset({"RETRY", "CANCELLED", "REJECTED", "LOST"})
"""States of an attempt after which another one is to be expected."""
_ENDS_SAID_AGAIN = frozenset({"task-rejected", "task-cancelled", "task-retried"})
"""Ends that, after an attempt of the process has ended, are of that attempt."""


class Arrival(msgspec.Struct, gc=False):
    """An event as it arrives.

    Attributes:
        retries: ``None`` where its type has none, or where the value is not valid.
        stamp, clock: its time and counter, the place in its process's order.
        process: the worker's main process that it is from; ``None`` for a client's.
        now: when it arrived, on a clock that only goes forward.
        is_discard: a worker may send it for a message that it has not begun: ``task-revoked``.
    """

    type: str
    retries: int | None
    stamp: float | None
    clock: int | None
    process: Process | None
    now: float
    is_discard: bool


def find(
    attempts: Attempts,
    type: str,
    retries: int | None,
    stamp: float | None,
    clock: int | None,
    process: Process | None,
    now: float,
    is_discard: bool = False,
) -> tuple[Attempt, bool]:
    """Return the attempt that one of Celery's own task events belongs to; opens it where it is new.

    The arguments are those of ``Arrival``.

    Returns:
        The attempt, and whether the event is news: not where it came before, or is of an attempt that
        is not kept any more.
    """
    last = attempts.last
    if last is None:
        by = None if type == "task-sent" else process
        return attempts.append(0, retries or 0, by, now), True
    if last.previous is None and process is not None:
        # Nearly all events; the same as below, at once.
        if last.process is None:
            if type == "task-received" and last.state == "PENDING" and last.retries == retries:
                last.claim(process)
                return last, True
        elif last.process is process:
            if type == "task-started":
                if last.state == "RECEIVED":
                    return last, True
            elif type not in _BEGINNINGS and last.state not in NOT_HELD_STATES:
                return last, True
    arrival = Arrival(type, retries, stamp, clock, process, now, is_discard)
    if type == "task-sent":
        return _of_sent(attempts, last, arrival)
    if type == "task-received":
        return _of_received(attempts, last, arrival)
    if type == "task-started":
        return _of_started(attempts, last, arrival)
    return _of_end(attempts, last, arrival)


def of_custom(attempts: Attempts, process: Process | None, hostname: str | None, now: float) -> Attempt:
    """Return the attempt that a custom event belongs to; opens the first one.

    Args:
        process: the worker's main process; the event itself comes from one of its children.
        hostname: of the worker; ``None`` if it comes from a client.
    """
    shown, last = attempts.shown, attempts.last
    if last is None:
        return attempts.append(0, 0, process, now)
    if hostname is not None:
        kept = attempts.kept()
        theirs = [a for a in kept if a.process is not None and a.process.hostname == hostname]
        running = [a for a in theirs if a.started is not None and a.state not in ATTEMPT_ENDED_STATES]
        if theirs:
            return (_not_superseded(running, kept) or theirs)[-1]
        if last.process is None and last.state not in ATTEMPT_ENDED_STATES:
            last.claim(process)
            return last
    return shown or last


def _of_sent(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    stamp = arrival.stamp
    retries = last.retries if arrival.retries is None else arrival.retries
    kept = attempts.kept()
    for attempt in kept:
        if attempt.sent == stamp is not None and attempt.retries == retries:
            return attempt, False
    if retries > last.retries:
        if last.ended is not None and last.received is None and last.sent is None and _is_new(last, arrival):
            last.retries = retries  # a worker has discarded this message, and did not say its retries
            return last, True
        return _announce(attempts, arrival, last.run), True
    same = [a for a in kept if a.run == last.run and a.retries == retries]
    unsent = [a for a in same if a.sent is None]
    is_sent = len(unsent) < len(same)
    if unsent:
        own = unsent[-1] if is_sent else unsent[0]
        if arrival.now - own.opened_at <= (LATE_RESENT_SECONDS if is_sent else LATE_SENT_SECONDS):
            return own, True
    for attempt in reversed(kept):  # the words of clients can come in another order than the messages
        if attempt.retries == retries and attempt.sent is None and _is_new(attempt, arrival):
            return attempt, True
    if not same and not _has_ended_before(attempts, arrival):
        return kept[0], False  # of a message before those that are known
    return _announce(attempts, arrival, last.run + 1), True


def _of_received(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    process = arrival.process
    retries = last.retries if arrival.retries is None else arrival.retries
    kept = attempts.kept()
    mine = [attempt for attempt in reversed(kept) if attempt.is_by(process)]
    for attempt in mine:
        if attempt.received == arrival.stamp is not None:
            return attempt, False
    for attempt in reversed(kept):
        if attempt.is_free and attempt.run == last.run and attempt.retries == retries:
            attempt.claim(process)
            return attempt, True
    for attempt in mine:
        if not attempt.precedes(arrival.clock, arrival.stamp):
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
    if retries < last.retries and not _has_ended_before(attempts, arrival, retries):
        return attempts.insert(retries, arrival.process, arrival.now), True
    return _open(attempts, last, arrival, retries), True


def _of_started(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    kept = attempts.kept()
    mine = [attempt for attempt in kept if attempt.is_by(arrival.process)]
    for attempt in mine:
        if attempt.started == arrival.stamp is not None:
            return attempt, False
    unstarted = [attempt for attempt in mine if attempt.started is None]
    waiting = [attempt for attempt in unstarted if attempt.state not in ATTEMPT_ENDED_STATES]
    if waiting:
        return _first_waiting(waiting, kept), True
    for attempt in reversed(unstarted):
        if not attempt.precedes(arrival.clock, arrival.stamp):
            return attempt, True
    if mine and not mine[-1].precedes(arrival.clock, arrival.stamp):
        return mine[-1], False
    if last.is_free:
        last.claim(arrival.process)
        return last, True
    return _open(attempts, last, arrival), True


def _of_end(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    kept = attempts.kept()
    mine = [attempt for attempt in kept if attempt.is_by(arrival.process)]
    for attempt in mine:
        if attempt.ended == arrival.stamp is not None:
            return attempt, False
    under_way = [attempt for attempt in mine if attempt.state not in ATTEMPT_ENDED_STATES]
    # A worker discards a message before it begins it.
    is_other = arrival.is_discard and (last.is_free or last not in under_way)
    if under_way and not (is_other and all(a.started is not None for a in under_way)):
        return _ended_one(under_way, kept, arrival.type), True
    if mine and (arrival.type in _ENDS_SAID_AGAIN or not mine[-1].precedes(arrival.clock, arrival.stamp)):
        return mine[-1], True
    if last.is_free:
        last.claim(arrival.process)
        return last, True
    if mine and not arrival.is_discard and mine[-1].state not in _GOES_ON:
        return mine[-1], True
    if mine or arrival.is_discard or last.state in _GOES_ON:
        return _open(attempts, last, arrival), True
    return attempts.insert(last.retries, arrival.process, arrival.now), True  # it began before what is known


def _has_ended_before(attempts: Attempts, arrival: Arrival, retries: int | None = None) -> bool:
    """Return whether the last run is over, so that what comes cannot be late and of that run."""
    shown = attempts.shown
    if shown is None or not attempts.is_over:
        return False
    is_known = any(a.run == shown.run and a.retries == retries and a.is_heard for a in attempts.kept())
    return is_known or not _is_new(shown, arrival)


def _is_new(attempt: Attempt, arrival: Arrival) -> bool:
    """Return whether a ``task-sent`` event may still arrive for this attempt."""
    return arrival.now - attempt.opened_at <= LATE_RESENT_SECONDS


def _announce(attempts: Attempts, arrival: Arrival, run: int) -> Attempt:
    return attempts.append(run, arrival.retries or 0, None, arrival.now)


def _open(attempts: Attempts, last: Attempt, arrival: Arrival, retries: int | None = None) -> Attempt:
    """Append an attempt that a worker has taken up; without ``retries`` they are a guess."""
    if retries is None:
        retries = 0 if attempts.is_over else last.retries + (last.state == "RETRY")
    return attempts.append(last.run + attempts.is_over, retries, arrival.process, arrival.now)


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
