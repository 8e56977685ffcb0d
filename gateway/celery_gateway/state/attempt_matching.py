"""Which attempt of a task an event belongs to.

- An event that arrives twice belongs to the attempt of the first time. Its time is that of the attempt. For
  an event whose time is replaced by its arrival, the attempt has a ``mark``.
- The first event of a process for a uuid (and, in ``task-received``, its ``retries``) opens an attempt. The
  events of that process belong to it, ordered by that process's own counter (``clock``) or time.
- A ``task-sent`` with more retries opens the next attempt. One whose ``retries`` were sent in this run before
  opens a new run. A run without a ``task-sent`` takes it, however late it arrives.
- A run also ends with SUCCESS, FAILURE or REVOKED: an attempt that begins after that is of a new run.
- Between processes the order of arrival counts: the clocks of two hosts are never compared. An attempt that
  is followed by a message with more retries was retried.

Pure.
"""

import msgspec

from celery_gateway.events.event import Event, is_number
from celery_gateway.events.event_types import LOST, STATE_OF_EVENT
from celery_gateway.state.attempt import Attempt, Attempts
from celery_gateway.state.process import Process
from celery_gateway.state.transitions import ATTEMPT_ENDED_STATES, UNASSIGNED_STATES

MAX_RETRIES = 1 << 31
LATE_SENT_SECONDS = 600.0
"""How late a client's ``task-sent`` can be; a later one is of another run."""
LATE_RESENT_SECONDS = 3.0
"""The same if the run has one already: after ``replace()`` it can be late, and only the time differs."""

_BEGINNINGS = frozenset({"task-sent", "task-received", "task-started"})
_TIMES = {"task-sent": "sent", "task-received": "received", "task-started": "started"}
_CONTINUED_STATES = frozenset({"RETRY", "CANCELLED", "REJECTED", "LOST"})
"""States of an attempt that another attempt follows."""
_REPEATED_ENDS = frozenset({"task-rejected", "task-cancelled", "task-retried"})
"""Ends that belong to the last attempt of the process even if it has ended."""


