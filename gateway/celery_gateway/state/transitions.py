"""The states of a task, and the transition table within one attempt.

``celery.events.state.State`` is not reused: it takes a revoke after a custom state for PROGRESS, keeps a
rejected task in RECEIVED, and lets a late event of one process undo a younger one of another. The rules here:

- Within an attempt a state only moves up in rank, so a late event (``task-started`` after ``task-succeeded``)
  changes nothing, and an attempt that has ended stays ended. Which attempt an event belongs to: ``attempt``.
- A custom event's state is its type without the group, in capitals: ``task-progress`` -> ``PROGRESS``, as
  in Celery's own ``Task.event``. It counts as a finer STARTED. A type whose state would be one of the states
  below (an application's ``task-success``) counts as STARTED itself.
- LOST is the gateway's own: the process that had the attempt is gone. A Celery event of that process moves it
  on; a custom event does not, since a pool's child may outlive its worker.
"""

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
LOST = "LOST"
MAX_STATE_CHARS = 255
"""Of a custom state; Celery's own are short."""
READY_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
ATTEMPT_ENDED_STATES = frozenset({"RETRY", "CANCELLED", "REJECTED"}) | READY_STATES
NOT_HELD_STATES = frozenset({None, "PENDING", LOST}) | ATTEMPT_ENDED_STATES
"""Those of an attempt that no process has in its hands."""

_CUSTOM_RANK = 3.0
_RANK = {
    None: -1.0,
    "PENDING": 0.0,
    LOST: 0.5,
    "RECEIVED": 1.0,
    "STARTED": 2.0,
    "RETRY": 4.0,
    "CANCELLED": 4.0,
    "REJECTED": 5.0,
    "SUCCESS": 6.0,
    "FAILURE": 6.0,
    "REVOKED": 6.0,
}


def state_of(event_type: str) -> str:
    """Return the state that a task event of this type reports."""
    state = STATE_OF_EVENT.get(event_type) or event_type.partition("-")[2].upper()[:MAX_STATE_CHARS]
    return "STARTED" if state in _RANK and event_type not in STATE_OF_EVENT else state


def moves(now: str | None, to: str) -> bool:
    """Return whether an event that reports ``to`` moves an attempt that is in the state ``now``."""
    rank_now, rank_to = _RANK.get(now, _CUSTOM_RANK), _RANK.get(to, _CUSTOM_RANK)
    if now == LOST and rank_to == _CUSTOM_RANK:
        return False
    return rank_to > rank_now or rank_to == rank_now == _CUSTOM_RANK
