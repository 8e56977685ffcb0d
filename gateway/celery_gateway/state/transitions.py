"""The states of a task, and the transition table within one attempt.

- Within an attempt a state only moves up in rank, so a late event (``task-started`` after ``task-succeeded``)
  changes nothing, and an attempt that has ended stays ended. (Which attempt: ``attempt_matching``.)
- A custom event's state is its type without the group, in capitals: ``task-progress`` -> ``PROGRESS``, as
  in Celery's own ``Task.event``. It counts as a finer STARTED. A type whose state would be one of the states
  below (an application's ``task-success``) counts as STARTED itself.
- LOST is the gateway's own state: the process that had the attempt is gone. A Celery event of that process
  changes it; a custom event does not, since a pool's child may outlive its worker.

``celery.events.state.State`` is not reused: after a revoke that follows a custom state it has PROGRESS, it
leaves a rejected task in RECEIVED, and a late event of one process replaces a later one of another. Pure.
"""

from celery_gateway.events.event_types import LOST, STATE_OF_EVENT

MAX_STATE_CHARS = 255
"""The maximum length of a custom state."""
READY_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
FAILED_STATES = frozenset({"FAILURE", "REVOKED"})
ATTEMPT_ENDED_STATES = frozenset({"RETRY", "CANCELLED", "REJECTED"}) | READY_STATES
UNASSIGNED_STATES = frozenset({None, "PENDING", LOST}) | ATTEMPT_ENDED_STATES
"""The states of an attempt that no process works on."""
WAITING_STATES = frozenset({None, "PENDING", "RECEIVED", "RETRY", "REJECTED", "CANCELLED"})
"""The states of a task that has not ended, is not lost, and does not run."""

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
