"""The lifecycle of a task: how each of its events changes its state.

``apply`` answers two questions for each event:

1. Which attempt does the event belong to, and is it new? ``attempt_matching`` finds the attempt. An event
   that came before, or that is of an attempt that is no longer kept, changes nothing.
2. What does it change? The attempt moves to another state where the table in ``transitions`` allows it. The
   task has the state of its current attempt: the last one that a worker took up. ``task_fields`` sets the
   other fields.

``mark_lost`` moves attempts to LOST when the process that had them is gone. Pure.
"""

from typing import Any

from celery_gateway.events.event import LATE_SECONDS, SKEW_SECONDS, Event
from celery_gateway.events.event_types import LOST, STATE_OF_EVENT
from celery_gateway.state.attempt import Attempt, Attempts
from celery_gateway.state.attempt_matching import find, find_of_custom, mark
from celery_gateway.state.process import Process
from celery_gateway.state.shared_text import MAX_NAME_CHARS, shared
from celery_gateway.state.task import Task
from celery_gateway.state.task_fields import (
    MAX_INTEGER,
    SETTERS,
    reset,
    resize_attempts,
    set_custom,
    set_worker,
    worker_name,
)
from celery_gateway.state.transitions import moves, state_of

MIN_TIMESTAMP, MAX_TIMESTAMP = -62_135_596_800, 253_402_300_800
"""Epoch seconds of the years 1 to 9999. An event with another timestamp counts as one without."""

_PROCESS_BYTES = 350
"""Half of the size of a process, which lives as long as its attempts: the worker table counts it, too."""
_OWN_TYPES = {event_type: event_type for event_type in STATE_OF_EVENT}  # one copy of each in memory


def apply(
    task: Task,
    attempts: Attempts,
    event: Event,
    process: Process | None = None,
    now: float = 0.0,
    arrived: float | None = None,
) -> tuple[Attempt, int]:
    """Apply one of the task's events to its record, except for the names of the task and of its workflow.

    Args:
        process: the worker's main process that sent the event; ``None`` for a client.
        now: when the event arrived, on a clock that only goes forward.
        arrived: the same in epoch seconds; ``None``: timestamps are taken as they are.

    Returns:
        The attempt that the event belongs to, and by how many bytes the record has grown.
    """
    event_type: str = event["type"]
    stamp = order = event.get("timestamp")
    if type(stamp) is not float or arrived is None or not 0 < arrived - LATE_SECONDS <= stamp <= arrived:
        stamp, order = _times(stamp, arrived)
    clock = event.get("clock")
    if type(clock) is not int or not -MAX_INTEGER <= clock < MAX_INTEGER:
        clock = None
    # 1. Which attempt does the event belong to, and is it new?
    count, to = attempts.count, STATE_OF_EVENT.get(event_type)
    is_custom = to is None
    if to is None:
        to = state_of(event_type)
        attempt, is_new = find_of_custom(attempts, process, worker_name(event, process), now)
    else:
        attempt, is_new = find(attempts, event, order, clock, process, now)
    if not is_new:
        return attempt, 0
    # 2. What does it change?
    grown = _move(task, attempts, attempt, to, process, count)
    is_current = attempts.current is attempt
    if order is None and not is_custom:
        grown += _add_mark(task, attempts, attempt, event, stamp)
    if is_custom:
        grown += set_custom(task, event, process, stamp) if is_current else 0
    elif to == "PENDING":
        grown += SETTERS[to](task, attempts, attempt, event, stamp)
    else:
        if attempt.precedes(clock, order):
            attempt.clock, attempt.stamp = clock, order
        if to == "STARTED" and process is not None:
            process.starts += 1
        grown += SETTERS[to](task, attempts, attempt, event, stamp)
        if is_current and (process is None or task.worker is not process.hostname or task.pid != process.pid):
            grown += set_worker(task, event, process)
    if is_current and attempt.state == to:
        task.type = _OWN_TYPES.get(event_type) or shared(event_type[:MAX_NAME_CHARS])
        task.lost = None
        if stamp is not None:
            task.timestamp = stamp
        if clock is not None:
            task.clock = clock
    return attempt, grown


def mark_lost(task: Task, attempts: Attempts, process: Process, time: float) -> Attempt | None:
    """Mark the attempts of a process that is gone as lost.

    Args:
        time: epoch seconds.

    Returns:
        The current attempt if it is lost now, and was not before; ``None`` otherwise.
    """
    kept = attempts.kept()
    for attempt in tuple(attempts.of_process(process)):
        # A worker that stops does not acknowledge what it has not started: the broker delivers it again.
        is_requeued = process.stopping_at is not None and attempt.state == "RECEIVED"
        is_retried = any(a.run == attempt.run and a.retries > attempt.retries for a in kept)
        if not is_requeued and not is_retried:
            attempt.state = LOST
    current = attempts.current
    if current is None or current.state != LOST or task.lost is not None:
        return None
    task.state, task.type = LOST, "task-lost"
    task.lost = task.timestamp = time
    return current


def _times(timestamp: Any, arrived: float | None) -> tuple[float | None, float | None]:
    """Return the time of an event for the record, and the one that decides about the order.

    A timestamp that cannot be true (as in ``event.is_time``) is replaced by the arrival, and does not decide
    about the order; neither does one that is older than ``LATE_SECONDS``.
    """
    if not (
        (type(timestamp) is float or type(timestamp) is int) and MIN_TIMESTAMP <= timestamp < MAX_TIMESTAMP
    ):
        timestamp = None
    if arrived is None:
        return timestamp, timestamp
    if timestamp is None or not 0 < timestamp <= arrived + SKEW_SECONDS:
        return arrived, None
    return timestamp, None if timestamp < arrived - LATE_SECONDS else timestamp


def _add_mark(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    """Let an attempt know an event again whose time is that of its arrival; return the grown bytes."""
    if stamp == event.get("timestamp"):
        return 0
    attempt.add_mark(mark(event))
    return resize_attempts(task, attempts)


def _move(
    task: Task, attempts: Attempts, attempt: Attempt, to: str, process: Process | None, count: int
) -> int:
    """Move an attempt to another state, and the task with it; return by how many bytes it has grown.

    Args:
        to: the state that the event reports.
        count: how many attempts there were before the event.
    """
    if is_moved := moves(attempt.state, to):
        attempt.state = to
    grown = 0
    if process is not None and (is_moved or attempts not in process.assigned):
        attempts.update_assignment(attempt)
        if not process.is_counted:
            process.is_counted = True
            grown = _PROCESS_BYTES
    before = attempts.current
    if before is not attempt and attempts.update_current() is not before:
        grown += reset(task, attempts, before)
    elif 0 < count < attempts.count:
        grown += resize_attempts(task, attempts)
    if attempts.current is attempt:
        task.state = attempt.state
        if to != "PENDING":
            task.attempt = attempt.number
    return grown