class Arrival(msgspec.Struct, gc=False):
    """An event as it arrives.

    Attributes:
        retries: ``None`` if its type has none, or if the value is not valid.
        stamp, clock: its time and counter, for the order of its process's events; ``None`` where the order of
            arrival counts.
        process: the worker's main process that sent it; ``None`` for a client.
        now: when it arrived, on a clock that only goes forward.
        is_discard: a worker may send it for a message that it has not started: ``task-revoked``.
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
    event: Event,
    stamp: float | None,
    clock: int | None,
    process: Process | None,
    now: float,
) -> tuple[Attempt, bool]:
    """Find the attempt that one of Celery's own task events belongs to, or open it.

    Args:
        stamp, clock, process, now: as in ``Arrival``.

    Returns:
        The attempt, and whether the event is new: ``False`` if it came before, or is of an attempt that is no
        longer kept.
    """
    event_type, retries = event["type"], event.get("retries")
    if type(retries) is not int or not 0 <= retries < MAX_RETRIES:
        retries = None
    last = attempts.last
    if last is None:
        by = None if event_type == "task-sent" else process
        return attempts.append(0, retries or 0, by, now), True
    if last.previous is None and process is not None:
        # Nearly all events; the result is the same as below.
        if last.process is None:
            if event_type == "task-received" and last.state == "PENDING" and last.retries == retries:
                last.claim(process)
                return last, True
        elif last.process is process:
            if event_type == "task-started":
                if last.state == "RECEIVED":
                    return last, True
            elif event_type not in _BEGINNINGS and last.state not in UNASSIGNED_STATES:
                return last, True
    for attempt in attempts.kept():
        if _is_known(attempt, event, retries, process):
            return attempt, False
    is_discard = event_type == "task-revoked" and event.get("terminated") is False
    arrival = Arrival(event_type, retries, stamp, clock, process, now, is_discard)
    return _FINDERS.get(event_type, _of_end)(attempts, last, arrival)


def mark(event: Event) -> bytes:
    """Return eight bytes by which an event is known again; none without a counter and a time."""
    clock, timestamp = event.get("clock"), event.get("timestamp")
    if not clock and not (is_number(timestamp) and timestamp > 0):
        return b""
    sender = event["type"], event.get("hostname"), event.get("pid")
    return hash(repr((sender, clock, timestamp))).to_bytes(8, "big", signed=True)


def find_of_custom(
    attempts: Attempts, process: Process | None, hostname: str | None, now: float
) -> tuple[Attempt, bool]:
    """Find the attempt that a custom event belongs to, or open the first one.

    Args:
        process: the worker's main process; the event itself comes from one of its children.
        hostname: of the worker; ``None`` if it comes from a client.

    Returns:
        The attempt, and whether the event may change it: a lost one is changed by Celery's own events only.
    """
    last = attempts.last
    if last is None:
        return attempts.append(0, 0, process, now), True
    attempt = attempts.current or last
    if hostname is not None:
        kept = attempts.kept()
        theirs = [a for a in kept if a.process is not None and a.process.hostname == hostname]
        running = [a for a in theirs if a.started is not None and a.state not in ATTEMPT_ENDED_STATES]
        if theirs:
            attempt = (_not_superseded(running, kept) or theirs)[-1]
        elif last.process is None and last.state not in ATTEMPT_ENDED_STATES:
            last.claim(process)
            attempt = last
    return attempt, attempt.state != LOST


def _is_known(attempt: Attempt, event: Event, retries: int | None, process: Process | None) -> bool:
    """Return whether an event has come before, and belongs to this attempt."""
    if attempt.marks and (own := mark(event)) and own in attempt.marks:
        return True
    event_type: str = event["type"]
    time = getattr(attempt, _TIMES.get(event_type, "ended"))
    if time is None or time != event.get("timestamp"):
        return False
    if event_type == "task-sent":
        return retries is None or attempt.retries == retries
    return attempt.is_by_life_of(process)


def _of_sent(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    retries = last.retries if arrival.retries is None else arrival.retries
    kept = attempts.kept()
    if retries > last.retries:
        if last.ended is not None and last.received is None and last.sent is None and _is_new(last, arrival):
            last.retries = retries  # a worker has discarded this message, and did not report its retries
            return last, True
        return _send(attempts, arrival, last.run), True
    same = [a for a in kept if a.run == last.run and a.retries == retries]
    unsent = [a for a in same if a.sent is None]
    is_sent = len(unsent) < len(same)
    if unsent:
        own = unsent[-1] if is_sent else unsent[0]
        if arrival.now - own.opened_at <= (LATE_RESENT_SECONDS if is_sent else LATE_SENT_SECONDS):
            return own, True
    for attempt in reversed(kept):  # events of clients can arrive in another order than their messages
        if attempt.retries == retries and attempt.sent is None and _is_new(attempt, arrival):
            return attempt, True
    if not same and not _has_ended_before(attempts, arrival):
        return kept[0], False  # of a message before the known ones
    return _send(attempts, arrival, last.run + 1), True


def _of_received(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    process = arrival.process
    retries = last.retries if arrival.retries is None else arrival.retries
    kept = attempts.kept()
    mine = [attempt for attempt in reversed(kept) if attempt.is_by(process)]
    for attempt in reversed(kept):
        if attempt.is_unclaimed and attempt.run == last.run and attempt.retries == retries:
            attempt.claim(process)
            return attempt, True
    for attempt in mine:
        if not attempt.precedes(arrival.clock, arrival.stamp):
            # Late; the retries of an attempt whose first event was its end are a guess.
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
    unstarted = [attempt for attempt in mine if attempt.started is None]
    waiting = [attempt for attempt in unstarted if attempt.state not in ATTEMPT_ENDED_STATES]
    if waiting:
        return _first_waiting(waiting, kept), True
    for attempt in reversed(unstarted):
        if not attempt.precedes(arrival.clock, arrival.stamp):
            return attempt, True
    if mine and not mine[-1].precedes(arrival.clock, arrival.stamp):
        return mine[-1], False
    if last.is_unclaimed:
        last.claim(arrival.process)
        return last, True
    return _open(attempts, last, arrival), True


def _of_end(attempts: Attempts, last: Attempt, arrival: Arrival) -> tuple[Attempt, bool]:
    kept = attempts.kept()
    mine = [attempt for attempt in kept if attempt.is_by(arrival.process)]
    under_way = [attempt for attempt in mine if attempt.state not in ATTEMPT_ENDED_STATES]
    # A worker discards a message before it begins it.
    is_other = arrival.is_discard and (last.is_unclaimed or last not in under_way)
    if under_way and not (is_other and all(a.started is not None for a in under_way)):
        return _ended_one(under_way, kept, arrival.type), True
    if mine and not mine[-1].precedes(arrival.clock, arrival.stamp):
        return mine[-1], mine[-1].state != STATE_OF_EVENT[arrival.type]
    if mine and arrival.type in _REPEATED_ENDS:
        return mine[-1], True
    if last.is_unclaimed:
        last.claim(arrival.process)
        return last, True
    if mine and not arrival.is_discard and mine[-1].state not in _CONTINUED_STATES:
        return mine[-1], True
    if mine or arrival.is_discard or last.state in _CONTINUED_STATES:
        return _open(attempts, last, arrival), True
    return attempts.insert(last.retries, arrival.process, arrival.now), True  # it began before the known ones


_FINDERS = {"task-sent": _of_sent, "task-received": _of_received, "task-started": _of_started}
"""By type of event: what finds its attempt, or opens it."""


def _has_ended_before(attempts: Attempts, arrival: Arrival, retries: int | None = None) -> bool:
    """Return whether the last run is over, and an event is not a late one of that run."""
    current = attempts.current
    if current is None or not attempts.is_over:
        return False
    is_known = any(a.run == current.run and a.retries == retries and a.has_worker for a in attempts.kept())
    return is_known or not _is_new(current, arrival)


def _is_new(attempt: Attempt, arrival: Arrival) -> bool:
    """Return whether a ``task-sent`` event may still arrive for this attempt."""
    return arrival.now - attempt.opened_at <= LATE_RESENT_SECONDS


def _send(attempts: Attempts, arrival: Arrival, run: int) -> Attempt:
    return attempts.append(run, arrival.retries or 0, None, arrival.now)


def _open(attempts: Attempts, last: Attempt, arrival: Arrival, retries: int | None = None) -> Attempt:
    """Append an attempt that a worker has taken up; without ``retries`` the number is a guess."""
    if retries is None:
        retries = 0 if attempts.is_over else last.retries + (last.state == "RETRY")
    return attempts.append(last.run + attempts.is_over, retries, arrival.process, arrival.now)


def _not_superseded(attempts: list[Attempt], kept: list[Attempt], *, by_runs: bool = True) -> list[Attempt]:
    """Return attempts without those that were started again later.

    Such an attempt was replaced, or its worker lost the connection to the broker.

    Args:
        by_runs: remove also those after which another run has started.
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
    """Return the attempt that a process has started, among those that it has received.

    It is the first one of the last run; among several for one message the last one, since those before ended
    with the connection to the broker.
    """
    left = _not_superseded(waiting, kept) or waiting
    first = min((attempt for attempt in left if attempt.run == left[-1].run), key=lambda a: a.retries)
    return next(a for a in reversed(left) if (a.run, a.retries) == (first.run, first.retries))


def _ended_one(under_way: list[Attempt], kept: list[Attempt], event_type: str) -> Attempt:
    """Return the attempt that has ended, among those that a process works on."""
    if event_type == "task-revoked":
        return under_way[-1]
    under_way = _not_superseded(under_way, kept, by_runs=event_type != "task-retried") or under_way
    # An attempt that is followed by a message with more retries was retried.
    followed = [
        attempt
        for attempt in under_way
        if any(a.run == attempt.run and a.retries > attempt.retries for a in kept)
    ]
    if event_type == "task-retried":
        candidates = [a for a in followed if a.retries == followed[0].retries] if followed else under_way
    else:
        candidates = [attempt for attempt in under_way if attempt not in followed] or under_way
    begun = [attempt for attempt in candidates if attempt.started is not None]
    return (begun or candidates)[-1]
