"""Completion: streams that end when their target, a task or all known tasks of a workflow, is complete.

A target completes with one of these reasons:

- ``ready``: the task is in SUCCESS, FAILURE or REVOKED. A workflow is ready when all its known tasks have
  been for the quiet time. A chain continues when its last task has ended, and without ``task-sent`` events
  nothing shows that its next task waits in a queue, so the quiet time is longer then.
- ``lost``: the task, or what is left of the workflow, has been lost for ``lost_grace_seconds``. Until then a
  message that is acknowledged late may be delivered again.
- ``unknown``: there was no event of the target for ``wait_known_seconds``, or it was evicted, or the id is
  not that of a workflow's root.

All times are loop time, in seconds.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from celery_gateway.events.event import FILTER_FIELDS, Event, Keys, id_text
from celery_gateway.events.event import keys as event_keys
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.messages import CloseReason
from celery_gateway.stream.subscription import Subscription

QUIET_SECONDS = 2.0
"""The quiet time of a workflow with a ``task-sent`` event of each known task."""
UNSURE_QUIET_SECONDS = 30.0
"""The quiet time of other workflows: further tasks may wait in a queue."""
LOST_GRACE_SECONDS = 60.0
WAIT_KNOWN_SECONDS = 30.0
MIN_SWEEP_TARGETS = 1_000
"""From this number of targets on, targets without open streams are removed."""
MAX_SCANNED = 20_000
"""How many entries are read to find out whether a target had events: about a millisecond of work."""
MAX_COMPLETED = 10_000
"""How many completed targets are remembered, for clients that reconnect."""
_UUID, _ROOT_ID = FILTER_FIELDS.index("uuid"), FILTER_FIELDS.index("root_id")


class Target(NamedTuple):
    """What a stream waits for: a task by its ``uuid``, or a workflow by its ``root_id``.

    ``cluster``: the broker; ``None`` for all brokers. ``quiet_seconds``: the quiet time of a workflow;
    ``None`` for the default. ``visible``: the filter of a scope; a task that does not pass it is unknown, and
    all tasks of the workflow pass it. ``None``: all tasks are visible.
    """

    field: Literal["uuid", "root_id"]
    value: str
    cluster: str | None = None
    quiet_seconds: float | None = None
    visible: Matcher | None = None


class Completion(NamedTuple):
    """That a target is complete once its present state has lasted for ``after_seconds``.

    ``details``: fields of the close message.
    """

    reason: CloseReason
    after_seconds: float
    details: dict[str, Any]


class _Waiting:
    """The streams that wait for a target, each with the time when it began, and the completion that is
    due."""

    __slots__ = ("subscriptions", "timer", "due")

    def __init__(self) -> None:
        self.subscriptions: WeakKeyDictionary[Subscription, float] = WeakKeyDictionary()
        self.timer: asyncio.TimerHandle | None = None
        self.due: tuple[CloseReason, float] | None = None  # its reason and its ``after_seconds``

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.due = None


class Completions:
    """Ends subscriptions with ``gateway-close`` once their targets are complete.

    Args:
        tasks: the table of tasks.
        hub: the hub of the subscriptions.
    """

    def __init__(
        self,
        tasks: TaskTable,
        hub: Hub,
        *,
        lost_grace_seconds: float = LOST_GRACE_SECONDS,
        wait_known_seconds: float = WAIT_KNOWN_SECONDS,
    ) -> None:
        self._tasks = tasks
        self._hub = hub
        self._lost_grace_seconds = lost_grace_seconds
        self._wait_known_seconds = wait_known_seconds
        self._waiting: dict[tuple[str, str], dict[Target, _Waiting]] = {}  # by field and value
        self._completed: OrderedDict[Target, tuple[int, CloseReason]] = OrderedDict()  # with its position
        self._target_count = 0
        self._sweep_at = MIN_SWEEP_TARGETS
        self._evicted = 0

    def is_complete(self, target: Target, last_event_id: str) -> bool:
        """Return whether a client got the end of its stream, and the target has not started again since.

        With a shared log the stream may have ended at another gateway: then the client must have got all
        events of the target.

        Args:
            last_event_id: the id of the last message that the client got.
        """
        position, completed = self._hub.position_of(last_event_id), self._completed.get(target)
        if position is None:
            return False
        if completed is None or position < completed[0]:
            return self._hub.history.older is not None and self._is_complete_after(target, position)
        completion = self._completion(target)
        return completion is not None and completion.reason == completed[1]

    def _is_complete_after(self, target: Target, position: int) -> bool:
        """Return whether a target is complete, without further wait, and has no event after a position.

        It is not if that cannot be found out with little work.
        """
        completion, history = self._completion(target), self._hub.history
        if completion is None or completion.reason == "unknown" or self._hub.written > history.position:
            return False
        begin = min(position, history.position_at(time.monotonic() - completion.after_seconds))
        count = history.position - begin
        if begin < history.evicted or count > MAX_SCANNED:
            return False
        value, is_workflow = target.value, target.field == "root_id"
        for entry in history.after(begin, count):
            keys = entry.keys
            if keys and (keys[_UUID] == value or (is_workflow and keys[_ROOT_ID] == value)):
                return False
        return True

    def add(self, subscription: Subscription, target: Target) -> None:
        """End a subscription when its target is complete, which may be at once."""
        self._sweep()
        by_target = self._waiting.setdefault((target.field, target.value), {})
        waiting = by_target.get(target)
        if waiting is None:
            waiting = by_target[target] = _Waiting()
            self._target_count += 1
        waiting.subscriptions[subscription] = asyncio.get_running_loop().time()
        self._schedule(target, waiting)

    def on_event(self, event: Event, origin_keys: Keys = ()) -> None:
        """Check the targets of an event that is in the table and in the stream.

        Args:
            origin_keys: see ``Hub.append``. An event that a target's scope does not pass has no effect on it.
        """
        if not self._waiting:
            return
        uuid, root_id = id_text(event.get("uuid")), id_text(event.get("root_id"))
        keys: Keys = ()
        # A task may turn out to have another root than itself.
        for field, value in {("uuid", uuid), ("root_id", root_id), ("root_id", uuid)}:
            by_target = self._waiting.get((field, value)) if value is not None else None
            for target, waiting in tuple(by_target.items()) if by_target else ():
                if target.visible is not None:
                    keys = keys or event_keys(event) + origin_keys
                    if not target.visible.matches(keys):
                        continue
                if waiting.due is not None and waiting.due[0] == "ready":
                    waiting.cancel()  # the quiet time begins again
                self._schedule(target, waiting)

    def on_evictions(self) -> None:
        """Check all targets if the table has evicted records since the last call: there is no event for
        that."""
        statistics = self._tasks.statistics()
        evicted = statistics.evicted_finished + statistics.evicted_unfinished
        if evicted == self._evicted or not self._waiting:
            return
        self._evicted = evicted
        for by_target in tuple(self._waiting.values()):
            for target, waiting in tuple(by_target.items()):
                self._schedule(target, waiting)

    def close(self) -> None:
        """Cancel all timers."""
        for by_target in self._waiting.values():
            for waiting in by_target.values():
                waiting.cancel()

    def _schedule(self, target: Target, waiting: _Waiting) -> None:
        """Schedule the end of a target's streams, or cancel it."""
        completion = self._completion(target)
        if completion is None:
            waiting.cancel()
        elif waiting.due != (completion.reason, completion.after_seconds):
            waiting.cancel()
            waiting.due = completion.reason, completion.after_seconds
            loop = asyncio.get_running_loop()
            if completion.after_seconds:
                waiting.timer = loop.call_later(
                    completion.after_seconds, self._end_when_sent, target, waiting
                )
            else:
                # The event that completes the target is sent before the end.
                self._hub.after_flush(lambda: self._end(target, waiting))

    def _end_when_sent(self, target: Target, waiting: _Waiting) -> None:
        if self._hub.written > self._hub.position:  # the table is ahead of the stream
            self._hub.after_flush(lambda: self._end(target, waiting))
        else:
            self._end(target, waiting)

    def _end(self, target: Target, waiting: _Waiting) -> None:
        completion = self._completion(target)
        is_waiting = self._waiting.get((target.field, target.value), {}).get(target) is waiting
        is_due = completion is not None and waiting.due == (completion.reason, completion.after_seconds)
        if completion is None or not is_due or not is_waiting:
            return  # it has started again, or its streams were ended already
        ended = list(waiting.subscriptions)
        if completion.reason == "unknown" and completion.after_seconds:  # for each stream from its beginning
            loop = asyncio.get_running_loop()
            began_by = loop.time() + 0.01 - completion.after_seconds
            ended = [each for each, at in waiting.subscriptions.items() if at <= began_by]
            if left := [at for at in waiting.subscriptions.values() if at > began_by]:
                next_at = min(left) + completion.after_seconds
                waiting.timer = loop.call_at(next_at, self._end, target, waiting)
                for subscription in ended:
                    del waiting.subscriptions[subscription]
                    subscription.end(completion.reason, completion.details)
                return
        self._completed[target] = self._hub.position, completion.reason
        self._completed.move_to_end(target)
        if len(self._completed) > MAX_COMPLETED:
            self._completed.popitem(last=False)
        self._remove(target)
        for subscription in ended:
            subscription.end(completion.reason, completion.details)

    def _completion(self, target: Target) -> Completion | None:
        """Return how a target is complete, or will be if its state does not change; else ``None``."""
        is_task = target.field == "uuid"
        return self._task_completion(target) if is_task else self._workflow_completion(target)

    def _task_completion(self, target: Target) -> Completion | None:
        tasks = [record.task for record in self._find(target)]
        if not tasks:
            return self._unknown(target, f"no event of the task {target.value!r} has been seen")
        ready = sum(task.is_ready for task in tasks)
        details = {
            "known": len(tasks),
            "ready": ready,
            "sent_events": all(task.sent is not None for task in tasks),
        }
        if ready == len(tasks):
            return Completion("ready", 0.0, details)
        if all(task.is_ready or task.lost is not None for task in tasks):
            return Completion("lost", self._lost_grace_seconds, details)
        return None

    def _workflow_completion(self, target: Target) -> Completion | None:
        roots = self._tasks.roots(target.value, target.cluster)
        visible, strangers = target.visible, []
        if visible is not None:
            others = [record for root in roots if root.strangers for record in root.strangers.values()]
            strangers = [record.task for record in others if not visible.matches(record.keys())]
        known = sum(len(root.members) for root in roots) - len(strangers)
        if not known:
            for record in self._find(target):
                root_id = record.task.root_id
                if root_id is None:  # it had started before the gateway consumed
                    return self._task_completion(target)
                message = f"the task {target.value!r} belongs to the root {root_id!r}"
                return Completion("unknown", 0.0, {"message": message, "root_id": root_id})
            return self._unknown(target, f"no event of the workflow {target.value!r} has been seen")
        unready = sum(root.unready for root in roots) - sum(not task.is_ready for task in strangers)
        lost = sum(root.lost for root in roots) - sum(task.lost is not None for task in strangers)
        is_sure = sum(root.unsent for root in roots) == sum(task.sent is None for task in strangers)
        details = {"known": known, "ready": known - unready, "sent_events": is_sure}
        if not unready:
            quiet_seconds = target.quiet_seconds
            if quiet_seconds is None:
                quiet_seconds = QUIET_SECONDS if is_sure else UNSURE_QUIET_SECONDS
            return Completion("ready", quiet_seconds, details)
        return Completion("lost", self._lost_grace_seconds, details) if lost == unready else None

    def _find(self, target: Target) -> list[Record]:
        """Return the records of a target's value that are visible."""
        records = self._tasks.find(target.value, target.cluster)
        if target.visible is None:
            return records
        return [record for record in records if target.visible.matches(record.keys())]

    def _unknown(self, target: Target, message: str) -> Completion:
        if target.visible is None and self._tasks.was_evicted(target.value, target.cluster):
            message = f"{target.value!r} was evicted (the table of tasks is full: see --max-tasks)"
            return Completion("unknown", 0.0, {"message": message})
        return Completion("unknown", self._wait_known_seconds, {"message": message})

    def _remove(self, target: Target) -> None:
        key = target.field, target.value
        by_target = self._waiting.get(key, {})
        self._target_count -= by_target.pop(target, None) is not None
        if not by_target:
            self._waiting.pop(key, None)

    def _sweep(self) -> None:
        """Remove the targets without open streams, if there may be many."""
        if self._target_count < self._sweep_at:
            return
        for by_target in tuple(self._waiting.values()):
            for target, waiting in tuple(by_target.items()):
                if all(subscription.is_ended for subscription in waiting.subscriptions):
                    waiting.cancel()
                    self._remove(target)
        self._sweep_at = max(MIN_SWEEP_TARGETS, 2 * self._target_count)
