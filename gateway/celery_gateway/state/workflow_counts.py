"""The counts of the tasks of one workflow, and the state that follows from them.

A workflow keeps its counts up to date, so that a list of workflows need not read their tasks. From
``TALLY_MEMBERS`` tasks on it also has a ``Tally``; the few tasks of a smaller one are read when it is listed.

The counts are kept in one integer, so that a change of a task is one addition. Pure.
"""

from collections.abc import Iterable
from typing import Final

from celery_gateway.events.event_types import LOST
from celery_gateway.state.task import Task
from celery_gateway.state.transitions import FAILED_STATES, READY_STATES, WAITING_STATES

TALLY_MEMBERS: Final = 20
WORKFLOW_STATES: Final = ("running", "lost", "waiting", "failed", "succeeded")
"""The states of a workflow; the first one that applies counts (``WorkflowCounts.state``)."""

_BITS: Final = 32
_MASK: Final = (1 << _BITS) - 1
_UNREADY, _RUNNING, _FAILED, _LOST, _UNSENT = (1 << place * _BITS for place in range(5))
_RUNS: Final = _UNREADY + _RUNNING
_OF_STATE: Final[dict[str | None, int]] = (
    dict.fromkeys(WAITING_STATES, _UNREADY)
    | dict.fromkeys(FAILED_STATES, _FAILED)
    | {LOST: _UNREADY, "SUCCESS": 0}
)
"""What a task in a state adds to the counts; in any other state it runs."""
_of_state: Final = _OF_STATE.get
_WITHOUT_PROGRESS: Final = frozenset({None, "PENDING", "RECEIVED"}) | READY_STATES


class Tally:
    """The counts of some tasks.

    Args:
        tasks: the first ones.

    Attributes:
        counts: the number of tasks by state; a task without a state counts as PENDING.
        ended: when the last of the tasks that are ready ended, in epoch seconds; ``None`` if none is. It
            does not go back when a task is removed.
    """

    __slots__ = ("counts", "ended", "_active")

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self.counts: dict[str, int] = {}
        self.ended: float | None = None
        self._active: dict[str, Task] = {}  # those that may have a progress, by uuid
        for task in tasks:
            self.add(task)

    def add(self, task: Task) -> None:
        """Add a task as it is now."""
        state = task.state
        name = state or "PENDING"
        self.counts[name] = self.counts.get(name, 0) + 1
        if state not in _WITHOUT_PROGRESS:
            self._active[task.uuid] = task
        elif state in READY_STATES:
            self.end(task)

    def end(self, task: Task) -> None:
        """Update ``ended`` by a task that is ready, and may have another end than before."""
        ended = task.ended_at
        if ended is not None and (self.ended is None or ended > self.ended):
            self.ended = ended

    def remove(self, task: Task, state: str | None) -> None:
        """Remove a task that was added in this state."""
        name = state or "PENDING"
        left = self.counts[name] - 1
        if left:
            self.counts[name] = left
        else:
            del self.counts[name]
        self._active.pop(task.uuid, None)

    def unready_progress(self) -> float:
        """Return the sum of the progress of the tasks that are not ready."""
        return sum([task.progress or 0.0 for task in self._active.values()])


class WorkflowCounts:
    """The counts of the tasks of a workflow.

    Attributes:
        tally: further counts, if they are kept.
    """

    __slots__ = ("tally", "_counts")

    def __init__(self) -> None:
        self.tally: Tally | None = None
        self._counts = 0

    @property
    def unready(self) -> int:
        """How many tasks have not ended."""
        return self._counts & _MASK

    @property
    def running(self) -> int:
        """How many of those run."""
        return self._counts // _RUNNING & _MASK

    @property
    def failed(self) -> int:
        """How many tasks have ended in FAILURE or REVOKED."""
        return self._counts // _FAILED & _MASK

    @property
    def lost(self) -> int:
        """How many of the tasks that have not ended are lost."""
        return self._counts // _LOST & _MASK

    @property
    def unsent(self) -> int:
        """Of how many tasks no ``task-sent`` has arrived."""
        return self._counts // _UNSENT & _MASK

    @property
    def state(self) -> str:
        """The state of the workflow, one of ``WORKFLOW_STATES``.

        ``running`` while a task runs, otherwise ``lost`` if one is lost, otherwise ``waiting`` if one has
        not ended, otherwise ``failed`` if one has failed or was revoked, otherwise ``succeeded``.
        """
        if self.running:
            return "running"
        if self.lost:
            return "lost"
        if self.unready:
            return "waiting"
        return "failed" if self.failed else "succeeded"

    def count(self, task: Task, by: int) -> None:
        """Add a task to the counts (``by`` 1), or remove it as it is (-1)."""
        state = task.state
        self.count_values(state, task.lost is not None, task.sent is None, by)
        if self.tally is not None:
            if by > 0:
                self.tally.add(task)
            else:
                self.tally.remove(task, state)

    def count_values(self, state: str | None, is_lost: bool, is_unsent: bool, by: int) -> None:
        """Add the values of a task to the counts (``by`` 1), or remove them (-1), apart from the tally."""
        value = _of_state(state, _RUNS)
        if is_lost:
            value += _LOST
        if is_unsent:
            value += _UNSENT
        self._counts += by * value

    def move(self, task: Task, before: str | None) -> None:
        """Update the counts after the state of a task may have changed, or the end of one that is ready.

        Args:
            before: the state that it had.
        """
        state = task.state
        if state is not before:
            self._counts += _of_state(state, _RUNS) - _of_state(before, _RUNS)
        if self.tally is not None:
            self.tally.remove(task, before)
            self.tally.add(task)

    def mark(self, lost: int, unsent: int) -> None:
        """Add to ``lost`` and ``unsent``, after tasks have changed."""
        self._counts += lost * _LOST + unsent * _UNSENT
