"""Streams that end when what they wait for has come to an end: a task, or all that is known of a workflow.

- ``ready``: it is in SUCCESS, FAILURE or REVOKED; of a workflow, all its known tasks have been for the quiet
  time. A chain goes on when its last task has ended, and without ``task-sent`` events nothing tells that its
  next task waits in a queue, so the quiet time is longer then.
- ``lost``: it, or what is left of a workflow, has been lost for ``lost_grace_seconds``. A message that is
  acknowledged late may be delivered again until then.
- ``unknown``: nothing has been heard of it for ``wait_known_seconds``, or it was forgotten, or the id is not
  that of a workflow's root.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from gateway.control import CloseReason
from gateway.event import Event, id_text
from gateway.hub import Hub
from gateway.subscription import Subscription
from gateway.tasks import Tasks

QUIET_SECONDS = 2.0
"""How long all known tasks of a workflow have to be ready where ``task-sent`` of each has come."""
UNSURE_QUIET_SECONDS = 30.0
"""The same where it has not: others may wait in a queue unseen."""
LOST_GRACE_SECONDS = 60.0
WAIT_KNOWN_SECONDS = 30.0
SWEEP_FROM = 1_000
MAX_ENDED = 10_000
"""Of how many goals it is remembered that their streams have ended."""


class Goal(NamedTuple):
    """What is waited for: a task by its uuid, or a workflow by its root_id.

    ``quiet_seconds``: the quiet time of a workflow; ``None`` for the default.
    """

    field: Literal["uuid", "root_id"]
    value: str
    cluster: str | None = None
    quiet_seconds: float | None = None


class End(NamedTuple):
    """How a goal has come to an end, how long that has to last, and what the last message says of it."""

    reason: CloseReason
    after_seconds: float
    details: dict[str, Any]


class _Wait:
    """The streams of a goal, each with when it began to wait, and the end that is due."""

    __slots__ = ("subscriptions", "timer", "due")

    def __init__(self) -> None:
        self.subscriptions: WeakKeyDictionary[Subscription, float] = WeakKeyDictionary()
        self.timer: asyncio.TimerHandle | None = None
        self.due: tuple[CloseReason, float] | None = None  # why it ends, and how long that has to last

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.due = None


class Until:
    """Ends subscriptions with ``gateway-close`` once their goals have come to an end.

    Args:
        tasks: the table of tasks.
        hub: whose streams they are.
    """

    def __init__(
        self,
        tasks: Tasks,
        hub: Hub,
        *,
        lost_grace_seconds: float = LOST_GRACE_SECONDS,
        wait_known_seconds: float = WAIT_KNOWN_SECONDS,
    ) -> None:
        self._tasks = tasks
        self._hub = hub
        self._lost_grace_seconds = lost_grace_seconds
        self._wait_known_seconds = wait_known_seconds
        self._waiting: dict[tuple[str, str], dict[Goal, _Wait]] = {}  # by field and value
        self._ended: OrderedDict[Goal, tuple[int, CloseReason]] = OrderedDict()  # where, and how
        self._sweep_at = SWEEP_FROM
        self._evicted_seen = 0

    def is_over(self, goal: Goal, last_event_id: str) -> bool:
        """Return whether a client that has seen this id has seen its stream end, and nothing began since."""
        position, ended = self._hub.position_of(last_event_id), self._ended.get(goal)
        if position is None or ended is None or position < ended[0]:
            return False
        end = self._end_of(goal)
        return end is not None and end.reason == ended[1]

    def add(self, subscription: Subscription, goal: Goal) -> None:
        """End a subscription when its goal has come to an end, which may be at once."""
        self._sweep()
        waits = self._waiting.setdefault((goal.field, goal.value), {})
        wait = waits.setdefault(goal, _Wait())
        wait.subscriptions[subscription] = asyncio.get_running_loop().time()
        self._look(goal, wait)

    def saw(self, event: Event) -> None:
        """Take note of an event that the table has taken in and the stream has got."""
        if not self._waiting:
            return
        uuid, root_id = id_text(event.get("uuid")), id_text(event.get("root_id"))
        # A task may turn out to be of another root than its own id.
        for field, value in {("uuid", uuid), ("root_id", root_id), ("root_id", uuid)}:
            waits = self._waiting.get((field, value)) if value is not None else None
            for goal, wait in tuple(waits.items()) if waits else ():
                if wait.due is not None and wait.due[0] == "ready":
                    wait.cancel()  # the quiet time begins again
                self._look(goal, wait)

    def refresh(self) -> None:
        """Look at all goals again, if records have been evicted: no event tells of that."""
        statistics = self._tasks.statistics()
        evicted = statistics.evicted_finished + statistics.evicted_unfinished
        if evicted == self._evicted_seen or not self._waiting:
            return
        self._evicted_seen = evicted
        for waits in tuple(self._waiting.values()):
            for goal, wait in tuple(waits.items()):
                self._look(goal, wait)

    def close(self) -> None:
        """Wait for nothing any more."""
        for waits in self._waiting.values():
            for wait in waits.values():
                wait.cancel()

    def _look(self, goal: Goal, wait: _Wait) -> None:
        """Schedule the end of a goal's streams."""
        end = self._end_of(goal)
        if end is None:
            wait.cancel()
        elif wait.due != (end.reason, end.after_seconds):
            wait.cancel()
            wait.due = end.reason, end.after_seconds
            loop = asyncio.get_running_loop()
            if end.after_seconds:
                wait.timer = loop.call_later(end.after_seconds, self._end, goal, wait)
            else:
                # The event with which it ends comes before the end.
                self._hub.after_flush(lambda: self._end(goal, wait))

    def _end(self, goal: Goal, wait: _Wait) -> None:
        end = self._end_of(goal)
        is_waiting = self._waiting.get((goal.field, goal.value), {}).get(goal) is wait
        if end is None or wait.due != (end.reason, end.after_seconds) or not is_waiting:
            return  # it goes on since, or has been ended
        ended = list(wait.subscriptions)
        if end.reason == "unknown" and end.after_seconds:  # each stream waits for as long
            loop = asyncio.get_running_loop()
            began_by = loop.time() + 0.01 - end.after_seconds
            ended = [each for each, at in wait.subscriptions.items() if at <= began_by]
            if left := [at for at in wait.subscriptions.values() if at > began_by]:
                wait.timer = loop.call_at(min(left) + end.after_seconds, self._end, goal, wait)
                for subscription in ended:
                    del wait.subscriptions[subscription]
                    subscription.end(end.reason, end.details)
                return
        self._ended[goal] = self._hub.position, end.reason
        self._ended.move_to_end(goal)
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        self._forget(goal)
        for subscription in ended:
            subscription.end(end.reason, end.details)

    def _end_of(self, goal: Goal) -> End | None:
        return self._task_end(goal) if goal.field == "uuid" else self._workflow_end(goal)

    def _task_end(self, goal: Goal) -> End | None:
        tasks = [record.task for record in self._tasks.find(goal.value, goal.cluster)]
        if not tasks:
            return self._unknown(goal, f"no event of the task {goal.value!r} has been seen")
        ready = sum(task.is_ready for task in tasks)
        details = {
            "known": len(tasks),
            "ready": ready,
            "sent_events": all(task.sent is not None for task in tasks),
        }
        if ready == len(tasks):
            return End("ready", 0.0, details)
        if all(task.is_ready or task.lost is not None for task in tasks):
            return End("lost", self._lost_grace_seconds, details)
        return None

    def _workflow_end(self, goal: Goal) -> End | None:
        roots = self._tasks.roots(goal.value, goal.cluster)
        if not roots:
            for record in self._tasks.find(goal.value, goal.cluster):
                root_id = record.task.root_id
                if root_id is None:  # it was under way before the gateway listened
                    return self._task_end(goal)
                message = f"the task {goal.value!r} belongs to the root {root_id!r}"
                return End("unknown", 0.0, {"message": message, "root_id": root_id})
            return self._unknown(goal, f"no event of the workflow {goal.value!r} has been seen")
        known = sum(len(root.members) for root in roots)
        unready, lost = sum(root.unready for root in roots), sum(root.lost for root in roots)
        is_sure = not any(root.unsent for root in roots)
        details = {"known": known, "ready": known - unready, "sent_events": is_sure}
        if not unready:
            quiet_seconds = goal.quiet_seconds
            if quiet_seconds is None:
                quiet_seconds = QUIET_SECONDS if is_sure else UNSURE_QUIET_SECONDS
            return End("ready", quiet_seconds, details)
        return End("lost", self._lost_grace_seconds, details) if lost == unready else None

    def _unknown(self, goal: Goal, message: str) -> End:
        if self._tasks.was_evicted(goal.value, goal.cluster):
            message = f"{goal.value!r} was evicted (the table of tasks is full: see --max-tasks)"
            return End("unknown", 0.0, {"message": message})
        return End("unknown", self._wait_known_seconds, {"message": message})

    def _forget(self, goal: Goal) -> None:
        key = goal.field, goal.value
        waits = self._waiting.get(key, {})
        waits.pop(goal, None)
        if not waits:
            self._waiting.pop(key, None)

    def _sweep(self) -> None:
        """Forget those whose clients have gone, when many may have."""
        if len(self._waiting) < self._sweep_at:
            return
        for waits in tuple(self._waiting.values()):
            for goal, wait in tuple(waits.items()):
                if all(subscription.is_ended for subscription in wait.subscriptions):
                    wait.cancel()
                    self._forget(goal)
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._waiting))
