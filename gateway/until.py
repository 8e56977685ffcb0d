"""Streams that end when what they wait for is ready: a task, or all that is known of a workflow."""

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple

from gateway.event import Event
from gateway.subscription import Subscription
from gateway.tasks import Tasks

QUIET_SECONDS = 2.0
"""How long all known tasks of a workflow must be ready: a chain goes on when its last task has ended."""
SWEEP_FROM = 1_000


class Goal(NamedTuple):
    """What is waited for: a task by its uuid, or a workflow by its root_id."""

    field: Literal["uuid", "root_id"]
    value: str


class Until:
    """Ends subscriptions with ``gateway-close: ready`` once their goals are reached.

    Args:
        tasks: the table that knows.
        after_flush: calls back when all that is appended so far has been handed out: the event with which
            a goal is reached comes before the end.
    """

    def __init__(self, tasks: Tasks, after_flush: Callable[[Callable[[], None]], None]) -> None:
        self._tasks = tasks
        self._after_flush = after_flush
        self._waiting: dict[Goal, list[Subscription]] = {}
        self._timers: dict[Goal, asyncio.TimerHandle] = {}
        self._sweep_at = SWEEP_FROM

    def is_reached(self, goal: Goal) -> bool:
        """Tell whether it is ready now; of a workflow: all that is known of it."""
        if goal.field == "uuid":
            record = self._tasks.get(goal.value)
            return record is not None and record.task.is_ready
        root = self._tasks.root(goal.value)
        return root is not None and not root.unready

    def add(self, subscription: Subscription, goal: Goal) -> None:
        """End a subscription when its goal is reached, which may be at once."""
        self._sweep()
        self._waiting.setdefault(goal, []).append(subscription)
        if self.is_reached(goal) and goal not in self._timers:
            self._reached(goal)

    def saw(self, event: Event) -> None:
        """Take note of an event that the table has taken in and the stream has got."""
        if not self._waiting:
            return
        uuid, root_id = event.get("uuid"), event.get("root_id")
        if type(uuid) is str and (goal := Goal("uuid", uuid)) in self._waiting and self.is_reached(goal):
            self._reached(goal)
        if type(root_id) is str and (goal := Goal("root_id", root_id)) in self._waiting:
            if goal in self._timers:
                self._timers.pop(goal).cancel()
            if self.is_reached(goal):
                self._reached(goal)

    def close(self) -> None:
        """Wait for nothing any more."""
        for timer in self._timers.values():
            timer.cancel()

    def _reached(self, goal: Goal) -> None:
        if goal.field == "uuid":
            self._after_flush(lambda: self._end(goal))
        else:
            loop = asyncio.get_running_loop()
            self._timers[goal] = loop.call_later(QUIET_SECONDS, self._end, goal)

    def _end(self, goal: Goal) -> None:
        self._timers.pop(goal, None)
        for subscription in self._waiting.pop(goal, ()):
            subscription.end("ready")

    def _sweep(self) -> None:
        """Forget those whose clients have gone, when many may have."""
        if len(self._waiting) < self._sweep_at:
            return
        for goal, subscriptions in tuple(self._waiting.items()):
            if all(subscription.is_ended for subscription in subscriptions):
                del self._waiting[goal]
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._waiting))
