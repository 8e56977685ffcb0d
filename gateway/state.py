"""The state of a task, as a pure transition table.

``celery.events.state.State`` is not reused: it takes a revoke after a custom state for PROGRESS, keeps a
rejected task in RECEIVED, and lets a late event of one process undo a newer one of another. The rules here:

- Within one attempt a state only moves up in rank; a late event (``task-sent`` after ``task-received``)
  changes nothing, and a finished task stays finished.
- A new attempt starts over: a ``task-received`` that is younger than the event that set the state (or, on
  an unfinished task, has more retries); a ``task-started`` or ``task-retried`` younger than one that ended
  the attempt.
- A custom event's state is its type without the group, in capitals: ``task-progress`` -> ``PROGRESS``, as
  in Celery's own ``Task.event``. It counts as a finer STARTED.
"""

from typing import NamedTuple

STATE_OF_EVENT = {
    "task-sent": "PENDING",
    "task-received": "RECEIVED",
    "task-started": "STARTED",
    "task-retried": "RETRY",
    "task-cancelled": "CANCELLED",
    "task-rejected": "REJECTED",
    "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE",
    "task-revoked": "REVOKED",
}
MAX_STATE_CHARS = 255
"""Of a custom state; Celery's own are short."""
READY_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
ATTEMPT_ENDED_STATES = frozenset({"RETRY", "CANCELLED", "REJECTED"}) | READY_STATES

_CUSTOM_RANK = 3
_ATTEMPT_ENDED_RANK = 4
_RANK = {
    None: -1,
    "PENDING": 0,
    "RECEIVED": 1,
    "STARTED": 2,
    "RETRY": 4,
    "CANCELLED": 4,
    "REJECTED": 5,
    "SUCCESS": 6,
    "FAILURE": 6,
    "REVOKED": 6,
}


class Reached(NamedTuple):
    """The state a task is in, when the event that set it was made (epoch seconds), and in which attempt.

    ``retreats`` is how many attempts are known to have ended in a retry; the table does not ask for it.
    """

    state: str | None = None
    timestamp: float = 0.0
    retries: int = 0
    retreats: int = 0


def state_of(event_type: str) -> str:
    """Return the state that a task event of this type speaks of."""
    return STATE_OF_EVENT.get(event_type) or event_type.partition("-")[2].upper()[:MAX_STATE_CHARS]


def transition(now: Reached, to: Reached) -> Reached:
    """Return the state after an event that speaks of ``to``: ``to`` itself, or ``now`` where it is late."""
    rank_now, rank_to = _RANK.get(now.state, _CUSTOM_RANK), _RANK.get(to.state, _CUSTOM_RANK)
    if rank_to > rank_now:
        return to
    is_younger = to.timestamp > now.timestamp
    if to.state == "RECEIVED":
        # Between machines whose clocks differ the count of retries knows better; but nothing late may
        # move a finished task back.
        starts_over = is_younger or (now.state not in READY_STATES and to.retries > now.retries)
    elif to.state in ("STARTED", "RETRY"):
        starts_over = rank_now >= _ATTEMPT_ENDED_RANK and is_younger
    else:
        starts_over = rank_to == rank_now == _CUSTOM_RANK and is_younger
    return to if starts_over else now
