"""Streams that end when what they wait for is ready: a task, or all that is known of a workflow."""

import asyncio
from collections import OrderedDict
from typing import Literal, NamedTuple
from weakref import WeakSet

from gateway.event import Event
from gateway.hub import Hub
from gateway.subscription import Subscription
from gateway.tasks import Tasks

QUIET_SECONDS = 2.0
"""How long all known tasks of a workflow must be ready: a chain goes on when its last task has ended."""
SWEEP_FROM = 1_000
MAX_ENDED = 10_000
"""Of how many goals it is remembered that their streams have ended."""


class Goal(NamedTuple):
    """What is waited for: a task by its uuid, or a workflow by its root_id."""

    field: Literal["uuid", "root_id"]
    value: str


class Until:
    """Ends subscriptions with ``gateway-close: ready`` once their goals are reached.

    Args:
        tasks: the table that knows.
        hub: whose streams they are.
    """

    def __init__(self, tasks: Tasks, hub: Hub) -> None:
        self._tasks = tasks
        self._hub = hub
        self._waiting: dict[Goal, WeakSet[Subscription]] = {}
        self._timers: dict[Goal, asyncio.TimerHandle] = {}
        self._ended: OrderedDict[Goal, int] = OrderedDict()  # and the position at which its streams did
        self._sweep_at = SWEEP_FROM

    def is_reached(self, goal: Goal) -> bool:
        """Tell whether it is ready now; of a workflow: all that is known of it."""
        if goal.field == "uuid":
            record = self._tasks.get(goal.value)
            return record is not None and record.task.is_ready
        root = self._tasks.root(goal.value)
        return root is not None and not root.unready

    def is_over(self, goal: Goal, last_event_id: str) -> bool:
        """Tell whether a client that has seen this id has seen its stream end, and nothing began anew."""
        position, ended_at = self._hub.position_of(last_event_id), self._ended.get(goal)
        return (
            position is not None and ended_at is not None and position >= ended_at and self.is_reached(goal)
        )

    def add(self, subscription: Subscription, goal: Goal) -> None:
        """End a subscription when its goal is reached, which may be at once."""
        self._sweep()
        self._waiting.setdefault(goal, WeakSet()).add(subscription)
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
            # The event with which it is reached comes before the end.
            self._hub.after_flush(lambda: self._end(goal))
        else:
            loop = asyncio.get_running_loop()
            self._timers[goal] = loop.call_later(QUIET_SECONDS, self._end, goal)

    def _end(self, goal: Goal) -> None:
        self._timers.pop(goal, None)
        self._ended[goal] = self._hub.position
        self._ended.move_to_end(goal)
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        for subscription in tuple(self._waiting.pop(goal, ())):
            subscription.end("ready")

    def _sweep(self) -> None:
        """Forget those whose clients have gone, when many may have."""
        if len(self._waiting) < self._sweep_at:
            return
        for goal, subscriptions in tuple(self._waiting.items()):
            if all(subscription.is_ended for subscription in subscriptions):
                del self._waiting[goal]
        self._sweep_at = max(SWEEP_FROM, 2 * len(self._waiting))
